//! Owners, roles without rights, row security, isolation levels.

use media_assets_tests::application::{assert_items_are_settled, assert_verified, contents};
use media_assets_tests::{each_server, Application, Database, Role, Server, Session};

const DRY: &str = "SELECT * FROM backfill_lesson_assets()";
const EXECUTE: &str = "SELECT * FROM backfill_lesson_assets(execute => true)";
const TABLES: [&str; 5] = ["lesson", "course", "\"group\"", "assets", "asset_usages"];

/// An application of the superuser, and a role that may use the schema.
fn with_role(server: &Server) -> (Database, Session, Role, Application) {
    let database = server.database();
    let mut session = database.session();
    let application = Application::create(&mut session);
    application.add_uploads(&mut session, 1, 5);
    let role = server.role(&database);
    session.run(&format!("GRANT USAGE ON SCHEMA public TO {}", role.name));
    (database, session, role, application)
}

#[test]
fn an_owner_who_is_no_superuser_installs_and_runs() {
    each_server(|server| {
        let database = server.empty_database();
        let role = server.role(&database);
        server
            .maintenance()
            .run(&format!("ALTER DATABASE {} OWNER TO {}", database.name, role.name));
        database
            .session()
            .run(&format!("GRANT CREATE ON SCHEMA public TO {}", role.name));
        let mut session = database.session_as(&role);
        session.run("CREATE EXTENSION media_assets");
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 20);
        session.run("ALTER TABLE assets DISABLE TRIGGER USER");
        application.add_asset(&mut session, 1, 1, "k1");
        session.run("ALTER TABLE assets ENABLE TRIGGER USER");
        let dry = session.counters(DRY);
        dry.expect(&[("assets_created", 19), ("assets_reused", 1)]);
        assert_eq!(session.counters(EXECUTE), dry);
        assert_verified(&mut session);
        assert_items_are_settled(&mut session);
        session.counters(EXECUTE).expect_no_work();
        for call in [
            "SELECT * FROM check_asset_tables()",
            "SELECT * FROM prepare_asset_tables(true)",
            "SELECT * FROM dedupe_asset_usages(true)",
            "SELECT * FROM backfill_asset_keys(execute => true, refresh => true)",
        ] {
            session.run(call);
        }
        // the tables are the caller's, never members of the extension
        let owner = session.text(
            "SELECT string_agg(DISTINCT tableowner, ',') FROM pg_tables WHERE tablename IN ('assets', 'asset_usages')",
        );
        assert_eq!(owner, role.name);
        let members = session.number(
            "SELECT count(*) FROM pg_depend WHERE deptype = 'e' AND classid = 'pg_class'::regclass AND objid IN ('assets'::regclass, 'asset_usages'::regclass)",
        );
        assert_eq!(members, 0);
    });
}

#[test]
fn a_role_without_rights_is_refused_before_anything_is_written() {
    each_server(|server| {
        let (database, mut owner, role, _) = with_role(server);
        let before = contents(&mut owner);
        let grants = [
            ("lesson", "SELECT, UPDATE"),
            ("course", "SELECT"),
            ("\"group\"", "SELECT"),
            ("assets", "SELECT, INSERT, UPDATE"),
            ("asset_usages", "SELECT, INSERT, UPDATE"),
        ];
        for missing in TABLES {
            for (table, rights) in grants {
                owner.run(&format!("REVOKE ALL ON {table} FROM {}", role.name));
                if table != missing {
                    owner.run(&format!("GRANT {rights} ON {table} TO {}", role.name));
                }
            }
            let mut session = database.session_as(&role);
            let error = session.fails("42501", EXECUTE);
            assert!(
                error.message().contains(missing.trim_matches('"')),
                "names {missing}: {error}"
            );
            session.fails("42501", DRY);
            assert_eq!(before, contents(&mut owner), "without rights on {missing}");
        }
    });
}

#[test]
fn a_role_that_may_only_read_has_dry_runs() {
    each_server(|server| {
        let (database, mut owner, role, _) = with_role(server);
        for table in TABLES {
            owner.run(&format!("GRANT SELECT ON {table} TO {}", role.name));
        }
        let before = contents(&mut owner);
        let mut session = database.session_as(&role);
        session.counters(DRY).expect(&[("assets_created", 5)]);
        session.run("SELECT * FROM explain_lesson_assets()");
        session.run("SELECT * FROM verify_lesson_assets()");
        session.fails("42501", EXECUTE);
        session.fails("42501", "SELECT * FROM backfill_asset_keys(execute => true)");
        assert_eq!(before, contents(&mut owner));
        // even where nothing would be written: what a role may do does not hang on the data
        owner.run(EXECUTE);
        session.fails("42501", EXECUTE);
    });
}

