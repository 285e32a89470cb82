//! Items as they come: odd tables, odd values, failing rows, rights, other sessions; importers, key drift, verification.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use media_assets_tests::ingest::{add_collection, contents, counters, create_tables, INGEST_COUNTERS};
use media_assets_tests::{each_server, literal, unique, words, Database, Server, Session};

fn with_collection(test: impl Fn(&Server, &Database, &mut Session, &str)) {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        create_tables(&mut session);
        let collection = add_collection(&mut session, "TV");
        session.run("SET media_assets.progress = off");
        test(server, &database, &mut session, &collection);
    });
}

/// Counters that are not 0, in words.
fn told(session: &mut Session, call: &str) -> String {
    let values = counters(session, call);
    let told: Vec<String> = INGEST_COUNTERS
        .iter()
        .zip(values)
        .filter(|(_, value)| *value != 0)
        .map(|(name, value)| format!("{}={value}", name.replace("assets_", "")))
        .collect();
    told.join(" ")
}

fn both(session: &mut Session, call: &str) -> String {
    session.run("BEGIN READ ONLY");
    let dry = told(session, call);
    session.run("COMMIT");
    let done = told(session, &format!("{call}, execute => true"));
    assert_eq!(dry, done, "dry run and execution of {call}");
    done
}

#[test]
fn items_come_from_tables_and_views_with_as_many_columns_as_they_have() {
    with_collection(|_, _, session, _| {
        session.run(
            "CREATE TABLE least AS SELECT '/l/' || n AS locator FROM generate_series(1, 3) n;
             CREATE VIEW seen AS SELECT locator, 5 AS size, '2025-01-01'::date AS mtime, 1::bigint AS season FROM least;
             CREATE MATERIALIZED VIEW stored AS SELECT locator || '.mkv' AS locator, 5::numeric AS size FROM least;
             CREATE TEMPORARY TABLE passing AS SELECT 77::bigint AS locator",
        );
        assert_eq!(both(session, "'TV', 'least'"), "discovered=3 ingested=3");
        assert_eq!(both(session, "'TV', 'seen'"), "discovered=3 skipped=3");
        assert!(
            session.is_true("SELECT bool_and(size = 5 AND mtime = '2025-01-01') FROM collection_assets"),
            "NULLs were learned"
        );
        assert_eq!(both(session, "'TV', 'stored'"), "discovered=3 ingested=3");
        assert_eq!(
            told(session, "'TV', 'passing', execute => true"),
            "discovered=1 ingested=1"
        );
    });
}

#[test]
fn what_a_table_of_items_lacks_is_told() {
    with_collection(|_, _, session, _| {
        session.run(
            "CREATE TABLE nameless (path text); CREATE TABLE sized (locator text, size text); CREATE SEQUENCE counted;
             CREATE TABLE jsonish (locator text, metadata json)",
        );
        for execute in [false, true] {
            for (state, items) in [
                ("42703", "nameless"),
                ("42804", "sized"),
                ("42804", "jsonish"),
                ("42809", "counted"),
            ] {
                session.fails_with_hint(
                    state,
                    &format!("SELECT * FROM ingest_collection('TV', '{items}', {execute})"),
                );
            }
            session.fails(
                "42P01",
                &format!("SELECT * FROM ingest_collection('TV', 'no_such_items', {execute})"),
            );
            for arguments in ["NULL, 'items'", "'TV', NULL"] {
                session.fails_with_hint(
                    "22023",
                    &format!("SELECT * FROM ingest_collection({arguments}, {execute})"),
                );
            }
            for named in [
                "reconcile => NULL",
                "max_removed_fraction => NULL",
                "max_removed_fraction => 1.5",
                "max_removed_fraction => 'NaN'",
                "batch => 0",
            ] {
                session.fails_with_hint(
                    "22023",
                    &format!("SELECT * FROM ingest_collection('TV', 'items', {execute}, {named})"),
                );
            }
        }
        session.fails_with_hint("22023", "SELECT * FROM ingest_collection('TV', 'items', NULL)");
        session.fails(
            "25006",
            "BEGIN READ ONLY; SELECT * FROM ingest_collection('TV', 'items', true)",
        );
        session.fails_with_hint(
            "0A000",
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM ingest_collection('TV', 'items', true)",
        );
        session.run("DROP TABLE collection_assets");
        let error = session.fails_with_hint("42P01", "SELECT * FROM ingest_collection('TV', 'items')");
        assert!(words(&error).contains("create_ingest_tables"), "{}", words(&error));
    });
}

