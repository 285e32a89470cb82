//! Jellyfin metadata through SQL: the vectors, and what the page promises of runs.

use media_assets_tests::jellyfin::{board, insert_item, insert_row, item, BASE, VERSION};
use media_assets_tests::json::{as_text, vectors};
use media_assets_tests::runs::{conflicts, undo};
use media_assets_tests::{each_server, literal, literal_or_null, words, Counters, Session};
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

/// A call of the backfill with the arguments that the tests share.
fn call(execute: bool, more: &str) -> String {
    format!(
        "SELECT * FROM backfill_jellyfin_metadata(execute => {execute}, backfill_version => '{VERSION}', public_base => '{BASE}'{more})"
    )
}

/// All four tables, row for row, but for the times that a run sets.
fn contents(session: &mut Session) -> Vec<Vec<Option<String>>> {
    session.rows(
        "SELECT 'board', id::text, to_jsonb(b)::text FROM studio_board b
         UNION ALL SELECT 'item', item_id, to_jsonb(i)::text FROM jellyfin_items i
         UNION ALL SELECT 'skip', row_id::text, to_jsonb(s)::text FROM jellyfin_skips s
         UNION ALL SELECT 'event', event_id::text, to_jsonb(e)::text FROM event_outbox e ORDER BY 1, 2",
    )
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

/// A published row that names its item.
fn row(id: i64, item_id: &str) -> Value {
    json!({"id": id, "title": "Example Video", "namespace": "pmoves", "content_url": format!("s3://outputs/{id}.mp4"),
           "status": "published", "meta": {"jellyfin_item_id": item_id, "kept": 1.50}})
}

fn answered(item_id: &str) -> Value {
    json!({"item_id": item_id, "doc": item(item_id, "Example Video", "2025-10-01"), "http_status": 200})
}

fn gone(item_id: &str) -> Value {
    json!({"item_id": item_id, "doc": null, "http_status": 404})
}

fn reasons(session: &mut Session) -> String {
    session.text("SELECT coalesce(string_agg(row_id || ' ' || reason, ', ' ORDER BY row_id), '') FROM jellyfin_skips")
}

#[test]
fn skips_are_remembered_and_no_row_starves_the_rest() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        for id in 1..=12 {
            insert_row(&mut session, &row(id, &format!("unknown{id}")));
        }
        insert_row(&mut session, &row(13, "known"));
        insert_item(&mut session, &answered("known"));
        // ten at a time, as the old script: its second run met the same ten rows for ever
        let ten = call(true, ", max_rows => 10");
        assert_eq!(session.counters(&ten).get("skipped_no_item"), 10);
        let second = session.counters(&ten);
        assert_eq!((second.get("rows_scanned"), second.get("enriched")), (3, 1));
        assert_eq!(session.counters(&ten).get("rows_scanned"), 0);

        // due again when the time has come
        session.run("UPDATE jellyfin_skips SET next_attempt_at = now() - interval '1 second' WHERE row_id = 3");
        assert_eq!(session.counters(&ten).get("rows_scanned"), 1);
        assert!(session.is_true("SELECT next_attempt_at > now() FROM jellyfin_skips WHERE row_id = 3"));
        // … when the item has changed
        insert_item(&mut session, &answered("unknown4"));
        assert_eq!(session.counters(&ten).get("enriched"), 1);
        // … and when the row has
        session.run("UPDATE studio_board SET meta = '{\"jellyfin_item_id\": \"known\"}' WHERE id = 5");
        assert_eq!(session.counters(&ten).get("enriched"), 1);
        assert_eq!(session.number("SELECT count(*) FROM jellyfin_skips"), 10);
        // a fetch that changes nothing changes nothing here
        session.run("UPDATE jellyfin_items SET fetched_at = now()");
        assert_eq!(session.counters(&ten).get("rows_scanned"), 0);
    });
}

