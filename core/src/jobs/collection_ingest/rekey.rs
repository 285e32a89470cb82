//! Key drift: what becomes of the keys of a collection when the rules of keys change, or its rule of case.

use std::collections::{HashMap, HashSet};

/// A row of a collection with its present key.
#[derive(Clone, Copy, Debug)]
pub struct KeyedRow<'a> {
    /// What the key is made of: the path or external id.
    pub locator: &'a str,
    pub canonical_key: &'a str,
}

/// What becomes of the key of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rekeying {
    Unchanged,
    Rekeyed(String),
    /// Another row has or would get this key; the row keeps the one it has.
    Collision(String),
    /// The new rules give its locator no key; the row keeps the one it has.
    Unkeyable,
}

/// Decides all rows of one collection; `key_of` is the new rule. No two rows end with one key, whatever the order, and
/// none of several rows that want one key is preferred, unless it has it already.
///
/// Source: issue and rules of collection ingest, key drift.
pub fn rekey(rows: &[KeyedRow<'_>], key_of: impl Fn(&str) -> Option<String>) -> Vec<Rekeying> {
    let mut decided: Vec<Rekeying> = rows
        .iter()
        .map(|row| match key_of(row.locator) {
            None => Rekeying::Unkeyable,
            Some(key) if key == row.canonical_key => Rekeying::Unchanged,
            Some(key) => Rekeying::Rekeyed(key),
        })
        .collect();
    let mut wanted: HashMap<String, usize> = HashMap::new();
    for key in decided.iter().filter_map(new_key) {
        *wanted.entry(key.to_owned()).or_default() += 1;
    }
    let mut kept: HashSet<&str> = HashSet::new();
    for (row, rekeying) in rows.iter().zip(&decided) {
        if !matches!(rekeying, Rekeying::Rekeyed(_)) {
            kept.insert(row.canonical_key);
        }
    }
    // A row that stays keeps its old key, which another one may have wanted.
    loop {
        let mut any = false;
        for (row, rekeying) in rows.iter().zip(&mut decided) {
            let Some(key) = new_key(rekeying).map(str::to_owned) else {
                continue;
            };
            if kept.contains(&*key) || wanted.get(&key).is_some_and(|rows| *rows > 1) {
                *rekeying = Rekeying::Collision(key);
                any |= kept.insert(row.canonical_key);
            }
        }
        if !any {
            return decided;
        }
    }
}

fn new_key(rekeying: &Rekeying) -> Option<&str> {
    match rekeying {
        Rekeying::Rekeyed(key) => Some(key),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::collection_ingest::item_key;
    use proptest::prelude::*;

    fn rekeyed(rows: &[(&str, &str)], key_of: impl Fn(&str) -> Option<String>) -> Vec<Rekeying> {
        let rows: Vec<KeyedRow> = rows
            .iter()
            .map(|(locator, canonical_key)| KeyedRow { locator, canonical_key })
            .collect();
        rekey(&rows, key_of)
    }

    #[test]
    fn a_collection_becomes_insensitive_to_case() {
        let key = |locator: &str| item_key("filesystem", locator, false);
        let decided = rekeyed(
            &[
                ("/m/A.mkv", "filesystem:/m/A.mkv"),
                ("/m/B.mkv", "filesystem:/m/B.mkv"),
                ("/m/b.mkv", "filesystem:/m/b.mkv"),
                ("/m/C.mkv", "filesystem:/m/C.mkv"),
                ("/m/c.MKV", "filesystem:/m/c.MKV"),
                (" ", "odd"),
            ],
            key,
        );
        assert_eq!(
            decided,
            [
                Rekeying::Rekeyed("filesystem:/m/a.mkv".into()),
                Rekeying::Collision("filesystem:/m/b.mkv".into()),
                Rekeying::Unchanged,
                Rekeying::Collision("filesystem:/m/c.mkv".into()),
                Rekeying::Collision("filesystem:/m/c.mkv".into()),
                Rekeying::Unkeyable,
            ]
        );
    }

    #[test]
    fn a_second_version_of_the_rules_moves_all_keys() {
        let version_2 = |locator: &str| Some(format!("v2:{locator}"));
        let decided = rekeyed(&[("a", "v1:a"), ("b", "v2:a"), ("c", "v2:c")], version_2);
        // `b` gives `v2:a` up, so `a` may have it.
        assert_eq!(
            decided,
            [
                Rekeying::Rekeyed("v2:a".into()),
                Rekeying::Rekeyed("v2:b".into()),
                Rekeying::Unchanged,
            ]
        );
        let stuck = rekeyed(&[("a", "v1:a"), ("b", "v2:a"), ("b", "v2:x")], version_2);
        assert_eq!(
            stuck,
            ["v2:a", "v2:b", "v2:b"].map(|key| Rekeying::Collision(key.into()))
        );
    }

    proptest! {
        #[test]
        fn keys_stay_unique(rows in prop::collection::btree_map("[a-e]", "[a-e]", 0..5)) {
            let pairs: Vec<(&str, &str)> = rows.iter().map(|(key, locator)| (&**locator, &**key)).collect();
            let decided = rekeyed(&pairs, |locator| (locator != "e").then(|| locator.to_owned()));
            let after: HashSet<&str> = pairs
                .iter()
                .zip(&decided)
                .map(|((_, key), rekeying)| new_key(rekeying).unwrap_or(key))
                .collect();
            prop_assert_eq!(after.len(), rows.len());
        }
    }
}
