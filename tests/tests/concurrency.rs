//! Other sessions at work: edits during a run are kept, two runs follow one another, the application never fails.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use media_assets_tests::application::{assert_items_are_settled, assert_verified, contents, insert_asset};
use media_assets_tests::{describe, each_server, Application, Counters, Database, Session};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const EXECUTE: &str = "SELECT * FROM backfill_lesson_assets(execute => true)";

/// Makes an update of this lesson wait until a row stands in the table `gate`.
fn close_gate(session: &mut Session, lesson: &str) {
    session.run(&format!(
        "CREATE TABLE gate (opened boolean);
         CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             WHILE NOT EXISTS (SELECT FROM gate) LOOP PERFORM pg_sleep(0.01); END LOOP;
             RETURN NEW;
         END $$;
         CREATE TRIGGER wait_at_gate BEFORE UPDATE ON lesson FOR EACH ROW WHEN (OLD.id::text = '{lesson}')
         EXECUTE FUNCTION wait_at_gate()"
    ));
}

fn open_gate(session: &mut Session) {
    session.run("INSERT INTO gate VALUES (true)");
}

fn wait_for_event(session: &mut Session, pid: i64, event: &str) {
    session.wait_until(&format!(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = {pid} AND wait_event = '{event}'"
    ));
}

fn wait_for_lock(session: &mut Session, pid: i64) {
    session.wait_until(&format!(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'Lock'"
    ));
}

/// Runs a call in a thread of its own; gives its process id and the thread.
fn in_background(
    database: &Database,
    settings: &str,
    call: &str,
) -> (i64, thread::JoinHandle<Result<Counters, Box<postgres::error::DbError>>>) {
    let mut session = database.session();
    session.run(settings);
    let pid = session.process_id();
    let call = call.to_owned();
    (pid, thread::spawn(move || session.try_counters(&call)))
}

fn finish(run: thread::JoinHandle<Result<Counters, Box<postgres::error::DbError>>>) -> Counters {
    run.join()
        .expect("no panic")
        .unwrap_or_else(|error| panic!("{}", describe(&error)))
}

#[test]
fn edits_between_read_and_lock_are_seen_not_undone() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 250);
        let id = |number| application.lesson(number);

        // the run has read its batch and now waits for lesson 1
        let mut editor = database.session();
        editor.run(&format!(
            "BEGIN; UPDATE lesson SET videos = '[{{\"type\": \"upload\", \"key\": \"edited 1\"}}, {{\"type\": \"upload\", \"key\": \"k2\"}}]', title = 'edited'
             WHERE id = '{}'",
            id(1)
        ));
        let (pid, run) = in_background(&database, "SET media_assets.lock_timeout = '60s'", EXECUTE);
        wait_for_lock(&mut session, pid);
        let mut other = database.session();
        for statement in [
            format!(
                "UPDATE lesson SET videos = '[{{\"type\": \"upload\", \"key\": \"edited 2\"}}]' WHERE id = '{}'",
                id(2)
            ),
            format!("DELETE FROM lesson WHERE id = '{}'", id(3)),
            format!("UPDATE lesson SET course_id = 2 WHERE id = '{}'", id(4)),
            format!("UPDATE lesson SET course_id = NULL WHERE id = '{}'", id(5)),
            format!("UPDATE lesson SET videos = NULL WHERE id = '{}'", id(6)),
            format!(
                "UPDATE lesson SET videos = '[]', documents = videos WHERE id = '{}'",
                id(7)
            ),
            format!("UPDATE lesson SET title = 'edited' WHERE id = '{}'", id(8)),
            format!("UPDATE lesson SET videos = '[null, 5]' WHERE id = '{}'", id(249)),
        ] {
            // whatever the run has locked already waits for it; here it has locked nothing behind lesson 1
            other.run(&format!("SET lock_timeout = '5s'; {statement}"));
        }
        editor.run("COMMIT");
        let counters = finish(run);
        counters.expect_sums();
        counters.expect(&[("errors", 0)]);

        let keys = |session: &mut Session, number: u32, column: &str| {
            session.value(&format!(
                "SELECT string_agg(e ->> 'key', ',' ORDER BY n) FROM lesson, jsonb_array_elements({column}) WITH ORDINALITY x (e, n) WHERE id = '{}'",
                id(number)
            ))
        };
        assert_eq!(keys(&mut session, 1, "videos").as_deref(), Some("edited 1,k2"));
        assert_eq!(keys(&mut session, 2, "videos").as_deref(), Some("edited 2"));
        assert_eq!(keys(&mut session, 7, "documents").as_deref(), Some("k7"));
        assert_eq!(
            session.number(&format!("SELECT count(*) FROM lesson WHERE id = '{}'", id(3))),
            0
        );
        assert_eq!(
            session.number(&format!(
                "SELECT count(*) FROM asset_usages WHERE target_id IN ('{}', '{}', '{}')",
                id(3),
                id(5),
                id(6)
            )),
            0,
            "no usages of what is gone"
        );
        assert_eq!(
            session.text(&format!(
                "SELECT (videos IS NULL)::text FROM lesson WHERE id = '{}'",
                id(6)
            )),
            "true"
        );
        assert_eq!(
            session.text(&format!("SELECT videos::text FROM lesson WHERE id = '{}'", id(249))),
            "[null, 5]"
        );
        for number in [1, 8] {
            assert_eq!(
                session.text(&format!("SELECT title FROM lesson WHERE id = '{}'", id(number))),
                "edited"
            );
        }
        let organization = session.text(&format!(
            "SELECT a.organization_id FROM lesson l JOIN assets a ON a.id::text = l.videos #>> '{{0,assetId}}' WHERE l.id = '{}'",
            id(4)
        ));
        assert_eq!(
            organization,
            application.organization(2),
            "decided again with the lesson's new course"
        );
        assert_items_are_settled(&mut session);
        assert_verified(&mut session);
        session.counters(EXECUTE).expect_no_work();
    });
}

