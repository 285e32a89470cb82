//! jsonb made of values: no text form that the server would have to parse.

use pgrx::pg_sys::{self, jbvType, JsonbIteratorToken, JsonbParseState, JsonbValue};
use serde_json::Value;

use super::jsonb::{from_text, Jsonb};

/// A jsonb of a value that core made, in the current memory context.
pub fn from_json(value: &Value) -> Jsonb {
    let mut state: *mut JsonbParseState = std::ptr::null_mut();
    match push_container(&mut state, value) {
        Some(built) => finished(built),
        // A scalar: rare, and its form is one of its own.
        None => from_text(&value.to_string()),
    }
}

/// Pushes an object or an array; gives what is built so far, `None` for a scalar, which is not pushed.
fn push_container(state: &mut *mut JsonbParseState, value: &Value) -> Option<*mut JsonbValue> {
    match value {
        Value::Object(members) => {
            push(state, JsonbIteratorToken::WJB_BEGIN_OBJECT, None);
            for (name, member) in members {
                push(state, JsonbIteratorToken::WJB_KEY, Some(string(name.as_bytes())));
                push_value(state, JsonbIteratorToken::WJB_VALUE, member);
            }
            Some(push(state, JsonbIteratorToken::WJB_END_OBJECT, None))
        }
        Value::Array(elements) => {
            push(state, JsonbIteratorToken::WJB_BEGIN_ARRAY, None);
            for element in elements {
                push_value(state, JsonbIteratorToken::WJB_ELEM, element);
            }
            Some(push(state, JsonbIteratorToken::WJB_END_ARRAY, None))
        }
        _ => None,
    }
}

fn push_value(state: &mut *mut JsonbParseState, token: JsonbIteratorToken::Type, value: &Value) {
    if push_container(state, value).is_none() {
        push(state, token, Some(scalar(value)));
    }
}

fn scalar(value: &Value) -> JsonbValue {
    if let Value::String(text) = value {
        return string(text.as_bytes());
    }
    // SAFETY: all zero is a valid JsonbValue (jbvNull); tag and member are set together.
    unsafe {
        let mut scalar: JsonbValue = std::mem::zeroed();
        match value {
            Value::Bool(value) => {
                scalar.type_ = jbvType::jbvBool;
                scalar.val.boolean = *value;
            }
            Value::Number(number) => {
                scalar.type_ = jbvType::jbvNumeric;
                scalar.val.numeric = numeric(number.as_str());
            }
            _ => {}
        }
        scalar
    }
}

/// A numeric of the text of a JSON number, every digit kept.
fn numeric(text: &str) -> pg_sys::Numeric {
    let text = std::ffi::CString::new(text).unwrap_or_default();
    // SAFETY: numeric_in takes a C string, an unused type and no length, and gives a fresh numeric or raises.
    unsafe {
        let arguments = [Some(text.as_ptr().into()), Some(0.into()), Some((-1i32).into())];
        pgrx::direct_function_call_as_datum(pg_sys::numeric_in, &arguments)
            .map_or(std::ptr::null_mut(), |datum| datum.cast_mut_ptr())
    }
}

pub(super) fn push(
    state: &mut *mut JsonbParseState,
    token: JsonbIteratorToken::Type,
    value: Option<JsonbValue>,
) -> *mut JsonbValue {
    let mut value = value;
    let pointer = value.as_mut().map_or(std::ptr::null_mut(), std::ptr::from_mut);
    // SAFETY: the callers push tokens in matching pairs; the value is copied into the state, and what it points at lives in
    // the current memory context or in a jsonb that lives as long.
    unsafe { pg_sys::pushJsonbValue(state, token, pointer) }
}

pub(super) fn string(bytes: &[u8]) -> JsonbValue {
    // SAFETY: all zero is a valid JsonbValue (jbvNull); tag and member are set together.
    unsafe {
        let mut value: JsonbValue = std::mem::zeroed();
        value.type_ = jbvType::jbvString;
        value.val.string.len = bytes.len() as i32;
        // Copied, since the state keeps the pointer until the jsonb is built.
        let copy = pg_sys::palloc(bytes.len()).cast::<u8>();
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), copy, bytes.len());
        value.val.string.val = copy.cast();
        value
    }
}

/// The jsonb of the value that the last push gave.
pub(super) fn finished(value: *mut JsonbValue) -> Jsonb {
    // SAFETY: the value was built with pushJsonbValue, and is complete.
    Jsonb::of_pointer(unsafe { pg_sys::JsonbValueToJsonb(value) })
}
