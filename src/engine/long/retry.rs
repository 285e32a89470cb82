//! Quarantined rows that somebody asked to try again, when all ranges are done.

use super::worker::{Worker, LOOK_EVERY, MOST_TRIES};
use super::{claim, control, Buckets};
use crate::engine::batch::Policy;
use crate::engine::rights;
use crate::error::Result;
use crate::postgres::arrays;
use crate::postgres::spi::Mode;

/// Rows tried again in one transaction.
const AT_ONCE: i64 = 100;

/// A row in quarantine: its id and what it added to the counters.
struct Quarantined {
    phase: i32,
    id: String,
    counters: Vec<i64>,
}

/// What became of an attempt at one batch of them.
enum Tried {
    Batch,
    /// Nothing is left to try.
    Nothing,
    /// Another session tries what is left.
    Others,
    /// A plain function has the table.
    OtherRun,
}

/// Tries one batch of them. Says whether there were any, also such as another session is trying.
///
/// # Errors
/// What stops a run.
pub fn all(worker: &mut Worker<'_>) -> Result<bool> {
    let any = worker.guarded(|worker| {
        let any = is_asked_for(worker);
        if any {
            // Seen by others before the batch, which may take a while.
            claim::take_done(worker.connection, worker.ledger, worker.run.run_id, worker.me);
        }
        Ok(any)
    })?;
    worker.commit()?;
    if !any {
        return Ok(false);
    }
    let costs_row = worker.retries >= MOST_TRIES;
    let tried = match worker.attempt(|worker| batch(worker, costs_row))? {
        Ok(tried) => tried,
        Err(contention) => {
            worker.retries += 1;
            let milliseconds = LOOK_EVERY * i64::from(worker.retries.min(MOST_TRIES));
            worker.rest("lock", contention.message().to_owned(), milliseconds)?;
            return Ok(true);
        }
    };
    worker.commit()?;
    match tried {
        Tried::Batch => worker.retries = 0,
        Tried::Nothing => return Ok(false),
        Tried::Others => worker.rest("phase", String::new(), LOOK_EVERY)?,
        Tried::OtherRun => worker.rest("other_run", String::new(), LOOK_EVERY)?,
    }
    Ok(true)
}

fn is_asked_for(worker: &Worker<'_>) -> bool {
    let rows = worker.ledger.run(
        worker.connection,
        Mode::Write,
        "SELECT FROM ~backfill_quarantine WHERE run_id = $1 AND retry LIMIT 1",
        &[worker.run.run_id.into()],
    );
    !rows.is_empty()
}

fn batch(worker: &mut Worker<'_>, contention_costs_row: bool) -> Result<Tried> {
    if !rights::try_share_job(worker.connection, worker.program.name(), worker.program.locks()) {
        return Ok(Tried::OtherRun);
    }
    // Whoever had the table to himself before may have ended the run.
    if control::look(worker.connection, worker.ledger, worker.run.run_id, 0).state != "running" {
        return Ok(Tried::Batch);
    }
    let rows = worker.ledger.write(
        worker.connection,
        "SELECT phase, item_key, counters FROM ~backfill_quarantine
         WHERE run_id = $1 AND retry AND phase = (SELECT min(phase) FROM ~backfill_quarantine WHERE run_id = $1 AND retry)
         ORDER BY item_key LIMIT $2 FOR UPDATE SKIP LOCKED",
        &[worker.run.run_id.into(), AT_ONCE.into()],
    );
    let quarantined: Vec<Quarantined> = (0..rows.len())
        .map(|row| Quarantined {
            phase: rows.get(row, 0).unwrap_or(0),
            id: rows.text(row, 1).unwrap_or_default(),
            counters: rows.get(row, 2).unwrap_or_default(),
        })
        .collect();
    drop(rows);
    let Some(phase) = quarantined.first().map(|row| row.phase) else {
        return Ok(if is_asked_for(worker) {
            Tried::Others
        } else {
            Tried::Nothing
        });
    };
    try_again(worker, phase, &quarantined, contention_costs_row)?;
    Ok(Tried::Batch)
}

fn try_again(
    worker: &mut Worker<'_>,
    phase: i32,
    quarantined: &[Quarantined],
    contention_costs_row: bool,
) -> Result<()> {
    let (connection, ledger, run_id) = (worker.connection, worker.ledger, worker.run.run_id);
    let mut phases = worker.program.open(connection, Buckets::ALL)?;
    let Some(opened) = phases.get_mut(usize::try_from(phase).unwrap_or(0)) else {
        return Ok(());
    };
    opened.begin(connection)?;
    let policy = Policy {
        mode: Mode::Write,
        own_transaction: true,
        contention_costs_row,
    };
    worker.journal.start_batch();
    let ids: Vec<String> = quarantined.iter().map(|row| row.id.clone()).collect();
    let mut failures = crate::engine::batch::Failures::default();
    let (mut counters, found) = opened.again(connection, &ids, policy, &mut failures, &mut worker.journal)?;
    for row in quarantined.iter().filter(|row| found.contains(&row.id)) {
        for (total, value) in counters.iter_mut().zip(&row.counters) {
            *total -= value;
        }
    }
    let failed: Vec<String> = worker
        .journal
        .failures
        .iter()
        .map(|failure| failure.id.clone())
        .collect();
    worker.recorder.phase = phase;
    worker.recorder.keep(connection, &mut worker.journal);
    let settled = found
        .iter()
        .filter(|id| !failed.contains(id))
        .map(|id| Some(id.as_str()));
    ledger.write(
        connection,
        "DELETE FROM ~backfill_quarantine WHERE run_id = $1 AND phase = $2 AND item_key = ANY ($3)",
        &[run_id.into(), phase.into(), arrays::text(settled).into()],
    );
    let gone = ids.iter().filter(|id| !found.contains(id)).map(|id| Some(id.as_str()));
    ledger.write(
        connection,
        "UPDATE ~backfill_quarantine SET retry = false, message = 'the row has gone; before that: ' || message
         WHERE run_id = $1 AND phase = $2 AND item_key = ANY ($3)",
        &[run_id.into(), phase.into(), arrays::text(gone).into()],
    );
    if !opened.counts() {
        return Ok(());
    }
    ledger.write(
        connection,
        "UPDATE ~backfill_ranges SET updated_at = clock_timestamp(), counters = (
             SELECT array_agg(old.value + new.value ORDER BY old.place)
             FROM unnest(counters) WITH ORDINALITY old(value, place) JOIN unnest($2) WITH ORDINALITY new(value, place) USING (place))
         WHERE run_id = $1 AND range_number = 0",
        &[run_id.into(), arrays::int8(counters.iter().map(|value| Some(*value))).into()],
    );
    Ok(())
}
