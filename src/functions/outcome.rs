//! What jobs over ordinary tables have in common as functions: how a run in the caller's transaction begins, and its row.

use pgrx::pg_sys;

use crate::engine::ledger::record::{NewRun, Recorder};
use crate::engine::ledger::Ledger;
use crate::engine::long::Program;
use crate::engine::{self, rights, Job, Options, Summary, Tally};
use crate::error::Result;
use crate::postgres::record::{form, Record};
use crate::postgres::row_set::RowSet;
use crate::postgres::spi::{Connection, Rows};

/// What a run came to.
#[derive(Default)]
pub struct Outcome<C> {
    pub counters: C,
    pub batches: i64,
    pub rows: i64,
    pub run_id: Option<i64>,
}

impl<C: Tally> Outcome<C> {
    /// Adds what a phase did.
    pub fn add(&mut self, summary: &Summary<C>) {
        self.counters.add(&summary.counters);
        self.batches += summary.batches;
        self.rows += summary.rows;
    }

    /// Writes the end of the run into the ledger; `phases` is their number.
    pub fn finish(&mut self, connection: &Connection, recorder: Option<Recorder<'_>>, phases: i32) {
        if let Some(mut recorder) = recorder {
            recorder.phase = phases;
            recorder.finish_function(connection, &self.counters.values(), self.rows, self.batches);
            self.run_id = Some(recorder.run_id);
        }
    }

    /// The row of the result: counters, batches, run.
    pub fn columns(&self) -> Vec<(&'static str, Option<i64>)> {
        let values = self.counters.values().into_iter().map(Some);
        let mut columns: Vec<_> = C::names().into_iter().zip(values).collect();
        columns.extend([("batches", Some(self.batches)), ("run_id", self.run_id)]);
        columns
    }

    /// The same as the result of a function with these columns.
    pub fn record(&self, fcinfo: pg_sys::FunctionCallInfo) -> Record {
        let values: Vec<Option<pg_sys::Datum>> = self
            .columns()
            .into_iter()
            .map(|(_, value)| value.map(pg_sys::Datum::from))
            .collect();
        form(fcinfo, &values)
    }
}

/// Takes the job's lock and writes the run's row; `None` in a dry run.
fn begin<'l>(
    connection: &Connection,
    ledger: &'l Ledger,
    program: &dyn Program,
    run: Option<NewRun<'_>>,
) -> Option<Recorder<'l>> {
    let run = run?;
    rights::lock_job(connection, program.name(), program.locks());
    let run_id = run.start(connection, ledger);
    Some(Recorder::new(connection, ledger, run_id))
}

/// A run in the caller's transaction.
pub struct InTransaction<'c, C> {
    connection: &'c Connection,
    options: &'c Options,
    recorder: Option<Recorder<'c>>,
    phases: i32,
    outcome: Outcome<C>,
}

impl<'c, C: Tally> InTransaction<'c, C> {
    /// An execution takes the job's lock and writes the run's row, which `new_run` makes of the batch's size.
    pub fn begin<'n>(
        connection: &'c Connection,
        ledger: &'c Ledger,
        program: &dyn Program,
        options: &'c Options,
        new_run: impl FnOnce(i32) -> NewRun<'n>,
    ) -> Self {
        let run = options.execute.then(|| new_run(options.batch));
        InTransaction {
            connection,
            options,
            recorder: begin(connection, ledger, program, run),
            phases: 0,
            outcome: Outcome::default(),
        }
    }

    /// Runs one phase over its whole scope; `each` sees every settled slice.
    ///
    /// # Errors
    /// As [`engine::run`].
    pub fn phase<J: Job<Counters = C>>(&mut self, mut job: J, mut each: impl FnMut(&J::Decided)) -> Result<()> {
        if let Some(recorder) = &mut self.recorder {
            recorder.phase = self.phases;
        }
        self.phases += 1;
        let recorder = self.recorder.as_mut();
        let summary = engine::run(self.connection, &mut job, self.options, recorder, |_, _, decided| {
            each(decided)
        })?;
        self.outcome.add(&summary);
        Ok(())
    }

    /// Writes the end of the run into the ledger.
    pub fn finish(mut self) -> Outcome<C> {
        self.outcome.finish(self.connection, self.recorder, self.phases);
        self.outcome
    }
}

/// Gives the rows of a query as the rows of a function with these columns.
pub fn put_all(rows: &RowSet, found: &Rows, columns: usize) {
    for row in 0..found.len() {
        let values: Vec<Option<pg_sys::Datum>> = (0..columns).map(|column| found.datum(row, column)).collect();
        rows.put(&values);
    }
}
