//! The scripts of sql/run/ for thumbnails and S3 assets, as a deploy pipeline calls them: exit status, output, and what they
//! leave. Those of the other jobs are in `pipelines.rs` and with their jobs.

use media_assets_tests::json::vectors;
use media_assets_tests::psql::run;
use media_assets_tests::scenarios::{contents, insert, reject};
use media_assets_tests::{each_server, Database, Session};
use serde_json::Value;

struct Job {
    script: &'static str,
    vectors: &'static str,
    create: &'static str,
    tables: &'static [&'static str],
    bad: &'static [(&'static str, &'static str)],
}

const JOBS: [Job; 2] = [
    Job {
        script: "backfill_i2v_thumbnails",
        vectors: "i2v_scenarios",
        create: "SELECT * FROM create_media_tables()",
        tables: &["media", "i2v_jobs"],
        bad: &[
            ("allow_private_sources", "perhaps"),
            ("batch", "0"),
            ("execute", "maybe"),
            ("resume", "77"),
        ],
    },
    Job {
        script: "backfill_s3_assets",
        vectors: "s3_scenarios",
        create: "SELECT * FROM create_scene_tables()",
        tables: &["scenes", "video_sessions", "asset_references"],
        bad: &[
            ("bucket_url", "javascript:alert(1)"),
            ("batch", "many"),
            ("summary", ""),
            ("batch_pause", "soon"),
        ],
    },
];

impl Job {
    /// The first vector that something is written for, and in which a row is refused or none is.
    fn vector(&self, refused: bool) -> Value {
        let fits = |vector: &Value| {
            vector.get("reject").is_some_and(Value::is_object) == refused
                && vector["args"].as_object().is_none_or(serde_json::Map::is_empty)
                && vector["expect"]["second"] != vector["expect"]["counters"]
        };
        vectors(self.vectors)
            .into_iter()
            .find(fits)
            .unwrap_or_else(|| panic!("{}: no vector with refused {refused}", self.vectors))
    }

    fn fill(&self, session: &mut Session, vector: &Value) {
        session.run(self.create);
        for table in self.tables {
            insert(session, table, &vector[*table]);
        }
        reject(session, &vector["reject"]);
    }

    fn script(&self, database: &Database, variables: &[(&str, &str)], status: i32) -> String {
        run(database.script(self.script, variables)).with(status)
    }
}

#[test]
fn dry_by_default_then_executed_and_verified_and_nothing_the_second_time() {
    each_server(|server| {
        for job in &JOBS {
            let database = server.database();
            let mut session = database.session();
            job.fill(&mut session, &job.vector(false));
            let before = contents(&mut session, job.tables);
            let said = job.script(&database, &[], 0);
            assert!(said.contains("Nothing was written"), "{said}");
            assert_eq!(contents(&mut session, job.tables), before, "{}", job.script);
            assert_eq!(session.number("SELECT count(*) FROM backfill_runs"), 0);

            let said = job.script(&database, &[("execute", "true"), ("batch", "2")], 0);
            assert!(said.contains("verified: no errors"), "{said}");
            let settled = contents(&mut session, job.tables);
            assert_ne!(settled, before, "{}", job.script);
            assert!(session.is_true("SELECT state = 'finished' AND mode = 'procedure' FROM backfill_runs"));
            job.script(&database, &[("execute", "true"), ("summary", "false")], 0);
            assert_eq!(contents(&mut session, job.tables), settled, "{}", job.script);

            run(database.script("undo_backfill", &[("run_id", "1"), ("execute", "true")])).with(0);
            assert_eq!(contents(&mut session, job.tables), before, "{}", job.script);
        }
    });
}

#[test]
fn a_row_that_is_refused_makes_the_verification_and_the_script_fail() {
    each_server(|server| {
        for job in &JOBS {
            let database = server.database();
            let mut session = database.session();
            job.fill(&mut session, &job.vector(true));
            let said = job.script(&database, &[("execute", "true"), ("VERBOSITY", "verbose")], 3);
            assert!(said.contains("ERROR:  23000: verification found"), "{said}");
            assert!(said.contains("this row is rejected"), "the report has a sample: {said}");
            // All else has landed; mended, the items are tried again and the script succeeds.
            assert!(session.is_true("SELECT state = 'finished' FROM backfill_runs"));
            session.run("DROP FUNCTION reject_row CASCADE");
            assert!(session.number("SELECT retry_quarantined(1)") > 0);
            let said = job.script(
                &database,
                &[("execute", "true"), ("resume", "1"), ("summary", "false")],
                0,
            );
            assert!(said.contains("verified: no errors"), "{said}");
        }
    });
}

#[test]
fn a_bad_variable_is_an_error_and_writes_nothing() {
    each_server(|server| {
        for job in &JOBS {
            let database = server.database();
            let mut session = database.session();
            job.fill(&mut session, &job.vector(false));
            let before = contents(&mut session, job.tables);
            for bad in job.bad {
                let said = job.script(&database, &[("execute", "true"), *bad], 3);
                assert!(said.contains("ERROR:"), "{bad:?}: {said}");
            }
            assert_eq!(contents(&mut session, job.tables), before, "{}", job.script);
            assert_eq!(session.number("SELECT count(*) FROM backfill_runs"), 0);
        }
    });
}
