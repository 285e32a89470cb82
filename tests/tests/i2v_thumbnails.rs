//! Image-to-video thumbnails: vectors through SQL, and what the page promises.

use media_assets_tests::json::vectors;
use media_assets_tests::runs::{conflicts, last_run, undo};
use media_assets_tests::samples::with_chain;
use media_assets_tests::scenarios::{check, compare_counters, compare_rows, contents, insert, reject, rows};
use media_assets_tests::{each_server, words, Session};
use serde_json::{json, Value};

const DRY: &str = "SELECT * FROM backfill_i2v_thumbnails()";
const EXECUTE: &str = "SELECT * FROM backfill_i2v_thumbnails(execute => true)";
const TABLES: [&str; 2] = ["media", "i2v_jobs"];

/// The expectation, corrected where the page says otherwise.
fn overruled(vector: &Value) -> Value {
    let mut expect = vector["expect"].clone();
    if vector["id"] == "i2v_scenarios/source-map-without-small" {
        // In the page's size order `large` is before `cover`.
        expect["media"][0]["thumbnail_url"] = json!("/l.webp");
    }
    expect
}

fn call(vector: &Value, execute: bool, batch: u32) -> String {
    let allow = vector["args"]["allow_private_sources"].as_bool().unwrap_or(false);
    format!("SELECT * FROM backfill_i2v_thumbnails({batch}, {execute}, {allow})")
}

fn scenario(session: &mut Session, vector: &Value, batch: u32) -> Vec<String> {
    let expect = overruled(vector);
    session.run("SELECT * FROM create_media_tables()");
    insert(session, "media", &vector["media"]);
    insert(session, "i2v_jobs", &vector["i2v_jobs"]);
    reject(session, &vector["reject"]);
    let before = contents(session, &TABLES);
    let mut wrong = Vec::new();

    session.run("BEGIN READ ONLY");
    let dry = session.counters(&call(vector, false, batch));
    let allow = vector["args"]["allow_private_sources"].as_bool().unwrap_or(false);
    let explained = session.rows(&format!(
        "SELECT media_id, jsonb_build_object('outcome', outcome, 'reason', reason)::text FROM explain_i2v_thumbnails({allow})"
    ));
    assert!(session.is_true("SELECT pg_current_xact_id_if_assigned() IS NULL"));
    session.run("COMMIT");
    let dry_expected = expect.get("dry_counters").unwrap_or(&expect["counters"]);
    wrong.extend(compare_counters("dry", dry_expected, &dry));
    for row in explained {
        let (id, decision) = (row[0].clone().expect("an id"), row[1].clone().expect("a decision"));
        let got: Value = serde_json::from_str(&decision).expect("JSON");
        let wanted = &expect["decisions"][&id];
        // What a trigger refuses no dry run can foresee.
        if got != *wanted && wanted["outcome"] != "failed" {
            wrong.push(format!("{id} is {got}, not {wanted}"));
        }
    }
    assert_eq!(contents(session, &TABLES), before, "a dry run writes nothing");

    let executed = session.counters(&call(vector, true, batch));
    wrong.extend(compare_counters("execute", &expect["counters"], &executed));
    wrong.extend(compare_rows(&expect["media"], &rows(session, "media"), "id"));
    let touched: Vec<Option<String>> = session
        .rows("SELECT id FROM media WHERE updated_at > now() - interval '1 hour' ORDER BY id COLLATE \"C\"")
        .into_iter()
        .flatten()
        .collect();
    let mut wanted: Vec<Option<String>> = expect["touched"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|id| id.as_str().map(str::to_owned))
        .collect();
    wanted.sort();
    if touched != wanted {
        wrong.push(format!("touched {touched:?}, not {wanted:?}"));
    }
    let errors = session.number("SELECT count(*) FROM verify_i2v_thumbnails() WHERE severity = 'error'");
    if errors != executed.get("errors") {
        wrong.push(format!("verification finds {errors} errors"));
    }

    let settled = contents(session, &TABLES);
    let second = session.counters(&call(vector, true, batch));
    wrong.extend(compare_counters("second", &expect["second"], &second));
    if contents(session, &TABLES) != settled {
        wrong.push("the second run changed rows".into());
    }
    if vector["undo"] == true {
        session.run("ALTER TABLE media DISABLE TRIGGER USER");
        let undone = undo(session, executed.get("run_id"));
        undone.expect(&[("conflicts", 0), ("errors", 0), ("already_undone", 0)]);
        if contents(session, &TABLES) != before {
            wrong.push("undo left something behind".into());
        }
    }
    wrong
}

