//! An ingest that is broken off, in whatever way, has not happened; one on a hot standby predicts the one on the primary.

use std::process::{Command, Stdio};

use media_assets_tests::ingest::{add_collection, contents, counters, create_tables};
use media_assets_tests::long::Background;
use media_assets_tests::standby::Standby;
use media_assets_tests::{each_server, Cluster, Database, Session};

/// Items of every fate: created, updated, filled in, skipped, removed; and rows that are ready and approved.
fn fill(session: &mut Session, items: i64) {
    create_tables(session);
    add_collection(session, "TV");
    session.run(&format!(
        "SET media_assets.progress = off;
         INSERT INTO items (locator, size) SELECT '/m/' || n || '.mkv', CASE WHEN n % 7 > 0 THEN n END FROM generate_series(1, {items}) n;
         SELECT * FROM ingest_collection('TV', 'items', true);
         UPDATE collection_assets SET state = 'enriching' WHERE size % 3 = 0;
         UPDATE collection_assets SET state = 'ready', approved_for_broadcast = true WHERE size % 6 = 0;
         UPDATE items SET size = size + 1 WHERE size % 5 = 0; UPDATE items SET size = 77 WHERE size IS NULL;
         DELETE FROM items WHERE locator LIKE '%9.mkv'; INSERT INTO items (locator) SELECT '/new/' || n FROM generate_series(1, {items}) n"
    ));
}

const CALL: &str = "SELECT * FROM ingest_collection('TV', 'items', true, reconcile => true, max_removed_fraction => 1)";

/// Everything that a run writes: tables and ledger.
fn everything(session: &mut Session) -> Vec<String> {
    let mut all = contents(session, true);
    all.extend(
        session
            .rows(
                "SELECT to_jsonb(r)::text FROM backfill_runs r UNION ALL SELECT to_jsonb(c)::text FROM backfill_changes c
                 UNION ALL SELECT to_jsonb(d)::text FROM backfill_decisions d UNION ALL SELECT to_jsonb(q)::text FROM backfill_quarantine q ORDER BY 1",
            )
            .into_iter()
            .flatten()
            .flatten(),
    );
    all
}

/// Lets the run stop in its middle: at the 1,500th row that it writes it waits for a lock that `holder` has.
fn hold_in_the_middle(session: &mut Session, holder: &mut Session) {
    session.run(
        "CREATE SEQUENCE written;
         CREATE FUNCTION wait_in_the_middle() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
             IF nextval('written') = 1500 THEN SET LOCAL lock_timeout = 0; PERFORM pg_advisory_xact_lock(4711); END IF; RETURN NULL; END$$;
         CREATE TRIGGER wait_in_the_middle AFTER INSERT OR UPDATE ON collection_assets FOR EACH ROW EXECUTE FUNCTION wait_in_the_middle()",
    );
    holder.run("SELECT pg_advisory_lock(4711)");
}

fn wait_for_the_middle(session: &mut Session) {
    session.wait_until(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted)",
    );
}

/// The same call again does all of it.
fn goes_well_now(session: &mut Session, foreseen: &[i64]) {
    session.run("DROP TRIGGER wait_in_the_middle ON collection_assets");
    let done = counters(
        session,
        CALL.trim_start_matches("SELECT * FROM ingest_collection(")
            .trim_end_matches(')'),
    );
    assert_eq!(done, foreseen);
    assert_eq!(
        session.number("SELECT count(*) FROM verify_collection_assets() WHERE severity = 'error'"),
        0
    );
    assert_eq!(
        session.number("SELECT count(*) FROM collection_assets WHERE approved_for_broadcast AND is_deleted"),
        0
    );
}

fn foreseen(session: &mut Session) -> Vec<i64> {
    session.run("BEGIN READ ONLY");
    let foreseen = counters(session, "'TV', 'items', reconcile => true, max_removed_fraction => 1");
    session.run("COMMIT");
    foreseen
}

fn with_cluster(test: impl Fn(&Cluster, &Database, &mut Session, &[i64], &[String])) {
    each_server(|model| {
        let cluster = Cluster::like(model);
        let database = cluster.server.database();
        let mut session = database.session();
        fill(&mut session, 2000);
        let foreseen = foreseen(&mut session);
        let before = everything(&mut session);
        test(&cluster, &database, &mut session, &foreseen, &before);
    });
}

#[test]
fn a_cancelled_or_terminated_ingest_leaves_nothing() {
    with_cluster(|_, database, session, foreseen, before| {
        let mut holder = database.session();
        hold_in_the_middle(session, &mut holder);
        for end in ["pg_cancel_backend", "pg_terminate_backend"] {
            session.run("SELECT setval('written', 1)");
            let running = Background::start(database, "SET media_assets.progress = off", CALL);
            wait_for_the_middle(session);
            session.run(&format!("SELECT {end}({})", running.pid));
            let (_, outcome) = running.join();
            let state = outcome
                .expect_err("it was ended")
                .map(|error| error.code().code().to_owned());
            assert!(matches!(state.as_deref(), None | Some("57014" | "57P01")), "{state:?}");
            assert_eq!(everything(session), before, "{end}");
        }
        goes_well_now(session, foreseen);
    });
}

#[test]
fn an_ingest_whose_backend_is_killed_leaves_nothing() {
    with_cluster(|cluster, database, session, foreseen, before| {
        let mut holder = database.session();
        hold_in_the_middle(session, &mut holder);
        let running = Background::start(database, "SET media_assets.progress = off", CALL);
        wait_for_the_middle(session);
        cluster.kill_backend(running.pid);
        let _ = running.join();
        let mut after = cluster.session(database);
        after.run("SET media_assets.progress = off");
        assert_eq!(everything(&mut after), before);
        goes_well_now(&mut after, foreseen);
    });
}