#[test]
fn an_edit_in_the_middle_of_a_run_is_kept() {
    each_server(|server| {
        for batch in [1, 500] {
            let database = server.database();
            let mut session = database.session();
            let application = Application::create(&mut session);
            application.add_uploads(&mut session, 1, 150);
            close_gate(&mut session, &application.lesson(2));
            let call = format!("SELECT * FROM backfill_lesson_assets({batch}, true)");
            let (pid, run) = in_background(&database, "SELECT 1", &call);
            wait_for_event(&mut session, pid, "PgSleep");
            let edits: Vec<_> = [1, 2, 3, 120]
                .map(|number| {
                    let mut editor = database.session();
                    let id = application.lesson(number);
                    thread::spawn(move || {
                        editor.run(&format!(
                            "UPDATE lesson SET videos = '[{{\"type\": \"upload\", \"key\": \"edited {number}\"}}]', title = 'edited' WHERE id = '{id}'"
                        ));
                    })
                })
                .into();
            // each edit has come through or waits for the run by now
            thread::sleep(Duration::from_millis(200));
            session.wait_until(
                "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'
                 AND query LIKE 'UPDATE lesson%' AND wait_event_type IS DISTINCT FROM 'Lock'",
            );
            open_gate(&mut session);
            finish(run).expect_sums();
            for edit in edits {
                edit.join().expect("the edit succeeds");
            }
            for number in [1, 2, 3, 120] {
                let row = session.rows(&format!(
                    "SELECT videos #>> '{{0,key}}', title FROM lesson WHERE id = '{}'",
                    application.lesson(number)
                ));
                assert_eq!(
                    row,
                    [[Some(format!("edited {number}")), Some("edited".into())]],
                    "batch {batch}"
                );
            }
            session.counters(EXECUTE).expect(&[("errors", 0)]);
            assert_items_are_settled(&mut session);
            assert_verified(&mut session);
        }
    });
}

