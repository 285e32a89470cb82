//! The vectors of the specification, through SQL.

use media_assets_tests::application::assert_verified;
use media_assets_tests::json::{as_text, vectors};
use media_assets_tests::{each_server, literal, literal_or_null, Counters, Session, LESSON_COUNTERS};
use serde_json::Value;

/// Evaluates one expression for each vector and compares its text; all differences are shown at once.
fn compare_scalars(file: &str, expression: impl Fn(&Value) -> String) {
    let cases = vectors(file);
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let mut wrong = Vec::new();
        for case in &cases {
            let got = session.value(&format!("SELECT {}", expression(case)));
            if got != as_text(&case["expect"]) {
                wrong.push(format!(
                    "{} ({}): {got:?}, not {}",
                    case["id"], case["why"], case["expect"]
                ));
            }
        }
        assert!(wrong.is_empty(), "{file}:\n{}", wrong.join("\n"));
    });
}

/// A field as an SQL literal; JSON null and a missing field are NULL.
fn field(case: &Value, name: &str) -> String {
    literal_or_null(as_text(&case[name]).as_deref())
}

#[test]
fn canonical_urls() {
    compare_scalars("canonical_urls", |case| {
        format!("canonical_url({})", field(case, "link"))
    });
}

#[test]
fn canonical_keys() {
    compare_scalars("canonical_keys", |case| {
        let [provider, locator, kind] = ["provider", "locator", "kind"].map(|name| field(case, name));
        format!("asset_canonical_key({provider}, {locator}, {kind})")
    });
}

#[test]
fn mime_types() {
    compare_scalars("mime_types", |case| {
        let [declared, filename, link] = ["declared", "filename", "link"].map(|name| field(case, name));
        format!("infer_mime_type({declared}, {filename}, {link})")
    });
}

#[test]
fn asset_kinds() {
    compare_scalars("asset_kinds", |case| {
        format!(
            "infer_asset_kind({}, {})",
            field(case, "mime_type"),
            field(case, "fallback")
        )
    });
}

#[test]
fn paths() {
    compare_scalars("paths", |case| {
        format!(
            "normalize_path({}, {})",
            field(case, "path"),
            field(case, "case_sensitive")
        )
    });
}

#[test]
fn enricher_checksums() {
    compare_scalars("enricher_checksums", |case| {
        // JSON null as an argument is a jsonb null, not an SQL NULL: both mean "no enrichers"
        format!("enricher_checksum({}::jsonb)", literal(&case["enrichers"].to_string()))
    });
}

#[test]
fn content_signatures() {
    compare_scalars("content_signatures", |case| {
        let mtime = match as_text(&case["mtime_microseconds"]) {
            Some(microseconds) => {
                format!("'1970-01-01 00:00:00+00'::timestamptz + {microseconds} * interval '1 microsecond'")
            }
            None => "NULL::timestamptz".into(),
        };
        format!(
            "content_signature({}, {}, {mtime})",
            field(case, "hash"),
            field(case, "size")
        )
    });
}

/// Compares the named columns of one row; gives what is wrong.
fn compare_columns(session: &mut Session, row: &str, case: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let expect = case["expect"].as_object().expect("an object of columns");
    for (column, value) in expect {
        let (column, negated) = match column.strip_suffix("_not") {
            Some(column) => (column, true),
            None => (column.as_str(), false),
        };
        // JSON is compared by the text of jsonb, which keeps each digit
        let expected = match value {
            Value::Object(_) | Value::Array(_) => {
                format!("{}::jsonb::text", literal(&value.to_string()))
            }
            _ => literal_or_null(as_text(value).as_deref()),
        };
        let got = session.rows(&format!("SELECT {column}::text, {expected} FROM {row}"));
        assert_eq!(got.len(), 1, "always one row: {row}");
        let boolean = |text: &Option<String>| match text.as_deref() {
            Some("true") if value.is_boolean() => Some("t".to_owned()),
            Some("false") if value.is_boolean() => Some("f".to_owned()),
            _ => text.clone(),
        };
        if (boolean(&got[0][0]) == got[0][1]) == negated {
            let not = if negated { "anything but" } else { "not" };
            wrong.push(format!(
                "{} ({}): {column} is {:?}, {not} {:?}",
                case["id"], case["why"], got[0][0], got[0][1]
            ));
        }
    }
    wrong
}