#[test]
fn a_reason_that_time_does_not_change_is_opened_again_on_request() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        insert_row(&mut session, &row(1, "gone"));
        insert_row(&mut session, &row(2, "unknown"));
        insert_item(&mut session, &gone("gone"));
        session.run(&call(true, ""));
        assert_eq!(reasons(&mut session), "1 not_found, 2 no_item");
        assert!(session.is_true("SELECT next_attempt_at IS NULL FROM jellyfin_skips WHERE row_id = 1"));
        // it is no candidate any more, whatever the time
        assert_eq!(
            session.text("SELECT string_agg(row_id || ' ' || question, ',') FROM jellyfin_candidates()"),
            "2 item"
        );
        assert_eq!(session.number("SELECT reopen_jellyfin_skips()"), 1);
        assert_eq!(reasons(&mut session), "2 no_item");
        // what Jellyfin said is forgotten too, so that it is asked again
        assert_eq!(
            session
                .text("SELECT string_agg(row_id || ' ' || question, ',' ORDER BY row_id) FROM jellyfin_candidates()"),
            "1 item,2 item"
        );
        insert_item(&mut session, &answered("gone"));
        assert_eq!(session.counters(&call(true, "")).get("enriched"), 1);
        assert_eq!(session.number("SELECT reopen_jellyfin_skips(NULL, row_id => 7)"), 0);
        assert_eq!(session.number("SELECT reopen_jellyfin_skips(NULL)"), 1);
        session.fails_with_hint("22023", "SELECT reopen_jellyfin_skips('soon')");
    });
}

#[test]
fn what_jellyfin_has_to_be_asked() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        let dated = |id: i64, title: &str, item_id: Option<&str>| json!({"id": id, "title": title, "status": "published", "meta": {"premiere_date": "2025-10-01T05:00:00+09:00", "jellyfin_item_id": item_id}});
        insert_row(&mut session, &dated(1, "Straße", None));
        insert_row(&mut session, &dated(2, "Searched", None));
        insert_row(&mut session, &dated(3, "Known", None));
        insert_row(&mut session, &dated(4, "Moved", Some("gone")));
        insert_row(&mut session, &dated(5, "Broken", Some("broken")));
        insert_row(
            &mut session,
            &json!({"id": 6, "title": "Nothing", "status": "published", "meta": null}),
        );
        insert_item(
            &mut session,
            &json!({"item_id": "search:searched|2025-09-30", "doc": null, "http_status": 404}),
        );
        insert_item(
            &mut session,
            &json!({"item_id": "k", "doc": item("k", "KNOWN", "2025-09-30T23:00:00Z"), "http_status": 200}),
        );
        insert_item(&mut session, &gone("gone"));
        insert_item(
            &mut session,
            &json!({"item_id": "broken", "doc": null, "http_status": 500}),
        );
        let rows = session.rows(
            "SELECT row_id, item_id, search_name, search_date, search_key, question FROM jellyfin_candidates() ORDER BY row_id",
        );
        let rows: Vec<String> = rows
            .into_iter()
            .map(|row| {
                row.into_iter()
                    .map(|value| value.unwrap_or_else(|| "-".into()))
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        assert_eq!(
            rows,
            [
                "1 - Straße 2025-09-30 search:strasse|2025-09-30 search",
                "2 - Searched 2025-09-30 search:searched|2025-09-30 -",
                "3 - Known 2025-09-30 search:known|2025-09-30 -",
                "4 gone Moved 2025-09-30 search:moved|2025-09-30 search",
                "5 broken Broken 2025-09-30 search:broken|2025-09-30 item",
                "6 - - - - -",
            ]
        );
    });
}

