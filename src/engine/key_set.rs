//! What a dry run remembers: the keys it would have created, as 128-bit hashes.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::error::{limit_reached, Result};
use crate::settings;

/// Takes the first eight bytes of what is already a hash.
#[derive(Default)]
pub struct Prehashed(u64);

impl Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = (hash >> 64) as u64;
    }
}

pub type Build = BuildHasherDefault<Prehashed>;

/// One bit of the hash holds a flag of the key.
const FLAG: u128 = 1;

/// Keys of owners (organizations), and one flag for each.
#[derive(Default)]
pub struct KeySet {
    keys: HashSet<u128, Build>,
}

/// The 128-bit hash of a key of an owner.
pub fn hash(owner: &str, key: &[u8]) -> u128 {
    thread_local! {
        /// Made anew in every backend, so that nobody can write a link that collides with another's.
        static SECRET: (u64, u64) = (RandomState::new().build_hasher().finish(), RandomState::new().build_hasher().finish());
    }
    let (first, second) = SECRET.with(|secret| *secret);
    let mut hasher = SipHasher13::new_with_keys(first, second);
    hasher.write(owner.as_bytes());
    // No text holds this byte, so that ("ab", "c") and ("a", "bc") differ.
    hasher.write(&[0xFF]);
    hasher.write(key);
    hasher.finish128().as_u128()
}

impl KeySet {
    /// The flag that was stored with the key, `None` when the key is unknown.
    pub fn get(&self, owner: &str, key: &str) -> Option<bool> {
        let hash = hash(owner, key.as_bytes());
        [hash | FLAG, hash & !FLAG]
            .into_iter()
            .find(|hash| self.keys.contains(hash))
            .map(|hash| hash & FLAG != 0)
    }

    /// Remembers a key.
    ///
    /// # Errors
    /// 53400 when the set would grow beyond `media_assets.dry_run_memory`.
    pub fn insert(&mut self, owner: &str, key: &str, flag: bool) -> Result<()> {
        if self.keys.len() == self.keys.capacity() {
            within_memory(self.keys.capacity() * 2 * (size_of::<u128>() + 1))?;
        }
        let hash = hash(owner, key.as_bytes());
        self.keys.insert(if flag { hash | FLAG } else { hash & !FLAG });
        Ok(())
    }
}

/// Keys that rows without one are about to get, and which row gets each.
#[derive(Default)]
pub struct KeyedRows {
    rows: HashMap<u128, ([u8; 16], bool), Build>,
}

impl KeyedRows {
    /// The id of the row and its flag.
    pub fn get(&self, owner: &str, key: &str) -> Option<([u8; 16], bool)> {
        self.rows.get(&hash(owner, key.as_bytes())).copied()
    }

    /// Gives the key to row `id` unless another row has it; says whether it did.
    ///
    /// # Errors
    /// 53400 when the map would grow beyond `media_assets.dry_run_memory`.
    pub fn insert(&mut self, owner: &str, key: &str, id: [u8; 16], flag: bool) -> Result<bool> {
        if self.rows.len() == self.rows.capacity() {
            within_memory(self.rows.capacity() * 2 * (size_of::<u128>() + 33))?;
        }
        match self.rows.entry(hash(owner, key.as_bytes())) {
            std::collections::hash_map::Entry::Occupied(_) => Ok(false),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert((id, flag));
                Ok(true)
            }
        }
    }
}

/// # Errors
/// 53400 when so many bytes are more than `media_assets.dry_run_memory` allows.
pub fn within_memory(bytes: usize) -> Result<()> {
    let allowed = settings::dry_run_memory();
    if bytes <= allowed {
        return Ok(());
    }
    Err(limit_reached(
        "the dry run would remember more keys than media_assets.dry_run_memory allows",
        format!("It needs {} kB, the setting allows {} kB.", bytes / 1024, allowed / 1024),
        format!(
            "SET media_assets.dry_run_memory = '{}kB'; or look at a part of the rows with organization_id, after and max_lessons.",
            bytes / 1024
        ),
    ))
}
