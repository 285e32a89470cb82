//! What the page promises of runs over published rows.

use media_assets_tests::jellyfin::{
    answered, board, call, gone, insert_item, insert_row, item, reasons, row, BASE, VERSION,
};
use media_assets_tests::{each_server, words, Session};
use serde_json::json;

#[test]
fn skips_are_remembered_and_no_row_starves_the_rest() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        for id in 1..=12 {
            insert_row(&mut session, &row(id, &format!("unknown{id}")));
        }
        insert_row(&mut session, &row(13, "known"));
        insert_item(&mut session, &answered("known"));
        // ten at a time, as the old script: its second run met the same ten rows for ever
        let ten = call(true, ", max_rows => 10");
        assert_eq!(session.counters(&ten).get("skipped_no_item"), 10);
        let second = session.counters(&ten);
        assert_eq!((second.get("rows_scanned"), second.get("enriched")), (3, 1));
        assert_eq!(session.counters(&ten).get("rows_scanned"), 0);

        // due again when the time has come
        session.run("UPDATE jellyfin_skips SET next_attempt_at = now() - interval '1 second' WHERE row_id = 3");
        assert_eq!(session.counters(&ten).get("rows_scanned"), 1);
        assert!(session.is_true("SELECT next_attempt_at > now() FROM jellyfin_skips WHERE row_id = 3"));
        // … when the item has changed
        insert_item(&mut session, &answered("unknown4"));
        assert_eq!(session.counters(&ten).get("enriched"), 1);
        // … and when the row has
        session.run("UPDATE studio_board SET meta = '{\"jellyfin_item_id\": \"known\"}' WHERE id = 5");
        assert_eq!(session.counters(&ten).get("enriched"), 1);
        assert_eq!(session.number("SELECT count(*) FROM jellyfin_skips"), 10);
        // a fetch that changes nothing changes nothing here
        session.run("UPDATE jellyfin_items SET fetched_at = now()");
        assert_eq!(session.counters(&ten).get("rows_scanned"), 0);
    });
}

#[test]
fn a_reason_that_time_does_not_change_is_opened_again_on_request() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        insert_row(&mut session, &row(1, "gone"));
        insert_row(&mut session, &row(2, "unknown"));
        insert_item(&mut session, &gone("gone"));
        session.run(&call(true, ""));
        assert_eq!(reasons(&mut session), "1 not_found, 2 no_item");
        assert!(session.is_true("SELECT next_attempt_at IS NULL FROM jellyfin_skips WHERE row_id = 1"));
        // it is no candidate any more, whatever the time
        assert_eq!(
            session.text("SELECT string_agg(row_id || ' ' || question, ',') FROM jellyfin_candidates()"),
            "2 item"
        );
        assert_eq!(session.number("SELECT reopen_jellyfin_skips()"), 1);
        assert_eq!(reasons(&mut session), "2 no_item");
        // what Jellyfin said is forgotten too, so that it is asked again
        assert_eq!(
            session
                .text("SELECT string_agg(row_id || ' ' || question, ',' ORDER BY row_id) FROM jellyfin_candidates()"),
            "1 item,2 item"
        );
        insert_item(&mut session, &answered("gone"));
        assert_eq!(session.counters(&call(true, "")).get("enriched"), 1);
        assert_eq!(session.number("SELECT reopen_jellyfin_skips(NULL, row_id => 7)"), 0);
        assert_eq!(session.number("SELECT reopen_jellyfin_skips(NULL)"), 1);
        session.fails_with_hint("22023", "SELECT reopen_jellyfin_skips('soon')");
    });
}