#[test]
fn an_event_is_queued_once_for_a_version() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        insert_row(&mut session, &row(7, "known"));
        insert_item(&mut session, &answered("known"));
        session.run("UPDATE studio_board SET meta = meta || '{\"publish_event_sent_at\": \"2024-01-01\"}'");
        assert_eq!(session.counters(&call(true, "")).get("events_queued"), 1);
        // one that is there is kept; so are the digits of what is not ours
        assert_eq!(
            session.text("SELECT meta ->> 'publish_event_sent_at' FROM studio_board"),
            "2024-01-01"
        );
        assert_eq!(session.text("SELECT meta ->> 'kept' FROM studio_board"), "1.5");
        session.run("UPDATE studio_board SET meta = meta - 'jellyfin_public_url' - 'publish_event_sent_at'");
        for execute in [false, true] {
            let again = session.counters(&call(execute, ""));
            assert_eq!((again.get("enriched"), again.get("events_queued")), (1, 0), "{execute}");
        }
        // nothing was sent, so nothing says that it was
        assert!(session.is_true("SELECT NOT meta ? 'publish_event_sent_at' FROM studio_board"));
        assert_eq!(session.number("SELECT count(*) FROM event_outbox"), 1);
        session.run("UPDATE studio_board SET meta = meta - 'jellyfin_public_url'");
        let other = "SELECT * FROM backfill_jellyfin_metadata(execute => true, backfill_version => 'other', public_base => 'http://x/y/')";
        assert_eq!(session.counters(other).get("events_queued"), 1);
        assert_eq!(session.number("SELECT count(DISTINCT event_id) FROM event_outbox"), 2);
        assert_eq!(
            session.text("SELECT meta ->> 'jellyfin_public_url' FROM studio_board"),
            "http://x/y/web/index.html#!/details?id=known"
        );
    });
}

#[test]
fn markers_and_event_land_together_or_not_at_all() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        for id in 1..=30 {
            insert_row(&mut session, &row(id, "known"));
        }
        insert_item(&mut session, &answered("known"));
        session.run(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no event for 5'; END$$;
             CREATE TRIGGER refuse BEFORE INSERT ON event_outbox FOR EACH ROW WHEN (NEW.subject_id = '5') EXECUTE FUNCTION refuse();
             CREATE FUNCTION refuse_row() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'row % stays', NEW.id; END$$;
             CREATE TRIGGER refuse BEFORE UPDATE ON studio_board FOR EACH ROW WHEN (NEW.id = 11) EXECUTE FUNCTION refuse_row()",
        );
        let before = session.rows("SELECT meta::text FROM studio_board WHERE id IN (5, 11) ORDER BY id");
        let done = session.counters(&call(true, ""));
        assert_eq!(
            (done.get("enriched"), done.get("events_queued"), done.get("errors")),
            (28, 28, 2)
        );
        assert_eq!(
            before,
            session.rows("SELECT meta::text FROM studio_board WHERE id IN (5, 11) ORDER BY id")
        );
        assert_eq!(
            session.number("SELECT count(*) FROM event_outbox WHERE subject_id IN ('5', '11')"),
            0
        );
        assert_eq!(session.take_warnings().len(), 2);
        assert_eq!(
            session
                .rows("SELECT * FROM verify_jellyfin_metadata() WHERE severity = 'error'")
                .len(),
            2
        );
    });
}

#[test]
fn an_edit_that_comes_meanwhile_is_kept_and_decided_upon() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        for id in 1..=3 {
            insert_row(&mut session, &row(id, "known"));
        }
        insert_item(&mut session, &answered("known"));
        let mut editor = database.session();
        editor.run(
            "BEGIN;
             UPDATE studio_board SET meta = meta || '{\"note\": \"mine\"}', title = 'Edited' WHERE id = 2;
             UPDATE studio_board SET status = 'withdrawn' WHERE id = 3",
        );
        session.run("SET media_assets.lock_timeout = '20s'");
        let run = std::thread::spawn(move || session.counters(&call(true, "")));
        let mut watcher = database.session();
        watcher.wait_until("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')");
        editor.run("COMMIT");
        let done = run.join().expect("the run does not panic");
        assert_eq!(
            (
                done.get("rows_scanned"),
                done.get("enriched"),
                done.get("events_queued")
            ),
            (2, 2, 2)
        );
        assert_eq!(
            watcher.text("SELECT meta ->> 'note' FROM studio_board WHERE id = 2"),
            "mine"
        );
        assert_eq!(
            watcher.text("SELECT payload ->> 'title' FROM event_outbox WHERE subject_id = '2'"),
            "Edited"
        );
        assert!(watcher.is_true("SELECT NOT meta ? 'jellyfin_public_url' FROM studio_board WHERE id = 3"));
        assert_eq!(watcher.number("SELECT count(*) FROM event_outbox"), 2);
    });
}

