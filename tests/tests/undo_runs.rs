//! Undo of runs that did not go straight: running, interrupted, crashed, paused, resumed, shared; and undos like that.

use media_assets_tests::application::contents;
use media_assets_tests::cluster::Cluster;
use media_assets_tests::each_server;
use media_assets_tests::runs::{
    close_gate, count, execute, interrupted, last_run, open_gate, remove_gate, state, undo, with_lessons, Background,
};

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