#[test]
fn an_ambiguous_row_that_is_opened_again_is_asked_for_again() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        insert_row(
            &mut session,
            &json!({"id": 1, "title": "Twice", "content_url": "s3://b/k.mp4", "status": "published", "meta": {"premiere_date": "2025-10-01"}}),
        );
        for id in ["one", "other"] {
            insert_item(
                &mut session,
                &json!({"item_id": id, "http_status": 200, "doc": item(id, "Twice", "2025-10-01T00:00:00.0000000Z")}),
            );
        }
        session.run(&call(true, ""));
        assert_eq!(reasons(&mut session), "1 ambiguous");
        assert_eq!(session.number("SELECT reopen_jellyfin_skips('ambiguous')"), 1);
        assert_eq!(
            session.number("SELECT count(*) FROM jellyfin_items"),
            0,
            "what was stored is forgotten"
        );
        assert_eq!(
            session.text("SELECT string_agg(row_id || ' ' || question, ',') FROM jellyfin_candidates()"),
            "1 search"
        );
    });
}

#[test]
fn what_jellyfin_has_to_be_asked() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        let dated = |id: i64, title: &str, item_id: Option<&str>| json!({"id": id, "title": title, "status": "published", "meta": {"premiere_date": "2025-10-01T05:00:00+09:00", "jellyfin_item_id": item_id}});
        insert_row(&mut session, &dated(1, "Straße", None));
        insert_row(&mut session, &dated(2, "Searched", None));
        insert_row(&mut session, &dated(3, "Known", None));
        insert_row(&mut session, &dated(4, "Moved", Some("gone")));
        insert_row(&mut session, &dated(5, "Broken", Some("broken")));
        insert_row(
            &mut session,
            &json!({"id": 6, "title": "Nothing", "status": "published", "meta": null}),
        );
        insert_item(
            &mut session,
            &json!({"item_id": "search:searched|2025-09-30", "doc": null, "http_status": 404}),
        );
        insert_item(
            &mut session,
            &json!({"item_id": "k", "doc": item("k", "KNOWN", "2025-09-30T23:00:00Z"), "http_status": 200}),
        );
        insert_item(&mut session, &gone("gone"));
        insert_item(
            &mut session,
            &json!({"item_id": "broken", "doc": null, "http_status": 500}),
        );
        let rows = session.rows(
            "SELECT row_id, item_id, search_name, search_date, search_key, question FROM jellyfin_candidates() ORDER BY row_id",
        );
        let rows: Vec<String> = rows
            .into_iter()
            .map(|row| {
                row.into_iter()
                    .map(|value| value.unwrap_or_else(|| "-".into()))
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        assert_eq!(
            rows,
            [
                "1 - Straße 2025-09-30 search:strasse|2025-09-30 search",
                "2 - Searched 2025-09-30 search:searched|2025-09-30 -",
                "3 - Known 2025-09-30 search:known|2025-09-30 -",
                "4 gone Moved 2025-09-30 search:moved|2025-09-30 search",
                "5 broken Broken 2025-09-30 search:broken|2025-09-30 item",
                "6 - - - - -",
            ]
        );
    });
}

#[test]
fn an_event_is_queued_once_for_a_version() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        insert_row(&mut session, &row(7, "known"));
        insert_item(&mut session, &answered("known"));
        session.run("UPDATE studio_board SET meta = meta || '{\"publish_event_sent_at\": \"2024-01-01\"}'");
        assert_eq!(session.counters(&call(true, "")).get("events_queued"), 1);
        // one that is there is kept; so are the digits of what is not ours
        assert_eq!(
            session.text("SELECT meta ->> 'publish_event_sent_at' FROM studio_board"),
            "2024-01-01"
        );
        assert_eq!(session.text("SELECT meta ->> 'kept' FROM studio_board"), "1.5");
        session.run("UPDATE studio_board SET meta = meta - 'jellyfin_public_url' - 'publish_event_sent_at'");
        for execute in [false, true] {
            let again = session.counters(&call(execute, ""));
            assert_eq!((again.get("enriched"), again.get("events_queued")), (1, 0), "{execute}");
        }
        // nothing was sent, so nothing says that it was
        assert!(session.is_true("SELECT NOT meta ? 'publish_event_sent_at' FROM studio_board"));
        assert_eq!(session.number("SELECT count(*) FROM event_outbox"), 1);
        session.run("UPDATE studio_board SET meta = meta - 'jellyfin_public_url'");
        let other = "SELECT * FROM backfill_jellyfin_metadata(execute => true, backfill_version => 'other', public_base => 'http://x/y/')";
        assert_eq!(session.counters(other).get("events_queued"), 1);
        assert_eq!(session.number("SELECT count(DISTINCT event_id) FROM event_outbox"), 2);
        assert_eq!(
            session.text("SELECT meta ->> 'jellyfin_public_url' FROM studio_board"),
            "http://x/y/web/index.html#!/details?id=known"
        );
    });
}