#[test]
fn a_lesson_that_somebody_holds_makes_the_run_yield() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 20);
        let before = contents(&mut session);
        let mut editor = database.session();
        editor.run(&format!(
            "BEGIN; UPDATE lesson SET title = 'held' WHERE id = '{}'",
            application.lesson(9)
        ));
        let start = Instant::now();
        session.fails("55P03", EXECUTE);
        let waited = start.elapsed();
        assert!(
            waited >= Duration::from_millis(400) && waited < Duration::from_secs(20),
            "{waited:?}"
        );
        assert_eq!(before, contents(&mut session), "nothing half written");
        // a lesson that somebody only holds without need of a write stops nobody
        editor.run("ROLLBACK");
        session.run(EXECUTE);
        editor.run(&format!(
            "BEGIN; SELECT FROM lesson WHERE id = '{}' FOR UPDATE",
            application.lesson(9)
        ));
        session.counters(EXECUTE).expect_no_work();
        // and a dry run is never stopped
        editor.run("ROLLBACK; BEGIN; UPDATE lesson SET videos = '[]'; UPDATE assets SET title = 'x'");
        session.run("SELECT * FROM backfill_lesson_assets()");
        // nor does the setting outlive the call
        assert_eq!(session.text("SHOW lock_timeout"), "0");
    });
}

#[test]
fn two_sessions_running_the_same_backfill_follow_one_another() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 60);
        close_gate(&mut session, &application.lesson(30));
        let (first_pid, first) = in_background(&database, "SELECT 1", "SELECT * FROM backfill_lesson_assets(7, true)");
        wait_for_event(&mut session, first_pid, "PgSleep");
        let (second_pid, second) =
            in_background(&database, "SELECT 1", "SELECT * FROM backfill_lesson_assets(11, true)");
        session.wait_until(&format!(
            "SELECT count(*) > 0 FROM pg_locks WHERE pid = {second_pid} AND locktype = 'advisory' AND NOT granted"
        ));
        // longer than any lock_timeout of ours: the second waits for its turn, it does not give up
        thread::sleep(Duration::from_millis(1500));
        open_gate(&mut session);
        let first = finish(first);
        first.expect(&[
            ("assets_created", 60),
            ("usages_created", 60),
            ("lesson_items_patched_with_asset_id", 60),
            ("errors", 0),
        ]);
        let second = finish(second);
        second.expect_no_work();
        second.expect(&[
            ("media_items_eligible", 60),
            ("assets_reused", 60),
            ("usages_reused", 60),
        ]);
        assert_items_are_settled(&mut session);
        assert_verified(&mut session);
    });
}

#[test]
fn many_sessions_at_once_make_no_duplicates_and_no_deadlock() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        for number in 1..=200 {
            let videos = format!(
                r#"[{{"type": "upload", "key": "k{}"}}, {{"type": "upload", "key": "k{}"}}]"#,
                number % 17,
                (number * 7) % 23
            );
            application.add_lesson(&mut session, number, &videos);
        }
        let runs: Vec<_> = [1, 13, 50, 500]
            .map(|batch| {
                in_background(
                    &database,
                    "SELECT 1",
                    &format!("SELECT * FROM backfill_lesson_assets({batch}, true)"),
                )
                .1
            })
            .into();
        let runs: Vec<Counters> = runs.into_iter().map(finish).collect();
        let total = |name: &str| runs.iter().map(|run| run.get(name)).sum::<i64>();
        assert_eq!(total("assets_created"), session.number("SELECT count(*) FROM assets"));
        assert_eq!(
            total("usages_created"),
            session.number("SELECT count(*) FROM asset_usages")
        );
        assert_eq!(total("usages_created"), 400);
        assert_eq!(total("errors"), 0);
        assert_items_are_settled(&mut session);
        assert_verified(&mut session);
    });
}

/// Runs an application's transaction; gives the error, if any.
fn transaction(session: &mut Session, statements: &[String]) -> Result<(), String> {
    for statement in std::iter::once(&"BEGIN".to_owned())
        .chain(statements)
        .chain([&"COMMIT".to_owned()])
    {
        if let Err(error) = session.try_rows(statement) {
            let _ = session.try_rows("ROLLBACK");
            return Err(format!("{}\n{statement}", describe(&error)));
        }
    }
    Ok(())
}

