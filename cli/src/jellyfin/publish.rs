//! `jellyfin publish`: posts queued events, each at least once and always under its own id.
//!
//! A claim is a short transaction: it takes due events with SKIP LOCKED and puts their next attempt behind the end of its
//! lease. Then comes HTTP, then another short transaction that says what came of it. Who is killed in between leaves
//! events that are due again when the lease is over.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use postgres::Client;
use serde_json::{json, Value};

use super::http::{fatal, rest, Server, Trouble};
use super::progress::Progress;
use super::{needed, Common};
use crate::connection::Target;
use crate::failure::{Cause, Failure};

/// After so many failures an event is `failed`, until somebody queues it again.
const MOST_ATTEMPTS: i32 = 8;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Post at most that many events
    #[arg(long)]
    limit: Option<usize>,
    /// How long an event is ours; the next call takes it over after that. Default: twice the timeout and 30s
    #[arg(long, value_parser = super::duration)]
    lease: Option<Duration>,
}

/// An event that is ours for the length of the lease.
struct Event {
    id: String,
    topic: String,
    payload: Value,
    attempts: i32,
}

impl Event {
    fn body(&self) -> Value {
        json!({"topic": self.topic, "payload": self.payload, "source": "backfill", "correlation_id": self.id})
    }
}

#[derive(Default)]
struct Totals {
    published: usize,
    /// Events whose last try of this call failed, with what was said.
    failing: HashMap<String, String>,
    tries: HashMap<String, u32>,
    /// Delivered by us and recorded by another call first.
    twice: usize,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let server = Server::new(
        "AGENT_ZERO_BASE_URL",
        &needed("AGENT_ZERO_BASE_URL", "http://localhost:8080")?,
        None,
        arguments.common.timeout,
    )?;
    let mut client = Target::of_environment()?.connect()?;
    if arguments.common.dry_run {
        return show(&mut client, &server, arguments);
    }
    let result = work(&mut client, &server, arguments);
    list_failed(&mut client)?;
    result
}

fn database(error: postgres::Error) -> Failure {
    Failure::of_database(&error, None)
}

fn show(client: &mut Client, server: &Server, arguments: &Arguments) -> Result<(), Failure> {
    let mut reading = client.build_transaction().read_only(true).start().map_err(database)?;
    let count: i64 = reading
        .query_one("SELECT count(*) FROM event_outbox WHERE state = 'queued'", &[])
        .map_err(database)?
        .get(0);
    let samples = arguments.limit.unwrap_or(3).min(100) as i64;
    let rows = reading
        .query(
            "SELECT event_id::text, topic, payload::text, attempts FROM event_outbox WHERE state = 'queued'
             ORDER BY next_attempt_at, event_id LIMIT $1",
            &[&samples],
        )
        .map_err(database)?;
    println!("dry run: {count} events are queued; {} of them in full:", rows.len());
    for row in rows {
        let event = event_of(&row)?;
        println!("POST {}/events/publish", server.base());
        println!("{:#}", event.body());
    }
    Ok(())
}

fn event_of(row: &postgres::Row) -> Result<Event, Failure> {
    let payload: &str = row.get(2);
    Ok(Event {
        id: row.get(0),
        topic: row.get(1),
        payload: serde_json::from_str(payload)
            .map_err(|error| Failure::new(Cause::Validation, format!("a payload cannot be read: {error}")))?,
        attempts: row.get(3),
    })
}

