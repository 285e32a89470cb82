//! Runs that do not go straight on: requests that nobody lived to obey, retries that are watched, what is pruned, what a
//! cancel meets on its way.

use std::process::{Command, Stdio};

use media_assets_tests::long::{
    await_run, await_state, counter, join, last_run, progress, quarantine, resume, run_lessons, state, Background,
};
use media_assets_tests::runs::{close_gate, open_gate, remove_gate};
use media_assets_tests::{each_server, words, Application, Database, Server, Session};

/// A database with lessons of one upload each, all of the first organization.
fn uploads(server: &Server, lessons: u32) -> (Database, Session, Application) {
    let database = server.database();
    let mut session = database.session();
    let application = Application::create(&mut session);
    application.add_uploads(&mut session, 1, lessons);
    (database, session, application)
}

/// A run of one lesson a batch that stands at its tenth lesson.
fn at_gate(database: &Database, session: &mut Session, application: &Application) -> (i64, Background) {
    close_gate(session, &application.lesson(10));
    let run = Background::start(database, "", &run_lessons(1, "{}"));
    sleeps(session, run.pid);
    (last_run(session).expect("a run"), run)
}

fn sleeps(session: &mut Session, pid: i64) {
    session.wait_until(&format!(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'"
    ));
}

fn end(session: &mut Session, run: Background) {
    session.run(&format!("SELECT pg_terminate_backend({}, 10000)", run.pid));
    let _ = run.join();
}