#[test]
fn an_ingest_whose_client_is_gone_leaves_nothing() {
    with_cluster(|cluster, database, session, foreseen, before| {
        let mut holder = database.session();
        hold_in_the_middle(session, &mut holder);
        let (host, port) = cluster.server.address();
        let mut client = Command::new(
            cluster
                .server
                .programs
                .as_ref()
                .expect("a cluster has them")
                .join("psql"),
        )
        .args([
            "-Xq",
            "-h",
            &host,
            "-p",
            &port.to_string(),
            "-U",
            "postgres",
            "-d",
            &database.name,
        ])
        .args(["-c", "SET client_connection_check_interval = '20ms'", "-c", CALL])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("psql starts");
        wait_for_the_middle(session);
        client.kill().expect("killed");
        let _ = client.wait();
        session.wait_until("SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE 'SELECT * FROM ingest_collection%' AND pid <> pg_backend_pid()");
        assert_eq!(everything(session), before);
        goes_well_now(session, foreseen);
    });
}

#[test]
fn a_crash_of_the_server_leaves_nothing() {
    with_cluster(|cluster, database, session, foreseen, before| {
        let mut holder = database.session();
        hold_in_the_middle(session, &mut holder);
        let running = Background::start(database, "SET media_assets.progress = off", CALL);
        wait_for_the_middle(session);
        cluster.crash();
        let _ = running.join();
        cluster.start();
        let mut after = cluster.session(database);
        after.run("SET media_assets.progress = off");
        assert_eq!(everything(&mut after), before);
        goes_well_now(&mut after, foreseen);
    });
}

#[test]
fn looks_work_on_a_hot_standby_and_predict_the_run() {
    each_server(|server| {
        let standby = Standby::of(server);
        let database = server.database();
        let mut session = database.session();
        fill(&mut session, 300);
        let mut replica = standby.session(&database);
        replica.run("SET media_assets.progress = off");
        assert!(replica.is_true("SELECT pg_is_in_recovery()"));
        let call = "'TV', 'items', reconcile => true, max_removed_fraction => 1";
        let predicted = counters(&mut replica, call);
        let explained = replica.rows(&format!(
            "SELECT action, reason, count(*) FROM explain_ingest_collection({call}) GROUP BY 1, 2 ORDER BY 1, 2"
        ));
        replica.run("SELECT * FROM rekey_collection('TV')");
        let findings = "SELECT severity, finding, count(*) FROM verify_collection_assets() GROUP BY 1, 2 ORDER BY 1, 2";
        assert_eq!(replica.rows(findings), session.rows(findings));
        replica.fails("25006", CALL);
        replica.fails("25006", "SELECT * FROM rekey_collection('TV', true)");
        replica.fails("25006", "SELECT * FROM create_ingest_tables()");
        session.run("SET media_assets.log_decisions = 'all'");
        assert_eq!(counters(&mut session, &format!("{call}, execute => true")), predicted);
        let logged = session.rows(
            "SELECT action, reason, count(*) FROM backfill_decisions WHERE run_id = (SELECT max(run_id) FROM backfill_runs) GROUP BY 1, 2 ORDER BY 1, 2",
        );
        assert_eq!(logged, explained);
        // what the run did can be seen and taken back dry there, too
        let run = session.text("SELECT max(run_id) FROM backfill_runs");
        let mut replica = standby.session(&database);
        let undo =
            format!("SELECT values_scanned, items_restored, assets_removed, conflicts FROM undo_backfill({run})");
        assert_eq!(replica.rows(&undo), session.rows(&undo));
    });
}

#[test]
fn a_savepoint_that_is_rolled_back_takes_the_run_with_it_and_says_so() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        fill(&mut session, 50);
        let before = everything(&mut session);
        session.run("SET client_min_messages = log");
        session.take_notices();
        let events = |session: &mut Session, sql: &str| -> Vec<String> {
            session.run(sql);
            let said = session.take_notices();
            let ours = said
                .iter()
                .filter_map(|notice| notice.message().strip_prefix("media_assets run="));
            ours.filter_map(|line| line.split_once("event="))
                .map(|(_, event)| event.split(' ').next().unwrap_or_default().to_owned())
                .collect()
        };
        // a savepoint, and an exception block, whose transactions commit all the same
        assert_eq!(
            events(
                &mut session,
                &format!("BEGIN; SAVEPOINT a; {CALL}; ROLLBACK TO a; COMMIT")
            ),
            ["validated", "started", "finished", "rolled_back"]
        );
        assert_eq!(everything(&mut session), before);
        let block = format!(
            "DO $$BEGIN PERFORM * FROM ({CALL}) r; RAISE EXCEPTION 'no'; EXCEPTION WHEN OTHERS THEN NULL; END$$"
        );
        assert_eq!(
            events(&mut session, &block),
            ["validated", "started", "finished", "rolled_back"]
        );
        assert_eq!(everything(&mut session), before);
        // a savepoint that is released goes with what is around it
        assert_eq!(
            events(
                &mut session,
                &format!("BEGIN; SAVEPOINT a; SAVEPOINT b; {CALL}; RELEASE b; ROLLBACK TO a; COMMIT")
            ),
            ["validated", "started", "finished", "rolled_back"]
        );
        assert_eq!(
            events(&mut session, &format!("BEGIN; SAVEPOINT a; {CALL}; RELEASE a; COMMIT")),
            ["validated", "started", "finished", "committed"]
        );
        assert_eq!(events(&mut session, "BEGIN; SELECT 1; COMMIT"), Vec::<String>::new());
    });
}
