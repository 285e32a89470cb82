//! Long runs over published rows, and what undo, verification and pipelines make of them.

use media_assets_tests::jellyfin::{
    answered, board, call, contents, gone, insert_item, insert_row, long_board, reasons, row, BASE, VERSION,
};
use media_assets_tests::runs::{conflicts, undo};
use media_assets_tests::standby::Standby;
use media_assets_tests::{each_server, Session};
use serde_json::json;

#[test]
fn a_long_run_comes_to_what_the_function_predicts() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        session.run(
            "INSERT INTO studio_board SELECT n, 'T' || n, NULL, 's3://b/' || n, 'published', jsonb_build_object('jellyfin_item_id', 'i' || n % 50) FROM generate_series(1, 1200) n;
             INSERT INTO jellyfin_items SELECT 'i' || n, CASE WHEN n % 5 > 0 THEN jsonb_build_object('Id', 'i' || n) END, CASE WHEN n % 5 > 0 THEN 200 ELSE 404 END FROM generate_series(0, 49) n",
        );
        let dry = session.counters(&call(false, ""));
        assert_eq!((dry.get("enriched"), dry.get("skipped_not_found")), (960, 240));
        let options = format!("{{\"backfill_version\": \"{VERSION}\", \"public_base\": \"{BASE}\"}}");
        session.run(&format!(
            "CALL run_backfill('jellyfin_metadata', 100, true, '{options}')"
        ));
        let report = session.text("SELECT backfill_report(max(run_id)) FROM backfill_progress");
        assert!(
            report.contains("(jellyfin_metadata, procedure)") && report.contains("finished"),
            "{report}"
        );
        assert!(report.contains("960") && report.contains("240"), "{report}");
        assert_eq!(session.number("SELECT count(*) FROM event_outbox"), 960);
        assert_eq!(session.number("SELECT count(*) FROM jellyfin_skips"), 240);
        assert_eq!(
            session
                .rows("SELECT * FROM verify_jellyfin_metadata() WHERE severity = 'error'")
                .len(),
            0
        );
        // what undo needs: each cell with its text before and after, each row by its key
        let changes = session.rows(
            "SELECT action, relation, column_name, sum(cardinality(coalesce(ids, uuids::text[]))) FROM backfill_changes GROUP BY 1, 2, 3 ORDER BY 1, 2",
        );
        let changes: Vec<String> = changes
            .into_iter()
            .map(|row| row.into_iter().flatten().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            changes,
            [
                "cell_set public.studio_board meta 960",
                "row_inserted public.event_outbox event_id 960",
                "row_inserted public.jellyfin_skips row_id 240"
            ]
        );
        assert!(session.is_true(
            "SELECT bool_and(b.meta::text = u.became AND u.was::jsonb = jsonb_build_object('jellyfin_item_id', b.meta -> 'jellyfin_item_id'))
             FROM backfill_changes c, unnest(c.ids, c.before, c.after) u(id, was, became) JOIN studio_board b ON b.id = u.id::bigint
             WHERE c.action = 'cell_set'"
        ));
        session.fails_with_hint(
            "22023",
            "CALL run_backfill('jellyfin_metadata', 100, true, '{\"colour\": 1}')",
        );
    });
}

