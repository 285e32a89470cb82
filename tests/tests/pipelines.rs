//! The scripts of sql/run/ as a deploy pipeline calls them: exit status, output, and what they leave.

use std::process::Command;

use media_assets_tests::application::{assert_items_are_settled, contents};
use media_assets_tests::psql::{root, run, start, wait, Ended};
use media_assets_tests::{each_server, Application, Database, Server, Session};

const LESSONS: &str = "backfill_lesson_assets";
const KEYS: &str = "backfill_asset_keys";
const UNDO: &str = "undo_backfill";

/// A database with tables and ten lessons.
fn with_lessons(server: &Server) -> (Database, Session, Application) {
    let database = server.database();
    let mut session = database.session();
    let application = Application::create(&mut session);
    application.add_uploads(&mut session, 1, 10);
    (database, session, application)
}

fn script(database: &Database, name: &str, variables: &[(&str, &str)]) -> Ended {
    run(database.script(name, variables))
}

fn runs(session: &mut Session) -> i64 {
    session.number("SELECT count(*) FROM backfill_runs")
}

fn assert_says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "not said: {word}\n{said}");
    }
}

#[test]
fn dry_by_default_with_summary_and_sample() {
    each_server(|server| {
        let (database, mut session, _) = with_lessons(server);
        let before = contents(&mut session);
        let said = script(&database, LESSONS, &[]).with(0);
        assert_says(
            &said,
            &["lessons_scanned", "create", "upload:k1", "Nothing was written"],
        );
        assert_eq!(said.matches("upload:k").count(), 3, "three of a kind: {said}");
        assert_eq!(contents(&mut session), before);
        assert_eq!(runs(&mut session), 0);
        for name in [KEYS, LESSONS] {
            script(&database, name, &[("execute", "off"), ("batch", "3")]).with(0);
        }
        assert_eq!(contents(&mut session), before);
        assert_eq!(runs(&mut session), 0);
    });
}

#[test]
fn a_dry_run_needs_nothing_prepared() {
    each_server(|server| {
        let database = server.database();
        Application::default().create_lesson_side(&mut database.session());
        assert_says(&script(&database, LESSONS, &[]).with(0), &["create_asset_tables()"]);
        script(&database, KEYS, &[]).with(0);
        let mut missing = database.script(LESSONS, &[("execute", "true"), ("VERBOSITY", "verbose")]);
        let said = run(std::mem::replace(&mut missing, Command::new("true"))).with(3);
        assert_says(&said, &["42P01", "HINT:", "create_asset_tables()"]);
    });
}

#[test]
fn executes_in_committing_batches_and_verifies() {
    each_server(|server| {
        let (database, mut session, _) = with_lessons(server);
        let said = script(&database, LESSONS, &[("execute", "true"), ("batch", "3")]).with(0);
        assert_says(
            &said,
            &[
                "lessons_scanned",
                "INFO:  lesson_assets:",
                "state         finished",
                "verified: no errors",
            ],
        );
        assert_items_are_settled(&mut session);
        assert!(session.is_true("SELECT mode = 'procedure' AND batch = 3 AND state = 'finished' FROM backfill_runs"));
        let settled = contents(&mut session);
        // Once more: nothing to do. ON_ERROR_STOP and the summary may be left out.
        let mut again = database.command("psql");
        again.args([
            "-X",
            "-q",
            "-v",
            "execute=1",
            "-v",
            "summary=no",
            "-f",
            "sql/run/backfill_lesson_assets.psql",
        ]);
        let said = run(again).with(0);
        assert!(!said.contains("Dry run"), "{said}");
        assert_eq!(contents(&mut session), settled);
    });
}

