//! One page of rows: slice after slice is decided and written, and what became of it is counted.

use super::journal::{Journal, RowFailure};
use super::{slices, Job, Tally};
use crate::error::{counters_do_not_add_up, limit_reached, Result};
use crate::postgres::backend;
use crate::postgres::memory::in_own_context;
use crate::postgres::spi::{Connection, Mode};
use crate::settings;

/// How slices are settled.
#[derive(Clone, Copy)]
pub struct Policy {
    pub mode: Mode,
    /// The transaction is the engine's own: it may tell when constraints are checked.
    pub own_transaction: bool,
    /// A row that another transaction keeps standing in the way of is a failing row. Else that is raised, so that the
    /// whole can be tried again in a new transaction.
    pub contention_costs_row: bool,
}

impl Policy {
    pub fn in_callers_transaction(mode: Mode) -> Self {
        Policy {
            mode,
            own_transaction: false,
            contention_costs_row: false,
        }
    }
}

/// Rows that a run could not write, and how many of them are named in WARNINGs.
#[derive(Default)]
pub struct Failures {
    pub count: i64,
}

/// Failing rows that are named in WARNINGs; the counter goes on.
const MOST_WARNINGS: i64 = 20;

impl Failures {
    /// Tells the caller of a failing row, and stops the run when there are too many.
    fn add<J: Job>(&mut self, failure: &RowFailure) -> Result<()> {
        self.count += 1;
        if self.count <= MOST_WARNINGS {
            crate::postgres::message::warning!(
                "{}: {} {} could not be written: {} (SQLSTATE {})",
                J::NAME,
                J::ROW,
                failure.id,
                failure.message,
                failure.sqlstate
            );
            if self.count == MOST_WARNINGS {
                crate::postgres::message::warning!("{}: further failures are counted and not named", J::NAME);
            }
        }
        self.check(J::ROWS, failure)
    }

    /// # Errors
    /// 53400 when there are more than `media_assets.max_failures`; `last` is one of them.
    pub fn check(&self, rows: &str, last: &RowFailure) -> Result<()> {
        if self.count <= settings::max_failures() {
            return Ok(());
        }
        Err(limit_reached(
            format!("more than {} failing {rows}", settings::max_failures()),
            format!("The last one was {}: {}", last.id, last.message),
            "Mend the cause that the WARNINGs name, or raise media_assets.max_failures.",
        ))
    }
}

/// Decides the rows of `page` and writes them when the policy's mode says so; `each` sees every settled slice, in order.
/// Gives the page's counters, which add up.
///
/// # Errors
/// Failures that say nothing about a row, and more failing rows than `media_assets.max_failures`.
pub fn settle_page<J: Job>(
    connection: &Connection,
    job: &mut J,
    policy: Policy,
    page: &J::Page,
    failures: &mut Failures,
    journal: &mut Journal,
    each: &mut impl FnMut(&J::Page, usize, &J::Decided),
) -> Result<J::Counters> {
    let rows = J::len(page);
    let mut counters = J::Counters::default();
    let mut from = 0;
    while from < rows {
        backend::check_for_interrupts();
        let to = slices::end::<J>(page, from);
        let settled: Result<()> = in_own_context(|| {
            slices::settle(connection, job, policy, page, from, to, &mut |job, settled| {
                counters.add(&settled.counters);
                match settled.fate {
                    slices::Fate::Failed(failure) => {
                        let failure = RowFailure {
                            id: J::id(page, settled.from),
                            sqlstate: failure.sqlstate(),
                            message: failure.message().to_owned(),
                            counters: settled.counters.values(),
                        };
                        failures.add::<J>(&failure)?;
                        journal.failures.push(failure);
                    }
                    slices::Fate::Decided { decided, written } => {
                        journal.take(job, decided, written);
                        each(page, settled.from, decided);
                    }
                }
                Ok(())
            })
        });
        settled?;
        from = to;
    }
    counters.check().map_err(counters_do_not_add_up)?;
    Ok(counters)
}
