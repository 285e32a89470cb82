//! `media-assets jellyfin` against a server that behaves badly.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use media_assets_tests::jellyfin::{run_client, KEY};
use media_assets_tests::relay::{enrich, honest, items, published_board, queued_board, with};
use media_assets_tests::stub::{Reply, Stub};
use media_assets_tests::{each_server, Session};
use serde_json::json;

#[test]
fn a_server_that_refuses_us_stops_the_call_at_once() {
    each_server(|server| {
        for status in [401, 403] {
            let (database, mut session) = queued_board(server, 5);
            session.run("TRUNCATE jellyfin_items; UPDATE studio_board SET meta = '{\"jellyfin_item_id\": \"new\"}' WHERE id = 5");
            let stub = Stub::start(move |_| Reply::Json(status, json!({"error": format!("no: {KEY}")})));
            let before = session
                .rows("SELECT event_id::text, attempts, state, claimed_by, last_error FROM event_outbox ORDER BY 1");
            for command in ["fetch", "publish"] {
                let refused = run_client(&database, &stub.base(), &with(command, &[]));
                assert_eq!(refused.code, Some(1), "{}", refused.text);
                assert!(refused.text.contains(&format!("HTTP {status}")), "{}", refused.text);
            }
            assert_eq!(stub.count(), 2, "each asked once");
            assert_eq!(session.number("SELECT count(*) FROM jellyfin_items"), 0);
            assert_eq!(
                before,
                session.rows(
                    "SELECT event_id::text, attempts, state, claimed_by, last_error FROM event_outbox ORDER BY 1"
                )
            );
            assert!(session.is_true("SELECT bool_and(next_attempt_at <= clock_timestamp()) FROM event_outbox"));
        }
    });
}

#[test]
fn a_server_that_says_when_to_come_again_is_obeyed() {
    each_server(|server| {
        let (database, mut session) = published_board(server, 1);
        let asked: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let stub = Stub::start(move |request| {
            let mut asked = asked.lock().expect("nothing panics while it holds this");
            let first = !asked.contains(&request.method);
            asked.push(request.method.clone());
            match first {
                true if request.method == "GET" => Reply::Later(429, "1".into()),
                true => Reply::Later(503, "1".into()),
                false => honest(request),
            }
        });
        for command in ["fetch", "publish"] {
            let done = run_client(&database, &stub.base(), &with(command, &[]));
            assert_eq!(done.code, Some(0), "{}", done.text);
            enrich(&mut session);
        }
        let requests = stub.requests();
        assert_eq!(requests.len(), 4);
        for pair in requests.chunks(2) {
            assert!(
                pair[1].at - pair[0].at >= Duration::from_millis(1000),
                "{:?}",
                pair[1].at - pair[0].at
            );
        }
        assert_eq!(session.text("SELECT state || attempts FROM event_outbox"), "published2");
    });
}

#[test]
fn an_answer_that_the_database_refuses_costs_itself_only() {
    each_server(|server| {
        let (database, mut session) = published_board(server, 3);
        let stub = Stub::start(|request| {
            let mut found = items(request);
            for item in found["Items"].as_array_mut().into_iter().flatten() {
                if item["Id"] == "i2" {
                    // a number that JSON allows and jsonb does not
                    item["CommunityRating"] = serde_json::from_str("1e200000").expect("a number of any size");
                }
            }
            Reply::Json(200, found)
        });
        for _ in 0..2 {
            let fetched = run_client(&database, &stub.base(), &with("fetch", &[]));
            assert_eq!(fetched.code, Some(4), "{}", fetched.text);
            assert!(fetched.text.contains("22003"), "{}", fetched.text);
            assert_eq!(
                session.text("SELECT string_agg(concat_ws(' ', item_id, http_status, error IS NULL), ', ' ORDER BY item_id) FROM jellyfin_items"),
                "i1 200 t, i2 f, i3 200 t"
            );
        }
        enrich(&mut session);
        assert_eq!(session.number("SELECT count(*) FROM event_outbox"), 2);
    });
}

