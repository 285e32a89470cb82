//! `media-assets ingest` on real trees and real servers: exit codes, JSON, dry run, test database.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use media_assets_tests::ingest::{add_collection, contents, create_tables};
use media_assets_tests::{each_server, unique, Database, Session};
use serde_json::Value;

struct Tree(PathBuf);

impl Tree {
    fn new() -> Self {
        let root = std::env::temp_dir().join(unique("media_assets_cli"));
        for name in [
            "Show/Season 01/Show - S01E01.mkv",
            "Show/Season 01/Show - S01E02.mkv",
            "Show/Season 02/Show - S02E01.MKV",
            "Film (1999).mp4",
            "notes.txt",
        ] {
            let file = root.join(name);
            fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
            fs::write(file, name).expect("a file");
        }
        Tree(root)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The program, with a connection to the database and nothing else of this environment.
fn program(database: &Database) -> Command {
    let (host, port) = database.server.address();
    let mut command = Command::new(env!("CARGO_BIN_EXE_media-assets"));
    command.env_clear();
    command.env("PGHOST", host).env("PGPORT", port.to_string());
    command.env("PGUSER", "postgres").env("PGDATABASE", &database.name);
    command
}

fn ingest(database: &Database, tree: &Tree, arguments: &[&str]) -> Output {
    let mut command = program(database);
    command.args(["ingest", "TV", "--path"]).arg(&tree.0).args(arguments);
    command.output().expect("the program runs")
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}\n{}", String::from_utf8_lossy(&output.stderr)))
}

fn with_tables(test: impl Fn(&Database, &mut Session, &Tree)) {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        create_tables(&mut session);
        add_collection(&mut session, "TV");
        test(&database, &mut session, &Tree::new());
    });
}