#[test]
fn times_of_other_types_cost_themselves_only() {
    with_collection(|_, _, session, _| {
        for (sql_type, odd) in [
            ("date", "5874897-12-31"),
            ("date", "4714-11-24 BC"),
            ("timestamp", "294276-12-31 23:59:59"),
            ("timestamp", "4714-11-24 BC"),
        ] {
            session.run(&format!(
                "SET TimeZone = 'America/New_York'; DROP TABLE IF EXISTS odd; CREATE TABLE odd (locator text, mtime {sql_type});
                 INSERT INTO odd VALUES ('/m/ok.mkv', '2025-10-01'), ('/m/odd.mkv', '{odd}')"
            ));
            let looked =
                session.number("SELECT assets_discovered * 10 + assets_ingested FROM ingest_collection('TV', 'odd')");
            assert_eq!(looked, 22, "{sql_type} {odd}");
            session.run("SET TimeZone = 'Asia/Tokyo'; SELECT * FROM ingest_collection('TV', 'odd')");
        }
    });
}

#[test]
fn odd_items_cost_themselves_only() {
    with_collection(|_, _, session, _| {
        session.run(
            "ALTER TABLE items ALTER size TYPE numeric;
             INSERT INTO items (locator, size, mtime) VALUES
                 (NULL, 1, NULL), ('', 1, NULL), ('   ', 1, NULL), ('/m/negative.mkv', -5, NULL), ('/m/huge.mkv', 1e30, NULL),
                 ('/m/nan.mkv', 'NaN', NULL), ('/m/always.mkv', 1, 'infinity'), ('/m/never.mkv', 1, '-infinity'), ('/m/old.mkv', 1, '4000-01-01 BC'),
                 ('/m/A.mkv', 1, NULL), ('/m/a.mkv', 1, NULL), ('/m/Movie #1.mkv', 1, NULL), ('/m/Movie #2.mkv', 1, NULL),
                 ('/m//A.mkv', 2, NULL), ('/m/./A.mkv', 3, NULL)",
        );
        let done = both(session, "'TV', 'items'");
        assert_eq!(done, "discovered=15 ingested=10 failed=3 duplicates_prevented=2");
        assert_eq!(
            session.text(
                "SELECT string_agg(uri, ' ' ORDER BY uri COLLATE \"C\") FROM collection_assets WHERE size IS NULL"
            ),
            "/m/huge.mkv /m/nan.mkv /m/negative.mkv"
        );
        assert!(session.is_true("SELECT mtime IS NULL FROM collection_assets WHERE uri = '/m/always.mkv'"));
        // of one key the least locator in C order wins
        assert_eq!(
            session.text("SELECT uri FROM collection_assets WHERE canonical_key = 'filesystem:/m/A.mkv'"),
            "/m/./A.mkv"
        );
        assert_eq!(
            both(session, "'TV', 'items'"),
            "discovered=15 skipped=10 failed=3 duplicates_prevented=2"
        );
    });
}

#[test]
fn a_row_that_the_database_rejects_costs_itself_only() {
    with_collection(|_, _, session, _| {
        session.run(
            "ALTER TABLE collection_assets ADD CONSTRAINT short CHECK (length(title) < 10), ADD CONSTRAINT one_uri UNIQUE (uri);
             INSERT INTO items (locator, title, uri) SELECT '/m/' || n || '.mkv', CASE WHEN n % 100 = 7 THEN 'much too long a title' ELSE 'fine' END,
                 CASE WHEN n IN (500, 501) THEN 'same' END FROM generate_series(1, 1000) n",
        );
        assert_eq!(
            told(session, "'TV', 'items', execute => true"),
            "discovered=1000 ingested=989 failed=11"
        );
        assert_eq!(session.number("SELECT count(*) FROM collection_assets"), 989);
        let states = session.rows("SELECT sqlstate, count(*) FROM backfill_quarantine GROUP BY 1 ORDER BY 2 DESC");
        assert_eq!(states[0], [Some("23514".to_owned()), Some("10".to_owned())]);
        assert_eq!(states.len(), 2);
        assert!(session.is_true("SELECT last_ingest_time IS NOT NULL FROM collections"));
        // too many of them stop the run, and nothing of it stays
        session.run("TRUNCATE collection_assets; SET media_assets.max_failures = 5");
        session.fails_with_hint("53400", "SELECT * FROM ingest_collection('TV', 'items', true)");
        assert_eq!(session.number("SELECT count(*) FROM collection_assets"), 0);
    });
}

