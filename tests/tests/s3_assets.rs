//! S3 asset tracking: vectors through SQL, and what the page promises.

use media_assets_tests::json::vectors;
use media_assets_tests::runs::{conflicts, last_run, undo, Background};
use media_assets_tests::samples::with_scenes;
use media_assets_tests::scenarios::{check, compare_counters, compare_rows, contents, insert, reject, rows, same};
use media_assets_tests::{each_server, literal_or_null, words, Session};
use serde_json::{Map, Value};

const DRY: &str = "SELECT * FROM backfill_s3_assets()";
const EXECUTE: &str = "SELECT * FROM backfill_s3_assets(execute => true)";
const TABLES: [&str; 3] = ["scenes", "video_sessions", "asset_references"];

fn compare_references(expected: &Value, rows: &[Map<String, Value>]) -> Vec<String> {
    let expected = expected.as_array().expect("references");
    let mut wrong = Vec::new();
    if expected.len() != rows.len() {
        wrong.push(format!("{} references, not {}", rows.len(), expected.len()));
    }
    for wanted in expected {
        let wanted = wanted.as_object().expect("a row");
        let fits = |row: &&Map<String, Value>| {
            let mut columns = wanted.iter();
            columns
                .all(|(column, value)| column == "created_at" || same(value, row.get(column).unwrap_or(&Value::Null)))
        };
        if !rows.iter().any(|row| fits(&row)) {
            wrong.push(format!("no reference {wanted:?} in {rows:?}"));
        }
    }
    wrong
}

fn scenario(session: &mut Session, vector: &Value, batch: u32) -> Vec<String> {
    let expect = &vector["expect"];
    let bucket_url = literal_or_null(vector["args"]["bucket_url"].as_str());
    let call = |execute: bool| format!("SELECT * FROM backfill_s3_assets({batch}, {execute}, {bucket_url})");
    session.run("SELECT * FROM create_scene_tables()");
    for table in TABLES {
        insert(session, table, &vector[table]);
    }
    reject(session, &vector["reject"]);
    let before = contents(session, &TABLES);
    let mut wrong = Vec::new();

    session.run("BEGIN READ ONLY");
    let dry = session.counters(&call(false));
    let explained = session.rows(&format!(
        "SELECT entity_id, reason FROM explain_s3_assets({bucket_url}) WHERE reason IS NOT NULL"
    ));
    assert!(session.is_true("SELECT pg_current_xact_id_if_assigned() IS NULL"));
    session.run("COMMIT");
    wrong.extend(compare_counters(
        "dry",
        expect.get("dry_counters").unwrap_or(&expect["counters"]),
        &dry,
    ));
    let reasons: Map<String, Value> = explained
        .into_iter()
        .map(|row| (row[0].clone().expect("an id"), row[1].clone().into()))
        .collect();
    let mut wanted = expect["reasons"].as_object().cloned().unwrap_or_default();
    // What a trigger refuses no dry run can foresee.
    wanted.retain(|_, reason| reason != "rejected");
    if reasons != wanted {
        wrong.push(format!("reasons {reasons:?}, not {wanted:?}"));
    }
    assert_eq!(contents(session, &TABLES), before, "a dry run writes nothing");

    let executed = session.counters(&call(true));
    wrong.extend(compare_counters("execute", &expect["counters"], &executed));
    for table in ["scenes", "video_sessions"] {
        wrong.extend(compare_rows(&expect[table], &rows(session, table), "id"));
    }
    wrong.extend(compare_references(
        &expect["asset_references"],
        &rows(session, "asset_references"),
    ));
    let errors = session.rows("SELECT * FROM verify_s3_assets() WHERE severity = 'error'");
    if errors.is_empty() != (executed.get("errors") == 0) {
        wrong.push(format!("verification finds {errors:?}"));
    }

    let settled = contents(session, &TABLES);
    let second = session.counters(&call(true));
    wrong.extend(compare_counters("second", &expect["second"], &second));
    if contents(session, &TABLES) != settled {
        wrong.push("the second run changed rows".into());
    }
    if vector["undo"] == true {
        undo(session, executed.get("run_id")).expect(&[("conflicts", 0), ("errors", 0), ("already_undone", 0)]);
        if contents(session, &TABLES) != before {
            wrong.push("undo left something behind".into());
        }
    }
    wrong
}