#[test]
fn metadata_only_looks_past_what_is_wrong_with_the_event() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        insert_row(&mut session, &row(1, "known"));
        session.run("UPDATE studio_board SET content_url = NULL");
        insert_item(&mut session, &answered("known"));
        assert_eq!(session.counters(&call(true, "")).get("skipped_missing_artifact_uri"), 1);
        let only = session.counters(&call(true, ", mode => 'metadata_only'"));
        assert_eq!((only.get("enriched"), only.get("events_queued")), (1, 0));
        assert_eq!(reasons(&mut session), "");
    });
}

#[test]
fn explain_says_what_the_dry_run_counts() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        insert_row(&mut session, &row(1, "known"));
        insert_row(&mut session, &row(2, "gone"));
        insert_item(&mut session, &answered("known"));
        insert_item(&mut session, &gone("gone"));
        session.run("SET media_assets.backfill_version = '2025-10-14'; SET media_assets.jellyfin_public_base = 'https://watch.example'");
        session.run("BEGIN READ ONLY");
        let rows = session
            .rows("SELECT row_id, outcome, reason, item_id, queues_event FROM explain_jellyfin_metadata() ORDER BY 1");
        let predicted = session.value("SELECT payload::text FROM explain_jellyfin_metadata() WHERE row_id = 1");
        let id = session.value("SELECT event_id FROM explain_jellyfin_metadata() WHERE row_id = 1");
        let counters = session.counters("SELECT * FROM backfill_jellyfin_metadata()");
        session.run("COMMIT");
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(rows[0], [text("1"), text("enriched"), None, text("known"), text("t")]);
        assert_eq!(
            rows[1],
            [text("2"), text("skipped"), text("not_found"), None, text("f")]
        );
        assert_eq!((counters.get("enriched"), counters.get("skipped_not_found")), (1, 1));
        session.run("SELECT * FROM backfill_jellyfin_metadata(execute => true)");
        assert_eq!(predicted, session.value("SELECT payload::text FROM event_outbox"));
        assert_eq!(id, session.value("SELECT event_id FROM event_outbox"));
        assert!(!predicted.expect("a payload").contains("/media/secret"));
    });
}