#[test]
fn media_links() {
    let cases = vectors("media_links");
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let mut wrong = Vec::new();
        for case in &cases {
            wrong.extend(compare_columns(
                &mut session,
                &format!("parse_media_link({})", field(case, "link")),
                case,
            ));
        }
        assert!(wrong.is_empty(), "media_links:\n{}", wrong.join("\n"));
    });
}

#[test]
fn lesson_items() {
    let cases = vectors("lesson_items");
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let mut wrong = Vec::new();
        for case in &cases {
            let item = format!("{}::jsonb", literal(&case["item"].to_string()));
            let row = format!("normalize_lesson_media({}, {item})", field(case, "slot_type"));
            wrong.extend(compare_columns(&mut session, &row, case));
            if case["expect"]["outcome"] == "skipped" {
                // all columns after reason are NULL, but for asset_id with missing_key
                let others = session.text(&format!(
                    "SELECT (jsonb_strip_nulls(to_jsonb(n)) - 'outcome' - 'reason' - CASE reason WHEN 'missing_key' THEN 'asset_id' ELSE '' END)::text
                     FROM {row} n"
                ));
                if others != "{}" {
                    wrong.push(format!("{}: a skipped item has {others}", case["id"]));
                }
            }
        }
        assert!(wrong.is_empty(), "lesson_items:\n{}", wrong.join("\n"));
    });
}

#[test]
fn an_sql_null_item_is_malformed() {
    each_server(|server| {
        let database = server.database();
        let row = database
            .session()
            .rows("SELECT outcome, reason FROM normalize_lesson_media('lesson_video', NULL)");
        assert_eq!(row, [[Some("skipped".to_owned()), Some("malformed".to_owned())]]);
    });
}

const ASSET_FIELDS: [&str; 17] = [
    "organization_id",
    "kind",
    "provider",
    "storage_provider",
    "storage_key",
    "source_url",
    "mime_type",
    "byte_size",
    "title",
    "description",
    "thumbnail_url",
    "duration_seconds",
    "aspect_ratio",
    "is_external",
    "status",
    "metadata",
    "canonical_key",
];

fn insert(session: &mut Session, table: &str, row: &serde_json::Map<String, Value>) {
    let columns: Vec<String> = row.keys().map(|name| format!("\"{name}\"")).collect();
    let is_json = |name: &str| matches!(name, "videos" | "documents" | "metadata");
    let values: Vec<String> = row
        .iter()
        .map(|(name, value)| {
            if is_json(name) {
                literal(&value.to_string())
            } else {
                literal_or_null(as_text(value).as_deref())
            }
        })
        .collect();
    session.run(&format!(
        "INSERT INTO {table} ({}) VALUES ({})",
        columns.join(", "),
        values.join(", ")
    ));
}