#[test]
fn one_organization_only() {
    each_server(|server| {
        let (database, mut session, application) = with_lessons(server);
        application.add_lesson_of(&mut session, 20, 2, r#"[{"type": "upload", "key": "other"}]"#, "[]");
        let organization = application.organization(2);
        script(
            &database,
            LESSONS,
            &[("execute", "true"), ("organization_id", &organization)],
        )
        .with(0);
        assert_eq!(
            session.rows("SELECT canonical_key FROM assets"),
            [[Some("upload:other".to_owned())]]
        );
    });
}

#[test]
fn a_verification_that_finds_an_error_fails() {
    each_server(|server| {
        let (database, mut session, application) = with_lessons(server);
        session.run(&format!(
            "ALTER TABLE lesson ADD CONSTRAINT odd CHECK (id <> '{}' OR videos -> 0 -> 'assetId' IS NULL)",
            application.lesson(4)
        ));
        let said = script(&database, LESSONS, &[("execute", "true"), ("VERBOSITY", "verbose")]).with(3);
        assert_says(
            &said,
            &[
                "23514",
                "item_without_asset",
                "ERROR:  23000: verification found 1 errors",
                "HINT:",
            ],
        );
        // Everything else has landed, and the run itself came to its end.
        assert_eq!(session.number("SELECT count(*) FROM assets"), 9);
        assert!(session.is_true("SELECT state = 'finished' FROM backfill_runs"));
        // A warning is no error.
        session.run("ALTER TABLE lesson DROP CONSTRAINT odd");
        session.run("DELETE FROM lesson WHERE id = (SELECT max(id::text)::uuid FROM lesson)");
        let said = script(&database, LESSONS, &[("execute", "true")]).with(0);
        assert_says(&said, &["verified: no errors"]);
    });
}

#[test]
fn a_bad_variable_is_an_error_and_writes_nothing() {
    each_server(|server| {
        let (database, mut session, _) = with_lessons(server);
        let before = contents(&mut session);
        for bad in [
            ("batch", "0"),
            ("batch", "many"),
            ("batch", ""),
            ("batch", "500; DROP TABLE lesson"),
            ("execute", "maybe"),
            ("execute", ""),
            ("summary", "2"),
            ("skip_settled", "perhaps"),
            ("sample_lessons", "few"),
            ("organization_id", "nobody"),
            ("organization_id", ""),
            ("batch_pause", "soon"),
            ("target_batch_time", "-1"),
            ("max_replica_lag", "1 parsec"),
            ("resume", "last"),
            ("resume", "77"),
        ] {
            let mut variables = vec![("execute", "true")];
            variables.push(bad);
            let ended = script(&database, LESSONS, &variables);
            assert_eq!(ended.status, Some(3), "{bad:?}: {}", ended.said);
            assert_says(&ended.said, &["ERROR:"]);
        }
        for (name, bad) in [
            (KEYS, ("refresh", "yes please")),
            (UNDO, ("run_id", "7 or 8")),
            (UNDO, ("run_id", "7")),
        ] {
            script(&database, name, &[("execute", "true"), bad]).with(3);
        }
        let said = script(&database, UNDO, &[("execute", "true"), ("VERBOSITY", "verbose")]).with(3);
        assert_says(&said, &["22023", "-v run_id=7"]);
        assert_eq!(contents(&mut session), before);
        assert_eq!(runs(&mut session), 0);
    });
}

#[test]
fn quotes_spaces_and_backslashes_in_a_value_stay_in_the_value() {
    const EVIL: [&str; 6] = [
        "O'Neil & \"Sons\"",
        "'; DROP TABLE lesson; --",
        "x') ; DELETE FROM lesson; SELECT ('",
        "\\'; DROP TABLE lesson; --",
        ":organization_id :'batch' :\"batch\"",
        "$$ \\! false \\q `false` {\"a\": 1}",
    ];
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application {
            organization_id: "text".into(),
            ..Application::default()
        };
        application.create_lesson_side(&mut session);
        session.run("SELECT * FROM create_asset_tables()");
        for (number, name) in (10_i32..).zip(EVIL) {
            session.run(&format!(
                "INSERT INTO \"group\" VALUES ({number}, {}); INSERT INTO course VALUES ({number}, {number})",
                media_assets_tests::literal(name)
            ));
            let number = u32::try_from(number).expect("small");
            application.add_lesson_of(
                &mut session,
                number,
                number,
                r#"[{"type": "upload", "key": "k"}]"#,
                "[]",
            );
        }
        for (done, name) in (1..).zip(EVIL) {
            script(&database, LESSONS, &[("execute", "true"), ("organization_id", name)]).with(0);
            assert_eq!(session.number("SELECT count(*) FROM assets"), done, "{name}");
            assert!(session.is_true(&format!(
                "SELECT count(*) = 1 FROM assets WHERE organization_id = {}",
                media_assets_tests::literal(name)
            )));
        }
        assert_eq!(session.number("SELECT count(*) FROM lesson"), 6);
    });
}

