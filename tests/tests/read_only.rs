//! A dry run writes nothing: not in a READ ONLY transaction, not on a hot standby, not a transaction id.

use media_assets_tests::application::{contents, explained_counters};
use media_assets_tests::standby::Standby;
use media_assets_tests::{each_server, Application, Session};
use postgres::error::Severity;

/// Lessons of every sort and rows that are there already, one of them without a key.
fn fill(session: &mut Session) -> Application {
    let application = Application::create(session);
    application.add_uploads(session, 1, 30);
    application.add_lesson_of(
        session,
        31,
        2,
        r#"[{"type": "youtube", "link": "https://youtu.be/dQw4w9WgXcQ"}, null, {"type": "upload"}]"#,
        r#"[{"link": "https://x.test/a.pdf"}]"#,
    );
    application.add_lesson_of(session, 32, 4, r#"[{"type": "upload", "key": "k"}]"#, "7");
    application.add_asset(session, 1, 1, "k1");
    session.run("ALTER TABLE assets DISABLE TRIGGER USER");
    application.add_asset(session, 2, 1, "k2");
    session.run("ALTER TABLE assets ENABLE TRIGGER USER");
    application
}

/// The calls that only look.
fn looks() -> [String; 5] {
    [
        "SELECT * FROM backfill_lesson_assets(7)".into(),
        "SELECT * FROM backfill_asset_keys(7)".into(),
        explained_counters(""),
        "SELECT count(*) FROM verify_lesson_assets()".into(),
        "SELECT count(*) FROM check_asset_tables()".into(),
    ]
}

#[test]
fn a_look_assigns_no_transaction_id_and_writes_no_wal() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        fill(&mut session);
        session.run("VACUUM ANALYZE");
        let before = contents(&mut session);
        for look in looks() {
            for level in [
                "READ COMMITTED",
                "REPEATABLE READ",
                "SERIALIZABLE",
                "READ COMMITTED READ ONLY",
                "SERIALIZABLE READ ONLY",
            ] {
                session.run(&format!("BEGIN ISOLATION LEVEL {level}"));
                session.run(&look);
                let assigned = session.value("SELECT pg_current_xact_id_if_assigned()");
                assert_eq!(assigned, None, "{look} in {level}");
                session.run("COMMIT");
            }
        }
        for look in [&looks()[0], &looks()[3]] {
            session.run("VACUUM");
            let written = session.wal_bytes(look);
            assert!(written < 200, "{look} wrote {written} bytes of WAL");
        }
        assert_eq!(before, contents(&mut session));
    });
}

#[test]
fn a_look_opens_no_subtransaction_table_or_sequence() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        fill(&mut session);
        let subtransactions = |session: &mut Session, call: &str| {
            session.take_notices();
            // the server tells each start of a subtransaction at this level
            session.run("BEGIN; SET LOCAL client_min_messages = debug5");
            session.run(call);
            session.run("RESET client_min_messages");
            let count = session
                .take_notices()
                .iter()
                .filter(|n| n.parsed_severity() == Some(Severity::Debug) && n.message().contains("StartSubTransaction"))
                .count();
            let relations = session.number(
                "SELECT count(*) FROM pg_class c WHERE c.relpersistence = 't' OR c.xmin::text = pg_current_xact_id_if_assigned()::xid::text",
            );
            session.run("ROLLBACK");
            (count, relations)
        };
        for look in looks() {
            assert_eq!(subtransactions(&mut session, &look), (0, 0), "{look}");
        }
        // the measure sees what it should see
        let (count, _) = subtransactions(&mut session, "SELECT * FROM backfill_lesson_assets(7, true)");
        assert!(count > 0, "an execute opens subtransactions");
    });
}

