//! pg_dump and restore: runs are the database's own history, and go on after it.

use std::process::{Command, Stdio};

use media_assets_tests::application::{assert_items_are_settled, assert_verified, contents};
use media_assets_tests::runs::{interrupted, last_run, state, undo};
use media_assets_tests::{each_server, unique, Application, Database, Role, Row, Server, Session};

const EXECUTE: &str = "SELECT * FROM backfill_lesson_assets(execute => true)";
const LEDGER: [&str; 7] = [
    "runs",
    "ranges",
    "requests",
    "decisions",
    "changes",
    "quarantine",
    "waits",
];

/// A program of the server's, with options that lead to `database` as `user`.
fn program(server: &Server, name: &str, database: &Database, user: &str) -> Command {
    let folder = server
        .programs
        .as_ref()
        .unwrap_or_else(|| panic!("set MEDIA_ASSETS_PG{}_BINDIR to the folder of {name}", server.major));
    let (host, port) = server.address();
    let mut command = Command::new(folder.join(name));
    command.args(["-h", &host, "-p", &port.to_string(), "-U", user, "-d", &database.name]);
    command
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Copies `from` into `to` with the server's programs, acting as `user`.
fn dump_and_restore(server: &Server, from: &Database, to: &Database, user: &str, parallel: bool) {
    let file = std::env::temp_dir().join(unique("ma_dump"));
    let path = file.display().to_string();
    if parallel {
        succeed(program(server, "pg_dump", from, user).args(["-Fc", "-f", &path]));
        succeed(program(server, "pg_restore", to, user).args(["--exit-on-error", "-j", "2", &path]));
    } else {
        succeed(program(server, "pg_dump", from, user).args(["-f", &path]));
        succeed(
            program(server, "psql", to, user)
                .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", &path])
                .stdout(Stdio::null()),
        );
    }
    std::fs::remove_file(file).expect("the dump can be removed");
}

/// All rows of the ledger, and where its sequences stand.
fn ledger(session: &mut Session) -> Vec<Row> {
    let tables = LEDGER.map(|table| format!("SELECT '{table}', t::text FROM backfill_{table} t"));
    session.rows(&format!(
        "{} UNION ALL SELECT 'runs_seq', last_value::text FROM backfill_runs_run_id_seq
         UNION ALL SELECT 'changes_seq', last_value::text FROM backfill_changes_change_id_seq ORDER BY 1, 2",
        tables.join(" UNION ALL ")
    ))
}

/// A database of a role that is no superuser and has installed the extension.
fn owned(server: &Server) -> (Database, Role) {
    let database = server.empty_database();
    let role = server.role(&database);
    server
        .maintenance()
        .run(&format!("ALTER DATABASE {} OWNER TO {}", database.name, role.name));
    (database, role)
}

#[test]
fn runs_survive_a_dump_and_go_on_after_the_restore() {
    each_server(|server| {
        for (by_superuser, parallel) in [(false, false), (false, true), (true, false)] {
            let (database, owner) = owned(server);
            let mut session = database.session_as(&owner);
            session.run("CREATE EXTENSION media_assets; SET media_assets.progress = off");
            let application = Application::create(&mut session);
            application.add_uploads(&mut session, 1, 20);
            application.add_lesson(&mut session, 21, "[null, {\"type\": \"upload\"}]");
            let start = contents(&mut session);
            let first = session
                .counters("SELECT * FROM backfill_lesson_assets(3, true, max_lessons => 5)")
                .get("run_id");
            let between = contents(&mut session);
            let second = interrupted(&database, Some(&owner), &mut database.session(), 12);
            let before = (contents(&mut session), ledger(&mut session));

            let target = server.empty_database();
            server
                .maintenance()
                .run(&format!("ALTER DATABASE {} OWNER TO {}", target.name, owner.name));
            let user = if by_superuser { "postgres" } else { owner.name.as_str() };
            dump_and_restore(server, &database, &target, user, parallel);
            let mut restored = target.session();
            restored.run("SET media_assets.progress = off");
            assert_eq!(before, (contents(&mut restored), ledger(&mut restored)));
            let mut restored = target.session_as(&owner);
            restored.run("SET media_assets.progress = off");
            assert_eq!(state(&mut restored, first), "finished");
            assert_eq!(state(&mut restored, second), "interrupted");
            assert!(restored
                .text(&format!("SELECT backfill_report({first})"))
                .contains("assets_created"));
            restored.run(&format!("CALL resume_backfill({second})"));
            assert_eq!(state(&mut restored, second), "finished");
            assert_items_are_settled(&mut restored);
            assert_verified(&mut restored);
            undo(&mut restored, second).expect(&[("conflicts", 0), ("errors", 0)]);
            assert_eq!(between, contents(&mut restored));
            undo(&mut restored, first).expect(&[("conflicts", 0), ("errors", 0)]);
            assert_eq!(start, contents(&mut restored));
            let next = restored.counters(EXECUTE).get("run_id");
            assert!(next > second, "numbers go on: {next}");
            // what was dumped from is as it was
            assert_eq!(before.0, contents(&mut session));
            drop(restored);
            drop(target);
        }
    });
}

#[test]
fn the_extension_lives_in_a_schema_of_its_own() {
    each_server(|server| {
        let (database, owner) = owned(server);
        let mut session = database.session_as(&owner);
        session.run(
            "CREATE SCHEMA \"The tools\"; CREATE EXTENSION media_assets SCHEMA \"The tools\";
             SET media_assets.progress = off; SET search_path = public, \"The tools\"",
        );
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 10);
        let start = contents(&mut session);
        session.run("SET search_path = public");
        let run_id = session
            .counters("SELECT * FROM \"The tools\".backfill_lesson_assets(3, true)")
            .get("run_id");
        session.run("CALL \"The tools\".run_backfill('lesson_assets', 3, true)");
        session.fails("0A000", "ALTER EXTENSION media_assets SET SCHEMA public");

        let target = server.empty_database();
        server
            .maintenance()
            .run(&format!("ALTER DATABASE {} OWNER TO {}", target.name, owner.name));
        dump_and_restore(server, &database, &target, &owner.name, false);
        let mut restored = target.session_as(&owner);
        restored.run("SET media_assets.progress = off");
        let text = restored.text(&format!("SELECT \"The tools\".backfill_report({run_id})"));
        assert!(text.contains("finished"), "{text}");
        restored
            .counters(&format!("SELECT * FROM \"The tools\".undo_backfill({run_id}, true)"))
            .expect(&[("assets_removed", 10), ("conflicts", 0)]);
        assert_eq!(start, contents(&mut restored));
        drop(restored);
        drop(target);
    });
}

