//! Committing runs over keys of assets: they end under live inserts, go on in sessions that write times in another way, and
//! are shared by the organizations that have assets.

use media_assets_tests::long::{
    await_rows, await_run, counter, join, last_run, resume, run_lessons, state, Background,
};
use media_assets_tests::{each_server, Application, Database, Session};

const KEYS: &str = "CALL run_backfill('asset_keys', batch => 1, execute => true)";
const REFRESH: &str = "CALL run_backfill('asset_keys', batch => 1, execute => true, options => '{\"refresh\": true}')";

/// Assets `first..=last` without a key, or with a wrong one, as an application without triggers leaves them.
fn add_assets(session: &mut Session, first: u32, last: u32, key: &str, created_at: &str) {
    session.run(&format!(
        "SET session_replication_role = replica;
         INSERT INTO assets (id, organization_id, kind, provider, storage_provider, storage_key, canonical_key, is_external, status, metadata, created_at)
         SELECT ('a0000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, (SELECT organization_id FROM \"group\" WHERE id = 1), 'video',
                'upload', 's3', n || '.mp4', {key}, false, 'active', '{{}}', {created_at}
         FROM generate_series({first}, {last}) n;
         RESET session_replication_role"
    ));
}

/// Makes the update of asset number 5 wait until the gate is opened.
fn close_gate(session: &mut Session) {
    session.run(
        "CREATE TABLE gate (opened boolean);
         CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             WHILE NOT EXISTS (SELECT FROM gate) LOOP PERFORM pg_sleep(0.01); END LOOP;
             RETURN NEW;
         END $$;
         CREATE TRIGGER wait_at_gate BEFORE UPDATE ON assets FOR EACH ROW
         WHEN (OLD.id::text LIKE '%000005') EXECUTE FUNCTION wait_at_gate()",
    );
}

fn start(database: &Database, session: &mut Session, settings: &str, call: &str) -> (i64, Background) {
    let run = Background::start(database, settings, call);
    session.wait_until(&format!(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = {} AND wait_event = 'PgSleep'",
        run.pid
    ));
    (last_run(session).expect("a run"), run)
}

fn unkeyed(session: &mut Session) -> i64 {
    session.number("SELECT count(*) FROM assets WHERE canonical_key IS NULL")
}

#[test]
fn rows_that_come_while_keys_are_given_are_left_to_the_next_run() {
    each_server(|server| {
        for call in [KEYS.to_owned(), REFRESH.to_owned(), run_lessons(1, "{}")] {
            let database = server.database();
            let mut session = database.session();
            let application = Application::create(&mut session);
            application.add_uploads(&mut session, 1, 3);
            session.run("ALTER TABLE assets ALTER COLUMN created_at DROP NOT NULL");
            add_assets(
                &mut session,
                1,
                10,
                "NULL",
                "'2024-05-06'::timestamptz + n * interval '1 day'",
            );
            add_assets(&mut session, 11, 14, "NULL", "NULL");
            add_assets(&mut session, 15, 16, "'upload:wrong/' || n", "'2024-05-06'");
            close_gate(&mut session);
            let (run_id, run) = start(&database, &mut session, "", &call);
            // behind the cursor and before the end, behind the end, and at no time at all
            add_assets(&mut session, 101, 103, "NULL", "'2024-05-16 00:00'");
            add_assets(&mut session, 104, 120, "NULL", "now() + n * interval '1 second'");
            add_assets(&mut session, 121, 130, "NULL", "NULL");
            add_assets(&mut session, 131, 140, "'upload:wrong/' || n", "now()");
            session.run("INSERT INTO gate VALUES (true)");
            run.finish();
            assert_eq!(state(&mut session, run_id), "finished", "{call}");
            // 101 to 103 are as old as the last one, and have greater ids
            let all: i64 = 3 + 17 + 10;
            assert_eq!(unkeyed(&mut session), all, "{call}");
            let wrong = session.number("SELECT count(*) FROM assets WHERE canonical_key LIKE 'upload:wrong/%'");
            assert_eq!(wrong, if call == REFRESH { 10 } else { 12 }, "{call}");
            if call == REFRESH {
                assert_eq!(counter(&mut session, run_id, "keyed"), 16);
            }
            session.run("DROP TRIGGER wait_at_gate ON assets");
            session.run(&call);
            assert_eq!(unkeyed(&mut session), 0, "{call}");
        }
    });
}

#[test]
fn a_table_without_creation_times_is_gone_through_by_ids_to_its_end() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let application = Application::create(&mut session);
        application.add_uploads(&mut session, 1, 3);
        add_assets(&mut session, 1, 10, "NULL", "now()");
        session.run("ALTER TABLE assets DROP COLUMN created_at CASCADE; SELECT * FROM prepare_asset_tables(true)");
        session.run("SET session_replication_role = replica; UPDATE assets SET canonical_key = NULL; RESET session_replication_role");
        close_gate(&mut session);
        let (run_id, run) = start(&database, &mut session, "", KEYS);
        session.run(
            "SET session_replication_role = replica;
             INSERT INTO assets (id, organization_id, kind, provider, storage_provider, storage_key, is_external, status, metadata)
             SELECT ('a0000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, (SELECT organization_id FROM \"group\" WHERE id = 1),
                    'video', 'upload', 's3', n || '.mp4', false, 'active', '{}' FROM generate_series(20, 29) n;
             RESET session_replication_role; INSERT INTO gate VALUES (true)",
        );
        run.finish();
        assert_eq!(counter(&mut session, run_id, "keyed"), 10);
        assert_eq!(unkeyed(&mut session), 10);
    });
}

