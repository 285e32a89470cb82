//! The rules of `content.published.v1`, as `core/schemas/content.published.v1.json` writes them down.

use serde_json::{Map, Value};

use crate::decimal::Decimal;

/// Members that are strings wherever they stand.
const STRINGS: [&str; 7] = [
    "title",
    "description",
    "public_url",
    "jellyfin_item_id",
    "jellyfin_public_url",
    "namespace",
    "thumbnail_url",
];
/// Members of `meta` that are strings.
const META_STRINGS: [&str; 5] = [
    "premiere_date",
    "container",
    "backfill_version",
    "slug",
    "artifact_type",
];

/// The rule that `payload` breaks, `None` when it is a valid `content.published.v1`.
///
/// Source: Jellyfin metadata, `content_published_payload`.
pub fn breach(payload: &Value) -> Option<&'static str> {
    let Some(members) = payload.as_object() else {
        return Some("a payload is an object");
    };
    if !is_string(members, "artifact_uri", |uri| uri.starts_with("s3://")) {
        return Some("artifact_uri begins with s3://");
    }
    if !is_string(members, "published_path", |path| !path.is_empty()) {
        return Some("published_path is a string");
    }
    members.iter().find_map(|(name, value)| match name.as_str() {
        "artifact_uri" | "published_path" => None,
        name if STRINGS.contains(&name) => (!value.is_string()).then_some("texts are strings"),
        "tags" => {
            let strings = value.as_array().is_some_and(|tags| tags.iter().all(Value::is_string));
            (!strings).then_some("tags is an array of strings")
        }
        "duration" => (!is_duration(value)).then_some("duration is a number, not negative"),
        "meta" => (!is_meta(value)).then_some("meta holds what may be seen, and nothing else"),
        _ => Some("there are no other members"),
    })
}

fn is_string(members: &Map<String, Value>, name: &str, rule: impl Fn(&str) -> bool) -> bool {
    members.get(name).and_then(Value::as_str).is_some_and(rule)
}

fn is_duration(value: &Value) -> bool {
    let Value::Number(seconds) = value else {
        return false;
    };
    Decimal::parse(&seconds.to_string()).is_some_and(|seconds| seconds >= Decimal::default())
}

fn is_meta(value: &Value) -> bool {
    value.as_object().is_some_and(|meta| {
        meta.iter().all(|(name, value)| match name.as_str() {
            "production_year" => value.is_number(),
            name => META_STRINGS.contains(&name) && value.is_string(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::breach;
    use serde_json::json;

    #[test]
    fn each_rule_is_said() {
        let with = |name: &str, value: serde_json::Value| {
            let mut payload = json!({"artifact_uri": "s3://b/k", "published_path": "k"});
            payload[name] = value;
            breach(&payload)
        };
        assert_eq!(with("title", json!("T")), None);
        for (name, value) in [
            ("artifact_uri", json!("https://b/k")),
            ("published_path", json!("")),
            ("title", json!(null)),
            ("tags", json!(["a", 1])),
            ("duration", json!(-0.5)),
            ("duration", json!("5")),
            ("meta", json!({"Path": "/srv"})),
            ("meta", json!([])),
            ("secret", json!("s")),
        ] {
            assert!(with(name, value.clone()).is_some(), "{name} {value}");
        }
        assert!(breach(&json!([])).is_some() && breach(&json!({})).is_some());
    }
}
