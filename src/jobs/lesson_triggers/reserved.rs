//! Ids given to assets that a statement is going to make when its rows are in.
//!
//! A statement over many lessons writes each of them once, with the `assetId`s in place, and makes the assets together at
//! its end. An id that is forgotten (the transaction is over, too many are waiting) costs a second write of its lesson,
//! nothing else.

use std::cell::RefCell;
use std::collections::HashMap;

use media_assets_core::jobs::lesson::AssetId;

use crate::postgres::transaction_end;

/// Ids that wait at most; about 25 MB.
const MOST: usize = 400_000;

thread_local! {
    /// The hash of (organization, key) that each id is for.
    static RESERVED: RefCell<HashMap<AssetId, u128>> = RefCell::default();
}

pub fn register() {
    transaction_end::call(|| {
        RESERVED.with(|reserved| {
            if let Ok(mut reserved) = reserved.try_borrow_mut() {
                *reserved = HashMap::new();
            }
        });
    });
}

/// Whether an id was reserved for the asset with this hash of organization and key.
pub fn is_for(id: AssetId, key: u128) -> bool {
    RESERVED.with_borrow(|reserved| !reserved.is_empty() && reserved.get(&id) == Some(&key))
}

/// Whether an id was reserved, for whatever asset.
pub fn is_waiting(id: AssetId) -> bool {
    RESERVED.with_borrow(|reserved| !reserved.is_empty() && reserved.contains_key(&id))
}

pub fn add(id: AssetId, key: u128) {
    RESERVED.with_borrow_mut(|reserved| {
        if reserved.len() < MOST {
            reserved.insert(id, key);
        }
    });
}

/// Whether there is room for more.
pub fn has_room() -> bool {
    RESERVED.with_borrow(|reserved| reserved.len() < MOST)
}

/// The asset is there: its id needs no reservation.
pub fn settle(id: AssetId) {
    RESERVED.with_borrow_mut(|reserved| reserved.remove(&id));
}