fn work(client: &mut Client, server: &Server, arguments: &Arguments) -> Result<(), Failure> {
    let common = &arguments.common;
    let us = name_of_this_call();
    let lease = arguments.lease.unwrap_or(common.timeout * 2 + Duration::from_secs(30));
    if lease <= common.timeout {
        return Err(Failure::new(Cause::Validation, "the lease ends before a request may")
            .hint("--lease has to be longer than --timeout."));
    }
    let total: i64 = client
        .query_one("SELECT count(*) FROM event_outbox WHERE state = 'queued'", &[])
        .map_err(database)?
        .get(0);
    let total = arguments
        .limit
        .map_or(total as usize, |limit| limit.min(total as usize));
    let progress = Progress::start(total as u64);
    let mut totals = Totals::default();
    let mut taken = 0;
    loop {
        let left = arguments.limit.map_or(usize::MAX, |limit| limit.saturating_sub(taken));
        let most = usize::from(common.concurrency).min(left);
        // Those that this call tried often enough are left to a later one, those that it began with are seen through.
        let spent: Vec<&str> = of_tries(&totals, |tries| tries >= common.tries);
        let open: Vec<&str> = of_tries(&totals, |tries| tries < common.tries);
        let events = claim(client, &us, lease, most, usize::from(common.concurrency), &spent, &open)?;
        if events.is_empty() {
            match until_next(client, &open)? {
                Some(wait) => {
                    std::thread::sleep(wait);
                    continue;
                }
                None => break,
            }
        }
        taken += events
            .iter()
            .filter(|event| !totals.tries.contains_key(&event.id))
            .count();
        let results = post(server, &events);
        let mut pause = common.sleep;
        let mut refused = None;
        for (event, result) in events.iter().zip(results) {
            let tries = totals.tries.entry(event.id.clone()).or_default();
            *tries += 1;
            match result {
                Ok(envelope) => {
                    totals.failing.remove(&event.id);
                    match published(client, event, &envelope)? {
                        Recorded::ByUs => totals.published += 1,
                        Recorded::Before => totals.twice += 1,
                        Recorded::Nowhere => {
                            let gone = "delivered, but its row in event_outbox has gone".to_owned();
                            progress.say(&format!("{}: {gone}", event.id));
                            totals.failing.insert(event.id.clone(), gone);
                        }
                    }
                    totals.tries.remove(&event.id);
                    progress.batch(1, &format!("published {} as {envelope}", event.id));
                }
                Err(trouble @ Trouble::Refused(_)) => {
                    release(client, event, &us)?;
                    refused = Some(trouble);
                }
                Err(trouble) => {
                    let wait = rest(&trouble, common.backoff, event.attempts as u32 + 1);
                    // A server that says when to come again says it for all.
                    if let Trouble::Passing {
                        retry_after: Some(_), ..
                    } = trouble
                    {
                        pause = pause.max(wait);
                    }
                    if matches!(trouble, Trouble::Lasting { .. }) {
                        *tries = u32::MAX;
                    }
                    let state = fail(client, event, &us, &trouble.text(), wait)?;
                    if state.as_deref() == Some("failed") {
                        *tries = u32::MAX;
                    }
                    progress.say(&format!("{}: {}", event.id, trouble.text()));
                    totals.failing.insert(event.id.clone(), trouble.text());
                }
            }
        }
        if let Some(trouble) = refused {
            progress.finish();
            return Err(fatal(server, &trouble, "AGENT_ZERO_BASE_URL"));
        }
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
    progress.finish();
    let twice = if totals.twice > 0 {
        format!(", {} that another call recorded first", totals.twice)
    } else {
        String::new()
    };
    println!(
        "published: {}{twice}; failing: {}",
        totals.published,
        totals.failing.len()
    );
    if totals.failing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Cause::Incomplete, format!("{} events were not published", totals.failing.len()))
        .hint("SELECT event_id, attempts, next_attempt_at, last_error, state FROM event_outbox WHERE last_error IS NOT NULL; then call again."))
}

fn of_tries(totals: &Totals, which: impl Fn(u32) -> bool) -> Vec<&str> {
    let tries = totals.tries.iter().filter(|(_, tries)| which(**tries));
    tries.map(|(id, _)| id.as_str()).collect()
}

/// Host, process and time of its start: no other call has all three.
fn name_of_this_call() -> String {
    let host = std::env::var("HOSTNAME")
        .ok()
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .map_or_else(|| "unknown".to_owned(), |name| name.trim().to_owned());
    let start = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_micros();
    format!("{host} {} {start}", std::process::id())
}

/// Takes at most `most` events that are due; those in `open` were taken before and do not count.
fn claim(
    client: &mut Client,
    us: &str,
    lease: Duration,
    most: usize,
    at_once: usize,
    spent: &[&str],
    open: &[&str],
) -> Result<Vec<Event>, Failure> {
    let rows = client
        .query(
            "WITH begun AS (
                 SELECT event_id FROM event_outbox
                 WHERE state = 'queued' AND next_attempt_at <= clock_timestamp() AND event_id = ANY ($5::text[]::uuid[])
                 ORDER BY next_attempt_at, event_id LIMIT $6 FOR UPDATE SKIP LOCKED
             ), due AS (
                 SELECT event_id FROM event_outbox
                 WHERE state = 'queued' AND next_attempt_at <= clock_timestamp()
                   AND event_id <> ALL ($4::text[]::uuid[]) AND event_id <> ALL ($5::text[]::uuid[])
                 ORDER BY next_attempt_at, event_id
                 LIMIT least($3::bigint, $6 - (SELECT count(*) FROM begun)) FOR UPDATE SKIP LOCKED
             )
             UPDATE event_outbox o SET claimed_by = $1, next_attempt_at = clock_timestamp() + $2::float8 * interval '1 second'
             WHERE o.event_id IN (SELECT event_id FROM begun UNION ALL SELECT event_id FROM due)
             RETURNING o.event_id::text, o.topic, o.payload::text, o.attempts",
            &[&us, &lease.as_secs_f64(), &(most as i64), &spent, &open, &(at_once as i64)],
        )
        .map_err(database)?;
    rows.iter().map(event_of).collect()
}

