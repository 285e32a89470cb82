//! How fast a run goes: rests, batch sizes, standbys; all of it while it runs, and never an error.

use std::time::{Duration, Instant};

use media_assets_tests::long::{
    await_rows, await_run, await_state, counter, join, progress, resume, run_lessons, state, Background,
};
use media_assets_tests::standby::Standby;
use media_assets_tests::{each_server, words, Application, Cluster, Database, Session};

/// A session that is at rest for an hour has to be ended by what a test does.
const LONG: &str = "SET media_assets.batch_pause = '1h'";
/// Far less than that, and more than a busy machine needs.
const SOON: Duration = Duration::from_secs(20);

fn uploads(database: &Database, lessons: u32) -> Session {
    let mut session = database.session();
    let application = Application::create(&mut session);
    application.add_uploads(&mut session, 1, lessons);
    session
}

fn waits(session: &mut Session, run_id: i64, condition: &str) -> i64 {
    session.number(&format!(
        "SELECT count(*) FROM backfill_waits WHERE run_id = {run_id} AND {condition}"
    ))
}

/// The sizes of the batches, in their order: each lesson's row names the transaction that patched it.
fn sizes(session: &mut Session) -> Vec<i64> {
    session
        .rows("SELECT count(*) FROM lesson WHERE videos->0 ? 'assetId' GROUP BY xmin::text ORDER BY min(id::text)")
        .iter()
        .map(|row| row[0].as_deref().and_then(|size| size.parse().ok()).expect("a number"))
        .collect()
}

fn await_rest(session: &mut Session, run_id: i64) {
    session.wait_until(&format!(
        "SELECT state = 'throttled' AND throttle_reason = 'batch_pause' FROM backfill_progress WHERE run_id = {run_id}"
    ));
}

#[test]
fn a_pause_is_kept_after_each_batch_and_recorded() {
    each_server(|server| {
        let database = server.database();
        let mut session = uploads(&database, 12);
        session.run("SET media_assets.batch_pause = '20ms'");
        let began = Instant::now();
        let run_id: i64 = session.text(&run_lessons(2, "{}")).parse().expect("an id");
        assert!(began.elapsed() >= Duration::from_millis(5 * 20));
        let kept = waits(
            &mut session,
            run_id,
            "reason = 'batch_pause' AND value = '20 ms' AND milliseconds >= 20 AND range_number = 0 AND began_at <= now()",
        );
        assert!((5..=6).contains(&kept), "{kept} rests of six batches");
    });
}

#[test]
fn batches_grow_by_a_fifth_at_most_towards_their_time() {
    each_server(|server| {
        let database = server.database();
        let mut session = uploads(&database, 150);
        session.run("SET media_assets.target_batch_time = '60s'");
        session.run(&run_lessons(1, "{}"));
        let sizes = sizes(&mut session);
        assert_eq!(sizes[..6], [1, 2, 3, 4, 5, 6]);
        for pair in sizes.windows(2) {
            assert!(pair[1] <= (pair[0] * 6 + 4) / 5, "{sizes:?}");
        }
        assert!(sizes.len() < 25, "{sizes:?}");
    });
}

#[test]
fn batches_shrink_to_their_time_by_half_at_most() {
    each_server(|server| {
        let database = server.database();
        let mut session = uploads(&database, 150);
        session.run(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END $$;
             CREATE TRIGGER slow BEFORE UPDATE ON lesson FOR EACH ROW EXECUTE FUNCTION slow()",
        );
        session.run("SET media_assets.target_batch_time = '50ms'");
        session.run(&run_lessons(64, "{}"));
        let sizes = sizes(&mut session);
        assert_eq!(sizes[..3], [64, 32, 16]);
        let last = sizes[sizes.len() - 2];
        assert!((1..=6).contains(&last), "five rows take the time of a batch: {sizes:?}");
    });
}

#[test]
fn orders_are_obeyed_during_a_long_rest() {
    each_server(|server| {
        let database = server.database();
        let mut session = uploads(&database, 60);

        let run = Background::start(&database, LONG, &run_lessons(1, "{}"));
        let run_id = await_run(&mut session);
        await_rest(&mut session, run_id);
        let began = Instant::now();
        session.fails_with_hint("22023", &format!("SELECT set_backfill_pace({run_id}, batch => 0)"));
        session.fails_with_hint(
            "22023",
            &format!("SELECT set_backfill_pace({run_id}, batch_pause => '-1 s')"),
        );
        session.fails_with_hint(
            "22023",
            &format!("SELECT set_backfill_pace({run_id}, batch_pause => '1 month')"),
        );
        session.run(&format!(
            "SELECT set_backfill_pace({run_id}, batch => 20, batch_pause => '0')"
        ));
        run.finish();
        assert!(began.elapsed() < SOON);
        assert_eq!(sizes(&mut session), [1, 20, 20, 19]);
        session.fails_with_hint("55000", &format!("SELECT set_backfill_pace({run_id}, batch => 1)"));
        assert_eq!(
            waits(&mut session, run_id, "reason = 'batch_pause' AND value = '3600000 ms'"),
            1
        );

        for (request, left) in [("pause", "paused"), ("cancel", "cancelled")] {
            let run = Background::start(&database, LONG, &run_lessons(1, "{}"));
            session.wait_until("SELECT state = 'throttled' FROM backfill_progress ORDER BY run_id DESC LIMIT 1");
            let run_id = session.number("SELECT max(run_id) FROM backfill_runs");
            let began = Instant::now();
            assert_eq!(
                session.text(&format!("SELECT {request}_backfill({run_id})")),
                "requested"
            );
            run.finish();
            assert!(began.elapsed() < SOON);
            assert_eq!(state(&mut session, run_id), left);
        }
    });
}

