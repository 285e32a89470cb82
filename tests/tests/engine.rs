//! The engine knows no lessons: a second, tiny job runs on it (the build feature `tiny_job`, which `make test` sets).

use media_assets_tests::{each_server, Server, Session};

fn words(server: &Server) -> (media_assets_tests::Database, Session) {
    let database = server.database();
    let mut session = database.session();
    session.run("CREATE TABLE tiny (id bigint PRIMARY KEY, word text NOT NULL, shouted text)");
    session.run("INSERT INTO tiny SELECT n, 'word ' || n, CASE WHEN n % 10 = 0 THEN 'WORD ' || n END FROM generate_series(1, 1234) n");
    (database, session)
}

fn counts(session: &mut Session, call: &str) -> Vec<i64> {
    let rows = session.rows(&format!(
        "SELECT scanned, shouted, unchanged, errors, batches FROM {call}"
    ));
    rows[0]
        .iter()
        .map(|value| value.as_deref().unwrap_or("").parse().expect("a counter"))
        .collect()
}

#[test]
fn a_second_job_has_batches_a_dry_run_and_a_second_look() {
    each_server(|server| {
        let (_database, mut session) = words(server);
        session.run("BEGIN READ ONLY");
        assert_eq!(
            counts(&mut session, "run_tiny_job(500, false)"),
            [1234, 1111, 123, 0, 3]
        );
        assert!(session.is_true("SELECT pg_current_xact_id_if_assigned() IS NULL"));
        session.run("COMMIT");
        assert_eq!(counts(&mut session, "run_tiny_job(500, true)"), [1234, 1111, 123, 0, 3]);
        assert_eq!(counts(&mut session, "run_tiny_job(7, true)"), [1234, 0, 1234, 0, 177]);
        assert_eq!(
            session.number("SELECT count(*) FROM tiny WHERE shouted = upper(word)"),
            1234
        );
    });
}

#[test]
fn a_failing_row_of_a_second_job_costs_itself_only() {
    each_server(|server| {
        let (_database, mut session) = words(server);
        session.run("ALTER TABLE tiny ADD CHECK (shouted NOT LIKE '%77')");
        assert_eq!(
            counts(&mut session, "run_tiny_job(1000, true)"),
            [1234, 1099, 123, 12, 2]
        );
        assert_eq!(session.number("SELECT count(*) FROM tiny WHERE shouted IS NULL"), 12);
        let warnings = session.take_warnings();
        assert_eq!(warnings.len(), 12);
        assert!(
            warnings[0].message().contains("word 77 could not be written"),
            "{}",
            warnings[0].message()
        );
        assert!(
            warnings[0].message().contains("SQLSTATE 23514"),
            "{}",
            warnings[0].message()
        );
    });
}

#[test]
fn a_second_job_checks_its_arguments_as_every_job() {
    each_server(|server| {
        let (_database, mut session) = words(server);
        for call in [
            "run_tiny_job(0, true)",
            "run_tiny_job(NULL, true)",
            "run_tiny_job(100001, false)",
            "run_tiny_job(1, NULL)",
        ] {
            session.fails_with_hint("22023", &format!("SELECT * FROM {call}"));
        }
        session.run("SET media_assets.max_failures = 3; ALTER TABLE tiny ADD CHECK (shouted NOT LIKE '%7')");
        session.fails_with_hint("53400", "SELECT * FROM run_tiny_job(500, true)");
        assert_eq!(
            session.number("SELECT count(*) FROM tiny WHERE shouted IS NOT NULL"),
            123
        );
    });
}
