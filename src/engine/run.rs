//! Running a job over its whole scope in the caller's transaction.

use super::batch::{settle_page, Failures, Policy};
use super::journal::Journal;
use super::ledger::record::Recorder;
use super::progress::Progress;
use super::{engine_settings, Job, Options, Tally};
use crate::error::Result;
use crate::postgres::spi::Connection;

/// What a run did.
pub struct Summary<C> {
    pub counters: C,
    /// Batches that had rows.
    pub batches: i64,
    /// Rows of those batches.
    pub rows: i64,
}

/// Runs `job` over its whole scope in the caller's transaction. `each` sees every settled slice, in order; `recorder`
/// is the run's place in the ledger, where it has one.
///
/// # Errors
/// What the job's reading raises, failures that say nothing about a row, and more failing rows than
/// `media_assets.max_failures`.
pub fn run<J: Job>(
    connection: &Connection,
    job: &mut J,
    options: &Options,
    recorder: Option<&mut Recorder<'_>>,
    each: impl FnMut(&J::Page, usize, &J::Decided),
) -> Result<Summary<J::Counters>> {
    let progress = Progress::start(J::NAME, J::ROWS, options.bounded(job.estimate(connection)));
    run_with(connection, job, options, recorder, Some(progress), each)
}

/// Runs `job` as a phase of another: without progress lines of its own, and over its whole scope.
///
/// # Errors
/// As [`run`].
pub fn run_phase<J: Job>(
    connection: &Connection,
    job: &mut J,
    options: &Options,
    recorder: Option<&mut Recorder<'_>>,
    each: impl FnMut(&J::Page, usize, &J::Decided),
) -> Result<Summary<J::Counters>> {
    let options = Options {
        max_rows: None,
        ..*options
    };
    run_with(connection, job, &options, recorder, None, each)
}

fn run_with<J: Job>(
    connection: &Connection,
    job: &mut J,
    options: &Options,
    mut recorder: Option<&mut Recorder<'_>>,
    mut progress: Option<Progress>,
    mut each: impl FnMut(&J::Page, usize, &J::Decided),
) -> Result<Summary<J::Counters>> {
    let _level = engine_settings();
    let policy = Policy::in_callers_transaction(options.mode());
    let mut failures = Failures::default();
    let mut journal = match &recorder {
        Some(_) => Journal::by_settings(),
        None => Journal::closed(),
    };
    let mut summary = Summary {
        counters: J::Counters::default(),
        batches: 0,
        rows: 0,
    };
    let mut cursor: Option<String> = None;
    loop {
        let uncounted = if J::FAILURES_FILL_LIMIT { 0 } else { failures.count };
        let left = options
            .max_rows
            .map_or(i64::MAX, |max| max - (summary.rows - uncounted));
        let limit = i64::from(options.batch).min(left);
        if limit == 0 {
            break;
        }
        let page = job.read(connection, options.mode(), cursor.as_deref(), limit);
        let rows = J::len(&page) as i64;
        if rows == 0 {
            break;
        }
        let counters = settle_page(connection, job, policy, &page, &mut failures, &mut journal, &mut each)?;
        if let Some(recorder) = &mut recorder {
            recorder.keep(connection, &mut journal);
        }
        summary.counters.add(&counters);
        summary.batches += 1;
        summary.rows += rows;
        cursor = Some(J::cursor(&page));
        if let Some(progress) = &mut progress {
            progress.after_batch(summary.rows);
        }
    }
    if let Some(progress) = &mut progress {
        progress.finish(summary.rows);
    }
    Ok(summary)
}
