//! One lesson is the unit of failure; a cancel leaves nothing.

use std::thread;
use std::time::Duration;

use media_assets_tests::application::{assert_items_are_settled, assert_verified, contents};
use media_assets_tests::{describe, each_server, words, Application, Session};
use postgres::NoTls;

const EXECUTE: &str = "SELECT * FROM backfill_lesson_assets(execute => true)";

/// Text that no compression makes small: an index row of it is too large.
const LARGE_TEXT: &str = "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 2000) n)";

/// Thirty lessons with two items each: a key of their own and one of five that they share.
fn thirty_lessons(session: &mut Session) -> Application {
    let application = Application::create(session);
    for number in 1..=30 {
        application.add_lesson_of(
            session,
            number,
            1,
            &format!(
                r#"[{{"type": "upload", "key": "own {number}"}}, {{"type": "upload", "key": "shared {}"}}]"#,
                number % 5
            ),
            "[]",
        );
    }
    application
}

/// Runs with these lessons failing; asserts that they lost only their own writes.
fn assert_single_lessons_fail(
    session: &mut Session,
    application: &Application,
    failing: &[u32],
    state: &str,
    batch: u32,
) {
    let ids: Vec<String> = failing
        .iter()
        .map(|number| format!("'{}'", application.lesson(*number)))
        .collect();
    let refused = ids.join(", ");
    let before = session.rows(&format!(
        "SELECT l::text FROM lesson l WHERE id IN ({refused}) ORDER BY id"
    ));
    session.take_notices();
    let counters = session.counters(&format!("SELECT * FROM backfill_lesson_assets({batch}, true)"));
    counters.expect_sums();
    let failed = failing.len() as i64;
    counters.expect(&[
        ("errors", failed),
        ("lessons_scanned", 30),
        ("media_items_scanned", 60),
        ("media_items_eligible", 60 - 2 * failed),
        ("usages_created", 60 - 2 * failed),
        ("lesson_items_patched_with_asset_id", 60 - 2 * failed),
        ("assets_created", session.number("SELECT count(*) FROM assets")),
    ]);
    assert_eq!(
        before,
        session.rows(&format!(
            "SELECT l::text FROM lesson l WHERE id IN ({refused}) ORDER BY id"
        ))
    );
    assert_eq!(
        session.number(&format!(
            "SELECT count(*) FROM asset_usages WHERE target_id IN ({refused})"
        )),
        0
    );
    let orphans = "SELECT count(*) FROM assets a WHERE NOT EXISTS (SELECT FROM asset_usages u WHERE u.asset_id = a.id)";
    assert_eq!(session.number(orphans), 0, "no asset of a lesson that was rolled back");
    let warnings = session.take_warnings();
    for number in failing.iter().take(20) {
        let id = application.lesson(*number);
        let warning = warnings
            .iter()
            .find(|w| words(w).contains(&id))
            .unwrap_or_else(|| panic!("no WARNING of {id}: {warnings:?}"));
        assert!(
            words(warning).contains(state),
            "the WARNING has the SQLSTATE: {}",
            describe(warning)
        );
    }
    // all others are as they should be
    session.run(&format!("CREATE TEMP TABLE refused AS SELECT * FROM lesson WHERE id IN ({refused}); DELETE FROM lesson WHERE id IN ({refused})"));
    assert_items_are_settled(session);
    assert_verified(session);
    session.run("INSERT INTO lesson SELECT * FROM refused; DROP TABLE refused");
    // what is refused is known and left: no error of verification
    let again = session.counters(EXECUTE);
    again.expect(&[
        ("errors", failed),
        ("assets_created", 0),
        ("usages_created", 0),
        ("lesson_items_patched_with_asset_id", 0),
    ]);
}

#[test]
fn a_check_constraint_of_the_user_costs_its_lessons_only() {
    each_server(|server| {
        for batch in [1, 4, 500] {
            let database = server.database();
            let mut session = database.session();
            let application = thirty_lessons(&mut session);
            session.run("ALTER TABLE assets ADD CHECK (storage_key NOT IN ('own 1', 'own 7', 'own 8', 'own 30'))");
            assert_single_lessons_fail(&mut session, &application, &[1, 7, 8, 30], "23514", batch);
        }
    });
}

#[test]
fn a_trigger_of_the_user_costs_its_lessons_only() {
    each_server(|server| {
        for (table, event, condition) in [
            ("lesson", "UPDATE", "NEW.id::text LIKE '%3'"),
            ("asset_usages", "INSERT", "NEW.target_id LIKE '%3'"),
            ("assets", "INSERT", "NEW.storage_key LIKE 'own %3'"),
        ] {
            for timing in ["BEFORE", "AFTER"] {
                let database = server.database();
                let mut session = database.session();
                let application = thirty_lessons(&mut session);
                session.run(&format!(
                    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                       $$BEGIN RAISE EXCEPTION 'no ''threes'' here' USING ERRCODE = 'P7777'; END$$;
                     CREATE TRIGGER refuse {timing} {event} ON {table} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse()"
                ));
                assert_single_lessons_fail(&mut session, &application, &[3, 13, 23], "P7777", 500);
            }
        }
    });
}