#[test]
fn the_extension_may_be_in_any_schema_on_the_search_path() {
    each_server(|server| {
        let database = server.empty_database();
        let mut session = database.session();
        session.run("CREATE SCHEMA \"my tools\"; CREATE SCHEMA app; CREATE EXTENSION media_assets SCHEMA \"my tools\"");
        session.run("SET search_path = app, \"my tools\"");
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 3);
        let with_path = |name, variables: &[(&str, &str)]| {
            let mut command = database.script(name, variables);
            command.env("PGOPTIONS", r#"-c search_path=app,"my\ tools""#);
            run(command)
        };
        with_path(LESSONS, &[("execute", "true")]).with(0);
        with_path(KEYS, &[("execute", "true")]).with(0);
        with_path(UNDO, &[("execute", "true"), ("run_id", "1")]).with(0);
        let said = script(&database, LESSONS, &[]).with(3);
        assert_says(&said, &["does not exist"]);
    });
}

#[test]
fn a_run_that_does_not_come_to_its_end_fails_and_can_be_resumed() {
    each_server(|server| {
        let (database, mut session, _) = with_lessons(server);
        let slowly = [
            ("execute", "true"),
            ("batch", "1"),
            ("batch_pause", "1s"),
            ("summary", "false"),
        ];
        let working = "SELECT count(*) = 1 FROM backfill_progress WHERE workers > 0 AND rows_done > 0";

        let script_of = start(database.script(LESSONS, &slowly));
        session.wait_until(working);
        session.run("SELECT pause_backfill(1)");
        let said = wait(script_of).with(3);
        assert_says(&said, &["ERROR:  run 1 is paused", "CALL resume_backfill(1)"]);
        assert!(session.is_true("SELECT state = 'paused' AND rows_done < 10 FROM backfill_progress"));

        // A lost connection is psql's own status.
        let script_of = start(database.script(LESSONS, &[("resume", "1"), ("execute", "true"), ("batch_pause", "1s")]));
        session.wait_until(working);
        session.run("SELECT pg_terminate_backend(pid) FROM backfill_progress WHERE workers > 0");
        wait(script_of).with(2);
        session.wait_until("SELECT state = 'interrupted' FROM backfill_progress");

        let said = script(&database, LESSONS, &[("resume", "1"), ("execute", "true")]).with(0);
        assert_says(&said, &["verified: no errors"]);
        assert_items_are_settled(&mut session);
        assert!(session.is_true("SELECT count(*) = 1 AND min(state) = 'finished' FROM backfill_runs"));
        // It is over: to resume it is an error.
        script(&database, LESSONS, &[("resume", "1"), ("execute", "true")]).with(3);
    });
}

#[test]
fn a_statement_timeout_interrupts_the_run() {
    each_server(|server| {
        let (database, mut session, _) = with_lessons(server);
        let slowly = [
            ("execute", "true"),
            ("batch", "1"),
            ("batch_pause", "1s"),
            ("VERBOSITY", "verbose"),
        ];
        let mut command = database.script(LESSONS, &slowly);
        command.env("PGOPTIONS", "-c statement_timeout=2500");
        assert_says(&run(command).with(3), &["57014"]);
        assert!(session.is_true("SELECT state = 'interrupted' AND rows_done BETWEEN 1 AND 9 FROM backfill_progress"));
        script(&database, LESSONS, &[("resume", "1"), ("execute", "true")]).with(0);
        assert_items_are_settled(&mut session);
    });
}

