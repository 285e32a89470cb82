//! Several sessions on one run: nothing twice, no deadlock, the counters and decisions of one worker.

use std::time::{Duration, Instant};

use media_assets_tests::long::{
    assert_same_traces, await_rows, await_run, await_state, counter, counters, join, last_run, progress, resume,
    rounds, run_lessons, state, traces, Background,
};
use media_assets_tests::school::{outcome, School};
use media_assets_tests::{each_server, Application, Database, Row, Session};

const SCHOOL: School = School {
    organizations: 12,
    lessons: 600,
};
/// Slow enough for all sessions to be met at work.
const SLOW: &str = "SET media_assets.batch_pause = '12ms'; SET media_assets.log_decisions = 'all'";
const SETTINGS: &str = "SET media_assets.batch_pause = '3ms'; SET media_assets.log_decisions = 'all'";

/// What one worker leaves; the tables are filled anew afterwards.
fn of_one_worker(session: &mut Session, school: School, batch: u32) -> [Vec<Row>; 4] {
    session.run("SET media_assets.log_decisions = 'all'");
    session.run(&run_lessons(batch, "{}"));
    let run_id = last_run(session).expect("a run");
    let expected = traces(session, run_id);
    school.fill(session);
    session.run("TRUNCATE backfill_runs, backfill_ranges, backfill_requests, backfill_decisions, backfill_changes, backfill_quarantine, backfill_waits");
    expected
}

fn ranges(session: &mut Session, run_id: i64) -> i64 {
    session.number(&format!("SELECT count(*) FROM backfill_ranges WHERE run_id = {run_id}"))
}

/// Starts a run, and joins it with so many sessions.
fn start_with(
    database: &Database,
    session: &mut Session,
    settings: &str,
    others: usize,
    batch: u32,
) -> (i64, Background, Vec<Background>) {
    let first = Background::start(database, settings, &run_lessons(batch, "{}"));
    let run_id = await_run(session);
    let others = (0..others)
        .map(|_| Background::start(database, settings, &join(run_id)))
        .collect();
    (run_id, first, others)
}

fn prove_that_sessions_share(sessions: usize, few: u32) {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        SCHOOL.create(&mut session);
        let expected = of_one_worker(&mut session, SCHOOL, 5);
        for round in 0..rounds(few) {
            SCHOOL.fill(&mut session);
            session.run("TRUNCATE backfill_runs, backfill_ranges, backfill_requests, backfill_decisions, backfill_changes, backfill_quarantine, backfill_waits");
            let (run_id, first, others) = start_with(&database, &mut session, SETTINGS, sessions - 1, 5);
            first.finish();
            for other in others {
                other.finish();
            }
            let which = format!("{sessions} sessions, round {round}");
            assert_same_traces(&expected, &traces(&mut session, run_id), &which);
            assert_eq!(state(&mut session, run_id), "finished", "{which}");
            let shared = ranges(&mut session, run_id);
            assert!(shared > 1, "{which}: it was shared");
            let idle = session.number(&format!(
                "SELECT count(*) FROM backfill_ranges WHERE run_id = {run_id} AND (NOT done OR pid IS NOT NULL)"
            ));
            assert_eq!(idle, 0, "{which}: every range is done and nobody's");
            assert_eq!(
                session.number(&format!(
                    "SELECT sum(rows_done) FROM backfill_ranges WHERE run_id = {run_id}"
                )),
                600,
                "{which}"
            );
        }
    });
}

#[test]
fn two_sessions_leave_what_one_does() {
    prove_that_sessions_share(2, 2);
}

#[test]
fn four_sessions_leave_what_one_does() {
    prove_that_sessions_share(4, 2);
}

#[test]
fn others_go_on_when_a_worker_is_terminated_and_take_over_its_part() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        SCHOOL.create(&mut session);
        let expected = of_one_worker(&mut session, SCHOOL, 5);
        for round in 0..rounds(3) {
            SCHOOL.fill(&mut session);
            session.run("TRUNCATE backfill_runs, backfill_ranges, backfill_requests, backfill_decisions, backfill_changes, backfill_quarantine, backfill_waits");
            let (run_id, first, others) = start_with(&database, &mut session, SLOW, 2, 5);
            session.wait_until(&format!(
                "SELECT workers = 3 FROM backfill_progress WHERE run_id = {run_id}"
            ));
            session.run(&format!("SELECT pg_terminate_backend({})", first.pid));
            let _ = first.join();
            for other in others {
                other.finish();
            }
            assert_eq!(state(&mut session, run_id), "finished");
            assert_same_traces(&expected, &traces(&mut session, run_id), &format!("round {round}"));
        }
    });
}

