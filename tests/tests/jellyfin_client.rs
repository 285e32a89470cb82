//! `media-assets jellyfin` against a server that answers as Jellyfin and Agent Zero do, also badly.

use std::collections::HashMap;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use media_assets_tests::jellyfin::{board, client, ended, item, run_client, BASE, KEY, VERSION};
use media_assets_tests::stub::{Reply, Request, Stub};
use media_assets_tests::{each_server, Database, Server, Session};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{json, Value};

/// Fast enough for tests.
const QUICK: [&str; 4] = ["--timeout", "400ms", "--backoff", "10ms"];

fn with<'a>(command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&[command][..], &QUICK, more].concat()
}

/// A database with a board of `rows` published rows: most name an item `i<id>`, every tenth is to be searched for, and
/// every seventh is not to be found.
fn published_board(server: &Server, rows: u32) -> (Database, Session) {
    let database = server.database();
    let mut session = database.session();
    board(&mut session);
    session.run(&format!(
        "INSERT INTO studio_board
         SELECT n, 'Title ' || n, NULL, 's3://outputs/' || n || '.mp4', 'published',
                CASE WHEN n % 10 = 0 THEN jsonb_build_object('premiere_date', '2025-10-01') ELSE jsonb_build_object('jellyfin_item_id', 'i' || n) END
         FROM generate_series(1, {rows}) n"
    ));
    (database, session)
}

fn exists(number: u32) -> bool {
    !number.is_multiple_of(7)
}

/// What Jellyfin says to a request for items, by ids or by name.
fn items(request: &Request) -> Value {
    let of = |number: u32| {
        item(
            &format!("i{number}"),
            &format!("Title {number}"),
            "2025-10-01T00:00:00.0000000Z",
        )
    };
    let numbers: Vec<u32> = match (request.parameter("ids"), request.parameter("searchTerm")) {
        (Some(ids), _) => ids
            .split(',')
            .filter_map(|id| id.strip_prefix('i')?.parse().ok())
            .collect(),
        (None, Some(title)) => title
            .strip_prefix("Title ")
            .and_then(|n| n.parse().ok())
            .into_iter()
            .collect(),
        (None, None) => Vec::new(),
    };
    let found: Vec<Value> = numbers.into_iter().filter(|number| exists(*number)).map(of).collect();
    json!({"Items": found, "TotalRecordCount": found.len(), "StartIndex": 0})
}

fn honest(request: &Request) -> Reply {
    match request.method.as_str() {
        "GET" => Reply::Json(200, items(request)),
        _ => Reply::Json(
            200,
            json!({"id": format!("envelope of {}", request.json()["correlation_id"].as_str().unwrap_or("?"))}),
        ),
    }
}

fn enrich(session: &mut Session) {
    session.run(&format!(
        "SELECT * FROM backfill_jellyfin_metadata(execute => true, backfill_version => '{VERSION}', public_base => '{BASE}')"
    ));
}

/// Board, items and events, ready to be posted.
fn queued_board(server: &Server, rows: u32) -> (Database, Session) {
    let (database, mut session) = published_board(server, rows);
    let stub = Stub::start(honest);
    let fetched = run_client(&database, &stub.base(), &with("fetch", &[]));
    assert_eq!(fetched.code, Some(0), "{}", fetched.text);
    enrich(&mut session);
    (database, session)
}

