//! What the row trigger hands to the statement trigger: ids given to assets that the statement is going to make when its
//! rows are in, and assets that are there.
//!
//! A statement over many lessons writes each of them once, with the `assetId`s in place, and makes the assets together at
//! its end. An id that is forgotten (the transaction is over, too many are waiting) costs a second write of its lesson,
//! nothing else.

use std::cell::RefCell;
use std::collections::HashMap;

use media_assets_core::jobs::lesson::AssetId;

use crate::engine::key_set::Build;
use crate::postgres::transaction_end;

/// Ids that wait at most; about 25 MB.
const MOST: usize = 400_000;

thread_local! {
    /// The hash of (organization, key) that each id is for.
    static RESERVED: RefCell<HashMap<AssetId, u128>> = RefCell::default();
    /// The hashes of (organization, key) and (organization, id) of assets that the row trigger has found.
    static FOUND: RefCell<HashMap<u128, u128, Build>> = RefCell::default();
}

pub fn register() {
    transaction_end::call(|| {
        RESERVED.with(|reserved| {
            if let Ok(mut reserved) = reserved.try_borrow_mut() {
                *reserved = HashMap::new();
            }
        });
        forget_found();
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

/// An asset was found, by the hashes of its organization with its id and with its key.
pub fn found(id: u128, key: u128) {
    FOUND.with_borrow_mut(|found| {
        if found.len() < MOST {
            found.insert(id, key);
        }
    });
}

/// Whether that asset was found in this statement.
pub fn was_found(id: u128, key: u128) -> bool {
    FOUND.with_borrow(|found| !found.is_empty() && found.get(&id) == Some(&key))
}

/// The statement is over.
pub fn forget_found() {
    FOUND.with(|found| {
        if let Ok(mut found) = found.try_borrow_mut() {
            *found = HashMap::default();
        }
    });
}