#[test]
fn live_writes_beside_runs_never_fail() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 40);
        let stop = AtomicBool::new(false);
        let written = AtomicU32::new(0);
        let next_lesson = AtomicU32::new(1000);
        let failures = thread::scope(|scope| {
            let writers: Vec<_> = (0..3u64)
                .map(|seed| {
                    let (stop, written, next_lesson, application, database) = (&stop, &written, &next_lesson, &application, &database);
                    scope.spawn(move || {
                        let mut random = StdRng::seed_from_u64(seed);
                        let mut session = database.session();
                        let mut failures = Vec::new();
                        while !stop.load(Ordering::Relaxed) {
                            let key = format!("k{}", random.gen_range(1..60));
                            let videos = format!(r#"[{{"type": "upload", "key": "{key}"}}]"#);
                            let lesson = application.lesson(random.gen_range(1..=40));
                            let insert_lesson = format!(
                                "INSERT INTO lesson (id, course_id, videos) VALUES ('{}', 1, '{videos}')",
                                application.lesson(next_lesson.fetch_add(1, Ordering::Relaxed))
                            );
                            let update_lesson = format!("UPDATE lesson SET videos = '{videos}', title = '{key}' WHERE id = '{lesson}'");
                            let append = format!("UPDATE lesson SET videos = videos || '{videos}' WHERE id = '{lesson}' AND jsonb_array_length(videos) < 5");
                            let asset = format!(
                                "INSERT INTO assets (organization_id, id, kind, provider, storage_provider, storage_key, is_external, status, metadata)
                                 VALUES ('{}', gen_random_uuid(), 'video', 'upload', 's3', '{key}', false, 'active', '{{}}')",
                                application.organization(1)
                            );
                            let statements = match random.gen_range(0..5) {
                                0 => vec![insert_lesson],
                                1 => vec![update_lesson],
                                2 => vec![append],
                                // an asset first, then a lesson: the other order than a run's
                                3 => vec![asset, update_lesson],
                                _ => vec![asset],
                            };
                            match transaction(&mut session, &statements) {
                                Ok(()) => drop(written.fetch_add(1, Ordering::Relaxed)),
                                Err(error) => failures.push(error),
                            }
                        }
                        failures
                    })
                })
                .collect();
            let end = Instant::now() + Duration::from_secs(4);
            let mut runner = database.session();
            let mut finished = 0;
            while Instant::now() < end || finished == 0 {
                assert!(
                    Instant::now() < end + Duration::from_secs(60),
                    "no run ever came through beside the writers"
                );
                match runner.try_counters(&format!(
                    "SELECT * FROM backfill_lesson_assets({}, true)",
                    1 + finished * 7
                )) {
                    Ok(counters) => {
                        counters.expect_sums();
                        counters.expect(&[("errors", 0)]);
                        finished += 1;
                    }
                    // documented: the engine yields to the application
                    Err(error) if error.code().code() == "55P03" => {}
                    Err(error) => {
                        stop.store(true, Ordering::Relaxed);
                        panic!("a run beside live writes: {}", describe(&error));
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
            writers
                .into_iter()
                .flat_map(|writer| writer.join().expect("no panic"))
                .collect::<Vec<_>>()
        });
        assert!(
            failures.is_empty(),
            "{} application failures, the first: {}",
            failures.len(),
            failures[0]
        );
        assert!(written.load(Ordering::Relaxed) > 20, "the application did something");
        session.counters(EXECUTE).expect(&[("errors", 0)]);
        session.counters(EXECUTE).expect_no_work();
        assert_items_are_settled(&mut session);
        assert_verified(&mut session);
    });
}

#[test]
fn equal_assets_of_two_sessions_never_fail_the_application() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        let keys = |session: &mut Session, key: &str| {
            session
                .rows(&format!(
                    "SELECT coalesce(canonical_key, 'NULL') FROM assets WHERE storage_key = '{key}' ORDER BY 1"
                ))
                .into_iter()
                .map(|row| row[0].clone().expect("not null"))
                .collect::<Vec<_>>()
        };
        for (key, end, left) in [
            ("both", "COMMIT", vec!["NULL", "upload:both"]),
            ("second only", "ROLLBACK", vec!["upload:second only"]),
        ] {
            let mut first = database.session();
            let organization = application.organization(1);
            first.run(&format!(
                "BEGIN; {}",
                insert_asset(&media_id(1, key), &organization, key)
            ));
            let mut second = database.session();
            let pid = second.process_id();
            let insert = insert_asset(&media_id(2, key), &organization, key);
            let waiter = thread::spawn(move || second.try_rows(&insert));
            // the second may wait for the first, or go on without a key
            session.holds_within(
                Duration::from_secs(1),
                &format!("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = {pid}"),
            );
            first.run(end);
            let outcome = waiter.join().expect("no panic");
            assert!(outcome.is_ok(), "{}", describe(&outcome.expect_err("an error")));
            assert_eq!(keys(&mut session, key), left, "after {end}");
        }
    });
}