#[test]
fn s3_scenarios() {
    let cases = vectors("s3_scenarios");
    each_server(|server| {
        for batch in [500, 1] {
            let database = server.database();
            let mut session = database.session();
            check(&mut session, &cases, |session, vector| scenario(session, vector, batch));
        }
    });
}

#[test]
fn tables_with_the_legacy_columns_only_are_looked_at_and_extended() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run(
            "CREATE TABLE scenes (id text PRIMARY KEY, session_id varchar(40), project_id text, index bigint, status text, error_message text,
                                  s3_chunk_key text, s3_chunk_url text, s3_source_key text, checksum text, updated_at timestamp);
             CREATE TABLE video_sessions (id text PRIMARY KEY, project_id text, status text, error_message text);
             INSERT INTO video_sessions VALUES ('v', 'p', 'ready', NULL), ('w', 'p', 'error', 'broken');
             INSERT INTO scenes VALUES ('s', 'v', 'p', 3000000000, 'ready', NULL, 'k.mp4', NULL, NULL, NULL, 'infinity')",
        );
        session.run("BEGIN READ ONLY");
        let dry = session.counters(DRY);
        dry.expect(&[
            ("scenes_migrated", 1),
            ("references_created", 1),
            ("sessions_migrated", 2),
        ]);
        session.run("COMMIT");
        let said: String = session.take_notices().iter().map(words).collect();
        assert!(said.contains("extend_scene_tables(true)"), "{said}");
        let error = session.fails_with_hint("42P01", EXECUTE);
        assert!(words(&error).contains("extend_scene_tables(true)"), "{error}");
        let planned = session.rows("SELECT relation, ddl FROM extend_scene_tables() WHERE NOT executed");
        assert_eq!(planned.len(), 4, "{planned:?}");
        session.run("SELECT * FROM extend_scene_tables(true)");
        assert_eq!(
            session.number("SELECT count(*) FROM extend_scene_tables(true) WHERE executed"),
            0
        );
        let executed = session.counters(EXECUTE);
        assert_eq!(
            media_assets_tests::runs::same_work(&executed),
            media_assets_tests::runs::same_work(&dry)
        );
        assert_eq!(
            session.rows("SELECT video_asset::text, assets_status, asset_version::text FROM scenes"),
            [[r#"{"s3Key": "k.mp4", "contentType": "video/mp4"}"#, "ready", "1"].map(|text| Some(text.to_owned()))]
        );
        // Neither an index beyond 32 bits nor an infinite time has a place in what is written.
        assert_eq!(
            session.text("SELECT metadata::text FROM asset_references"),
            r#"{"projectId": "p", "migratedFromLegacy": true}"#
        );
        assert_eq!(
            session
                .rows("SELECT assets_status, assets_error_message, asset_count::text FROM video_sessions ORDER BY id"),
            [
                vec![Some("ready".to_owned()), None, Some("1".to_owned())],
                ["error", "broken", "0"].map(|text| Some(text.to_owned())).to_vec()
            ]
        );
        assert_eq!(session.number("SELECT count(*) FROM verify_s3_assets()"), 0);
    });
}

#[test]
fn a_reference_that_cannot_be_written_takes_its_struct_with_it() {
    each_server(|server| {
        let (_database, mut session) = with_scenes(server, 3);
        session.run(
            "ALTER TABLE asset_references ADD CHECK (NOT (entity_id = 'a02-3' AND asset_type = 'source_code'));
             ALTER TABLE scenes ADD CHECK (id <> 'a03-7' OR video_asset IS NULL)",
        );
        session.counters(EXECUTE).expect(&[
            ("scenes_scanned", 30),
            ("scenes_migrated", 28),
            ("errors", 2),
            ("references_created", 56),
            ("sessions_migrated", 3),
        ]);
        assert_eq!(
            session.rows("SELECT id FROM scenes WHERE video_asset IS NULL AND assets_status IS NULL ORDER BY id"),
            [[Some("a02-3".to_owned())], [Some("a03-7".to_owned())]]
        );
        assert_eq!(
            session.number("SELECT count(*) FROM asset_references WHERE entity_id IN ('a02-3', 'a03-7')"),
            0
        );
        assert_eq!(
            session.rows("SELECT asset_count::text, assets_status FROM video_sessions ORDER BY id"),
            [["20", "ready"], ["18", "pending"], ["18", "pending"]].map(|row| row.map(|text| Some(text.to_owned())))
        );
        assert!(session.number("SELECT count(*) FROM verify_s3_assets() WHERE severity = 'error'") > 0);
    });
}