#[test]
fn undo_reports_what_the_world_has_seen_and_what_somebody_edited() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        for id in 1..=4 {
            insert_row(&mut session, &row(id, "known"));
        }
        insert_row(&mut session, &row(5, "gone"));
        insert_item(&mut session, &answered("known"));
        insert_item(&mut session, &gone("gone"));
        let before = session.rows("SELECT id, meta::text FROM studio_board ORDER BY id");
        let run_id = session.counters(&call(true, "")).get("run_id");
        session.run(
            "UPDATE event_outbox SET state = 'published', published_at = now(), envelope_id = 'e' WHERE subject_id = '1';
             UPDATE event_outbox SET claimed_by = 'a relay' WHERE subject_id = '2';
             UPDATE event_outbox SET attempts = 1, last_error = 'timeout' WHERE subject_id = '4';
             UPDATE studio_board SET meta = meta || '{\"note\": \"mine\"}' WHERE id = 3",
        );
        let named: Vec<String> = conflicts(&mut session, run_id)
            .into_iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        assert_eq!(named.len(), 4, "{named:?}");
        for reason in ["published 1", "claimed 1", "attempted 1"] {
            assert!(named.contains(&reason.to_owned()), "{reason}: {named:?}");
        }
        let undone = undo(&mut session, run_id);
        assert_eq!(
            (
                undone.get("conflicts"),
                undone.get("cells_restored"),
                undone.get("rows_removed")
            ),
            (4, 3, 2)
        );
        assert_eq!(
            session.text("SELECT string_agg(subject_id, ',' ORDER BY subject_id) FROM event_outbox"),
            "1,2,4"
        );
        assert_eq!(reasons(&mut session), "");
        let after = session.rows("SELECT id, meta::text FROM studio_board ORDER BY id");
        assert_eq!((&after[0], &after[1], &after[3]), (&before[0], &before[1], &before[3]));
        assert!(session.is_true(
            "SELECT meta ? 'jellyfin_public_url' AND meta ->> 'note' = 'mine' FROM studio_board WHERE id = 3"
        ));
        // what was published is not queued again by the same version
        let again = session.counters(&call(true, ""));
        assert_eq!((again.get("enriched"), again.get("events_queued")), (3, 0));
    });
}

#[test]
fn verification_finds_what_does_not_fit() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        for id in 1..=3 {
            insert_row(&mut session, &row(id, "known"));
        }
        insert_row(
            &mut session,
            &json!({"id": 4, "title": "EXAMPLE video", "content_url": "s3://b/4", "status": "published", "meta": {"premiere_date": "2025-10-01"}}),
        );
        insert_row(&mut session, &row(5, "unknown"));
        insert_item(&mut session, &answered("known"));
        let findings = |session: &mut Session| {
            session
                .rows("SELECT finding, row_id FROM verify_jellyfin_metadata() ORDER BY severity, finding, row_id")
                .into_iter()
                .map(|row| row.into_iter().flatten().collect::<Vec<_>>().join(" "))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            findings(&mut session),
            [
                "not_enriched 1",
                "not_enriched 2",
                "not_enriched 3",
                "not_enriched 4",
                "not_resolved 5"
            ]
        );
        session.run(&call(true, ""));
        assert_eq!(findings(&mut session), ["not_resolved 5"]);
        session.run(
            "UPDATE event_outbox SET payload = payload || '{\"title\": null}' WHERE subject_id = '1';
             UPDATE event_outbox SET payload = payload || '{\"description\": \"at /media/secret/known.mp4\"}' WHERE subject_id = '2';
             UPDATE event_outbox SET event_id = gen_random_uuid(), state = 'failed' WHERE subject_id = '3';
             DELETE FROM studio_board WHERE id IN (4, 5)",
        );
        assert_eq!(
            findings(&mut session),
            [
                "event_not_valid 1",
                "event_tells_path 2",
                "event_with_wrong_id 3",
                "event_failed 3",
                "event_without_row 4"
            ]
        );
        // an id of any length that a bigint has
        session.run("UPDATE event_outbox SET subject_id = '9223372036854775808' WHERE subject_id = '4'");
        assert!(
            findings(&mut session).contains(&"event_without_row".to_owned()),
            "{:?}",
            findings(&mut session)
        );
        session.run(
            "INSERT INTO studio_board (id, title, content_url, status, meta) VALUES (9223372036854775807, 'Far', 's3://b/far.mp4', 'published', '{\"jellyfin_item_id\": \"known\"}')",
        );
        session.run(&call(true, ""));
        assert_eq!(
            session.number("SELECT count(*) FROM event_outbox WHERE subject_id = '9223372036854775807'"),
            1
        );
        assert_eq!(
            session.number("SELECT count(*) FROM verify_jellyfin_metadata() WHERE detail LIKE '%9223372036854775807%'"),
            0
        );
        // a key that is the path is a place in a bucket, and a blank of any kind is no link
        session.run(
            "TRUNCATE event_outbox; DELETE FROM studio_board WHERE id <> 1;
             UPDATE studio_board SET content_url = 's3://b/media/secret/known.mp4', meta = '{\"jellyfin_item_id\": \"known\", \"jellyfin_public_url\": \" \\u2003\\ufeff\"}'",
        );
        assert_eq!(findings(&mut session), ["not_enriched 1"]);
        session.run(&call(true, ""));
        assert_eq!(findings(&mut session), Vec::<String>::new());
        assert_eq!(
            session.text("SELECT payload ->> 'published_path' FROM event_outbox"),
            "media/secret/known.mp4"
        );
    });
}

