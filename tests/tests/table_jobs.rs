//! The jobs over ordinary tables (thumbnails, S3 assets) where servers and sessions die, and where nothing may be written.

use std::time::{Duration, Instant};

use media_assets_tests::long::{counters, decisions, last_run, quarantine, resume, rounds, state, Background};
use media_assets_tests::runs::{dry_undo, same_work, undo};
use media_assets_tests::samples::{with_chain, with_scenes};
use media_assets_tests::scenarios::contents;
use media_assets_tests::standby::Standby;
use media_assets_tests::{each_server, Cluster, Database, Row, Server, Session};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What a test has to know of a job.
struct Sample {
    job: &'static str,
    make: fn(&Server) -> (Database, Session),
    tables: &'static [&'static str],
    /// Rows of the tables without what no two runs have in common: ids and times that a run gives.
    outcome: &'static str,
    /// Makes some rows refuse what a run would write.
    refuse: &'static str,
    /// What a plain execution of the tables comes to.
    executed: &'static [(&'static str, i64)],
}

const SAMPLES: [Sample; 2] = [
    Sample {
        job: "i2v_thumbnails",
        make: |server| with_chain(server, 150),
        tables: &["media", "i2v_jobs"],
        outcome: "SELECT id, thumbnail_url, thumbnail_urls::text, updated_at > '2021-01-01' FROM media ORDER BY id",
        refuse: "ALTER TABLE media ADD CHECK (id NOT LIKE '%77' OR thumbnail_url IS NULL)",
        executed: &[("videos_scanned", 150), ("updated", 150), ("errors", 0)],
    },
    Sample {
        job: "s3_assets",
        make: |server| with_scenes(server, 15),
        tables: &["scenes", "video_sessions", "asset_references"],
        outcome: "SELECT to_jsonb(t)::text FROM scenes t UNION ALL SELECT to_jsonb(t)::text FROM video_sessions t
                  UNION ALL SELECT (to_jsonb(t) - 'id' - 'created_at')::text FROM asset_references t ORDER BY 1",
        refuse: "ALTER TABLE asset_references ADD CHECK (entity_id NOT LIKE '%3-7')",
        executed: &[
            ("scenes_migrated", 150),
            ("sessions_migrated", 15),
            ("references_created", 300),
            ("errors", 0),
        ],
    },
];

impl Sample {
    fn call(&self, execute: bool) -> String {
        format!("SELECT * FROM backfill_{}(7, {execute})", self.job)
    }

    fn long(&self, execute: bool) -> String {
        format!("CALL run_backfill('{}', batch => 7, execute => {execute})", self.job)
    }

    /// All that a run left: in its counters, its quarantine, its log of decisions, the tables.
    fn traces(&self, session: &mut Session, run_id: i64) -> [Vec<Row>; 4] {
        [
            counters(session, run_id),
            quarantine(session, run_id),
            decisions(session, run_id),
            session.rows(self.outcome),
        ]
    }
}

#[test]
fn dry_runs_explanations_and_verifications_work_on_a_standby_and_predict_the_execution() {
    each_server(|server| {
        let standby = Standby::of(server);
        for sample in SAMPLES {
            let (database, mut session) = (sample.make)(server);
            let job = sample.job;
            let looks = |replica: &mut Session| {
                replica.run("BEGIN READ ONLY");
                let dry = replica.counters(&sample.call(false));
                let explained = replica.number(&format!(
                    "SELECT count(*) FROM explain_{job}() WHERE outcome IN ('updated', 'migrated')"
                ));
                let errors = replica.number(&format!("SELECT count(*) FROM verify_{job}() WHERE severity = 'error'"));
                replica.run("COMMIT");
                (dry, explained, errors)
            };
            let mut replica = standby.session(&database);
            assert!(replica.is_true("SELECT pg_is_in_recovery()"));
            let (dry, explained, errors) = looks(&mut replica);
            assert!(
                explained >= 150 && errors > 0,
                "{job}: {explained} to be written, {errors} errors"
            );
            replica.run(&sample.long(false));
            replica.fails("25006", &sample.call(true));
            replica.fails("25006", &sample.long(true));

            let executed = session.counters(&sample.call(true));
            executed.expect(sample.executed);
            assert_eq!(
                same_work(&executed),
                same_work(&dry),
                "{job}: the standby predicts what the execution does"
            );

            // It sees the work, predicts none, and what an undo would do.
            let mut replica = standby.session(&database);
            let (_, explained, errors) = looks(&mut replica);
            assert_eq!((explained, errors), (0, 0), "{job}");
            let run_id = executed.get("run_id");
            let foreseen = dry_undo(&mut replica, run_id);
            assert_eq!(same_work(&foreseen), same_work(&undo(&mut session, run_id)), "{job}");
        }
    });
}

