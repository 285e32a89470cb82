//! The test vectors of the identity rules: one JSON object on each line of `vectors/*.jsonl`.

use media_assets_core::identity::{
    asset_canonical_key, canonical_url, content_signature, enricher_checksum, infer_asset_kind, infer_mime_type,
    normalize_path, parse_media_link, FacetValue, Facets,
};
use serde_json::{Map, Value};

/// Runs `answer` for every vector of `name` and compares; all differences are reported at once.
fn check(name: &str, answer: impl Fn(&Value) -> Value) {
    let path = format!("{}/tests/vectors/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let lines = std::fs::read_to_string(&path).expect("vectors are part of the crate");
    let mut differences = Vec::new();
    let mut count = 0;
    for line in lines.lines() {
        let vector: Value = serde_json::from_str(line).expect("a vector is JSON");
        let got = answer(&vector);
        if !agrees(&vector["expect"], &got) {
            differences.push(format!(
                "{}: {}\n  expected {}\n  got      {got}",
                vector["id"], vector["why"], vector["expect"]
            ));
        }
        count += 1;
    }
    assert!(count > 0, "{name} is empty");
    assert!(
        differences.is_empty(),
        "{} of {count} differ\n{}",
        differences.len(),
        differences.join("\n")
    );
}

/// Columns that `expected` does not name are not compared; `media_kind_not` is any kind but this one.
fn agrees(expected: &Value, got: &Value) -> bool {
    match (expected.as_object(), got.as_object()) {
        (Some(expected), Some(got)) => expected.iter().all(|(name, value)| match name.as_str() {
            "media_kind_not" => got.get("media_kind") != Some(value),
            name => got.get(name) == Some(value),
        }),
        _ => expected == got,
    }
}

fn facets_json(facets: &Facets) -> Value {
    let members: Map<String, Value> = facets
        .iter()
        .map(|(name, value)| {
            let value = match value {
                FacetValue::Integer(number) => Value::from(*number),
                FacetValue::Text(text) => Value::from(text.as_str()),
            };
            (name.to_owned(), value)
        })
        .collect();
    let json = Value::Object(members);
    assert_eq!(
        serde_json::from_str::<Value>(&facets.to_json_text()).expect("facets are JSON"),
        json
    );
    json
}

#[test]
fn media_links() {
    check("media_links", |vector| {
        let link = parse_media_link(vector["link"].as_str().unwrap_or_default());
        serde_json::json!({
            "provider": link.provider,
            "media_kind": link.media_kind,
            "media_id": link.media_id,
            "canonical_url": link.canonical_url,
            "facets": facets_json(&link.facets),
        })
    });
}

#[test]
fn canonical_urls() {
    check("canonical_urls", |vector| {
        canonical_url(vector["link"].as_str().unwrap_or_default()).into()
    });
}

#[test]
fn canonical_keys() {
    check("canonical_keys", |vector| {
        match (vector["provider"].as_str(), vector["locator"].as_str()) {
            (Some(provider), Some(locator)) => asset_canonical_key(provider, locator, vector["kind"].as_str()).into(),
            _ => Value::Null,
        }
    });
}

#[test]
fn mime_types() {
    check("mime_types", |vector| {
        infer_mime_type(
            vector["declared"].as_str(),
            vector["filename"].as_str(),
            vector["link"].as_str(),
        )
        .into()
    });
}

#[test]
fn asset_kinds() {
    check("asset_kinds", |vector| {
        infer_asset_kind(
            vector["mime_type"].as_str(),
            vector["fallback"].as_str().unwrap_or("other"),
        )
        .into()
    });
}

#[test]
fn paths() {
    check("paths", |vector| {
        let case_sensitive = vector["case_sensitive"].as_bool().unwrap_or(true);
        normalize_path(vector["path"].as_str().unwrap_or_default(), case_sensitive).into()
    });
}

#[test]
fn enricher_checksums() {
    check("enricher_checksums", |vector| {
        enricher_checksum(&vector["enrichers"]).into()
    });
}

#[test]
fn content_signatures() {
    check("content_signatures", |vector| {
        content_signature(
            vector["hash"].as_str(),
            vector["size"].as_i64(),
            vector["mtime_microseconds"].as_i64(),
        )
        .into()
    });
}