fn build(session: &mut Session, case: &Value) {
    session.run(
        "CREATE TABLE \"group\" (id uuid PRIMARY KEY, organization_id uuid);
         CREATE TABLE course (id uuid PRIMARY KEY, group_id uuid);
         CREATE TABLE lesson (id uuid PRIMARY KEY, course_id uuid, videos jsonb, documents jsonb);
         SELECT * FROM create_asset_tables()",
    );
    if case["unkeyed"] == true {
        session.run("ALTER TABLE assets DISABLE TRIGGER USER");
    }
    let rows = &case["rows"];
    for (name, table) in [
        ("group", "\"group\""),
        ("course", "course"),
        ("lesson", "lesson"),
        ("assets", "assets"),
        ("asset_usages", "asset_usages"),
    ] {
        for row in rows[name].as_array().into_iter().flatten() {
            let mut row = row.as_object().expect("a row").clone();
            if name == "assets" {
                for (field, value) in [
                    ("kind", Value::from("video")),
                    ("provider", "upload".into()),
                    ("storage_provider", "s3".into()),
                    ("is_external", false.into()),
                    ("status", "active".into()),
                    ("metadata", Value::Object(Default::default())),
                ] {
                    row.entry(field).or_insert(value);
                }
            }
            insert(session, table, &row);
        }
    }
    session.run("ALTER TABLE assets ENABLE TRIGGER USER");
    let refused: Vec<String> = case["refuse_lessons"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(literal)
        .collect();
    if !refused.is_empty() {
        session.run(&format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
               $$BEGIN RAISE EXCEPTION 'lesson % is refused', OLD.id; END$$;
             CREATE TRIGGER refuse BEFORE UPDATE ON lesson FOR EACH ROW WHEN (OLD.id IN ({})) EXECUTE FUNCTION refuse()",
            refused.join(", ")
        ));
    }
}

/// Named arguments, as they stand in `options`; `batch` is separate, since explain has none.
fn filters(options: &Value) -> String {
    ["organization_id", "after", "max_lessons"]
        .iter()
        .filter_map(|name| as_text(&options[*name]).map(|value| format!(", {name} => {}", literal(&value))))
        .collect()
}

fn compare_counters(id: &str, which: &str, got: &Counters, expected: &Value) -> Vec<String> {
    expected
        .as_object()
        .expect("counters")
        .iter()
        .filter(|(name, value)| value.as_i64() != Some(got.get(name)))
        .map(|(name, value)| format!("{id}: {which}: {name} is {}, not {value}", got.get(name)))
        .collect()
}

/// Compares rows with the expected rows, both as text that jsonb wrote, in order.
fn compare_rows(id: &str, what: &str, mut got: Vec<String>, mut expected: Vec<String>) -> Vec<String> {
    got.sort();
    expected.sort();
    if got == expected {
        return Vec::new();
    }
    let extra: Vec<_> = got.iter().filter(|row| !expected.contains(row)).collect();
    let lost: Vec<_> = expected.iter().filter(|row| !got.contains(row)).collect();
    vec![format!("{id}: {what}: not expected {extra:#?}, missing {lost:#?}")]
}

fn expected_rows(session: &mut Session, rows: &Value) -> Vec<String> {
    rows.as_array()
        .expect("rows")
        .iter()
        .map(|row| session.text(&format!("SELECT {}::jsonb::text", literal(&row.to_string()))))
        .collect()
}

fn compare_state(session: &mut Session, id: &str, case: &Value) -> Vec<String> {
    let expect = &case["expect"];
    let before: Vec<String> = case["rows"]["assets"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|row| literal(row["id"].as_str().expect("an id")))
        .collect();
    let known = if before.is_empty() {
        "false".into()
    } else {
        format!("id IN ({})", before.join(", "))
    };
    // ids that the run made up, with the name that the vectors give them
    let names: Vec<(String, String)> = session
        .rows(&format!(
            "SELECT id::text, 'new:' || organization_id || ':' || canonical_key FROM assets WHERE NOT ({known})"
        ))
        .into_iter()
        .map(|row| {
            (
                row[0].clone().expect("an id"),
                row[1].clone().expect("what a run creates has a key"),
            )
        })
        .collect();
    let named = |text: Option<String>| {
        let mut text = text.expect("a row");
        // a UUID in upper case is the same UUID, and is left as it is
        for id in &before {
            let id = id.trim_matches('\'');
            text = text.replace(&id.to_uppercase(), id);
        }
        for (id, name) in &names {
            text = text.replace(id, name);
        }
        text
    };
    let asset_fields: Vec<String> = ASSET_FIELDS.iter().map(|name| format!("'{name}', {name}")).collect();
    let mut wrong = Vec::new();
    for (what, query) in [
        (
            "assets",
            format!(
                "SELECT jsonb_build_object('asset', id, {})::text FROM assets",
                asset_fields.join(", ")
            ),
        ),
        (
            "asset_usages",
            "SELECT (to_jsonb(u) - '{id,created_at,updated_at}'::text[])::text FROM asset_usages u".into(),
        ),
        (
            "lesson",
            // an SQL NULL is left out, a JSON null is not
            "SELECT (jsonb_build_object('id', id, 'course_id', course_id)
                     || CASE WHEN videos IS NULL THEN '{}' ELSE jsonb_build_object('videos', videos) END
                     || CASE WHEN documents IS NULL THEN '{}' ELSE jsonb_build_object('documents', documents) END)::text
             FROM lesson"
                .into(),
        ),
    ] {
        let got: Vec<String> = session
            .rows(&query)
            .into_iter()
            .map(|row| named(row.into_iter().next().flatten()))
            .collect();
        // names differ in length from ids, and the expected text went through jsonb as well: same order of keys
        let expected = expected_rows(session, &expect[what]);
        wrong.extend(compare_rows(id, what, got, expected));
    }
    wrong
}