#[test]
fn one_bad_item_costs_itself_only() {
    each_server(|server| {
        let (database, mut session) = published_board(server, 9);
        let stub = Stub::start(|request| match request.parameter("ids") {
            Some(ids) if ids.split(',').any(|id| id == "i3") => Reply::Json(500, json!({"error": "broken"})),
            Some(ids) if ids.split(',').any(|id| id == "i5") => Reply::Half(items(request)),
            Some(ids) if ids.split(',').any(|id| id == "i6") => Reply::Json(200, json!([])),
            Some(ids) if ids.split(',').any(|id| id == "i8") => {
                Reply::Slow(Duration::from_millis(700), Box::new(honest(request)))
            }
            _ => honest(request),
        });
        let fetched = run_client(
            &database,
            &stub.base(),
            &with("fetch", &["--tries", "1", "--concurrency", "3"]),
        );
        assert_eq!(fetched.code, Some(4), "{}", fetched.text);
        assert_eq!(
            session.text("SELECT string_agg(concat_ws(' ', item_id, http_status), ', ' ORDER BY item_id) FROM jellyfin_items WHERE error IS NOT NULL"),
            "i3 500, i5, i6 502, i8"
        );
        assert_eq!(
            session.text("SELECT string_agg(concat_ws(' ', item_id, http_status), ', ' ORDER BY item_id) FROM jellyfin_items WHERE error IS NULL"),
            "i1 200, i2 200, i4 200, i7 404, i9 200"
        );
        // what has no answer is no reason to give a row up
        enrich(&mut session);
        assert_eq!(
            session.text("SELECT string_agg(row_id || reason, ',' ORDER BY row_id) FROM jellyfin_skips"),
            "3no_item,5no_item,6no_item,7not_found,8no_item"
        );
        // what failed is asked again, and nothing else
        let mended = Stub::start(honest);
        assert_eq!(run_client(&database, &mended.base(), &with("fetch", &[])).code, Some(0));
        let asked: Vec<_> = mended
            .requests()
            .iter()
            .map(|request| request.parameter("ids").map(str::to_owned))
            .collect();
        assert_eq!(asked.len(), 1);
        let mut asked: Vec<&str> = asked[0].as_deref().unwrap_or_default().split(',').collect();
        asked.sort_unstable();
        assert_eq!(asked, ["i3", "i5", "i6", "i8"]);
        enrich(&mut session);
        assert_eq!(session.number("SELECT count(*) FROM event_outbox"), 8);
    });
}

#[test]
fn a_404_is_an_answer_and_nothing_but_404_is_worth_a_hint() {
    each_server(|server| {
        let (database, mut session) = published_board(server, 4);
        let stub = Stub::start(|request| match request.parameter("ids") {
            Some("i1") => honest(request),
            _ => Reply::Json(404, json!({"title": "Not Found"})),
        });
        let fetched = run_client(
            &database,
            &stub.base(),
            &with("fetch", &["--batch", "4", "--limit", "3"]),
        );
        assert_eq!(fetched.code, Some(0), "{}", fetched.text);
        assert!(!fetched.text.contains("HINT"), "{}", fetched.text);
        assert_eq!(
            session.text("SELECT string_agg(concat_ws(' ', item_id, http_status, error), ', ' ORDER BY item_id) FROM jellyfin_items"),
            "i1 200, i2 404, i3 404"
        );
        let fetched = run_client(&database, &stub.base(), &with("fetch", &[]));
        assert_eq!(fetched.code, Some(0), "{}", fetched.text);
        assert!(fetched.text.contains("HTTP 404 only"), "{}", fetched.text);
        enrich(&mut session);
        assert_eq!(
            session.text("SELECT string_agg(row_id || reason, ',' ORDER BY row_id) FROM jellyfin_skips"),
            "2not_found,3not_found,4not_found"
        );
        // nothing is asked again
        assert_eq!(session.number("SELECT count(*) FROM jellyfin_candidates()"), 0);
    });
}

#[test]
fn what_always_fails_keeps_nothing_from_the_rest() {
    each_server(|server| {
        let (database, mut session) = published_board(server, 6);
        let stub = Stub::start(|request| match request.parameter("ids") {
            Some(ids) if ids.split(',').any(|id| ["i1", "i2"].contains(&id)) => Reply::Cut,
            _ => honest(request),
        });
        let two = with("fetch", &["--tries", "1", "--limit", "2", "--batch", "2"]);
        let known = |session: &mut Session| {
            session.text("SELECT string_agg(item_id || CASE WHEN error IS NULL THEN '' ELSE '!' END, ' ' ORDER BY item_id) FROM jellyfin_items")
        };
        for (code, expected) in [
            (4, "i1! i2!"),
            (0, "i1! i2! i3 i4"),
            (0, "i1! i2! i3 i4 i5 i6"),
            (4, "i1! i2! i3 i4 i5 i6"),
        ] {
            let fetched = run_client(&database, &stub.base(), &two);
            assert_eq!(fetched.code, Some(code), "{}", fetched.text);
            assert_eq!(known(&mut session), expected);
        }
        // one at a time: they take turns
        let first =
            session.text("SELECT item_id FROM jellyfin_items WHERE error IS NOT NULL ORDER BY fetched_at LIMIT 1");
        let one = with("fetch", &["--tries", "1", "--limit", "1"]);
        for expected in [first.as_str(), if first == "i1" { "i2" } else { "i1" }, first.as_str()] {
            run_client(&database, &stub.base(), &one);
            let requests = stub.requests();
            assert_eq!(
                requests.last().and_then(|request| request.parameter("ids")),
                Some(expected)
            );
        }
    });
}