#[test]
fn markers_and_event_land_together_or_not_at_all() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        for id in 1..=30 {
            insert_row(&mut session, &row(id, "known"));
        }
        insert_item(&mut session, &answered("known"));
        session.run(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no event for 5'; END$$;
             CREATE TRIGGER refuse BEFORE INSERT ON event_outbox FOR EACH ROW WHEN (NEW.subject_id = '5') EXECUTE FUNCTION refuse();
             CREATE FUNCTION refuse_row() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'row % stays', NEW.id; END$$;
             CREATE TRIGGER refuse BEFORE UPDATE ON studio_board FOR EACH ROW WHEN (NEW.id = 11) EXECUTE FUNCTION refuse_row()",
        );
        let before = session.rows("SELECT meta::text FROM studio_board WHERE id IN (5, 11) ORDER BY id");
        let done = session.counters(&call(true, ""));
        assert_eq!(
            (done.get("enriched"), done.get("events_queued"), done.get("errors")),
            (28, 28, 2)
        );
        assert_eq!(
            before,
            session.rows("SELECT meta::text FROM studio_board WHERE id IN (5, 11) ORDER BY id")
        );
        assert_eq!(
            session.number("SELECT count(*) FROM event_outbox WHERE subject_id IN ('5', '11')"),
            0
        );
        assert_eq!(session.take_warnings().len(), 2);
        assert_eq!(
            session
                .rows("SELECT * FROM verify_jellyfin_metadata() WHERE severity = 'error'")
                .len(),
            2
        );
    });
}

#[test]
fn an_edit_that_comes_meanwhile_is_kept_and_decided_upon() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        for id in 1..=3 {
            insert_row(&mut session, &row(id, "known"));
        }
        insert_item(&mut session, &answered("known"));
        let mut editor = database.session();
        editor.run(
            "BEGIN;
             UPDATE studio_board SET meta = meta || '{\"note\": \"mine\"}', title = 'Edited' WHERE id = 2;
             UPDATE studio_board SET status = 'withdrawn' WHERE id = 3",
        );
        session.run("SET media_assets.lock_timeout = '20s'");
        let run = std::thread::spawn(move || session.counters(&call(true, "")));
        let mut watcher = database.session();
        watcher.wait_until("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')");
        editor.run("COMMIT");
        let done = run.join().expect("the run does not panic");
        assert_eq!(
            (
                done.get("rows_scanned"),
                done.get("enriched"),
                done.get("events_queued")
            ),
            (2, 2, 2)
        );
        assert_eq!(
            watcher.text("SELECT meta ->> 'note' FROM studio_board WHERE id = 2"),
            "mine"
        );
        assert_eq!(
            watcher.text("SELECT payload ->> 'title' FROM event_outbox WHERE subject_id = '2'"),
            "Edited"
        );
        assert!(watcher.is_true("SELECT NOT meta ? 'jellyfin_public_url' FROM studio_board WHERE id = 3"));
        assert_eq!(watcher.number("SELECT count(*) FROM event_outbox"), 2);
    });
}

#[test]
fn metadata_only_looks_past_what_is_wrong_with_the_event() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        insert_row(&mut session, &row(1, "known"));
        session.run("UPDATE studio_board SET content_url = NULL");
        insert_item(&mut session, &answered("known"));
        assert_eq!(session.counters(&call(true, "")).get("skipped_missing_artifact_uri"), 1);
        let only = session.counters(&call(true, ", mode => 'metadata_only'"));
        assert_eq!((only.get("enriched"), only.get("events_queued")), (1, 0));
        assert_eq!(reasons(&mut session), "");
    });
}