#[test]
fn all_of_them_may_be_cancelled_and_the_run_resumed_by_several() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        SCHOOL.create(&mut session);
        let expected = of_one_worker(&mut session, SCHOOL, 5);
        for round in 0..rounds(2) {
            SCHOOL.fill(&mut session);
            session.run("TRUNCATE backfill_runs, backfill_ranges, backfill_requests, backfill_decisions, backfill_changes, backfill_quarantine, backfill_waits");
            let (run_id, first, others) = start_with(&database, &mut session, SLOW, 2, 5);
            session.wait_until(&format!(
                "SELECT workers = 3 FROM backfill_progress WHERE run_id = {run_id}"
            ));
            for background in std::iter::once(first).chain(others) {
                session.run(&format!("SELECT pg_cancel_backend({})", background.pid));
                let _ = background.join();
            }
            assert_eq!(state(&mut session, run_id), "interrupted");
            let again = Background::start(&database, SLOW, &resume(run_id));
            await_state(&mut session, run_id, "running");
            let more = Background::start(&database, SLOW, &join(run_id));
            again.finish();
            let _ = more.join();
            assert_same_traces(&expected, &traces(&mut session, run_id), &format!("round {round}"));
        }
    });
}

#[test]
fn a_pause_or_an_error_stops_all_sessions() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        SCHOOL.create(&mut session);
        let (run_id, first, others) = start_with(&database, &mut session, SLOW, 1, 5);
        session.wait_until(&format!(
            "SELECT workers = 2 FROM backfill_progress WHERE run_id = {run_id}"
        ));
        assert_eq!(session.text(&format!("SELECT pause_backfill({run_id})")), "requested");
        for background in std::iter::once(first).chain(others) {
            let said: String = background
                .finish()
                .take_notices()
                .iter()
                .map(|notice| notice.message().to_owned())
                .collect();
            assert!(said.contains("is paused"), "{said}");
        }
        assert_eq!(state(&mut session, run_id), "paused");

        let again = Background::start(&database, SLOW, &resume(run_id));
        await_state(&mut session, run_id, "running");
        let more = Background::start(&database, SLOW, &join(run_id));
        session.wait_until(&format!(
            "SELECT workers = 2 FROM backfill_progress WHERE run_id = {run_id}"
        ));
        session.run(
            "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'out of space' USING ERRCODE = '53100'; END $$;
             CREATE TRIGGER broken BEFORE INSERT ON asset_usages FOR EACH ROW EXECUTE FUNCTION broken()",
        );
        let outcomes = [again.join(), more.join()];
        let failed = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).count();
        assert!(failed >= 1, "the error is raised");
        for (mut session, outcome) in outcomes {
            if outcome.is_ok() {
                let said: String = session
                    .take_notices()
                    .iter()
                    .map(|notice| notice.message().to_owned())
                    .collect();
                assert!(said.contains("another session"), "{said}");
            }
        }
        assert_eq!(state(&mut session, run_id), "failed");
        assert_eq!(
            progress(&mut session, run_id, "last_error").as_deref(),
            Some("out of space")
        );
        session.run("DROP TRIGGER broken ON asset_usages");
        session.run(&resume(run_id));
        assert_eq!(state(&mut session, run_id), "finished");
        assert_eq!(counter(&mut session, run_id, "lessons_scanned"), 600);
        assert_eq!(counter(&mut session, run_id, "errors"), 0);
    });
}

#[test]
fn runs_that_are_one_sequence_cannot_be_shared() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 40);
        for options in [
            r#"{"max_lessons": 30}"#.to_owned(),
            format!(r#"{{"organization_id": "{}"}}"#, application.organization(1)),
        ] {
            session.run("TRUNCATE backfill_runs, backfill_ranges, backfill_requests, backfill_decisions, backfill_changes, backfill_quarantine, backfill_waits");
            let run = Background::start(
                &database,
                "SET media_assets.batch_pause = '20ms'",
                &run_lessons(1, &options),
            );
            let run_id = await_run(&mut session);
            await_rows(&mut session, run_id, 1);
            session.fails_with_hint("0A000", &join(run_id));
            session.run(&format!("SELECT cancel_backfill({run_id})"));
            run.finish();
            assert_eq!(ranges(&mut session, run_id), 1);
        }
    });
}

