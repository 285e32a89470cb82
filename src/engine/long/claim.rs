//! Who works on which range. A claim is a row that names a backend; whether that backend lives is asked of the server.

use super::Buckets;
use crate::engine::ledger::Ledger;
use crate::postgres::arrays;
use crate::postgres::backends::Backend;
use crate::postgres::spi::{Connection, Mode, Parameter};

/// A range as its row has it.
#[derive(Clone, Debug)]
pub struct Range {
    pub number: i32,
    pub buckets: Buckets,
    pub phase: i32,
    pub cursor: Option<String>,
    pub counters: Vec<i64>,
    pub rows_done: i64,
    pub batches: i64,
    pub batch_size: i32,
    pub done: bool,
}

/// What there is to do for a session.
pub enum Claim {
    Range(Range),
    /// Everything that is left belongs to sessions that live; some of it is in an earlier phase than the rest.
    Nothing {
        behind: bool,
    },
    /// Every range is done.
    AllDone,
}

const READ: &str =
    "SELECT range_number, first_bucket, last_bucket, phase, cursor, counters, rows_done, batches, batch_size,
           pid, backend_start
    FROM ~backfill_ranges WHERE run_id = $1 AND NOT done ORDER BY phase, range_number";

/// Takes a range that nobody alive works on, in the earliest phase that is not over.
pub fn take(connection: &Connection, ledger: &Ledger, run_id: i64, me: Backend) -> Claim {
    let rows = ledger.run(connection, Mode::Write, READ, &[run_id.into()]);
    if rows.is_empty() {
        return Claim::AllDone;
    }
    let earliest: i32 = rows.get(0, 3).unwrap_or(0);
    let mut behind = false;
    for row in 0..rows.len() {
        let phase: i32 = rows.get(row, 3).unwrap_or(0);
        if phase > earliest {
            behind = true;
            break;
        }
        let owner = rows
            .get(row, 9)
            .zip(rows.get(row, 10))
            .map(|(pid, start)| Backend { pid, start });
        if owner.is_some_and(|owner| owner != me && owner.is_alive()) {
            continue;
        }
        let number: i32 = rows.get(row, 0).unwrap_or(0);
        let taken = ledger.write(
            connection,
            "WITH free AS (
                 SELECT run_id, range_number FROM ~backfill_ranges
                 WHERE run_id = $1 AND range_number = $2 AND NOT done AND pid IS NOT DISTINCT FROM $3
                   AND backend_start IS NOT DISTINCT FROM $4
                 FOR UPDATE SKIP LOCKED)
             UPDATE ~backfill_ranges g SET pid = $5, backend_start = $6, throttle_reason = NULL, throttle_value = NULL
             FROM free f WHERE g.run_id = f.run_id AND g.range_number = f.range_number
             RETURNING g.first_bucket, g.last_bucket, g.phase, g.cursor, g.counters, g.rows_done, g.batches, g.batch_size",
            &[
                run_id.into(),
                number.into(),
                Parameter::int4(owner.map(|owner| owner.pid)),
                Parameter::timestamp_or_null(owner.map(|owner| owner.start)),
                me.pid.into(),
                Parameter::timestamp(me.start),
            ],
        );
        if !taken.is_empty() {
            return Claim::Range(Range {
                number,
                buckets: Buckets {
                    first: taken.get(0, 0).unwrap_or(0),
                    last: taken.get(0, 1).unwrap_or(0),
                },
                phase: taken.get(0, 2).unwrap_or(0),
                cursor: taken.text(0, 3),
                counters: taken.get(0, 4).unwrap_or_default(),
                rows_done: taken.get(0, 5).unwrap_or(0),
                batches: taken.get(0, 6).unwrap_or(0),
                batch_size: taken.get(0, 7).unwrap_or(500),
                done: false,
            });
        }
    }
    Claim::Nothing { behind }
}