#[test]
fn i2v_scenarios() {
    let cases = vectors("i2v_scenarios");
    each_server(|server| {
        for batch in [500, 1] {
            let database = server.database();
            let mut session = database.session();
            check(&mut session, &cases, |session, vector| scenario(session, vector, batch));
        }
    });
}

#[test]
fn a_long_chain_is_settled_in_one_run_whatever_the_batch() {
    each_server(|server| {
        let (_database, mut session) = with_chain(server, 250);
        for batch in [1, 7, 500] {
            session.run("BEGIN");
            session
                .counters(&format!("SELECT * FROM backfill_i2v_thumbnails({batch}, true)"))
                .expect(&[("videos_scanned", 250), ("updated", 250), ("errors", 0)]);
            assert_eq!(
                session.number(
                    "SELECT count(*) FROM media WHERE thumbnail_url = '/s' AND thumbnail_urls = '{\"small\": \"/s\"}'"
                ),
                251
            );
            assert_eq!(session.number("SELECT count(*) FROM verify_i2v_thumbnails()"), 0);
            session.run("ROLLBACK");
        }
    });
}

#[test]
fn a_committing_run_is_resumed_and_taken_back() {
    each_server(|server| {
        let (_database, mut session) = with_chain(server, 60);
        let before = contents(&mut session, &TABLES);
        session.run(
            "CREATE FUNCTION stop_at() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'out of space' USING ERRCODE = '53100'; END$$;
             CREATE TRIGGER stop_at BEFORE UPDATE ON media FOR EACH ROW WHEN (NEW.id = 'v031') EXECUTE FUNCTION stop_at()",
        );
        session.fails(
            "53100",
            "CALL run_backfill('i2v_thumbnails', batch => 10, execute => true)",
        );
        let run_id = last_run(&mut session);
        assert_eq!(
            session.number("SELECT count(*) FROM media WHERE type = 'video' AND thumbnail_url IS NOT NULL"),
            30
        );
        session.run("DROP TRIGGER stop_at ON media");
        session.run(&format!("CALL resume_backfill({run_id})"));
        assert_eq!(
            session.number("SELECT count(*) FROM media WHERE type = 'video' AND thumbnail_urls IS NOT NULL"),
            60
        );
        assert!(session.is_true(&format!(
            "SELECT state = 'finished' AND rows_done = 60 FROM backfill_progress WHERE run_id = {run_id}"
        )));
        undo(&mut session, run_id).expect(&[("cells_restored", 180), ("conflicts", 0), ("errors", 0)]);
        assert_eq!(contents(&mut session, &TABLES), before);
        // Once more: everything is as it was.
        session
            .counters(&format!("SELECT * FROM undo_backfill({run_id}, true)"))
            .expect(&[("already_undone", 180), ("cells_restored", 0)]);
        session.run("CALL run_backfill('i2v_thumbnails')");
        let said: String = session.take_notices().iter().map(words).collect();
        assert!(
            said.contains("i2v_thumbnails dry run: videos_scanned=60 updated=60"),
            "{said}"
        );
    });
}

#[test]
fn undo_leaves_what_somebody_changed_since() {
    each_server(|server| {
        let (_database, mut session) = with_chain(server, 4);
        let run_id = session.counters(EXECUTE).get("run_id");
        session.run(
            "UPDATE media SET thumbnail_url = '/mine' WHERE id = 'v001';
             UPDATE media SET thumbnail_urls = 'null' WHERE id = 'v002';
             UPDATE media SET thumbnail_url = NULL WHERE id = 'v003';
             DELETE FROM media WHERE id = 'v004'",
        );
        let undone = undo(&mut session, run_id);
        undone.expect(&[
            ("cells_restored", 6),
            ("already_undone", 1),
            ("conflicts", 5),
            ("errors", 0),
        ]);
        assert_eq!(
            conflicts(&mut session, run_id),
            [("row_gone".to_owned(), 3), ("value_changed".to_owned(), 2)]
        );
        assert_eq!(
            session.rows("SELECT thumbnail_url, thumbnail_urls FROM media WHERE type = 'video' ORDER BY id"),
            [
                vec![Some("/mine".to_owned()), None],
                vec![None, Some("null".to_owned())],
                vec![None, None]
            ]
        );
    });
}