#[test]
fn the_script_for_pipelines_shows_executes_and_verifies() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        for id in 1..=3 {
            insert_row(&mut session, &row(id, if id == 3 { "unknown" } else { "known" }));
        }
        insert_item(&mut session, &answered("known"));
        let script = |variables: &[(&str, &str)]| {
            let given = [("backfill_version", VERSION), ("public_base", BASE)];
            media_assets_tests::psql::run(database.script("backfill_jellyfin_metadata", &[&given, variables].concat()))
        };
        let dry = script(&[("sample_events", "1")]).with(0);
        assert!(
            dry.contains("s3://outputs/1.mp4") && !dry.contains("s3://outputs/2.mp4"),
            "{dry}"
        );
        assert!(dry.contains("Nothing was written"), "{dry}");
        assert_eq!(session.number("SELECT count(*) FROM event_outbox"), 0);
        // a canary, then the rest
        script(&[("execute", "true"), ("max_rows", "1")]).with(0);
        assert_eq!(session.number("SELECT count(*) FROM event_outbox"), 1);
        let all = script(&[("execute", "true"), ("summary", "off")]).with(0);
        assert!(
            all.contains("verified: no errors") && all.contains("not_resolved"),
            "{all}"
        );
        assert_eq!(session.number("SELECT count(*) FROM event_outbox"), 2);
        let nameless = media_assets_tests::psql::run(database.script("backfill_jellyfin_metadata", &[])).with(3);
        assert!(nameless.contains("backfill_version is not given"), "{nameless}");
    });
}

#[test]
fn undo_brings_back_the_skips_that_were_there() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        for id in 1..=5 {
            insert_row(&mut session, &row(id, &format!("item{id}")));
        }
        insert_item(&mut session, &gone("item2"));
        let untouched = contents(&mut session);
        session.run("SET TimeZone = 'Asia/Tokyo'");
        let first = session.counters(&call(true, ", max_rows => 4")).get("run_id");
        assert_eq!(reasons(&mut session), "1 no_item, 2 not_found, 3 no_item, 4 no_item");

        // the first is found, the second and third look different now, the fourth is due again, the fifth is new
        insert_item(&mut session, &answered("item1"));
        session.run(
            "UPDATE jellyfin_items SET http_status = 500 WHERE item_id = 'item2';
             UPDATE jellyfin_skips SET next_attempt_at = now() - interval '1 day', skipped_at = skipped_at - interval '1 day' WHERE row_id = 4",
        );
        insert_item(&mut session, &gone("item3"));
        session.run("SET TimeZone = 'UTC'");
        let before = contents(&mut session);
        session.run("SET TimeZone = 'America/New_York'");
        let second = session.counters(&call(true, "")).get("run_id");
        assert_eq!(reasons(&mut session), "2 no_item, 3 not_found, 4 no_item, 5 no_item");
        assert_eq!(session.number("SELECT count(*) FROM event_outbox"), 1);

        // somebody gave the fourth more time since
        session.run("CREATE TABLE kept AS SELECT * FROM jellyfin_skips WHERE row_id = 4; UPDATE jellyfin_skips SET next_attempt_at = 'infinity' WHERE row_id = 4");
        session.run("SET TimeZone = 'Europe/Berlin'");
        assert_eq!(conflicts(&mut session, second), [("row_changed".to_owned(), 1)]);
        session.run("DELETE FROM jellyfin_skips WHERE row_id = 4");
        assert_eq!(conflicts(&mut session, second), [("row_gone".to_owned(), 1)]);
        session.run("INSERT INTO jellyfin_skips SELECT * FROM kept");
        let undone = undo(&mut session, second);
        // meta of one; the skips of four rows
        assert_eq!(
            (
                undone.get("cells_restored"),
                undone.get("rows_removed"),
                undone.get("conflicts"),
                undone.get("errors")
            ),
            (5, 2, 0, 0)
        );
        session.run("SET TimeZone = 'UTC'");
        assert_eq!(before, contents(&mut session), "row for row");
        let again = session.counters(&format!("SELECT * FROM undo_backfill({second}, true)"));
        assert_eq!(again.get("already_undone"), again.get("values_scanned"));

        session.run("DELETE FROM jellyfin_items WHERE item_id <> 'item2'; UPDATE jellyfin_items SET http_status = 404");
        undo(&mut session, first);
        let without_items = |rows: Vec<Vec<Option<String>>>| -> Vec<_> {
            rows.into_iter()
                .filter(|row| row[0].as_deref() != Some("item"))
                .collect()
        };
        assert_eq!(without_items(untouched), without_items(contents(&mut session)));
    });
}