#[test]
fn what_is_missing_is_said_in_one_error() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let error = session.fails_with_hint("42P01", &call(true, ""));
        for word in [
            "studio_board",
            "jellyfin_items",
            "jellyfin_skips",
            "event_outbox",
            "create_jellyfin_tables()",
        ] {
            assert!(words(&error).contains(word), "{word}: {}", words(&error));
        }
        session.run("CREATE TABLE studio_board (id uuid PRIMARY KEY, title text, status text, meta json)");
        let error = session.fails_with_hint("42703", &call(false, ""));
        for word in ["namespace", "content_url", "meta is json", "id is uuid"] {
            assert!(words(&error).contains(word), "{word}: {}", words(&error));
        }
        session.run("DROP TABLE studio_board; SET client_min_messages = warning");
        session.run("CREATE TABLE studio_board (id bigint PRIMARY KEY, title text, namespace text, content_url text, status text, meta jsonb)");
        insert_row(&mut session, &row(1, "known"));
        // the dry run needs the board only
        assert_eq!(session.counters(&call(false, "")).get("skipped_no_item"), 1);
        session.fails_with_hint("42P01", "SELECT * FROM verify_jellyfin_metadata()");
        for bad in [
            "batch => 0",
            "execute => NULL",
            "mode => 'twice', backfill_version => 'v', public_base => 'http://x'",
            "mode => NULL, backfill_version => 'v', public_base => 'http://x'",
            "public_base => 'http://x'",
            "backfill_version => 'v'",
            "backfill_version => 'v', public_base => 'watch.example'",
            "backfill_version => 'v', public_base => 'http://me:secret@x'",
            "backfill_version => 'v', public_base => 'http://x', max_rows => -1",
        ] {
            session.fails_with_hint("22023", &format!("SELECT * FROM backfill_jellyfin_metadata({bad})"));
        }
        session.run("SELECT * FROM create_jellyfin_tables()");
        session.fails("25006", &format!("BEGIN READ ONLY; {}", call(true, "")));
        session.fails_with_hint(
            "0A000",
            &format!("BEGIN ISOLATION LEVEL REPEATABLE READ; {}", call(true, "")),
        );
        // made once, and never altered
        let again = session.rows("SELECT executed FROM create_jellyfin_tables()");
        assert_eq!(again, vec![vec![Some("f".to_owned())]; 3]);
    });
}

#[test]
fn a_role_needs_what_the_run_does_and_no_more() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        insert_row(&mut session, &row(1, "known"));
        insert_row(&mut session, &row(2, "unknown"));
        insert_item(&mut session, &answered("known"));
        let role = server.role(&database);
        let name = &role.name;
        session.run(&format!(
            "GRANT SELECT ON studio_board, jellyfin_items TO {name}; GRANT SELECT, INSERT, UPDATE, DELETE ON jellyfin_skips TO {name};
             GRANT SELECT, INSERT ON event_outbox TO {name}"
        ));
        let mut worker = database.session_as(&role);
        assert_eq!(worker.counters(&call(false, "")).get("enriched"), 1);
        let error = worker.fails_with_hint("42501", &call(true, ""));
        assert!(words(&error).contains("UPDATE"), "{}", words(&error));
        session.run(&format!("GRANT UPDATE (meta) ON studio_board TO {name}"));
        assert_eq!(worker.counters(&call(true, "")).get("enriched"), 1);
        session.run("ALTER TABLE jellyfin_items ENABLE ROW LEVEL SECURITY");
        worker.fails_with_hint("42501", &call(false, ""));
    });
}

#[test]
fn views_with_the_columns_of_the_page_are_as_good_as_tables() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run(
            "SET client_min_messages = warning;
             CREATE TABLE posts (post_id int PRIMARY KEY, headline varchar(80), tenant text, file text, phase text, data jsonb, secret text);
             CREATE VIEW studio_board AS SELECT post_id AS id, headline AS title, tenant AS namespace, file AS content_url, phase AS status, data AS meta FROM posts;
             SELECT * FROM create_jellyfin_tables()",
        );
        insert_row(&mut session, &row(1, "known"));
        insert_item(&mut session, &answered("known"));
        assert_eq!(session.counters(&call(true, "")).get("events_queued"), 1);
        assert_eq!(session.text("SELECT data ->> 'jellyfin_item_id' FROM posts"), "known");
    });
}