#[test]
fn a_row_that_changes_meanwhile_is_decided_anew_and_a_deleted_one_stays_deleted() {
    each_server(|server| {
        let (database, mut session) = with_chain(server, 3);
        // The first video's update waits for the other session, which changes what the others were decided by.
        let mut other = database.session();
        other.run(
            "BEGIN; UPDATE media SET thumbnail_url = '/mine' WHERE id = 'v001'; DELETE FROM media WHERE id = 'v003'",
        );
        let run =
            media_assets_tests::runs::Background::start(&database, None, "SET media_assets.lock_timeout = 0", EXECUTE);
        session.wait_until(&format!(
            "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = {}",
            run.process_id
        ));
        other.run("COMMIT");
        run.finish();
        assert_eq!(
            session.rows("SELECT id, thumbnail_url FROM media WHERE type = 'video' ORDER BY id"),
            [["v001", "/mine"], ["v002", "/mine"]].map(|row| row.map(|text| Some(text.to_owned())).to_vec())
        );
    });
}

#[test]
fn a_source_that_becomes_private_meanwhile_gives_nothing() {
    each_server(|server| {
        let (database, mut session) = with_chain(server, 2);
        let mut other = database.session();
        other.run("BEGIN; UPDATE media SET metadata = '{}' WHERE id = 'v001'; UPDATE media SET is_public = false WHERE id = 'i'");
        let run =
            media_assets_tests::runs::Background::start(&database, None, "SET media_assets.lock_timeout = 0", EXECUTE);
        session.wait_until(&format!(
            "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = {}",
            run.process_id
        ));
        other.run("COMMIT");
        run.finish();
        assert_eq!(
            session.number("SELECT count(*) FROM media WHERE type = 'video' AND thumbnail_url IS NOT NULL"),
            0
        );
        assert_eq!(
            session.number("SELECT count(*) FROM verify_i2v_thumbnails() WHERE finding = 'source_is_private'"),
            2
        );
    });
}

#[test]
fn two_sessions_share_a_run() {
    each_server(|server| {
        let (database, mut session) = with_chain(server, 200);
        let run = media_assets_tests::runs::Background::start(
            &database,
            None,
            "SET media_assets.batch_pause = '20ms'",
            "CALL run_backfill('i2v_thumbnails', batch => 3, execute => true)",
        );
        session.wait_until("SELECT count(*) > 0 FROM backfill_progress WHERE rows_done > 0");
        let run_id = last_run(&mut session);
        session.run(&format!("CALL join_backfill({run_id})"));
        run.finish();
        assert_eq!(
            session.number("SELECT count(*) FROM media WHERE type = 'video' AND thumbnail_url = '/s'"),
            200
        );
        assert!(session.is_true("SELECT count(*) > 1 AND sum(rows_done) = 200 FROM backfill_ranges"));
    });
}

#[test]
fn missing_tables_and_columns_are_named_in_one_error() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let error = session.fails_with_hint("42P01", DRY);
        assert!(
            words(&error).contains("media") && words(&error).contains("i2v_jobs"),
            "{error}"
        );
        assert!(words(&error).contains("create_media_tables()"), "{error}");
        session.run(
            "CREATE TABLE media (id text, type text, thumbnail_url text, thumbnail_urls json, is_public boolean, metadata jsonb);
             CREATE TABLE i2v_jobs (job_id text, media_id text, original_media_id text)",
        );
        let said = words(&session.fails_with_hint("42703", EXECUTE));
        for word in [
            "thumbnail_urls is json, not jsonb",
            "updated_at does not exist",
            "result_media_id",
            "PRIMARY KEY (id)",
        ] {
            assert!(said.contains(word), "{word}: {said}");
        }
        let steps = session.rows("SELECT relation, executed FROM create_media_tables()");
        assert!(steps.iter().all(|row| row[1].as_deref() == Some("f")), "{steps:?}");
        session.fails_with_hint(
            "22023",
            "SELECT * FROM backfill_i2v_thumbnails(allow_private_sources => NULL)",
        );
        session.fails_with_hint("22023", "SELECT * FROM backfill_i2v_thumbnails(execute => NULL)");
        session.fails_with_hint(
            "22023",
            "CALL run_backfill('i2v_thumbnails', options => '{\"bucket_url\": \"x\"}')",
        );
    });
}

