//! Scenarios of the jobs over ordinary tables: rows as vectors write them, put into tables and read back.

use serde_json::{Map, Value};

use crate::json::as_text;
use crate::{identifier, literal, literal_or_null, Counters, Row, Session};

/// Columns that are jsonb: `"json null"` stands for the JSON value, plain null for SQL NULL.
const JSONB: [&str; 11] = [
    "thumbnail_urls",
    "metadata",
    "video_asset",
    "source_code_asset",
    "thumbnail_asset",
    "subtitle_asset",
    "previous_asset_versions",
    "combined_video_asset",
    "combined_subtitle_asset",
    "manifest_asset",
    "meta",
];

fn is_time(column: &str) -> bool {
    column.ends_with("_at")
}

/// A value of a vector's row as SQL.
fn sql(column: &str, value: &Value) -> String {
    if JSONB.contains(&column) {
        return match value {
            Value::Null => "NULL".into(),
            Value::String(text) if text == "json null" => "'null'".into(),
            value => literal(&value.to_string()),
        };
    }
    match value {
        Value::Number(seconds) if is_time(column) => format!("to_timestamp({seconds})"),
        value => literal_or_null(as_text(value).as_deref()),
    }
}

/// Puts rows into a table; columns that a row leaves out have their defaults.
///
/// # Panics
/// When `rows` is no array of objects.
pub fn insert(session: &mut Session, table: &str, rows: &Value) {
    for row in rows.as_array().into_iter().flatten() {
        let row = row.as_object().expect("a row is an object");
        let columns: Vec<String> = row.keys().map(|name| identifier(name)).collect();
        let values: Vec<String> = row.iter().map(|(name, value)| sql(name, value)).collect();
        session.run(&format!(
            "INSERT INTO {table} ({}) VALUES ({})",
            columns.join(", "),
            values.join(", ")
        ));
    }
}

/// A row trigger that raises for every insert or update of a row with that value.
pub fn reject(session: &mut Session, reject: &Value) {
    let (Some(table), Some(column), Some(value)) = (
        reject["table"].as_str(),
        reject["column"].as_str(),
        reject["value"].as_str(),
    ) else {
        return;
    };
    session.run(&format!(
        "CREATE FUNCTION reject_row() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'this row is rejected'; END$$;
         CREATE TRIGGER reject_row BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW WHEN (NEW.{} = {}) EXECUTE FUNCTION reject_row()",
        identifier(column),
        literal(value)
    ));
}

/// All rows of the tables, to the digit; what two states are compared by.
pub fn contents(session: &mut Session, tables: &[&str]) -> Vec<Row> {
    let selects: Vec<String> = tables
        .iter()
        .map(|table| format!("SELECT '{table}', t::text FROM {table} t"))
        .collect();
    session.rows(&format!("{} ORDER BY 1, 2", selects.join(" UNION ALL ")))
}

/// The rows of a table by their text id; jsonb columns as vectors write them.
///
/// # Panics
/// When a row has no id.
pub fn rows(session: &mut Session, table: &str) -> Vec<Map<String, Value>> {
    let nulls = nulls(session, table);
    let rows = session.rows(&format!("SELECT to_jsonb(t)::text, {nulls} FROM {table} t ORDER BY 1"));
    rows.into_iter()
        .map(|row| {
            let text = row[0].clone().expect("a row");
            let mut row_of: Map<String, Value> = serde_json::from_str(&text).expect("JSON");
            for column in row[1]
                .as_deref()
                .unwrap_or_default()
                .split(',')
                .filter(|name| !name.is_empty())
            {
                row_of.insert(column.to_owned(), "json null".into());
            }
            row_of
        })
        .collect()
}

/// An expression that names the jsonb columns of a row that hold JSON null.
fn nulls(session: &mut Session, table: &str) -> String {
    let columns = session.rows(&format!(
        "SELECT attname FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 AND atttypid = 'jsonb'::regtype"
    ));
    let cases: Vec<String> = columns
        .into_iter()
        .filter_map(|row| row[0].clone())
        .map(|name| format!("CASE WHEN jsonb_typeof({name}) = 'null' THEN '{name}' END"))
        .collect();
    format!(
        "concat_ws(',', '', {})",
        [cases, vec!["NULL".into()]].concat().join(", ")
    )
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

/// What differs between expected rows and those of a table; columns that an expectation does not name are not compared.
/// Rows belong together by `key`.
pub fn compare_rows(expected: &Value, rows: &[Map<String, Value>], key: &str) -> Vec<String> {
    let expected = expected.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut wrong = Vec::new();
    if expected.len() != rows.len() {
        wrong.push(format!("{} rows, not {}", rows.len(), expected.len()));
    }
    for wanted in expected {
        let Some(row) = rows.iter().find(|row| row[key] == wanted[key]) else {
            wrong.push(format!("no row {}", wanted[key]));
            continue;
        };
        for (column, value) in wanted.as_object().into_iter().flatten() {
            let got = row.get(column).unwrap_or(&Value::Null);
            if !is_time(column) && !same(value, got) {
                wrong.push(format!("{} {column}: {got}, not {value}", wanted[key]));
            }
        }
    }
    wrong
}

/// The counters that differ.
///
/// # Panics
/// When `expected` is no object.
pub fn compare_counters(which: &str, expected: &Value, got: &Counters) -> Vec<String> {
    let expected = expected.as_object().expect("counters are an object");
    expected
        .iter()
        .filter(|(name, value)| value.as_i64() != Some(got.get(name)))
        .map(|(name, value)| format!("{which}: {name} is {}, not {value}", got.get(name)))
        .collect()
}

/// Runs `differences` for each vector in a schema of its own and reports all of them at once.
pub fn check(
    session: &mut Session,
    vectors: &[Value],
    mut differences: impl FnMut(&mut Session, &Value) -> Vec<String>,
) {
    let mut failed = Vec::new();
    for (number, vector) in vectors.iter().enumerate() {
        session.run(&format!(
            "CREATE SCHEMA scenario_{number}; SET search_path = scenario_{number}, public"
        ));
        let found = differences(session, vector);
        if !found.is_empty() {
            failed.push(format!("{}: {}\n  {}", vector["id"], vector["why"], found.join("\n  ")));
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {} differ\n{}",
        failed.len(),
        vectors.len(),
        failed.join("\n")
    );
}
