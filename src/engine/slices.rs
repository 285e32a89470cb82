//! A slice is what one handful of statements writes; when it fails it is cut into parts until the failing row stands alone.

use super::batch::Policy;
use super::{Job, Stale};
use crate::error::Result;
use crate::postgres::spi::{Connection, Mode};
use crate::postgres::subtransaction::{in_subtransaction, Failure};

/// A failing row costs at most the repeated work of one slice, however large the batch is.
const MOST_ROWS: usize = 100;
/// A slice is in memory as a whole.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// A slice that fails is cut into so many parts. A hundred rows become one in three cuts and fourteen attempts, as many as
/// by halves; but what is written in vain on the way is two thirds of it.
const PARTS: usize = 5;

/// Where the slice that starts at `from` ends.
pub fn end<J: Job>(page: &J::Page, from: usize) -> usize {
    let mut bytes = 0;
    let mut to = from;
    while to < J::len(page) && to - from < MOST_ROWS && (to == from || bytes < MOST_BYTES) {
        bytes += J::weight(page, to);
        to += 1;
    }
    to
}

/// What became of the rows of a slice, or of a part of it.
pub enum Fate<'d, J: Job> {
    Decided {
        decided: &'d J::Decided,
        /// Something was written for it.
        written: bool,
    },
    /// One row that could not be written.
    Failed(Failure),
}

/// Handed to the batch.
pub struct Settled<'d, J: Job> {
    pub from: usize,
    pub counters: J::Counters,
    pub fate: Fate<'d, J>,
}

type Sink<'s, J> = dyn FnMut(&J, Settled<'_, J>) -> Result<()> + 's;

/// Decides the rows `from..to` and writes them when the mode says so; `sink` is told of each part that is settled.
pub fn settle<J: Job>(
    connection: &Connection,
    job: &mut J,
    policy: Policy,
    page: &J::Page,
    from: usize,
    to: usize,
    sink: &mut Sink<'_, J>,
) -> Result<()> {
    let mut tries = 0;
    loop {
        let decided = job.decide(connection, policy.mode, page, from, to)?;
        if policy.mode == Mode::Read || !J::has_writes(&decided) {
            job.remember(&decided)?;
            return sink(job, settled::<J>(from, &decided, false));
        }
        let of_failed = J::count_failed(&decided);
        let attempt = in_subtransaction(|| {
            let written = job.write(connection, page, from, to, decided)?;
            if policy.own_transaction {
                // A deferred constraint would fail the whole batch at its commit.
                connection.query("SET CONSTRAINTS ALL IMMEDIATE", Mode::Write, &[]);
                // The next slice of the transaction may again rely on checks that come at the end.
                connection.query("SET CONSTRAINTS ALL DEFERRED", Mode::Write, &[]);
            }
            Ok(written)
        });
        let failure = match attempt {
            Ok(Ok(written)) => {
                job.remember(&written)?;
                return sink(job, settled::<J>(from, &written, true));
            }
            Ok(Err(Stale)) => None,
            Err(failure) if failure.stops_the_run() => failure.rethrow(),
            Err(failure) if failure.is_contention() && !policy.contention_costs_row => failure.rethrow(),
            Err(failure) => Some(failure),
        };
        tries += 1;
        match failure {
            // A row that is stale again and again has something about it: let the parts find it.
            None if tries < 3 => job.look_again(),
            // Another session was first, or took away what was relied on: decide again from what it left.
            Some(failure) if failure.is_about_other_rows() && tries < 2 => job.look_again(),
            failure if to - from == 1 => {
                return sink(
                    job,
                    Settled {
                        from,
                        counters: of_failed,
                        fate: Fate::Failed(failure.unwrap_or_else(|| Failure::refused(J::ROW))),
                    },
                );
            }
            _ => {
                let part = (to - from).div_ceil(PARTS);
                let mut start = from;
                while start < to {
                    let end = (start + part).min(to);
                    settle(connection, job, policy, page, start, end, sink)?;
                    start = end;
                }
                return Ok(());
            }
        }
    }
}

fn settled<J: Job>(from: usize, decided: &J::Decided, written: bool) -> Settled<'_, J> {
    Settled {
        from,
        counters: J::count(decided),
        fate: Fate::Decided { decided, written },
    }
}