#[test]
fn a_dry_run_works_on_a_hot_standby_and_predicts_the_execute() {
    each_server(|server| {
        let standby = Standby::of(server);
        let database = server.database();
        let mut session = database.session();
        fill(&mut session);
        let mut replica = standby.session(&database);
        assert!(replica.is_true("SELECT pg_is_in_recovery()"));
        let looks = looks();
        let dry = replica.counters(&looks[0]);
        let keys = replica.counters(&looks[1]);
        assert_eq!(keys.get("keyed"), 1);
        let explained = replica.counters(&explained_counters(""));
        for (name, value) in &explained.0 {
            assert_eq!(*value, Some(dry.get(name)), "explain: {name}");
        }
        replica.run(&looks[3]);
        replica.run(&looks[4]);
        replica.fails("25006", "SELECT * FROM backfill_lesson_assets(7, true)");
        assert_eq!(session.counters("SELECT * FROM backfill_lesson_assets(7, true)"), dry);
        // the standby sees the work and predicts none
        let mut replica = standby.session(&database);
        replica
            .counters("SELECT * FROM backfill_lesson_assets(7)")
            .expect_no_work();
    });
}

#[test]
fn an_execute_in_a_read_only_transaction_is_the_ordinary_error() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        fill(&mut session);
        for call in [
            "SELECT * FROM backfill_lesson_assets(execute => true)",
            "SELECT * FROM backfill_asset_keys(execute => true)",
            "SELECT * FROM dedupe_asset_usages(true)",
        ] {
            session.run("BEGIN READ ONLY");
            session.fails("25006", call);
        }
    });
}

#[test]
fn a_dry_run_needs_only_the_lesson_side() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::default();
        application.create_lesson_side(&mut session);
        application.add_uploads(&mut session, 1, 3);
        session.take_notices();
        session.run("BEGIN READ ONLY");
        let dry = session.counters("SELECT * FROM backfill_lesson_assets()");
        session.run("COMMIT");
        dry.expect(&[
            ("assets_created", 3),
            ("usages_created", 3),
            ("lesson_items_patched_with_asset_id", 3),
        ]);
        let notices = session.take_notices();
        assert!(
            notices.iter().any(|n| n.parsed_severity() == Some(Severity::Notice)
                && media_assets_tests::words(n).contains("create_asset_tables")),
            "a NOTICE names the call to make before executing: {notices:?}"
        );
        assert_eq!(session.number("SELECT count(*) FROM explain_lesson_assets()"), 3);
        session.run("SELECT * FROM create_asset_tables()");
        assert_eq!(
            session.counters("SELECT * FROM backfill_lesson_assets(execute => true)"),
            dry
        );
    });
}

#[test]
fn a_dry_run_takes_unprepared_tables_as_they_are() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::default();
        application.create_lesson_side(&mut session);
        application.add_uploads(&mut session, 1, 3);
        // the tables of the application: no key column, no unique constraint
        session.run(
            "CREATE TABLE assets (id uuid PRIMARY KEY, organization_id uuid, kind text, provider text, storage_provider text,
                 storage_key text, source_url text, mime_type text, byte_size bigint, title text, description text,
                 thumbnail_url text, duration_seconds int, aspect_ratio text, is_external boolean, status text, metadata jsonb,
                 created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now());
             CREATE TABLE asset_usages (id uuid PRIMARY KEY, organization_id uuid, asset_id uuid, target_type text, target_id text,
                 slot_type text, slot_key text, position int)",
        );
        application.add_asset(&mut session, 1, 1, "k1");
        let before = contents(&mut session);
        session.run("BEGIN READ ONLY");
        let dry = session.counters("SELECT * FROM backfill_lesson_assets()");
        session.run("COMMIT");
        dry.expect(&[("assets_created", 2), ("assets_reused", 1), ("usages_created", 3)]);
        assert_eq!(before, contents(&mut session));
        let error = session.fails_with_hint("42703", "SELECT * FROM backfill_lesson_assets(execute => true)");
        assert!(
            media_assets_tests::words(&error).contains("prepare_asset_tables"),
            "{error:?}"
        );
        session.run("SELECT * FROM prepare_asset_tables(true)");
        assert_eq!(
            session.counters("SELECT * FROM backfill_lesson_assets(execute => true)"),
            dry
        );
    });
}