#[test]
fn a_wait_that_is_cancelled_is_recorded_and_leaves_the_run_to_be_resumed() {
    each_server(|server| {
        let database = server.database();
        let mut session = uploads(&database, 10);
        let run = Background::start(&database, LONG, &run_lessons(1, "{}"));
        let run_id = await_run(&mut session);
        await_rest(&mut session, run_id);
        session.run(&format!("SELECT pg_cancel_backend({})", run.pid));
        let (mut worker, _) = run.fails("57014");
        assert_eq!(state(&mut session, run_id), "interrupted");
        assert_eq!(progress(&mut session, run_id, "throttle_reason"), None);
        assert_eq!(waits(&mut session, run_id, "reason = 'batch_pause'"), 1);
        worker.run("RESET ALL");
        worker.run(&resume(run_id));
        assert_eq!(counter(&mut session, run_id, "assets_created"), 10);
    });
}

#[test]
fn settings_of_the_server_take_effect_while_a_run_rests() {
    each_server(|server| {
        let cluster = Cluster::like(server);
        let database = cluster.server.database();
        let mut session = uploads(&database, 20);
        session.run("LOAD 'media_assets'");
        session.run("ALTER SYSTEM SET media_assets.batch_pause = '1h'");
        session.run("SELECT pg_reload_conf()");
        session.wait_until("SELECT current_setting('media_assets.batch_pause') = '1h'");
        let run = Background::start(&database, "", &run_lessons(1, "{}"));
        let run_id = await_run(&mut session);
        await_rest(&mut session, run_id);
        session.run("ALTER SYSTEM SET media_assets.batch_pause = '1ms'");
        let began = Instant::now();
        session.run("SELECT pg_reload_conf()");
        run.finish();
        assert!(began.elapsed() < SOON);
        assert_eq!(counter(&mut session, run_id, "lessons_scanned"), 20);
    });
}

#[test]
fn a_standby_that_falls_behind_is_waited_for() {
    each_server(|server| {
        let cluster = Cluster::like(server);
        let database = cluster.server.database();
        let mut session = uploads(&database, 400);
        let standby = Standby::of(&cluster.server);
        let mut replica = standby.session(&database);
        replica.run("SELECT pg_wal_replay_pause()");
        replica.wait_until("SELECT pg_get_wal_replay_pause_state() = 'paused'");

        let settings = "SET media_assets.max_replica_lag = '200ms'; SET media_assets.batch_pause = '5ms'";
        let run = Background::start(&database, settings, &run_lessons(1, "{}"));
        let run_id = await_run(&mut session);
        let throttled = format!(
            "SELECT state = 'throttled' AND throttle_reason = 'replica_lag' FROM backfill_progress WHERE run_id = {run_id}"
        );
        session.wait_until(&throttled);
        let done = progress(&mut session, run_id, "rows_done");
        // a session that asks for a part of the run does not set it going again
        let other = Background::start(&database, settings, &join(run_id));
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(progress(&mut session, run_id, "rows_done"), done, "it waits");
        assert!(session.is_true(&throttled));

        replica.run("SELECT pg_wal_replay_resume()");
        session.wait_until(&format!(
            "SELECT count(*) > 0 FROM backfill_waits WHERE run_id = {run_id} AND reason = 'replica_lag' AND milliseconds >= 400
             AND value LIKE '% bytes, % ms'"
        ));
        await_rows(
            &mut session,
            run_id,
            done.and_then(|done| done.parse().ok()).unwrap_or(0) + 1,
        );

        // asked to pause while it waits
        replica.run("SELECT pg_wal_replay_pause()");
        session.wait_until(&throttled);
        assert_eq!(session.text(&format!("SELECT pause_backfill({run_id})")), "requested");
        run.finish();
        let _ = other.join();
        assert_eq!(state(&mut session, run_id), "paused");

        // told not to look any more
        let run = Background::start(&database, settings, &resume(run_id));
        session.wait_until(&throttled);
        session.run(&format!(
            "SELECT set_backfill_pace({run_id}, max_replica_lag => '0', batch_pause => '0')"
        ));
        run.finish();
        assert_eq!(state(&mut session, run_id), "finished");
        assert_eq!(counter(&mut session, run_id, "lessons_scanned"), 400);
        assert_eq!(counter(&mut session, run_id, "assets_created"), 400);
        replica.run("SELECT pg_wal_replay_resume()");
    });
}

#[test]
fn who_may_not_see_standbys_is_told_what_to_grant() {
    each_server(|server| {
        let database = server.database();
        let mut session = uploads(&database, 10);
        let role = server.role(&database);
        session.run(&format!(
            "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {name};
             REVOKE ALL ON backfill_runs, backfill_ranges, backfill_requests, backfill_decisions, backfill_changes,
                           backfill_quarantine, backfill_waits FROM {name}",
            name = role.name
        ));
        let mut user = database.session_as(&role);
        user.run("SET media_assets.max_replica_lag = '1s'");
        let error = user.fails_with_hint("42501", &run_lessons(1, "{}"));
        assert!(words(&error).contains("GRANT pg_monitor"), "{}", words(&error));
        let run_id = await_run(&mut session);
        await_state(&mut session, run_id, "failed");
        session.run(&format!("GRANT pg_monitor TO {}", role.name));
        user.run(&resume(run_id));
        assert_eq!(state(&mut session, run_id), "finished");
        assert_eq!(counter(&mut session, run_id, "assets_created"), 10);
    });
}