#[test]
fn reconcile_removes_what_was_not_seen_and_nothing_else() {
    with_collection(|_, _, session, _| {
        session.run("INSERT INTO items (locator) SELECT '/m/' || n || '.mkv' FROM generate_series(1, 10) n");
        told(session, "'TV', 'items', execute => true");
        session.run(
            "UPDATE collection_assets SET state = 'enriching'; UPDATE collection_assets SET state = 'ready', approved_for_broadcast = true;
             UPDATE collection_assets SET state = 'retired', approved_for_broadcast = false WHERE uri = '/m/2.mkv'; DELETE FROM items WHERE locator IN ('/m/1.mkv', '/m/2.mkv')",
        );
        session.fails_with_hint(
            "55000",
            "SELECT * FROM ingest_collection('TV', 'items', true, reconcile => true)",
        );
        let shown = session.rows("SELECT canonical_key, reason, next_state, clears_approval FROM explain_ingest_collection('TV', 'items', reconcile => true, max_removed_fraction => 0.2) WHERE action = 'remove'");
        assert_eq!(
            shown,
            [["filesystem:/m/1.mkv", "not_seen", "ready", "t"].map(|text| Some(text.to_owned()))]
        );
        assert_eq!(
            both(session, "'TV', 'items', reconcile => true, max_removed_fraction => 0.2"),
            "discovered=8 skipped=8 removed=1"
        );
        assert_eq!(
            session.rows("SELECT uri, state, approved_for_broadcast, deleted_at IS NOT NULL FROM collection_assets WHERE is_deleted"),
            [["/m/1.mkv", "ready", "f", "t"].map(|text| Some(text.to_owned()))]
        );
        session.run("INSERT INTO items VALUES (NULL)");
        session.fails_with_hint(
            "55000",
            "SELECT * FROM ingest_collection('TV', 'items', reconcile => true, max_removed_fraction => 1)",
        );
        session.run("DELETE FROM items");
        session.fails_with_hint(
            "55000",
            "SELECT * FROM ingest_collection('TV', 'items', reconcile => true, max_removed_fraction => 1)",
        );
        assert_eq!(
            told(session, "'TV', 'items', execute => true"),
            "",
            "an empty list without reconcile removes nothing"
        );
    });
}

#[test]
fn runs_of_one_collection_go_one_after_the_other() {
    with_collection(|_, database, session, _| {
        session.run("INSERT INTO items (locator) SELECT '/m/' || n FROM generate_series(1, 50) n; BEGIN");
        told(session, "'TV', 'items', execute => true");
        let mut other = database.session();
        let pid = other.process_id();
        let thread = std::thread::spawn(move || told(&mut other, "'TV', 'items', execute => true"));
        let mut watcher = database.session();
        watcher.wait_until(&format!(
            "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = {pid}"
        ));
        session.run("COMMIT");
        assert_eq!(thread.join().expect("no panic"), "discovered=50 skipped=50");
        // another collection does not wait
        add_collection(session, "Films");
        session.run("BEGIN");
        told(session, "'TV', 'items', execute => true");
        watcher.run("SET statement_timeout = '20s'");
        assert_eq!(
            told(&mut watcher, "'Films', 'items', execute => true"),
            "discovered=50 ingested=50"
        );
        session.run("COMMIT");
    });
}

#[test]
fn a_row_that_an_application_inserts_meanwhile_is_seen() {
    with_collection(|_, database, session, collection| {
        session.run("INSERT INTO items (locator, size) SELECT '/m/' || n, 1 FROM generate_series(1, 5) n");
        let mut application = database.session();
        application.run(&format!(
            "BEGIN; INSERT INTO collection_assets (collection_uuid, canonical_key, size) VALUES ('{collection}', 'filesystem:/m/3', 1)"
        ));
        let mut other = database.session();
        other.run("SET media_assets.lock_timeout = 0");
        let thread = std::thread::spawn(move || told(&mut other, "'TV', 'items', execute => true"));
        std::thread::sleep(Duration::from_millis(500));
        application.run("COMMIT");
        assert_eq!(thread.join().expect("no panic"), "discovered=5 ingested=4 skipped=1");
        assert_eq!(session.number("SELECT count(*) FROM collection_assets"), 5);
    });
}

#[test]
fn what_an_operator_does_meanwhile_is_decided_on() {
    with_collection(|_, database, session, _| {
        session.run(
            "INSERT INTO items (locator, size) SELECT '/m/' || n, n FROM generate_series(1, 4) n; SELECT * FROM ingest_collection('TV', 'items', true);
             UPDATE collection_assets SET state = 'enriching'; UPDATE items SET size = size + 10 WHERE size < 4",
        );
        // seen as enriching by the run, then made ready and approved, retired, and enriched
        let mut operator = database.session();
        operator.run(
            "BEGIN; UPDATE collection_assets SET state = 'ready' WHERE size = 1; UPDATE collection_assets SET approved_for_broadcast = true WHERE size = 1;
             UPDATE collection_assets SET state = 'retired' WHERE size = 2; UPDATE collection_assets SET size = 13 WHERE size = 3",
        );
        let mut other = database.session();
        other.run("SET media_assets.lock_timeout = 0; SET media_assets.log_decisions = 'all'");
        let pid = other.process_id();
        let thread = std::thread::spawn(move || told(&mut other, "'TV', 'items', execute => true"));
        session.wait_until(&format!(
            "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = {pid}"
        ));
        operator.run("COMMIT");
        assert_eq!(
            thread.join().expect("no panic"),
            "discovered=4 updated=1 skipped=3 changed_content=1"
        );
        let rows = session.rows("SELECT uri, state, size, approved_for_broadcast FROM collection_assets ORDER BY uri");
        let row = |text: [&str; 4]| text.map(|text| Some(text.to_owned())).to_vec();
        assert_eq!(
            rows,
            [
                row(["/m/1", "new", "11", "f"]),
                row(["/m/2", "retired", "2", "f"]),
                row(["/m/3", "enriching", "13", "f"]),
                row(["/m/4", "enriching", "4", "f"]),
            ]
        );
    });
}

