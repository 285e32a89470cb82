//! `media-assets jellyfin` killed at random moments, against a server with faults.

#[path = "../../core/tests/support/schema.rs"]
mod schema;

use std::collections::HashMap;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use media_assets_tests::jellyfin::{client, ended, run_client, BASE, VERSION};
use media_assets_tests::relay::{enrich, exists, items, published_board, with};
use media_assets_tests::stub::{Reply, Request, Stub};
use media_assets_tests::{each_server, Database};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use schema::breaches;
use serde_json::{json, Value};

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
            4..=6 => Reply::Later(429, "0".into()),
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

/// Two calls at once, each of which may be killed after at most `most` requests of both. Gives how many were killed.
fn two_calls(database: &Database, stub: &Stub, arguments: &[&str], most: usize, random: &mut StdRng) -> u32 {
    let before = stub.count();
    let mut calls: Vec<(Child, Option<usize>)> = (0..2)
        .map(|_| {
            let call = client(database, &stub.base(), arguments).spawn();
            let end = random.gen_bool(0.6).then(|| before + random.gen_range(1..=most));
            (call.expect("the client starts"), end)
        })
        .collect();
    while calls
        .iter_mut()
        .any(|(call, end)| end.is_some() && matches!(call.try_wait(), Ok(None)))
    {
        for (call, end) in &mut calls {
            if end.is_some_and(|end| stub.count() >= end) {
                // A kill that comes too late is none.
                let _ = call.kill();
                *end = None;
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    calls
        .into_iter()
        .map(|(call, _)| ended(call.wait_with_output().expect("it ends")).code)
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
        // So much that each round leaves something to the next.
        let (batch, limit) = ((rows / 20).clamp(4, 50).to_string(), (rows / 6).to_string());
        let fetch = with("fetch", &["--batch", &batch, "--concurrency", "4", "--tries", "3"]);
        let publish = with("publish", &["--concurrency", "8", "--tries", "2", "--lease", "1500ms"]);
        let limit = ["--limit", limit.as_str()];
        let (some_fetched, some_published) = ([&fetch[..], &limit].concat(), [&publish[..], &limit].concat());
        let most = rows as usize;
        let options = format!("{{\"backfill_version\": \"{VERSION}\", \"public_base\": \"{BASE}\"}}");
        let mut killed = 0;
        for _ in 0..6 {
            killed += two_calls(&database, &stub, &some_fetched, most / 40 + 4, &mut random);
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
            killed += two_calls(&database, &stub, &some_published, most / 8 + 4, &mut random);
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