/// How a run is broken off.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Terminate,
    Kill,
    Crash,
}

/// Runs and resumes until the run has ended, and strikes each time at a random moment within `length`. Gives the run's id
/// and how often it was resumed.
fn run_under_blows(
    cluster: &Cluster,
    database: &Database,
    sample: &Sample,
    blow: Blow,
    random: &mut StdRng,
    length: Duration,
) -> (i64, u32) {
    let mut resumed = 0;
    let mut run_id: Option<i64> = None;
    loop {
        let call = run_id.map_or_else(|| sample.long(true), resume);
        let mut session = cluster.session(database);
        session.run(SETTINGS);
        let running = Background::start_in(session, &call);
        let moment = Instant::now() + length.mul_f64(random.gen_range(0.0..0.9));
        while Instant::now() < moment && !running.is_over() {
            std::thread::sleep(Duration::from_micros(500));
        }
        let pid = running.pid;
        match blow {
            Blow::Terminate => cluster
                .server
                .maintenance()
                .run(&format!("SELECT pg_terminate_backend({pid}, 10000)")),
            Blow::Kill => cluster.kill_backend(pid),
            Blow::Crash => cluster.crash(),
        }
        let _ = running.join();
        if matches!(blow, Blow::Crash) {
            cluster.start();
        }
        let mut session = cluster.session(database);
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

/// Slow enough to be met at work, and a log that would show a decision made twice.
const SETTINGS: &str = "SET media_assets.batch_pause = '4ms'; SET media_assets.log_decisions = 'all'";

#[test]
fn killed_and_crashed_runs_are_resumed_exactly_and_taken_back_row_for_row() {
    each_server(|server| {
        let cluster = Cluster::like(server);
        let seed = rand::random::<u64>();
        let mut random = StdRng::seed_from_u64(seed);
        for sample in SAMPLES {
            let undisturbed = || {
                let (database, mut session) = (sample.make)(&cluster.server);
                session.run(sample.refuse);
                (database, session)
            };
            let (_database, mut session) = undisturbed();
            session.run(SETTINGS);
            let began = Instant::now();
            session.run(&sample.long(true));
            let length = began.elapsed().min(Duration::from_secs(2));
            let run_id = last_run(&mut session).expect("a run");
            let expected = sample.traces(&mut session, run_id);
            assert!(!expected[1].is_empty(), "{}: some rows are refused", sample.job);
            drop(session);
            for blow in [Blow::Terminate, Blow::Kill, Blow::Crash] {
                let mut resumed = 0;
                for round in 0..rounds(2) {
                    let (database, mut session) = undisturbed();
                    let before = contents(&mut session, sample.tables);
                    drop(session);
                    let (run_id, times) = run_under_blows(&cluster, &database, &sample, blow, &mut random, length);
                    resumed += times;
                    let which = format!(
                        "{} {blow:?}, round {round}, resumed {times} times, seed {seed}",
                        sample.job
                    );
                    let mut session = cluster.session(&database);
                    let traces = sample.traces(&mut session, run_id);
                    for (name, (one, other)) in ["counters", "quarantine", "decisions", "tables"]
                        .iter()
                        .zip(expected.iter().zip(&traces))
                    {
                        assert_eq!(one, other, "{which}: {name}");
                    }
                    undo(&mut session, run_id).expect(&[("conflicts", 0), ("errors", 0), ("already_undone", 0)]);
                    assert_eq!(
                        contents(&mut session, sample.tables),
                        before,
                        "{which}: undo leaves the tables as they were"
                    );
                }
                assert!(resumed > 0, "{} {blow:?} never hit a run (seed {seed})", sample.job);
            }
        }
    });
}