#[test]
fn items_are_read_once() {
    with_collection(|_, _, session, _| {
        session.run(
            "CREATE SEQUENCE reads;
             CREATE VIEW counted AS SELECT '/m/' || n AS locator, nextval('reads') AS size, 'A' AS title FROM generate_series(1, 1200) n",
        );
        for call in ["", ", title => 'A'", ", reconcile => true"] {
            session.run("ALTER SEQUENCE reads RESTART");
            told(session, &format!("'TV', 'counted', execute => true{call}"));
            assert_eq!(session.number("SELECT last_value FROM reads"), 1200, "{call}");
        }
    });
}

#[test]
fn rights_are_checked_before_anything_is_written() {
    with_collection(|server, database, session, _| {
        session.run("INSERT INTO items (locator) VALUES ('/m/a')");
        let role = server.role(database);
        let name = &role.name;
        let mut caller = database.session_as(&role);
        let steps = [
            ("SELECT ON collections", false),
            ("SELECT ON collection_assets", false),
            ("SELECT ON items", false),
            ("UPDATE (last_ingest_time) ON collections", true),
            ("INSERT ON collection_assets", true),
            ("UPDATE ON collection_assets", true),
        ];
        for (grant, needed_to_write_only) in steps {
            let before = contents(session, true);
            if !needed_to_write_only {
                caller.fails_with_hint("42501", "SELECT * FROM ingest_collection('TV', 'items')");
            }
            caller.fails_with_hint("42501", "SELECT * FROM ingest_collection('TV', 'items', true)");
            assert_eq!(contents(session, true), before);
            session.run(&format!("GRANT {grant} TO {name}"));
        }
        assert_eq!(both(&mut caller, "'TV', 'items'"), "discovered=1 ingested=1");
        session.run("ALTER TABLE collection_assets ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON collection_assets USING (true)");
        caller.fails_with_hint("42501", "SELECT * FROM ingest_collection('TV', 'items')");
        caller.fails_with_hint("42501", "SELECT * FROM discover_files('/tmp')");
    });
}

#[test]
fn a_call_is_all_or_nothing_for_its_caller() {
    with_collection(|_, _, session, _| {
        session.run("INSERT INTO items (locator) SELECT '/m/' || n FROM generate_series(1, 300) n");
        let before = contents(session, true);
        session.run("BEGIN; SELECT * FROM ingest_collection('TV', 'items', true); ROLLBACK");
        assert_eq!(contents(session, true), before);
        // the whole statement fails when the source breaks in its middle
        session.run("CREATE VIEW broken AS SELECT locator, 10 / (length(locator) - 6) AS size FROM items");
        session.fails("22012", "SELECT * FROM ingest_collection('TV', 'broken', true)");
        assert_eq!(contents(session, true), before);
        assert_eq!(session.number("SELECT count(*) FROM backfill_runs"), 0);
    });
}

#[test]
fn keys_follow_case_sensitive_and_collisions_are_left() {
    with_collection(|_, _, session, _| {
        session.run(
            "INSERT INTO items (locator) VALUES ('/M/One.mkv'), ('/M/Two.mkv'), ('/m/two.mkv'), ('/m/plain.mkv');
             SELECT * FROM ingest_collection('TV', 'items', true); UPDATE collections SET case_sensitive = false",
        );
        let warnings = "SELECT count(*) FROM verify_collection_assets('TV') WHERE finding = 'key_out_of_date'";
        assert_eq!(session.number(warnings), 2);
        let call = "SELECT old_key, new_key, outcome, executed FROM rekey_collection('TV'";
        let row = |old: &str, new: &str, outcome: &str, executed: &str| {
            [old, new, outcome, executed].map(|text| Some(text.to_owned())).to_vec()
        };
        session.run("BEGIN READ ONLY");
        let dry = session.rows(&format!("{call})"));
        session.run("COMMIT");
        let one = |executed| row("filesystem:/M/One.mkv", "filesystem:/m/one.mkv", "rekey", executed);
        let two = row("filesystem:/M/Two.mkv", "filesystem:/m/two.mkv", "collision", "f");
        assert_eq!(dry, [one("f"), two.clone()]);
        assert_eq!(session.rows(&format!("{call}, true)")), [one("t"), two.clone()]);
        assert_eq!(
            session.rows(&format!("{call}, true)")),
            [two],
            "again: only what collides"
        );
        session.run("UPDATE collections SET case_sensitive = true; SELECT * FROM rekey_collection('TV', true)");
        assert_eq!(
            session.text(
                "SELECT string_agg(canonical_key, ' ' ORDER BY canonical_key COLLATE \"C\") FROM collection_assets"
            ),
            "filesystem:/M/One.mkv filesystem:/M/Two.mkv filesystem:/m/plain.mkv filesystem:/m/two.mkv",
            "the uri knows how it was written"
        );
        assert_eq!(session.number(warnings), 0);
        session.fails_with_hint("42704", "SELECT * FROM rekey_collection('Nothing')");
        session.fails_with_hint("22023", "SELECT * FROM rekey_collection('TV', NULL)");
        session.fails("25006", "BEGIN READ ONLY; SELECT * FROM rekey_collection('TV', true)");
    });
}

