//! What anybody with the right to may ask of a run: rows in a table of their own, so that nobody waits for a worker.

use std::collections::BTreeMap;

use pgrx::datum::Interval;
use pgrx::IntoDatum;

use super::control::{obey, set_state};
use crate::engine::ledger::runs::Run;
use crate::engine::ledger::Ledger;
use crate::error::{wrong_state, Result};
use crate::postgres::arrays;
use crate::postgres::backends::Backend;
use crate::postgres::spi::{Connection, Mode, Parameter};
use crate::postgres::user;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Request {
    Pause,
    Cancel,
}

impl Request {
    fn name(self) -> &'static str {
        match self {
            Request::Pause => "pause",
            Request::Cancel => "cancel",
        }
    }

    fn state(self) -> &'static str {
        match self {
            Request::Pause => "paused",
            Request::Cancel => "cancelled",
        }
    }
}

/// Whether a session that lives works on the run.
fn is_worked_on(connection: &Connection, ledger: &Ledger, run: &Run) -> bool {
    let rows = ledger.run(
        connection,
        Mode::Read,
        "SELECT pid, backend_start FROM ~backfill_ranges WHERE run_id = $1 AND pid IS NOT NULL AND backend_start IS NOT NULL",
        &[run.run_id.into()],
    );
    (0..rows.len()).any(|row| {
        let backend = rows
            .get(row, 0)
            .zip(rows.get(row, 1))
            .map(|(pid, start)| Backend { pid, start });
        backend.is_some_and(|backend| backend != Backend::own() && backend.is_alive())
    })
}

/// Asks for it: `requested` when a session will obey at its next batch, else the state that the run has now.
///
/// # Errors
/// 55000 when the run is over.
pub fn ask(connection: &Connection, ledger: &Ledger, run: &Run, request: Request) -> Result<&'static str> {
    let is_over = matches!(run.state.as_str(), "finished" | "cancelled");
    if is_over || (request == Request::Pause && run.state == "failed") {
        return Err(wrong_state(
            format!("run {} is {}", run.run_id, run.state),
            "There is nothing of it to stop.",
            format!("SELECT backfill_report({});", run.run_id),
        ));
    }
    if is_worked_on(connection, ledger, run) {
        ledger.write(
            connection,
            "INSERT INTO ~backfill_requests (run_id, request, requested_by) VALUES ($1, $2, $3::name)",
            &[
                run.run_id.into(),
                request.name().into(),
                user::current_name().as_str().into(),
            ],
        );
        return Ok("requested");
    }
    set_state(connection, ledger, run.run_id, request.state());
    Ok(request.state())
}

/// Marks the quarantined items of a run, so that the next `resume_backfill` tries them again. Gives their number.
///
/// # Errors
/// 55000 for a run that was cancelled.
pub fn retry(connection: &Connection, ledger: &Ledger, run: &Run) -> Result<i64> {
    if run.state == "cancelled" {
        return Err(wrong_state(
            format!("run {} is cancelled", run.run_id),
            "A cancelled run does not go on.",
            "Start a new run: it looks at every row again.",
        ));
    }
    let rows = ledger.write(
        connection,
        "UPDATE ~backfill_quarantine SET retry = true WHERE run_id = $1 AND NOT retry",
        &[run.run_id.into()],
    );
    Ok(rows.len() as i64)
}

/// Orders the pace of a run; what is `None` stays as the session's settings say.
///
/// # Errors
/// 55000 when the run is over.
pub fn set_pace(connection: &Connection, ledger: &Ledger, run: &Run, pace: &[(&str, Option<i32>)]) -> Result<()> {
    if matches!(run.state.as_str(), "finished" | "cancelled") {
        return Err(wrong_state(
            format!("run {} is {}", run.run_id, run.state),
            "It has no pace any more.",
            "For the next run: SET media_assets.batch_pause = '100ms';",
        ));
    }
    let given: Vec<(&str, String)> = pace
        .iter()
        .filter_map(|(name, value)| Some((*name, value.as_ref()?.to_string())))
        .collect();
    // The newest order is the only one: it takes over what it does not name.
    ledger.write(
        connection,
        "WITH before AS (
             UPDATE ~backfill_requests SET handled_at = clock_timestamp()
             WHERE run_id = $1 AND request = 'pace' AND handled_at IS NULL RETURNING arguments)
         INSERT INTO ~backfill_requests (run_id, request, arguments, requested_by)
         SELECT $1, 'pace', coalesce((SELECT b.arguments - 'batch' FROM before b LIMIT 1), '{}') || jsonb_object($2, $3), $4::name",
        &[
            run.run_id.into(),
            arrays::text(given.iter().map(|(name, _)| Some(*name))).into(),
            arrays::text(given.iter().map(|(_, value)| Some(value.as_str()))).into(),
            user::current_name().as_str().into(),
        ],
    );
    Ok(())
}

/// Obeys a request to cancel the run that came when the last session could no longer do so. Says whether there was one:
/// what somebody asked to be ended does not go on because somebody else resumes it.
pub fn obey_cancel(connection: &Connection, ledger: &Ledger, run: &Run) -> bool {
    let asked = ledger.run(
        connection,
        Mode::Write,
        "SELECT FROM ~backfill_requests WHERE run_id = $1 AND handled_at IS NULL AND request = 'cancel' LIMIT 1",
        &[run.run_id.into()],
    );
    if asked.is_empty() || matches!(run.state.as_str(), "finished" | "cancelled") {
        return false;
    }
    drop(asked);
    obey(connection, ledger, run.run_id);
    true
}

