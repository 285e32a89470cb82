//! Collection ingest: the vectors through SQL, and what the page promises of a run.

use media_assets_tests::ingest::{
    add_collection, arguments, checksum, contents, counters, create_tables, fill, INGEST_COUNTERS,
};
use media_assets_tests::json::{as_text, vectors};
use media_assets_tests::{each_server, literal_or_null, words, Session};
use serde_json::Value;

fn field(row: &Value, name: &str) -> String {
    literal_or_null(as_text(&row[name]).as_deref())
}

#[test]
fn decisions() {
    let cases = vectors("ingest_decisions");
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        for case in &cases {
            let names = [
                "found",
                "state",
                "is_deleted",
                "stored_signature",
                "stored_enricher_checksum",
                "new_signature",
                "new_enricher_checksum",
            ];
            let arguments: Vec<String> = names.iter().map(|name| field(case, name)).collect();
            let got = session.rows(&format!("SELECT * FROM ingest_decision({})", arguments.join(", ")));
            let expected =
                ["action", "reason", "next_state", "clears_approval"].map(|name| as_text(&case["expect"][name]));
            assert_eq!(got, [expected], "{} ({})", case["id"], case["why"]);
        }
    });
}

/// The expectation, corrected where the page says otherwise.
fn overruled(scenario: &Value) -> Value {
    let mut expect = scenario["expect"].clone();
    if scenario["id"] == "ingest_scenarios/duplicate-by-spelling" {
        // Of one key the least locator in C order wins, not the first one listed: `/m/./` is before `/m//`.
        expect["items"][0]["locator"] = "/m/./a.mkv".into();
        expect["items"][1]["locator"] = "/m//x/../a.mkv".into();
    }
    expect
}

/// SQLSTATE of each cause, and a word that its message has.
fn error_of(cause: &str) -> (&'static str, &'static str) {
    match cause {
        "collection_not_found" => ("42704", "does not exist"),
        "collection_ambiguous" => ("22023", "several"),
        "not_sync_enabled" => ("55000", "synchronisation"),
        "not_ingestible" => ("55000", "not ingestible"),
        "season_needs_title" => ("22023", "needs a title"),
        "episode_needs_season" => ("22023", "needs a season"),
        "negative_scope" => ("22023", "negative"),
        "scope_not_found" => ("P0002", "no item is in this scope"),
        "reconcile_needs_full_scope" => ("22023", "whole collection"),
        "reconcile_fraction" => ("55000", "too many assets"),
        "reconcile_empty" => ("55000", "no items"),
        "reconcile_incomplete" => ("55000", "incomplete"),
        other => panic!("unknown cause {other}"),
    }
}

fn expected_counters(counters: &Value) -> Vec<i64> {
    INGEST_COUNTERS
        .iter()
        .map(|name| {
            counters[*name]
                .as_i64()
                .unwrap_or_else(|| panic!("no {name} in {counters}"))
        })
        .collect()
}

fn add_rejection(session: &mut Session, reject: &Value) {
    session.run("DROP TRIGGER IF EXISTS reject ON collection_assets");
    if reject.is_null() {
        return;
    }
    session.run(&format!(
        "CREATE OR REPLACE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
             IF NEW.{}::text = {} THEN RAISE EXCEPTION 'rejected by the user''s trigger'; END IF; RETURN NEW; END$$;
         CREATE TRIGGER reject BEFORE INSERT OR UPDATE ON collection_assets FOR EACH ROW EXECUTE FUNCTION reject()",
        reject["column"].as_str().expect("a column"),
        field(reject, "value")
    ));
}

fn check_items(session: &mut Session, scenario: &Value, expect: &Value) {
    let explained = session.rows(&format!(
        "SELECT coalesce(e.locator, ''), e.canonical_key, e.action, e.reason, e.next_state,
                (coalesce(a.approved_for_broadcast, false) AND NOT e.clears_approval)::text
         FROM explain_ingest_collection({}) e
         LEFT JOIN collection_assets a ON a.canonical_key = e.canonical_key AND e.reason <> 'duplicate'
         WHERE e.action <> 'remove'",
        arguments(scenario)
    ));
    let mut left = explained.clone();
    for wanted in expect["items"].as_array().expect("items") {
        let columns = ["locator", "canonical_key", "action", "reason", "next_state", "approved"];
        let fits = |row: &Vec<Option<String>>| {
            columns.iter().zip(row).all(|(name, got)| match &wanted[*name] {
                Value::Null if wanted.get(*name).is_none() => true,
                Value::Bool(value) => got.as_deref() == Some(if *value { "true" } else { "false" }),
                Value::Null if *name == "locator" => got.as_deref() == Some(""),
                value => *got == as_text(value),
            })
        };
        let at = left.iter().position(fits);
        let at = at.unwrap_or_else(|| panic!("{}: no item {wanted} in {explained:?}", scenario["id"]));
        left.remove(at);
    }
    assert!(left.is_empty(), "{}: items too many: {left:?}", scenario["id"]);
}

