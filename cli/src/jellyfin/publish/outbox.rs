//! The outbox as the relay sees it: claims, and what came of them, each in a short transaction of its own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postgres::Client;
use serde_json::{json, Value};

use crate::failure::{Cause, Failure};

/// After so many failures an event is `failed`, until somebody queues it again.
const MOST_ATTEMPTS: i32 = 8;

/// An event that is ours for the length of the lease.
pub struct Event {
    pub id: String,
    pub topic: String,
    pub payload: Value,
    pub attempts: i32,
}

impl Event {
    pub fn body(&self) -> Value {
        json!({"topic": self.topic, "payload": self.payload, "source": "backfill", "correlation_id": self.id})
    }
}

pub fn database(error: postgres::Error) -> Failure {
    Failure::of_database(&error, None)
}

pub fn event_of(row: &postgres::Row) -> Result<Event, Failure> {
    let payload: &str = row.get(2);
    Ok(Event {
        id: row.get(0),
        topic: row.get(1),
        payload: serde_json::from_str(payload)
            .map_err(|error| Failure::new(Cause::Validation, format!("a payload cannot be read: {error}")))?,
        attempts: row.get(3),
    })
}

/// Host, process and time of its start: no other call has all three.
pub fn name_of_this_call() -> String {
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
pub fn claim(
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
pub fn until_next(client: &mut Client, open: &[&str]) -> Result<Option<Duration>, Failure> {
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

/// Where a delivery stands.
pub enum Recorded {
    ByUs,
    /// Another call was first.
    Before,
    /// Somebody took the event out of the outbox meanwhile.
    Nowhere,
}

/// Records a delivery. Whose claim the event is by now does not matter: it was delivered.
pub fn published(client: &mut Client, event: &Event, envelope: &str) -> Result<Recorded, Failure> {
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
pub fn fail(
    client: &mut Client,
    event: &Event,
    us: &str,
    error: &str,
    wait: Duration,
) -> Result<Option<String>, Failure> {
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
pub fn release(client: &mut Client, event: &Event, us: &str) -> Result<(), Failure> {
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
pub fn list_failed(client: &mut Client) -> Result<(), Failure> {
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

/// Which of these events are not published, by whichever call.
pub fn unpublished(client: &mut Client, ids: &[&str]) -> Result<Vec<String>, Failure> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = client
        .query(
            "SELECT u.id FROM unnest($1::text[]) u(id)
             WHERE NOT EXISTS (SELECT FROM event_outbox o WHERE o.event_id = u.id::uuid AND o.state = 'published')",
            &[&ids],
        )
        .map_err(database)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