fn refuse_all(session: &mut Session) {
    session.run(
        "CREATE TABLE refused (id uuid PRIMARY KEY);
         INSERT INTO refused SELECT id FROM lesson;
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF EXISTS (SELECT FROM refused r WHERE r.id = NEW.id) THEN
                 RAISE EXCEPTION 'lesson % is refused', NEW.id USING ERRCODE = '23514';
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON lesson FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
}

#[test]
fn a_cancel_that_nobody_lived_to_obey_is_obeyed_by_the_resume() {
    each_server(|server| {
        let (database, mut session, application) = uploads(server, 20);
        let (run_id, run) = at_gate(&database, &mut session, &application);
        assert_eq!(session.text(&format!("SELECT cancel_backfill({run_id})")), "requested");
        end(&mut session, run);
        remove_gate(&mut session);
        assert_eq!(state(&mut session, run_id), "interrupted");
        let error = session.fails_with_hint("55000", &resume(run_id));
        assert!(words(&error).contains("cancelled"), "{}", words(&error));
        assert_eq!(state(&mut session, run_id), "cancelled");
        assert_eq!(session.number("SELECT count(*) FROM asset_usages"), 9);
        session.fails_with_hint("55000", &resume(run_id));
        session
            .counters(&format!("SELECT * FROM undo_backfill({run_id}, true)"))
            .expect(&[("items_restored", 9), ("conflicts", 0)]);
    });
}

#[test]
fn a_pause_that_nobody_lived_to_obey_is_forgotten_by_the_resume() {
    each_server(|server| {
        let (database, mut session, application) = uploads(server, 20);
        let (run_id, run) = at_gate(&database, &mut session, &application);
        assert_eq!(session.text(&format!("SELECT pause_backfill({run_id})")), "requested");
        end(&mut session, run);
        remove_gate(&mut session);
        session.run(&resume(run_id));
        assert_eq!(state(&mut session, run_id), "finished");
        assert_eq!(counter(&mut session, run_id, "assets_created"), 20);
    });
}

#[test]
fn a_cancel_that_came_when_the_run_was_over_does_not_keep_its_rows_in_quarantine() {
    each_server(|server| {
        let (_database, mut session, _) = uploads(server, 5);
        refuse_all(&mut session);
        let run_id: i64 = session.text(&run_lessons(5, "{}")).parse().expect("an id");
        session.run(&format!(
            "INSERT INTO backfill_requests (run_id, request, requested_by) VALUES ({run_id}, 'cancel', current_user); TRUNCATE refused"
        ));
        assert_eq!(session.number(&format!("SELECT retry_quarantined({run_id})")), 5);
        session.run(&resume(run_id));
        assert_eq!(state(&mut session, run_id), "finished");
        assert_eq!(counter(&mut session, run_id, "assets_created"), 5);
    });
}

#[test]
fn a_retry_is_seen_to_run_keeps_others_out_and_obeys() {
    each_server(|server| {
        let (database, mut session, application) = uploads(server, 150);
        refuse_all(&mut session);
        let run_id: i64 = session.text(&run_lessons(50, "{}")).parse().expect("an id");
        assert_eq!(counter(&mut session, run_id, "errors"), 150);
        session.run("TRUNCATE refused");
        assert_eq!(session.number(&format!("SELECT retry_quarantined({run_id})")), 150);
        close_gate(&mut session, &application.lesson(10));
        let one = Background::start(&database, "", &resume(run_id));
        sleeps(&mut session, one.pid);
        assert_eq!(state(&mut session, run_id), "running");
        assert_eq!(progress(&mut session, run_id, "pid"), Some(one.pid.to_string()));
        let error = session.fails_with_hint("55000", &resume(run_id));
        assert!(words(&error).contains("join_backfill"), "{}", words(&error));
        session.fails_with_hint("55000", &format!("SELECT * FROM undo_backfill({run_id}, true)"));
        assert_eq!(session.number("SELECT prune_backfill_runs('-1 day')"), 0);
        // a plain function waits for its turn, as with every batch
        session.run("SET lock_timeout = '100ms'");
        session.fails("55P03", "SELECT * FROM backfill_lesson_assets(execute => true)");
        session.run("RESET lock_timeout");
        assert_eq!(session.text(&format!("SELECT pause_backfill({run_id})")), "requested");
        open_gate(&mut session);
        one.finish();
        assert_eq!(state(&mut session, run_id), "paused");
        assert_eq!(counter(&mut session, run_id, "errors"), 50);
        remove_gate(&mut session);

        // one that is killed leaves what it did, and another goes on
        close_gate(&mut session, &application.lesson(130));
        let two = Background::start(&database, "", &resume(run_id));
        sleeps(&mut session, two.pid);
        let helper = Background::start(&database, "", &join(run_id));
        end(&mut session, two);
        open_gate(&mut session);
        helper.finish();
        remove_gate(&mut session);
        assert_eq!(state(&mut session, run_id), "finished");
        assert_eq!(counter(&mut session, run_id, "errors"), 0);
        assert_eq!(counter(&mut session, run_id, "assets_created"), 150);
        assert_eq!(
            session.number("SELECT count(*) FROM backfill_ranges WHERE pid IS NOT NULL"),
            0,
            "nobody has a claim"
        );
    });
}

#[test]
fn a_retry_waits_for_a_locked_row_five_times_and_then_leaves_it() {
    each_server(|server| {
        let (database, mut session, application) = uploads(server, 60);
        refuse_all(&mut session);
        let run_id: i64 = session.text(&run_lessons(60, "{}")).parse().expect("an id");
        session.run("TRUNCATE refused");
        session.run(&format!("SELECT retry_quarantined({run_id})"));
        let mut holder = database.session();
        holder.run(&format!(
            "BEGIN; SELECT FROM lesson WHERE id = '{}' FOR UPDATE",
            application.lesson(33)
        ));
        session.run("SET media_assets.lock_timeout = '20ms'");
        session.run(&resume(run_id));
        assert_eq!(state(&mut session, run_id), "finished");
        let left = quarantine(&mut session, run_id);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0][1], Some(application.lesson(33)));
        assert_eq!(left[0][2].as_deref(), Some("55P03"));
        assert_eq!(
            session.number(&format!(
                "SELECT count(*) FROM backfill_waits WHERE run_id = {run_id} AND reason = 'lock'"
            )),
            5
        );
        assert_eq!(counter(&mut session, run_id, "assets_created"), 59);
    });
}