#[test]
fn a_long_run_comes_to_what_the_function_predicts() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        session.run(
            "INSERT INTO studio_board SELECT n, 'T' || n, NULL, 's3://b/' || n, 'published', jsonb_build_object('jellyfin_item_id', 'i' || n % 50) FROM generate_series(1, 1200) n;
             INSERT INTO jellyfin_items SELECT 'i' || n, CASE WHEN n % 5 > 0 THEN jsonb_build_object('Id', 'i' || n) END, CASE WHEN n % 5 > 0 THEN 200 ELSE 404 END FROM generate_series(0, 49) n",
        );
        let dry = session.counters(&call(false, ""));
        assert_eq!((dry.get("enriched"), dry.get("skipped_not_found")), (960, 240));
        let options = format!("{{\"backfill_version\": \"{VERSION}\", \"public_base\": \"{BASE}\"}}");
        session.run(&format!(
            "CALL run_backfill('jellyfin_metadata', 100, true, '{options}')"
        ));
        let report = session.text("SELECT backfill_report(max(run_id)) FROM backfill_progress");
        assert!(
            report.contains("(jellyfin_metadata, procedure)") && report.contains("finished"),
            "{report}"
        );
        assert!(report.contains("960") && report.contains("240"), "{report}");
        assert_eq!(session.number("SELECT count(*) FROM event_outbox"), 960);
        assert_eq!(session.number("SELECT count(*) FROM jellyfin_skips"), 240);
        assert_eq!(
            session
                .rows("SELECT * FROM verify_jellyfin_metadata() WHERE severity = 'error'")
                .len(),
            0
        );
        // what undo needs: each cell with its text before and after, each row by its key
        let changes = session.rows(
            "SELECT action, relation, column_name, sum(cardinality(coalesce(ids, uuids::text[]))) FROM backfill_changes GROUP BY 1, 2, 3 ORDER BY 1, 2",
        );
        let changes: Vec<String> = changes
            .into_iter()
            .map(|row| row.into_iter().flatten().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            changes,
            [
                "cell_set public.studio_board meta 960",
                "row_inserted public.event_outbox event_id 960",
                "row_inserted public.jellyfin_skips row_id 240"
            ]
        );
        assert!(session.is_true(
            "SELECT bool_and(b.meta::text = u.became AND u.was::jsonb = jsonb_build_object('jellyfin_item_id', b.meta -> 'jellyfin_item_id'))
             FROM backfill_changes c, unnest(c.ids, c.before, c.after) u(id, was, became) JOIN studio_board b ON b.id = u.id::bigint
             WHERE c.action = 'cell_set'"
        ));
        session.fails_with_hint(
            "22023",
            "CALL run_backfill('jellyfin_metadata', 100, true, '{\"colour\": 1}')",
        );
    });
}

#[test]
fn undo_reports_what_the_world_has_seen_and_what_somebody_edited() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        for id in 1..=4 {
            insert_row(&mut session, &row(id, "known"));
        }
        insert_row(&mut session, &row(5, "gone"));
        insert_item(&mut session, &answered("known"));
        insert_item(&mut session, &gone("gone"));
        let before = session.rows("SELECT id, meta::text FROM studio_board ORDER BY id");
        let run_id = session.counters(&call(true, "")).get("run_id");
        session.run(
            "UPDATE event_outbox SET state = 'published', published_at = now(), envelope_id = 'e' WHERE subject_id = '1';
             UPDATE event_outbox SET claimed_by = 'a relay' WHERE subject_id = '2';
             UPDATE event_outbox SET attempts = 1, last_error = 'timeout' WHERE subject_id = '4';
             UPDATE studio_board SET meta = meta || '{\"note\": \"mine\"}' WHERE id = 3",
        );
        let named: Vec<String> = conflicts(&mut session, run_id)
            .into_iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        assert_eq!(named.len(), 4, "{named:?}");
        for reason in ["published 1", "claimed 1", "attempted 1"] {
            assert!(named.contains(&reason.to_owned()), "{reason}: {named:?}");
        }
        let undone = undo(&mut session, run_id);
        assert_eq!(
            (
                undone.get("conflicts"),
                undone.get("cells_restored"),
                undone.get("rows_removed")
            ),
            (4, 3, 2)
        );
        assert_eq!(
            session.text("SELECT string_agg(subject_id, ',' ORDER BY subject_id) FROM event_outbox"),
            "1,2,4"
        );
        assert_eq!(reasons(&mut session), "");
        let after = session.rows("SELECT id, meta::text FROM studio_board ORDER BY id");
        assert_eq!((&after[0], &after[1], &after[3]), (&before[0], &before[1], &before[3]));
        assert!(session.is_true(
            "SELECT meta ? 'jellyfin_public_url' AND meta ->> 'note' = 'mine' FROM studio_board WHERE id = 3"
        ));
        // what was published is not queued again by the same version
        let again = session.counters(&call(true, ""));
        assert_eq!((again.get("enriched"), again.get("events_queued")), (3, 0));
    });
}

