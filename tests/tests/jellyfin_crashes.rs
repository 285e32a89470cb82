//! Runs over published rows that a killed backend or a crashed server breaks off: resumed exactly, and taken back.

use media_assets_tests::jellyfin::{board, contents, long_board, BASE, VERSION};
use media_assets_tests::long::{await_rows, await_run, last_run, resume, rounds, state, Background};
use media_assets_tests::runs::dry_undo;
use media_assets_tests::{each_server, Cluster, Database, Session};

/// All that a run left, but for its times.
fn left(session: &mut Session, run_id: i64) -> Vec<Vec<Option<String>>> {
    session.rows(&format!(
        "SELECT 'board', id::text, (meta - 'publish_event_sent_at')::text || (meta ? 'publish_event_sent_at') FROM studio_board
         UNION ALL SELECT 'skip', row_id::text, reason || seen FROM jellyfin_skips
         UNION ALL SELECT 'event', event_id::text, payload::text || subject_id || state FROM event_outbox
         UNION ALL SELECT 'counters', '', sum(c.value) || ' ' || c.place FROM backfill_ranges r, unnest(r.counters) WITH ORDINALITY c(value, place)
                   WHERE run_id = {run_id} GROUP BY c.place
         UNION ALL SELECT 'change', action || relation || column_name || u.id, count(*)::text
                   FROM backfill_changes c, unnest(coalesce(c.ids, c.uuids::text[])) u(id) WHERE run_id = {run_id} GROUP BY 2
         ORDER BY 1, 2, 3"
    ))
}

fn empty(session: &mut Session) {
    session.run(
        "TRUNCATE studio_board, jellyfin_items, jellyfin_skips, event_outbox;
         TRUNCATE backfill_runs, backfill_ranges, backfill_requests, backfill_decisions, backfill_changes, backfill_quarantine, backfill_waits",
    );
    long_board(session, 300);
}

/// Starts a run and lets `strike` end it, again and again, until it has come to its end. Gives how often it was resumed.
fn under_blows(cluster: &Cluster, database: &Database, strike: &dyn Fn(i64)) -> (i64, u32) {
    let options = format!("{{\"backfill_version\": \"{VERSION}\", \"public_base\": \"{BASE}\"}}");
    let mut call = format!("CALL run_backfill('jellyfin_metadata', 7, true, '{options}')");
    let mut resumed = 0;
    loop {
        let mut session = cluster.session(database);
        let already = last_run(&mut session).map_or(0, |run| {
            session.number(&format!(
                "SELECT sum(rows_done) FROM backfill_ranges WHERE run_id = {run}"
            ))
        });
        let mut worker = cluster.session(database);
        worker.run("SET media_assets.batch_pause = '3ms'; SET media_assets.progress = off");
        let run = Background::start_in(worker, &call);
        let run_id = await_run(&mut session);
        // some batches further, at another place each time
        if already + 60 < 300 {
            await_rows(&mut session, run_id, already + 40 + i64::from(resumed));
            strike(run.pid);
        }
        let _ = run.join();
        let mut session = cluster.session(database);
        match state(&mut session, run_id).as_str() {
            "finished" => return (run_id, resumed),
            "interrupted" => resumed += 1,
            other => panic!("the run is {other}"),
        }
        call = resume(run_id);
        assert!(resumed < 50, "the run does not end");
    }
}

/// What it is, how it strikes the backend with that id, and how the run is taken back.
type Blow<'b> = (&'static str, &'b dyn Fn(i64), &'static str);

#[test]
fn runs_of_killed_backends_and_crashed_servers_are_resumed_exactly() {
    each_server(|server| {
        let cluster = Cluster::like(server);
        let database = cluster.server.database();
        let mut session = database.session();
        board(&mut session);
        empty(&mut session);
        let untouched = contents(&mut session);
        let (run_id, _) = under_blows(&cluster, &database, &|_| ());
        let expected = left(&mut session, run_id);
        drop(session);
        let crash = |_| {
            cluster.crash();
            cluster.start();
        };
        let blows: [Blow<'_>; 2] = [
            (
                "kill -9 of the backend",
                &|pid| cluster.kill_backend(pid),
                "SELECT * FROM undo_backfill(RUN, true)",
            ),
            (
                "crash of the server",
                &crash,
                "CALL run_backfill('undo', 50, true, '{\"run_id\": RUN}')",
            ),
        ];
        for (name, strike, undo) in blows {
            for _ in 0..rounds(1).min(5) {
                empty(&mut cluster.session(&database));
                let (run_id, resumed) = under_blows(&cluster, &database, strike);
                assert!(resumed >= 3, "{name} hit {resumed} times");
                let mut session = cluster.session(&database);
                assert_eq!(expected, left(&mut session, run_id), "{name}");
                // … and what was written in so many pieces is taken back, as one or in pieces
                let dry = dry_undo(&mut session, run_id);
                assert_eq!((dry.get("conflicts"), dry.get("errors")), (0, 0), "{name}");
                session.run("SET media_assets.progress = off");
                session.run(&undo.replace("RUN", &run_id.to_string()));
                assert_eq!(untouched, contents(&mut session), "{name}");
            }
        }
    });
}
