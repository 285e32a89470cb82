//! Exports of other systems, read line by line. A line that cannot be read is a problem with its number, never the end.

pub mod convex;
pub mod dynamodb;

use serde_json::Value;

/// What is wrong with a line, or with one field of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The number of the line in the file.
    pub line: i64,
    pub message: String,
}

/// A NUL, which JSON can hold and PostgreSQL cannot.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(elements) => elements.iter().any(has_nul),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The JSON of a line; `None` for a blank one. A byte order mark begins many files.
///
/// # Errors
/// What the parser says.
fn read_json(line: &str) -> Option<Result<Value, String>> {
    let text = crate::identity::trim(line);
    (!text.is_empty()).then(|| serde_json::from_str(text).map_err(|error| format!("no JSON: {error}")))
}
