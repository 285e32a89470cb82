//! Rows that cannot be written cost themselves only, are recorded, and can be tried again.

use std::time::Duration;

use media_assets_tests::long::{
    await_rows, await_run, counter, counters, join, last_run, progress, quarantine, resume, rounds, run_lessons, state,
    Background,
};
use media_assets_tests::school::School;
use media_assets_tests::{each_server, Application, Row, Session};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const SCHOOL: School = School {
    organizations: 5,
    lessons: 300,
};

/// Refuses each update of the lessons that stand in a table.
fn refuse(session: &mut Session, condition: &str) {
    session.run(&format!(
        "CREATE TABLE IF NOT EXISTS refused (id uuid PRIMARY KEY);
         INSERT INTO refused SELECT id FROM lesson WHERE {condition};
         CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF EXISTS (SELECT FROM refused r WHERE r.id = NEW.id) THEN
                 RAISE EXCEPTION 'lesson % is refused', NEW.id USING ERRCODE = '23514';
             END IF;
             RETURN NEW;
         END $$;
         CREATE OR REPLACE TRIGGER refuse BEFORE UPDATE ON lesson FOR EACH ROW EXECUTE FUNCTION refuse()"
    ));
}

/// The counters of a run that meets no failure; the tables are filled anew afterwards.
fn undisturbed(session: &mut Session) -> Vec<Row> {
    let run_id: i64 = session.text(&run_lessons(20, "{}")).parse().expect("an id");
    let expected = counters(session, run_id);
    SCHOOL.fill(session);
    session.run("TRUNCATE backfill_runs, backfill_ranges, backfill_requests, backfill_decisions, backfill_changes, backfill_quarantine, backfill_waits");
    expected
}

fn retry(session: &mut Session, run_id: i64) -> i64 {
    session.number(&format!("SELECT retry_quarantined({run_id})"))
}

fn lock_waits(session: &mut Session, run_id: i64, value: &str) -> i64 {
    session.number(&format!(
        "SELECT count(*) FROM backfill_waits WHERE run_id = {run_id} AND reason = 'lock' AND value LIKE '%{value}%'"
    ))
}

#[test]
fn failing_rows_are_recorded_and_after_mending_the_run_counts_as_if_none_had_failed() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        SCHOOL.create(&mut session);
        let expected = undisturbed(&mut session);
        // every 15th, and one key's first lesson in an organization among them
        refuse(
            &mut session,
            "id::text LIKE '%3' AND course_id > 0 AND jsonb_typeof(videos) = 'array'",
        );
        let refused = session.number("SELECT count(*) FROM refused");
        let run_id: i64 = session.text(&run_lessons(20, "{}")).parse().expect("an id");
        assert_eq!(state(&mut session, run_id), "finished");
        assert_eq!(counter(&mut session, run_id, "errors"), refused);
        assert_eq!(progress(&mut session, run_id, "quarantined"), Some(refused.to_string()));
        let wrong = session.rows(&format!(
            "SELECT item_key, sqlstate, message FROM backfill_quarantine q FULL JOIN refused r ON r.id::text = q.item_key
             WHERE run_id IS DISTINCT FROM {run_id} OR r.id IS NULL OR sqlstate <> '23514' OR attempts <> 1
                OR message <> 'lesson ' || r.id || ' is refused'"
        ));
        assert!(wrong.is_empty(), "{wrong:?}");
        let before = counters(&mut session, run_id);

        // nothing was mended
        assert_eq!(retry(&mut session, run_id), refused);
        session.run(&resume(run_id));
        assert_eq!(state(&mut session, run_id), "finished");
        assert_eq!(counters(&mut session, run_id), before);
        assert_eq!(
            session.number("SELECT count(*) FROM backfill_quarantine WHERE attempts = 2 AND NOT retry"),
            refused
        );

        // half of it is mended, one row is gone
        session.run("DELETE FROM refused WHERE ctid IN (SELECT ctid FROM refused ORDER BY id LIMIT 5)");
        let gone = session.text("DELETE FROM lesson WHERE id = (SELECT max(id::text)::uuid FROM refused) RETURNING id");
        assert_eq!(retry(&mut session, run_id), refused);
        session.run(&resume(run_id));
        assert_eq!(counter(&mut session, run_id, "errors"), refused - 5);
        let row = session.rows(&format!(
            "SELECT retry, message FROM backfill_quarantine WHERE item_key = '{gone}'"
        ));
        assert_eq!(row[0][0].as_deref(), Some("f"));
        assert!(
            row[0][1]
                .as_deref()
                .is_some_and(|message| message.starts_with("the row has gone")),
            "{row:?}"
        );

        // all of it is, in a run of its own
        SCHOOL.fill(&mut session);
        session.run("TRUNCATE backfill_runs, backfill_ranges, backfill_requests, backfill_decisions, backfill_changes, backfill_quarantine, backfill_waits; TRUNCATE refused");
        refuse(
            &mut session,
            "id::text LIKE '%3' AND course_id > 0 AND jsonb_typeof(videos) = 'array'",
        );
        let run_id: i64 = session.text(&run_lessons(20, "{}")).parse().expect("an id");
        session.run("TRUNCATE refused");
        assert_eq!(retry(&mut session, run_id), refused);
        session.run(&resume(run_id));
        assert_eq!(state(&mut session, run_id), "finished");
        assert_eq!(counters(&mut session, run_id), expected);
        assert_eq!(session.number("SELECT count(*) FROM backfill_quarantine"), 0);
        session.fails_with_hint("55000", &resume(run_id));
        let wrong = session.rows("SELECT v::text FROM verify_lesson_assets() v WHERE severity = 'error' LIMIT 3");
        assert!(wrong.is_empty(), "{wrong:?}");
    });
}