#[test]
fn a_dump_of_single_tables_keeps_their_rows() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 5);
        session.run(EXECUTE);
        let output = program(server, "pg_dump", &database, "postgres")
            .args(["--data-only", "-t", "lesson", "-t", "assets", "-t", "asset_usages"])
            .output()
            .expect("pg_dump runs");
        let text = String::from_utf8_lossy(&output.stdout);
        for table in ["lesson", "assets", "asset_usages"] {
            assert!(text.contains(&format!("COPY public.{table} ")), "{table} in the dump");
        }
        assert!(text.matches("upload:k").count() >= 5, "the assets' rows");
    });
}

#[test]
fn dropping_the_extension_leaves_the_tables() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 5);
        session.run(EXECUTE);
        let before = contents(&mut session);
        let error = session.fails("2BP01", "DROP EXTENSION media_assets");
        assert!(
            error.detail().is_some_and(|detail| detail.contains("trigger")),
            "{error:?}"
        );
        session.run("DROP EXTENSION media_assets CASCADE");
        assert_eq!(before, contents(&mut session));
        let left =
            "SELECT count(*) FROM pg_class WHERE relname LIKE 'backfill%' AND relnamespace = 'public'::regnamespace";
        assert_eq!(session.number(left), 0);
        application.add_asset(&mut session, 1, 1, "without us");
        session.run("CREATE EXTENSION media_assets");
        session.run("SELECT * FROM prepare_asset_tables(true)");
        session
            .counters(EXECUTE)
            .expect(&[("assets_created", 0), ("errors", 0)]);
        assert_eq!(last_run(&mut session), 1);
    });
}