#[test]
fn explain_says_what_the_dry_run_counts() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        insert_row(&mut session, &row(1, "known"));
        insert_row(&mut session, &row(2, "gone"));
        insert_item(&mut session, &answered("known"));
        insert_item(&mut session, &gone("gone"));
        session.run("SET media_assets.backfill_version = '2025-10-14'; SET media_assets.jellyfin_public_base = 'https://watch.example'");
        session.run("BEGIN READ ONLY");
        let rows = session
            .rows("SELECT row_id, outcome, reason, item_id, queues_event FROM explain_jellyfin_metadata() ORDER BY 1");
        let predicted = session.value("SELECT payload::text FROM explain_jellyfin_metadata() WHERE row_id = 1");
        let id = session.value("SELECT event_id FROM explain_jellyfin_metadata() WHERE row_id = 1");
        let counters = session.counters("SELECT * FROM backfill_jellyfin_metadata()");
        session.run("COMMIT");
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(rows[0], [text("1"), text("enriched"), None, text("known"), text("t")]);
        assert_eq!(
            rows[1],
            [text("2"), text("skipped"), text("not_found"), None, text("f")]
        );
        assert_eq!((counters.get("enriched"), counters.get("skipped_not_found")), (1, 1));
        session.run("SELECT * FROM backfill_jellyfin_metadata(execute => true)");
        assert_eq!(predicted, session.value("SELECT payload::text FROM event_outbox"));
        assert_eq!(id, session.value("SELECT event_id FROM event_outbox"));
        assert!(!predicted.expect("a payload").contains("/media/secret"));
    });
}

#[test]
fn what_is_missing_is_said_in_one_error() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        let error = session.fails_with_hint("42P01", &call(true, ""));
        for word in [
            "studio_board",
            "jellyfin_items",
            "jellyfin_skips",
            "event_outbox",
            "create_jellyfin_tables()",
        ] {
            assert!(words(&error).contains(word), "{word}: {}", words(&error));
        }
        session.run("CREATE TABLE studio_board (id uuid PRIMARY KEY, title text, status text, meta json)");
        let error = session.fails_with_hint("42703", &call(false, ""));
        for word in ["namespace", "content_url", "meta is json", "id is uuid"] {
            assert!(words(&error).contains(word), "{word}: {}", words(&error));
        }
        session.run("DROP TABLE studio_board; SET client_min_messages = warning");
        session.run("CREATE TABLE studio_board (id bigint PRIMARY KEY, title text, namespace text, content_url text, status text, meta jsonb)");
        insert_row(&mut session, &row(1, "known"));
        // the dry run needs the board only
        assert_eq!(session.counters(&call(false, "")).get("skipped_no_item"), 1);
        session.fails_with_hint("42P01", "SELECT * FROM verify_jellyfin_metadata()");
        for bad in [
            "batch => 0",
            "execute => NULL",
            "mode => 'twice', backfill_version => 'v', public_base => 'http://x'",
            "mode => NULL, backfill_version => 'v', public_base => 'http://x'",
            "public_base => 'http://x'",
            "backfill_version => 'v'",
            "backfill_version => 'v', public_base => 'watch.example'",
            "backfill_version => 'v', public_base => 'http://me:secret@x'",
            "backfill_version => 'v', public_base => 'http://x?a=b'",
            "backfill_version => 'v', public_base => 'http://x/#top'",
            "backfill_version => 'v', public_base => 'http://x', max_rows => -1",
        ] {
            session.fails_with_hint("22023", &format!("SELECT * FROM backfill_jellyfin_metadata({bad})"));
        }
        session.run("SELECT * FROM create_jellyfin_tables()");
        session.fails("25006", &format!("BEGIN READ ONLY; {}", call(true, "")));
        session.fails_with_hint(
            "0A000",
            &format!("BEGIN ISOLATION LEVEL REPEATABLE READ; {}", call(true, "")),
        );
        // made once, and never altered
        let again = session.rows("SELECT executed FROM create_jellyfin_tables()");
        assert_eq!(again, vec![vec![Some("f".to_owned())]; 3]);
    });
}