#[test]
fn a_rekey_is_a_run_that_can_be_taken_back() {
    with_collection(|_, _, session, _| {
        session.run(
            "INSERT INTO items (locator) SELECT '/M/' || n || '.mkv' FROM generate_series(1, 250) n;
             INSERT INTO items (locator) VALUES ('/m/1.mkv');
             SELECT * FROM ingest_collection('TV', 'items', true); UPDATE collections SET case_sensitive = false;
             SET media_assets.log_decisions = 'all'",
        );
        let keys = "SELECT uuid, canonical_key FROM collection_assets ORDER BY 1";
        let before = session.rows(keys);
        let runs = "SELECT count(*) FROM backfill_runs";
        assert_eq!(
            session.number("SELECT count(*) FROM rekey_collection('TV') WHERE run_id IS NULL AND NOT executed"),
            250
        );
        assert_eq!(session.number(runs), 1, "a dry run has no row");
        let row = |text: [&str; 3]| text.map(|text| Some(text.to_owned())).to_vec();
        assert_eq!(
            session
                .rows("SELECT outcome, executed, count(*) FROM rekey_collection('TV', true) GROUP BY 1, 2 ORDER BY 1"),
            [row(["collision", "f", "1"]), row(["rekey", "t", "249"])]
        );
        let run = session.text("SELECT max(run_id) FROM backfill_runs");
        assert_eq!(
            session.rows(&format!(
                "SELECT job, state, rows_done FROM backfill_progress WHERE run_id = {run}"
            )),
            [row(["collection_rekey", "finished", "250"])]
        );
        let report = session.text(&format!("SELECT backfill_report({run})"));
        assert!(report.contains("rekeyed") && report.contains("249"), "{report}");
        assert_eq!(
            session.number(&format!("SELECT count(*) FROM backfill_decisions WHERE run_id = {run}")),
            250
        );
        // somebody's own key stays
        session.run("UPDATE collection_assets SET canonical_key = 'filesystem:/mine' WHERE uri = '/M/7.mkv'");
        let undo = |session: &mut Session, execute: bool| {
            session.rows(&format!(
                "SELECT values_scanned, cells_restored, conflicts, errors FROM undo_backfill({run}, {execute})"
            ))
        };
        let foreseen = undo(session, false);
        assert_eq!(foreseen, [["249", "248", "1", "0"].map(|text| Some(text.to_owned()))]);
        assert_eq!(undo(session, true), foreseen);
        let after = session.rows(keys);
        let changed = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| before != after)
            .count();
        assert_eq!(changed, 1);
        // a run with nothing to do is a run, too
        session.run("UPDATE collections SET case_sensitive = true; DELETE FROM collection_assets WHERE canonical_key = 'filesystem:/mine'");
        let count = session.number(runs);
        assert_eq!(session.number("SELECT count(*) FROM rekey_collection('TV', true)"), 0);
        assert_eq!(session.number(runs), count + 1);
    });
}

#[test]
fn a_row_that_cannot_be_rekeyed_costs_itself_only() {
    with_collection(|_, database, session, _| {
        session.run(
            "INSERT INTO items (locator) SELECT '/M/' || n || '.mkv' FROM generate_series(1, 150) n;
             SELECT * FROM ingest_collection('TV', 'items', true); UPDATE collections SET case_sensitive = false;
             ALTER TABLE collection_assets ADD CONSTRAINT unlucky CHECK (canonical_key <> 'filesystem:/m/13.mkv')",
        );
        let outcomes = session.rows(
            "SELECT outcome, executed, count(*), min(old_key), min(new_key) FROM rekey_collection('TV', true) WHERE outcome <> 'rekey' GROUP BY 1, 2",
        );
        assert_eq!(
            outcomes,
            [["failed", "f", "1", "filesystem:/M/13.mkv", "filesystem:/m/13.mkv"].map(|text| Some(text.to_owned()))]
        );
        assert_eq!(
            session.number("SELECT count(*) FROM collection_assets WHERE canonical_key LIKE 'filesystem:/m/%'"),
            149
        );
        assert_eq!(
            session.text("SELECT sqlstate FROM backfill_quarantine q JOIN collection_assets a ON a.uuid::text = q.item_key AND a.uri = '/M/13.mkv'"),
            "23514"
        );
        // it waits for an ingest of its collection, and an ingest for it
        session.run("BEGIN; SELECT * FROM rekey_collection('TV', true)");
        let mut other = database.session();
        let error = other.fails(
            "55P03",
            "SET lock_timeout = '200ms'; SELECT * FROM ingest_collection('TV', 'items', true)",
        );
        assert_eq!(error.code().code(), "55P03");
        session.run("COMMIT");
    });
}