#[test]
fn rights_on_the_columns_in_use_are_enough() {
    each_server(|server| {
        let (database, mut owner, role, _) = with_role(server);
        let role_name = &role.name;
        owner.run(&format!(
            "GRANT SELECT (id, course_id, videos, documents), UPDATE (videos, documents) ON lesson TO {role_name};
             GRANT SELECT (id, group_id) ON course TO {role_name};
             GRANT SELECT (id, organization_id) ON \"group\" TO {role_name};
             GRANT SELECT, INSERT, UPDATE (canonical_key) ON assets TO {role_name};
             GRANT SELECT, INSERT ON asset_usages TO {role_name};
             ALTER TABLE lesson ADD COLUMN secret text DEFAULT 'not for that role'"
        ));
        let mut session = database.session_as(&role);
        let dry = session.counters(DRY);
        dry.expect(&[("assets_created", 5)]);
        assert_eq!(session.counters(EXECUTE), dry);
        session.counters(EXECUTE).expect_no_work();
        owner.run(&format!("REVOKE UPDATE (documents) ON lesson FROM {role_name}"));
        session.fails("42501", EXECUTE);
    });
}

#[test]
fn active_row_security_is_refused_with_a_hint_in_the_dry_run_too() {
    each_server(|server| {
        let (database, mut owner, role, _) = with_role(server);
        for table in TABLES {
            owner.run(&format!("GRANT ALL ON {table} TO {}", role.name));
        }
        let before = contents(&mut owner);
        let mut session = database.session_as(&role);
        for table in TABLES {
            owner.run(&format!(
                "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; CREATE POLICY all_rows ON {table} USING (true)"
            ));
            for call in [
                DRY,
                EXECUTE,
                "SELECT * FROM explain_lesson_assets()",
                "SELECT * FROM verify_lesson_assets()",
            ] {
                let error = session.fails_with_hint("42501", call);
                let text = media_assets_tests::words(&error);
                assert!(text.contains(table.trim_matches('"')), "names {table}: {text}");
            }
            owner.run(&format!(
                "DROP POLICY all_rows ON {table}; ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"
            ));
        }
        assert_eq!(before, contents(&mut owner));
        // a role that row security does not hold for is not refused
        owner.run("ALTER TABLE lesson ENABLE ROW LEVEL SECURITY");
        owner.run(DRY);
        owner.run(EXECUTE);
    });
}

#[test]
fn row_security_forced_on_the_owner_is_refused_too() {
    each_server(|server| {
        let (database, mut owner, role, _) = with_role(server);
        for table in TABLES {
            owner.run(&format!("ALTER TABLE {table} OWNER TO {}", role.name));
        }
        let mut session = database.session_as(&role);
        owner.run("ALTER TABLE assets ENABLE ROW LEVEL SECURITY");
        session.run(DRY);
        owner.run("ALTER TABLE assets FORCE ROW LEVEL SECURITY");
        session.fails_with_hint("42501", DRY);
        session.fails_with_hint("42501", EXECUTE);
    });
}

#[test]
fn an_execute_wants_read_committed() {
    each_server(|server| {
        let (_database, mut session, _role, _) = with_role(server);
        let before = contents(&mut session);
        for level in ["REPEATABLE READ", "SERIALIZABLE"] {
            for call in [EXECUTE, "SELECT * FROM backfill_asset_keys(execute => true)"] {
                session.run(&format!("BEGIN ISOLATION LEVEL {level}"));
                session.fails_with_hint("0A000", call);
            }
            session.run(&format!("BEGIN ISOLATION LEVEL {level}; {DRY}; COMMIT"));
        }
        assert_eq!(before, contents(&mut session));
        // READ UNCOMMITTED is READ COMMITTED to PostgreSQL
        session.run(&format!("BEGIN ISOLATION LEVEL READ UNCOMMITTED; {EXECUTE}; COMMIT"));
    });
}

#[test]
fn an_application_role_inserts_assets_without_rights_on_the_extension() {
    each_server(|server| {
        let (database, mut owner, role, application) = with_role(server);
        owner.run(&format!("GRANT SELECT, INSERT, UPDATE ON assets TO {}", role.name));
        let mut session = database.session_as(&role);
        application.add_asset(&mut session, 1, 1, "k");
        assert_eq!(session.text("SELECT canonical_key FROM assets"), "upload:k");
        // a role that may insert, and nothing else, never fails for our trigger
        owner.run(&format!(
            "REVOKE ALL ON assets FROM {0}; GRANT INSERT ON assets TO {0}",
            role.name
        ));
        application.add_asset(&mut session, 2, 1, "k2");
        assert_eq!(owner.number("SELECT count(*) FROM assets"), 2);
    });
}

#[test]
fn a_role_that_may_not_write_keys_never_leaves_a_wrong_one() {
    each_server(|server| {
        let (database, mut owner, role, application) = with_role(server);
        application.add_asset(&mut owner, 1, 1, "before");
        owner.run(&format!(
            "GRANT SELECT, INSERT, UPDATE (storage_key, title) ON assets TO {}",
            role.name
        ));
        let mut session = database.session_as(&role);
        session.run("UPDATE assets SET storage_key = 'after'");
        let key = owner.value("SELECT canonical_key FROM assets");
        assert!(
            key.is_none() || key.as_deref() == Some("upload:after"),
            "the old key of a file that is another now: {key:?}"
        );
    });
}