fn check_rows(session: &mut Session, scenario: &Value, expect: &Value) {
    let rows = expect["rows"].as_array().expect("rows");
    assert_eq!(
        session.number("SELECT count(*) FROM collection_assets"),
        rows.len() as i64,
        "{}",
        scenario["id"]
    );
    for row in rows {
        for (column, value) in row.as_object().expect("a row") {
            let expected = match column.as_str() {
                "enricher_checksum" => checksum(row),
                "mtime" => format!("({}::timestamptz)::text", field(row, column)),
                "metadata" => format!("{}::jsonb::text", field(row, column)),
                _ => literal_or_null(
                    match value {
                        Value::Bool(value) => Some(value.to_string()),
                        value => as_text(value),
                    }
                    .as_deref(),
                ),
            };
            let got = session.rows(&format!(
                "SELECT a.{column}::text, {expected} FROM collection_assets a WHERE a.canonical_key = {} AND a.collection_uuid = {}",
                field(row, "canonical_key"),
                field(row, "collection_uuid")
            ));
            assert_eq!(got.len(), 1, "{}: row {}", scenario["id"], row["canonical_key"]);
            assert_eq!(
                got[0][0], got[0][1],
                "{} ({}): {column} of {}",
                scenario["id"], scenario["why"], row["canonical_key"]
            );
        }
    }
}

/// The last run leaves the tables as before when it is undone.
fn undo_and_ingest_again(session: &mut Session, scenario: &Value, before: &[String]) {
    let id = &scenario["id"];
    let run = session.text("SELECT max(run_id) FROM backfill_runs");
    session.run("SET TimeZone = 'Asia/Kathmandu'");
    let undo = |session: &mut Session, execute| {
        session.rows(&format!("SELECT values_scanned, items_restored, assets_removed, already_undone, conflicts, errors FROM undo_backfill({run}, {execute})"))
    };
    session.run("BEGIN READ ONLY");
    let dry = undo(session, false);
    session.run("COMMIT");
    let done = undo(session, true);
    session.run("RESET TimeZone");
    assert_eq!(dry, done, "{id}: the dry run of the undo");
    assert_eq!(
        (done[0][4].as_deref(), done[0][5].as_deref()),
        (Some("0"), Some("0")),
        "{id}: {done:?}"
    );
    assert_eq!(contents(session, true), before, "{id}: undone, row for row");
    session.run(&format!(
        "SELECT * FROM ingest_collection({}, execute => true)",
        arguments(scenario)
    ));
}

