//! `run_backfill`: a commit after every batch, the same counters as the plain function, refusals that say what to do.

use std::time::Duration;

use media_assets_tests::long::{
    await_rows, await_run, await_state, counter, counters, function_counters, last_run, progress, quarantine, resume,
    run_lessons, state, Background,
};
use media_assets_tests::school::{outcome, School};
use media_assets_tests::standby::Standby;
use media_assets_tests::{each_server, words, Application, Session};
use postgres::error::Severity;

const SCHOOL: School = School {
    organizations: 7,
    lessons: 300,
};

const EXECUTE: &str = "CALL run_backfill('lesson_assets', execute => true)";

fn infos(session: &mut Session) -> Vec<String> {
    session
        .take_notices()
        .into_iter()
        .filter(|notice| notice.parsed_severity() == Some(Severity::Info))
        .map(|notice| notice.message().to_owned())
        .collect()
}

#[test]
fn dry_run_and_function_and_procedure_count_the_same() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        SCHOOL.create(&mut session);
        let before = outcome(&mut session);

        session.take_notices();
        let row = session.rows("CALL run_backfill('lesson_assets')");
        assert_eq!(row, [vec![None]], "a dry run has no id");
        let said = infos(&mut session).pop().expect("an INFO row");
        assert_eq!(outcome(&mut session), before, "a dry run changes nothing");
        assert_eq!(session.number("SELECT count(*) FROM backfill_runs"), 0);
        session.run("BEGIN READ ONLY; CALL run_backfill('lesson_assets', 7); COMMIT");

        let run_id: i64 = session
            .text(&run_lessons(13, "{}"))
            .parse()
            .expect("run_id is given back");
        assert_eq!(Some(run_id), last_run(&mut session));
        let executed = counters(&mut session, run_id);
        for row in &executed {
            let counter = format!(
                "{}={}",
                row[0].as_deref().unwrap_or(""),
                row[1].as_deref().unwrap_or("")
            );
            assert!(said.split(' ').any(|word| word == counter), "{counter} in {said}");
        }
        assert_eq!(counter(&mut session, run_id, "lessons_scanned"), 300);
        assert_eq!(state(&mut session, run_id), "finished");
        assert_eq!(progress(&mut session, run_id, "percent").as_deref(), Some("100.0"));
        let by_procedure = outcome(&mut session);

        SCHOOL.fill(&mut session);
        let row = session.counters("SELECT * FROM backfill_lesson_assets(execute => true)");
        assert_eq!(function_counters(&row), executed);
        assert_eq!(outcome(&mut session), by_procedure);
        let unverified = session.rows("SELECT v::text FROM verify_lesson_assets() v WHERE severity = 'error'");
        assert!(unverified.is_empty(), "{unverified:?}");
    });
}

#[test]
fn dry_run_works_on_a_hot_standby_and_execute_says_that_it_cannot() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        SCHOOL.create(&mut session);
        let standby = Standby::of(server);
        let mut reader = standby.session(&database);
        reader.run("CALL run_backfill('lesson_assets')");
        let said = infos(&mut reader).pop().expect("an INFO row");
        assert!(said.contains("lessons_scanned=300"), "{said}");
        reader.fails("25006", EXECUTE);
        assert_eq!(session.number("SELECT count(*) FROM backfill_runs"), 0);
        for (options, word) in [("{}", "keyed=21"), (r#"{"refresh": true}"#, "keyed=21")] {
            reader.run(&format!("CALL run_backfill('asset_keys', options => '{options}')"));
            let said = infos(&mut reader).pop().expect("an INFO row");
            assert!(said.contains(word), "{said}");
        }
        reader.fails("25006", "CALL run_backfill('asset_keys', execute => true)");
        // An undo's dry run reads the ledger and the tables, and no more.
        let run_id: i64 = session.text(&run_lessons(100, "{}")).parse().expect("an id");
        reader.wait_until(&format!(
            "SELECT count(*) = 1 FROM backfill_runs WHERE run_id = {run_id} AND state = 'finished'"
        ));
        let undo = format!("CALL run_backfill('undo', options => '{{\"run_id\": {run_id}}}')");
        reader.run(&undo);
        let said = infos(&mut reader).pop().expect("an INFO row");
        assert!(
            said.contains("undo dry run:") && said.contains(" conflicts=0 "),
            "{said}"
        );
        reader.fails("25006", &undo.replace("options", "execute => true, options"));
        for call in [
            resume(run_id),
            format!("SELECT pause_backfill({run_id})"),
            format!("SELECT retry_quarantined({run_id})"),
        ] {
            assert!(reader.try_rows(&call).is_err(), "{call} on a standby");
        }
        reader.run(&format!("SELECT backfill_report({run_id})"));
    });
}

