//! A slice is what one handful of statements writes; when it fails it is halved until the failing row stands alone.

use super::{Job, Stale};
use crate::error::{limit_reached, Result};
use crate::postgres::spi::{Connection, Mode};
use crate::postgres::subtransaction::{in_subtransaction, Failure};
use crate::settings;

/// A failing row costs at most the repeated work of one slice, however large the batch is.
const MOST_ROWS: usize = 100;
/// A slice is in memory as a whole.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// Failing rows that are named in WARNINGs; the counter goes on.
const MOST_WARNINGS: i64 = 20;

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

/// What became of rows, handed to the run.
pub struct Settled<'d, J: Job> {
    pub from: usize,
    pub counters: J::Counters,
    /// `None` when the row failed.
    pub decided: Option<&'d J::Decided>,
    pub failure: Option<Failure>,
}

/// Decides the rows `from..to` and writes them when `mode` says so; `sink` is told of each part that is settled.
pub fn settle<J: Job>(
    connection: &Connection,
    job: &mut J,
    mode: Mode,
    page: &J::Page,
    from: usize,
    to: usize,
    sink: &mut dyn FnMut(Settled<'_, J>) -> Result<()>,
) -> Result<()> {
    let mut tries = 0;
    loop {
        let decided = job.decide(connection, mode, page, from, to)?;
        if mode == Mode::Read || !J::has_writes(&decided) {
            job.remember(&decided)?;
            return sink(Settled {
                from,
                counters: J::count(&decided),
                decided: Some(&decided),
                failure: None,
            });
        }
        let of_failed = J::count_failed(&decided);
        let failure = match in_subtransaction(|| job.write(connection, page, from, to, decided)) {
            Ok(Ok(written)) => {
                job.remember(&written)?;
                return sink(Settled {
                    from,
                    counters: J::count(&written),
                    decided: Some(&written),
                    failure: None,
                });
            }
            Ok(Err(Stale)) => None,
            Err(failure) if failure.stops_the_run() || failure.is_contention() => failure.rethrow(),
            Err(failure) => Some(failure),
        };
        tries += 1;
        match failure {
            // A row that is stale again and again has something about it: let the halves find it.
            None if tries < 3 => continue,
            // Another session was first, or took away what was relied on: decide again from what it left.
            Some(failure) if failure.is_about_other_rows() && tries < 2 => drop(failure),
            Some(failure) if to - from == 1 => {
                return sink(Settled {
                    from,
                    counters: of_failed,
                    decided: None,
                    failure: Some(failure),
                });
            }
            None if to - from == 1 => {
                let failure = Failure::refused(J::ROW);
                return sink(Settled {
                    from,
                    counters: of_failed,
                    decided: None,
                    failure: Some(failure),
                });
            }
            _ => {
                let middle = from + (to - from) / 2;
                settle(connection, job, mode, page, from, middle, sink)?;
                return settle(connection, job, mode, page, middle, to, sink);
            }
        }
    }
}

/// Tells the caller of a failing row, and stops the run when there are too many.
pub fn warn<J: Job>(page: &J::Page, index: usize, failure: &Failure, failures: i64) -> Result<()> {
    if failures <= MOST_WARNINGS {
        let (id, state, message) = (J::id(page, index), failure.sqlstate(), failure.message().to_owned());
        pgrx::warning!(
            "{}: {} {} could not be written: {} (SQLSTATE {})",
            J::NAME,
            J::ROW,
            id,
            message,
            state
        );
        if failures == MOST_WARNINGS {
            pgrx::warning!("{}: further failures are counted and not named", J::NAME);
        }
    }
    if failures > settings::max_failures() {
        return Err(limit_reached(
            format!("more than {} failing {}", settings::max_failures(), J::ROWS),
            format!(
                "The last one was {} {}: {}",
                J::ROW,
                J::id(page, index),
                failure.message()
            ),
            "Mend the cause that the WARNINGs name, or raise media_assets.max_failures.",
        ));
    }
    Ok(())
}