#[test]
fn a_server_that_is_not_there_ends_the_call() {
    each_server(|server| {
        let (database, mut session) = published_board(server, 45);
        let stub = Stub::start(|_| Reply::Cut);
        let fetched = run_client(&database, &stub.base(), &with("fetch", &["--tries", "2"]));
        assert_eq!(fetched.code, Some(3), "{}", fetched.text);
        assert!(fetched.text.contains("nothing was lost"), "{}", fetched.text);
        assert!(stub.count() <= 24, "{} requests", stub.count());

        let mended = Stub::start(honest);
        assert_eq!(run_client(&database, &mended.base(), &with("fetch", &[])).code, Some(0));
        enrich(&mut session);
        let events = session.number("SELECT count(*) FROM event_outbox");
        assert!(events > 30);
        // few of the events lose an attempt, however often the relay is called meanwhile
        for _ in 0..3 {
            let published = run_client(
                &database,
                &stub.base(),
                &with("publish", &["--tries", "1", "--concurrency", "4"]),
            );
            assert_eq!(published.code, Some(3), "{}", published.text);
        }
        assert!(session.is_true("SELECT sum(attempts) <= 36 AND max(attempts) < 8 FROM event_outbox"));
        assert_eq!(
            session.number("SELECT count(*) FROM event_outbox WHERE state = 'queued'"),
            events
        );
        session.run("UPDATE event_outbox SET next_attempt_at = now()");
        let published = run_client(&database, &mended.base(), &with("publish", &["--concurrency", "8"]));
        assert_eq!(published.code, Some(0), "{}", published.text);
        assert_eq!(
            session.number("SELECT count(*) FROM event_outbox WHERE state = 'published'"),
            events
        );
    });
}

#[test]
fn a_date_says_when_to_come_again() {
    each_server(|server| {
        let (database, mut session) = queued_board(server, 5);
        session.run("UPDATE jellyfin_items SET http_status = 500, error = 'broken' WHERE item_id = 'i1'; UPDATE studio_board SET meta = meta - 'jellyfin_public_url' WHERE id = 1");
        let day = "Fri, 31 Dec 2100 23:59:59 GMT";
        let stub = Stub::start(|_| Reply::Later(503, day.into()));
        for command in ["fetch", "publish"] {
            let before = stub.count();
            let begun = Instant::now();
            let refused = run_client(&database, &stub.base(), &with(command, &[]));
            assert_eq!(refused.code, Some(3), "{}", refused.text);
            assert!(refused.text.contains("Call again in 86400 seconds"), "{}", refused.text);
            assert_eq!(stub.count(), before + 1, "{command}: nobody else comes before that");
            assert!(begun.elapsed() < Duration::from_secs(10));
        }
        // the event waits as long as it was asked to, a day at most
        assert!(session.is_true(
            "SELECT count(*) = 1 FROM event_outbox WHERE attempts = 1 AND next_attempt_at BETWEEN now() + interval '23 hours' AND now() + interval '25 hours'"
        ));
        assert_eq!(
            session.number("SELECT count(*) FROM event_outbox WHERE attempts = 0"),
            4
        );
    });
}

#[test]
fn a_server_that_says_later_says_it_to_all() {
    each_server(|server| {
        let (database, _session) = published_board(server, 9);
        let first = AtomicBool::new(true);
        let stub = Stub::start(move |request| match first.swap(false, Ordering::Relaxed) {
            true => Reply::Later(429, "1".into()),
            false => Reply::Slow(Duration::from_millis(50), Box::new(honest(request))),
        });
        let arguments = with("fetch", &["--batch", "1", "--concurrency", "3"]);
        let fetched = run_client(&database, &stub.base(), &arguments);
        assert_eq!(fetched.code, Some(0), "{}", fetched.text);
        let requests = stub.requests();
        let at: Vec<u128> = requests
            .iter()
            .map(|request| (request.at - requests[0].at).as_millis())
            .collect();
        assert_eq!(requests.len(), 10);
        assert!(at[1..].iter().all(|at| *at < 700 || *at >= 1000), "{at:?}");
        assert!(at.iter().filter(|at| **at < 700).count() <= 3, "{at:?}");
    });
}