#[test]
fn requests_have_the_shape_that_public_clients_give_them() {
    each_server(|server| {
        let (database, mut session) = published_board(server, 10);
        let stub = Stub::start(honest);
        let fetched = run_client(&database, &stub.base(), &with("fetch", &["--batch", "4"]));
        assert_eq!(fetched.code, Some(0), "{}", fetched.text);
        let requests = stub.requests();
        assert_eq!(requests.len(), 4, "9 items by four, and a search");
        for request in &requests {
            assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/base/Items"));
            assert_eq!(request.header("x-emby-token"), Some(KEY));
            // as jellyfin-apiclient-python writes it
            assert_eq!(
                request.header("authorization"),
                Some(format!("MediaBrowser Token=\"{KEY}\"").as_str())
            );
            assert_eq!(request.parameter("enableUserData"), Some("false"));
            assert!(
                request.parameter("api_key").is_none(),
                "a key does not stand in an address"
            );
        }
        assert_eq!(requests[0].parameter("ids"), Some("i1,i2,i3,i4"));
        let search = &requests[3];
        for (name, value) in [
            ("searchTerm", "Title 10"),
            ("recursive", "true"),
            ("minPremiereDate", "2025-10-01T00:00:00.000Z"),
            ("maxPremiereDate", "2025-10-01T23:59:59.999Z"),
            ("startIndex", "0"),
            ("limit", "100"),
        ] {
            assert_eq!(search.parameter(name), Some(value), "{name}");
        }
        // a 404 is an answer, and nothing is asked twice
        assert_eq!(
            session.text("SELECT string_agg(item_id, ',') FROM jellyfin_items WHERE http_status = 404"),
            "i7"
        );
        run_client(&database, &stub.base(), &with("fetch", &[]));
        assert_eq!(stub.count(), 4);

        enrich(&mut session);
        let posted = run_client(&database, &stub.base(), &with("publish", &[]));
        assert_eq!(posted.code, Some(0), "{}", posted.text);
        let posts = &stub.requests()[4..];
        assert_eq!(posts.len(), 9);
        for post in posts {
            assert_eq!(
                (post.method.as_str(), post.path.as_str()),
                ("POST", "/base/events/publish")
            );
            assert_eq!(post.header("content-type"), Some("application/json"));
            assert!(
                post.header("x-emby-token").is_none(),
                "Jellyfin's key is not for others"
            );
            let body = post.json();
            let mut names: Vec<&String> = body.as_object().expect("an object").keys().collect();
            names.sort();
            assert_eq!(names, ["correlation_id", "payload", "source", "topic"]);
            assert_eq!(
                (&body["topic"], &body["source"]),
                (&json!("content.published.v1"), &json!("backfill"))
            );
            assert_eq!(breaches(&body["payload"]), Vec::<String>::new());
        }
        assert_eq!(session.number("SELECT count(*) FROM event_outbox WHERE state = 'published' AND envelope_id = 'envelope of ' || event_id AND attempts = 1"), 9);
    });
}

fn breaches(payload: &Value) -> Vec<String> {
    let schema = include_str!("../../core/schemas/content.published.v1.json");
    let schema: Value = serde_json::from_str(schema).expect("the schema is JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    validator.iter_errors(payload).map(|error| error.to_string()).collect()
}

#[test]
fn odd_forms_of_ids_and_repeated_items_are_one_answer() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        session.run(
            "INSERT INTO studio_board SELECT n, 'T', NULL, NULL, 'published', jsonb_build_object('jellyfin_item_id', id)
             FROM (VALUES (1, 'ABCD-ef'), (2, 'x'), (3, 'x')) v(n, id)",
        );
        let stub = Stub::start(|_| {
            let one = item("abcdef", "a\0b", "2025-10-01");
            Reply::Json(
                200,
                json!({"Items": [one, null, 5, one, item("X", "T", "2025-10-01"), item("unasked", "T", "2025-10-01")]}),
            )
        });
        let fetched = run_client(&database, &stub.base(), &with("fetch", &[]));
        assert_eq!(fetched.code, Some(0), "{}", fetched.text);
        assert_eq!(
            session.text("SELECT string_agg(item_id || ' ' || (doc ->> 'Id') || ' ' || (doc ->> 'Name'), ', ' ORDER BY item_id) FROM jellyfin_items"),
            "ABCD-ef abcdef ab, x X T"
        );
        assert_eq!(stub.count(), 1, "the same item is asked for once");
    });
}

