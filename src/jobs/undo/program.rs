//! Undo as a whole: the run that is taken back, and its place in the ledger.

use std::rc::Rc;

use super::ingest;
use super::subject::{KeysOfAssets, Lessons, Subject};
use super::tables::{TableScope, TABLE_JOBS};
use super::{Counters, Undo};
use crate::engine::ledger::record::{NewRun, RunMode};
use crate::engine::ledger::runs::Run;
use crate::engine::ledger::Ledger;
use crate::engine::long::{phase_of, Buckets, Phase, Program};
use crate::engine::relation::LockTarget;
use crate::engine::{rights, Job, Tally};
use crate::error::{no_such_run, not_supported, not_undoable, wrong_state, Result};
use crate::jobs::asset_tables::Found;
use crate::jobs::collection_ingest;
use crate::postgres::spi::{Connection, Mode};

/// A run that is taken back.
pub struct UndoProgram {
    undone: Run,
    ledger: Rc<Ledger>,
    subject: Box<dyn Subject>,
    /// Values that the run wrote.
    written: i64,
    execute: bool,
}

impl UndoProgram {
    /// # Errors
    /// 42704 and 42501 as for every run; 55000 while it is running, or when it kept no changes; what its tables or the
    /// rights on them lack.
    pub fn new(connection: &Connection, ledger: &Ledger, run_id: Option<i64>, execute: bool) -> Result<Self> {
        let undone = Run::find(connection, ledger, run_id, Mode::Read)?;
        if undone.job == Undo::NAME {
            return Err(not_supported(
                format!("run {} is an undo itself", undone.run_id),
                "To do again what it took back, run the job again.",
            ));
        }
        if let Some(worker) = undone.other_workers(connection, ledger).first() {
            return Err(wrong_state(
                format!("run {} is running", undone.run_id),
                format!("The session with pid {} works on it.", worker.pid),
                format!("SELECT cancel_backfill({});", undone.run_id),
            ));
        }
        let counted = check_changes_were_kept(connection, ledger, &undone)?;
        let subject = subject_of(connection, ledger, &undone)?;
        let program = UndoProgram {
            written: subject.written().unwrap_or(counted),
            undone,
            ledger: Rc::new(Ledger::open(connection)?),
            subject,
            execute,
        };
        if execute {
            program.subject.check_rights(connection)?;
        }
        // What a foreign key leads to can be looked at: said before anything is written.
        program.jobs(connection)?;
        Ok(program)
    }

    /// For an undo of the ledger.
    ///
    /// # Errors
    /// As [`UndoProgram::new`].
    pub fn stored(connection: &Connection, ledger: &Ledger, run: &Run) -> Result<Self> {
        let Some(run_id) = run.options.get("run_id").and_then(|text| text.parse().ok()) else {
            return Err(no_such_run("NULL"));
        };
        Self::new(connection, ledger, Some(run_id), true)
    }

    /// The run as the ledger is to have it.
    pub fn new_run(&self, mode: RunMode, batch: i32) -> NewRun<'static> {
        let phases = self.subject.phases();
        NewRun {
            job: Undo::NAME,
            mode,
            batch,
            options: vec![("run_id", self.undone.run_id.to_string())],
            relations: self.subject.names(),
            phases,
            bounds: vec![None; phases.len()],
            counter_names: Counters::names(),
            rows_total: Some(self.written),
        }
    }

    /// One job for each kind of change, in the order in which they are taken back.
    ///
    /// # Errors
    /// 42501 when a table with a foreign key to what would go cannot be seen whole.
    pub fn jobs(&self, connection: &Connection) -> Result<Vec<Undo>> {
        let kinds = self.subject.kinds(connection, self.undone.run_id, &self.ledger)?;
        Ok(kinds
            .into_iter()
            .map(|kind| Undo::new(self.undone.run_id, &self.ledger, kind, self.execute))
            .collect())
    }

    /// A run that is being taken back does not go on: a batch that somebody resumed is waited for, no other follows.
    pub fn close_undone(&self, connection: &Connection) {
        rights::lock_job(connection, &self.undone.job, self.subject.main().lock_target());
        self.ledger.write(
            connection,
            "UPDATE ~backfill_runs SET state = 'cancelled', finished_at = clock_timestamp()
             WHERE run_id = $1 AND state NOT IN ('finished', 'cancelled')",
            &[self.undone.run_id.into()],
        );
        self.subject.begin(connection, self.undone.run_id);
    }
}

/// The tables of the run, by its job.
fn subject_of(connection: &Connection, ledger: &Ledger, undone: &Run) -> Result<Box<dyn Subject>> {
    let stored = |name: &str| undone.relation(name).map(str::to_owned);
    let found = || Found::look_at(connection, &stored);
    if let Some(tables) = TableScope::of(connection, ledger, undone)? {
        return Ok(Box::new(tables));
    }
    match undone.job.as_str() {
        "lesson_assets" => Ok(Box::new(Lessons::of(connection, found(), undone)?)),
        collection_ingest::JOB => Ok(Box::new(ingest::Collection::of(connection, undone)?)),
        "asset_keys" => Ok(Box::new(KeysOfAssets::of(connection, found(), undone)?)),
        job => {
            let others: Vec<&str> = TABLE_JOBS.iter().map(|job| job.name).collect();
            let others = format!("{}, {}", collection_ingest::JOB, others.join(", "));
            Err(not_supported(
                format!("job {job} cannot be undone"),
                format!("Jobs that can be: lesson_assets, asset_keys, {others}."),
            ))
        }
    }
}

/// How many values the run wrote.
///
/// # Errors
/// 55000 when not all of it is in the ledger: a session worked on it with `media_assets.log_changes` off.
fn check_changes_were_kept(connection: &Connection, ledger: &Ledger, undone: &Run) -> Result<i64> {
    let written = [
        "assets_created",
        "usages_created",
        "lesson_items_patched_with_asset_id",
        "keyed",
        "assets_ingested",
        "assets_updated",
        "assets_removed",
    ];
    let rows = ledger.run(
        connection,
        Mode::Read,
        "SELECT (SELECT coalesce(sum(v.value), 0)::bigint FROM ~backfill_ranges g CROSS JOIN unnest(g.counters, $2) v(value, name)
                 WHERE g.run_id = $1 AND v.name = ANY ($3)),
                (SELECT changes_kept FROM ~backfill_runs WHERE run_id = $1)",
        &[
            undone.run_id.into(),
            crate::postgres::arrays::text(undone.counter_names.iter().map(|name| Some(name.as_str()))).into(),
            crate::postgres::arrays::text(written.iter().map(|name| Some(*name))).into(),
        ],
    );
    if rows.get(0, 1) != Some(true) {
        return Err(not_undoable(
            undone.run_id,
            "It was made with media_assets.log_changes off, so that nothing says what was there before.",
        ));
    }
    Ok(rows.get(0, 0).unwrap_or(0))
}

impl Program for UndoProgram {
    fn name(&self) -> &'static str {
        Undo::NAME
    }

    fn locks(&self) -> LockTarget {
        self.subject.main().lock_target()
    }

    fn check_can_be_shared(&self) -> Result<()> {
        Err(not_supported(
            "an undo cannot be shared",
            "It goes back through the changes in their order.",
        ))
    }

    fn open(&self, connection: &Connection, _: Buckets) -> Result<Vec<Box<dyn Phase>>> {
        self.close_undone(connection);
        Ok(self.jobs(connection)?.into_iter().map(phase_of).collect())
    }

    fn max_rows(&self) -> Option<i64> {
        None
    }
}