#[test]
fn procedures_refuse_where_they_cannot_commit_and_work_in_a_do_block() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        SCHOOL.create(&mut session);
        session.run(
            "CREATE FUNCTION in_function() RETURNS void LANGUAGE plpgsql AS $$
                 DECLARE id bigint; BEGIN CALL run_backfill('lesson_assets', 10, true, '{}', id); END $$;
             CREATE PROCEDURE atomic_procedure() LANGUAGE plpgsql SET work_mem = '4MB' AS $$
                 DECLARE id bigint; BEGIN CALL run_backfill('lesson_assets', 10, true, '{}', id); END $$;
             CREATE PROCEDURE plain_procedure(INOUT id bigint) LANGUAGE plpgsql AS $$
                 BEGIN CALL run_backfill('lesson_assets', 10, true, '{}', id); END $$",
        );
        for refused in [
            format!("BEGIN; {EXECUTE}"),
            "BEGIN; CALL resume_backfill(1)".to_owned(),
            "BEGIN; CALL join_backfill(1)".to_owned(),
            "SELECT in_function()".to_owned(),
            "CALL atomic_procedure()".to_owned(),
            // a block with EXCEPTION is a subtransaction
            "DO $$ DECLARE id bigint; BEGIN CALL run_backfill('lesson_assets', 10, true, '{}', id);
             EXCEPTION WHEN division_by_zero THEN NULL; END $$"
                .to_owned(),
        ] {
            let error = session.fails_with_hint("25001", &refused);
            assert!(words(&error).contains("CALL"), "{}", words(&error));
            assert_eq!(session.number("SELECT count(*) FROM backfill_runs"), 0, "{refused}");
        }
        session.run(
            "DO $$ DECLARE id bigint; BEGIN
                 CALL run_backfill('lesson_assets', 10, true, '{}', id);
                 ASSERT id = (SELECT max(run_id) FROM backfill_runs);
             END $$",
        );
        let first = last_run(&mut session).expect("a run");
        assert_eq!(state(&mut session, first), "finished");
        let second: i64 = session.text("CALL plain_procedure(NULL)").parse().expect("an id");
        assert_eq!(state(&mut session, second), "finished");
        assert_eq!(counter(&mut session, second, "assets_created"), 0);
    });
}

#[test]
fn arguments_are_checked_before_anything_is_written() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        SCHOOL.create(&mut session);
        for arguments in [
            "NULL",
            "'no_such_job'",
            "'lesson_assets', batch => 0",
            "'lesson_assets', batch => 100001",
            "'lesson_assets', batch => NULL",
            "'lesson_assets', execute => NULL",
            "'lesson_assets', options => NULL",
            "'lesson_assets', options => '[]'",
            "'lesson_assets', options => '{\"nonsense\": 1}'",
            "'lesson_assets', options => '{\"max_lessons\": \"many\"}'",
            "'lesson_assets', options => '{\"max_lessons\": -1}'",
            "'lesson_assets', options => '{\"skip_settled\": \"perhaps\"}'",
            "'lesson_assets', options => '{\"organization_id\": {}}'",
            "'lesson_assets', options => '{\"organization_id\": \"no uuid\"}'",
            "'lesson_assets', options => '{\"after\": \"no uuid\"}'",
            "'lesson_assets', run_id => 5",
            "'asset_keys', options => '{\"refresh\": 3}'",
        ] {
            for execute in [false, true] {
                if execute && arguments.contains("execute") {
                    continue;
                }
                let more = if execute { ", execute => true" } else { "" };
                session.fails_with_hint("22023", &format!("CALL run_backfill({arguments}{more})"));
            }
        }
        assert_eq!(session.number("SELECT count(*) FROM backfill_runs"), 0);
        for call in ["resume_backfill", "join_backfill"] {
            session.fails("42704", &format!("CALL {call}(4711)"));
            session.fails("42704", &format!("CALL {call}(NULL)"));
        }
    });
}

#[test]
fn execute_wants_a_writable_read_committed_session() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        SCHOOL.create(&mut session);
        session.run("SET default_transaction_isolation = 'repeatable read'");
        session.fails_with_hint("0A000", EXECUTE);
        session.run("CALL run_backfill('lesson_assets'); RESET default_transaction_isolation");
        session.run("SET default_transaction_read_only = on");
        session.fails("25006", EXECUTE);
        session.run("CALL run_backfill('lesson_assets'); RESET default_transaction_read_only");
        assert_eq!(session.number("SELECT count(*) FROM backfill_runs"), 0);
    });
}

