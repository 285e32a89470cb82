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

/// What is broken off.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Subject {
    /// A run over lessons, some of which are refused.
    Lessons,
    /// A run that takes wrong keys away and gives right ones.
    Keys,
    /// The taking back of a run over lessons.
    Undo,
    /// The retry of a run whose lessons were all refused.
    Retry,
}

impl Subject {
    /// The school as it was, and what has to have run before. Gives the call that is broken off.
    fn fill(self, session: &mut Session) -> String {
        SCHOOL.fill(session);
        session.run("TRUNCATE backfill_runs, backfill_ranges, backfill_requests, backfill_decisions, backfill_changes, backfill_quarantine, backfill_waits");
        match self {
            Subject::Lessons => {
                session.run("ALTER TABLE lesson ENABLE TRIGGER refuse; ALTER TABLE assets ENABLE TRIGGER refuse_asset");
                run_lessons(BATCH, "{}")
            }
            Subject::Keys => {
                session.run(
                    "ALTER TABLE assets DISABLE TRIGGER USER;
                     INSERT INTO assets (id, organization_id, kind, provider, storage_provider, storage_key, canonical_key, is_external, status, metadata, created_at)
                     SELECT md5('asset ' || n)::uuid, md5('organization ' || n % 5 + 1)::uuid, 'video', 'upload', 's3', n || '.mp4',
                            CASE n % 3 WHEN 0 THEN 'upload:wrong/' || n WHEN 1 THEN 'upload:' || n || '.mp4' END, false, 'active', '{}',
                            '2021-02-03'::timestamptz + n % 50 * interval '1 second'
                     FROM generate_series(1, 240) n;
                     ALTER TABLE assets ENABLE TRIGGER USER; ALTER TABLE assets DISABLE TRIGGER refuse_asset",
                );
                format!("CALL run_backfill('asset_keys', batch => {BATCH}, execute => true, options => '{{\"refresh\": true}}')")
            }
            Subject::Undo => {
                session
                    .run("ALTER TABLE lesson DISABLE TRIGGER refuse; ALTER TABLE assets DISABLE TRIGGER refuse_asset");
                let run_id = session
                    .counters("SELECT * FROM backfill_lesson_assets(execute => true)")
                    .get("run_id");
                format!("CALL run_backfill('undo', batch => {BATCH}, execute => true, options => '{{\"run_id\": {run_id}}}')")
            }
            Subject::Retry => {
                session.run("ALTER TABLE lesson DISABLE TRIGGER refuse; ALTER TABLE assets DISABLE TRIGGER refuse_asset; ALTER TABLE lesson ENABLE TRIGGER refuse_all");
                session.run(&run_lessons(BATCH, "{}"));
                session.run("ALTER TABLE lesson DISABLE TRIGGER refuse_all");
                let run_id = last_run(session).expect("a run");
                assert!(session.number(&format!("SELECT retry_quarantined({run_id})")) > 150);
                resume(run_id)
            }
        }
    }

    fn job(self) -> &'static str {
        match self {
            Subject::Lessons | Subject::Retry => "lesson_assets",
            Subject::Keys => "asset_keys",
            Subject::Undo => "undo",
        }
    }

    /// The run that is broken off, once it has begun.
    fn run_id(self, session: &mut Session) -> Option<i64> {
        session
            .value(&format!(
                "SELECT max(run_id) FROM backfill_runs WHERE job = '{}'",
                self.job()
            ))
            .and_then(|id| id.parse().ok())
    }

    /// What it leaves. Ids that are made anew each time are left out.
    fn traces(self, session: &mut Session, run_id: i64) -> [Vec<Row>; 4] {
        let mut traces = traces(session, run_id);
        if self == Subject::Undo {
            traces[2] = session.rows(&format!(
                "SELECT outcome, action, reason, count(*) FROM backfill_decisions WHERE run_id = {run_id} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
            ));
        }
        if self == Subject::Retry {
            // What the run logged before and again by the retry is logged in another order, and not twice as much.
            traces[2].dedup();
        }
        traces
    }
}

