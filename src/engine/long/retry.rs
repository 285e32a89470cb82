//! Quarantined rows that somebody asked to try again, when all ranges are done.

use super::worker::{Worker, LOOK_EVERY};
use super::Buckets;
use crate::engine::batch::Policy;
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

/// Tries one batch of them. Says whether there were any, also such as another session is trying.
pub fn all(worker: &mut Worker<'_>) -> Result<bool> {
    let (any, tried) = worker.guarded(|worker| {
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
            let rows = worker.ledger.run(
                worker.connection,
                Mode::Write,
                "SELECT FROM ~backfill_quarantine WHERE run_id = $1 AND retry LIMIT 1",
                &[worker.run.run_id.into()],
            );
            return Ok((!rows.is_empty(), false));
        };
        try_again(worker, phase, &quarantined)?;
        Ok((true, true))
    })?;
    worker.commit()?;
    if any && !tried {
        worker.rest("phase", String::new(), LOOK_EVERY)?;
    }
    Ok(any)
}

fn try_again(worker: &mut Worker<'_>, phase: i32, quarantined: &[Quarantined]) -> Result<()> {
    let (connection, ledger, run_id) = (worker.connection, worker.ledger, worker.run.run_id);
    let mut phases = worker.program.open(connection, Buckets::ALL)?;
    let Some(opened) = phases.get_mut(usize::try_from(phase).unwrap_or(0)) else {
        return Ok(());
    };
    opened.begin(connection)?;
    let policy = Policy {
        mode: Mode::Write,
        own_transaction: true,
        contention_costs_row: true,
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