#[test]
fn options_narrow_a_run_as_they_do_the_function() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        SCHOOL.create(&mut session);
        let organization = session.text("SELECT organization_id FROM \"group\" WHERE id = 3");
        let after = session.text("SELECT id FROM lesson ORDER BY id OFFSET 100 LIMIT 1");
        for (options, arguments) in [
            (r#"{"max_lessons": 25}"#.to_owned(), "max_lessons => 25".to_owned()),
            (r#"{"max_lessons": 0}"#.to_owned(), "max_lessons => 0".to_owned()),
            (
                format!(r#"{{"organization_id": "{organization}"}}"#),
                format!("organization_id => '{organization}'"),
            ),
            (format!(r#"{{"after": "{after}"}}"#), format!("after => '{after}'")),
        ] {
            SCHOOL.fill(&mut session);
            let row = session.counters(&format!(
                "SELECT * FROM backfill_lesson_assets(execute => true, {arguments})"
            ));
            let expected = outcome(&mut session);
            SCHOOL.fill(&mut session);
            let run_id: i64 = session.text(&run_lessons(10, &options)).parse().expect("an id");
            assert_eq!(counters(&mut session, run_id), function_counters(&row), "{options}");
            assert_eq!(outcome(&mut session), expected, "{options}");
        }
    });
}

#[test]
fn a_batch_of_one_is_a_transaction_for_each_lesson() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 20);
        let run_id: i64 = session.text(&run_lessons(1, "{}")).parse().expect("an id");
        assert_eq!(session.number("SELECT count(DISTINCT xmin::text) FROM lesson"), 20);
        assert_eq!(
            session.number(&format!(
                "SELECT sum(batches) FROM backfill_ranges WHERE run_id = {run_id}"
            )),
            20
        );
    });
}

#[test]
fn an_empty_scope_finishes_and_takes_in_nothing_that_comes_later() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        let run_id: i64 = session.text(EXECUTE).parse().expect("an id");
        assert_eq!(state(&mut session, run_id), "finished");
        assert_eq!(counter(&mut session, run_id, "lessons_scanned"), 0);

        // a run that began before there was a lesson, and goes on after
        session.run(&format!(
            "UPDATE backfill_runs SET state = 'running', finished_at = NULL WHERE run_id = {run_id};
             UPDATE backfill_ranges SET done = false, phase = 0 WHERE run_id = {run_id}"
        ));
        application.add_uploads(&mut session, 1, 5);
        session.run(&resume(run_id));
        assert_eq!(counter(&mut session, run_id, "lessons_scanned"), 0);
        assert_eq!(session.number("SELECT count(*) FROM assets"), 0);
    });
}

#[test]
fn others_see_each_batch_at_once_and_the_end_is_fixed_at_the_start() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 60);
        session.run("ANALYZE lesson");
        let run = Background::start(
            &database,
            "SET media_assets.batch_pause = '20ms'",
            &run_lessons(1, "{}"),
        );
        let run_id = await_run(&mut session);
        await_rows(&mut session, run_id, 5);
        let row = session.rows(&format!(
            "SELECT pid, job, state, phase, rows_total, batch_size, workers FROM backfill_progress WHERE run_id = {run_id}"
        ));
        let pid = run.pid.to_string();
        let expected = [
            pid.as_str(),
            "lesson_assets",
            "running",
            "lesson_assets",
            "60",
            "1",
            "1",
        ];
        assert_eq!(row[0], expected.map(|value| Some(value.to_owned())));
        let seen = session.number("SELECT count(*) FROM assets");
        assert!((5..60).contains(&seen), "{seen} assets are there during the run");
        // live inserts before and behind the cursor; only those before the fixed end are taken in
        let number_of_last = 60;
        for number in 100..130 {
            application.add_uploads(&mut session, number, number);
        }
        run.finish();
        assert_eq!(counter(&mut session, run_id, "lessons_scanned"), number_of_last);
        assert_eq!(session.number("SELECT count(*) FROM assets"), number_of_last);
    });
}

