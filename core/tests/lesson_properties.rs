//! What holds of any two items of a lesson.

use media_assets_core::jobs::lesson::{are_same_upload, normalize, Normalized, Slot};
use proptest::prelude::*;
use serde_json::{json, Value};

/// Values that the members of an item are met with, odd ones included.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => prop_oneof![
            Just("uploads/a.mp4"), Just("uploads/b.pdf"), Just("upload"), Just("UPLOAD"), Just("youtube"), Just("generic"),
            Just("application/pdf"), Just("image/png"), Just("https://example.org/a.mp4"), Just("https://youtu.be/dQw4w9WgXcQ"),
            Just("Film.mp4"), Just("Film.png"), Just(""), Just(" "), Just("no such type"),
        ].prop_map(|text| json!(text)),
        1 => prop_oneof![Just(Value::Null), Just(json!(7)), Just(json!({"key": "x"})), Just(json!([]))],
    ]
}

fn item() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("key"),
        Just("videoKey"),
        Just("link"),
        Just("type"),
        Just("fileName"),
        Just("name"),
        Just("size"),
    ];
    let metadata = prop::option::of(value().prop_map(|mime| json!({"mimeType": mime})));
    (prop::collection::btree_map(name, value(), 0..5), metadata).prop_map(|(members, metadata)| {
        let mut item: serde_json::Map<String, Value> = members
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        item.extend(metadata.map(|metadata| ("metadata".to_owned(), metadata)));
        Value::Object(item)
    })
}

/// Another item that often shares what says where it is.
fn pair() -> impl Strategy<Value = (Value, Value)> {
    (item(), item(), any::<bool>()).prop_map(|(one, mut other, shares)| {
        if let (true, Some(from), Some(to)) = (shares, one.as_object(), other.as_object_mut()) {
            for name in ["key", "videoKey", "link", "type"] {
                match from.get(name) {
                    Some(value) => drop(to.insert(name.to_owned(), value.clone())),
                    None => drop(to.remove(name)),
                }
            }
        }
        (one, other)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_upload_has_one_key((one, other) in pair(), slot in prop_oneof![Just(Slot::Video), Just(Slot::Document)]) {
        if are_same_upload(slot, &one, &other) {
            let key = |item| match normalize(slot, Some(item)) {
                Normalized::Eligible(media) => Some((media.provider, media.canonical_key)),
                Normalized::Skipped { .. } => None,
            };
            prop_assert_eq!(key(&one), key(&other));
            prop_assert!(key(&one).is_some_and(|(provider, _)| provider == "upload"));
        }
    }
}

#[test]
fn uploads_with_other_descriptions_are_the_same() {
    let one = json!({"type": "upload", "key": "a.mp4", "fileName": "A.mp4", "size": 1});
    let other = json!({"type": "upload", "key": "a.mp4", "fileName": "A.png", "metadata": {"duration": 4}});
    assert!(are_same_upload(Slot::Video, &one, &other));
    let link = json!({"type": "youtube", "link": "https://youtu.be/dQw4w9WgXcQ"});
    assert!(!are_same_upload(Slot::Video, &link, &link), "only uploads");
}
