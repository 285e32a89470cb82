//! What others ask of a running run, and what state it is in.

use super::pace::{Orders, Wait};
use crate::engine::ledger::Ledger;
use crate::postgres::spi::{Connection, Mode, Parameter};

/// What a worker reads before each batch.
pub struct Control {
    pub state: String,
    /// Somebody asks for a pause, or to cancel the run.
    pub asked_to_stop: bool,
    /// Somebody asks for a part of the run.
    pub asked_to_share: bool,
    /// A range that is not done is in an earlier phase than asked for.
    pub behind: bool,
    /// The newest order about pace, as its request's id; 0 for none.
    pub pace: i64,
}

pub fn look(connection: &Connection, ledger: &Ledger, run_id: i64, phase: i32) -> Control {
    let rows = ledger.run(
        connection,
        Mode::Write,
        "SELECT r.state,
                EXISTS (SELECT FROM ~backfill_requests q WHERE q.run_id = r.run_id AND q.handled_at IS NULL AND q.request IN ('pause', 'cancel')),
                EXISTS (SELECT FROM ~backfill_requests q WHERE q.run_id = r.run_id AND q.handled_at IS NULL AND q.request = 'join'),
                EXISTS (SELECT FROM ~backfill_ranges g WHERE g.run_id = r.run_id AND NOT g.done AND g.phase < $2),
                (SELECT max(q.request_id) FROM ~backfill_requests q WHERE q.run_id = r.run_id AND q.handled_at IS NULL AND q.request = 'pace')
         FROM ~backfill_runs r WHERE r.run_id = $1",
        &[run_id.into(), phase.into()],
    );
    if rows.is_empty() {
        // Somebody deleted the run's row.
        return Control {
            state: "cancelled".to_owned(),
            asked_to_stop: false,
            asked_to_share: false,
            behind: false,
            pace: 0,
        };
    }
    Control {
        state: rows.text(0, 0).unwrap_or_default(),
        asked_to_stop: rows.get(0, 1).unwrap_or(false),
        asked_to_share: rows.get(0, 2).unwrap_or(false),
        behind: rows.get(0, 3).unwrap_or(false),
        pace: rows.get(0, 4).unwrap_or(0),
    }
}

/// Takes the open requests to stop a run, for good: pause and cancel change its state for all.
pub fn obey(connection: &Connection, ledger: &Ledger, run_id: i64) {
    let rows = ledger.write(
        connection,
        "WITH taken AS (
             SELECT request_id FROM ~backfill_requests WHERE run_id = $1 AND handled_at IS NULL AND request IN ('pause', 'cancel')
             ORDER BY request_id FOR UPDATE SKIP LOCKED),
         handled AS (
             UPDATE ~backfill_requests q SET handled_at = clock_timestamp() FROM taken t WHERE q.request_id = t.request_id
             RETURNING q.request)
         SELECT bool_or(request = 'cancel'), bool_or(request = 'pause') FROM handled",
        &[run_id.into()],
    );
    let (cancel, pause): (bool, bool) = (rows.get(0, 0).unwrap_or(false), rows.get(0, 1).unwrap_or(false));
    if cancel || pause {
        set_state(connection, ledger, run_id, if cancel { "cancelled" } else { "paused" });
    }
}

/// Whether somebody asks for a part of the run by now.
pub fn is_asked_to_share(connection: &Connection, ledger: &Ledger, run_id: i64) -> bool {
    let rows = ledger.run(
        connection,
        Mode::Write,
        "SELECT FROM ~backfill_requests WHERE run_id = $1 AND handled_at IS NULL AND request = 'join' LIMIT 1",
        &[run_id.into()],
    );
    !rows.is_empty()
}

/// Rows that are done in all ranges but one.
pub fn rows_done_by_others(connection: &Connection, ledger: &Ledger, run_id: i64, range: i32) -> i64 {
    ledger
        .run(
            connection,
            Mode::Write,
            "SELECT coalesce(sum(rows_done), 0)::bigint FROM ~backfill_ranges WHERE run_id = $1 AND range_number <> $2",
            &[run_id.into(), range.into()],
        )
        .get(0, 0)
        .unwrap_or(0)
}