#[test]
fn plain_functions_and_committing_runs_take_turns() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        SCHOOL.create(&mut session);
        let expected = of_one_worker(&mut session, SCHOOL, 500)[3].clone();

        // the function has the table: the run waits without an error, and says so
        let mut holder = database.session();
        holder.run("BEGIN; SELECT * FROM backfill_lesson_assets(execute => true, max_lessons => 10)");
        let run = Background::start(&database, SETTINGS, &run_lessons(20, "{}"));
        let run_id = await_run(&mut session);
        std::thread::sleep(Duration::from_millis(250));
        assert_eq!(progress(&mut session, run_id, "rows_done").as_deref(), Some("0"));
        holder.run("COMMIT");
        run.finish();
        assert_eq!(outcome(&mut session), expected);
        assert!(
            session.is_true(&format!(
                "SELECT count(*) = 1 AND min(milliseconds) >= 200 FROM backfill_waits WHERE run_id = {run_id} AND reason = 'other_run'"
            )),
            "one wait for the other run: {:?}",
            session.rows("SELECT reason, value, milliseconds FROM backfill_waits WHERE reason <> 'batch_pause'")
        );

        // the other way round: the function gets its turn after a batch
        SCHOOL.fill(&mut session);
        let run = Background::start(&database, SETTINGS, &run_lessons(5, "{}"));
        session.wait_until("SELECT count(*) > 0 FROM asset_usages");
        let mut function = database.session();
        function
            .counters("SELECT * FROM backfill_lesson_assets(execute => true)")
            .expect(&[("errors", 0)]);
        run.finish();
        assert_eq!(outcome(&mut session), expected);
    });
}

#[test]
fn two_runs_over_the_same_tables_create_nothing_twice() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        SCHOOL.create(&mut session);
        let expected = of_one_worker(&mut session, SCHOOL, 500)[3].clone();
        for _ in 0..rounds(2) {
            SCHOOL.fill(&mut session);
            session.run("TRUNCATE backfill_runs, backfill_ranges, backfill_requests, backfill_decisions, backfill_changes, backfill_quarantine, backfill_waits");
            let calls = [
                run_lessons(7, "{}"),
                run_lessons(11, "{}"),
                "CALL run_backfill('asset_keys', 3, execute => true)".to_owned(),
            ];
            let runs: Vec<_> = calls
                .iter()
                .map(|call| Background::start(&database, "", call))
                .collect();
            for run in runs {
                run.finish();
            }
            assert_eq!(outcome(&mut session), expected);
            let ids: Vec<i64> = session
                .rows("SELECT run_id FROM backfill_runs WHERE job = 'lesson_assets'")
                .iter()
                .map(|row| row[0].as_deref().and_then(|id| id.parse().ok()).expect("an id"))
                .collect();
            let created: i64 = ids.iter().map(|id| counter(&mut session, *id, "usages_created")).sum();
            assert_eq!(created, session.number("SELECT count(*) FROM asset_usages"));
            for id in ids {
                assert_eq!(
                    counter(&mut session, id, "errors"),
                    0,
                    "{:?}",
                    counters(&mut session, id)
                );
                assert_eq!(state(&mut session, id), "finished");
            }
        }
    });
}

#[test]
fn a_session_that_finds_nothing_to_share_asks_seldom() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 60);
        let run = Background::start(
            &database,
            "SET media_assets.batch_pause = '30ms'",
            &run_lessons(1, "{}"),
        );
        let run_id = await_run(&mut session);
        let began = Instant::now();
        let other = Background::start(&database, "", &join(run_id));
        run.finish();
        other.finish();
        assert_eq!(counter(&mut session, run_id, "assets_created"), 60);
        let asked = session.number(&format!(
            "SELECT count(*) FROM backfill_requests WHERE run_id = {run_id} AND request = 'join'"
        ));
        // halving all organizations down to one takes 16 requests
        let most = 20 + 2 * began.elapsed().as_secs() as i64;
        assert!(asked <= most, "{asked} requests");
    });
}