/// An id that differs by number and key.
fn media_id(number: u32, key: &str) -> String {
    format!("a{number}000000-0000-4000-8000-{:012}", key.len())
}

#[test]
fn crossed_inserts_of_equal_assets_never_fail_the_application() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        let organization = application.organization(1);
        let insert = |id: u32, key: &str| insert_asset(&application.asset(id), &organization, key);
        let mut first = database.session();
        let mut second = database.session();
        first.run(&format!("BEGIN; {}", insert(1, "left")));
        second.run(&format!("BEGIN; {}", insert(2, "right")));
        let (crossed, back) = (insert(3, "right"), insert(4, "left"));
        let one = thread::spawn(move || first.try_rows(&crossed).and_then(|_| first.try_rows("COMMIT")));
        let two = thread::spawn(move || second.try_rows(&back).and_then(|_| second.try_rows("COMMIT")));
        for outcome in [one, two] {
            if let Err(error) = outcome.join().expect("no panic") {
                panic!("the application's statement failed: {}", describe(&error));
            }
        }
        assert_eq!(session.number("SELECT count(*) FROM assets"), 4);
        assert_eq!(session.number("SELECT count(DISTINCT canonical_key) FROM assets"), 2);
    });
}

#[test]
fn a_storm_of_equal_assets_keeps_one_key_of_each() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        let organization = application.organization(1);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut session = database.session();
                    for round in 0..25 {
                        // a set of rows in one statement, half of them of other sessions' keys too
                        session.run(&format!(
                            "INSERT INTO assets (id, organization_id, kind, provider, storage_provider, storage_key, is_external, status, metadata)
                             SELECT gen_random_uuid(), '{organization}', 'video', 'upload', 's3', 'k' || ((n * 3 + {round}) % 20), false, 'active', '{{}}'
                             FROM generate_series(1, 8) n"
                        ));
                    }
                });
            }
        });
        assert_eq!(session.number("SELECT count(*) FROM assets"), 800, "no row was lost");
        assert_eq!(session.number("SELECT count(DISTINCT canonical_key) FROM assets"), 20);
        assert_eq!(session.number("SELECT count(canonical_key) FROM assets"), 20);
        let wrong = session.number("SELECT count(*) FROM assets WHERE canonical_key <> 'upload:' || storage_key");
        assert_eq!(wrong, 0);
    });
}

#[test]
fn the_key_trigger_rethrows_the_applications_own_lock_timeout_and_cancel() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        let organization = application.organization(1);
        let mut holder = database.session();
        holder.run(&format!(
            "BEGIN; {}",
            insert_asset(&application.asset(1), &organization, "k")
        ));
        for (setting, state) in [("lock_timeout", "55P03"), ("statement_timeout", "57014")] {
            let mut waiter = database.session();
            waiter.run(&format!("SET {setting} = '300ms'"));
            let insert = insert_asset(&application.asset(2), &organization, "k");
            // either it does not wait at all, and stays without a key, or the application's own limit holds
            if let Err(error) = waiter.try_rows(&format!("BEGIN; {insert}")) {
                assert_eq!(error.code().code(), state, "{}", describe(&error));
            } else {
                assert_eq!(
                    waiter.value(&format!(
                        "SELECT canonical_key FROM assets WHERE id = '{}'",
                        application.asset(2)
                    )),
                    None
                );
            }
            let _ = waiter.try_rows("ROLLBACK");
        }
    });
}

