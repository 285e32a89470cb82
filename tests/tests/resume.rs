//! A run that is broken off at any moment, in any way, and resumed leaves what an undisturbed one does.
//!
//! `make soak` runs these hundreds of times.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use media_assets_tests::long::{
    assert_same_traces, await_rows, await_run, counter, last_run, resume, rounds, run_lessons, state, traces,
    Background,
};
use media_assets_tests::school::School;
use media_assets_tests::{each_server, words, Application, Cluster, Database, Row, Session};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const SCHOOL: School = School {
    organizations: 5,
    lessons: 220,
};
const BATCH: u32 = 7;
/// Slow enough to be met at work, and a log that would show a decision made twice.
const SETTINGS: &str = "SET media_assets.batch_pause = '4ms'; SET media_assets.log_decisions = 'all'";

/// How a run is broken off.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Blow {
    Cancel,
    Terminate,
    LostConnection,
    Kill,
    Crash,
}

/// The school as it was, and no runs.
fn fill(session: &mut Session) {
    SCHOOL.fill(session);
    session.run("TRUNCATE backfill_runs, backfill_ranges, backfill_requests, backfill_decisions, backfill_changes, backfill_quarantine, backfill_waits");
}

/// The school, with lessons and an asset that cannot be written.
fn create(session: &mut Session) {
    SCHOOL.create(session);
    session.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'lesson % is refused', NEW.id USING ERRCODE = '23514'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON lesson FOR EACH ROW
         WHEN (NEW.id::text LIKE '%f' AND NEW.course_id > 0) EXECUTE FUNCTION refuse();
         CREATE FUNCTION refuse_asset() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'asset % is refused', NEW.storage_key USING ERRCODE = '23514'; END $$;
         CREATE TRIGGER refuse_asset BEFORE INSERT ON assets FOR EACH ROW
         WHEN (NEW.storage_key = 'shared/22.mp4') EXECUTE FUNCTION refuse_asset()",
    );
}

/// A call that may be struck.
enum Call {
    Session(Background),
    /// A client that dies; the server looks every few milliseconds whether it is there.
    Client(std::process::Child),
}