#[test]
fn an_item_that_has_gone_is_searched_for_through_all_pages() {
    each_server(|server| {
        let database = server.database();
        let mut session = database.session();
        board(&mut session);
        session.run(
            "INSERT INTO studio_board VALUES (1, 'ÉTÉ & co', NULL, 's3://b/1', 'published',
                 '{\"jellyfin_item_id\": \"gone\", \"premiere_date\": \"2025-10-01T05:00:00+09:00\"}')",
        );
        let stub = Stub::start(|request| {
            let hits: Vec<Value> = match (request.parameter("searchTerm"), request.parameter("startIndex")) {
                (Some("ÉTÉ & co"), Some("0")) => {
                    (0..100).map(|n| item(&format!("n{n}"), "Été", "2025-09-30")).collect()
                }
                (Some("ÉTÉ & co"), Some("100")) => vec![item("found", "été & co", "2025-09-30T22:00:00Z")],
                _ => Vec::new(),
            };
            Reply::Json(200, json!({"Items": hits}))
        });
        let fetched = run_client(&database, &stub.base(), &with("fetch", &[]));
        assert_eq!(fetched.code, Some(0), "{}", fetched.text);
        assert_eq!(stub.count(), 3);
        assert_eq!(
            session.number("SELECT count(*) FROM jellyfin_items WHERE http_status = 200"),
            102
        );
        enrich(&mut session);
        assert_eq!(
            session.text("SELECT meta ->> 'jellyfin_item_id' FROM studio_board"),
            "found"
        );
    });
}

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
                true if request.method == "GET" => Reply::Later(429, 1),
                true => Reply::Later(503, 1),
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
fn one_bad_item_costs_itself_only() {
    each_server(|server| {
        let (database, mut session) = published_board(server, 9);
        let stub = Stub::start(|request| match request.parameter("ids") {
            Some(ids) if ids.split(',').any(|id| id == "i3") => Reply::Json(500, json!({"error": "broken"})),
            Some(ids) if ids.split(',').any(|id| id == "i5") => Reply::Half(items(request)),
            Some(ids) if ids.split(',').any(|id| id == "i6") => Reply::Json(200, json!([])),
            _ => honest(request),
        });
        let fetched = run_client(
            &database,
            &stub.base(),
            &with("fetch", &["--tries", "1", "--concurrency", "3"]),
        );
        // half an answer is none at all: the connection broke, which says nothing of an item
        assert_eq!(fetched.code, Some(3), "{}", fetched.text);
        session.run("UPDATE studio_board SET meta = '{}' WHERE id = 5");
        let fetched = run_client(
            &database,
            &stub.base(),
            &with("fetch", &["--tries", "1", "--concurrency", "3"]),
        );
        assert_eq!(fetched.code, Some(4), "{}", fetched.text);
        assert_eq!(
            session.text("SELECT string_agg(item_id || ' ' || http_status, ', ' ORDER BY item_id) FROM jellyfin_items WHERE http_status <> 200 AND error IS NOT NULL"),
            "i3 500, i6 502"
        );
        assert_eq!(
            session.number("SELECT count(*) FROM jellyfin_items WHERE http_status = 200"),
            5
        );
        // what failed is asked again, and nothing else
        let mended = Stub::start(honest);
        assert_eq!(run_client(&database, &mended.base(), &with("fetch", &[])).code, Some(0));
        assert_eq!(mended.requests()[0].parameter("ids"), Some("i3,i6"));
        assert_eq!(mended.count(), 1);
    });
}