#[test]
fn an_index_row_too_large_costs_its_lesson_only() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = thirty_lessons(&mut session);
        session.run(&format!(
            "CREATE INDEX ON assets (title);
             UPDATE lesson SET videos = jsonb_set(videos, '{{0,fileName}}', to_jsonb({LARGE_TEXT})) WHERE id IN ('{}', '{}')",
            application.lesson(11),
            application.lesson(12)
        ));
        assert_single_lessons_fail(&mut session, &application, &[11, 12], "54000", 500);
    });
}

#[test]
fn a_column_too_narrow_costs_its_lesson_only() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = thirty_lessons(&mut session);
        session.run(&format!(
            "ALTER TABLE assets ALTER COLUMN title TYPE varchar(20);
             UPDATE lesson SET videos = jsonb_set(videos, '{{0,fileName}}', to_jsonb(repeat('x', 21))) WHERE id = '{}';
             UPDATE lesson SET videos = jsonb_set(videos, '{{0,fileName}}', to_jsonb(repeat('x', 20))) WHERE id = '{}'",
            application.lesson(11),
            application.lesson(12)
        ));
        assert_single_lessons_fail(&mut session, &application, &[11], "22001", 500);
    });
}

#[test]
fn a_deferred_constraint_fails_at_the_commit_and_takes_all_with_it() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        thirty_lessons(&mut session);
        let before = contents(&mut session);
        session.run(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'late' USING ERRCODE = 'P7777'; END$$;
             CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON assets DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW WHEN (NEW.storage_key = 'own 5') EXECUTE FUNCTION refuse()",
        );
        session.fails("P7777", EXECUTE);
        assert_eq!(before, contents(&mut session));
    });
}

#[test]
fn only_the_first_twenty_failures_are_warnings() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = thirty_lessons(&mut session);
        session.run(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'refused'; END$$;
             CREATE TRIGGER refuse BEFORE UPDATE ON lesson FOR EACH ROW WHEN (OLD.id::text < '10000000-0000-4000-8000-000000000026') EXECUTE FUNCTION refuse()",
        );
        session.take_notices();
        session
            .counters(EXECUTE)
            .expect(&[("errors", 25), ("usages_created", 10)]);
        let warnings = session.take_warnings();
        let of_lessons = (1..=30)
            .filter(|number| {
                warnings
                    .iter()
                    .any(|w| words(w).contains(&application.lesson(*number)) && words(w).contains("refused"))
            })
            .collect::<Vec<u32>>();
        assert_eq!(of_lessons, (1..=20).collect::<Vec<u32>>());
    });
}

#[test]
fn more_failures_than_allowed_stop_the_run_and_leave_nothing() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        thirty_lessons(&mut session);
        let before = contents(&mut session);
        session.run(
            "ALTER TABLE asset_usages ADD CHECK (position = 7);
             SET media_assets.max_failures = 30",
        );
        session
            .counters(EXECUTE)
            .expect(&[("errors", 30), ("media_items_eligible", 0), ("assets_created", 0)]);
        assert_eq!(before, contents(&mut session));
        session.run("SET media_assets.max_failures = 29");
        let error = session.try_rows(EXECUTE).expect_err("more than max_failures");
        assert_ne!(error.code().code(), "XX000", "{}", describe(&error));
        assert!(words(&error).contains("max_failures"), "{}", describe(&error));
        assert_eq!(before, contents(&mut session));
    });
}

#[test]
fn errors_that_are_nobodys_fault_stop_the_run() {
    each_server(|server| {
        // a deadlock, a serialization failure, a full disk, a cancel: the plain function raises them as they are
        for state in ["40001", "40P01", "55P03", "53100", "57014", "58030"] {
            let database = server.database();
            let mut session = database.session();
            thirty_lessons(&mut session);
            let before = contents(&mut session);
            session.run(&format!(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{state}'; END$$;
                 CREATE TRIGGER refuse BEFORE INSERT ON asset_usages FOR EACH ROW WHEN (NEW.target_id LIKE '%17') EXECUTE FUNCTION refuse()"
            ));
            session.fails(state, EXECUTE);
            assert_eq!(before, contents(&mut session));
        }
    });
}

/// A trigger that makes each update of a lesson slow.
fn slow_updates(session: &mut Session) {
    session.run(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END$$;
         CREATE TRIGGER slow BEFORE UPDATE ON lesson FOR EACH ROW EXECUTE FUNCTION slow()",
    );
}

