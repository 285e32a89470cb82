//! Writing `assetId` into the items of a jsonb array, everything else untouched.

use media_assets_core::json::{Json, Kind};
use pgrx::pg_sys::{self, JsonbIteratorToken, JsonbParseState, JsonbValue};

use super::jsonb::{Jsonb, JsonbRef};
use super::jsonb_build::{finished, push, string};

const KEY: &str = "assetId";

/// What an element's `assetId` becomes.
#[derive(Clone, Copy)]
pub enum AssetId {
    Set([u8; 16]),
    /// A value of any kind, as it was before.
    Restore(Jsonb),
    Remove,
}

/// `items` with `assetId` of element *i* set to `ids[i]`, where that is given and the element is an object.
///
/// Other members, other elements, number digits and nested values stay as they are. Anything but an array is returned
/// as it is.
pub fn patch_asset_ids(items: Jsonb, ids: &[Option<[u8; 16]>]) -> Jsonb {
    patch(items, |index| ids.get(index).copied().flatten().map(AssetId::Set))
}

/// `items` without the `assetId` of element *i*, where `taken[i]`; everything else as [`patch_asset_ids`] leaves it.
pub fn without_asset_ids(items: Jsonb, taken: &[bool]) -> Jsonb {
    patch(items, |index| {
        taken.get(index).copied().unwrap_or(false).then_some(AssetId::Remove)
    })
}

/// As [`patch_asset_ids`], with all that may become of an `assetId`.
pub fn patch(items: Jsonb, id_of: impl Fn(usize) -> Option<AssetId>) -> Jsonb {
    let array = items.value();
    if array.kind() != Kind::Array {
        return items;
    }
    let mut state: *mut JsonbParseState = std::ptr::null_mut();
    push(&mut state, JsonbIteratorToken::WJB_BEGIN_ARRAY, None);
    for index in 0..array.len() {
        let Some(element) = array.at(index) else { break };
        match id_of(index) {
            Some(id) if element.kind() == Kind::Object => push_with_id(&mut state, element, id),
            _ => {
                push(&mut state, JsonbIteratorToken::WJB_ELEM, Some(element.raw()));
            }
        }
    }
    finished(push(&mut state, JsonbIteratorToken::WJB_END_ARRAY, None))
}

fn push_with_id(state: &mut *mut JsonbParseState, object: JsonbRef<'_>, id: AssetId) {
    let Some(container) = object.container() else { return };
    push(state, JsonbIteratorToken::WJB_BEGIN_OBJECT, None);
    // SAFETY: the iterator walks the object's container; with nested values skipped it gives pairs of key and value
    // between the begin and end tokens, and sets itself to NULL at the end.
    unsafe {
        let mut iterator = pg_sys::JsonbIteratorInit(container);
        let mut value: JsonbValue = std::mem::zeroed();
        let mut own_key = false;
        loop {
            match pg_sys::JsonbIteratorNext(&mut iterator, &mut value, true) {
                JsonbIteratorToken::WJB_DONE => break,
                JsonbIteratorToken::WJB_KEY => {
                    let key = value.val.string;
                    own_key = std::slice::from_raw_parts(key.val.cast::<u8>(), key.len as usize) == KEY.as_bytes();
                    if !own_key {
                        push(state, JsonbIteratorToken::WJB_KEY, Some(value));
                    }
                }
                JsonbIteratorToken::WJB_VALUE if !own_key => {
                    push(state, JsonbIteratorToken::WJB_VALUE, Some(value));
                }
                _ => {}
            }
        }
    }
    let text;
    let value = match &id {
        AssetId::Set(id) => {
            text = uuid::Uuid::from_bytes(*id).hyphenated().to_string();
            Some(string(text.as_bytes()))
        }
        AssetId::Restore(before) => Some(before.value().raw()),
        AssetId::Remove => None,
    };
    if let Some(value) = value {
        push(state, JsonbIteratorToken::WJB_KEY, Some(string(KEY.as_bytes())));
        // A container is taken apart and put in as it is.
        push(state, JsonbIteratorToken::WJB_VALUE, Some(value));
    }
    push(state, JsonbIteratorToken::WJB_END_OBJECT, None);
}
