//! Runs that pass over settled lessons, and when a lesson is no longer one.

use media_assets_tests::{each_server, Application, Server, Session};

const DRY: &str = "SELECT * FROM backfill_lesson_assets(skip_settled => true)";
const EXECUTE: &str = "SELECT * FROM backfill_lesson_assets(execute => true, skip_settled => true)";

/// Ten lessons with an upload, a shared link and a document each, all settled.
fn settled(server: &Server, test: impl Fn(&Application, &mut Session)) {
    let database = server.database();
    let mut session = database.session();
    let application = Application::create(&mut session);
    for number in 1..=10 {
        add(&application, &mut session, number);
    }
    let dry = session.counters(DRY);
    let executed = session.counters(EXECUTE);
    assert_eq!(dry, executed, "predicted = executed");
    executed.expect(&[("lessons_scanned", 10), ("lessons_settled", 0), ("assets_created", 21)]);
    assert_eq!(session.number("SELECT count(*) FROM lesson_media_state"), 10);
    test(&application, &mut session);
}

fn add(application: &Application, session: &mut Session, number: u32) {
    session.run(&format!(
        r#"INSERT INTO lesson (id, course_id, videos, documents) VALUES ('{}', 1,
           '[{{"type": "upload", "key": "v/{number}.mp4"}}, {{"type": "generic", "link": "https://example.com/shared"}}, 5]',
           '[{{"key": "d/{number}.pdf"}}]')"#,
        application.lesson(number)
    ));
}

#[track_caller]
fn settled_now(session: &mut Session, expected: i64) {
    let dry = session.counters(DRY);
    dry.expect(&[("lessons_settled", expected), ("lessons_scanned", 10 - expected)]);
    assert_eq!(session.counters(EXECUTE), dry, "predicted = executed");
    let errors = session.rows("SELECT finding, detail FROM verify_lesson_assets() WHERE severity = 'error'");
    assert_eq!(errors, Vec::<Vec<Option<String>>>::new());
    session.counters(DRY).expect(&[("lessons_settled", 10)]);
}

#[test]
fn a_second_run_passes_over_all_and_writes_nothing_but_its_own_row() {
    each_server(|server| {
        settled(server, |_, session| {
            let before = session.rows("SELECT ctid::text, xmin::text, * FROM lesson_media_state ORDER BY 3");
            settled_now(session, 10);
            let after = session.rows("SELECT ctid::text, xmin::text, * FROM lesson_media_state ORDER BY 3");
            assert_eq!(before, after);
            let full = session.counters("SELECT * FROM backfill_lesson_assets(execute => true)");
            full.expect(&[
                ("lessons_settled", 0),
                ("lessons_scanned", 10),
                ("media_items_scanned", 40),
            ]);
            full.expect_no_work();
        });
    });
}

#[test]
fn a_lesson_is_looked_at_again_when_it_changes_in_any_way_that_counts() {
    each_server(|server| {
        settled(server, |application, session| {
            let third = application.lesson(3);
            // an edit of the media
            session.run(&format!(
                r#"UPDATE lesson SET videos = videos || '[{{"type": "upload", "key": "v/new.mp4"}}]' WHERE id = '{third}'"#
            ));
            settled_now(session, 9);
            // another organization
            session.run(&format!("UPDATE lesson SET course_id = 2 WHERE id = '{third}'"));
            settled_now(session, 9);
            // what the job does not read
            session.run(&format!("UPDATE lesson SET title = 'another' WHERE id = '{third}'"));
            settled_now(session, 10);
            // a column that becomes NULL
            session.run(&format!("UPDATE lesson SET documents = NULL WHERE id = '{third}'"));
            settled_now(session, 9);
            // a lesson that is new, and one that goes
            session.run(&format!("DELETE FROM lesson WHERE id = '{third}'"));
            add(application, session, 3);
            settled_now(session, 9);
        });
    });
}

#[test]
fn removed_usages_and_assets_are_found() {
    each_server(|server| {
        settled(server, |application, session| {
            let fifth = application.lesson(5);
            session.run(&format!(
                "DELETE FROM asset_usages WHERE target_id = '{fifth}' AND position = 0"
            ));
            settled_now(session, 9);
            // without the foreign key an asset can go and leave its usages
            session.run("ALTER TABLE asset_usages DROP CONSTRAINT asset_usages_asset_id_fkey");
            session.run("DELETE FROM assets WHERE canonical_key = 'upload:v/6.mp4'");
            let dry = session.counters(DRY);
            dry.expect(&[("lessons_settled", 9), ("assets_created", 1), ("usages_created", 1)]);
            assert_eq!(session.counters(EXECUTE), dry);
        });
    });
}

#[test]
fn a_lesson_that_failed_is_not_settled() {
    each_server(|server| {
        settled(server, |application, session| {
            session.run("ALTER TABLE assets ADD CONSTRAINT no_bad CHECK (storage_key <> 'v/bad.mp4')");
            session.run(&format!(
                r#"UPDATE lesson SET videos = '[{{"type": "upload", "key": "v/bad.mp4"}}]' WHERE id = '{}'"#,
                application.lesson(2)
            ));
            for _ in 0..2 {
                session
                    .counters(EXECUTE)
                    .expect(&[("errors", 1), ("lessons_settled", 9)]);
            }
        });
    });
}

#[test]
fn runs_that_do_not_skip_leave_the_state_alone_and_undo_takes_it_back() {
    each_server(|server| {
        settled(server, |application, session| {
            add(application, session, 11);
            session.run("SELECT * FROM backfill_lesson_assets(execute => true)");
            assert_eq!(session.number("SELECT count(*) FROM lesson_media_state"), 10);
            let run = session.number("SELECT min(run_id) FROM lesson_media_state");
            session.run(&format!("SELECT * FROM undo_backfill({run}, true)"));
            assert_eq!(session.number("SELECT count(*) FROM lesson_media_state"), 0);
            session
                .counters(DRY)
                .expect(&[("lessons_settled", 0), ("lessons_scanned", 11)]);
        });
    });
}

#[test]
fn a_committing_run_skips_them_too() {
    each_server(|server| {
        settled(server, |application, session| {
            add(application, session, 11);
            session.run(r#"CALL run_backfill('lesson_assets', 3, true, '{"skip_settled": true}')"#);
            let counters = session.rows(
                "SELECT v.name, v.value::text FROM backfill_runs r JOIN backfill_ranges g USING (run_id)
                 CROSS JOIN unnest(r.counter_names, g.counters) v(name, value)
                 WHERE run_id = (SELECT max(run_id) FROM backfill_runs) AND v.name LIKE 'lessons_%' ORDER BY 1",
            );
            let expected = [("lessons_scanned", "1"), ("lessons_settled", "10")];
            assert_eq!(
                counters,
                expected.map(|(name, value)| vec![Some(name.to_owned()), Some(value.to_owned())])
            );
            settled_now_of(session, 11);
        });
    });
}

#[track_caller]
fn settled_now_of(session: &mut Session, lessons: i64) {
    session
        .counters(DRY)
        .expect(&[("lessons_settled", lessons), ("lessons_scanned", 0)]);
}

#[test]
fn a_rule_that_has_changed_settles_nothing() {
    each_server(|server| {
        settled(server, |_, session| {
            session.run("UPDATE lesson_media_state SET rule_version = rule_version - 1");
            settled_now(session, 0);
        });
    });
}