#[test]
fn a_cancel_in_the_middle_leaves_nothing_and_the_session_usable() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        thirty_lessons(&mut session);
        slow_updates(&mut session);
        let before = contents(&mut session);
        for batch in [1, 500] {
            session.run("SET statement_timeout = '400ms'");
            session.fails("57014", &format!("SELECT * FROM backfill_lesson_assets({batch}, true)"));
            session.run("RESET statement_timeout");
            assert_eq!(before, contents(&mut session), "after statement_timeout");

            let mut runner = database.session();
            let pid = runner.process_id();
            let token = runner.client.cancel_token();
            let run = thread::spawn(move || {
                let outcome = runner.try_rows(&format!("SELECT * FROM backfill_lesson_assets({batch}, true)"));
                // the same session goes on as if nothing had been
                let settings = runner.rows("SELECT current_setting('lock_timeout'), current_user = session_user");
                (outcome, settings)
            });
            session.wait_until(&format!(
                "SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'"
            ));
            thread::sleep(Duration::from_millis(150));
            token.cancel_query(NoTls).expect("the cancel is sent");
            let (outcome, settings) = run.join().expect("no panic");
            assert_eq!(outcome.expect_err("cancelled").code().code(), "57014");
            assert_eq!(settings, [[Some("0".to_owned()), Some("t".to_owned())]]);
            assert_eq!(before, contents(&mut session), "after a cancel");
        }
        assert_eq!(session.number("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"), 0);
        session.run("DROP TRIGGER slow ON lesson");
        session
            .counters(EXECUTE)
            .expect(&[("errors", 0), ("usages_created", 60)]);
    });
}

#[test]
fn an_error_after_the_call_takes_all_of_it_back() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        thirty_lessons(&mut session);
        let before = contents(&mut session);
        session.run(&format!(
            "BEGIN; SAVEPOINT a; {EXECUTE}; ROLLBACK TO a; {EXECUTE}; ROLLBACK"
        ));
        assert_eq!(before, contents(&mut session));
        session.run(&format!("BEGIN; SAVEPOINT a; {EXECUTE}; ROLLBACK TO a"));
        session
            .counters("SELECT * FROM backfill_lesson_assets()")
            .expect(&[("assets_created", 35), ("usages_created", 60)]);
        session
            .counters(EXECUTE)
            .expect(&[("assets_created", 35), ("usages_created", 60)]);
        session.counters(EXECUTE).expect_no_work();
        session.run("COMMIT");
    });
}

#[test]
fn a_trigger_that_swallows_rows_never_leaves_a_dangling_asset_id() {
    each_server(|server| {
        for table in ["assets", "asset_usages", "lesson"] {
            let database = server.database();
            let mut session = database.session();
            thirty_lessons(&mut session);
            let (event, condition) = match table {
                "assets" => ("INSERT", "NEW.storage_key = 'own 9'"),
                "asset_usages" => ("INSERT", "NEW.target_id LIKE '%09'"),
                _ => ("UPDATE", "NEW.id::text LIKE '%09'"),
            };
            session.run(&format!(
                "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
                 CREATE TRIGGER swallow BEFORE {event} ON {table} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION swallow()"
            ));
            let counters = session.counters(EXECUTE);
            counters.expect_sums();
            let dangling = "SELECT count(*) FROM lesson, jsonb_array_elements(videos) e WHERE e ? 'assetId'
                            AND NOT EXISTS (SELECT FROM assets a WHERE a.id::text = e ->> 'assetId')";
            assert_eq!(session.number(dangling), 0, "{table}");
            // counters tell what is there, not what was tried
            let there = session.number("SELECT count(*) FROM assets");
            assert_eq!(counters.get("assets_created"), there, "{table}: {counters:?}");
            let there = session.number("SELECT count(*) FROM asset_usages");
            assert_eq!(counters.get("usages_created"), there, "{table}: {counters:?}");
            let there =
                session.number("SELECT count(*) FROM lesson, jsonb_array_elements(videos) e WHERE e ? 'assetId'");
            assert_eq!(
                counters.get("lesson_items_patched_with_asset_id"),
                there,
                "{table}: {counters:?}"
            );
        }
    });
}

#[test]
fn a_trigger_that_gives_assets_other_ids_is_followed_or_fails_its_lessons() {
    each_server(|server| {
        // with the foreign key the database itself would refuse a usage of nothing
        for foreign_key in [true, false] {
            let database = server.database();
            let mut session = database.session();
            thirty_lessons(&mut session);
            session.run(
                "CREATE FUNCTION other_id() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.id := gen_random_uuid(); RETURN NEW; END$$;
                 CREATE TRIGGER other_id BEFORE INSERT ON assets FOR EACH ROW EXECUTE FUNCTION other_id()",
            );
            if !foreign_key {
                session.run("ALTER TABLE asset_usages DROP CONSTRAINT asset_usages_asset_id_fkey");
            }
            let before = contents(&mut session);
            let counters = session.counters(EXECUTE);
            counters.expect_sums();
            if counters.get("errors") == 0 {
                assert_items_are_settled(&mut session);
                session.counters(EXECUTE).expect_no_work();
            } else {
                counters.expect(&[("errors", 30), ("assets_created", 0), ("usages_created", 0)]);
                assert_eq!(before, contents(&mut session), "nothing half written");
            }
        }
    });
}