#[test]
fn the_grants_of_the_runbook_are_all_that_a_role_needs() {
    let runbook = std::fs::read_to_string(root().join("docs/runbook.md")).expect("the runbook is there");
    let grants: Vec<&str> = runbook.lines().filter(|line| line.starts_with("GRANT ")).collect();
    assert!(grants.len() > 4, "the runbook has lost its grants");
    each_server(|server| {
        let (database, mut session, _) = with_lessons(server);
        let role = server.role(&database);
        for grant in &grants {
            session.run(&grant.replace("media_operator", &role.name));
        }
        let before = contents(&mut session);
        let as_role = |name, variables: &[(&str, &str)]| {
            let mut command = database.script(name, variables);
            command.env("PGUSER", &role.name);
            run(command)
        };
        as_role(LESSONS, &[("execute", "true"), ("max_replica_lag", "1min")]).with(0);
        assert_items_are_settled(&mut session);
        as_role(UNDO, &[("execute", "true"), ("run_id", "1")]).with(0);
        assert_eq!(contents(&mut session), before);
        as_role(KEYS, &[("execute", "true"), ("refresh", "true")]).with(0);
        assert!(session.is_true(&format!("SELECT bool_and(run_by = '{}') FROM backfill_runs", role.name)));
        // A stranger sees nothing of it, and may not even look.
        let stranger = server.role(&database);
        let mut command = database.script(UNDO, &[("run_id", "1"), ("VERBOSITY", "verbose")]);
        command.env("PGUSER", &stranger.name);
        assert_says(&run(command).with(3), &["42501"]);
    });
}

#[test]
fn inside_a_transaction_it_refuses() {
    each_server(|server| {
        let (database, mut session, _) = with_lessons(server);
        let mut command = database.script(LESSONS, &[("execute", "true"), ("VERBOSITY", "verbose")]);
        command.arg("--single-transaction");
        assert_says(&run(command).with(3), &["25001", "HINT:"]);
        assert_eq!(runs(&mut session), 0);
    });
}

#[test]
fn keys_are_made_repaired_and_verified() {
    each_server(|server| {
        let (database, mut session, application) = with_lessons(server);
        session.run("ALTER TABLE assets DISABLE TRIGGER USER");
        application.add_asset(&mut session, 1, 1, "a.mp4");
        application.add_asset(&mut session, 2, 1, "b.mp4");
        session.run(&format!(
            "UPDATE assets SET canonical_key = 'upload:wrong' WHERE id = '{}'",
            application.asset(2)
        ));
        let said = script(&database, KEYS, &[("execute", "true")]).with(3);
        assert_says(&said, &["asset_with_wrong_key", "refresh=true"]);
        let said = script(&database, KEYS, &[("execute", "true"), ("refresh", "true")]).with(0);
        assert_says(&said, &["verified: no errors"]);
        assert_eq!(
            session.rows("SELECT canonical_key FROM assets ORDER BY id"),
            [[Some("upload:a.mp4".to_owned())], [Some("upload:b.mp4".to_owned())]]
        );
    });
}

#[test]
fn a_run_is_taken_back() {
    each_server(|server| {
        let (database, mut session, application) = with_lessons(server);
        let before = contents(&mut session);
        script(&database, LESSONS, &[("execute", "true")]).with(0);
        let done = contents(&mut session);

        let said = script(&database, UNDO, &[("run_id", "1")]).with(0);
        assert_says(&said, &["items_restored", "Nothing was written"]);
        assert_eq!(contents(&mut session), done);
        let said = script(&database, UNDO, &[("run_id", "1"), ("execute", "true"), ("batch", "4")]).with(0);
        assert_says(&said, &["already_undone", "taken back"]);
        assert_eq!(contents(&mut session), before);

        // A conflict is shown, and no error.
        script(&database, LESSONS, &[("execute", "true")]).with(0);
        let run_id = session.text("SELECT max(run_id) FROM backfill_runs WHERE job = 'lesson_assets'");
        session.run(&format!(
            r#"UPDATE lesson SET videos = jsonb_set(videos, '{{0,assetId}}', '"mine"') WHERE id = '{}'"#,
            application.lesson(3)
        ));
        let said = script(&database, UNDO, &[("run_id", &run_id), ("execute", "true")]).with(0);
        assert_says(&said, &["conflict", "item_changed", "taken back"]);

        // What cannot be written is one.
        script(&database, LESSONS, &[("execute", "true")]).with(0);
        let run_id = session.text("SELECT max(run_id) FROM backfill_runs WHERE job = 'lesson_assets'");
        session.run(&format!(
            "ALTER TABLE lesson ADD CONSTRAINT odd CHECK (id <> '{}' OR videos -> 0 -> 'assetId' IS NOT NULL)",
            application.lesson(5)
        ));
        let said = script(&database, UNDO, &[("run_id", &run_id), ("execute", "true")]).with(3);
        assert_says(&said, &["could not be taken back"]);
    });
}