#[test]
fn a_committing_run_is_resumed_between_its_phases_and_taken_back() {
    each_server(|server| {
        let (_database, mut session) = with_scenes(server, 12);
        let before = contents(&mut session, &TABLES);
        session.run(
            "CREATE FUNCTION stop_at() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'out of space' USING ERRCODE = '53100'; END$$;
             CREATE TRIGGER stop_at BEFORE UPDATE ON video_sessions FOR EACH ROW WHEN (NEW.id = 'a07') EXECUTE FUNCTION stop_at()",
        );
        session.fails(
            "53100",
            "CALL run_backfill('s3_assets', batch => 3, execute => true, options => '{\"bucket_url\": \"https://b.s3.amazonaws.com\"}')",
        );
        let run_id = last_run(&mut session);
        assert_eq!(
            session.number("SELECT count(*) FROM scenes WHERE video_asset IS NOT NULL"),
            120
        );
        assert_eq!(
            session.number("SELECT count(*) FROM video_sessions WHERE asset_count = 20"),
            6
        );
        session.run("DROP TRIGGER stop_at ON video_sessions");
        session.run(&format!("CALL resume_backfill({run_id})"));
        assert_eq!(
            session.number("SELECT count(*) FROM video_sessions WHERE asset_count = 20 AND assets_status = 'ready'"),
            12
        );
        assert!(session.is_true(&format!(
            "SELECT state = 'finished' AND rows_done = 132 FROM backfill_progress WHERE run_id = {run_id}"
        )));
        assert_eq!(session.number("SELECT count(*) FROM verify_s3_assets()"), 0);
        // Taken back in a session with another time zone, as a run of its own.
        session.run("SET TimeZone = 'Asia/Kathmandu'");
        session.run(&format!(
            "CALL run_backfill('undo', batch => 7, execute => true, options => '{{\"run_id\": {run_id}}}')"
        ));
        session.run("RESET TimeZone");
        assert_eq!(contents(&mut session, &TABLES), before);
    });
}

#[test]
fn undo_keeps_references_that_somebody_changed_or_refers_to() {
    each_server(|server| {
        let (_database, mut session) = with_scenes(server, 1);
        let run_id = session.counters(EXECUTE).get("run_id");
        session.run(
            "CREATE TABLE pin (id int, reference uuid REFERENCES asset_references);
             INSERT INTO pin SELECT 1, id FROM asset_references WHERE entity_id = 'a01-0' AND asset_type = 'video_chunk';
             UPDATE asset_references SET size = 5 WHERE entity_id = 'a01-1' AND asset_type = 'video_chunk';
             DELETE FROM asset_references WHERE entity_id = 'a01-2' AND asset_type = 'video_chunk';
             UPDATE scenes SET video_asset = video_asset || '{\"size\": 5}' WHERE id = 'a01-1';
             UPDATE video_sessions SET assets_status = 'mine'",
        );
        let undone = undo(&mut session, run_id);
        undone.expect(&[
            ("rows_removed", 17),
            ("already_undone", 1),
            ("conflicts", 4),
            ("errors", 0),
        ]);
        assert_eq!(
            conflicts(&mut session, run_id),
            [
                ("in_use_by_reference".to_owned(), 1),
                ("row_changed".to_owned(), 1),
                ("value_changed".to_owned(), 2)
            ]
        );
        assert_eq!(session.number("SELECT count(*) FROM asset_references"), 2);
        assert_eq!(
            session.number("SELECT count(*) FROM scenes WHERE video_asset IS NOT NULL"),
            1
        );
    });
}

#[test]
fn a_scene_that_changes_meanwhile_is_decided_anew() {
    each_server(|server| {
        let (database, mut session) = with_scenes(server, 1);
        let mut other = database.session();
        other.run(
            "BEGIN; UPDATE scenes SET s3_chunk_key = 'new.webm', s3_chunk_url = NULL WHERE id = 'a01-0';
             DELETE FROM scenes WHERE id = 'a01-1'; UPDATE scenes SET video_asset = '{\"s3Key\": \"own\"}' WHERE id = 'a01-2'",
        );
        let run = Background::start(&database, None, "SET media_assets.lock_timeout = 0", EXECUTE);
        session.wait_until(&format!(
            "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = {}",
            run.process_id
        ));
        other.run("COMMIT");
        run.finish();
        assert_eq!(
            session.rows("SELECT id, video_asset ->> 's3Key' FROM scenes ORDER BY id LIMIT 2"),
            [["a01-0", "new.webm"], ["a01-2", "own"]].map(|row| row.map(|text| Some(text.to_owned())))
        );
        assert_eq!(
            session.number("SELECT count(*) FROM asset_references WHERE entity_id = 'a01-1'"),
            0
        );
        assert_eq!(
            session.number("SELECT count(*) FROM verify_s3_assets() WHERE severity = 'error'"),
            0
        );
    });
}