#[test]
fn an_asset_that_vanishes_after_it_was_decided_on_is_decided_again() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        for number in 1..=5 {
            let videos =
                format!(r#"[{{"type": "upload", "key": "k{number}"}}, {{"type": "upload", "key": "shared"}}]"#);
            application.add_lesson(&mut session, number, &videos);
        }
        application.add_asset(&mut session, 1, 1, "shared");
        let mut editor = database.session();
        editor.run(&format!(
            "BEGIN; SELECT FROM lesson WHERE id = '{}' FOR UPDATE",
            application.lesson(1)
        ));
        let (pid, run) = in_background(&database, "SET media_assets.lock_timeout = '60s'", EXECUTE);
        wait_for_lock(&mut session, pid);
        session.run("DELETE FROM assets");
        editor.run("COMMIT");
        let counters = finish(run);
        counters.expect_sums();
        counters.expect(&[("errors", 0), ("usages_created", 10), ("assets_created", 6)]);
        assert_items_are_settled(&mut session);
        assert_verified(&mut session);
    });
}

#[test]
fn a_lesson_that_leaves_the_organization_meanwhile_is_out_of_scope() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 3);
        // the other organization has an asset without key: a run of its scope would give it the key first
        session.run("ALTER TABLE assets DISABLE TRIGGER USER");
        application.add_asset(&mut session, 1, 2, "k2");
        session.run("ALTER TABLE assets ENABLE TRIGGER USER");
        let mut editor = database.session();
        editor.run(&format!(
            "BEGIN; UPDATE lesson SET title = 'held' WHERE id = '{}'",
            application.lesson(1)
        ));
        let call = format!(
            "SELECT * FROM backfill_lesson_assets(execute => true, organization_id => '{}')",
            application.organization(1)
        );
        let (pid, run) = in_background(&database, "SET media_assets.lock_timeout = '60s'", &call);
        wait_for_lock(&mut session, pid);
        session.run(&format!(
            "UPDATE lesson SET course_id = 2 WHERE id = '{}'",
            application.lesson(2)
        ));
        editor.run("COMMIT");
        finish(run).expect_sums();
        let theirs = session.rows(&format!(
            "SELECT id::text, canonical_key FROM assets WHERE organization_id = '{}'",
            application.organization(2)
        ));
        assert_eq!(
            theirs,
            [[Some(application.asset(1)), None]],
            "nothing is written for another organization than the one asked for"
        );
        session.counters(EXECUTE).expect(&[("errors", 0), ("assets_reused", 3)]);
        assert_items_are_settled(&mut session);
    });
}

#[test]
fn keys_and_lessons_are_run_side_by_side() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        session.run(&format!(
            "ALTER TABLE assets DISABLE TRIGGER USER;
             INSERT INTO assets (id, organization_id, kind, provider, storage_provider, storage_key, is_external, status, metadata)
             SELECT gen_random_uuid(), '{}', 'video', 'upload', 's3', 'k' || n % 300, false, 'active', '{{}}' FROM generate_series(1, 1500) n;
             ALTER TABLE assets ENABLE TRIGGER USER",
            application.organization(1)
        ));
        application.add_uploads(&mut session, 1, 100);
        let calls = [
            "SELECT * FROM backfill_asset_keys(7, true)",
            "SELECT * FROM backfill_lesson_assets(7, true)",
            "SELECT * FROM backfill_asset_keys(500, true, true)",
            EXECUTE,
        ];
        let runs: Vec<_> = calls
            .map(|call| in_background(&database, "SET media_assets.lock_timeout = '20s'", call).1)
            .into();
        for run in runs {
            finish(run).expect(&[("errors", 0)]);
        }
        assert_eq!(session.number("SELECT count(canonical_key) FROM assets"), 300);
        assert_items_are_settled(&mut session);
        assert_verified(&mut session);
    });
}