/// Claims the run's first range, which is done, so that a session that tries quarantined rows again is seen to work. Where
/// another one that lives has it, nothing is to be done.
pub fn take_done(connection: &Connection, ledger: &Ledger, run_id: i64, me: Backend) {
    let rows = ledger.run(
        connection,
        Mode::Write,
        "SELECT pid, backend_start FROM ~backfill_ranges WHERE run_id = $1 AND range_number = 0",
        &[run_id.into()],
    );
    if rows.is_empty() {
        return;
    }
    let owner = rows
        .get(0, 0)
        .zip(rows.get(0, 1))
        .map(|(pid, start)| Backend { pid, start });
    drop(rows);
    if owner.is_some_and(Backend::is_alive) {
        return;
    }
    ledger.write(
        connection,
        "WITH free AS (
             SELECT run_id, range_number FROM ~backfill_ranges
             WHERE run_id = $1 AND range_number = 0 AND done AND pid IS NOT DISTINCT FROM $2 AND backend_start IS NOT DISTINCT FROM $3
             FOR UPDATE SKIP LOCKED)
         UPDATE ~backfill_ranges g SET pid = $4, backend_start = $5
         FROM free f WHERE g.run_id = f.run_id AND g.range_number = f.range_number",
        &[
            run_id.into(),
            Parameter::int4(owner.map(|owner| owner.pid)),
            Parameter::timestamp_or_null(owner.map(|owner| owner.start)),
            me.pid.into(),
            Parameter::timestamp(me.start),
        ],
    );
}

/// Gives up what this session claimed. Ranges that are done are its own until then, so that it is seen to live.
pub fn release(connection: &Connection, ledger: &Ledger, run_id: i64, me: Backend) {
    ledger.write(
        connection,
        "UPDATE ~backfill_ranges SET pid = NULL, backend_start = NULL, throttle_reason = NULL, throttle_value = NULL
         WHERE run_id = $1 AND pid = $2 AND backend_start = $3",
        &[run_id.into(), me.pid.into(), Parameter::timestamp(me.start)],
    );
}

/// Nobody works any more on a run that is at its end, whoever still looks whether there is something to do.
pub fn release_all(connection: &Connection, ledger: &Ledger, run_id: i64) {
    ledger.write(
        connection,
        "WITH claimed AS (
             SELECT run_id, range_number FROM ~backfill_ranges WHERE run_id = $1 AND pid IS NOT NULL FOR UPDATE SKIP LOCKED)
         UPDATE ~backfill_ranges g SET pid = NULL, backend_start = NULL
         FROM claimed c WHERE g.run_id = c.run_id AND g.range_number = c.range_number",
        &[run_id.into()],
    );
}

impl Range {
    /// Writes where the range has come to. Gives `false` when the claim is no longer this session's.
    pub fn save(&self, connection: &Connection, ledger: &Ledger, run_id: i64, me: Backend) -> bool {
        let rows = ledger.write(
            connection,
            "UPDATE ~backfill_ranges SET phase = $5, cursor = $6, done = $7, counters = $8, rows_done = $9, batches = $10,
                    batch_size = $11, throttle_reason = NULL, throttle_value = NULL, updated_at = clock_timestamp()
             WHERE run_id = $1 AND range_number = $2 AND pid = $3 AND backend_start = $4",
            &[
                run_id.into(),
                self.number.into(),
                me.pid.into(),
                Parameter::timestamp(me.start),
                self.phase.into(),
                self.cursor.as_deref().into(),
                self.done.into(),
                arrays::int8(self.counters.iter().map(|value| Some(*value))).into(),
                self.rows_done.into(),
                self.batches.into(),
                self.batch_size.into(),
            ],
        );
        rows.len() == 1
    }

    /// Keeps the first half of what is left of this range and puts the other half beside it, for somebody else to take.
    /// Gives what it keeps. A range is numbered by its first bucket, so that two sessions that halve theirs at once do not
    /// meet.
    pub fn split(
        &self,
        connection: &Connection,
        ledger: &Ledger,
        run_id: i64,
        (kept, given): (Buckets, Buckets),
    ) -> Self {
        ledger.write(
            connection,
            "WITH half AS (
                 UPDATE ~backfill_ranges SET last_bucket = $3 WHERE run_id = $1 AND range_number = $2)
             INSERT INTO ~backfill_ranges (run_id, range_number, first_bucket, last_bucket, phase, cursor, counters, batch_size)
             VALUES ($1, $4, $4, $5, $6, $7, array_fill(0::bigint, ARRAY[$8]), $9)",
            &[
                run_id.into(),
                self.number.into(),
                kept.last.into(),
                given.first.into(),
                given.last.into(),
                self.phase.into(),
                self.cursor.as_deref().into(),
                (self.counters.len() as i32).into(),
                self.batch_size.into(),
            ],
        );
        Range {
            buckets: kept,
            ..self.clone()
        }
    }
}