#[test]
fn two_sessions_share_a_run_and_sums_come_after_all_scenes() {
    each_server(|server| {
        let (database, mut session) = with_scenes(server, 20);
        let run = Background::start(
            &database,
            None,
            "SET media_assets.batch_pause = '20ms'",
            "CALL run_backfill('s3_assets', batch => 5, execute => true)",
        );
        session.wait_until("SELECT count(*) > 0 FROM backfill_progress WHERE rows_done > 0");
        let run_id = last_run(&mut session);
        session.run(&format!("CALL join_backfill({run_id})"));
        run.finish();
        assert_eq!(
            session.number("SELECT count(*) FROM video_sessions WHERE asset_count = 20 AND assets_status = 'ready'"),
            20
        );
        assert!(session.is_true("SELECT count(*) > 1 AND sum(rows_done) = 220 FROM backfill_ranges"));
    });
}

#[test]
fn wrong_arguments_and_missing_rights_are_said_at_once() {
    each_server(|server| {
        let (database, mut session) = with_scenes(server, 1);
        for bucket in ["'my-bucket'", "''", "'javascript:alert(1)'"] {
            session.fails_with_hint(
                "22023",
                &format!("SELECT * FROM backfill_s3_assets(bucket_url => {bucket})"),
            );
        }
        session.fails_with_hint("22023", "SELECT * FROM extend_scene_tables(NULL)");
        session.fails_with_hint(
            "22023",
            "CALL run_backfill('s3_assets', options => '{\"bucket\": \"x\"}')",
        );
        session.run("ALTER TABLE asset_references DROP CONSTRAINT asset_references_entity_type_entity_id_asset_type_version_key");
        let error = session.fails_with_hint("55000", EXECUTE);
        assert!(
            words(&error).contains("UNIQUE (entity_type, entity_id, asset_type, version)"),
            "{error}"
        );
        session.run("SELECT * FROM extend_scene_tables(true)");
        let role = server.role(&database);
        session.run(&format!(
            "GRANT USAGE ON SCHEMA public TO {role}; GRANT SELECT ON scenes, video_sessions, asset_references TO {role};
             GRANT UPDATE ON scenes, video_sessions TO {role}",
            role = role.name
        ));
        let mut user = database.session_as(&role);
        user.counters(DRY).expect(&[("scenes_migrated", 10)]);
        user.fails_with_hint("42501", EXECUTE);
        session.run(&format!("GRANT INSERT ON asset_references TO {}", role.name));
        user.counters(EXECUTE).expect(&[("scenes_migrated", 10), ("errors", 0)]);
        let run_id = last_run(&mut session);
        user.fails_with_hint("42501", &format!("SELECT * FROM undo_backfill({run_id}, true)"));
        session.run("ALTER TABLE scenes ALTER video_asset TYPE json");
        let said = words(&session.fails_with_hint("42804", DRY));
        assert!(said.contains("video_asset is json, not jsonb"), "{said}");
    });
}

#[test]
fn a_url_of_a_bucket_alone_names_no_object() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run(
            "SELECT * FROM create_scene_tables();
             INSERT INTO scenes (id, s3_chunk_url) VALUES ('a', 'https://b.s3.amazonaws.com/'), ('b', 's3://b'), ('c', 's3://b/k.mp4')",
        );
        session
            .counters(EXECUTE)
            .expect(&[("scenes_migrated", 3), ("references_created", 1), ("errors", 0)]);
        assert_eq!(
            session.rows("SELECT severity, finding, entity_id FROM verify_s3_assets() ORDER BY 3"),
            [["warning", "no_key_in_url", "a"], ["warning", "no_key_in_url", "b"]]
                .map(|row| row.map(|text| Some(text.to_owned())))
        );
    });
}