impl Call {
    fn start(cluster: &Cluster, database: &Database, blow: Blow, call: &str) -> Self {
        if blow != Blow::LostConnection {
            return Call::Session(Background::start_in(ready(cluster.session(database)), call));
        }
        let programs = cluster.server.programs.as_ref().expect("a cluster has them");
        let (host, port) = cluster.server.address();
        let child = Command::new(programs.join("psql"))
            .args([
                "-Xq",
                "-h",
                &host,
                "-p",
                &port.to_string(),
                "-U",
                "postgres",
                "-d",
                &database.name,
            ])
            .args([
                "-c",
                &format!("SET client_connection_check_interval = '2ms'; {SETTINGS}"),
                "-c",
                call,
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("psql starts");
        Call::Client(child)
    }

    fn is_over(&mut self) -> bool {
        match self {
            Call::Session(background) => background.is_over(),
            Call::Client(child) => child.try_wait().expect("a child can be asked").is_some(),
        }
    }

    fn strike(self, cluster: &Cluster, blow: Blow) {
        match self {
            Call::Session(background) => {
                let pid = background.pid;
                let ask = |function: &str| {
                    cluster.server.maintenance().run(&format!("SELECT {function}({pid})"));
                };
                match blow {
                    Blow::Cancel => ask("pg_cancel_backend"),
                    Blow::Terminate => ask("pg_terminate_backend"),
                    Blow::Kill => cluster.kill_backend(pid),
                    Blow::Crash | Blow::LostConnection => cluster.crash(),
                }
                let _ = background.join();
                if blow == Blow::Crash {
                    cluster.start();
                }
            }
            Call::Client(mut child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

fn ready(mut session: Session) -> Session {
    session.run(SETTINGS);
    session
}

/// One run, struck at random moments until it has ended. Gives its id and how often it was resumed.
fn run_under_blows(
    cluster: &Cluster,
    database: &Database,
    blow: Blow,
    random: &mut StdRng,
    length: Duration,
) -> (i64, u32) {
    let mut resumed = 0;
    let mut run_id: Option<i64> = None;
    loop {
        let call = run_id.map_or_else(|| run_lessons(BATCH, "{}"), resume);
        let mut running = Call::start(cluster, database, blow, &call);
        let moment = Instant::now() + length.mul_f64(random.gen_range(0.0..0.9));
        while Instant::now() < moment && !running.is_over() {
            std::thread::sleep(Duration::from_micros(500));
        }
        running.strike(cluster, blow);
        let mut session = cluster.session(database);
        session.wait_until(
            "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database()
             AND pid <> pg_backend_pid() AND (query LIKE 'CALL%' OR query LIKE '%batch_pause%') AND state <> 'idle'",
        );
        run_id = last_run(&mut session);
        let Some(run_id) = run_id else { continue };
        match state(&mut session, run_id).as_str() {
            "finished" => return (run_id, resumed),
            "interrupted" => resumed += 1,
            other => panic!("{blow:?} left the run {other}"),
        }
        assert!(resumed < 1000, "the run does not end");
    }
}

fn proves_that_nothing_is_lost(blows: &[(Blow, u32)]) {
    each_server(|server| {
        let cluster = Cluster::like(server);
        let database = cluster.server.database();
        let mut session = database.session();
        create(&mut session);
        fill(&mut session);
        let mut undisturbed = ready(database.session());
        let began = Instant::now();
        undisturbed.run(&run_lessons(BATCH, "{}"));
        let length = began.elapsed().min(Duration::from_secs(2));
        drop(undisturbed);
        let run_id = last_run(&mut session).expect("a run");
        let expected = traces(&mut session, run_id);
        assert_eq!(counter(&mut session, run_id, "lessons_scanned"), 220);
        assert!(!expected[1].is_empty(), "some lessons are refused");
        let batches = batches_of(&mut session, run_id);

        let seed = rand::random::<u64>();
        eprintln!("seed {seed}, an undisturbed run takes {length:?}");
        let mut random = StdRng::seed_from_u64(seed);
        for (blow, few) in blows {
            let mut resumed = 0;
            let rounds = rounds(*few);
            for round in 0..rounds {
                fill(&mut cluster.session(&database));
                let (run_id, times) = run_under_blows(&cluster, &database, *blow, &mut random, length);
                resumed += times;
                let mut session = cluster.session(&database);
                let which = format!("{blow:?}, round {round}, resumed {times} times, seed {seed}");
                assert_same_traces(&expected, &traces(&mut session, run_id), &which);
                assert_eq!(batches_of(&mut session, run_id), batches, "{which}");
            }
            eprintln!("{blow:?}: {rounds} runs, resumed {resumed} times");
            assert!(resumed > 0, "{blow:?} never hit a run");
        }
    });
}

fn batches_of(session: &mut Session, run_id: i64) -> Vec<Row> {
    session.rows(&format!(
        "SELECT sum(batches), sum(rows_done) FROM backfill_ranges WHERE run_id = {run_id}"
    ))
}

#[test]
fn cancelled_terminated_and_abandoned_runs_are_resumed_exactly() {
    proves_that_nothing_is_lost(&[(Blow::Cancel, 5), (Blow::Terminate, 5), (Blow::LostConnection, 3)]);
}

#[test]
fn runs_of_killed_backends_and_crashed_servers_are_resumed_exactly() {
    proves_that_nothing_is_lost(&[(Blow::Kill, 3), (Blow::Crash, 2)]);
}

#[test]
fn a_run_with_a_limit_stops_where_it_would_have_after_a_resume() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 60);
        let slow = "SET media_assets.batch_pause = '20ms'";
        let run = Background::start(&database, slow, &run_lessons(4, r#"{"max_lessons": 30}"#));
        let run_id = await_run(&mut session);
        await_rows(&mut session, run_id, 8);
        session.run(&format!("SELECT pg_terminate_backend({})", run.pid));
        let _ = run.join();
        session.wait_until(&format!(
            "SELECT state = 'interrupted' FROM backfill_progress WHERE run_id = {run_id}"
        ));
        session.run(&resume(run_id));
        assert_eq!(counter(&mut session, run_id, "lessons_scanned"), 30);
        assert_eq!(session.number("SELECT count(*) FROM asset_usages"), 30);
    });
}

#[test]
fn a_living_run_is_not_resumed_and_a_resumed_one_needs_no_search_path() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run("CREATE SCHEMA school; SET search_path = school, public");
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 40);
        let run = Background::start(
            &database,
            "SET search_path = school, public; SET media_assets.batch_pause = '20ms'",
            &run_lessons(1, "{}"),
        );
        let run_id = await_run(&mut session);
        await_rows(&mut session, run_id, 3);
        let mut other = database.session();
        let error = other.fails_with_hint("55000", &resume(run_id));
        assert!(
            words(&error).contains(&format!("CALL join_backfill({run_id})")),
            "{}",
            words(&error)
        );
        session.run(&format!("SELECT pg_terminate_backend({})", run.pid));
        let _ = run.join();
        other.wait_until(&format!(
            "SELECT state = 'interrupted' FROM backfill_progress WHERE run_id = {run_id}"
        ));
        other.run("SET search_path = ''");
        other.run(&format!("CALL public.resume_backfill({run_id})"));
        other.run("SET search_path = public");
        assert_eq!(state(&mut other, run_id), "finished");
        assert_eq!(session.number("SELECT count(*) FROM asset_usages"), 40);
    });
}