#[test]
fn scenarios() {
    let scenarios = vectors("ingest_scenarios");
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        create_tables(&mut session);
        for scenario in &scenarios {
            let expect = &overruled(scenario);
            let id = &scenario["id"];
            fill(&mut session, scenario);
            add_rejection(&mut session, &scenario["reject"]);
            let before = contents(&mut session, true);
            let call = arguments(scenario);
            if let Some(cause) = expect["error"].as_str() {
                let (state, word) = error_of(cause);
                for execute in [false, true] {
                    let sql = format!("SELECT * FROM ingest_collection({call}, execute => {execute})");
                    let error = session.fails_with_hint(state, &sql);
                    assert!(error.message().contains(word), "{id}: {}", words(&error));
                    assert_eq!(contents(&mut session, true), before, "{id}: nothing is written");
                }
                continue;
            }
            session.run("BEGIN READ ONLY");
            let dry = counters(&mut session, &call);
            check_items(&mut session, scenario, expect);
            assert_eq!(
                session.value("SELECT pg_current_xact_id_if_assigned()"),
                None,
                "{id}: no transaction id"
            );
            session.run("COMMIT");
            assert_eq!(contents(&mut session, true), before, "{id}: a dry run changes nothing");
            let foreseen = expect.get("dry_counters").unwrap_or(&expect["counters"]);
            assert_eq!(dry, expected_counters(foreseen), "{id} ({}): dry run", scenario["why"]);
            let done = counters(&mut session, &format!("{call}, execute => true"));
            assert_eq!(
                done,
                expected_counters(&expect["counters"]),
                "{id} ({}): execution",
                scenario["why"]
            );
            check_rows(&mut session, scenario, expect);
            assert!(
                session.is_true("SELECT count(*) = 1 FROM collections WHERE last_ingest_time IS NOT NULL"),
                "{id}: last_ingest_time of the one collection"
            );
            if scenario["undo"] == true {
                undo_and_ingest_again(&mut session, scenario, &before);
            }
            let after = contents(&mut session, false);
            let second = counters(&mut session, &format!("{call}, execute => true"));
            assert_eq!(second, expected_counters(&expect["second"]), "{id}: second run");
            assert_eq!(
                contents(&mut session, false),
                after,
                "{id}: the second run changes nothing"
            );
        }
    });
}

#[test]
fn a_long_run_is_refused_with_a_hint() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        create_tables(&mut session);
        for execute in [false, true] {
            let error = session.fails_with_hint(
                "0A000",
                &format!("CALL run_backfill('collection_ingest', execute => {execute})"),
            );
            assert!(words(&error).contains("ingest_collection"), "{}", words(&error));
        }
    });
}

#[test]
fn one_run_in_the_ledger_and_its_result_as_json() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        create_tables(&mut session);
        let collection = add_collection(&mut session, "TV");
        session.run("INSERT INTO items (locator, size) SELECT '/m/' || n || '.mkv', n FROM generate_series(1, 3) n");
        let run = session.text("SELECT run_id FROM ingest_collection('TV', 'items', true)");
        session.run("UPDATE items SET size = 9 WHERE locator = '/m/1.mkv'");
        let run2 = session.text("SELECT run_id FROM ingest_collection('TV', 'items', true)");
        let result: Value = serde_json::from_str(&session.text(&format!("SELECT ingest_result({run})"))).expect("json");
        assert_eq!(result["status"], "success");
        assert_eq!(result["scope"], "collection");
        assert_eq!(result["collection_id"], collection.as_str());
        assert_eq!(result["collection_name"], "TV");
        assert_eq!(result["stats"]["assets_ingested"], 3);
        assert_eq!(result["asset_ids"]["created"].as_array().map(Vec::len), Some(3));
        assert_eq!(result["asset_ids"]["updated"].as_array().map(Vec::len), Some(0));
        let result2: Value =
            serde_json::from_str(&session.text(&format!("SELECT ingest_result({run2})"))).expect("json");
        let updated = session.text("SELECT uuid FROM collection_assets WHERE canonical_key = 'filesystem:/m/1.mkv'");
        assert_eq!(result2["asset_ids"]["updated"], serde_json::json!([updated]));
        assert_eq!(result2["stats"]["changed_content"], 1);
        assert!(
            session.is_true(&format!(
                "SELECT (ingest_result({run2}) ->> 'last_ingest_time')::timestamptz = last_ingest_time
                    AND (ingest_result({run}) ->> 'last_ingest_time')::timestamptz < last_ingest_time FROM collections"
            )),
            "each run tells its own time"
        );
        session.fails_with_hint("42704", "SELECT ingest_result(99999)");
    });
}

