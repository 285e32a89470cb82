//! What others did since a run is theirs: its undo leaves it alone, says so, and takes the rest back.

use media_assets_tests::application::contents;
use media_assets_tests::runs::{conflicts, count, execute, undo, with_lessons, Background};
use media_assets_tests::{each_server, literal, Application, Session};

/// The videos of lesson `number`.
fn videos(session: &mut Session, application: &Application, number: u32) -> String {
    session.text(&format!(
        "SELECT videos FROM lesson WHERE id = {}",
        literal(&application.lesson(number))
    ))
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