#[test]
fn keyless_rows_come_first_as_a_phase_of_their_own() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        SCHOOL.create(&mut session);
        // the first phase waits at a row that another session holds
        let mut other = database.session();
        other.run("BEGIN; SELECT FROM assets ORDER BY created_at LIMIT 1 FOR UPDATE");
        let run = Background::start(
            &database,
            "SET media_assets.lock_timeout = '60s'",
            &run_lessons(50, "{}"),
        );
        let run_id = await_run(&mut session);
        session.wait_until(&format!(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = {} AND wait_event_type = 'Lock'",
            run.pid
        ));
        assert_eq!(progress(&mut session, run_id, "phase").as_deref(), Some("asset_keys"));
        assert_eq!(progress(&mut session, run_id, "rows_done").as_deref(), Some("0"));
        other.run("COMMIT");
        run.finish();
        assert_eq!(
            session.rows(&format!(
                "SELECT phases[1], phases[2] FROM backfill_runs WHERE run_id = {run_id}"
            )),
            [vec![Some("asset_keys".to_owned()), Some("lesson_assets".to_owned())]]
        );
        assert!(
            session.number("SELECT count(*) FROM assets WHERE canonical_key IS NULL") > 0,
            "twins stay"
        );
    });
}

#[test]
fn progress_lines_are_few_and_can_be_silenced() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        SCHOOL.create(&mut session);
        session.take_notices();
        session.run(&run_lessons(1, "{}"));
        let said = infos(&mut session);
        // first, last, the end, and one a second
        assert!((2..=15).contains(&said.len()), "{said:?}");
        session.run("SET media_assets.progress = off");
        session.run(&run_lessons(1, "{}"));
        let said = infos(&mut session);
        assert!(said.iter().all(|line| !line.contains(" done")), "{said:?}");
    });
}

#[test]
fn a_cancel_or_timeout_leaves_the_run_to_whoever_resumes_it() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        for (cancelled, same_session) in [(true, true), (true, false), (false, true), (false, false)] {
            session.run("DROP TABLE IF EXISTS lesson, course, \"group\", asset_usages, assets CASCADE");
            let application = Application::create(&mut session);
            application.add_uploads(&mut session, 1, 40);
            session.run("TRUNCATE backfill_runs, backfill_ranges, backfill_requests, backfill_decisions, backfill_changes, backfill_quarantine, backfill_waits");
            let settings = if cancelled {
                "SET media_assets.batch_pause = '10ms'"
            } else {
                "SET media_assets.batch_pause = '10ms'; SET statement_timeout = '250ms'"
            };
            let run = Background::start(&database, settings, &run_lessons(1, "{}"));
            let run_id = await_run(&mut session);
            if cancelled {
                await_rows(&mut session, run_id, 3);
                session.run(&format!("SELECT pg_cancel_backend({})", run.pid));
            }
            let (mut worker, _) = run.fails("57014");
            let done = progress(&mut session, run_id, "rows_done").expect("a number");
            assert_eq!(state(&mut session, run_id), "interrupted");
            assert_eq!(progress(&mut session, run_id, "workers").as_deref(), Some("0"));
            assert_eq!(
                session.number(&format!(
                    "SELECT count(*) FROM backfill_ranges WHERE run_id = {run_id} AND pid IS NOT NULL"
                )),
                0,
                "the claim is given up"
            );
            assert_eq!(
                session.text("SELECT count(*) FROM asset_usages"),
                done,
                "what was committed is what was counted"
            );
            let resumer = if same_session { &mut worker } else { &mut session };
            resumer.run("RESET ALL");
            resumer.run(&resume(run_id));
            assert_eq!(state(&mut session, run_id), "finished");
            for name in ["lessons_scanned", "assets_created", "usages_created"] {
                assert_eq!(counter(&mut session, run_id, name), 40, "{name}");
            }
            assert_eq!(session.number("SELECT count(*) FROM asset_usages"), 40);
        }
    });
}

#[test]
fn a_constraint_that_is_checked_at_commit_costs_its_row_only() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 250);
        session.run(
            "CREATE FUNCTION refuse_late() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF NEW.storage_key IN ('k17', 'k180') THEN RAISE EXCEPTION 'too late for %', NEW.storage_key USING ERRCODE = '23514'; END IF;
                 RETURN NULL;
             END $$;
             CREATE CONSTRAINT TRIGGER refuse_late AFTER INSERT ON assets DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION refuse_late()",
        );
        let run_id: i64 = session.text(EXECUTE).parse().expect("an id");
        let quarantined = quarantine(&mut session, run_id);
        let ids: Vec<_> = quarantined.iter().filter_map(|row| row[1].clone()).collect();
        assert_eq!(ids, [application.lesson(17), application.lesson(180)]);
        assert!(quarantined.iter().all(|row| row[2].as_deref() == Some("23514")));
        assert_eq!(quarantined[0][3].as_deref(), Some("too late for k17"));
        assert_eq!(session.number("SELECT count(*) FROM asset_usages"), 248);
        assert_eq!(counter(&mut session, run_id, "errors"), 2);
        assert_eq!(counter(&mut session, run_id, "assets_created"), 248);
    });
}