#[test]
fn verification_finds_what_does_not_fit() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        for id in 1..=3 {
            insert_row(&mut session, &row(id, "known"));
        }
        insert_row(
            &mut session,
            &json!({"id": 4, "title": "EXAMPLE video", "content_url": "s3://b/4", "status": "published", "meta": {"premiere_date": "2025-10-01"}}),
        );
        insert_row(&mut session, &row(5, "unknown"));
        insert_item(&mut session, &answered("known"));
        let findings = |session: &mut Session| {
            session
                .rows("SELECT finding, row_id FROM verify_jellyfin_metadata() ORDER BY severity, finding, row_id")
                .into_iter()
                .map(|row| row.into_iter().flatten().collect::<Vec<_>>().join(" "))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            findings(&mut session),
            [
                "not_enriched 1",
                "not_enriched 2",
                "not_enriched 3",
                "not_enriched 4",
                "not_resolved 5"
            ]
        );
        session.run(&call(true, ""));
        assert_eq!(findings(&mut session), ["not_resolved 5"]);
        session.run(
            "UPDATE event_outbox SET payload = payload || '{\"title\": null}' WHERE subject_id = '1';
             UPDATE event_outbox SET payload = payload || '{\"description\": \"at /media/secret/known.mp4\"}' WHERE subject_id = '2';
             UPDATE event_outbox SET event_id = gen_random_uuid(), state = 'failed' WHERE subject_id = '3';
             DELETE FROM studio_board WHERE id IN (4, 5)",
        );
        assert_eq!(
            findings(&mut session),
            [
                "event_not_valid 1",
                "event_tells_path 2",
                "event_with_wrong_id 3",
                "event_failed 3",
                "event_without_row 4"
            ]
        );
    });
}

#[test]
fn the_script_for_pipelines_shows_executes_and_verifies() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        for id in 1..=3 {
            insert_row(&mut session, &row(id, if id == 3 { "unknown" } else { "known" }));
        }
        insert_item(&mut session, &answered("known"));
        let script = |variables: &[(&str, &str)]| {
            let given = [("backfill_version", VERSION), ("public_base", BASE)];
            media_assets_tests::psql::run(database.script("backfill_jellyfin_metadata", &[&given, variables].concat()))
        };
        let dry = script(&[("sample_events", "1")]).with(0);
        assert!(
            dry.contains("s3://outputs/1.mp4") && !dry.contains("s3://outputs/2.mp4"),
            "{dry}"
        );
        assert!(dry.contains("Nothing was written"), "{dry}");
        assert_eq!(session.number("SELECT count(*) FROM event_outbox"), 0);
        // a canary, then the rest
        script(&[("execute", "true"), ("max_rows", "1")]).with(0);
        assert_eq!(session.number("SELECT count(*) FROM event_outbox"), 1);
        let all = script(&[("execute", "true"), ("summary", "off")]).with(0);
        assert!(
            all.contains("verified: no errors") && all.contains("not_resolved"),
            "{all}"
        );
        assert_eq!(session.number("SELECT count(*) FROM event_outbox"), 2);
        let nameless = media_assets_tests::psql::run(database.script("backfill_jellyfin_metadata", &[])).with(3);
        assert!(nameless.contains("backfill_version is not given"), "{nameless}");
    });
}
