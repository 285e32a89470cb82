//! One way to run every job: batches, slices, savepoints that find the failing row, counters, progress, ledger. It knows no lessons.

mod batch;
pub mod journal;
pub mod key_set;
pub mod ledger;
pub mod long;
pub mod options;
mod progress;
pub mod relation;
pub mod rights;
mod run;
mod slices;

use crate::error::{invalid_argument, Result};
use crate::postgres::settings_level::SettingsLevel;
use crate::postgres::spi::{Connection, Mode};
use crate::settings::{self, LogDecisions};
use journal::Changes;
use ledger::decisions::Decision;
use long::Buckets;
pub use run::{run, run_phase, Summary};

/// Counters that add up.
pub trait Tally: Default + Clone {
    /// The names of the counters, in the order of the result's columns.
    fn names() -> Vec<&'static str>;
    /// Their values, in the same order.
    fn values(&self) -> Vec<i64>;
    fn add(&mut self, other: &Self);
    /// # Errors
    /// The sum that does not hold, in words.
    fn check(&self) -> std::result::Result<(), &'static str>;
}

/// Why a slice has to be decided again: what it relied on changed under it.
pub struct Stale;

/// What a job brings: how to read a page of rows, how to decide some of them, how to write what was decided.
///
/// The order of calls is `read`, then for each slice of the page `decide` and, where something is to be written,
/// `write`; `remember` follows when the slice is settled.
pub trait Job {
    /// Rows read together; they stay valid until the next page is read.
    type Page;
    /// What is to become of the rows of a slice.
    type Decided;
    type Counters: Tally;

    /// The job's name in messages.
    const NAME: &'static str;
    /// What its rows are called in messages.
    const ROWS: &'static str;
    const ROW: &'static str;
    /// Whether rows that could not be written count among the `max_rows`. Where the next run meets them again, they must
    /// not: so many of them would keep every such run from the others.
    const FAILURES_FILL_LIMIT: bool = true;

    /// About how many rows there are, for progress lines.
    fn estimate(&self, _connection: &Connection) -> Option<i64> {
        None
    }
    /// At most `limit` rows behind the cursor `after`, in order.
    fn read(&mut self, connection: &Connection, mode: Mode, after: Option<&str>, limit: i64) -> Self::Page;
    /// The rows of the scope that have these ids, in their order; those that have gone are left out.
    fn read_these(&mut self, connection: &Connection, ids: &[String]) -> Self::Page;
    fn len(page: &Self::Page) -> usize;
    /// The place of the last row of a page that has one, in the order in which rows are read. Only the job reads it.
    fn cursor(page: &Self::Page) -> String;
    /// About how many bytes row `index` brings into memory.
    fn weight(page: &Self::Page, index: usize) -> usize;
    /// Decides the rows `from..to` without writing.
    ///
    /// # Errors
    /// A limit of the run that was reached; never because of the rows' content.
    fn decide(
        &mut self,
        connection: &Connection,
        mode: Mode,
        page: &Self::Page,
        from: usize,
        to: usize,
    ) -> Result<Self::Decided>;
    /// What was decided of a slice rests on a reading that is out of date: the next call of `decide` is about rows of it, and
    /// has to read them again.
    fn look_again(&mut self) {}
    /// Whether there is anything to write.
    fn has_writes(decided: &Self::Decided) -> bool;
    /// Writes what was decided; runs in a subtransaction, and gives what was really done.
    ///
    /// # Errors
    /// [`Stale`] when a row has changed since it was read, in a way that needs a new decision.
    fn write(
        &mut self,
        connection: &Connection,
        page: &Self::Page,
        from: usize,
        to: usize,
        decided: Self::Decided,
    ) -> std::result::Result<Self::Decided, Stale>;
    fn count(decided: &Self::Decided) -> Self::Counters;
    /// The counters of a row that could not be written.
    fn count_failed(decided: &Self::Decided) -> Self::Counters;
    /// The id of row `index`, for messages.
    fn id(page: &Self::Page, index: usize) -> String;
    /// Takes note of a slice that is settled (what a dry run would have created).
    ///
    /// # Errors
    /// 53400 when there is more to remember than `media_assets.dry_run_memory` allows.
    fn remember(&mut self, _decided: &Self::Decided) -> Result<()> {
        Ok(())
    }
    /// Looks at the rows of these organizations only from now on, a part of those that it was made for. Gives `false` where
    /// it has to be made anew.
    ///
    /// # Errors
    /// As when it was made.
    fn narrow(&mut self, _: &Connection, _: Buckets) -> Result<bool> {
        Ok(false)
    }
    /// What was written and what was there before, for undo; asked of settled slices where that is kept.
    fn changes(&self, decided: &Self::Decided, changes: &mut Changes);
    /// The decisions on single items that `level` wants kept.
    fn decisions(decided: &Self::Decided, level: LogDecisions, decisions: &mut Vec<Decision>);
}

/// How a run goes.
pub struct Options {
    /// Rows read at once, 1…100,000.
    pub batch: i32,
    pub execute: bool,
    /// Stop after that many rows.
    pub max_rows: Option<i64>,
}

impl Options {
    /// Checks what a caller gave for `batch` and `execute`.
    ///
    /// # Errors
    /// 22023 when one is NULL or `batch` is outside its range.
    pub fn new(batch: Option<i32>, execute: Option<bool>, max_rows: Option<i64>) -> Result<Self> {
        let batch = batch.filter(|batch| (1..=100_000).contains(batch)).ok_or_else(|| {
            let given = batch.map_or_else(|| "NULL".to_owned(), |batch| batch.to_string());
            invalid_argument(
                format!("batch must be between 1 and 100000, not {given}"),
                "It is the number of rows read at once; 500 suits most tables.",
            )
        })?;
        let execute = execute.ok_or_else(|| {
            invalid_argument(
                "execute must be true or false, not NULL",
                "false is a dry run, true writes.",
            )
        })?;
        if max_rows.is_some_and(|max_rows| max_rows < 0) {
            return Err(invalid_argument(
                "the number of rows to stop after must not be negative",
                "NULL means all of them.",
            ));
        }
        Ok(Options {
            batch,
            execute,
            max_rows,
        })
    }

    /// An estimate of the rows to come, no more than the run will look at.
    fn bounded(&self, estimate: Option<i64>) -> Option<i64> {
        estimate.map(|rows| self.max_rows.map_or(rows, |max| rows.min(max)))
    }

    pub fn mode(&self) -> Mode {
        if self.execute {
            Mode::Write
        } else {
            Mode::Read
        }
    }
}

/// Keeps plans from flipping, as PostgreSQL's foreign-key checks do.
pub const STEADY_PLANS: [(&str, &str); 6] = [
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_bitmapscan", "off"),
    ("jit", "off"),
    ("plan_cache_mode", "force_generic_plan"),
];

/// Steady plans, and no waiting of the engine where the application should not have to.
pub fn engine_settings() -> SettingsLevel {
    let mut values: Vec<(&str, String)> = STEADY_PLANS.map(|(name, value)| (name, value.to_owned())).into();
    if let Some(milliseconds) = settings::lock_timeout() {
        values.push(("lock_timeout", milliseconds.to_string()));
    }
    SettingsLevel::with(values)
}