#[test]
fn items_are_found_whatever_the_order_of_the_index() {
    with_collection(|_, _, session, collection| {
        // an index that sorts otherwise than bytes do, and rows of other items between those of a page
        if session.is_true("SELECT count(*) > 9 FROM pg_collation WHERE collprovider = 'i'") {
            session.run(
                "CREATE COLLATION backwards (provider = icu, locale = 'en-US-u-kf-upper', deterministic = true);
                 ALTER TABLE collection_assets ALTER canonical_key TYPE text COLLATE backwards",
            );
        }
        session.run(
            "INSERT INTO items (locator, size) SELECT '/m/' || CASE n % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'B' ELSE '#é' END || n || CASE n % 2 WHEN 0 THEN 'X' ELSE 'x' END, n
             FROM generate_series(1, 1300) n",
        );
        session.run(&format!(
            "INSERT INTO collection_assets (collection_uuid, canonical_key) SELECT '{collection}', 'filesystem:/m/b' || n || '/other' FROM generate_series(1, 5000) n"
        ));
        assert_eq!(both(session, "'TV', 'items'"), "discovered=1300 ingested=1300");
        assert_eq!(both(session, "'TV', 'items'"), "discovered=1300 skipped=1300");
        session.run("UPDATE items SET size = size + 1 WHERE size % 100 = 0; INSERT INTO items (locator) VALUES ('/m/C'), ('/m/ß')");
        assert_eq!(
            both(session, "'TV', 'items', batch => 7"),
            "discovered=1302 ingested=2 updated=13 skipped=1287 changed_content=13"
        );
        assert_eq!(
            both(session, "'TV', 'items', batch => 100000"),
            "discovered=1302 skipped=1302"
        );
    });
}

#[test]
fn views_over_the_tables_will_do() {
    with_collection(|_, _, session, _| {
        session.run(
            "INSERT INTO items (locator, size) SELECT '/M/' || n, n FROM generate_series(1, 300) n;
             ALTER TABLE collections RENAME TO stored_collections; ALTER TABLE collection_assets RENAME TO stored_assets;
             CREATE VIEW collections AS SELECT * FROM stored_collections; CREATE VIEW collection_assets AS SELECT * FROM stored_assets",
        );
        let rows = "SELECT a::text FROM stored_assets a ORDER BY 1";
        assert_eq!(both(session, "'TV', 'items'"), "discovered=300 ingested=300");
        let first = session.rows(rows);
        session.run("UPDATE items SET size = size + 1 WHERE size % 10 = 0; DELETE FROM items WHERE size = 1");
        assert_eq!(
            both(session, "'TV', 'items', reconcile => true"),
            "discovered=299 updated=30 skipped=269 removed=1 changed_content=30"
        );
        session.run("UPDATE collections SET case_sensitive = false");
        let second = session.rows(rows);
        assert_eq!(
            session.number("SELECT count(*) FROM rekey_collection('TV', true) WHERE executed"),
            300
        );
        session.run("SELECT * FROM undo_backfill(3, true)");
        assert_eq!(session.rows(rows), second);
        session.run("SELECT * FROM undo_backfill(2, true)");
        assert_eq!(session.rows(rows), first);
        session.run("SELECT * FROM undo_backfill(1, true)");
        assert_eq!(session.number("SELECT count(*) FROM stored_assets"), 0);
    });
}

#[test]
fn a_partitioned_table_with_columns_of_other_types_will_do() {
    with_collection(|_, _, session, _| {
        session.run(
            "DROP TABLE collection_assets;
             CREATE TABLE collection_assets (uuid uuid, collection_uuid uuid NOT NULL REFERENCES collections, canonical_key varchar(1100) NOT NULL,
                 uri varchar, title varchar(50), season smallint, episode bigint, size numeric, mtime timestamp, content_hash char(64), content_signature varchar,
                 enricher_checksum varchar, state asset_state NOT NULL, approved_for_broadcast boolean NOT NULL DEFAULT false, duration_ms int,
                 video_codec varchar, audio_codec varchar, container varchar, metadata json, discovered_at timestamp, is_deleted boolean NOT NULL DEFAULT false,
                 deleted_at timestamp, created_at timestamp, updated_at timestamp, PRIMARY KEY (uuid, collection_uuid), UNIQUE (collection_uuid, canonical_key))
                 PARTITION BY HASH (collection_uuid);
             CREATE TABLE part PARTITION OF collection_assets FOR VALUES WITH (MODULUS 1, REMAINDER 0);
             INSERT INTO items (locator, size, mtime, metadata, title, season, content_hash)
             SELECT '/M/' || n, n, '2025-01-01 10:00+00', CASE WHEN n % 2 = 0 THEN '{\"a\": 1.50}'::jsonb END, 'T', n, repeat('a', 64) FROM generate_series(1, 300) n",
        );
        assert_eq!(both(session, "'TV', 'items'"), "discovered=300 ingested=300");
        assert_eq!(both(session, "'TV', 'items'"), "discovered=300 skipped=300");
        let rows = "SELECT a::text FROM collection_assets a ORDER BY 1";
        let before = session.rows(rows);
        session.run("UPDATE items SET content_hash = repeat('b', 64) WHERE size % 10 = 0");
        assert_eq!(
            both(session, "'TV', 'items'"),
            "discovered=300 updated=30 skipped=270 changed_content=30"
        );
        let run = session.text("SELECT max(run_id) FROM backfill_runs");
        session.run(&format!("SELECT * FROM undo_backfill({run}, true)"));
        assert_eq!(session.rows(rows), before);
        // such a table has no lifecycle, which verification says
        assert_eq!(
            session.rows("SELECT DISTINCT finding FROM verify_collection_assets() WHERE severity = 'error'"),
            [[Some("lifecycle_not_enforced".to_owned())]]
        );
    });
}

