//! The defects of the program that the ingest replaces, as its page lists them: each test would fail on it.

use std::fs;

use media_assets_tests::ingest::{add_collection, contents, counters, create_tables, INGEST_COUNTERS};
use media_assets_tests::{each_server, literal, unique, Database, Session};

fn with_collection(test: impl Fn(&Database, &mut Session)) {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        create_tables(&mut session);
        add_collection(&mut session, "TV");
        session.run("SET media_assets.progress = off");
        test(&database, &mut session);
    });
}

/// Counters that are not 0, in words.
fn told(session: &mut Session, call: &str) -> String {
    let values = counters(session, call);
    let told = INGEST_COUNTERS.iter().zip(values).filter(|(_, value)| *value != 0);
    let told: Vec<String> = told
        .map(|(name, value)| format!("{}={value}", name.replace("assets_", "")))
        .collect();
    told.join(" ")
}

/// A directory of real files, removed when the value goes, and a view `files` of them.
struct Tree(std::path::PathBuf);

impl Tree {
    fn new(session: &mut Session, names: &[&str]) -> Self {
        let root = std::env::temp_dir().join(unique("media_assets_defects"));
        for name in names {
            let file = root.join(name);
            fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
            fs::write(file, name).expect("a file");
        }
        let path = literal(root.to_str().expect("utf-8"));
        session.run(&format!("CREATE VIEW files AS SELECT * FROM discover_files({path})"));
        Tree(root)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn names(session: &mut Session, condition: &str) -> String {
    session
        .value(&format!(
            "SELECT string_agg(substring(uri FROM '[^/]*$'), ' | ' ORDER BY uri COLLATE \"C\") FROM collection_assets WHERE {condition}"
        ))
        .unwrap_or_default()
}

#[test]
fn one_duplicate_key_loses_no_run() {
    with_collection(|_, session| {
        session.run("INSERT INTO items (locator, size) VALUES ('/m/a.mkv', 1), ('/m//a.mkv', 1), ('/m/./a.mkv', 1), ('/m/b.mkv', 1)");
        let call = "'TV', 'items', execute => true";
        assert_eq!(told(session, call), "discovered=4 ingested=2 duplicates_prevented=2");
        assert_eq!(told(session, call), "discovered=4 skipped=2 duplicates_prevented=2");
        assert_eq!(session.number("SELECT count(*) FROM collection_assets"), 2);
    });
}

#[test]
fn one_odd_file_name_loses_no_run() {
    with_collection(|_, session| {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let odd = [
            "plain.mkv",
            "it's \"quoted\"; DROP TABLE items.mkv",
            "tab\tnew\nline.mkv",
            "100% _ \\ $1 {}.mkv",
            "日本語 é.mkv",
            "-rf.mkv",
        ];
        let tree = Tree::new(session, &odd);
        fs::write(tree.0.join(OsStr::from_bytes(b"latin \xe9.mkv")), "").expect("a file");
        assert_eq!(
            told(session, "'TV', 'files', execute => true"),
            "discovered=7 ingested=6 failed=1"
        );
        assert!(session.is_true(
            "SELECT count(*) = 6 FROM collection_assets a WHERE EXISTS (SELECT FROM files f WHERE f.locator = a.uri)"
        ));
    });
}

#[test]
fn one_check_violation_loses_no_run() {
    with_collection(|_, session| {
        session.run(
            "ALTER TABLE collection_assets ADD CHECK (size <> 13);
             INSERT INTO items (locator, size) SELECT '/m/' || n || '.mkv', n FROM generate_series(1, 250) n",
        );
        let call = "'TV', 'items', execute => true";
        assert_eq!(told(session, call), "discovered=250 ingested=249 failed=1");
        // an update that the lifecycle or a CHECK refuses is one row too
        session.run("UPDATE items SET size = 13 WHERE size = 200");
        assert_eq!(told(session, call), "discovered=250 skipped=248 failed=2");
        assert!(session.is_true("SELECT size = 200 FROM collection_assets WHERE uri = '/m/200.mkv'"));
        assert_eq!(
            session.rows("SELECT item_key, sqlstate FROM backfill_quarantine ORDER BY run_id, item_key COLLATE \"C\""),
            [["/m/13.mkv", "23514"], ["/m/13.mkv", "23514"], ["/m/200.mkv", "23514"]]
                .map(|row| row.map(|text| Some(text.to_owned())))
        );
    });
}

#[test]
fn a_unique_constraint_of_the_users_own_is_told_as_what_it_is() {
    with_collection(|_, session| {
        session.run(
            "ALTER TABLE collection_assets ADD CONSTRAINT one_title UNIQUE (title);
             INSERT INTO items (locator, title) VALUES ('/m/a.mkv', 'A'), ('/m/b.mkv', 'A'), ('/m/c.mkv', 'C')",
        );
        assert_eq!(
            told(session, "'TV', 'items', execute => true"),
            "discovered=3 ingested=2 failed=1"
        );
        let row = session.rows("SELECT item_key, sqlstate, message LIKE '%one_title%' FROM backfill_quarantine");
        assert_eq!(row, [["/m/b.mkv", "23505", "t"].map(|text| Some(text.to_owned()))]);
    });
}

#[test]
fn a_dry_run_writes_no_row() {
    with_collection(|_, session| {
        session.run(
            "INSERT INTO items (locator, size) SELECT '/m/' || n, n FROM generate_series(1, 300) n;
             SELECT * FROM ingest_collection('TV', 'items', true);
             UPDATE items SET size = size + 1 WHERE size % 2 = 0; DELETE FROM items WHERE size = 1; INSERT INTO items (locator) VALUES ('/m/new')",
        );
        let before = contents(session, true);
        let runs = session.number("SELECT count(*) FROM backfill_runs");
        for call in [
            "SELECT * FROM ingest_collection('TV', 'items')",
            "SELECT * FROM ingest_collection('TV', 'items', execute => false, reconcile => true)",
            "SELECT * FROM explain_ingest_collection('TV', 'items', reconcile => true)",
            "SELECT * FROM rekey_collection('TV')",
            "SELECT * FROM verify_collection_assets()",
        ] {
            // the caller's own transaction, which may write
            session.run("VACUUM");
            session.run("BEGIN");
            session.run(call);
            assert_eq!(session.value("SELECT pg_current_xact_id_if_assigned()"), None, "{call}");
            session.run("COMMIT");
            let written = session.wal_bytes(call);
            assert!(written < 200, "{call} wrote {written} bytes of WAL");
        }
        assert_eq!(contents(session, true), before);
        assert_eq!(session.number("SELECT count(*) FROM backfill_runs"), runs);
    });
}

#[test]
fn files_that_differ_in_case_or_behind_a_hash_sign_are_two() {
    with_collection(|_, session| {
        let tree = Tree::new(
            session,
            &[
                "B.mkv",
                "b.mkv",
                "Movie #1.mkv",
                "Movie #2.mkv",
                "Movie?x=1.mkv",
                "Movie?x=2.mkv",
            ],
        );
        assert_eq!(
            told(session, "'TV', 'files', execute => true"),
            "discovered=6 ingested=6"
        );
        fs::write(tree.0.join("Movie #2.mkv"), "of another length").expect("a file");
        assert_eq!(
            told(session, "'TV', 'files', execute => true"),
            "discovered=6 updated=1 skipped=5 changed_content=1"
        );
        assert_eq!(names(session, "updated_at > created_at"), "Movie #2.mkv");
    });
}

#[test]
fn scope_filters_are_obeyed() {
    with_collection(|_, session| {
        let tree = Tree::new(
            session,
            &[
                "Show/Season 01/Show - S01E01.mkv",
                "Show/Season 01/Show - S01E02.mkv",
                "Show/Season 02/Show - S02E01.mkv",
                "Show (2003)/Season 01/Show (2003) - S01E01.mkv",
                "Film (1999).mkv",
            ],
        );
        let call = |scope: &str| format!("'TV', 'files', execute => true{scope}");
        assert_eq!(
            told(session, &call(", title => 'Show', season => 1, episode => 2")),
            "discovered=1 ingested=1"
        );
        assert_eq!(names(session, "true"), "Show - S01E02.mkv");
        assert_eq!(
            told(session, &call(", title => 'Show', season => 1")),
            "discovered=2 ingested=1 skipped=1"
        );
        assert_eq!(
            told(session, &call(", title => 'Show'")),
            "discovered=3 ingested=1 skipped=2"
        );
        // titles are compared exactly: no pattern, no other case, nothing trimmed
        let before = contents(session, true);
        for title in ["show", "Show%", "Show ", "%", "Sh_w", ""] {
            let call = format!(
                "SELECT * FROM ingest_collection({})",
                call(&format!(", title => {}", literal(title)))
            );
            session.fails_with_hint("P0002", &call);
        }
        assert_eq!(contents(session, true), before);
        // a change outside of the scope is not looked at
        fs::write(tree.0.join("Film (1999).mkv"), "longer than it was before").expect("a file");
        assert_eq!(told(session, &call("")), "discovered=5 ingested=2 skipped=3");
        fs::write(tree.0.join("Film (1999).mkv"), "short").expect("a file");
        assert_eq!(told(session, &call(", title => 'Show'")), "discovered=3 skipped=3");
        assert_eq!(
            told(session, &call(", title => 'Film (1999)'")),
            "discovered=1 updated=1 changed_content=1"
        );
    });
}

#[test]
fn what_was_not_looked_at_is_never_soft_deleted() {
    with_collection(|_, session| {
        session.run(
            "INSERT INTO items (locator, title, season) SELECT '/m/' || n || '.mkv', 'Show ' || n % 2, n FROM generate_series(1, 20) n;
             SELECT * FROM ingest_collection('TV', 'items', true);
             CREATE VIEW half AS SELECT * FROM items WHERE season <= 10; CREATE VIEW none AS SELECT * FROM items WHERE false;
             CREATE VIEW unkeyed AS SELECT * FROM items UNION ALL SELECT (items).* FROM (SELECT ROW(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::items AS items) i",
        );
        let deleted = "SELECT count(*) FROM collection_assets WHERE is_deleted";
        // half of the files, one title, one season, no reconciliation asked for
        for scope in [
            "'half'",
            "'items', title => 'Show 1'",
            "'items', title => 'Show 1', season => 3",
            "'none'",
        ] {
            told(session, &format!("'TV', {scope}, execute => true"));
            assert_eq!(session.number(deleted), 0, "{scope}");
        }
        // asked for, and refused: nothing of that run stays
        let before = contents(session, true);
        for (state, scope) in [
            ("55000", "'half', reconcile => true"),
            ("55000", "'none', reconcile => true, max_removed_fraction => 1"),
            ("55000", "'unkeyed', reconcile => true, max_removed_fraction => 1"),
            (
                "22023",
                "'items', reconcile => true, title => 'Show 1', max_removed_fraction => 1",
            ),
        ] {
            for execute in [false, true] {
                session.fails_with_hint(
                    state,
                    &format!("SELECT * FROM ingest_collection('TV', {scope}, execute => {execute})"),
                );
            }
        }
        assert_eq!(contents(session, true), before);
        // another collection's rows are not in question
        add_collection(session, "Films");
        session.run(
            "SELECT * FROM ingest_collection('Films', 'half', true, reconcile => true, max_removed_fraction => 1)",
        );
        assert_eq!(session.number(deleted), 0);
    });
}

#[test]
fn last_ingest_time_moves_once_with_every_run_that_succeeds() {
    with_collection(|_, session| {
        session.run(
            "INSERT INTO items (locator) SELECT '/m/' || n FROM generate_series(1, 1200) n;
             CREATE TABLE moved (at timestamptz);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO moved VALUES (NEW.last_ingest_time); RETURN NEW; END$$;
             CREATE TRIGGER note AFTER UPDATE ON collections FOR EACH ROW EXECUTE FUNCTION note()",
        );
        let time = "SELECT last_ingest_time::text FROM collections";
        assert_eq!(session.value(time), None);
        session.run("SELECT * FROM ingest_collection('TV', 'items')");
        assert_eq!(session.value(time), None, "not in a dry run");
        let mut last = None;
        for what in ["all created", "all skipped", "all skipped again"] {
            let said =
                session.text("SELECT last_ingest_time FROM ingest_collection('TV', 'items', true, batch => 100)");
            let now = session.value(time);
            assert_eq!(now.as_deref(), Some(said.as_str()), "{what}");
            assert!(now > last, "{what}: {now:?}");
            last = now;
        }
        assert_eq!(session.number("SELECT count(*) FROM moved"), 3, "once with each run");
        // not by a run that fails, and a dry run tells the last one
        session.fails(
            "P0002",
            "SELECT * FROM ingest_collection('TV', 'items', true, title => 'x')",
        );
        session.run("SET media_assets.max_failures = 0; ALTER TABLE collection_assets ADD CHECK (uri <> '/m/new'); INSERT INTO items (locator) VALUES ('/m/new')");
        session.fails("53400", "SELECT * FROM ingest_collection('TV', 'items', true)");
        assert_eq!(session.value(time), last);
        assert_eq!(
            session.value("SELECT last_ingest_time FROM ingest_collection('TV', 'items')"),
            last
        );
    });
}

#[test]
fn a_run_leaves_a_log_of_what_it_did_and_why() {
    with_collection(|_, session| {
        session.run(
            "INSERT INTO items (locator, size) VALUES ('/m/1', 1), ('/m/2', 2), ('/m/3', 3), ('/m/4', 4);
             SELECT * FROM ingest_collection('TV', 'items', true);
             UPDATE items SET size = 22 WHERE size = 2; UPDATE collection_assets SET state = 'retired' WHERE size = 3;
             DELETE FROM items WHERE size = 4; INSERT INTO items (locator) VALUES ('/m/5'), ('/m/./5'), (NULL);
             SET media_assets.log_decisions = 'all'",
        );
        let explained = session.rows(
            "SELECT coalesce(locator, ''), action, reason FROM explain_ingest_collection('TV', 'items') ORDER BY 1, 2, 3",
        );
        let run = session.text("SELECT run_id FROM ingest_collection('TV', 'items', true)");
        let logged = session.rows(&format!(
            "SELECT item_key, action, reason FROM backfill_decisions WHERE run_id = {run} ORDER BY 1, 2, 3"
        ));
        assert_eq!(logged, explained, "before and after");
        let words =
            |text: &[&str]| -> Vec<Option<String>> { text.iter().map(|text| Some((*text).to_owned())).collect() };
        assert_eq!(
            logged,
            [
                words(&["", "skip", "unkeyable"]),
                words(&["/m/./5", "create", "new_item"]),
                words(&["/m/1", "skip", "unchanged"]),
                words(&["/m/2", "update", "content_changed"]),
                words(&["/m/3", "skip", "retired"]),
                words(&["/m/5", "skip", "duplicate"]),
            ]
        );
        assert!(session
            .text(&format!("SELECT backfill_report({run})"))
            .contains("assets_ingested"));
        // bounded, whatever is asked for
        session.run("SET media_assets.log_decisions_limit = 2");
        let run = session.text("SELECT run_id FROM ingest_collection('TV', 'items', true)");
        assert_eq!(
            session.number(&format!("SELECT count(*) FROM backfill_decisions WHERE run_id = {run}")),
            2
        );
    });
}

#[test]
fn no_password_or_token_reaches_a_log() {
    with_collection(|_, session| {
        session.run(
            "INSERT INTO items (locator, size) VALUES ('smb://me:hunter2@nas/tv/a.mkv', 1), ('smb://me:hunter2@nas/tv/b.mkv', 13),
                 ('https://plex.test/a.mkv?X-Plex-Token=hunter2', 2), ('smb://me:hunter2@', 3);
             ALTER TABLE collection_assets ADD CONSTRAINT unlucky CHECK (size <> 13);
             SET media_assets.log_decisions = 'all'; SET client_min_messages = log",
        );
        session.take_notices();
        let run = session.text("SELECT run_id FROM ingest_collection('TV', 'items', true)");
        let said = session.take_notices();
        assert!(
            said.iter().any(|notice| notice.message().contains("unlucky")),
            "{said:?}"
        );
        assert!(!format!("{said:?}").contains("hunter2"), "{said:?}");
        let ledger = session.text(&format!(
            "SELECT concat((SELECT json_agg(d) FROM backfill_decisions d WHERE run_id = {run}),
                 (SELECT json_agg(q) FROM backfill_quarantine q WHERE run_id = {run}),
                 (SELECT json_agg(r) FROM backfill_runs r WHERE run_id = {run}), backfill_report({run}))"
        ));
        assert!(
            ledger.contains("nas/tv/b.mkv") && !ledger.contains("hunter2"),
            "{ledger}"
        );
    });
}
