//! `media-assets jellyfin`: what it sends, shows and says.

#[path = "../../core/tests/support/schema.rs"]
mod schema;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use media_assets_tests::each_server;
use media_assets_tests::jellyfin::{board, client, ended, item, run_client, KEY};
use media_assets_tests::relay::{enrich, honest, published_board, queued_board, with};
use media_assets_tests::stub::{split_target, Reply, Request, Stub};
use schema::breaches;
use serde_json::{json, Value};

/// A request of ours asks what a public client's does (recorded by the programs beside the records): the same method,
/// path and parameters. Lists and truths are compared in one form, since the clients write them in several and Jellyfin
/// reads all of them; of the authorization only who asks differs.
fn assert_same_request(ours: &Request, theirs: &Value, origin: &str) {
    let form = |pairs: &[(String, String)]| {
        let mut form: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in pairs {
            let value = match value.as_str() {
                "True" | "False" => value.to_lowercase(),
                _ => value.clone(),
            };
            let known = form.entry(name.clone()).or_default();
            *known = if known.is_empty() {
                value
            } else {
                format!("{known},{value}")
            };
        }
        form
    };
    let target = theirs["target"].as_str().expect("a target");
    let (path, query) = split_target(target);
    assert_eq!(
        (ours.method.as_str(), ours.path.as_str()),
        (theirs["method"].as_str().expect("a method"), path),
        "{origin}"
    );
    assert_eq!(form(&ours.query), form(&query), "{origin}");
    let accepts = theirs["accept"].as_str().expect("it accepts something");
    assert!(
        ours.header("accept")
            .is_some_and(|accept| accepts.split(',').any(|one| one == accept)),
        "{origin}"
    );
    let (scheme, token) = {
        let header = theirs["authorization"].as_str().expect("it says who asks");
        let (scheme, parts) = header.split_once(' ').expect("a scheme");
        let token = parts
            .split(", ")
            .find(|part| part.starts_with("Token="))
            .expect("a token");
        (scheme, token.replace("the-key", KEY))
    };
    assert_eq!(
        ours.header("authorization"),
        Some(format!("{scheme} {token}").as_str()),
        "{origin}"
    );
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
            assert!(
                request.parameter("api_key").is_none(),
                "a key does not stand in an address"
            );
        }
        for public in [
            include_str!("../data/jellyfin_clients/jellyfin_sdk.json"),
            include_str!("../data/jellyfin_clients/jellyfin_apiclient_python.json"),
        ] {
            let public: Value = serde_json::from_str(public).expect("a record is JSON");
            let origin = public["origin"].as_str().expect("it says where it comes from");
            let theirs = public["requests"].as_array().expect("two requests");
            for (ours, theirs) in [&requests[0], &requests[3]].into_iter().zip(theirs) {
                assert_same_request(ours, theirs, origin);
            }
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

#[test]
fn on_a_terminal_there_is_a_bar() {
    each_server(|server| {
        let (database, _session) = published_board(server, 9);
        let stub = Stub::start(|request| Reply::Slow(Duration::from_millis(80), Box::new(honest(request))));
        let plain = client(&database, &stub.base(), &with("fetch", &["--batch", "2"]));
        let words = [plain.get_program()].into_iter().chain(plain.get_args());
        let line: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        // `script` gives the program a terminal and repeats what it writes there
        let mut terminal = Command::new("script");
        terminal
            .args(["-qec", &line.join(" "), "/dev/null"])
            .env("TERM", "xterm");
        terminal.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let shown = ended(terminal.stdin(Stdio::null()).output().expect("script starts"));
        assert_eq!(shown.code, Some(0), "{}", shown.text);
        assert!(shown.text.contains('█') && shown.text.contains("/9 "), "{}", shown.text);
        assert!(
            shown.text.contains("fetched: 8 answered, 1 not found, 0 failed"),
            "{}",
            shown.text
        );
        assert!(
            !shown.text.lines().any(|line| line.starts_with("asked ")),
            "{}",
            shown.text
        );
    });
}
