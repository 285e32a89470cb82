//! Undo as a whole: the run that is taken back, its tables, the order in which things go.

use std::cell::RefCell;
use std::rc::Rc;

use super::assets::Assets;
use super::items::Items;
use super::keys::{Change, Keys};
use super::references::References;
use super::tables::{self, TableScope, TABLE_JOBS};
use super::usages::Usages;
use super::uses::Uses;
use super::{Counters, Kind, Undo};
use crate::engine::ledger::record::{NewRun, RunMode};
use crate::engine::ledger::runs::Run;
use crate::engine::ledger::Ledger;
use crate::engine::long::{Buckets, Phase, PhaseOf, Program};
use crate::engine::relation::{LockTarget, Relation};
use crate::engine::{rights, Job, Tally};
use crate::error::{no_such_run, not_supported, not_undoable, wrong_state, Result};
use crate::jobs::asset_tables::{self, Found, Tables};
use crate::jobs::keys_program::KeysProgram;
use crate::postgres::spi::{Connection, Mode};

/// Values go back before what they point at goes.
const PHASES: [&str; 5] = ["items", "usages", "assets", "keys_set", "keys_released"];
/// So many of them, the first ones, are about lessons and what they use.
const OF_LESSONS: usize = 3;

/// What a run over lessons knew beside assets.
struct LessonScope {
    tables: Rc<Tables>,
    usages: Relation,
}

/// A run that is taken back.
pub struct UndoProgram {
    undone: Run,
    ledger: Rc<Ledger>,
    /// `None` for a run that knew assets only.
    lessons: Option<LessonScope>,
    assets: Relation,
    /// For the jobs of [`TABLE_JOBS`]; `assets` is then the table on which their runs exclude each other.
    tables: Option<TableScope>,
    /// Values that the run wrote, by its counters.
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
        let mut written = check_changes_were_kept(connection, ledger, &undone)?;
        let tables = TableScope::of(connection, ledger, &undone)?;
        let found = Found::look_at(connection, &|name| undone.relation(name).map(str::to_owned));
        let (scope, assets) = match undone.job.as_str() {
            "lesson_assets" => {
                let tables = Rc::new(asset_tables::load_found(connection, found, false)?);
                let Some(usages) = tables.usages.clone() else {
                    return Err(not_undoable(undone.run_id, "Its table of usages has gone."));
                };
                let assets = tables.assets.clone();
                (Some(LessonScope { tables, usages }), assets)
            }
            "asset_keys" => (
                None,
                KeysProgram::load(connection, found, false, false)?.map(|program| program.assets),
            ),
            job => match &tables {
                Some(tables) => {
                    written = tables.written;
                    (None, Some(tables.main().clone()))
                }
                None => {
                    let others: Vec<&str> = TABLE_JOBS.iter().map(|job| job.name).collect();
                    return Err(not_supported(
                        format!("job {job} cannot be undone"),
                        format!("Jobs that can be: lesson_assets, asset_keys, {}.", others.join(", ")),
                    ));
                }
            },
        };
        let Some(assets) = assets else {
            return Err(not_undoable(undone.run_id, "Its table of assets has gone."));
        };
        let program = UndoProgram {
            undone,
            ledger: Rc::new(Ledger::open(connection)?),
            lessons: scope,
            assets,
            tables,
            written,
            execute,
        };
        if execute {
            program.check_rights(connection)?;
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

    fn check_rights(&self, connection: &Connection) -> Result<()> {
        if let Some(tables) = &self.tables {
            return tables.check_rights(connection);
        }
        rights::check_privilege(connection, &self.assets, "UPDATE", &["canonical_key"])?;
        let Some(LessonScope { tables, usages }) = &self.lessons else {
            return Ok(());
        };
        rights::check_privilege(connection, &tables.lesson, "UPDATE", &["videos", "documents"])?;
        if let Some(state) = tables.state.as_ref().filter(|_| self.marked()) {
            rights::check_privilege(connection, state, "DELETE", &[])?;
        }
        rights::check_privilege(connection, &self.assets, "DELETE", &[])?;
        rights::check_privilege(connection, usages, "DELETE", &[])?;
        if References::find(connection, usages, None)?.is_empty() {
            return Ok(());
        }
        // They are locked before they go.
        rights::check_privilege(connection, usages, "UPDATE", &["asset_id"])
    }

    /// The run as the ledger is to have it.
    pub fn new_run(&self, mode: RunMode, batch: i32) -> NewRun<'static> {
        NewRun {
            job: Undo::NAME,
            mode,
            batch,
            options: vec![("run_id", self.undone.run_id.to_string())],
            relations: match (&self.lessons, &self.tables) {
                (Some(lessons), _) => lessons.tables.names(),
                (None, Some(tables)) => tables
                    .relations
                    .iter()
                    .map(|relation| (relation.name, relation.sql_name.clone()))
                    .collect(),
                (None, None) => vec![("assets", self.assets.sql_name.clone())],
            },
            phases: self.phases(),
            bounds: vec![None; self.phases().len()],
            counter_names: Counters::names(),
            rows_total: Some(self.written),
        }
    }

