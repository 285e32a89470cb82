//! Vector files: JSON read to the digit.

use serde_json::Value;

/// The objects of a JSON-lines text.
///
/// # Panics
/// When a line is no JSON or the text holds none.
pub fn lines(text: &str) -> Vec<Value> {
    let all: Vec<Value> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    assert!(!all.is_empty(), "an empty vector file");
    all
}

/// The vector file of this name, of `core/tests/vectors` (identity) or `tests/vectors` (lessons).
///
/// # Panics
/// When there is none.
pub fn vectors(name: &str) -> Vec<Value> {
    let here = env!("CARGO_MANIFEST_DIR");
    let found = ["vectors", "../core/tests/vectors"]
        .map(|folder| format!("{here}/{folder}/{name}.jsonl"))
        .into_iter()
        .find_map(|path| std::fs::read_to_string(path).ok());
    lines(&found.unwrap_or_else(|| panic!("no vectors {name}.jsonl in tests/vectors or core/tests/vectors")))
}

/// A scalar as PostgreSQL writes it as text; an object or array as JSON; null as None.
pub fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Bool(true) => Some("t".into()),
        Value::Bool(false) => Some("f".into()),
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