#[test]
fn another_index_on_the_collection_makes_nothing_quadratic() {
    with_collection(|_, _, session, _| {
        // tables that nobody analysed, and the index that many make for their foreign key
        session.run(
            "CREATE INDEX a_foreign_key ON collection_assets (collection_uuid);
             INSERT INTO items (locator, size) SELECT '/M/' || n, n FROM generate_series(1, 5000) n",
        );
        // reading the whole index for each of 5,000 items would be a hundred thousands of blocks
        let first = session.blocks("SELECT * FROM ingest_collection('TV', 'items', true)");
        assert!(first < 160_000, "{first} blocks");
        session.run("UPDATE items SET size = size + 1 WHERE size % 2 = 0; INSERT INTO items (locator) SELECT '/N/' || n FROM generate_series(1, 2000) n");
        let dry = session.blocks("SELECT * FROM ingest_collection('TV', 'items')");
        assert!(dry < 20_000, "{dry} blocks");
        session.run("UPDATE collections SET case_sensitive = false");
        let keys = session.blocks("SELECT * FROM rekey_collection('TV')");
        assert!(keys < 60_000, "{keys} blocks");
        eprintln!("{first} {dry} {keys} blocks");
    });
}

#[test]
fn verification_finds_what_does_not_fit() {
    with_collection(|_, _, session, collection| {
        session.run("INSERT INTO items (locator, size) SELECT '/m/' || n, n FROM generate_series(1, 5) n; SELECT * FROM ingest_collection('TV', 'items', true)");
        let errors = "SELECT string_agg(DISTINCT finding, ' ' ORDER BY finding) FROM verify_collection_assets() WHERE severity = 'error'";
        session.run("BEGIN READ ONLY");
        assert_eq!(session.value(errors), None);
        session.run("COMMIT; ALTER TABLE collection_assets DISABLE TRIGGER USER");
        assert_eq!(session.text(errors), "lifecycle_not_enforced");
        session.run(
            "ALTER TABLE collection_assets DROP CONSTRAINT approved_is_ready, DROP CONSTRAINT deleted_has_time, DROP CONSTRAINT collection_assets_collection_uuid_fkey;
             UPDATE collection_assets SET approved_for_broadcast = true WHERE size = 1; UPDATE collection_assets SET is_deleted = true WHERE size = 2;
             UPDATE collection_assets SET content_signature = 'size:77' WHERE size = 3; UPDATE collection_assets SET collection_uuid = gen_random_uuid() WHERE size = 4",
        );
        assert_eq!(
            session.text(errors),
            "approved_without_right collection_gone deleted_without_time lifecycle_not_enforced signature_of_other_content"
        );
        // rows of a child table are rows of the first one, and its triggers are not theirs
        session.run("ALTER TABLE collection_assets ENABLE TRIGGER USER");
        assert!(!session.text(errors).contains("lifecycle_not_enforced"));
        session.run("CREATE TABLE child () INHERITS (collection_assets)");
        assert_eq!(
            session.number("SELECT count(*) FROM verify_collection_assets() WHERE finding = 'lifecycle_not_enforced' AND detail LIKE '%child'"),
            4
        );
        session.run("DROP TABLE child");
        session.run(&format!("UPDATE collections SET enrichers = '[{{\"enricher_id\": \"x\", \"priority\": 1}}]' WHERE uuid = '{collection}'"));
        assert_eq!(
            session
                .number("SELECT count(*) FROM verify_collection_assets('TV') WHERE finding = 'enrichers_out_of_date'"),
            3
        );
    });
}