#[test]
fn too_many_failures_stop_the_run_and_it_can_be_resumed() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        SCHOOL.create(&mut session);
        refuse(
            &mut session,
            "id::text LIKE '%3' AND course_id > 0 AND jsonb_typeof(videos) = 'array'",
        );
        let refused = session.number("SELECT count(*) FROM refused");
        let run_id: i64 = session.text(&run_lessons(20, "{}")).parse().expect("an id");
        let expected = (counters(&mut session, run_id), quarantine(&mut session, run_id));

        SCHOOL.fill(&mut session);
        session.run("TRUNCATE backfill_runs, backfill_ranges, backfill_requests, backfill_decisions, backfill_changes, backfill_quarantine, backfill_waits; SET media_assets.max_failures = 4");
        session.fails_with_hint("53400", &run_lessons(20, "{}"));
        let run_id = last_run(&mut session).expect("a run");
        assert_eq!(state(&mut session, run_id), "failed");
        let error = progress(&mut session, run_id, "last_error").unwrap_or_default();
        assert!(error.contains("more than 4"), "{error}");
        let kept = session.number("SELECT count(*) FROM backfill_quarantine");
        assert!(kept <= 4 && kept == counter(&mut session, run_id, "errors"), "{kept}");
        // the same limit stops it again, at the same place
        session.fails_with_hint("53400", &resume(run_id));
        assert_eq!(session.number("SELECT count(*) FROM backfill_quarantine"), kept);
        session.run(&format!("SET media_assets.max_failures = {refused}"));
        session.run(&resume(run_id));
        assert_eq!(state(&mut session, run_id), "finished");
        assert_eq!(
            (counters(&mut session, run_id), quarantine(&mut session, run_id)),
            expected
        );
    });
}

#[test]
fn a_row_that_is_locked_for_long_is_tried_five_times_and_then_costs_itself() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 100);
        let mut holder = database.session();
        holder.run(&format!(
            "BEGIN; UPDATE lesson SET title = 'mine' WHERE id = '{}'",
            application.lesson(50)
        ));
        session.run("SET media_assets.lock_timeout = '20ms'");
        let run_id: i64 = session.text(&run_lessons(40, "{}")).parse().expect("an id");
        assert_eq!(state(&mut session, run_id), "finished");
        assert_eq!(counter(&mut session, run_id, "errors"), 1);
        assert_eq!(counter(&mut session, run_id, "assets_created"), 99);
        let row = quarantine(&mut session, run_id);
        assert_eq!(row[0][1], Some(application.lesson(50)));
        assert_eq!(row[0][2].as_deref(), Some("55P03"));
        // five times with the rows around it, in ever smaller batches, and never again
        assert_eq!(lock_waits(&mut session, run_id, "lock timeout"), 5);
        let size = session.number(&format!(
            "SELECT batch_size FROM backfill_ranges WHERE run_id = {run_id}"
        ));
        assert!((5..=40).contains(&size), "the batch has grown again: {size}");
        holder.run("COMMIT");
        assert_eq!(retry(&mut session, run_id), 1);
        session.run(&resume(run_id));
        assert_eq!(counter(&mut session, run_id, "errors"), 0);
        assert_eq!(counter(&mut session, run_id, "assets_created"), 100);
        assert_eq!(session.number("SELECT count(*) FROM lesson WHERE title = 'mine'"), 1);
    });
}

#[test]
fn a_row_that_is_locked_for_a_while_costs_nothing() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 100);
        let mut holder = database.session();
        holder.run(&format!(
            "BEGIN; SELECT FROM lesson WHERE id = '{}' FOR UPDATE",
            application.lesson(50)
        ));
        let run = Background::start(
            &database,
            "SET media_assets.lock_timeout = '150ms'",
            &run_lessons(500, "{}"),
        );
        let run_id = await_run(&mut session);
        // the half before the row is done by then
        await_rows(&mut session, run_id, 31);
        holder.run("COMMIT");
        run.finish();
        assert_eq!(counter(&mut session, run_id, "errors"), 0);
        assert_eq!(counter(&mut session, run_id, "assets_created"), 100);
        assert!(lock_waits(&mut session, run_id, "lock timeout") >= 1);
        assert!(quarantine(&mut session, run_id).is_empty());
    });
}

