//! What a run did is taken back, row for row; what others did since is theirs.

use media_assets_tests::application::{contents, insert_asset};
use media_assets_tests::cluster::Cluster;
use media_assets_tests::random::{fill, scope};
use media_assets_tests::runs::{
    close_gate, conflicts, dry_undo, interrupted, last_run, open_gate, remove_gate, same_work, state, undo, Background,
};
use media_assets_tests::standby::Standby;
use media_assets_tests::{each_server, literal, Application, Database, Server, Session};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::SeedableRng;

const EXECUTE: &str = "SELECT * FROM backfill_lesson_assets(execute => true)";

/// Databases on each server, unless `MEDIA_ASSETS_PROPERTY_ROUNDS` asks for more.
fn rounds() -> u64 {
    let asked = std::env::var("MEDIA_ASSETS_PROPERTY_ROUNDS");
    asked.ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(40)
}

fn with_lessons(server: &Server, lessons: u32) -> (Database, Session, Application) {
    let database = server.database();
    let mut session = database.session();
    session.run("SET media_assets.progress = off");
    let application = Application::create(&mut session);
    application.add_uploads(&mut session, 1, lessons);
    (database, session, application)
}

/// Executes over everything; gives the run's id.
fn execute(session: &mut Session) -> i64 {
    session.counters(EXECUTE).get("run_id")
}

/// The bytes of the lessons' media, which text does not show.
fn media_bytes(session: &mut Session) -> Vec<media_assets_tests::Row> {
    session.rows(
        "SELECT id, encode(jsonb_send(videos), 'hex'), encode(jsonb_send(documents), 'hex'), pg_column_size(videos || '[]'),
                pg_column_size(documents || '[]') FROM lesson ORDER BY id",
    )
}

/// The videos of lesson `number`.
fn videos(session: &mut Session, application: &Application, number: u32) -> String {
    session.text(&format!(
        "SELECT videos FROM lesson WHERE id = {}",
        literal(&application.lesson(number))
    ))
}

fn count(session: &mut Session, table: &str) -> i64 {
    session.number(&format!("SELECT count(*) FROM {table}"))
}

#[test]
fn execute_and_undo_leave_every_row_as_it_was() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run("SET media_assets.progress = off");
        Application::create(&mut session);
        for seed in 0..rounds() {
            let mut random = StdRng::seed_from_u64(seed);
            fill(&mut session, &mut random);
            let filters = scope(&mut random);
            let batch = *[1, 3, 20, 500].choose(&mut random).expect("not empty");
            let about = format!("seed {seed}, batch {batch}{filters}");
            let (before, media) = (contents(&mut session), media_bytes(&mut session));
            let run = session.counters(&format!("SELECT * FROM backfill_lesson_assets({batch}, true{filters})"));
            let run_id = run.get("run_id");
            let undone = undo(&mut session, run_id);
            undone.expect(&[
                ("items_restored", run.get("lesson_items_patched_with_asset_id")),
                ("usages_removed", run.get("usages_created")),
                ("assets_removed", run.get("assets_created")),
                ("already_undone", 0),
                ("conflicts", 0),
                ("errors", 0),
            ]);
            assert_eq!(before, contents(&mut session), "row for row ({about})");
            assert_eq!(media, media_bytes(&mut session), "byte for byte ({about})");

            let again = undo(&mut session, run_id);
            again.expect(&[
                ("values_scanned", undone.get("values_scanned")),
                ("already_undone", undone.get("values_scanned")),
            ]);
            assert_eq!(before, contents(&mut session), "undone twice ({about})");

            // the same by the procedures
            session.run(&format!("CALL run_backfill('lesson_assets', {batch}, true)"));
            let run_id = last_run(&mut session);
            session.run(&format!(
                "CALL run_backfill('undo', {batch}, true, '{{\"run_id\": {run_id}}}')"
            ));
            assert_eq!(before, contents(&mut session), "undone by the procedure ({about})");
            assert_eq!(
                media,
                media_bytes(&mut session),
                "byte for byte by the procedure ({about})"
            );
        }
    });
}

#[test]
fn stale_ids_of_every_kind_come_back_exactly() {
    let stale = [
        "null",
        "5",
        "1.500",
        "-0.0",
        "1e400",
        "123456789012345678901234567890.10",
        "true",
        "\"\"",
        "\"not a uuid\"",
        "\"quo\\\"te \\\\ \\u00e4 \\n \\ud83d\\ude00\"",
        "[]",
        "{}",
        "[1.10, {\"assetId\": \"x\"}, null]",
        "{\"assetId\": {\"a\": [1.0]}, \"b\": \"c\"}",
        "\"ABCDEF00-0000-4000-8000-00000000ABCD\"",
        "\"abcdef00-0000-4000-8000-00000000abcd\"",
        "\" a0000000-0000-4000-8000-000000000001 \"",
    ];
    each_server(|server| {
        let (_database, mut session, application) = with_lessons(server, 0);
        for (number, value) in (1..).zip(stale) {
            let item = |kind: &str| {
                format!("{{\"zz\": 1.20, \"assetId\": {value}, \"key\": \"{kind}{number}\", \"type\": \"upload\", \"a\": {{\"assetId\": 7}}}}")
            };
            let column = |kind: &str| format!("[7, {}, {{\"assetId\": {value}}}, [], {}]", item(kind), item("both"));
            application.add_lesson_of(&mut session, number, 1, &column("v"), &column("d"));
        }
        // a foreign uuid, in upper case
        application.add_asset(&mut session, 1, 2, "foreign");
        application.add_lesson(
            &mut session,
            90,
            &format!(
                "[{{\"type\": \"upload\", \"key\": \"own\", \"assetId\": \"{}\"}}]",
                application.asset(1).to_uppercase()
            ),
        );
        let (before, media) = (contents(&mut session), media_bytes(&mut session));
        let run = session.counters(EXECUTE);
        run.expect(&[("lesson_items_patched_with_asset_id", 4 * stale.len() as i64 + 1)]);
        assert_ne!(media, media_bytes(&mut session));
        undo(&mut session, run.get("run_id")).expect(&[("conflicts", 0), ("errors", 0)]);
        assert_eq!(before, contents(&mut session));
        assert_eq!(media, media_bytes(&mut session));
    });
}

