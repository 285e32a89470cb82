//! `undo_backfill` and `explain_undo`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::Datum;
use pgrx::prelude::*;

use crate::engine::ledger::record::{Recorder, RunMode};
use crate::engine::ledger::Ledger;
use crate::engine::long::Program;
use crate::engine::options::GivenOptions;
use crate::engine::{self, rights, Options, Tally};
use crate::error::invalid_argument;
use crate::jobs::undo::program::UndoProgram;
use crate::jobs::undo::{Counters, Decided};
use crate::postgres::arrays::{text_datum, uuid_datum};
use crate::postgres::record::{form, Record};
use crate::postgres::row_set::RowSet;
use crate::postgres::spi::{self, Connection};

/// What an undo came to.
pub struct UndoResult {
    counters: Counters,
    batches: i64,
    run_id: Option<i64>,
}

impl UndoResult {
    /// The row of the result: counters, batches, run.
    pub fn columns(&self) -> Vec<(&'static str, Option<i64>)> {
        let values = self.counters.values().into_iter().map(Some);
        let mut columns: Vec<_> = Counters::names().into_iter().zip(values).collect();
        columns.extend([("batches", Some(self.batches)), ("run_id", self.run_id)]);
        columns
    }
}

/// The run that the options of an undo name.
///
/// # Errors
/// 22023 when they name none, or something else.
pub fn run_of(mut given: GivenOptions) -> Result<Option<i64>, ErrorReport> {
    let run_id = given.number("run_id")?;
    given.finish("undo")?;
    if run_id.is_none() {
        return Err(invalid_argument(
            "job undo needs the option run_id",
            r#"options => '{"run_id": 1}'"#,
        ));
    }
    Ok(run_id)
}

#[pg_extern(sql = r#"
CREATE FUNCTION undo_backfill(run_id bigint, execute boolean DEFAULT false,
    OUT values_scanned bigint, OUT items_restored bigint, OUT usages_removed bigint, OUT assets_removed bigint,
    OUT keys_restored bigint, OUT cells_restored bigint, OUT rows_removed bigint,
    OUT already_undone bigint, OUT conflicts bigint, OUT errors bigint, OUT batches bigint,
    OUT undo_run_id bigint)
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn undo_backfill(
    run_id: Option<i64>,
    execute: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let options = Options::new(Some(500), execute, None)?;
    let result = spi::connect(|connection| {
        if options.execute {
            rights::check_can_execute("undo_backfill")?;
        }
        let ledger = Ledger::open(connection)?;
        let program = UndoProgram::new(connection, &ledger, run_id, options.execute)?;
        run(connection, &ledger, &program, &options, |_| {})
    })?;
    let values: Vec<Option<Datum>> = result
        .columns()
        .into_iter()
        .map(|(_, value)| value.map(Datum::from))
        .collect();
    Ok(form(fcinfo, &values))
}

/// Takes a run back in the caller's transaction.
///
/// # Errors
/// As [`engine::run`].
pub fn run(
    connection: &Connection,
    ledger: &Ledger,
    program: &UndoProgram,
    options: &Options,
    mut each: impl FnMut(&Decided),
) -> Result<UndoResult, ErrorReport> {
    let mut recorder = None;
    if options.execute {
        rights::lock_job(connection, program.name(), program.locks());
        let run_id = program
            .new_run(RunMode::Function, options.batch)
            .start(connection, ledger);
        recorder = Some(Recorder::new(connection, ledger, run_id));
        program.close_undone(connection);
    }
    let mut result = UndoResult {
        counters: Counters::default(),
        batches: 0,
        run_id: None,
    };
    let mut rows = 0;
    for (phase, mut job) in program.jobs(connection)?.into_iter().enumerate() {
        if let Some(recorder) = &mut recorder {
            recorder.phase = phase as i32;
        }
        let summary = engine::run_phase(connection, &mut job, options, recorder.as_mut(), |_, _, decided| {
            each(decided)
        })?;
        result.counters.add(&summary.counters);
        result.batches += summary.batches;
        rows += summary.rows;
    }
    if let Some(recorder) = &mut recorder {
        recorder.phase += 1;
        recorder.finish_function(connection, &result.counters.values(), rows, result.batches);
        result.run_id = Some(recorder.run_id);
    }
    Ok(result)
}

#[pg_extern(sql = r#"
CREATE FUNCTION explain_undo(run_id bigint)
RETURNS TABLE (relation text, column_name text, id text, "position" integer, asset_id uuid, outcome text, reason text)
STABLE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn explain_undo(run_id: Option<i64>, fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    let options = Options::new(Some(500), Some(false), None)?;
    let rows = RowSet::begin(fcinfo)?;
    spi::connect(|connection| {
        let ledger = Ledger::open(connection)?;
        let program = UndoProgram::new(connection, &ledger, run_id, false)?;
        run(connection, &ledger, &program, &options, |decided| {
            for (element, fate) in decided.elements.iter().zip(&decided.fates) {
                rows.put(&[
                    Some(text_datum(&element.relation)),
                    element.column.as_deref().map(text_datum),
                    Some(text_datum(&element.id)),
                    element.position.map(Datum::from),
                    element.asset.map(uuid_datum),
                    Some(text_datum(fate.outcome())),
                    fate.reason().map(text_datum),
                ]);
            }
        })
    })?;
    Ok(())
}