/// Lets a run that has stopped go on. A request to pause it that is still open is older than that, and forgotten.
///
/// # Errors
/// 55000 when it is over and nothing of it is to be tried again.
pub fn reopen(connection: &Connection, ledger: &Ledger, run: &Run) -> Result<()> {
    let refused = |detail: &str, hint: String| {
        Err(wrong_state(
            format!("run {} is {}", run.run_id, run.state),
            detail,
            hint,
        ))
    };
    if run.state == "cancelled" {
        return refused(
            "A cancelled run does not go on.",
            "Start a new run: it looks at every row again.".to_owned(),
        );
    }
    let to_retry = ledger.run(
        connection,
        Mode::Read,
        "SELECT FROM ~backfill_quarantine WHERE run_id = $1 AND retry LIMIT 1",
        &[run.run_id.into()],
    );
    if run.state == "finished" && to_retry.is_empty() {
        return refused(
            "Nothing of it is left to do.",
            format!(
                "To try its failed items again: SELECT retry_quarantined({});",
                run.run_id
            ),
        );
    }
    let reopened = ledger.write(
        connection,
        "WITH forgotten AS (
             UPDATE ~backfill_requests SET handled_at = clock_timestamp()
             WHERE run_id = $1 AND handled_at IS NULL AND request <> 'pace'),
         alive AS (
             UPDATE ~backfill_ranges SET updated_at = clock_timestamp() WHERE run_id = $1 AND range_number = 0)
         UPDATE ~backfill_runs SET state = 'running', finished_at = NULL, error = NULL, error_sqlstate = NULL
         WHERE run_id = $1 AND state <> 'cancelled'",
        &[run.run_id.into()],
    );
    if reopened.is_empty() {
        return refused(
            "Somebody has cancelled or pruned it meanwhile.",
            "SELECT run_id, state FROM backfill_progress;".to_owned(),
        );
    }
    Ok(())
}

/// A run, and what goes with it.
const OF_RUNS: [&str; 7] = [
    "DELETE FROM ~backfill_runs WHERE run_id = ANY ($1)",
    "DELETE FROM ~backfill_ranges WHERE run_id = ANY ($1)",
    "DELETE FROM ~backfill_requests WHERE run_id = ANY ($1)",
    "DELETE FROM ~backfill_decisions WHERE run_id = ANY ($1)",
    "DELETE FROM ~backfill_changes WHERE run_id = ANY ($1)",
    "DELETE FROM ~backfill_quarantine WHERE run_id = ANY ($1)",
    "DELETE FROM ~backfill_waits WHERE run_id = ANY ($1)",
];

/// Deletes what the ledger has of runs that nobody works on and whose last sign of life is that long ago, of those that the
/// caller may steer: ended ones, and also paused, failed and interrupted ones, which then cannot go on. Gives their number.
pub fn prune(connection: &Connection, ledger: &Ledger, older_than: Interval) -> i64 {
    let owns_all = user::is_member(ledger.owner());
    let rows = ledger.run(
        connection,
        Mode::Read,
        "SELECT DISTINCT run_by::text FROM ~backfill_runs",
        &[],
    );
    let roles: Vec<String> = (0..rows.len())
        .filter_map(|row| rows.text(row, 0))
        .filter(|role| owns_all || user::is_member_of(role))
        .collect();
    drop(rows);
    let older_than = Parameter::interval(older_than.into_datum());
    // Locked, so that none is resumed from here on; one that is being resumed stays.
    let locked = ledger.write(
        connection,
        "SELECT run_id FROM ~backfill_runs
         WHERE run_by::text = ANY ($1) AND (state <> 'running' OR mode = 'procedure')
            AND coalesce(finished_at, started_at) < statement_timestamp() - $2
         FOR UPDATE SKIP LOCKED",
        &[
            arrays::text(roles.iter().map(|role| Some(role.as_str()))).into(),
            older_than,
        ],
    );
    let locked = arrays::int8((0..locked.len()).map(|row| locked.get(row, 0)));
    // Seen now: a run that was resumed just before it was locked has a range that says so.
    let idle = ledger.write(
        connection,
        "SELECT r.run_id, g.pid, g.backend_start FROM ~backfill_runs r LEFT JOIN ~backfill_ranges g USING (run_id)
         WHERE r.run_id = ANY ($1) AND (r.state <> 'running' OR r.mode = 'procedure')
            AND coalesce(r.finished_at, (SELECT max(l.updated_at) FROM ~backfill_ranges l WHERE l.run_id = r.run_id), r.started_at)
                < statement_timestamp() - $2
         ORDER BY r.run_id",
        &[locked.into(), older_than],
    );
    let mut alive: BTreeMap<i64, bool> = BTreeMap::new();
    for row in 0..idle.len() {
        let Some(run_id) = idle.get(row, 0) else { continue };
        let backend = idle
            .get(row, 1)
            .zip(idle.get(row, 2))
            .map(|(pid, start)| Backend { pid, start });
        *alive.entry(run_id).or_default() |= backend.is_some_and(Backend::is_alive);
    }
    drop(idle);
    let dead: Vec<i64> = alive
        .iter()
        .filter(|(_, alive)| !**alive)
        .map(|(run_id, _)| *run_id)
        .collect();
    let runs = arrays::int8(dead.iter().map(|run_id| Some(*run_id)));
    for of_runs in OF_RUNS {
        ledger.write(connection, of_runs, &[runs.into()]);
    }
    dead.len() as i64
}