/// The school, with lessons and an asset that cannot be written.
fn create(session: &mut Session) {
    SCHOOL.create(session);
    session.run(
        "CREATE FUNCTION refuse_all() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'lesson % is refused', NEW.id USING ERRCODE = '23514'; END $$;
         CREATE TRIGGER refuse_all BEFORE UPDATE ON lesson FOR EACH ROW EXECUTE FUNCTION refuse_all();
         ALTER TABLE lesson DISABLE TRIGGER refuse_all",
    );
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
    (subject, first): (Subject, &str),
    blow: Blow,
    random: &mut StdRng,
    length: Duration,
) -> (i64, u32) {
    let mut resumed = 0;
    let mut run_id: Option<i64> = None;
    loop {
        let call = run_id.map_or_else(|| first.to_owned(), resume);
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
        run_id = subject.run_id(&mut session);
        let Some(run_id) = run_id else { continue };
        match state(&mut session, run_id).as_str() {
            // A retry is struck before it has opened its run again.
            "finished" if subject == Subject::Retry && is_asked_for(&mut session) => resumed += 1,
            "finished" => return (run_id, resumed),
            "interrupted" => resumed += 1,
            other => panic!("{blow:?} left the run {other}"),
        }
        assert!(resumed < 1000, "the run does not end");
    }
}

fn is_asked_for(session: &mut Session) -> bool {
    session.is_true("SELECT EXISTS (SELECT FROM backfill_quarantine WHERE retry)")
}

fn proves_that_nothing_is_lost(subject: Subject, blows: &[(Blow, u32)]) {
    each_server(|server| {
        let cluster = Cluster::like(server);
        let database = cluster.server.database();
        let mut session = database.session();
        create(&mut session);
        let call = subject.fill(&mut session);
        let mut undisturbed = ready(database.session());
        let began = Instant::now();
        undisturbed.run(&call);
        let length = began.elapsed().min(Duration::from_secs(2));
        drop(undisturbed);
        let run_id = subject.run_id(&mut session).expect("a run");
        let expected = subject.traces(&mut session, run_id);
        match subject {
            Subject::Lessons => {
                assert_eq!(counter(&mut session, run_id, "lessons_scanned"), 220);
                assert!(!expected[1].is_empty(), "some lessons are refused");
            }
            Subject::Keys => assert!(counter(&mut session, run_id, "keyed") >= 160),
            Subject::Undo => assert!(counter(&mut session, run_id, "items_restored") > 200),
            Subject::Retry => assert_eq!(counter(&mut session, run_id, "errors"), 0),
        }
        let batches = batches_of(&mut session, run_id);

        let seed = rand::random::<u64>();
        eprintln!("{subject:?}: seed {seed}, undisturbed it takes {length:?}");
        let mut random = StdRng::seed_from_u64(seed);
        for (blow, few) in blows {
            let mut resumed = 0;
            let rounds = rounds(*few);
            for round in 0..rounds {
                let call = subject.fill(&mut cluster.session(&database));
                let what = (subject, call.as_str());
                let (run_id, times) = run_under_blows(&cluster, &database, what, *blow, &mut random, length);
                resumed += times;
                let mut session = cluster.session(&database);
                let which = format!("{subject:?}, {blow:?}, round {round}, resumed {times} times, seed {seed}");
                assert_same_traces(&expected, &subject.traces(&mut session, run_id), &which);
                assert_eq!(batches_of(&mut session, run_id), batches, "{which}");
            }
            eprintln!("{subject:?}, {blow:?}: {rounds} runs, resumed {resumed} times");
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
    let blows = [(Blow::Cancel, 5), (Blow::Terminate, 5), (Blow::LostConnection, 3)];
    proves_that_nothing_is_lost(Subject::Lessons, &blows);
}

#[test]
fn runs_of_killed_backends_and_crashed_servers_are_resumed_exactly() {
    proves_that_nothing_is_lost(Subject::Lessons, &[(Blow::Kill, 3), (Blow::Crash, 2)]);
}

#[test]
fn runs_over_keys_that_are_broken_off_are_resumed_exactly() {
    proves_that_nothing_is_lost(Subject::Keys, &[(Blow::Terminate, 2), (Blow::Kill, 1)]);
}

#[test]
fn undos_that_are_broken_off_are_resumed_exactly() {
    proves_that_nothing_is_lost(Subject::Undo, &[(Blow::Terminate, 2), (Blow::Kill, 1)]);
}

#[test]
fn retries_that_are_broken_off_are_resumed_exactly() {
    proves_that_nothing_is_lost(Subject::Retry, &[(Blow::Terminate, 3), (Blow::Kill, 2)]);
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
