//! A Convex export: documents of one table, one JSON object on each line, turned into rows of ours.
//!
//! Convex writes floats with a dot (`3.0`), also where an integer is meant, and what JSON has no form for as
//! `{"$integer": base64}`, `{"$float": base64}` (little endian, eight bytes) and `{"$bytes": base64}`. Absent and null
//! differ: JSON null in a jsonb column stays JSON null, elsewhere it is SQL NULL.
//!
//! Source: S3 assets, import and rulings.

mod tables;

pub use tables::{Column, ColumnType, Table};

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use serde_json::{Number, Value};
use uuid::Uuid;

use super::{has_nul, read_json, Problem};
use crate::decimal::Decimal;
use crate::time::timestamp_of_number;

/// The value of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Null,
    Text(String),
    Integer(i64),
    Json(Value),
    /// Microseconds since the epoch.
    Timestamp(i64),
}

/// One document.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub line: i64,
    /// The document's `_id`; for a reference the UUIDv5 that follows from it, so that another import finds it again.
    pub id: String,
    /// In the order of [`Table::columns`].
    pub cells: Vec<Cell>,
}

/// What the lines of an export hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Import {
    pub rows: Vec<Row>,
    /// Lines that are no document.
    pub failed: i64,
    /// Those, and values that do not fit their column and became NULL.
    pub problems: Vec<Problem>,
}

/// Reads lines of an export; `first_line` is the number of the first one. `None` is SQL NULL. Blank lines are passed over.
pub fn read_documents<'l>(table: Table, lines: impl IntoIterator<Item = Option<&'l str>>, first_line: i64) -> Import {
    let mut import = Import::default();
    for (line, text) in (first_line..).zip(lines) {
        let document = match text.map(read_json) {
            None => Err("no line".to_owned()),
            Some(None) => continue,
            Some(Some(document)) => document,
        };
        let row = document.and_then(|document| read_document(table, line, &document, &mut import.problems));
        match row {
            Ok(row) => import.rows.push(row),
            Err(message) => {
                import.failed += 1;
                import.problems.push(Problem { line, message });
            }
        }
    }
    import
}

fn read_document(table: Table, line: i64, document: &Value, problems: &mut Vec<Problem>) -> Result<Row, String> {
    let id = document
        .get("_id")
        .and_then(Value::as_str)
        .filter(|id| !id.is_empty() && !id.contains('\0'))
        .ok_or("no document: an object with a string _id is wanted")?;
    let cells = table
        .columns()
        .iter()
        .map(|column| {
            let Some(value) = document.get(column.field) else {
                return Cell::Null;
            };
            let mut report = |what: &str| {
                problems.push(Problem {
                    line,
                    message: format!("{} {what}", column.field),
                });
            };
            cell(column.column_type, value, &mut report).unwrap_or_else(|what| {
                report(what);
                Cell::Null
            })
        })
        .collect();
    Ok(Row {
        line,
        id: match table {
            Table::AssetReferences => reference_id(id),
            Table::Scenes | Table::VideoSessions => id.to_owned(),
        },
        cells,
    })
}

fn reference_id(id: &str) -> String {
    let name = format!("convex:assetReferences:{id}");
    Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string()
}

/// `report` is told of values inside a struct that became JSON null.
///
/// # Errors
/// Why the value does not fit.
fn cell(column_type: ColumnType, value: &Value, report: &mut dyn FnMut(&str)) -> Result<Cell, &'static str> {
    if column_type == ColumnType::Jsonb {
        let value = match special(value) {
            Some(special) => special?,
            None => plain(value, report),
        };
        return if has_nul(&value) {
            Err("has a NUL character")
        } else {
            Ok(Cell::Json(value))
        };
    }
    if value.is_null() {
        return Ok(Cell::Null);
    }
    match column_type {
        ColumnType::Text => match value.as_str() {
            Some(text) if text.contains('\0') => Err("has a NUL character"),
            Some(text) => Ok(Cell::Text(text.to_owned())),
            None => Err("is no string"),
        },
        ColumnType::Int => whole(value)
            .filter(|number| i32::try_from(*number).is_ok())
            .map(Cell::Integer)
            .ok_or("is no integer of 32 bits"),
        ColumnType::Bigint => whole(value).map(Cell::Integer).ok_or("is no integer of 64 bits"),
        ColumnType::Timestamptz => number(value)
            .and_then(|number| timestamp_of_number(number.as_str()))
            .map(Cell::Timestamp)
            .ok_or("is no time"),
        // Handled above.
        ColumnType::Jsonb => Ok(Cell::Null),
    }
}

/// The number that a value is, `$integer` and finite `$float` included.
fn number(value: &Value) -> Option<Number> {
    match special(value) {
        Some(special) => special.ok()?.as_number().cloned(),
        None => value.as_number().cloned(),
    }
}

fn whole(value: &Value) -> Option<i64> {
    Decimal::parse(number(value)?.as_str())?.to_i64()
}

/// The plain JSON of a value, with numbers and bytes (in base64) in the place of Convex's forms. A form that stands for no
/// JSON value (a number that is not finite) becomes JSON null, and costs its struct nothing else.
fn plain(value: &Value, report: &mut dyn FnMut(&str)) -> Value {
    if let Some(special) = special(value) {
        return special.unwrap_or_else(|what| {
            report(&format!("holds a value that {what}"));
            Value::Null
        });
    }
    match value {
        Value::Array(elements) => elements.iter().map(|element| plain(element, report)).collect(),
        Value::Object(members) => Value::Object(
            members
                .iter()
                .map(|(name, value)| (name.clone(), plain(value, report)))
                .collect(),
        ),
        scalar => scalar.clone(),
    }
}