#[test]
fn a_scene_without_session_is_in_no_sum() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run(
            "SELECT * FROM create_scene_tables();
             INSERT INTO video_sessions (id) VALUES ('x');
             INSERT INTO scenes (id, s3_chunk_url) VALUES ('x', 's3://b/k.mp4')",
        );
        session
            .counters(EXECUTE)
            .expect(&[("references_created", 1), ("errors", 0)]);
        assert_eq!(session.text("SELECT asset_count FROM video_sessions"), "0");
        assert_eq!(
            session.number("SELECT count(*) FROM verify_s3_assets() WHERE severity = 'error'"),
            0
        );
    });
}

#[test]
fn an_address_with_more_than_a_bucket_is_no_bucket_url() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run("SELECT * FROM create_scene_tables()");
        for address in [
            "https://b.test ",
            "https://b.test/?X-Amz-Signature=s",
            "https://b.test/#f",
            "https://me:pw@b.test",
            "b.test",
            "",
        ] {
            session.fails_with_hint(
                "22023",
                &format!("SELECT * FROM backfill_s3_assets(bucket_url => '{address}')"),
            );
        }
    });
}

#[test]
fn undo_foresees_references_that_refer_to_each_other() {
    each_server(|server| {
        let (_database, mut session) = with_scenes(server, 15);
        session.run("ALTER TABLE asset_references ADD after_this uuid REFERENCES asset_references");
        let before = contents(&mut session, &TABLES);
        // Each refers to the one before it, from the first to the last of three slices.
        let run_and_link = |session: &mut Session| {
            let run_id = session.counters(EXECUTE).get("run_id");
            session.run(
                "UPDATE asset_references r SET after_this = p.before
                 FROM (SELECT id, lag(id) OVER (ORDER BY ctid) AS before FROM asset_references) p WHERE p.id = r.id",
            );
            run_id
        };
        let run_id = run_and_link(&mut session);
        undo(&mut session, run_id).expect(&[("rows_removed", 300), ("conflicts", 0), ("errors", 0)]);
        assert_eq!(contents(&mut session, &TABLES), before);
        let run_id = run_and_link(&mut session);
        // One that somebody changed stays, and with it all before it.
        session.run(
            "UPDATE asset_references SET size = 5 WHERE id = (SELECT id FROM asset_references ORDER BY id LIMIT 1 OFFSET 149)",
        );
        let kept = session.number(
            "WITH RECURSIVE kept AS (SELECT id, after_this FROM asset_references WHERE size = 5
                                     UNION ALL SELECT r.id, r.after_this FROM kept k JOIN asset_references r ON r.id = k.after_this)
             SELECT count(*) FROM kept",
        );
        assert!(kept > 1, "{kept}");
        undo(&mut session, run_id).expect(&[("rows_removed", 300 - kept), ("conflicts", kept), ("errors", 0)]);
        assert_eq!(session.number("SELECT count(*) FROM asset_references"), kept);
    });
}

#[test]
fn texts_of_any_kind_come_through_to_the_letter() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run(
            r#"SELECT * FROM create_scene_tables();
             INSERT INTO scenes (id, project_id, index, checksum, s3_chunk_key, updated_at)
             SELECT 'scene ' || n, text, -n, text, 'k/' || text || '.webm', '2025-08-10 04:00:00.123456+00'
             FROM unnest(ARRAY[E'q"\\ \t\n\x01\x7f', '日本 😀 \u0041', '$1 %s {} ''', repeat('long ', 2000)]) WITH ORDINALITY t (text, n)"#,
        );
        let before = contents(&mut session, &TABLES);
        let run_id = session.counters(EXECUTE).get("run_id");
        assert_eq!(
            session.number(
                "SELECT count(*) FROM scenes s JOIN asset_references r ON r.entity_id = s.id
                 WHERE s.video_asset::text = jsonb_build_object('s3Key', s.s3_chunk_key, 'contentType', 'video/webm', 'checksum', s.checksum,
                                                                'uploadedAt', 1754798400.123456)::text
                   AND r.metadata::text = jsonb_build_object('migratedFromLegacy', true, 'sceneIndex', s.index, 'projectId', s.project_id)::text
                   AND r.s3_key = s.s3_chunk_key AND r.checksum = s.checksum"
            ),
            4
        );
        undo(&mut session, run_id).expect(&[("rows_removed", 4), ("conflicts", 0), ("errors", 0)]);
        assert_eq!(contents(&mut session, &TABLES), before);
    });
}