/// How long until one of the events that this call began with is due; `None` when there is none.
fn until_next(client: &mut Client, open: &[&str]) -> Result<Option<Duration>, Failure> {
    if open.is_empty() {
        return Ok(None);
    }
    let row = client
        .query_one(
            "SELECT extract(epoch FROM min(next_attempt_at) - clock_timestamp())::float8 FROM event_outbox
             WHERE state = 'queued' AND event_id = ANY ($1::text[]::uuid[])",
            &[&open],
        )
        .map_err(database)?;
    let seconds: Option<f64> = row.get(0);
    Ok(seconds.map(|seconds| Duration::from_secs_f64(seconds.clamp(0.01, 3600.0))))
}

/// Posts all of them at the same time; gives the ids of their envelopes.
fn post(server: &Server, events: &[Event]) -> Vec<Result<String, Trouble>> {
    let one = |event: &Event| match server.post("/events/publish", &event.body())?.get("id") {
        Some(Value::String(id)) if !id.is_empty() => Ok(id.replace('\0', "")),
        Some(Value::Number(id)) => Ok(id.to_string()),
        _ => Err(Trouble::unusable("the answer has no id of an envelope")),
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = events.iter().map(|event| scope.spawn(move || one(event))).collect();
        running
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(Trouble::unusable("the request broke down")))
            })
            .collect()
    })
}

/// Where a delivery stands.
enum Recorded {
    ByUs,
    /// Another call was first.
    Before,
    /// Somebody took the event out of the outbox meanwhile.
    Nowhere,
}

/// Records a delivery. Whose claim the event is by now does not matter: it was delivered.
fn published(client: &mut Client, event: &Event, envelope: &str) -> Result<Recorded, Failure> {
    let row = client
        .query_one(
            "WITH recorded AS (
                 UPDATE event_outbox SET state = 'published', published_at = clock_timestamp(), envelope_id = $2, claimed_by = NULL,
                        last_error = NULL, attempts = attempts + 1
                 WHERE event_id = $1::text::uuid AND state <> 'published' RETURNING 1)
             SELECT EXISTS (SELECT FROM recorded), EXISTS (SELECT FROM event_outbox WHERE event_id = $1::text::uuid)",
            &[&event.id, &envelope],
        )
        .map_err(database)?;
    Ok(match (row.get(0), row.get(1)) {
        (true, _) => Recorded::ByUs,
        (false, true) => Recorded::Before,
        (false, false) => Recorded::Nowhere,
    })
}

/// Records a failure, where the event is still ours. Gives the state that it has then.
fn fail(client: &mut Client, event: &Event, us: &str, error: &str, wait: Duration) -> Result<Option<String>, Failure> {
    client
        .query_opt(
            "UPDATE event_outbox SET attempts = attempts + 1, claimed_by = NULL, last_error = $3,
                    next_attempt_at = clock_timestamp() + $4::float8 * interval '1 second',
                    state = CASE WHEN attempts + 1 >= $5 THEN 'failed' ELSE 'queued' END
             WHERE event_id = $1::text::uuid AND state = 'queued' AND claimed_by = $2 RETURNING state",
            &[
                &event.id,
                &us,
                &error.replace('\0', ""),
                &wait.as_secs_f64(),
                &MOST_ATTEMPTS,
            ],
        )
        .map(|row| row.map(|row| row.get(0)))
        .map_err(database)
}

/// Gives an event back as it was: that we are refused is not its fault.
fn release(client: &mut Client, event: &Event, us: &str) -> Result<(), Failure> {
    client
        .execute(
            "UPDATE event_outbox SET claimed_by = NULL, next_attempt_at = clock_timestamp()
             WHERE event_id = $1::text::uuid AND state = 'queued' AND claimed_by = $2",
            &[&event.id, &us],
        )
        .map(drop)
        .map_err(database)
}

/// Lists events that failed for good, whichever call met the last failure.
fn list_failed(client: &mut Client) -> Result<(), Failure> {
    let rows = client
        .query(
            "SELECT event_id::text, subject_id, attempts, last_error FROM event_outbox WHERE state = 'failed'
             ORDER BY next_attempt_at DESC, event_id LIMIT 20",
            &[],
        )
        .map_err(database)?;
    for row in &rows {
        let (id, subject, attempts, error): (&str, &str, i32, Option<&str>) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        eprintln!(
            "failed: {id} of row {subject} after {attempts} attempts: {}",
            error.unwrap_or("unknown")
        );
    }
    if !rows.is_empty() {
        eprintln!(
            "HINT: when the cause is mended: UPDATE event_outbox SET state = 'queued', attempts = 0, next_attempt_at = now() WHERE state = 'failed';"
        );
    }
    Ok(())
}