#[test]
fn a_constraint_that_waits_for_the_end_may_rely_on_it_in_every_slice() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 350);
        // an asset is inserted before its usage: only the end can tell that it has one
        session.run(
            "CREATE FUNCTION want_usage() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF NOT EXISTS (SELECT FROM asset_usages u WHERE u.asset_id = NEW.id) THEN RAISE EXCEPTION 'no usage' USING ERRCODE = '23514'; END IF;
                 RETURN NULL;
             END $$;
             CREATE CONSTRAINT TRIGGER want_usage AFTER INSERT ON assets DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION want_usage()",
        );
        let run_id: i64 = session.text(EXECUTE).parse().expect("an id");
        assert_eq!(counter(&mut session, run_id, "errors"), 0);
        assert_eq!(counter(&mut session, run_id, "assets_created"), 350);
    });
}

#[test]
fn a_second_run_writes_next_to_nothing() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 1000);
        session.run(&run_lessons(10, "{}"));
        let mut written = || {
            session.run("SELECT pg_stat_force_next_flush()");
            session.run("SELECT pg_stat_clear_snapshot()");
            session.number(
                "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_all_tables WHERE schemaname = 'public'",
            )
        };
        let before = written();
        database.session().run(&run_lessons(10, "{}"));
        // the session that ran it tells its figures when it ends
        std::thread::sleep(Duration::from_millis(300));
        let rows = written() - before;
        // the run and its range, their ends, and the cursor once a second: not one of a hundred batches
        assert!((2..=12).contains(&rows), "{rows} rows were written");
        let run_id = last_run(&mut session).expect("a run");
        assert_eq!(counter(&mut session, run_id, "usages_reused"), 1000);
        assert_eq!(counter(&mut session, run_id, "assets_created"), 0);
    });
}

#[test]
fn pause_and_cancel_are_obeyed_at_the_next_batch_and_without_a_worker_at_once() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 60);
        let slow = "SET media_assets.batch_pause = '20ms'";
        let run = Background::start(&database, slow, &run_lessons(1, "{}"));
        let run_id = await_run(&mut session);
        await_rows(&mut session, run_id, 2);
        assert_eq!(session.text(&format!("SELECT pause_backfill({run_id})")), "requested");
        let mut worker = run.finish();
        let said: String = worker.take_notices().iter().map(words).collect();
        assert!(said.contains(&resume(run_id)), "{said}");
        assert_eq!(state(&mut session, run_id), "paused");
        session.fails_with_hint("55000", &format!("CALL join_backfill({run_id})"));

        let run = Background::start(&database, slow, &resume(run_id));
        await_state(&mut session, run_id, "running");
        let error = session.fails_with_hint("55000", &resume(run_id));
        assert!(words(&error).contains("join_backfill"), "{}", words(&error));
        assert_eq!(session.text(&format!("SELECT cancel_backfill({run_id})")), "requested");
        run.finish();
        assert_eq!(state(&mut session, run_id), "cancelled");
        session.fails_with_hint("55000", &resume(run_id));
        session.fails_with_hint("55000", &format!("SELECT pause_backfill({run_id})"));

        let finished: i64 = session.text(EXECUTE).parse().expect("an id");
        session.fails_with_hint("55000", &resume(finished));
        session.fails_with_hint("55000", &format!("SELECT cancel_backfill({finished})"));
        session.fails_with_hint("55000", &format!("CALL join_backfill({finished})"));
        assert_eq!(session.number("SELECT count(*) FROM asset_usages"), 60);

        // nobody works on it: the state changes at once
        session.run(&format!(
            "UPDATE backfill_runs SET state = 'running' WHERE run_id = {finished}"
        ));
        assert_eq!(session.text(&format!("SELECT pause_backfill({finished})")), "paused");
        assert_eq!(
            session.text(&format!("SELECT cancel_backfill({finished})")),
            "cancelled"
        );
    });
}

#[test]
fn a_cancel_at_any_moment_leaves_no_claim_behind() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 30);
        // cancels at every moment of a run's life, the messages it sends included
        for delay in 0..12 {
            let run = Background::start(
                &database,
                "SET media_assets.batch_pause = '1ms'; SET media_assets.log_decisions = 'all'",
                &run_lessons(1, "{}"),
            );
            std::thread::sleep(Duration::from_millis(delay * 3));
            session.run(&format!("SELECT pg_cancel_backend({})", run.pid));
            let (worker, _) = run.join();
            // its session lives on
            let claimed = session.number("SELECT count(*) FROM backfill_ranges WHERE pid IS NOT NULL");
            assert_eq!(claimed, 0, "after {delay}");
            drop(worker);
        }
    });
}
