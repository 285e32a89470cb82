//! The functions in the places where SQL lets one call a function.

use media_assets_tests::application::{assert_items_are_settled, contents};
use media_assets_tests::{each_server, Application, Database, Server, Session};

const EXECUTE: &str = "SELECT * FROM backfill_lesson_assets(execute => true)";

fn with_lessons(server: &Server) -> (Database, Session) {
    let database = server.database();
    let mut session = database.session();
    Application::create(&mut session).add_uploads(&mut session, 1, 5);
    (database, session)
}

#[test]
fn two_calls_in_one_statement() {
    each_server(|server| {
        let (_database, mut session) = with_lessons(server);
        let row = session.rows(
            "SELECT a.assets_created, b.assets_created, b.assets_reused, b.usages_reused
             FROM backfill_lesson_assets(execute => true) a, LATERAL (SELECT * FROM backfill_lesson_assets(execute => a.errors = 0)) b",
        );
        assert_eq!(row, [["5", "0", "5", "5"].map(|v| Some(v.to_owned()))]);
    });
}

#[test]
fn a_call_in_plpgsql_and_in_an_exception_block() {
    each_server(|server| {
        let (_database, mut session) = with_lessons(server);
        let before = contents(&mut session);
        session.run(
            "DO $$
             DECLARE counters record;
             BEGIN
                 BEGIN
                     SELECT * INTO counters FROM backfill_lesson_assets(execute => true);
                     RAISE EXCEPTION 'take it back' USING ERRCODE = 'P7777';
                 EXCEPTION WHEN SQLSTATE 'P7777' THEN NULL;
                 END;
                 IF counters.assets_created <> 5 THEN RAISE 'first %', counters; END IF;
                 BEGIN
                     PERFORM backfill_lesson_assets(0);
                 EXCEPTION WHEN invalid_parameter_value THEN NULL;
                 END;
                 SELECT * INTO counters FROM backfill_lesson_assets();
                 IF counters.assets_created <> 5 THEN RAISE 'second %', counters; END IF;
             END $$",
        );
        assert_eq!(before, contents(&mut session));
    });
}

#[test]
fn a_call_sees_what_its_transaction_did_before() {
    each_server(|server| {
        let (_database, mut session) = with_lessons(server);
        let application = Application::default();
        session.run("BEGIN");
        application.add_uploads(&mut session, 6, 7);
        application.add_asset(&mut session, 1, 1, "k6");
        session.run("UPDATE lesson SET videos = '[{\"key\": \"edited\"}]' WHERE videos #>> '{0,key}' = 'k1'");
        let dry = session.counters("SELECT * FROM backfill_lesson_assets()");
        dry.expect(&[("lessons_scanned", 7), ("assets_created", 6), ("assets_reused", 1)]);
        assert_eq!(session.counters(EXECUTE), dry);
        session.run("COMMIT");
        assert_items_are_settled(&mut session);
    });
}

#[test]
fn part_of_the_rows_of_explain_is_enough() {
    each_server(|server| {
        let (_database, mut session) = with_lessons(server);
        assert_eq!(
            session
                .rows("SELECT lesson_id FROM explain_lesson_assets() LIMIT 1")
                .len(),
            1
        );
        session.run("BEGIN; DECLARE c CURSOR FOR SELECT * FROM explain_lesson_assets()");
        assert_eq!(session.rows("FETCH 2 FROM c").len(), 2);
        session.run("UPDATE lesson SET videos = NULL");
        assert_eq!(session.rows("FETCH ALL FROM c").len(), 3);
        session.run("COMMIT");
    });
}

#[test]
fn a_trigger_of_the_user_that_calls_us_in_turn_is_refused_or_works() {
    each_server(|server| {
        let (_database, mut session) = with_lessons(server);
        session.run(
            "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM backfill_lesson_assets(); PERFORM count(*) FROM explain_lesson_assets(); RETURN NEW; END$$;
             CREATE TRIGGER again BEFORE UPDATE ON lesson FOR EACH ROW EXECUTE FUNCTION again()",
        );
        session
            .counters(EXECUTE)
            .expect(&[("errors", 0), ("assets_created", 5)]);
        assert_items_are_settled(&mut session);
    });
}

#[test]
fn the_application_keys_its_writes_from_within_a_run() {
    each_server(|server| {
        let (_database, mut session) = with_lessons(server);
        // a user's trigger that makes assets of its own: the engine's silence towards our triggers must not cover them for ever
        session.run(
            "CREATE FUNCTION extra() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
                 INSERT INTO assets (id, organization_id, kind, provider, storage_provider, storage_key, is_external, status, metadata)
                 VALUES (gen_random_uuid(), '0a000000-0000-4000-8000-000000000001', 'image', 'upload', 's3', 'poster of ' || NEW.id, false, 'active', '{}');
                 RETURN NEW; END$$;
             CREATE TRIGGER extra AFTER UPDATE ON lesson FOR EACH ROW EXECUTE FUNCTION extra()",
        );
        session
            .counters(EXECUTE)
            .expect(&[("errors", 0), ("assets_created", 5)]);
        assert_eq!(session.number("SELECT count(*) FROM assets"), 10);
        Application::default().add_asset(&mut session, 77, 1, "after the run");
        let key = session.value("SELECT canonical_key FROM assets WHERE storage_key = 'after the run'");
        assert_eq!(
            key.as_deref(),
            Some("upload:after the run"),
            "the triggers work again after a run"
        );
        session.counters(EXECUTE).expect_no_work();
        assert_eq!(
            session.number("SELECT count(*) FROM assets WHERE canonical_key IS NULL"),
            0
        );
    });
}

#[test]
fn the_triggers_work_again_after_a_run_that_failed() {
    each_server(|server| {
        let (_database, mut session) = with_lessons(server);
        session.run(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'stop' USING ERRCODE = '53100'; END$$;
             CREATE TRIGGER refuse AFTER INSERT ON assets FOR EACH ROW WHEN (NEW.storage_key = 'k3') EXECUTE FUNCTION refuse()",
        );
        session.run(&format!(
            "DO $$BEGIN PERFORM backfill_lesson_assets(execute => true); EXCEPTION WHEN OTHERS THEN NULL; END$$;
             {}",
            media_assets_tests::application::insert_asset(
                &Application::default().asset(1),
                &Application::default().organization(1),
                "after"
            )
        ));
        assert_eq!(session.text("SELECT canonical_key FROM assets"), "upload:after");
    });
}

#[test]
fn tables_made_anew_in_the_same_session_are_the_ones_used() {
    each_server(|server| {
        let (_database, mut session) = with_lessons(server);
        session.counters(EXECUTE).expect(&[("assets_created", 5)]);
        session.run(
            "ALTER TABLE lesson ADD COLUMN more int, DROP COLUMN title;
             ALTER TABLE lesson ALTER id TYPE text USING id::text;
             DROP TABLE asset_usages, assets;
             ALTER TABLE \"group\" ALTER organization_id TYPE text;
             SELECT * FROM create_asset_tables()",
        );
        let dry = session.counters("SELECT * FROM backfill_lesson_assets()");
        dry.expect(&[("assets_created", 5), ("lesson_items_patched_with_asset_id", 5)]);
        assert_eq!(session.counters(EXECUTE), dry);
        assert_items_are_settled(&mut session);
    });
}