#[test]
fn an_undo_of_skips_needs_the_rights_to_write_them() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        insert_row(&mut session, &row(1, "unknown"));
        let role = server.role(&database);
        let name = &role.name;
        session.run(&format!(
            "GRANT SELECT, UPDATE ON studio_board TO {name}; GRANT SELECT ON jellyfin_items TO {name};
             GRANT SELECT, INSERT, UPDATE, DELETE ON jellyfin_skips TO {name}; GRANT SELECT, INSERT ON event_outbox TO {name}"
        ));
        let mut worker = database.session_as(&role);
        worker.run(&call(true, ""));
        session.run("UPDATE jellyfin_skips SET next_attempt_at = now() - interval '1 day'");
        let run_id = worker.counters(&call(true, "")).get("run_id");
        session.run(&format!("REVOKE INSERT ON jellyfin_skips FROM {name}"));
        let undo = format!("SELECT * FROM undo_backfill({run_id}, true)");
        worker.fails_with_hint("42501", &undo);
        session.run(&format!("GRANT INSERT ON jellyfin_skips TO {name}"));
        assert_eq!(worker.counters(&undo).get("cells_restored"), 1);
        assert!(session.is_true("SELECT next_attempt_at < now() FROM jellyfin_skips"));
    });
}

#[test]
fn every_look_works_on_a_hot_standby_and_predicts_the_run() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        long_board(&mut session, 300);
        insert_row(&mut session, &row(1000, "unasked"));
        let standby = Standby::of(server);
        let mut replica = standby.session(&database);
        assert!(replica.is_true("SELECT pg_is_in_recovery()"));
        replica.run("BEGIN READ ONLY");
        let dry = replica.counters(&call(false, ""));
        let explained = replica.rows(&format!(
            "SELECT row_id, outcome, reason, event_id, payload::text FROM explain_jellyfin_metadata(backfill_version => '{VERSION}', public_base => '{BASE}') ORDER BY 1"
        ));
        assert_eq!(
            replica.text(
                "SELECT string_agg(row_id || question, ',') FROM jellyfin_candidates() WHERE question IS NOT NULL"
            ),
            "1000item"
        );
        assert_eq!(
            replica.number("SELECT count(*) FROM verify_jellyfin_metadata() WHERE finding = 'not_enriched'"),
            240
        );
        replica.run("COMMIT");
        assert_eq!(explained.len() as i64, dry.get("rows_scanned"));
        replica.fails("25006", &call(true, ""));
        replica.fails("25006", "SELECT reopen_jellyfin_skips()");
        replica.fails("25006", "SELECT * FROM create_jellyfin_tables()");
        assert_eq!(session.counters(&call(true, "")), dry);
        let events: Vec<_> = explained
            .into_iter()
            .filter(|row| row[3].is_some())
            .map(|mut row| row.split_off(3))
            .collect();
        assert_eq!(
            session.rows("SELECT event_id, payload::text FROM event_outbox ORDER BY subject_id::bigint"),
            events
        );
        // the standby sees the work, and predicts what undo does
        let mut replica = standby.session(&database);
        assert_eq!(replica.counters(&call(false, "")).get("rows_scanned"), 0);
        assert_eq!(
            replica.number("SELECT count(*) FROM verify_jellyfin_metadata() WHERE severity = 'error'"),
            0
        );
        let undone = replica.counters("SELECT * FROM undo_backfill(1)");
        assert_eq!((undone.get("conflicts"), undone.get("rows_removed")), (0, 240 + 52));
    });
}