/// What `{"$integer": …}`, `{"$float": …}` or `{"$bytes": …}` stands for; `None` for every other value.
fn special(value: &Value) -> Option<Result<Value, &'static str>> {
    let members = value.as_object().filter(|members| members.len() == 1)?;
    let (name, content) = members.iter().next()?;
    if !matches!(name.as_str(), "$integer" | "$float" | "$bytes") {
        return None;
    }
    let Some((text, bytes)) = content
        .as_str()
        .and_then(|text| Some((text, STANDARD.decode(text).ok()?)))
    else {
        return Some(Err("is not in base64"));
    };
    if name == "$bytes" {
        return Some(Ok(text.into()));
    }
    let Ok(eight) = <[u8; 8]>::try_from(bytes) else {
        return Some(Err("does not have eight bytes"));
    };
    Some(if name == "$integer" {
        Ok(i64::from_le_bytes(eight).into())
    } else {
        match Number::from_f64(f64::from_le_bytes(eight)) {
            Some(number) => Ok(Value::Number(number)),
            None => Err("is not a finite number"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(table: Table, fields: &str) -> (Vec<Cell>, Vec<String>) {
        let line = format!("{{\"_id\": \"d\", {fields}}}");
        let import = read_documents(table, [Some(&*line)], 7);
        assert_eq!((import.rows.len(), import.failed), (1, 0), "{line}");
        assert!(import.problems.iter().all(|problem| problem.line == 7));
        let messages = import.problems.into_iter().map(|problem| problem.message).collect();
        (import.rows[0].cells.clone(), messages)
    }

    fn cell_of(table: Table, name: &str, fields: &str) -> (Cell, usize) {
        let at = table
            .columns()
            .iter()
            .position(|column| column.name == name)
            .expect("a column");
        let (cells, messages) = cells(table, fields);
        (cells[at].clone(), messages.len())
    }

    #[test]
    fn integers_in_all_forms() {
        for (value, expected) in [
            ("3.0", Some(3)),
            ("3", Some(3)),
            ("3e2", Some(300)),
            ("-1", Some(-1)),
            (r#"{"$integer": "BQAAAAAAAAA="}"#, Some(5)),
            (r#"{"$float": "AAAAAAAACEA="}"#, Some(3)),
            ("2147483648", None),
            ("0.5", None),
            ("\"3\"", None),
            (r#"{"$integer": "BQ=="}"#, None),
            (r#"{"$integer": 5}"#, None),
            (r#"{"$float": "AAAAAAAA8H8="}"#, None),
            (r#"{"$bytes": "AAE="}"#, None),
            ("true", None),
        ] {
            let (cell, problems) = cell_of(Table::Scenes, "index", &format!("\"index\": {value}"));
            let wanted = expected.map_or(Cell::Null, Cell::Integer);
            assert_eq!((cell, problems), (wanted, usize::from(expected.is_none())), "{value}");
        }
        let (size, _) = cell_of(
            Table::VideoSessions,
            "total_asset_size",
            "\"totalAssetSize\": 9007199254740993",
        );
        assert_eq!(size, Cell::Integer(9_007_199_254_740_993));
    }

    #[test]
    fn forms_inside_structs_become_plain() {
        let (cell, problems) = cell_of(
            Table::Scenes,
            "video_asset",
            r#""videoAsset": {"size": {"$integer": "BQAAAAAAAAA="}, "raw": [{"$bytes": "AAE="}], "n": 1.50}"#,
        );
        let expected: Value = serde_json::from_str(r#"{"size": 5, "raw": ["AAE="], "n": 1.50}"#).expect("JSON");
        assert_eq!((cell, problems), (Cell::Json(expected), 0));
        for bad in [r#"{"$float": "AAAAAAAA+H8="}"#, r#"{"a": "\u0000"}"#] {
            let (cell, problems) = cell_of(Table::Scenes, "video_asset", &format!("\"videoAsset\": {bad}"));
            assert_eq!((cell, problems), (Cell::Null, 1), "{bad}");
        }
        // What has no form in JSON costs itself only: NaN, two infinities, an integer of two bytes.
        let (cell, problems) = cell_of(
            Table::Scenes,
            "video_asset",
            r#""videoAsset": {"s3Key": "k", "size": {"$float": "AAAAAAAA+H8="}, "list": [{"$float": "AAAAAAAA8H8="},
               {"$float": "AAAAAAAA8P8="}, {"$integer": "BQA="}, {"$float": "AAAAAAAAAIA="}]}"#,
        );
        let expected: Value =
            serde_json::from_str(r#"{"s3Key": "k", "size": null, "list": [null, null, null, -0.0]}"#).expect("JSON");
        assert_eq!((cell, problems), (Cell::Json(expected), 4));
    }

    #[test]
    fn what_is_no_document_is_reported() {
        let lines = [
            "",
            "[]",
            "{",
            "{}",
            r#"{"_id": 5}"#,
            r#"{"_id": ""}"#,
            r#"{"_id": "a"}"#,
        ]
        .map(Some);
        let import = read_documents(Table::Scenes, lines, 1);
        let failed: Vec<i64> = import.problems.iter().map(|problem| problem.line).collect();
        assert_eq!((failed, import.failed, import.rows.len()), (vec![2, 3, 4, 5, 6], 5, 1));
    }

    #[test]
    fn references_keep_their_id() {
        let read = || read_documents(Table::AssetReferences, [Some(r#"{"_id": "r1", "size": 0.0}"#)], 1);
        assert_eq!(read().rows[0].id, "50e3006d-b6c9-547e-aa80-7271eb5da98d");
        assert_eq!(read(), read());
        assert_eq!(Table::parse("assetReferences"), Table::parse("asset_references"));
        assert_eq!(Table::parse("pg_authid"), None);
    }
}
