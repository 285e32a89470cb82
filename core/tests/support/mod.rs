//! Reading test vectors, shared by the tests of the jobs.
#![allow(dead_code, reason = "each test uses a part of it")]

use media_assets_core::time::parse_timestamp;
use serde_json::Value;

/// The vectors of `vectors/<name>.jsonl`.
pub fn vectors(name: &str) -> Vec<Value> {
    let path = format!("{}/tests/vectors/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let lines = std::fs::read_to_string(&path).expect("vectors are part of the crate");
    let vectors: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a vector is JSON"))
        .collect();
    assert!(!vectors.is_empty(), "{name} is empty");
    vectors
}

/// Runs `differences` for every vector and reports all of them at once.
pub fn check(name: &str, differences: impl Fn(&Value) -> Vec<String>) {
    let vectors = vectors(name);
    let failed: Vec<String> = vectors
        .iter()
        .filter_map(|vector| {
            let found = differences(vector);
            (!found.is_empty()).then(|| format!("{}: {}\n  {}", vector["id"], vector["why"], found.join("\n  ")))
        })
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {} differ\n{}",
        failed.len(),
        vectors.len(),
        failed.join("\n")
    );
}

/// Notes `what` when the two values differ.
pub fn compare(differences: &mut Vec<String>, what: &str, expected: &Value, got: &Value) {
    if !same(expected, got) {
        differences.push(format!("{what}: expected {expected}, got {got}"));
    }
}

/// Notes every counter of `expected` that differs.
pub fn compare_counters(
    differences: &mut Vec<String>,
    what: &str,
    expected: &Value,
    got: impl Iterator<Item = (&'static str, i64)>,
) {
    let got: std::collections::HashMap<&str, i64> = got.collect();
    for (name, value) in expected.as_object().expect("counters are an object") {
        if value.as_i64() != got.get(name.as_str()).copied() {
            differences.push(format!(
                "{what} {name}: expected {value}, got {:?}",
                got.get(name.as_str())
            ));
        }
    }
}

/// Equality of jsonb: numbers by value, objects without order.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(name, value)| b.get(name).is_some_and(|other| same(value, other)))
        }
        _ => a == b,
    }
}

/// A jsonb column of a vector: `None` is SQL NULL, `"json null"` the JSON value.
pub fn jsonb(column: Option<&Value>) -> Option<Value> {
    match column {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text == "json null" => Some(Value::Null),
        Some(value) => Some(value.clone()),
    }
}

/// A jsonb column as vectors write it.
pub fn written(column: Option<&Value>) -> Value {
    match column {
        None => Value::Null,
        Some(Value::Null) => Value::from("json null"),
        Some(value) => value.clone(),
    }
}

/// Microseconds since the epoch of an ISO text or a number of seconds.
pub fn microseconds(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => parse_timestamp(text),
        Value::Number(number) => media_assets_core::time::timestamp_of_number(number.as_str()),
        _ => None,
    }
}