#[test]
fn files_of_the_server_are_discovered_and_ingested() {
    with_collection(|_, _, session, _| {
        let root = std::env::temp_dir().join(unique("media_assets_discover"));
        let inside = root.join("Show/Season 01");
        fs::create_dir_all(&inside).expect("a directory");
        for name in [
            "Show - S01E02 - Name.MKV",
            "Show - S01E01.mkv",
            ".hidden.mkv",
            "cover.jpg",
        ] {
            fs::write(inside.join(name), "abc").expect("a file");
        }
        let path = literal(root.to_str().expect("utf-8"));
        let rows = session.rows(&format!(
            "SELECT substr(locator, length({path}) + 2), title, season, episode, size, content_hash IS NULL, mtime > now() - interval '1 hour'
             FROM discover_files({path})"
        ));
        let row = |name: &str, episode: &str| {
            let name = format!("Show/Season 01/{name}");
            [name.as_str(), "Show", "1", episode, "3", "t", "t"]
                .map(|text| Some(text.to_owned()))
                .to_vec()
        };
        assert_eq!(
            rows,
            [row("Show - S01E01.mkv", "1"), row("Show - S01E02 - Name.MKV", "2")]
        );
        let hash = session.text(&format!(
            "SELECT content_hash FROM discover_files({path}, ARRAY['mkv'], hash => true) LIMIT 1"
        ));
        assert_eq!(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        session.run(&format!("CREATE VIEW files AS SELECT * FROM discover_files({path})"));
        assert_eq!(both(session, "'TV', 'files'"), "discovered=2 ingested=2");
        assert_eq!(
            both(session, "'TV', 'files', title => 'Show', season => 1, episode => 2"),
            "discovered=1 skipped=1"
        );
        // What the server cannot read makes the list incomplete: nobody reconciles by it.
        let locked = root.join("locked");
        fs::create_dir(&locked).expect("a directory");
        fs::write(locked.join("x.mkv"), "").expect("a file");
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).expect("a mode");
        let unread =
            session.number("SELECT count(*) FROM files WHERE locator IS NULL AND metadata ->> 'problem' <> ''");
        if unread == 1 {
            assert_eq!(both(session, "'TV', 'files'"), "discovered=3 skipped=2 failed=1");
            session.fails_with_hint(
                "55000",
                "SELECT * FROM ingest_collection('TV', 'files', true, reconcile => true)",
            );
        } else {
            // a server that runs as root may read everything
            assert_eq!(session.number("SELECT count(*) FROM files"), 3);
        }
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).expect("a mode");
        fs::remove_dir_all(&root).expect("removed");
        session.fails_with_hint("58P01", &format!("SELECT * FROM discover_files({path})"));
        session.fails_with_hint("22023", "SELECT * FROM discover_files('relative')");
        session.fails_with_hint("22023", "SELECT * FROM discover_files(NULL)");
    });
}

#[test]
fn a_plex_library_becomes_items() {
    with_collection(|_, _, session, _| {
        session.run(
            r#"UPDATE collections SET source_type = 'plex', path_mappings = '{"/plex": "/mnt"}';
               CREATE VIEW library AS SELECT i.* FROM collections c, plex_items('{"MediaContainer": {"Metadata": [
                   {"ratingKey": "77", "type": "episode", "grandparentTitle": "Show", "parentIndex": 1, "index": 2,
                    "Media": [{"Part": [{"file": "/plex/a.mkv", "size": 10}]}]}, {"type": "movie", "title": "No key"}]}}', c.path_mappings) i"#,
        );
        assert_eq!(both(session, "'TV', 'library'"), "discovered=2 ingested=1 failed=1");
        assert_eq!(
            session.rows("SELECT canonical_key, uri, title, season, episode, size FROM collection_assets"),
            [["plex:77", "/mnt/a.mkv", "Show", "1", "2", "10"].map(|text| Some(text.to_owned()))]
        );
        assert_eq!(
            session.text("SELECT map_media_path('/plex/x/y', '{\"/plex\": \"/mnt\", \"/plex/x\": \"/z\"}')"),
            "/z/y"
        );
        assert_eq!(session.number("SELECT count(*) FROM plex_items('5')"), 0);
    });
}

#[test]
fn a_hundred_thousand_files_are_discovered_in_bounded_memory() {
    with_collection(|_, database, session, _| {
        // In memory where there is such a place: the disk is not what is tested.
        let shared = std::path::PathBuf::from("/dev/shm");
        let base = if shared.is_dir() { shared } else { std::env::temp_dir() };
        let root = base.join(unique("media_assets_many"));
        for folder in 0..100 {
            let inside = root.join(format!("Show {folder}/Season 01"));
            fs::create_dir_all(&inside).expect("a directory");
            for file in 0..1000 {
                fs::File::create(inside.join(format!("Show {folder} - S01E{file:03} - A name of a usual length.mkv")))
                    .expect("a file");
            }
        }
        let path = literal(root.to_str().expect("utf-8"));
        // what is asked for spills to disk; what stays of the walk is one directory
        session.run("SET work_mem = '1MB'");
        let used = "SELECT sum(total_bytes) FROM pg_backend_memory_contexts";
        let before = session.number(used);
        let mut watcher = database.session();
        assert_eq!(
            session.number(&format!("SELECT count(DISTINCT locator) FROM discover_files({path})")),
            100_000
        );
        assert!(session.number(used) - before < 4 << 20, "nothing is left behind");
        let pid = session.process_id();
        let peak = watcher.text(&format!("SELECT pg_read_file('/proc/{pid}/status')"));
        let peak: i64 = peak
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok())
            .expect("the kernel's figure");
        assert!(peak < 64 << 10, "{peak} kB");
        fs::remove_dir_all(&root).expect("removed");
    });
}