#[test]
fn dry_runs_show_all_and_send_nothing() {
    each_server(|server| {
        let (database, mut session) = queued_board(server, 4);
        session.run("DELETE FROM jellyfin_items WHERE item_id = 'i2'; UPDATE studio_board SET meta = meta - 'jellyfin_public_url' WHERE id = 2");
        let stub = Stub::start(honest);
        let before = session.rows("SELECT to_jsonb(e)::text FROM event_outbox e ORDER BY event_id");
        let fetch = run_client(&database, &stub.base(), &with("fetch", &["--dry-run"]));
        assert_eq!(fetch.code, Some(0), "{}", fetch.text);
        assert!(
            fetch.text.contains("1 items and 0 searches") && fetch.text.contains("/Items?ids=i2"),
            "{}",
            fetch.text
        );
        let publish = run_client(
            &database,
            &stub.base(),
            &with("publish", &["--dry-run", "--limit", "2"]),
        );
        assert_eq!(publish.code, Some(0), "{}", publish.text);
        assert!(
            publish.text.contains("4 events are queued; 2 of them in full"),
            "{}",
            publish.text
        );
        assert_eq!(
            publish.text.matches("\"artifact_uri\": \"s3://outputs/").count(),
            2,
            "{}",
            publish.text
        );
        assert!(!publish.text.contains("/media/secret"));
        assert_eq!(stub.count(), 0);
        assert_eq!(
            before,
            session.rows("SELECT to_jsonb(e)::text FROM event_outbox e ORDER BY event_id")
        );
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

#[test]
fn limit_and_sleep_make_a_canary() {
    each_server(|server| {
        let (database, mut session) = queued_board(server, 6);
        let stub = Stub::start(honest);
        let canary = run_client(
            &database,
            &stub.base(),
            &with("publish", &["--limit", "2", "--sleep", "300ms", "--concurrency", "1"]),
        );
        assert_eq!(canary.code, Some(0), "{}", canary.text);
        let requests = stub.requests();
        assert_eq!(requests.len(), 2);
        assert!(requests[1].at - requests[0].at >= Duration::from_millis(300));
        assert_eq!(
            session.number("SELECT count(*) FROM event_outbox WHERE state = 'published'"),
            2
        );
        // not on a terminal: a line for each event, and the sum
        assert_eq!(
            canary
                .text
                .lines()
                .filter(|line| line.starts_with("published "))
                .count(),
            2,
            "{}",
            canary.text
        );
        assert!(canary.text.contains("published: 2; failing: 0"), "{}", canary.text);
    });
}

#[test]
fn what_is_not_set_or_makes_no_sense_is_said() {
    each_server(|server| {
        let (database, _session) = published_board(server, 1);
        let stub = Stub::start(honest);
        let mut nameless = client(&database, &stub.base(), &["fetch"]);
        let nameless = ended(
            nameless
                .env_remove("JELLYFIN_API_KEY")
                .output()
                .expect("the client starts"),
        );
        assert_eq!(nameless.code, Some(1));
        assert!(
            nameless.text.contains("JELLYFIN_API_KEY is not set"),
            "{}",
            nameless.text
        );
        for (base, arguments) in [
            ("ftp://x", &["fetch"][..]),
            ("http://me:secret@x", &["fetch"]),
            ("http://x", &["publish", "--timeout", "1m", "--lease", "2s"]),
            ("http://x", &["publish", "--sleep", "soon"]),
            ("http://x", &["fetch", "--concurrency", "0"]),
        ] {
            let refused = run_client(&database, base, arguments);
            assert_eq!(refused.code, Some(1), "{base} {arguments:?}: {}", refused.text);
            assert!(!refused.text.contains("secret"), "{}", refused.text);
        }
        // nobody listens
        let gone = run_client(&database, "http://127.0.0.1:9", &with("fetch", &["--tries", "2"]));
        assert_eq!(gone.code, Some(3), "{}", gone.text);
        assert_eq!(stub.count(), 0);
    });
}

/// Faults by chance, the same for the same seed as far as requests come in the same order.
struct Faults {
    random: Mutex<StdRng>,
    calm: AtomicBool,
    /// What Agent Zero took, by correlation id: once a payload is here, it was delivered, whatever the client hears.
    delivered: Mutex<HashMap<String, Vec<Value>>>,
}

impl Faults {
    fn reply(&self, request: &Request) -> Reply {
        let calm = self.calm.load(Ordering::Relaxed);
        let chance = if calm {
            99
        } else {
            self.random.lock().expect("no panic inside").gen_range(0..100)
        };
        let answer = || match request.method.as_str() {
            "GET" => Reply::Json(200, items(request)),
            _ => {
                let body = request.json();
                let id = body["correlation_id"]
                    .as_str()
                    .expect("every event has its id")
                    .to_owned();
                let mut delivered = self.delivered.lock().expect("no panic inside");
                delivered.entry(id.clone()).or_default().push(body["payload"].clone());
                Reply::Json(200, json!({"id": format!("envelope of {id}")}))
            }
        };
        match chance {
            0..=3 => Reply::Cut,
            4..=6 => Reply::Later(429, 0),
            7..=9 => Reply::Json(500, json!({"error": "broken"})),
            10..=12 => Reply::Text(200, "{\"Items\": [".into()),
            13..=14 => Reply::Json(200, json!({"Items": "wrong", "identity": 5})),
            // delivered, and nobody hears of it
            15..=17 => match answer() {
                Reply::Json(_, body) => Reply::Half(body),
                other => other,
            },
            18..=19 => {
                drop(answer());
                Reply::Cut
            }
            20..=21 => Reply::Slow(Duration::from_millis(600), Box::new(answer())),
            22..=24 => Reply::Slow(Duration::from_millis(30), Box::new(answer())),
            _ => answer(),
        }
    }
}

/// Two calls at once, of which one may be killed in the middle of its work. Gives how many were killed.
fn two_calls(database: &Database, stub: &Stub, arguments: &[&str], random: &mut StdRng) -> u32 {
    let before = stub.count();
    let mut calls: Vec<Child> = (0..2)
        .map(|_| {
            client(database, &stub.base(), arguments)
                .spawn()
                .expect("the client starts")
        })
        .collect();
    if random.gen_bool(0.7) {
        let enough = before + random.gen_range(1..20);
        while stub.count() < enough && matches!(calls[0].try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(1));
        }
        // A kill that comes too late is none.
        let _ = calls[0].kill();
    }
    calls
        .into_iter()
        .map(|call| ended(call.wait_with_output().expect("it ends")).code)
        .map(|code| u32::from(code.is_none()))
        .sum()
}

/// Whatever is killed, every candidate ends recorded as published once, delivered at least once, always under the same
/// event id, or with a reason.
///
/// `MEDIA_ASSETS_SOAK_JELLYFIN` is the number of candidates, for a soak; `MEDIA_ASSETS_SOAK_SEED` another seed.
#[test]
fn whatever_is_killed_every_candidate_comes_to_its_end() {
    let of_environment = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let rows = of_environment("MEDIA_ASSETS_SOAK_JELLYFIN").map_or(80, |rows| rows as u32);
    let seed = of_environment("MEDIA_ASSETS_SOAK_SEED").unwrap_or(20_251_014);
    eprintln!("{rows} candidates, seed {seed}");
    each_server(|server| {
        let (database, mut session) = published_board(server, rows);
        let faults = Arc::new(Faults {
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            calm: AtomicBool::new(false),
            delivered: Mutex::new(HashMap::new()),
        });
        let answering = Arc::clone(&faults);
        let stub = Stub::start(move |request| answering.reply(request));
        let mut random = StdRng::seed_from_u64(seed + 1);
        let batch = (rows / 20).clamp(4, 50).to_string();
        let fetch = with("fetch", &["--batch", &batch, "--concurrency", "4", "--tries", "3"]);
        let publish = with("publish", &["--concurrency", "8", "--tries", "2", "--lease", "1500ms"]);
        let options = format!("{{\"backfill_version\": \"{VERSION}\", \"public_base\": \"{BASE}\"}}");
        let mut killed = 0;
        for _ in 0..6 {
            killed += two_calls(&database, &stub, &fetch, &mut random);
            // the run in the database is killed too, and what it left is gone on with
            let mut victim = database.session();
            victim.run("SET media_assets.progress = off");
            let process_id = victim.process_id();
            let call = format!("CALL run_backfill('jellyfin_metadata', 7, true, '{options}')");
            let run = std::thread::spawn(move || {
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| victim.try_rows(&call).is_ok()))
            });
            if random.gen_bool(0.5) {
                std::thread::sleep(Duration::from_millis(random.gen_range(1..60)));
                session.run(&format!("SELECT pg_terminate_backend({process_id})"));
            }
            let _ = run.join();
            killed += two_calls(&database, &stub, &publish, &mut random);
        }
        eprintln!("{killed} calls were killed; {} requests so far", stub.count());
        assert!(killed > 0, "nothing was killed in the middle of its work");

        faults.calm.store(true, Ordering::Relaxed);
        let end = Instant::now() + Duration::from_secs(60 + u64::from(rows / 10));
        loop {
            run_client(&database, &stub.base(), &fetch);
            enrich(&mut session);
            session.run("UPDATE event_outbox SET state = 'queued', attempts = 0, next_attempt_at = now() WHERE state = 'failed'");
            run_client(&database, &stub.base(), &publish);
            let open = session.number(
                "SELECT (SELECT count(*) FROM event_outbox WHERE state <> 'published') + (SELECT count(*) FROM jellyfin_candidates())",
            );
            if open == 0 {
                break;
            }
            assert!(Instant::now() < end, "{open} are open");
            std::thread::sleep(Duration::from_millis(200));
        }
        let lost = (1..=rows).filter(|number| !exists(*number)).count() as i64;
        assert_eq!(
            session.number("SELECT count(*) FROM jellyfin_skips WHERE reason = 'not_found'"),
            lost
        );
        assert_eq!(session.number("SELECT count(*) FROM jellyfin_skips"), lost);
        assert!(session.is_true(&format!(
            "SELECT count(*) = {} AND count(DISTINCT subject_id) = count(*)
                AND bool_and(state = 'published' AND envelope_id = 'envelope of ' || event_id AND claimed_by IS NULL
                             AND event_id = content_published_event_id(subject_id::bigint, '{VERSION}')) FROM event_outbox",
            i64::from(rows) - lost
        )));
        let stored: HashMap<String, String> = session
            .rows("SELECT event_id::text, payload::text FROM event_outbox")
            .into_iter()
            .filter_map(|row| {
                let mut values = row.into_iter();
                Some((values.next()??, values.next()??))
            })
            .collect();
        let delivered = faults.delivered.lock().expect("no panic inside");
        assert_eq!(delivered.len(), stored.len(), "each at least once, and nothing else");
        let mut twice = 0;
        for (id, payloads) in delivered.iter() {
            let stored: Value =
                serde_json::from_str(stored.get(id).expect("a delivery of an event that is recorded")).expect("JSON");
            assert!(
                payloads.iter().all(|payload| *payload == stored),
                "{id}: always the same"
            );
            twice += usize::from(payloads.len() > 1);
        }
        assert!(delivered
            .values()
            .take(200)
            .all(|payloads| breaches(&payloads[0]).is_empty()));
        let errors = session.rows("SELECT * FROM verify_jellyfin_metadata() WHERE severity = 'error'");
        assert!(errors.is_empty(), "{errors:?}");
        eprintln!(
            "{} events, {twice} of them delivered more than once, {lost} not found",
            delivered.len()
        );
    });
}