#[test]
fn a_run_goes_on_in_a_session_that_writes_times_in_another_way() {
    each_server(|server| {
        let styles = ["SQL, DMY", "German", "Postgres, MDY", "ISO, YMD"];
        for (first, second) in styles.iter().zip(styles.iter().cycle().skip(1)) {
            let database = server.database();
            let mut session = database.session();
            Application::create(&mut session);
            // days that are months in another style
            add_assets(
                &mut session,
                1,
                12,
                "NULL",
                "'2024-01-05 10:11:12.131415'::timestamptz + n * interval '1 day 7 minutes'",
            );
            close_gate(&mut session);
            let settings = format!("SET datestyle = '{first}'; SET timezone = 'Asia/Kolkata'");
            let (run_id, run) = start(&database, &mut session, &settings, KEYS);
            session.run(&format!("SELECT pg_terminate_backend({}, 10000)", run.pid));
            let _ = run.join();
            session.run("DROP TRIGGER wait_at_gate ON assets");
            session.run(&format!(
                "SET datestyle = '{second}'; SET timezone = 'America/New_York'"
            ));
            session.run(&resume(run_id));
            assert_eq!(state(&mut session, run_id), "finished", "{first}, then {second}");
            assert_eq!(
                counter(&mut session, run_id, "rows_scanned"),
                12,
                "{first}, then {second}"
            );
            assert_eq!(unkeyed(&mut session), 0, "{first}, then {second}");
        }
    });
}

#[test]
fn sessions_share_a_run_over_keys_by_the_organizations_that_have_assets() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        Application::create(&mut session);
        add_assets(
            &mut session,
            1,
            60,
            "NULL",
            "'2024-01-01'::timestamptz + n * interval '1 hour'",
        );
        // two organizations, of which one knows nothing but its assets
        session.run("SET session_replication_role = replica; UPDATE assets SET organization_id = md5('other')::uuid WHERE right(id::text, 1) IN ('0', '2', '4', '6', '8'); RESET session_replication_role");
        let slow = "SET media_assets.batch_pause = '10ms'";
        let run = Background::start(&database, slow, KEYS);
        let run_id = await_run(&mut session);
        await_rows(&mut session, run_id, 2);
        let other = Background::start(&database, slow, &join(run_id));
        run.finish();
        other.finish();
        assert_eq!(counter(&mut session, run_id, "keyed"), 60);
        assert_eq!(unkeyed(&mut session), 0);
        assert_eq!(
            session.number(&format!(
                "SELECT count(*) FROM backfill_ranges WHERE run_id = {run_id} AND rows_done > 10"
            )),
            2,
            "each has one of them"
        );
    });
}