#[test]
fn a_dry_undo_works_on_a_hot_standby() {
    each_server(|server| {
        let (database, mut session, _) = with_lessons(server, 20);
        let run_id = execute(&mut session);
        let here = dry_undo(&mut session, run_id);
        let standby = Standby::of(server);
        let mut reader = standby.session(&database);
        let there = reader.counters(&format!("SELECT * FROM undo_backfill({run_id})"));
        assert_eq!(here, there);
        assert_eq!(reader.rows(&format!("SELECT FROM explain_undo({run_id})")).len(), 60);
        reader.text(&format!("SELECT backfill_report({run_id})"));
        assert_eq!(state(&mut reader, run_id), "finished");
        reader.fails("25006", &format!("SELECT * FROM undo_backfill({run_id}, true)"));
    });
}

#[test]
fn what_somebody_changed_since_is_left_alone() {
    each_server(|server| {
        let (_database, mut session, application) = with_lessons(server, 9);
        let run_id = execute(&mut session);
        let lesson = |number| literal(&application.lesson(number));
        session.run(&format!(
            "UPDATE lesson SET videos = jsonb_set(videos, '{{0,assetId}}', '\"mine\"') WHERE id = {};
             UPDATE lesson SET videos = '[null]' || videos WHERE id = {};
             DELETE FROM lesson WHERE id = {};
             UPDATE lesson SET videos = NULL WHERE id = {};
             UPDATE lesson SET videos = '{{\"a\": 1}}' WHERE id = {};
             UPDATE lesson SET videos = jsonb_set(videos, '{{0,title}}', '\"edited\"') WHERE id = {};
             UPDATE lesson SET videos = videos #- '{{0,assetId}}' WHERE id = {}",
            lesson(1),
            lesson(2),
            lesson(3),
            lesson(4),
            lesson(5),
            lesson(6),
            lesson(7)
        ));
        let others: Vec<String> = (1..=2)
            .map(|number| videos(&mut session, &application, number))
            .collect();
        let wanted = [
            ("in_use_by_lesson", 1),
            ("item_changed", 1),
            ("item_gone", 3),
            ("lesson_gone", 1),
        ];
        let wanted: Vec<_> = wanted.map(|(reason, count)| (reason.to_owned(), count)).into();
        assert_eq!(conflicts(&mut session, run_id), wanted);
        let undone = undo(&mut session, run_id);
        // 7 has lost its assetId already; the asset of 2 is held by the item that moved
        undone.expect(&[
            ("items_restored", 3),
            ("already_undone", 1),
            ("usages_removed", 9),
            ("assets_removed", 8),
            ("conflicts", 6),
        ]);
        for (number, other) in (1..).zip(&others) {
            assert_eq!(videos(&mut session, &application, number), *other);
        }
        assert_eq!(
            videos(&mut session, &application, 6),
            "[{\"key\": \"k6\", \"type\": \"upload\", \"title\": \"edited\"}]"
        );
        assert_eq!(session.text("SELECT storage_key FROM assets"), "k2");
        let reasons = session
            .rows("SELECT DISTINCT reason FROM backfill_decisions WHERE action = 'conflict' AND outcome = 'skipped'");
        assert_eq!(reasons.len(), 4, "conflicts are logged: {reasons:?}");
    });
}

