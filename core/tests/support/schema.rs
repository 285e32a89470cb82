//! The schema of the events that are published.

use std::sync::LazyLock;

use serde_json::Value;

static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let schema: Value =
        serde_json::from_str(include_str!("../../schemas/content.published.v1.json")).expect("a schema is JSON");
    jsonschema::validator_for(&schema).expect("a valid schema")
});

/// What is wrong with a payload by the schema `content.published.v1`.
pub fn breaches(payload: &Value) -> Vec<String> {
    SCHEMA
        .iter_errors(payload)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}