#[test]
fn undo_never_brings_back_ready_or_an_approval() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        create_tables(&mut session);
        add_collection(&mut session, "TV");
        session.run("INSERT INTO items (locator, size) SELECT '/m/' || n || '.mkv', n FROM generate_series(1, 4) n");
        session.run("SELECT * FROM ingest_collection('TV', 'items', true)");
        session.run(
            "UPDATE collection_assets SET state = 'enriching';
             UPDATE collection_assets SET state = 'ready' WHERE size < 4;
             UPDATE collection_assets SET approved_for_broadcast = true WHERE size < 3;
             UPDATE items SET size = size + 10 WHERE size IN (1, 3, 4); DELETE FROM items WHERE size = 2",
        );
        let run = session.text(
            "SELECT run_id FROM ingest_collection('TV', 'items', true, reconcile => true, max_removed_fraction => 1)",
        );
        let left = contents(&mut session, false);
        let explained = session.rows(&format!(
            "SELECT u.outcome, u.reason, a.uri FROM explain_undo({run}) u JOIN collection_assets a ON a.uuid::text = u.id ORDER BY a.uri"
        ));
        let row = |outcome: &str, reason: Option<&str>, uri: &str| {
            vec![
                Some(outcome.to_owned()),
                reason.map(str::to_owned),
                Some(uri.to_owned()),
            ]
        };
        assert_eq!(
            explained,
            [
                row("conflict", Some("needs_approval"), "/m/1.mkv"),
                row("conflict", Some("needs_approval"), "/m/2.mkv"),
                row("conflict", Some("needs_approval"), "/m/3.mkv"),
                row("undo", None, "/m/4.mkv"),
            ]
        );
        session.run(&format!("SELECT * FROM undo_backfill({run}, true)"));
        assert_eq!(
            session.text("SELECT concat(state, size) FROM collection_assets WHERE uri = '/m/4.mkv'"),
            "enriching4"
        );
        let now = contents(&mut session, false);
        let unchanged = left.iter().filter(|row| now.contains(row)).count();
        assert_eq!(unchanged, 4, "three assets as the run left them, and the collection");
        assert_eq!(
            session.number("SELECT count(*) FROM collection_assets WHERE approved_for_broadcast"),
            0
        );
    });
}

#[test]
fn undo_leaves_alone_what_somebody_changed_since() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        create_tables(&mut session);
        add_collection(&mut session, "TV");
        session.run(
            "CREATE TABLE schedule (asset uuid REFERENCES collection_assets);
             INSERT INTO items (locator, size) SELECT '/m/' || n || '.mkv', n FROM generate_series(1, 3) n",
        );
        let run = session.text("SELECT run_id FROM ingest_collection('TV', 'items', true)");
        session.run(
            "UPDATE collection_assets SET operator_verified = true WHERE size = 1;
             INSERT INTO schedule SELECT uuid FROM collection_assets WHERE size = 2",
        );
        session.run(&format!("SELECT * FROM undo_backfill({run}, true)"));
        assert_eq!(
            session.rows(&format!(
                "SELECT reason, count(*) FROM explain_undo({run}) WHERE outcome = 'conflict' GROUP BY 1 ORDER BY 1"
            )),
            [
                [Some("in_use_by_reference".to_owned()), Some("1".to_owned())],
                [Some("row_changed".to_owned()), Some("1".to_owned())]
            ]
        );
        assert_eq!(session.number("SELECT count(*) FROM collection_assets"), 2);
        assert!(session.is_true("SELECT last_ingest_time IS NULL FROM collections"));
    });
}

#[test]
fn gates_start_and_end_of_a_run_are_logged_with_its_id() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        create_tables(&mut session);
        add_collection(&mut session, "TV");
        session.run("INSERT INTO items (locator) VALUES ('/m/a'); SET client_min_messages = log; SET media_assets.progress = off");
        let logged = |session: &mut Session| -> Vec<String> {
            let notices = session.take_notices();
            let ours = notices.iter().map(|notice| notice.message().to_owned());
            ours.filter(|message| message.starts_with("media_assets run="))
                .collect()
        };
        session.take_notices();
        let run = session.text("SELECT run_id FROM ingest_collection('TV', 'items', true)");
        let line = |what: &str| format!("media_assets run={run} job=collection_ingest event={what}");
        assert_eq!(
            logged(&mut session),
            [
                line("validated gates=collection,prerequisites,scope"),
                line("started"),
                line("finished"),
                line("committed")
            ]
        );
        session.run("BEGIN");
        let run = session.text("SELECT run_id FROM ingest_collection('TV', 'items', true)");
        session.run("ROLLBACK");
        let lines = logged(&mut session);
        assert_eq!(
            lines.last(),
            Some(&format!(
                "media_assets run={run} job=collection_ingest event=rolled_back"
            ))
        );
        assert!(!lines.iter().any(|line| line.ends_with("event=committed")), "{lines:?}");
        session.fails("42704", "SELECT * FROM ingest_collection('Nothing', 'items', true)");
        assert_eq!(
            logged(&mut session),
            ["media_assets run=- job=collection_ingest event=refused cause=collection_not_found"]
        );
    });
}