#[test]
fn what_nobody_works_on_is_pruned_by_its_last_sign_of_life() {
    each_server(|server| {
        let (database, mut session, application) = uploads(server, 20);
        let age = |session: &mut Session, started: i64, seen: i64| {
            session.run(&format!(
                "UPDATE backfill_runs SET started_at = now() - interval '{started} days';
                 UPDATE backfill_ranges SET updated_at = now() - interval '{seen} days'"
            ));
        };
        let (run_id, run) = at_gate(&database, &mut session, &application);
        age(&mut session, 100, 90);
        assert_eq!(
            session.number("SELECT prune_backfill_runs('30 days')"),
            0,
            "a session works on it"
        );
        end(&mut session, run);
        remove_gate(&mut session);
        assert_eq!(state(&mut session, run_id), "interrupted");
        age(&mut session, 100, 10);
        for state in ["running", "paused", "failed"] {
            session.run(&format!("UPDATE backfill_runs SET state = '{state}'"));
            assert_eq!(
                session.number("SELECT prune_backfill_runs('30 days')"),
                0,
                "{state}: its last batch was ten days ago"
            );
        }
        session.run("UPDATE backfill_runs SET state = 'running'");

        // one that is being resumed stays
        age(&mut session, 100, 90);
        close_gate(&mut session, &application.lesson(10));
        let again = Background::start(&database, "", &resume(run_id));
        sleeps(&mut session, again.pid);
        assert_eq!(session.number("SELECT prune_backfill_runs('30 days')"), 0);
        end(&mut session, again);
        remove_gate(&mut session);

        age(&mut session, 100, 90);
        assert_eq!(session.number("SELECT prune_backfill_runs('30 days')"), 1);
        for table in [
            "runs",
            "ranges",
            "requests",
            "decisions",
            "changes",
            "quarantine",
            "waits",
        ] {
            assert_eq!(
                session.number(&format!("SELECT count(*) FROM backfill_{table}")),
                0,
                "{table}"
            );
        }
        session.fails_with_hint("42704", &resume(run_id));
        // what it did is there, and a new run goes on from it
        let run_id: i64 = session.text(&run_lessons(7, "{}")).parse().expect("an id");
        assert_eq!(counter(&mut session, run_id, "assets_created"), 11);
    });
}

