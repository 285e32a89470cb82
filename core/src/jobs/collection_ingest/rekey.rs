//! Keys of stored rows when the key rules have a new version, or a collection changes its mind about case.

/// Rules by which a key may have been made of a locator.
pub type KeyRule<'r> = &'r dyn Fn(&str) -> Option<String>;

/// The key that a stored row would have under the rule `new`, from the locator that its key was made of: its `uri`, else
/// what stands in the key itself. `None` where neither gives the stored key by any of `known`: nobody can tell its locator.
///
/// - `stored_key`: the row's key, `<source>:<locator>`
/// - `known`: every rule by which stored keys may have been made, `new` among them
///
/// Source: collection ingest rules, key drift.
pub fn rekey(stored_key: &str, uri: Option<&str>, known: &[KeyRule<'_>], new: KeyRule<'_>) -> Option<String> {
    // The hash of a long key is no locator.
    let in_key = stored_key
        .split_once(':')
        .map(|(_, locator)| locator)
        .filter(|locator| !locator.starts_with("sha256:"));
    [uri, in_key]
        .into_iter()
        .flatten()
        .find(|locator| known.iter().any(|rule| rule(locator).as_deref() == Some(stored_key)))
        .and_then(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::collection_ingest::item_key;

    fn sensitive(locator: &str) -> Option<String> {
        item_key("filesystem", locator, true)
    }

    fn folded(locator: &str) -> Option<String> {
        item_key("filesystem", locator, false)
    }

    #[test]
    fn keys_follow_the_case_rule_there_and_back() {
        let known: [KeyRule; 2] = [&sensitive, &folded];
        let there = rekey("filesystem:/M/A.mkv", Some("/M/A.mkv"), &known, &folded);
        assert_eq!(there.as_deref(), Some("filesystem:/m/a.mkv"));
        let back = rekey("filesystem:/m/a.mkv", Some("/M/A.mkv"), &known, &sensitive);
        assert_eq!(back.as_deref(), Some("filesystem:/M/A.mkv"));
        // Without a uri of the key the key is all there is.
        for uri in [None, Some("/elsewhere/a.mkv"), Some("")] {
            assert_eq!(
                rekey("filesystem:/M/A.mkv", uri, &known, &folded).as_deref(),
                Some("filesystem:/m/a.mkv")
            );
            assert_eq!(
                rekey("filesystem:/m/a.mkv", uri, &known, &sensitive).as_deref(),
                Some("filesystem:/m/a.mkv")
            );
        }
    }

    #[test]
    fn a_hashed_key_needs_its_uri() {
        let long = format!("/M/{}", "X".repeat(2000));
        let stored = sensitive(&long).expect("a key");
        let known: [KeyRule; 2] = [&sensitive, &folded];
        assert_eq!(rekey(&stored, Some(&long), &known, &folded), folded(&long));
        assert_eq!(rekey(&stored, None, &known, &folded), None);
    }

    #[test]
    fn a_second_version_of_the_rules_takes_over() {
        let second = |locator: &str| sensitive(locator).map(|key| key.replace("filesystem:", "filesystem:v2:"));
        let known: [KeyRule; 2] = [&sensitive, &second];
        let moved = rekey("filesystem:/m/a", None, &known, &second);
        assert_eq!(moved.as_deref(), Some("filesystem:v2:/m/a"));
        assert_eq!(rekey("filesystem:v2:/m/a", Some("/m/a"), &known, &second), moved);
        assert_eq!(rekey("odd", None, &known, &second), None);
    }
}