#[test]
fn a_failure_never_takes_the_place_of_an_answer() {
    each_server(|server| {
        let (database, mut session) = published_board(server, 2);
        // while one call waits for its bad answers, another has got good ones
        let other = database.session();
        let other = Mutex::new(other);
        let stub = Stub::start(move |_| {
            other.lock().expect("no panic inside").run(
                "INSERT INTO jellyfin_items (item_id, doc, http_status) VALUES ('i1', '{\"Id\": \"i1\"}', 200), ('i2', NULL, 404) ON CONFLICT DO NOTHING",
            );
            Reply::Json(500, json!({}))
        });
        let fetched = run_client(&database, &stub.base(), &with("fetch", &["--tries", "1"]));
        assert_eq!(fetched.code, Some(4), "{}", fetched.text);
        assert_eq!(
            session.text("SELECT string_agg(item_id || http_status, ',' ORDER BY item_id) FROM jellyfin_items WHERE error IS NULL"),
            "i1200,i2404"
        );
    });
}

#[test]
fn what_another_call_published_is_no_failure_of_this_one() {
    each_server(|server| {
        let (database, mut session) = queued_board(server, 2);
        let other = Mutex::new(database.session());
        let stub = Stub::start(move |_| {
            other.lock().expect("no panic inside").run(
                "UPDATE event_outbox SET state = 'published', published_at = now(), envelope_id = 'of the other', claimed_by = NULL",
            );
            Reply::Cut
        });
        let published = run_client(&database, &stub.base(), &with("publish", &["--tries", "2"]));
        assert_eq!(published.code, Some(0), "{}", published.text);
        assert!(published.text.contains("failing: 0"), "{}", published.text);
        assert!(session.is_true("SELECT bool_and(envelope_id = 'of the other') FROM event_outbox"));
    });
}

#[test]
fn a_server_that_repeats_the_key_does_not_make_it_known() {
    each_server(|server| {
        let (database, mut session) = published_board(server, 4);
        let stub = Stub::start(|request| match request.parameter("ids") {
            // what is asked for must not be carried to wherever a server points
            Some("i1") => Reply::Moved(format!("http://127.0.0.1:9/Items?api_key={KEY}")),
            Some("i2") => Reply::Text(200, format!("<p>{KEY}</p>")),
            Some("i3") => Reply::Json(400, json!({"X-Emby-Token": KEY})),
            _ => Reply::Text(500, format!("X-Emby-Token: {KEY}")),
        });
        let fetched = run_client(&database, &stub.base(), &with("fetch", &["--tries", "1"]));
        assert_eq!(fetched.code, Some(4), "{}", fetched.text);
        assert_eq!(
            session.text("SELECT string_agg(item_id || ' ' || http_status, ', ' ORDER BY item_id) FROM jellyfin_items WHERE error IS NOT NULL"),
            "i1 302, i2 502, i3 400, i4 500"
        );
        assert!(session.is_true(&format!(
            "SELECT bool_and(to_jsonb(i)::text NOT LIKE '%{KEY}%') AND count(*) FILTER (WHERE error LIKE '%***%') = 3 FROM jellyfin_items i"
        )));
    });
}

#[test]
fn an_event_that_fails_eight_times_is_failed_and_listed() {
    each_server(|server| {
        let (database, mut session) = queued_board(server, 2);
        let bad = session.text("SELECT event_id FROM event_outbox WHERE subject_id = '1'");
        let event = bad.clone();
        let stub = Stub::start(move |request| match request.body.contains(&event) {
            true => Reply::Text(200, "<html>no JSON</html>".into()),
            false => honest(request),
        });
        let first = run_client(&database, &stub.base(), &with("publish", &["--tries", "3"]));
        assert_eq!(first.code, Some(4), "{}", first.text);
        assert_eq!(
            session.text("SELECT state || attempts FROM event_outbox WHERE subject_id = '1'"),
            "queued3"
        );
        assert_eq!(
            session.text("SELECT state || attempts FROM event_outbox WHERE subject_id = '2'"),
            "published1"
        );
        assert!(session.is_true("SELECT claimed_by IS NULL AND last_error LIKE 'HTTP 200: the answer is no JSON%' FROM event_outbox WHERE subject_id = '1'"));
        session.run("UPDATE event_outbox SET next_attempt_at = now()");
        let second = run_client(&database, &stub.base(), &with("publish", &["--tries", "20"]));
        assert_eq!(second.code, Some(4), "{}", second.text);
        assert!(
            second
                .text
                .contains(&format!("failed: {bad} of row 1 after 8 attempts")),
            "{}",
            second.text
        );
        assert_eq!(
            session.text("SELECT state || attempts FROM event_outbox WHERE subject_id = '1'"),
            "failed8"
        );
        assert_eq!(
            stub.requests()
                .iter()
                .filter(|request| request.body.contains(&bad))
                .count(),
            8
        );
        assert_eq!(
            session.text("SELECT string_agg(finding, ',') FROM verify_jellyfin_metadata()"),
            "event_failed"
        );
        // nothing more is sent until somebody asks for it
        run_client(&database, &stub.base(), &with("publish", &[]));
        assert_eq!(stub.count(), 9);
    });
}