#[test]
fn what_a_batch_has_learned_is_forgotten_when_it_is_rolled_back() {
    each_server(|server| {
        let (database, mut session, application) = uploads(server, 0);
        // without a foreign key nothing but the run itself sees that an asset is not there
        let key = session.text(
            "SELECT quote_ident(conname) FROM pg_constraint WHERE conrelid = 'asset_usages'::regclass AND contype = 'f' AND confrelid = 'assets'::regclass",
        );
        session.run(&format!("ALTER TABLE asset_usages DROP CONSTRAINT {key}"));
        for number in 1..=250 {
            let videos = format!(r#"[{{"type": "upload", "key": "k{}"}}]"#, number % 100);
            application.add_lesson(&mut session, number, &videos);
        }
        // the first hundred make the assets, and are rolled back for the sake of a lesson of the second
        let mut holder = database.session();
        holder.run(&format!(
            "BEGIN; SELECT FROM lesson WHERE id = '{}' FOR UPDATE",
            application.lesson(150)
        ));
        let run = Background::start(
            &database,
            "SET media_assets.lock_timeout = '200ms'",
            &run_lessons(250, "{}"),
        );
        let run_id = await_run(&mut session);
        session.wait_until(&format!(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = {} AND wait_event_type = 'Lock'",
            run.pid
        ));
        session.wait_until(&format!(
            "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = {} AND wait_event_type = 'Lock'",
            run.pid
        ));
        holder.run("ROLLBACK");
        run.finish();
        let expected = [
            ("assets_created", 100),
            ("assets_reused", 150),
            ("usages_created", 250),
            ("errors", 0),
        ];
        for (name, value) in expected {
            assert_eq!(counter(&mut session, run_id, name), value, "{name}");
        }
        assert!(
            session.number(&format!(
                "SELECT count(*) FROM backfill_waits WHERE run_id = {run_id} AND reason = 'lock'"
            )) >= 1
        );
        assert_eq!(
            session.number(
                "SELECT count(*) FROM asset_usages u WHERE NOT EXISTS (SELECT FROM assets a WHERE a.id = u.asset_id)"
            ),
            0,
            "no usage of an asset that was rolled back"
        );
        let wrong = session.rows("SELECT v::text FROM verify_lesson_assets() v WHERE severity = 'error' LIMIT 3");
        assert!(wrong.is_empty(), "{wrong:?}");
    });
}

/// A client that has stopped reading while the run sends it a message too large for the buffers between them.
fn stopped_client(database: &Database, session: &mut Session) -> (std::process::Child, i64) {
    let mut command: Command = database.command("psql");
    let mut child = command
        .args(["-X", "-q", "-c", &run_lessons(1, "{}")])
        .env("PGAPPNAME", "stopped")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql starts");
    // Reading nothing, it stops when the pipe of its messages is full; the server stops behind it.
    session.wait_until(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = 'stopped' AND wait_event = 'ClientWrite'",
    );
    let pid = session.number("SELECT pid FROM pg_stat_activity WHERE application_name = 'stopped'");
    assert!(child.try_wait().expect("a child can be asked").is_none());
    (child, pid)
}

#[test]
fn a_cancel_that_comes_while_a_message_is_sent_unwinds_like_any_other() {
    each_server(|server| {
        let (database, mut session, _) = uploads(server, 8);
        session.run(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF EXISTS (SELECT FROM pg_stat_activity WHERE pid = pg_backend_pid() AND application_name = 'stopped') THEN
                     RAISE EXCEPTION '%', repeat('long ', 2000000) USING ERRCODE = '23514';
                 END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON lesson FOR EACH ROW EXECUTE FUNCTION refuse()",
        );
        for terminate in [false, true] {
            let (child, pid) = stopped_client(&database, &mut session);
            let run_id = last_run(&mut session).expect("a run");
            let ask = if terminate {
                "pg_terminate_backend"
            } else {
                "pg_cancel_backend"
            };
            session.run(&format!("SELECT {ask}({pid})"));
            // Now it reads all there is, and its session ends by the error, or without one.
            let ended = media_assets_tests::psql::wait(child);
            if !terminate {
                assert!(ended.said.contains("canceling statement"), "{}", &ended.said[..200]);
            }
            assert_ne!(ended.status, Some(0));
            await_state(&mut session, run_id, "interrupted");
            // The client may have taken in the first message; the batch whose message was being sent is rolled back.
            let kept = session.number(&format!(
                "SELECT count(*) FROM backfill_quarantine WHERE run_id = {run_id}"
            ));
            assert!(kept <= 1, "{kept} batches came to their end");
            assert_eq!(counter(&mut session, run_id, "lessons_scanned"), kept);
            if !terminate {
                assert_eq!(
                    session.number("SELECT count(*) FROM backfill_ranges WHERE pid IS NOT NULL"),
                    0,
                    "the claim is given up"
                );
            }
            session.run(&resume(run_id));
            assert_eq!(state(&mut session, run_id), "finished");
            assert_eq!(counter(&mut session, run_id, "lessons_scanned"), 8);
            assert_eq!(counter(&mut session, run_id, "errors"), kept);
            session.run(&format!("SELECT * FROM undo_backfill({run_id}, true)"));
        }
    });
}

#[test]
fn the_log_has_two_lines_for_a_session_however_long_it_goes_on() {
    each_server(|server| {
        let (_database, mut session, _) = uploads(server, 60);
        session.run("SET client_min_messages = log; SET media_assets.progress = off");
        let logged = |session: &mut Session| -> Vec<String> {
            let notices = session.take_notices();
            let ours = notices.iter().map(|notice| notice.message().to_owned());
            ours.filter(|message| message.starts_with("media_assets run="))
                .collect()
        };
        logged(&mut session);
        let run_id: i64 = session.text(&run_lessons(1, "{}")).parse().expect("an id");
        assert_eq!(
            logged(&mut session),
            [
                format!("media_assets run={run_id} job=lesson_assets event=started role=\"postgres\" batch=1"),
                format!("media_assets run={run_id} job=lesson_assets event=finished"),
            ]
        );
        session.run(&format!(
            "SELECT * FROM undo_backfill({run_id}, true);
             CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION E'out of space\\n%', repeat('x', 100000) USING ERRCODE = '53100'; END $$;
             CREATE TRIGGER broken BEFORE INSERT ON asset_usages FOR EACH ROW EXECUTE FUNCTION broken()"
        ));
        logged(&mut session);
        session.fails("53100", &run_lessons(1, "{}"));
        let run_id = last_run(&mut session).expect("a run");
        let lines = logged(&mut session);
        assert_eq!(lines.len(), 2, "{lines:?}");
        let stopped = format!(
            "media_assets run={run_id} job=lesson_assets event=stopped role=\"postgres\" sqlstate=53100 message=\"out of space\\nxxx"
        );
        assert!(lines[1].starts_with(&stopped), "{}", lines[1]);
        assert!(lines[1].len() < 700 && !lines[1].contains('\n'), "{}", lines[1]);
        let kept = progress(&mut session, run_id, "length(last_error)");
        assert_eq!(kept.as_deref(), Some("100013"), "the run's row has all of it");
    });
}
