//! `backfill_asset_keys`: keys for rows that an application wrote without one.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::engine::ledger::record::{Recorder, RunMode};
use crate::engine::ledger::Ledger;
use crate::engine::long::{Buckets, Program};
use crate::engine::{self, rights, Options, Tally};
use crate::jobs::asset_keys::Counters;
use crate::jobs::asset_tables::Found;
use crate::jobs::keys_program::KeysProgram;
use crate::postgres::record::{form, Record};
use crate::postgres::spi::{self, Connection};

/// What a run came to.
#[derive(Default)]
pub struct KeysResult {
    pub counters: Counters,
    pub batches: i64,
    pub run_id: Option<i64>,
}

impl KeysResult {
    /// The row of the result: counters, batches, run.
    pub fn columns(&self) -> Vec<(&'static str, Option<i64>)> {
        let values = self.counters.values().into_iter().map(Some);
        let mut columns: Vec<_> = Counters::names().into_iter().zip(values).collect();
        columns.extend([("batches", Some(self.batches)), ("run_id", self.run_id)]);
        columns
    }
}

#[pg_extern(sql = r#"
CREATE FUNCTION backfill_asset_keys(batch integer DEFAULT 500, execute boolean DEFAULT false, refresh boolean DEFAULT false,
    OUT rows_scanned bigint, OUT keyed bigint, OUT duplicates bigint, OUT unkeyable bigint, OUT errors bigint, OUT batches bigint, OUT run_id bigint)
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn backfill_asset_keys(
    batch: Option<i32>,
    execute: Option<bool>,
    refresh: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let options = Options::new(batch, execute, None)?;
    let refresh = refresh.ok_or_else(|| {
        crate::error::invalid_argument(
            "refresh must be true or false, not NULL",
            "true also repairs keys that no longer fit their row.",
        )
    })?;
    let result = spi::connect(|connection| -> Result<KeysResult, ErrorReport> {
        if options.execute {
            rights::check_can_execute("backfill_asset_keys")?;
        }
        let found = Found::look(connection);
        match KeysProgram::load(connection, found, refresh, options.execute)? {
            Some(program) => run(connection, &program, &options),
            None => Ok(KeysResult::default()),
        }
    })?;
    let values: Vec<Option<pg_sys::Datum>> = result
        .columns()
        .into_iter()
        .map(|(_, value)| value.map(pg_sys::Datum::from))
        .collect();
    Ok(form(fcinfo, &values))
}

/// Runs the job in the caller's transaction.
///
/// # Errors
/// As [`engine::run`].
pub fn run(connection: &Connection, program: &KeysProgram, options: &Options) -> Result<KeysResult, ErrorReport> {
    let ledger = Ledger::open(connection)?;
    let mut recorder = None;
    if options.execute {
        rights::lock_job(connection, program.name(), program.locks());
        let run_id = program
            .new_run(RunMode::Function, options.batch)
            .start(connection, &ledger);
        recorder = Some(Recorder::new(connection, &ledger, run_id));
    }
    let mut result = KeysResult::default();
    let mut released = Vec::new();
    let mut rows = 0;
    if program.refresh && program.assets.has("canonical_key") {
        let mut wrong = program.wrong_keys(Buckets::ALL, options.execute);
        let summary = engine::run_phase(connection, &mut wrong, options, recorder.as_mut(), |_, _, _| {})?;
        result.counters.rows_scanned = summary.counters.sound + summary.counters.errors;
        result.counters.errors = summary.counters.errors;
        result.batches = summary.batches;
        rows = summary.rows;
        released = wrong.released;
    }
    if let Some(recorder) = &mut recorder {
        recorder.phase = 1;
    }
    let mut job = program.keys(Buckets::ALL, options.execute, &released);
    let summary = engine::run(connection, &mut job, options, recorder.as_mut(), |_, _, _| {})?;
    result.counters.add(&summary.counters);
    result.batches += summary.batches;
    if let Some(recorder) = &mut recorder {
        recorder.phase = 2;
        recorder.finish_function(
            connection,
            &result.counters.values(),
            rows + summary.rows,
            result.batches,
        );
        result.run_id = Some(recorder.run_id);
    }
    Ok(result)
}