/// Takes the open request for a part of the run, unless another session has just done so.
pub fn take_share_request(connection: &Connection, ledger: &Ledger, run_id: i64) -> bool {
    let rows = ledger.write(
        connection,
        "WITH taken AS (
             SELECT request_id FROM ~backfill_requests WHERE run_id = $1 AND handled_at IS NULL AND request = 'join'
             FOR UPDATE SKIP LOCKED)
         UPDATE ~backfill_requests q SET handled_at = clock_timestamp() FROM taken t WHERE q.request_id = t.request_id",
        &[run_id.into()],
    );
    !rows.is_empty()
}

/// Ends or halts a run that is running.
pub fn set_state(connection: &Connection, ledger: &Ledger, run_id: i64, state: &str) -> bool {
    let rows = ledger.write(
        connection,
        "UPDATE ~backfill_runs SET state = $2, finished_at = CASE WHEN $2 IN ('finished', 'cancelled') THEN clock_timestamp() END,
                error = NULL, error_sqlstate = NULL
         WHERE run_id = $1 AND state <> $2 AND state NOT IN ('finished', 'cancelled')",
        &[run_id.into(), state.into()],
    );
    rows.len() == 1
}

/// Writes down why a run stopped.
pub fn set_failed(connection: &Connection, ledger: &Ledger, run_id: i64, sqlstate: &str, message: &str) {
    ledger.write(
        connection,
        "UPDATE ~backfill_runs SET state = 'failed', error_sqlstate = $2, error = $3 WHERE run_id = $1 AND state = 'running'",
        &[run_id.into(), sqlstate.into(), message.into()],
    );
}

/// Asks the sessions that work on the run for a part of it, unless somebody has asked already.
pub fn ask_to_join(connection: &Connection, ledger: &Ledger, run_id: i64, role: &str) {
    ledger.write(
        connection,
        "INSERT INTO ~backfill_requests (run_id, request, requested_by)
         SELECT $1, 'join', $2::name
         WHERE NOT EXISTS (SELECT FROM ~backfill_requests WHERE run_id = $1 AND request = 'join' AND handled_at IS NULL)",
        &[run_id.into(), role.into()],
    );
}

/// The orders of the pace request with that id.
pub fn orders(connection: &Connection, ledger: &Ledger, request_id: i64) -> Orders {
    let rows = ledger.run(
        connection,
        Mode::Write,
        "SELECT (arguments->>'batch_pause')::integer, (arguments->>'target_batch_time')::integer,
                (arguments->>'max_replica_lag')::integer, (arguments->>'batch')::integer
         FROM ~backfill_requests WHERE request_id = $1",
        &[request_id.into()],
    );
    if rows.is_empty() {
        return Orders::default();
    }
    Orders {
        batch_pause: rows.get(0, 0),
        target_batch_time: rows.get(0, 1),
        max_replica_lag: rows.get(0, 2),
        batch: rows.get(0, 3),
    }
}

/// The time, in microseconds since 2000.
pub fn now() -> i64 {
    crate::postgres::backends::now()
}

/// Writes down a wait that is over.
pub fn keep_wait(connection: &Connection, ledger: &Ledger, run_id: i64, wait: &Wait) {
    ledger.write(
        connection,
        "INSERT INTO ~backfill_waits (run_id, reason, value, began_at, milliseconds, range_number) VALUES ($1, $2, $3, $4, $5, $6)",
        &[
            run_id.into(),
            wait.reason.into(),
            wait.value.as_str().into(),
            Parameter::timestamp(wait.began),
            i64::try_from(wait.length.as_millis()).unwrap_or(i64::MAX).into(),
            Parameter::int4(wait.range),
        ],
    );
}

/// Shows a wait while it lasts.
pub fn show_throttle(connection: &Connection, ledger: &Ledger, run_id: i64, range: i32, reason: &str, value: &str) {
    ledger.write(
        connection,
        "UPDATE ~backfill_ranges SET throttle_reason = $3, throttle_value = $4 WHERE run_id = $1 AND range_number = $2",
        &[run_id.into(), range.into(), reason.into(), value.into()],
    );
}

pub fn hide_throttle(connection: &Connection, ledger: &Ledger, run_id: i64, range: i32) {
    ledger.write(
        connection,
        "UPDATE ~backfill_ranges SET throttle_reason = NULL, throttle_value = NULL
         WHERE run_id = $1 AND range_number = $2 AND throttle_reason IS NOT NULL",
        &[run_id.into(), range.into()],
    );
}