#[test]
fn lesson_scenarios() {
    let cases = vectors("lesson_scenarios");
    each_server(|server| {
        let database = server.database();
        let mut wrong = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            let mut session = database.session();
            session.run(&format!(
                "CREATE SCHEMA scenario_{number}; SET search_path = scenario_{number}, public"
            ));
            build(&mut session, case);
            let id = case["id"].as_str().expect("an id");
            let expect = &case["expect"];
            let filters = filters(&case["options"]);
            let batch = as_text(&case["options"]["batch"]).unwrap_or_else(|| "500".into());
            let call = |execute: bool| format!("SELECT * FROM backfill_lesson_assets({batch}, {execute}{filters})");
            let before = media_assets_tests::application::contents(&mut session);

            session.run("BEGIN READ ONLY");
            let dry = session.counters(&call(false));
            session.run("COMMIT");
            assert_eq!(
                before,
                media_assets_tests::application::contents(&mut session),
                "{id}: a dry run writes nothing"
            );
            let names: Vec<_> = dry.0.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, LESSON_COUNTERS, "the counters and their order");
            let predicted = match &expect["dry_counters"] {
                Value::Null => &expect["counters"],
                counters => counters,
            };
            wrong.extend(compare_counters(id, "dry run", &dry, predicted));
            wrong.extend(compare_counters(
                id,
                "explain",
                &explained(&mut session, &filters),
                &without(predicted, &UNEXPLAINED),
            ));

            let executed = session.counters(&call(true));
            wrong.extend(compare_counters(id, "execute", &executed, &expect["counters"]));
            wrong.extend(compare_state(&mut session, id, case));
            let rows = media_assets_tests::application::contents(&mut session);
            let second = session.counters(&call(true));
            wrong.extend(compare_counters(id, "second run", &second, &expect["second_run"]));
            assert_eq!(
                rows,
                media_assets_tests::application::contents(&mut session),
                "{id}: a second run changes nothing"
            );
            if executed.get("errors") == 0 && filters.is_empty() {
                assert_verified(&mut session);
            }
        }
        assert!(wrong.is_empty(), "lesson_scenarios:\n{}", wrong.join("\n"));
    });
}

/// Counters that the rows of explain do not carry.
const UNEXPLAINED: [&str; 4] = [
    "lessons_scanned",
    "assets_with_byte_size",
    "assets_missing_byte_size",
    "errors",
];

fn without(counters: &Value, names: &[&str]) -> Value {
    let kept = counters
        .as_object()
        .expect("counters")
        .iter()
        .filter(|(name, _)| !names.contains(&name.as_str()));
    Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
}

fn explained(session: &mut Session, filters: &str) -> Counters {
    session.counters(&media_assets_tests::application::explained_counters(
        filters.trim_start_matches(", "),
    ))
}
