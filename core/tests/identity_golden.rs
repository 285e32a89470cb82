//! The golden keys: keys stand in unique indexes of running systems, so none of them may ever change under one version.
//!
//! A change of rules is a new `ASSET_KEY_VERSION` with a new file; the old file stays.

use media_assets_core::identity::{asset_canonical_key, ASSET_KEY_VERSION};

/// Lines of the file of version 1. Lines may be added there, never changed.
const LINES_OF_VERSION_1: usize = 60;

/// `\N` is NULL.
fn field(text: &str) -> Option<&str> {
    (text != "\\N").then_some(text)
}

#[test]
fn no_key_changes_without_a_new_version() {
    let path = format!(
        "{}/tests/golden/keys_v{ASSET_KEY_VERSION}.tsv",
        env!("CARGO_MANIFEST_DIR")
    );
    let golden = std::fs::read_to_string(&path).expect("each version of the rules has its golden file");
    let mut changed = Vec::new();
    for line in golden.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [provider, locator, kind, expected] = fields[..] else {
            panic!("a golden line has four fields: {line:?}");
        };
        let key = asset_canonical_key(provider, locator, field(kind));
        if key.as_deref() != field(expected) {
            changed.push(format!(
                "{provider}\t{locator}\t{kind}\n  was {expected}\n  is  {key:?}"
            ));
        }
    }
    assert!(
        golden.lines().count() >= LINES_OF_VERSION_1,
        "golden lines were removed"
    );
    assert!(
        changed.is_empty(),
        "keys changed without a new version:\n{}",
        changed.join("\n")
    );
}