#[test]
fn in_a_deadlock_with_the_application_the_run_gives_way() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 40);
        let mut editor = database.session();
        editor.run(&format!(
            "SET deadlock_timeout = '60s'; BEGIN; UPDATE lesson SET title = 'edited' WHERE id = '{}'",
            application.lesson(20)
        ));
        let run = Background::start(
            &database,
            "SET media_assets.lock_timeout = '60s'; SET deadlock_timeout = '300ms'",
            &run_lessons(500, "{}"),
        );
        session.wait_until(&format!(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = {} AND wait_event_type = 'Lock'",
            run.pid
        ));
        // the run holds this one
        editor.run(&format!(
            "UPDATE lesson SET title = 'edited' WHERE id = '{}'",
            application.lesson(1)
        ));
        editor.run("COMMIT");
        run.finish();
        let run_id = last_run(&mut session).expect("a run");
        assert_eq!(lock_waits(&mut session, run_id, "deadlock"), 1);
        assert_eq!(counter(&mut session, run_id, "errors"), 0);
        assert_eq!(counter(&mut session, run_id, "lesson_items_patched_with_asset_id"), 40);
        assert_eq!(
            session.number("SELECT count(*) FROM lesson WHERE title = 'edited' AND videos->0 ? 'assetId'"),
            2
        );
    });
}

#[test]
fn a_retry_that_is_broken_off_is_taken_up_again() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 260);
        refuse(&mut session, "true");
        let seed = rand::random::<u64>();
        let mut random = StdRng::seed_from_u64(seed);
        let run_id: i64 = session.text(&run_lessons(100, "{}")).parse().expect("an id");
        assert_eq!(counter(&mut session, run_id, "errors"), 260);
        session.run(
            "TRUNCATE refused;
             CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.001); RETURN NEW; END $$;
             CREATE TRIGGER slow BEFORE UPDATE ON lesson FOR EACH ROW EXECUTE FUNCTION slow()",
        );
        assert_eq!(retry(&mut session, run_id), 260);
        let mut broken_off = 0;
        for _ in 0..rounds(6) {
            // one session tries, another helps
            let one = Background::start(&database, "", &resume(run_id));
            std::thread::sleep(Duration::from_millis(random.gen_range(0..250)));
            session.run(&format!("SELECT pg_terminate_backend({})", one.pid));
            broken_off += u32::from(one.join().1.is_err());
            session.wait_until(&format!(
                "SELECT count(*) = 0 FROM pg_stat_activity WHERE query = '{}' AND datname = current_database()",
                resume(run_id)
            ));
            let errors = counter(&mut session, run_id, "errors");
            assert_eq!(
                errors,
                session.number("SELECT count(*) FROM backfill_quarantine"),
                "seed {seed}"
            );
            assert_eq!(
                session.number("SELECT count(*) FROM asset_usages"),
                260 - errors,
                "seed {seed}"
            );
            if errors == 0 {
                break;
            }
        }
        if counter(&mut session, run_id, "errors") > 0 {
            session.run(&resume(run_id));
        }
        assert!(broken_off > 0, "seed {seed}");
        for name in [
            "lessons_scanned",
            "media_items_scanned",
            "assets_created",
            "usages_created",
        ] {
            assert_eq!(counter(&mut session, run_id, name), 260, "{name}, seed {seed}");
        }
        assert_eq!(session.number("SELECT count(*) FROM backfill_quarantine"), 0);
    });
}

#[test]
fn two_sessions_may_try_again_what_is_in_quarantine() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 350);
        refuse(&mut session, "true");
        let run_id: i64 = session.text(&run_lessons(100, "{}")).parse().expect("an id");
        session.run(
            "TRUNCATE refused;
             CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.002); RETURN NEW; END $$;
             CREATE TRIGGER slow BEFORE UPDATE ON lesson FOR EACH ROW EXECUTE FUNCTION slow()",
        );
        assert_eq!(retry(&mut session, run_id), 350);
        let one = Background::start(&database, "", &resume(run_id));
        session.wait_until(&format!(
            "SELECT workers = 1 FROM backfill_progress WHERE run_id = {run_id}"
        ));
        let other = Background::start(&database, "", &join(run_id));
        one.finish();
        other.finish();
        assert_eq!(state(&mut session, run_id), "finished");
        assert_eq!(counter(&mut session, run_id, "errors"), 0);
        assert_eq!(counter(&mut session, run_id, "assets_created"), 350);
        assert_eq!(session.number("SELECT count(*) FROM backfill_quarantine"), 0);
    });
}