    fn phases(&self) -> &'static [&'static str] {
        if self.tables.is_some() {
            &tables::PHASES
        } else if self.lessons.is_some() {
            &PHASES
        } else {
            &PHASES[OF_LESSONS..]
        }
    }

    /// One job for each kind of change, in the order in which they are taken back.
    ///
    /// # Errors
    /// 42501 when a table with a foreign key to what would go cannot be seen whole.
    pub fn jobs(&self, connection: &Connection) -> Result<Vec<Undo>> {
        let kinds = match &self.tables {
            Some(tables) => tables.kinds(connection)?,
            None => self.kinds(connection)?,
        };
        Ok(kinds
            .into_iter()
            .map(|kind| Undo::new(self.undone.run_id, &self.ledger, kind, self.execute))
            .collect())
    }

    fn kinds(&self, connection: &Connection) -> Result<Vec<Box<dyn Kind>>> {
        let uses = Rc::new(RefCell::new(Uses::default()));
        let mut kinds: Vec<Box<dyn Kind>> = Vec::new();
        if let Some(LessonScope { tables, usages }) = &self.lessons {
            kinds.push(Box::new(Items::new(tables, &uses)));
            kinds.push(Box::new(Usages::new(connection, usages, &uses)?));
            kinds.push(Box::new(Assets::new(
                connection,
                self.undone.run_id,
                &self.ledger,
                tables,
                (&self.assets, usages),
                &uses,
            )?));
        }
        // Only a run that refreshed keys took some away.
        let cleared = self.undone.options.contains_key("refresh").then(Rc::default);
        kinds.push(Box::new(Keys::new(&self.assets, Change::Set, cleared.as_ref())));
        kinds.push(Box::new(Keys::new(&self.assets, Change::Released, cleared.as_ref())));
        Ok(kinds)
    }

    /// A run that is being taken back does not go on: a batch that somebody resumed is waited for, no other follows.
    pub fn close_undone(&self, connection: &Connection) {
        let table = self
            .lessons
            .as_ref()
            .map_or(&self.assets, |lessons| &lessons.tables.lesson);
        rights::lock_job(connection, &self.undone.job, table.lock_target());
        self.ledger.write(
            connection,
            "UPDATE ~backfill_runs SET state = 'cancelled', finished_at = clock_timestamp()
             WHERE run_id = $1 AND state NOT IN ('finished', 'cancelled')",
            &[self.undone.run_id.into()],
        );
        // What it left is no longer as it left it.
        let state = self.lessons.as_ref().and_then(|lessons| lessons.tables.state.as_ref());
        if let Some(state) = state.filter(|_| self.marked()) {
            connection.query(
                &format!("DELETE FROM {} t WHERE t.run_id = $1", state.sql_name),
                Mode::Write,
                &[self.undone.run_id.into()],
            );
        }
    }

    /// Whether the run wrote down which lessons are settled.
    fn marked(&self) -> bool {
        self.undone.options.contains_key("skip_settled")
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
        self.assets.lock_target()
    }

    fn check_can_be_shared(&self) -> Result<()> {
        Err(not_supported(
            "an undo cannot be shared",
            "It goes back through the changes in their order.",
        ))
    }

    fn open(&self, connection: &Connection, _: Buckets) -> Result<Vec<Box<dyn Phase>>> {
        self.close_undone(connection);
        let jobs = self.jobs(connection)?.into_iter();
        Ok(jobs
            .map(|job| -> Box<dyn Phase> {
                Box::new(PhaseOf {
                    job,
                    counts: true,
                    begin: |_: &mut Undo, _: &Connection| Ok(()),
                })
            })
            .collect())
    }

    fn max_rows(&self) -> Option<i64> {
        None
    }
}