#[test]
fn assets_and_usages_that_something_uses_now_stay() {
    each_server(|server| {
        let (_database, mut session, application) = with_lessons(server, 12);
        session.run("CREATE VIEW made AS SELECT a.id, a.organization_id, a.storage_key, u.id AS usage_id FROM assets a JOIN asset_usages u ON u.asset_id = a.id");
        let run_id = execute(&mut session);
        session.run(
            "ALTER TABLE assets ADD UNIQUE (organization_id, id);
             CREATE TABLE cover (id int PRIMARY KEY, asset_id uuid REFERENCES assets ON DELETE CASCADE, note text);
             CREATE TABLE poster (id int, at int, asset_id uuid REFERENCES assets ON DELETE SET NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
             CREATE TABLE poster_1 PARTITION OF poster FOR VALUES FROM (1) TO (10);
             CREATE TABLE pair (organization_id uuid, \"the asset\" uuid,
                 FOREIGN KEY (organization_id, \"the asset\") REFERENCES assets (organization_id, id) ON DELETE CASCADE);
             CREATE TABLE usage_note (usage_id bigint REFERENCES asset_usages ON DELETE CASCADE, note text);
             ALTER TABLE asset_usages ADD poster_id uuid REFERENCES assets ON DELETE CASCADE;
             INSERT INTO cover SELECT 1, id, 'mine' FROM made WHERE storage_key = 'k1';
             INSERT INTO cover VALUES (2, NULL, 'none');
             INSERT INTO poster SELECT 1, 1, id FROM made WHERE storage_key = 'k2';
             INSERT INTO pair SELECT organization_id, id FROM made WHERE storage_key = 'k3';
             INSERT INTO pair SELECT NULL, id FROM made WHERE storage_key = 'k4';
             INSERT INTO usage_note SELECT usage_id, 'mine' FROM made WHERE storage_key = 'k5'",
        );
        // a usage of something else, one that points elsewhere now, one that is gone, one that refers to another asset too
        session.run(
            "INSERT INTO asset_usages (organization_id, asset_id, target_type, target_id, slot_type, position)
                 SELECT organization_id, id, 'banner', 'b', 'image', 0 FROM made WHERE storage_key = 'k6';
             UPDATE asset_usages SET asset_id = (SELECT id FROM assets WHERE storage_key = 'k6') WHERE id = (SELECT usage_id FROM made WHERE storage_key = 'k7');
             DELETE FROM asset_usages WHERE id = (SELECT usage_id FROM made WHERE storage_key = 'k8');
             INSERT INTO asset_usages (organization_id, asset_id, poster_id, target_type, target_id, slot_type, position)
                 SELECT m.organization_id, m.id, p.id, 'banner', 'c', 'image', 0 FROM made m, made p WHERE m.storage_key = 'k6' AND m.usage_id = (SELECT min(usage_id) FROM made WHERE storage_key = 'k6') AND p.storage_key = 'k9'",
        );
        // clones: of the same organization one is kept, one of another organization counts for nothing
        session.run(&format!(
            "INSERT INTO lesson (id, course_id, documents) SELECT {}, 1, jsonb_build_array(jsonb_build_object('assetId', upper(id::text))) FROM made WHERE storage_key = 'k10';
             INSERT INTO lesson (id, course_id, videos) SELECT {}, 2, jsonb_build_array(jsonb_build_object('assetId', id)) FROM made WHERE storage_key = 'k11'",
            literal(&application.lesson(100)), literal(&application.lesson(101))
        ));
        let theirs = "SELECT 'cover', c::text FROM cover c UNION ALL SELECT 'poster', p::text FROM poster p UNION ALL SELECT 'pair', p::text FROM pair p
                      UNION ALL SELECT 'note', n::text FROM usage_note n UNION ALL SELECT 'usage', u::text FROM asset_usages u WHERE target_type <> 'lesson'
                      UNION ALL SELECT 'lesson', l::text FROM lesson l WHERE title <> 'a lesson' OR id::text LIKE '%00000010_' ORDER BY 1, 2";
        let before = session.rows(theirs);
        assert_eq!(before.len(), 10);
        let undone = undo(&mut session, run_id);
        let kept = session
            .text("SELECT string_agg(substr(storage_key, 2), ',' ORDER BY substr(storage_key, 2)::int) FROM assets");
        assert_eq!(kept, "1,2,3,5,6,9,10");
        assert_eq!(before, session.rows(theirs), "what is theirs is as it was");
        undone.expect(&[
            ("items_restored", 12),
            ("usages_removed", 9),
            ("assets_removed", 5),
            ("already_undone", 1),
            ("errors", 0),
        ]);
        // once they let go, the rest goes
        session.run("TRUNCATE cover, poster, pair, usage_note; DELETE FROM asset_usages WHERE target_type <> 'lesson'; UPDATE asset_usages SET poster_id = NULL");
        session.run(&format!(
            "DELETE FROM lesson WHERE id IN ({}, {})",
            literal(&application.lesson(100)),
            literal(&application.lesson(101))
        ));
        undo(&mut session, run_id).expect(&[("usages_removed", 1)]);
        // the usage that was pointed to k6 is somebody else's
        assert_eq!(session.text("SELECT string_agg(storage_key, ',') FROM assets"), "k6");
    });
}

#[test]
fn a_usage_that_was_moved_is_somebody_elses() {
    each_server(|server| {
        let (_database, mut session, application) = with_lessons(server, 6);
        let run_id = execute(&mut session);
        session.run(&format!(
            "UPDATE asset_usages SET position = 1 WHERE target_id = '{}'; UPDATE asset_usages SET slot_type = 'lesson_document' WHERE target_id = '{}';
             UPDATE asset_usages SET target_type = 'banner' WHERE target_id = '{}'; UPDATE asset_usages SET target_id = 'x' WHERE target_id = '{}'",
            application.lesson(1), application.lesson(2), application.lesson(3), application.lesson(4)
        ));
        let moved = session.rows("SELECT u::text FROM asset_usages u WHERE (position, slot_type, target_type) <> (0, 'lesson_video', 'lesson') OR target_id = 'x' ORDER BY 1");
        assert_eq!(moved.len(), 4);
        let wanted = [("in_use_by_usage", 4), ("usage_changed", 4)].map(|(reason, count)| (reason.to_owned(), count));
        assert_eq!(conflicts(&mut session, run_id), wanted);
        undo(&mut session, run_id).expect(&[("items_restored", 6), ("usages_removed", 2), ("assets_removed", 2)]);
        assert_eq!(moved, session.rows("SELECT u::text FROM asset_usages u ORDER BY 1"));
    });
}

#[test]
fn a_reference_that_comes_in_while_the_undo_runs_is_seen() {
    each_server(|server| {
        let (database, mut session, _) = with_lessons(server, 3);
        let run_id = execute(&mut session);
        session.run("CREATE TABLE cover (asset_id uuid REFERENCES assets ON DELETE CASCADE)");
        let mut other = database.session();
        other.run("BEGIN; INSERT INTO cover SELECT id FROM assets WHERE storage_key = 'k2'");
        let undoing = Background::start(
            &database,
            None,
            "SET media_assets.lock_timeout = 0; SET media_assets.progress = off",
            &format!("SELECT * FROM undo_backfill({run_id}, true)"),
        );
        session.wait_until(&format!(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = {} AND wait_event_type = 'Lock'",
            undoing.process_id
        ));
        other.run("COMMIT");
        undoing.finish();
        assert_eq!(count(&mut session, "cover"), 1, "ON DELETE CASCADE took nothing along");
        assert_eq!(session.text("SELECT string_agg(storage_key, ',') FROM assets"), "k2");
    });
}

#[test]
fn tables_with_references_that_cannot_be_seen_are_refused() {
    each_server(|server| {
        let (database, mut session, _) = with_lessons(server, 3);
        let role = server.role(&database);
        session.run(&format!(
            "GRANT ALL ON lesson, course, \"group\", assets, asset_usages TO {0}; GRANT USAGE ON SCHEMA public TO {0}",
            role.name
        ));
        let mut caller = database.session_as(&role);
        let run_id = execute(&mut caller);
        session.run("CREATE TABLE cover (asset_id uuid REFERENCES assets ON DELETE CASCADE); INSERT INTO cover SELECT id FROM assets");
        let before = contents(&mut session);
        let call = format!("SELECT * FROM undo_backfill({run_id}, true)");
        let long = format!("CALL run_backfill('undo', execute => true, options => '{{\"run_id\": {run_id}}}')");
        for _ in 0..2 {
            for call in [&call, &long, &format!("SELECT * FROM explain_undo({run_id})")] {
                let error = caller.fails_with_hint("42501", call);
                assert!(error.message().contains("cover"), "{}", error.message());
            }
            // seen, but not all of its rows
            session.run(&format!(
                "GRANT SELECT (asset_id) ON cover TO {}; ALTER TABLE cover ENABLE ROW LEVEL SECURITY",
                role.name
            ));
        }
        assert_eq!(before, contents(&mut session));
        session.run("ALTER TABLE cover DISABLE ROW LEVEL SECURITY");
        caller
            .counters(&call)
            .expect(&[("assets_removed", 0), ("conflicts", 3)]);
        assert_eq!(count(&mut session, "cover"), 3);
    });
}

#[test]
fn missing_rights_are_refused_before_anything_is_written() {
    each_server(|server| {
        let (database, mut session, _) = with_lessons(server, 3);
        let role = server.role(&database);
        let tables = "lesson, course, \"group\", assets, asset_usages";
        session.run(&format!(
            "GRANT ALL ON {tables} TO {0}; GRANT USAGE ON SCHEMA public TO {0}",
            role.name
        ));
        let mut caller = database.session_as(&role);
        let run_id = execute(&mut caller);
        let before = contents(&mut session);
        for (right, table) in [
            ("UPDATE", "lesson"),
            ("UPDATE", "assets"),
            ("DELETE", "assets"),
            ("DELETE", "asset_usages"),
            ("SELECT", "course"),
        ] {
            session.run(&format!("REVOKE {right} ON {table} FROM {}", role.name));
            let error = caller.fails_with_hint("42501", &format!("SELECT * FROM undo_backfill({run_id}, true)"));
            assert!(error.message().contains(table), "{}", error.message());
            caller.fails_with_hint(
                "42501",
                &format!("CALL run_backfill('undo', execute => true, options => '{{\"run_id\": {run_id}}}')"),
            );
            assert_eq!(before, contents(&mut session), "without {right} on {table}");
            session.run(&format!("GRANT {right} ON {table} TO {}", role.name));
        }
        caller
            .counters(&format!("SELECT * FROM undo_backfill({run_id}, true)"))
            .expect(&[("assets_removed", 3)]);
    });
}

#[test]
fn a_deletion_that_a_trigger_refuses_costs_that_value_only() {
    each_server(|server| {
        let (_database, mut session, application) = with_lessons(server, 250);
        let run_id = execute(&mut session);
        session.run(&format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not %', TG_TABLE_NAME USING ERRCODE = 'ZZ001'; END $$;
             CREATE FUNCTION keep_quietly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
             CREATE TRIGGER a BEFORE DELETE ON assets FOR EACH ROW WHEN (OLD.storage_key IN ('k3', 'k77')) EXECUTE FUNCTION refuse();
             CREATE TRIGGER b BEFORE DELETE ON assets FOR EACH ROW WHEN (OLD.storage_key = 'k9') EXECUTE FUNCTION keep_quietly();
             CREATE TRIGGER a BEFORE DELETE ON asset_usages FOR EACH ROW WHEN (OLD.target_id = '{}') EXECUTE FUNCTION refuse();
             CREATE TRIGGER a BEFORE UPDATE ON lesson FOR EACH ROW WHEN (OLD.id = '{}') EXECUTE FUNCTION refuse()",
            application.lesson(4),
            application.lesson(5)
        ));
        let undone = session.counters(&format!("SELECT * FROM undo_backfill({run_id}, true)"));
        undone.expect(&[
            ("values_scanned", 750),
            ("items_restored", 249),
            ("usages_removed", 249),
            ("assets_removed", 245),
            ("errors", 5),
            ("conflicts", 2),
        ]);
        let kept = session.text("SELECT string_agg(storage_key, ',' ORDER BY storage_key) FROM assets");
        assert_eq!(kept, "k3,k4,k5,k77,k9");
        let failures = session.rows("SELECT sqlstate, count(*) FROM backfill_quarantine GROUP BY 1 ORDER BY 1");
        assert_eq!(
            failures,
            [
                [Some("09000".into()), Some("1".into())],
                [Some("ZZ001".into()), Some("4".into())]
            ]
        );
        session.run("DROP TRIGGER a ON lesson; DROP TRIGGER a ON asset_usages; DROP TRIGGER a ON assets; DROP TRIGGER b ON assets");
        undo(&mut session, run_id).expect(&[
            ("items_restored", 1),
            ("usages_removed", 1),
            ("assets_removed", 5),
            ("already_undone", 743),
        ]);
        assert_eq!(count(&mut session, "assets") + count(&mut session, "asset_usages"), 0);
    });
}

#[test]
fn what_cannot_be_undone_says_so() {
    each_server(|server| {
        let (database, mut session, _) = with_lessons(server, 3);
        session.run("SET media_assets.log_changes = off");
        let unlogged = execute(&mut session);
        let before = contents(&mut session);
        for call in [
            format!("SELECT * FROM undo_backfill({unlogged})"),
            format!("SELECT * FROM undo_backfill({unlogged}, true)"),
            format!("SELECT * FROM explain_undo({unlogged})"),
            format!("CALL run_backfill('undo', execute => true, options => '{{\"run_id\": {unlogged}}}')"),
        ] {
            session.fails_with_hint("55000", &call);
        }
        assert_eq!(before, contents(&mut session));
        session.run("SET media_assets.log_changes = on");
        let run_id = execute(&mut session);
        let undo_id = session
            .counters(&format!("SELECT * FROM undo_backfill({run_id}, true)"))
            .get("undo_run_id");
        session.fails_with_hint("0A000", &format!("SELECT * FROM undo_backfill({undo_id}, true)"));
        session.fails_with_hint("42704", "SELECT * FROM undo_backfill(NULL)");
        session.fails_with_hint("42704", "SELECT * FROM undo_backfill(987654)");
        session.fails_with_hint("42704", "SELECT * FROM explain_undo(987654)");
        session.fails_with_hint("22023", &format!("SELECT * FROM undo_backfill({run_id}, NULL)"));
        session.fails_with_hint("22023", "CALL run_backfill('undo', execute => true)");
        session.fails_with_hint(
            "22023",
            "CALL run_backfill('undo', execute => true, options => '{\"run_id\": \"x\"}')",
        );
        session.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
        session.fails_with_hint("0A000", &format!("SELECT * FROM undo_backfill({run_id}, true)"));
        // a run whose tables have gone
        let mut other = database.session();
        other.run("ALTER TABLE asset_usages RENAME TO elsewhere");
        other.fails_with_hint("55000", &format!("SELECT * FROM undo_backfill({run_id})"));
    });
}

#[test]
fn a_run_resumed_without_a_log_cannot_be_undone_in_part() {
    each_server(|server| {
        let (database, mut session, _) = with_lessons(server, 30);
        let run_id = interrupted(&database, None, &mut session, 12);
        session.run("SET media_assets.log_changes = off");
        session.run(&format!("CALL resume_backfill({run_id})"));
        let before = contents(&mut session);
        session.fails_with_hint("55000", &format!("SELECT * FROM undo_backfill({run_id}, true)"));
        assert_eq!(before, contents(&mut session));
    });
}

#[test]
fn a_run_that_is_running_is_not_undone_and_an_interrupted_one_is() {
    each_server(|server| {
        let (database, mut session, application) = with_lessons(server, 30);
        let before = contents(&mut session);
        close_gate(&mut session, &application.lesson(12));
        let run = Background::start(
            &database,
            None,
            "SET media_assets.progress = off",
            "CALL run_backfill('lesson_assets', 1, true)",
        );
        run.wait_at_gate(&mut session);
        let run_id = last_run(&mut session);
        let written = contents(&mut session);
        for call in [
            format!("SELECT * FROM undo_backfill({run_id})"),
            format!("SELECT * FROM undo_backfill({run_id}, true)"),
            format!("CALL run_backfill('undo', execute => true, options => '{{\"run_id\": {run_id}}}')"),
        ] {
            session.fails_with_hint("55000", &call);
        }
        assert_eq!(written, contents(&mut session));
        run.kill(&mut session);
        remove_gate(&mut session);
        assert_eq!(state(&mut session, run_id), "interrupted");
        undo(&mut session, run_id).expect(&[("items_restored", 11), ("assets_removed", 11), ("conflicts", 0)]);
        assert_eq!(before, contents(&mut session));
        assert_eq!(state(&mut session, run_id), "cancelled");
        session.fails_with_hint("55000", &format!("CALL resume_backfill({run_id})"));
    });
}

#[test]
fn runs_and_undos_that_a_crash_of_the_server_ended_are_undone() {
    each_server(|server| {
        let cluster = Cluster::like(server);
        let (copy, mut session, application) = with_lessons(&cluster.server, 40);
        let before = contents(&mut session);
        close_gate(&mut session, &application.lesson(25));
        let settings = "SET media_assets.progress = off; SET synchronous_commit = on";
        let run = Background::start(&copy, None, settings, "CALL run_backfill('lesson_assets', 3, true)");
        run.wait_at_gate(&mut session);
        let run_id = last_run(&mut session);
        cluster.crash();
        cluster.start();
        drop(run);
        let mut session = cluster.session(&copy);
        session.run("SET media_assets.progress = off");
        remove_gate(&mut session);
        assert_eq!(state(&mut session, run_id), "interrupted");
        // and its undo is ended by another crash
        close_gate(&mut session, &application.lesson(10));
        let call = format!("CALL run_backfill('undo', 5, true, '{{\"run_id\": {run_id}}}')");
        let undoing = Background::start(&copy, None, settings, &call);
        undoing.wait_at_gate(&mut session);
        let undo_id = last_run(&mut session);
        cluster.crash();
        cluster.start();
        drop(undoing);
        let mut session = cluster.session(&copy);
        session.run("SET media_assets.progress = off");
        remove_gate(&mut session);
        session.run(&format!("CALL resume_backfill({undo_id})"));
        assert_eq!(before, contents(&mut session));
        undo(&mut session, run_id).expect(&[("already_undone", 72), ("conflicts", 0)]);
    });
}

#[test]
fn paused_cancelled_resumed_and_failing_runs_are_undone() {
    each_server(|server| {
        let (database, mut session, application) = with_lessons(server, 40);
        // a lesson that cannot be written
        session.run(&format!(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON lesson FOR EACH ROW WHEN (OLD.id IN ('{}', '{}')) EXECUTE FUNCTION refuse()",
            application.lesson(3),
            application.lesson(20)
        ));
        let before = contents(&mut session);
        for (request, resumed) in [
            ("pause_backfill", false),
            ("cancel_backfill", false),
            ("pause_backfill", true),
        ] {
            close_gate(&mut session, &application.lesson(12));
            let run = Background::start(
                &database,
                None,
                "SET media_assets.progress = off",
                "CALL run_backfill('lesson_assets', 1, true)",
            );
            run.wait_at_gate(&mut session);
            let run_id = last_run(&mut session);
            assert_eq!(session.text(&format!("SELECT {request}({run_id})")), "requested");
            open_gate(&mut session);
            run.finish();
            remove_gate(&mut session);
            let is = state(&mut session, run_id);
            assert!(["paused", "cancelled"].contains(&is.as_str()), "{is}");
            if resumed {
                session.run(&format!("CALL resume_backfill({run_id})"));
                assert_eq!(state(&mut session, run_id), "finished");
                assert_eq!(count(&mut session, "assets"), 38);
            } else {
                assert_eq!(count(&mut session, "assets"), 11);
            }
            undo(&mut session, run_id).expect(&[("conflicts", 0), ("errors", 0)]);
            assert_eq!(before, contents(&mut session), "{request}, resumed: {resumed}");
        }
    });
}

#[test]
fn a_run_shared_by_two_sessions_is_undone() {
    each_server(|server| {
        let (database, mut session, application) = with_lessons(server, 0);
        session.run("INSERT INTO \"group\" SELECT n, ('0a000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid FROM generate_series(10, 29) n;
                     INSERT INTO course SELECT n, n FROM generate_series(10, 29) n");
        for number in 0..200 {
            application.add_lesson_of(
                &mut session,
                number,
                10 + number % 20,
                r#"[{"type": "upload", "key": "same"}, {"type": "upload", "key": "other", "assetId": 5}]"#,
                "[]",
            );
        }
        let before = contents(&mut session);
        close_gate(&mut session, &application.lesson(7));
        let settings = "SET media_assets.progress = off";
        let first = Background::start(&database, None, settings, "CALL run_backfill('lesson_assets', 3, true)");
        first.wait_at_gate(&mut session);
        let run_id = last_run(&mut session);
        let second = Background::start(&database, None, settings, &format!("CALL join_backfill({run_id})"));
        session.wait_until(&format!(
            "SELECT count(*) > 0 FROM backfill_requests WHERE run_id = {run_id} AND request = 'join'"
        ));
        open_gate(&mut session);
        first.finish();
        second.finish();
        remove_gate(&mut session);
        assert_eq!(state(&mut session, run_id), "finished");
        assert!(
            session.number(&format!("SELECT count(*) FROM backfill_ranges WHERE run_id = {run_id}")) > 1,
            "it was shared"
        );
        assert_eq!(
            (count(&mut session, "assets"), count(&mut session, "asset_usages")),
            (40, 400)
        );
        undo(&mut session, run_id).expect(&[
            ("items_restored", 400),
            ("usages_removed", 400),
            ("assets_removed", 40),
            ("conflicts", 0),
        ]);
        assert_eq!(before, contents(&mut session));
    });
}

#[test]
fn an_undo_by_procedure_is_interrupted_and_resumed() {
    each_server(|server| {
        let (database, mut session, application) = with_lessons(server, 60);
        let before = contents(&mut session);
        let run_id = execute(&mut session);
        let call = format!("CALL run_backfill('undo', 7, true, '{{\"run_id\": {run_id}}}')");
        session.run("BEGIN");
        session.fails_with_hint("25001", &call);
        // values go back from the last to the first
        close_gate(&mut session, &application.lesson(31));
        let undoing = Background::start(&database, None, "SET media_assets.progress = off", &call);
        undoing.wait_at_gate(&mut session);
        let undo_id = last_run(&mut session);
        undoing.kill(&mut session);
        remove_gate(&mut session);
        assert_eq!(state(&mut session, undo_id), "interrupted");
        let restored = session.number("SELECT count(*) FROM lesson WHERE NOT videos @? '$[*].assetId'");
        assert!((1..60).contains(&restored), "half-way: {restored}");
        session.fails_with_hint("0A000", &format!("CALL join_backfill({undo_id})"));
        session.run(&format!("CALL resume_backfill({undo_id})"));
        assert_eq!(before, contents(&mut session));
        let total = session.rows(&format!(
            "SELECT v.name, sum(v.value) FROM backfill_runs r JOIN backfill_ranges g USING (run_id), unnest(r.counter_names, g.counters) v(name, value)
             WHERE run_id = {undo_id} AND v.value <> 0 GROUP BY 1 ORDER BY 1"
        ));
        let total: Vec<String> = total
            .iter()
            .map(|row| row.iter().flatten().cloned().collect::<Vec<_>>().join("="))
            .collect();
        assert_eq!(
            total,
            [
                "assets_removed=60",
                "items_restored=60",
                "usages_removed=60",
                "values_scanned=180"
            ]
        );
    });
}

#[test]
fn keys_that_a_run_gave_are_taken_back_and_wrong_ones_return() {
    each_server(|server| {
        let (_database, mut session, application) = with_lessons(server, 0);
        // 1 and 2 have each other's key, 3 has a key of nobody's, 4 has none, 5 is a twin of 4, 6 is right, 7 has no fields for one
        for (number, key) in [
            (1, "one"),
            (2, "two"),
            (3, "three"),
            (4, "four"),
            (5, "four"),
            (6, "six"),
            (7, ""),
        ] {
            session.run("ALTER TABLE assets DISABLE TRIGGER USER");
            application.add_asset(&mut session, number, 1, key);
        }
        let stored = [
            (1, "upload:two"),
            (2, "upload:one"),
            (3, "upload:wrong"),
            (6, "upload:six"),
            (7, "upload:ghost"),
        ];
        for (number, key) in stored {
            session.run(&format!("UPDATE assets SET canonical_key = NULL WHERE id = '{0}'; UPDATE assets SET canonical_key = '{key}' WHERE id = '{0}'", application.asset(number)));
        }
        session.run("ALTER TABLE assets ENABLE TRIGGER USER");
        let before = contents(&mut session);
        let run = session.counters("SELECT * FROM backfill_asset_keys(2, true, true)");
        run.expect(&[("keyed", 4), ("duplicates", 1)]);
        let keyed = contents(&mut session);
        undo(&mut session, run.get("run_id")).expect(&[("keys_restored", 8), ("conflicts", 0), ("errors", 0)]);
        assert_eq!(before, contents(&mut session));
        assert_eq!(
            session.text("SELECT phases FROM backfill_runs ORDER BY run_id DESC LIMIT 1"),
            "{keys_set,keys_released}"
        );

        session.run("CALL run_backfill('asset_keys', 2, true, '{\"refresh\": true}')");
        assert_eq!(keyed, contents(&mut session));
        let run_id = last_run(&mut session);
        session.run(&format!(
            "CALL run_backfill('undo', 1, true, '{{\"run_id\": {run_id}}}')"
        ));
        assert_eq!(before, contents(&mut session));

        // a key that was edited, an asset that has gone, and a key that somebody else has by now
        let run_id = session
            .counters("SELECT * FROM backfill_asset_keys(2, true, true)")
            .get("run_id");
        session.run(&format!(
            "UPDATE assets SET storage_key = 'four and more' WHERE id = '{}'; DELETE FROM assets WHERE id = '{}';
             {}; UPDATE assets SET storage_key = 'one again' WHERE id = '{}'",
            application.asset(4),
            application.asset(7),
            insert_asset(&application.asset(20), &application.organization(1), "wrong"),
            application.asset(1)
        ));
        let wanted = [("asset_gone", 1), ("key_changed", 3), ("key_taken", 1)];
        assert_eq!(
            conflicts(&mut session, run_id),
            wanted.map(|(reason, count)| (reason.to_owned(), count))
        );
        undo(&mut session, run_id).expect(&[("keys_restored", 3), ("conflicts", 5), ("errors", 0)]);
    });
}

#[test]
fn keys_of_the_first_phase_go_back_when_rows_are_edited_meanwhile() {
    each_server(|server| {
        let (_database, mut session, application) = with_lessons(server, 3);
        session.run("ALTER TABLE assets DISABLE TRIGGER USER");
        for number in 1..=5 {
            application.add_asset(&mut session, number, 1, &format!("k{number}"));
        }
        session.run("ALTER TABLE assets ENABLE TRIGGER USER");
        let before = contents(&mut session);
        let run_id = execute(&mut session);
        assert_eq!(session.number("SELECT count(canonical_key) FROM assets"), 5);
        session.run(&format!(
            "UPDATE assets SET storage_key = 'edited' WHERE id = '{}'",
            application.asset(5)
        ));
        undo(&mut session, run_id).expect(&[
            ("keys_restored", 4),
            ("conflicts", 1),
            ("usages_removed", 3),
            ("assets_removed", 0),
        ]);
        assert_eq!(
            session.text("SELECT canonical_key FROM assets WHERE canonical_key IS NOT NULL"),
            "upload:edited"
        );
        session.run(
            "ALTER TABLE assets DISABLE TRIGGER USER;
             UPDATE assets SET storage_key = 'k5', canonical_key = NULL WHERE storage_key = 'edited'",
        );
        assert_eq!(before, contents(&mut session));
    });
}

#[test]
fn ids_of_other_types_and_tables_behind_views() {
    each_server(|server| {
        for (lesson_id, usage_id) in [
            ("text", "uuid NOT NULL PRIMARY KEY"),
            ("bigint", "bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"),
            ("uuid", "bigserial PRIMARY KEY"),
            ("text", "text PRIMARY KEY DEFAULT md5(random()::text)"),
        ] {
            let database = server.database();
            let mut session = database.session();
            session.run("SET media_assets.progress = off; CREATE SCHEMA real; SET search_path = real, public");
            let application = Application {
                lesson_id: lesson_id.into(),
                organization_id: "bigint".into(),
            };
            application.create_lesson_side(&mut session);
            session.run("SELECT * FROM create_asset_tables()");
            session.run(&format!(
                "ALTER TABLE asset_usages DROP CONSTRAINT asset_usages_pkey; ALTER TABLE asset_usages DROP COLUMN id; ALTER TABLE asset_usages ADD COLUMN the_id {usage_id};
                 ALTER TABLE assets RENAME id TO the_id; ALTER TABLE assets RENAME TO real_assets; ALTER TABLE asset_usages RENAME asset_id TO of_asset; ALTER TABLE asset_usages RENAME TO real_usages;
                 ALTER TABLE lesson RENAME id TO lesson_number; ALTER TABLE lesson RENAME TO real_lesson;
                 CREATE TABLE cover (asset uuid REFERENCES real_assets ON DELETE CASCADE);
                 CREATE VIEW public.lesson AS SELECT lesson_number AS id, course_id, title, videos, documents, updated_at FROM real_lesson;
                 CREATE VIEW public.assets AS SELECT the_id AS id, organization_id, kind, provider, storage_provider, storage_key, source_url, mime_type, byte_size,
                     title, description, thumbnail_url, duration_seconds, aspect_ratio, is_external, status, metadata, canonical_key, created_at, updated_at FROM real_assets;
                 CREATE VIEW public.asset_usages AS SELECT the_id AS id, organization_id, of_asset AS asset_id, target_type, target_id, slot_type, slot_key, position FROM real_usages;
                 SET search_path = public, real"
            ));
            for number in 1..=30 {
                application.add_lesson_of(
                    &mut session,
                    number,
                    1 + number % 2,
                    &format!(
                        r#"[{{"type": "upload", "key": "k{}", "assetId": {number}}}]"#,
                        number / 2
                    ),
                    "[{\"key\": \"shared\"}]",
                );
            }
            let about = format!("{lesson_id} × {usage_id}");
            let before = contents(&mut session);
            let run = session.counters("SELECT * FROM backfill_lesson_assets(7, true)");
            run.expect(&[("errors", 0), ("usages_created", 60)]);
            let run_id = run.get("run_id");
            session
                .run("INSERT INTO cover SELECT id FROM assets WHERE storage_key = 'k3'; SET search_path = pg_catalog");
            let undone = session.counters(&format!("SELECT * FROM public.undo_backfill({run_id})"));
            session.run("SET search_path = public, real");
            undone.expect(&[("items_restored", 60), ("usages_removed", 60), ("conflicts", 2)]);
            assert_eq!(same_work(&undo(&mut session, run_id)), same_work(&undone), "{about}");
            session.run("TRUNCATE cover");
            undo(&mut session, run_id).expect(&[("assets_removed", 2)]);
            assert_eq!(before, contents(&mut session), "{about}");
        }
    });
}

#[test]
fn runs_one_after_the_other_are_undone_one_after_the_other() {
    each_server(|server| {
        let (_database, mut session, application) = with_lessons(server, 10);
        let start = contents(&mut session);
        let first = execute(&mut session);
        let between_first = contents(&mut session);
        application.add_lesson(
            &mut session,
            20,
            r#"[{"type": "upload", "key": "k1"}, {"type": "upload", "key": "new"}]"#,
        );
        session.run(&format!(
            "UPDATE lesson SET videos = videos #- '{{0,assetId}}' WHERE id = '{}'",
            application.lesson(2)
        ));
        let between = contents(&mut session);
        let second = execute(&mut session);
        // the first one's asset of k1 is in use by the second one's lesson; the item of lesson 2 is the second one's now
        session.run("BEGIN");
        undo_in_transaction(&mut session, first).expect(&[("conflicts", 1), ("assets_removed", 9)]);
        session.run("ROLLBACK");
        undo(&mut session, second).expect(&[
            ("items_restored", 3),
            ("usages_removed", 2),
            ("assets_removed", 1),
            ("conflicts", 0),
        ]);
        assert_eq!(between, contents(&mut session));
        session.run(&format!("DELETE FROM lesson WHERE id = '{}'", application.lesson(20)));
        undo(&mut session, first).expect(&[("items_restored", 9), ("already_undone", 1), ("conflicts", 0)]);
        assert_eq!(start, contents(&mut session));
        assert_ne!(start, between_first);
    });
}

fn undo_in_transaction(session: &mut Session, run_id: i64) -> media_assets_tests::Counters {
    session.counters(&format!("SELECT * FROM undo_backfill({run_id}, true)"))
}

#[test]
fn a_run_and_its_undo_in_one_transaction() {
    each_server(|server| {
        let (_database, mut session, _) = with_lessons(server, 10);
        let before = contents(&mut session);
        session.run("BEGIN");
        let run_id = execute(&mut session);
        undo_in_transaction(&mut session, run_id).expect(&[
            ("items_restored", 10),
            ("usages_removed", 10),
            ("assets_removed", 10),
        ]);
        session.run("COMMIT");
        assert_eq!(before, contents(&mut session));
    });
}
