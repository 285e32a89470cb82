//! Jellyfin metadata through SQL: the vectors.

use media_assets_tests::jellyfin::{board, contents, insert_item, insert_row};
use media_assets_tests::json::{as_text, vectors};
use media_assets_tests::runs::undo;
use media_assets_tests::{each_server, literal, literal_or_null, Counters};
use serde_json::{json, Value};

const COUNTERS: [&str; 11] = [
    "rows_scanned",
    "enriched",
    "events_queued",
    "skipped_no_item",
    "skipped_not_found",
    "skipped_ambiguous",
    "skipped_missing_artifact_uri",
    "skipped_invalid_payload",
    "errors",
    "batches",
    "run_id",
];

fn field(case: &Value, name: &str) -> String {
    literal_or_null(as_text(&case[name]).as_deref())
}

fn json_literal(value: &Value) -> String {
    format!("{}::jsonb", literal(&value.to_string()))
}

#[test]
fn jellyfin_resolve() {
    let cases = vectors("jellyfin_resolve");
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        for case in &cases {
            let row = session.rows(&format!(
                "SELECT item_id, reason FROM resolve_jellyfin_item({}, {}, {})",
                field(case, "title"),
                field(case, "premiere_date"),
                json_literal(&case["items"])
            ));
            let expect = ["item_id", "reason"].map(|name| as_text(&case["expect"][name]));
            assert_eq!(row, [expect], "{} ({})", case["id"], case["why"]);
        }
        let nulls = "SELECT reason FROM resolve_jellyfin_item(NULL, 'infinity', NULL)";
        assert_eq!(session.text(nulls), "not_found");
    });
}

#[test]
fn jellyfin_payloads() {
    let cases = vectors("jellyfin_payloads");
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        for case in &cases {
            let payload = format!(
                "content_published_payload({}, {}, {})",
                json_literal(&case["row"]),
                json_literal(&case["item"]),
                field(case, "public_base")
            );
            let (got, expect) = match &case["expect"] {
                Value::Null => (session.value(&format!("SELECT {payload}::text")), None),
                expect => (
                    session.value(&format!("SELECT ({payload} - 'meta')::text")),
                    session.value(&format!("SELECT {}::text", json_literal(expect))),
                ),
            };
            assert_eq!(got, expect, "{} ({})", case["id"], case["why"]);
            let whole = session.value(&format!("SELECT {payload}::text")).unwrap_or_default();
            for word in case["forbidden"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
            {
                assert!(!whole.contains(word), "{}: {word} leaves", case["id"]);
            }
        }
        session.run("SET media_assets.default_namespace = 'elsewhere'");
        let row = json!({"content_url": "s3://b/k"});
        let namespace = format!(
            "SELECT content_published_payload({}, NULL, NULL) ->> 'namespace'",
            json_literal(&row)
        );
        assert_eq!(session.text(&namespace), "elsewhere");
    });
}

fn compare_counters(id: &str, which: &str, got: &Counters, expected: &Value) {
    for (name, value) in expected.as_object().expect("counters") {
        assert_eq!(value.as_i64(), Some(got.get(name)), "{id}: {which}: {name}");
    }
}

#[test]
fn jellyfin_scenarios() {
    let cases = vectors("jellyfin_scenarios");
    each_server(|server| {
        let database = server.database();
        for (number, case) in cases.iter().enumerate() {
            let mut session = database.session();
            session.run(&format!(
                "CREATE SCHEMA scenario_{number}; SET search_path = scenario_{number}, public"
            ));
            board(&mut session);
            for row in case["studio_board"].as_array().expect("rows") {
                insert_row(&mut session, row);
            }
            for row in case["jellyfin_items"].as_array().expect("rows") {
                insert_item(&mut session, row);
            }
            let id = case["id"].as_str().expect("an id");
            let expect = &case["expect"];
            let call = |execute: bool| {
                format!(
                    "SELECT * FROM backfill_jellyfin_metadata(execute => {execute}, mode => {}, backfill_version => {}, public_base => {})",
                    field(&case["args"], "mode"),
                    field(&case["args"], "backfill_version"),
                    field(&case["args"], "public_base")
                )
            };
            let before = contents(&mut session);
            session.run("BEGIN READ ONLY");
            let dry = session.counters(&call(false));
            assert!(
                session.is_true("SELECT pg_current_xact_id_if_assigned() IS NULL"),
                "{id}"
            );
            session.run("COMMIT");
            assert_eq!(before, contents(&mut session), "{id}: a dry run writes nothing");
            let names: Vec<_> = dry.0.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, COUNTERS, "the counters and their order");
            compare_counters(id, "dry run", &dry, &expect["counters"]);
            let executed = session.counters(&call(true));
            compare_counters(id, "execute", &executed, &expect["counters"]);
            assert_eq!(dry, executed, "{id}: predicted = executed");

            for (row, meta) in expect["meta"].as_object().expect("rows") {
                let sent = expect["sent_at_set"].as_array().expect("ids").iter();
                let sent = sent.map(ToString::to_string).any(|id| id == *row);
                let got = session.value(&format!(
                    "SELECT CASE WHEN {sent} THEN meta - 'publish_event_sent_at' ELSE meta END::text FROM studio_board
                     WHERE id = {row} AND (NOT {sent} OR meta ->> 'publish_event_sent_at' ~ '^20.*T.*Z$')"
                ));
                let wanted = session.value(&format!("SELECT {}::text", json_literal(meta)));
                assert_eq!(got, wanted, "{id}: meta of {row}");
            }
            let events = session.text(
                "SELECT coalesce(jsonb_agg(jsonb_build_object('subject_id', subject_id, 'topic', topic, 'source', source, 'state', state,
                    'payload', payload - 'meta') ORDER BY subject_id::bigint), '[]')::text FROM event_outbox",
            );
            assert_eq!(
                events,
                session.text(&format!("SELECT {}::text", json_literal(&expect["events"]))),
                "{id}: events"
            );
            assert!(
                session.is_true(
                    "SELECT coalesce(bool_and(event_id = content_published_event_id(subject_id::bigint, payload #>> '{meta,backfill_version}')), true) FROM event_outbox"
                ),
                "{id}: ids of events"
            );
            let reasons =
                session.text("SELECT coalesce(jsonb_object_agg(row_id, reason), '{}')::text FROM jellyfin_skips");
            assert_eq!(
                reasons,
                session.text(&format!("SELECT {}::text", json_literal(&expect["reasons"]))),
                "{id}: reasons"
            );
            let errors = session.rows("SELECT * FROM verify_jellyfin_metadata() WHERE severity = 'error'");
            assert!(errors.is_empty(), "{id}: {errors:?}");

            let settled = contents(&mut session);
            let second = session.counters(&call(true));
            assert_eq!(settled, contents(&mut session), "{id}: a second run changes nothing");
            assert_eq!((second.get("enriched"), second.get("events_queued")), (0, 0), "{id}");
            if case["undo"] == true {
                let undone = undo(&mut session, executed.get("run_id"));
                assert_eq!((undone.get("conflicts"), undone.get("errors")), (0, 0), "{id}");
                assert_eq!(
                    before,
                    contents(&mut session),
                    "{id}: undo leaves the tables as they were"
                );
            }
        }
    });
}