#[test]
fn a_partitioned_table_is_written_and_taken_back() {
    each_server(|server| {
        let (database, mut session) = with_chain(server, 60);
        session.run(
            "ALTER TABLE media RENAME TO one; CREATE TABLE media (LIKE one INCLUDING DEFAULTS, PRIMARY KEY (id)) PARTITION BY HASH (id);
             CREATE TABLE media_0 PARTITION OF media FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE media_1 PARTITION OF media FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             INSERT INTO media SELECT * FROM one",
        );
        let before = contents(&mut session, &TABLES);
        // Rows lie at the same places in both.
        let mut other = database.session();
        other.run("BEGIN; UPDATE media SET thumbnail_url = '/mine' WHERE id = 'v007'");
        let run =
            media_assets_tests::runs::Background::start(&database, None, "SET media_assets.lock_timeout = 0", EXECUTE);
        session.wait_until(&format!(
            "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = {}",
            run.process_id
        ));
        other.run("COMMIT");
        run.finish();
        assert_eq!(
            session.rows("SELECT thumbnail_url, count(*) FROM media GROUP BY 1 ORDER BY 1"),
            [["/mine", "54"], ["/s", "7"]].map(|row| row.map(|text| Some(text.to_owned())))
        );
        let run_id = last_run(&mut session);
        undo(&mut session, run_id).expect(&[("conflicts", 0), ("errors", 0)]);
        session.run("UPDATE media SET thumbnail_url = NULL WHERE id = 'v007'");
        assert_eq!(contents(&mut session, &TABLES), before);
    });
}

#[test]
fn works_through_views_and_needs_no_more_than_its_rights() {
    each_server(|server| {
        let (database, mut session) = with_chain(server, 5);
        let role = server.role(&database);
        session.run(&format!(
            "ALTER TABLE media RENAME TO media_rows; CREATE VIEW media AS SELECT * FROM media_rows;
             GRANT USAGE ON SCHEMA public TO {role}; GRANT SELECT ON media, i2v_jobs TO {role}",
            role = role.name
        ));
        let mut user = database.session_as(&role);
        user.counters(DRY).expect(&[("updated", 5)]);
        let error = user.fails_with_hint("42501", EXECUTE);
        assert!(words(&error).contains("GRANT UPDATE"), "{error}");
        session.run(&format!(
            "GRANT UPDATE (thumbnail_url, thumbnail_urls, updated_at) ON media TO {}",
            role.name
        ));
        let run_id = user.counters(EXECUTE).get("run_id");
        undo(&mut user, run_id).expect(&[("cells_restored", 15), ("conflicts", 0)]);
        session.run("ALTER TABLE i2v_jobs ENABLE ROW LEVEL SECURITY");
        user.fails_with_hint("42501", DRY);
        user.fails_with_hint(
            "0A000",
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM backfill_i2v_thumbnails(execute => true)",
        );
        user.fails(
            "25006",
            "BEGIN READ ONLY; SELECT * FROM backfill_i2v_thumbnails(execute => true)",
        );
    });
}

#[test]
fn a_url_passes_a_malformed_map_and_verification_knows() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run(
            r#"SELECT * FROM create_media_tables();
               INSERT INTO media (id, type, thumbnail_urls) VALUES ('s', 'image', '{"small": "/s"}');
               INSERT INTO media (id, type, thumbnail_urls, metadata) VALUES ('a', 'image', '5', '{"originalMediaId": "s"}');
               INSERT INTO media (id, type, metadata) VALUES ('v', 'video', '{"originalMediaId": "a"}')"#,
        );
        let errors = "SELECT count(*) FROM verify_i2v_thumbnails() WHERE severity = 'error'";
        assert_eq!(session.number(errors), 1, "a run will mend it");
        session
            .counters("SELECT * FROM backfill_i2v_thumbnails(500, true)")
            .expect(&[("updated", 1)]);
        assert_eq!(
            session.text("SELECT thumbnail_url || coalesce(thumbnail_urls::text, ' alone') FROM media WHERE id = 'v'"),
            "/s alone"
        );
        assert_eq!(session.number(errors), 0);
    });
}