#[test]
fn undo_gives_every_value_back_as_it_was() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        create_tables(&mut session);
        let collection = add_collection(&mut session, "TV");
        // JSON null and SQL NULL, digits that a double would lose, times at the ends of time, texts that look like NULL
        session.run(&format!(
            r#"INSERT INTO collection_assets (collection_uuid, canonical_key, uri, title, size, mtime, content_signature, metadata, updated_at, duration_ms) VALUES
                 ('{collection}', 'filesystem:/m/1', '/m/1', '', 1, 'infinity', 'size:1', 'null', '2020-01-01 00:00:00.000001+00', 9223372036854775807),
                 ('{collection}', 'filesystem:/m/2', NULL, NULL, 2, '-infinity', 'size:2', NULL, '4000-01-01 BC', NULL),
                 ('{collection}', 'filesystem:/m/3', '/m/3', 'null', 3, '4000-01-01 BC', 'size:3', '{{"n": 1.50, "big": 12345678901234567890, "null": null}}', now(), 0),
                 ('{collection}', 'filesystem:/m/4', '/m/4', 'it''s "\ {{}}', 4, NULL, 'size:4', '"null"', now(), 1),
                 ('{collection}', 'filesystem:/m/5', '/m/5', 'gone', 5, NULL, 'size:5', 'null', now(), 1);
             INSERT INTO items (locator, size, title, metadata) SELECT '/m/' || n, 10 + n, 'new', '{{}}' FROM generate_series(1, 4) n"#
        ));
        // as text: to_jsonb has one word for both kinds of null
        let rows = "SELECT a::text FROM collection_assets a ORDER BY 1";
        let before = session.rows(rows);
        let run = session.text(
            "SELECT run_id FROM ingest_collection('TV', 'items', true, reconcile => true, max_removed_fraction => 1)",
        );
        assert_eq!(
            session.number("SELECT count(*) FROM collection_assets WHERE title = 'new' OR is_deleted"),
            5
        );
        session.run(&format!("SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'German'; SET extra_float_digits = -15; SELECT * FROM undo_backfill({run}, true)"));
        session.run("RESET TimeZone; RESET DateStyle; RESET extra_float_digits");
        assert_eq!(session.rows(rows), before);
    });
}

#[test]
fn the_script_for_pipelines_is_dry_by_default_and_verifies() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        create_tables(&mut session);
        add_collection(&mut session, "it's TV");
        session.run(
            "INSERT INTO items (locator, title, season) VALUES ('/m/a', 'A', 1), ('/m/b', 'B', 2), (NULL, 'C', 3)",
        );
        let script = |variables: &[(&str, &str)]| {
            let base = [("collection", "it's TV"), ("items", "items")];
            let all: Vec<(&str, &str)> = base.iter().chain(variables).copied().collect();
            media_assets_tests::psql::run(database.script("ingest_collection", &all))
        };
        let said = script(&[]).with(0);
        for word in ["assets_ingested", "new_item", "unkeyable", "Nothing was written"] {
            assert!(said.contains(word), "{word}: {said}");
        }
        assert_eq!(session.number("SELECT count(*) FROM collection_assets"), 0);
        let said = script(&[
            ("execute", "true"),
            ("title", "A"),
            ("season", "1"),
            ("summary", "false"),
        ])
        .with(0);
        assert!(said.contains("verified: no errors"), "{said}");
        assert_eq!(
            session.text("SELECT string_agg(uri, ' ') FROM collection_assets"),
            "/m/a"
        );
        script(&[("execute", "true")]).with(0);
        assert_eq!(session.number("SELECT count(*) FROM collection_assets"), 2);
        // refused as a whole, and so is a call that says nothing
        script(&[("execute", "true"), ("title", "Z")]).with(3);
        script(&[("execute", "true"), ("reconcile", "true")]).with(3);
        media_assets_tests::psql::run(database.script("ingest_collection", &[])).with(3);
        // what verification finds fails the pipeline
        session.run("ALTER TABLE collection_assets DISABLE TRIGGER USER");
        let said = script(&[("execute", "true")]).with(3);
        assert!(said.contains("lifecycle_not_enforced"), "{said}");
    });
}