#[test]
fn a_role_needs_what_the_run_does_and_no_more() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        insert_row(&mut session, &row(1, "known"));
        insert_row(&mut session, &row(2, "unknown"));
        insert_item(&mut session, &answered("known"));
        let role = server.role(&database);
        let name = &role.name;
        session.run(&format!(
            "GRANT SELECT ON studio_board, jellyfin_items TO {name}; GRANT SELECT, INSERT, UPDATE, DELETE ON jellyfin_skips TO {name};
             GRANT SELECT, INSERT ON event_outbox TO {name}"
        ));
        let mut worker = database.session_as(&role);
        assert_eq!(worker.counters(&call(false, "")).get("enriched"), 1);
        let error = worker.fails_with_hint("42501", &call(true, ""));
        assert!(words(&error).contains("UPDATE"), "{}", words(&error));
        session.run(&format!("GRANT UPDATE (meta) ON studio_board TO {name}"));
        assert_eq!(worker.counters(&call(true, "")).get("enriched"), 1);
        session.run("ALTER TABLE jellyfin_items ENABLE ROW LEVEL SECURITY");
        worker.fails_with_hint("42501", &call(false, ""));
    });
}

#[test]
fn views_with_the_columns_of_the_page_are_as_good_as_tables() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        session.run(
            "SET client_min_messages = warning;
             CREATE TABLE posts (post_id int PRIMARY KEY, headline varchar(80), tenant text, file text, phase text, data jsonb, secret text);
             CREATE VIEW studio_board AS SELECT post_id AS id, headline AS title, tenant AS namespace, file AS content_url, phase AS status, data AS meta FROM posts;
             SELECT * FROM create_jellyfin_tables()",
        );
        insert_row(&mut session, &row(1, "known"));
        insert_item(&mut session, &answered("known"));
        assert_eq!(session.counters(&call(true, "")).get("events_queued"), 1);
        assert_eq!(session.text("SELECT data ->> 'jellyfin_item_id' FROM posts"), "known");
    });
}

#[test]
fn rows_that_always_fail_keep_no_place_in_a_canary() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        for id in 1..=12 {
            insert_row(&mut session, &row(id, "known"));
        }
        insert_item(&mut session, &answered("known"));
        session.run(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'row % stays', NEW.id; END$$;
             CREATE TRIGGER refuse BEFORE UPDATE ON studio_board FOR EACH ROW WHEN (NEW.id <= 4) EXECUTE FUNCTION refuse();
             SET media_assets.progress = off",
        );
        let canary = |session: &mut Session, batch: i64| {
            let done = session.counters(&call(true, &format!(", max_rows => 4, batch => {batch}")));
            (done.get("rows_scanned"), done.get("enriched"), done.get("errors"))
        };
        // the four that fail come first, and are met again each time
        assert_eq!(canary(&mut session, 500), (8, 4, 4));
        // … and in a run that commits: its limit is that of the rows that could be written, too
        let options = format!("{{\"backfill_version\": \"{VERSION}\", \"public_base\": \"{BASE}\", \"max_rows\": 3}}");
        session.run(&format!("CALL run_backfill('jellyfin_metadata', 2, true, '{options}')"));
        assert_eq!(
            session.text("SELECT rows_done || ' ' || quarantined FROM backfill_progress ORDER BY run_id DESC LIMIT 1"),
            "7 4"
        );
        assert_eq!(session.number("SELECT count(*) FROM event_outbox"), 7);
        assert_eq!(canary(&mut session, 1), (5, 1, 4));
        assert_eq!(canary(&mut session, 3), (4, 0, 4));
        // when the cause is mended, the run that met them takes them up again
        session.run("DROP TRIGGER refuse ON studio_board");
        let run_id = session.number("SELECT run_id FROM backfill_runs WHERE mode = 'procedure'");
        assert_eq!(session.number(&format!("SELECT retry_quarantined({run_id})")), 4);
        session.run(&format!("CALL resume_backfill({run_id})"));
        assert_eq!(session.number("SELECT count(*) FROM event_outbox"), 12);
    });
}