#[test]
fn a_tree_is_ingested_and_told_as_json() {
    with_tables(|database, session, tree| {
        let output = ingest(database, tree, &["--json"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let result = json(&output);
        assert_eq!(result["status"], "success");
        assert_eq!(result["scope"], "collection");
        assert_eq!(result["stats"]["assets_discovered"], 4);
        assert_eq!(result["stats"]["assets_ingested"], 4);
        assert_eq!(result["asset_ids"]["created"].as_array().map(Vec::len), Some(4));
        assert_eq!(result["problems"], serde_json::json!([]));
        assert!(result["last_ingest_time"].is_string());
        let rows = session.rows(
            "SELECT title, season::text, episode::text FROM collection_assets ORDER BY canonical_key COLLATE \"C\"",
        );
        let row = |title: &str, season: Option<&str>, episode: Option<&str>| {
            vec![
                Some(title.to_owned()),
                season.map(str::to_owned),
                episode.map(str::to_owned),
            ]
        };
        assert_eq!(
            rows,
            [
                row("Film (1999)", None, None),
                row("Show", Some("1"), Some("1")),
                row("Show", Some("1"), Some("2")),
                row("Show", Some("2"), Some("1"))
            ]
        );
        assert!(
            session.is_true("SELECT bool_and(mtime BETWEEN now() - interval '1 hour' AND now() + interval '1 minute' AND size > 0) FROM collection_assets")
        );
        let again = json(&ingest(database, tree, &["--json", "--title", "Show", "--season", "1"]));
        assert_eq!(
            (&again["scope"], &again["stats"]["assets_skipped"]),
            (&"season".into(), &2.into())
        );
        // for people
        let output = ingest(database, tree, &[]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("assets_skipped        4"), "{text}");
    });
}

#[test]
fn a_dry_run_writes_nothing_and_wins_over_the_test_database() {
    with_tables(|database, session, tree| {
        let before = contents(session, true);
        for arguments in [&["--dry-run", "--json"][..], &["--dry-run", "--test-db", "--json"]] {
            let output = ingest(database, tree, arguments);
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            let result = json(&output);
            assert_eq!(result["dry_run"], true);
            assert_eq!(result["stats"]["assets_ingested"], 4);
            assert_eq!(result["asset_ids"], serde_json::json!({"created": [], "updated": []}));
        }
        assert_eq!(contents(session, true), before);
        assert_eq!(session.number("SELECT count(*) FROM backfill_runs"), 0);
    });
}

#[test]
fn the_test_database_has_to_be_named() {
    with_tables(|database, session, tree| {
        let output = ingest(database, tree, &["--test-db", "--json"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(json(&output)["error"]["message"]
            .as_str()
            .is_some_and(|text| text.contains("TEST_DATABASE_URL")));
        let test = database.server.database();
        let mut other = test.session();
        create_tables(&mut other);
        add_collection(&mut other, "TV");
        let (host, port) = test.server.address();
        let mut command = program(database);
        command
            .args(["ingest", "TV", "--json", "--test-db", "--path"])
            .arg(&tree.0);
        command.env(
            "TEST_DATABASE_URL",
            format!(
                "host={host} port={port} user=postgres dbname={} sslmode=prefer",
                test.name
            ),
        );
        let output = command.output().expect("runs");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(other.number("SELECT count(*) FROM collection_assets"), 4);
        assert_eq!(session.number("SELECT count(*) FROM collection_assets"), 0);
    });
}

#[test]
fn each_failure_has_its_exit_code_and_its_json() {
    with_tables(|database, session, tree| {
        let before = contents(session, true);
        let fails = |mut command: Command, code: i32, cause: &str, sqlstate: Option<&str>| {
            let output = command.output().expect("runs");
            assert_eq!(output.status.code(), Some(code), "{output:?}");
            let result = json(&output);
            assert_eq!(result["status"], "error");
            assert_eq!(result["error"]["cause"], cause, "{result}");
            assert_eq!(result["error"]["sqlstate"].as_str(), sqlstate, "{result}");
        };
        let call = |arguments: &[&str]| {
            let mut command = program(database);
            command
                .args(["ingest", "--json", "--path"])
                .arg(&tree.0)
                .args(arguments);
            command
        };
        fails(call(&["Nothing"]), 1, "validation", Some("42704"));
        fails(call(&["TV", "--season", "1"]), 1, "validation", Some("22023"));
        fails(
            call(&["TV", "--title", "Show", "--season", "-1"]),
            1,
            "validation",
            Some("22023"),
        );
        fails(call(&["TV", "--season", "x"]), 1, "validation", None);
        fails(call(&[]), 1, "validation", None);
        fails(
            call(&["TV", "--title", "No such show"]),
            2,
            "scope_not_found",
            Some("P0002"),
        );
        let mut command = program(database);
        command.args(["ingest", "--json", "TV", "--path", "/no/such/directory"]);
        fails(command, 3, "source_unreachable", None);
        // the call is checked before the source is looked at
        for (arguments, sqlstate) in [
            (&["Nothing"][..], "42704"),
            (&["TV", "--season", "1"], "22023"),
            (&["TV", "--title", "Show", "--episode", "1"], "22023"),
        ] {
            let mut command = program(database);
            command
                .args(["ingest", "--json", "--path", "/no/such/directory"])
                .args(arguments);
            fails(command, 1, "validation", Some(sqlstate));
        }
        let mut command = call(&["TV"]);
        command.env("PGPORT", "1");
        fails(command, 3, "source_unreachable", None);
        let mut command = call(&["TV"]);
        command.env("PGSSLMODE", "sometimes");
        fails(command, 1, "validation", None);
        let mut command = call(&["TV"]);
        command.env("PGSSLMODE", "verify-full");
        // over a socket there is no TLS; else there is no certificate to check with
        if database.server.address().0.starts_with('/') {
            assert_eq!(command.output().expect("runs").status.code(), Some(0));
        } else {
            fails(command, 1, "validation", None);
        }
        session.run("UPDATE collections SET sync_enabled = false");
        fails(call(&["TV"]), 1, "validation", Some("55000"));
        session.run("UPDATE collections SET sync_enabled = true");
        assert_eq!(contents(session, true), before, "nothing is half done");
        // without --json on standard error, with the hint
        let mut command = program(database);
        command.args(["ingest", "Nothing", "--path"]).arg(&tree.0);
        let output = command.output().expect("runs");
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("does not exist") && text.contains("HINT: "), "{text}");
    });
}

#[test]
fn what_cannot_be_read_is_counted_and_named() {
    with_tables(|database, session, tree| {
        fs::write(tree.0.join(OsStr::from_bytes(b"caf\xe9.mkv")), "").expect("a file");
        fs::write(tree.0.join("tab\tand\nnewline\\.mkv"), "").expect("a file");
        let output = ingest(database, tree, &["--json"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let result = json(&output);
        assert_eq!(result["stats"]["assets_failed"], 1);
        assert_eq!(result["stats"]["assets_ingested"], 5);
        assert_eq!(result["problems"][0]["problem"], "the name is not UTF-8");
        assert_eq!(
            session.number("SELECT count(*) FROM collection_assets WHERE uri LIKE E'%tab\\tand\\nnewline\\\\\\\\.mkv'"),
            1
        );
    });
}

#[test]
fn a_password_file_is_used_as_libpq_does() {
    with_tables(|database, _, tree| {
        let file = tree.0.join("pgpass");
        fs::write(&file, "*:*:*:*:secret\n").expect("a file");
        for (mode, warned) in [(0o644, true), (0o600, false)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("a mode");
            let mut command = program(database);
            command
                .args(["ingest", "TV", "--path"])
                .arg(&tree.0)
                .env("PGPASSFILE", &file);
            let output = command.output().expect("runs");
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(text.contains("readable by others"), warned, "{text}");
            assert!(!text.contains("secret"));
        }
    });
}

#[test]
fn a_terminal_has_a_progress_bar_and_nobody_else() {
    with_tables(|database, _, tree| {
        let call = |more: &str| {
            format!(
                "'{}' ingest TV --path '{}' {more}",
                env!("CARGO_BIN_EXE_media-assets"),
                tree.0.display()
            )
        };
        let on_terminal = |more: &str| {
            // util-linux's script gives the program a terminal
            let mut command = Command::new("script");
            command.env_clear().envs(
                program(database)
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            );
            command
                .env("PATH", std::env::var_os("PATH").unwrap_or_default())
                .env("TERM", "xterm");
            command
                .args(["-qec", &call(more), "/dev/null"])
                .stdin(std::process::Stdio::null());
            let output = command.output().expect("script runs");
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        // a scan that is over in a moment needs no bar
        for number in 0..3000 {
            fs::write(tree.0.join(format!("{number}.mkv")), "").expect("a file");
        }
        assert!(on_terminal("").contains("files sent"));
        assert!(!on_terminal("--json").contains("files sent"), "never beside JSON");
        let output = ingest(database, tree, &[]);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("files sent"));
    });
}
