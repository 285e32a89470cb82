//! The job as a whole: its options, its phases, its place in the ledger.

use std::rc::Rc;

use super::{LessonAssets, LessonTally, Scope, Settled};
use crate::engine::ledger::record::{NewRun, RunMode};
use crate::engine::ledger::runs::Run;
use crate::engine::long::{Buckets, Phase, PhaseOf, Program};
use crate::engine::options::GivenOptions;
use crate::engine::relation::LockTarget;
use crate::engine::{Job, Tally};
use crate::error::{invalid_argument, not_supported, Result};
use crate::jobs::asset_keys::AssetKeys;
use crate::jobs::asset_tables::{self, Found, Tables};
use crate::jobs::keys_bound::Bound;
use crate::postgres::spi::{Connection, Mode};

/// What a caller may ask for.
#[derive(Clone, Debug, Default)]
pub struct LessonOptions {
    /// Only the lessons of this organization.
    pub organization_id: Option<String>,
    /// Start behind this lesson.
    pub after: Option<String>,
    pub max_lessons: Option<i64>,
    /// Pass over lessons that are as a finished run left them.
    pub skip_settled: bool,
}

impl LessonOptions {
    /// # Errors
    /// 22023 for an unknown option or one of the wrong type.
    pub fn parse(mut given: GivenOptions) -> Result<Self> {
        let options = LessonOptions {
            organization_id: given.text("organization_id"),
            after: given.text("after"),
            max_lessons: given.number("max_lessons")?,
            skip_settled: given.flag("skip_settled")?,
        };
        given.finish(LessonAssets::NAME)?;
        if options.max_lessons.is_some_and(|max| max < 0) {
            return Err(invalid_argument(
                "max_lessons must not be negative",
                "Leave it out for all lessons.",
            ));
        }
        Ok(options)
    }

    fn named(&self) -> Vec<(&'static str, String)> {
        let given = |name, value: Option<String>| value.map(|value| (name, value));
        [
            given("organization_id", self.organization_id.clone()),
            given("after", self.after.clone()),
            given("max_lessons", self.max_lessons.map(|max| max.to_string())),
            given("skip_settled", self.skip_settled.then(|| "true".to_owned())),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// The job over the relations of one run.
pub struct LessonProgram {
    pub tables: Rc<Tables>,
    options: LessonOptions,
    bound: Option<String>,
    /// Where the phase of keys ends; `None` in a dry run, which sees one state of the table anyway.
    keys_bound: Option<Bound>,
    /// `None` in a dry run.
    pub run_id: Option<i64>,
}

/// Rows without key get one first, then the lessons.
const PHASES: [&str; 2] = [AssetKeys::NAME, LessonAssets::NAME];

impl LessonProgram {
    /// For a new run, on the caller's search_path.
    ///
    /// # Errors
    /// What is missing, as `asset_tables::load` says it; 22023 for a text that is no value of its column.
    pub fn new(connection: &Connection, options: LessonOptions, execute: bool) -> Result<Self> {
        let tables = Rc::new(asset_tables::load(connection, execute)?);
        let mut program = LessonProgram {
            tables,
            options,
            bound: None,
            keys_bound: None,
            run_id: None,
        };
        program.check_settled(connection, execute)?;
        if execute {
            program.check_writable(connection)?;
        }
        // Checks the arguments' texts before anything is written.
        let job = program.job(connection, Buckets::ALL, None, execute)?;
        program.bound = job.bound().map(str::to_owned);
        let assets = program.tables.assets.as_ref().filter(|_| execute);
        program.keys_bound = assets.map(|assets| Bound::now(connection, Mode::Write, assets, false));
        Ok(program)
    }

    /// For a run of the ledger, on the relations that it names.
    ///
    /// # Errors
    /// What is missing by now.
    pub fn stored(connection: &Connection, run: &Run) -> Result<Self> {
        let found = Found::look_at(connection, &|name| run.relation(name).map(str::to_owned));
        Ok(LessonProgram {
            tables: Rc::new(asset_tables::load_found(connection, found, true)?),
            options: LessonOptions::parse(GivenOptions::new(run.options.clone()))?,
            bound: run.bounds.last().cloned().flatten(),
            keys_bound: run.bounds.first().cloned().flatten().map(|text| Bound::parse(&text)),
            run_id: Some(run.run_id),
        })
    }

    /// A view that takes no rows would refuse each of them; said once, before anything is written.
    fn check_writable(&self, connection: &Connection) -> Result<()> {
        let relations = [
            (Some(&self.tables.lesson), "UPDATE"),
            (self.tables.assets.as_ref(), "INSERT"),
            (self.tables.usages.as_ref(), "INSERT"),
        ];
        for (relation, command) in relations {
            if let Some(relation) = relation {
                relation.check_takes(connection, command)?;
            }
        }
        Ok(())
    }

    fn check_settled(&self, connection: &Connection, execute: bool) -> Result<()> {
        match self.options.skip_settled {
            true => Settled::check(connection, &self.tables, execute),
            false => Ok(()),
        }
    }

    /// The run as the ledger is to have it.
    pub fn new_run(&self, connection: &Connection, mode: RunMode, batch: i32) -> Result<NewRun<'static>> {
        let rows_total = self.job(connection, Buckets::ALL, None, true)?.estimate(connection);
        Ok(NewRun {
            job: LessonAssets::NAME,
            mode,
            batch,
            options: self.options.named(),
            relations: self.tables.names(),
            phases: &PHASES,
            bounds: vec![self.keys_bound.as_ref().map(Bound::to_text), self.bound.clone()],
            counter_names: LessonTally::names(),
            rows_total,
        })
    }

    /// The phase that gives keys to rows without one.
    pub fn keys(&self, buckets: Buckets, execute: bool) -> Option<AssetKeys> {
        let organization = self.options.organization_id.clone();
        let assets = self.tables.assets.as_ref()?;
        let bound = self.keys_bound.as_ref();
        Some(AssetKeys::new(assets, organization, buckets, bound, execute, &[]))
    }

    /// The lessons; `keys` is the finished phase before.
    pub fn job(
        &self,
        connection: &Connection,
        buckets: Buckets,
        keys: Option<AssetKeys>,
        execute: bool,
    ) -> Result<LessonAssets> {
        let scope = Scope {
            organization_id: self.options.organization_id.clone(),
            after: self.options.after.clone(),
            buckets,
            bound: self.bound.clone(),
            skip_settled: self.options.skip_settled,
        };
        let job = LessonAssets::new(connection, &self.tables, scope, keys, execute)?;
        Ok(job.of_run(self.run_id))
    }
}

impl Program for LessonProgram {
    fn name(&self) -> &'static str {
        LessonAssets::NAME
    }

    fn locks(&self) -> LockTarget {
        self.tables.lesson.lock_target()
    }

    fn check_can_be_shared(&self) -> Result<()> {
        if self.options.max_lessons.is_some() {
            return Err(not_supported(
                "a run with max_lessons cannot be shared",
                "The first so many lessons are one sequence; leave max_lessons out.",
            ));
        }
        if self.options.organization_id.is_some() {
            return Err(not_supported(
                "a run over one organization cannot be shared",
                "Sessions share a run by organization.",
            ));
        }
        Ok(())
    }

    fn open(&self, connection: &Connection, buckets: Buckets) -> Result<Vec<Box<dyn Phase>>> {
        // No bound means that there was no lesson when the run started.
        let lessons = if self.bound.is_some() { buckets } else { Buckets::NONE };
        let mut phases: Vec<Box<dyn Phase>> = Vec::new();
        if let Some(keys) = self.keys(buckets, true) {
            phases.push(Box::new(PhaseOf {
                job: keys,
                counts: false,
                begin: |_: &mut AssetKeys, _: &Connection| Ok(()),
            }));
        }
        phases.push(Box::new(PhaseOf {
            job: self.job(connection, lessons, None, true)?,
            counts: true,
            begin: |job: &mut LessonAssets, connection: &Connection| {
                job.learn_keys(connection, Mode::Write);
                Ok(())
            },
        }));
        Ok(phases)
    }

    fn max_rows(&self) -> Option<i64> {
        self.options.max_lessons
    }

    fn buckets_in_use(&self, connection: &Connection) -> Option<Vec<i32>> {
        // Lessons without an organization are no work to speak of, and go with whatever part they fall into.
        let rows = connection.query(
            &format!(
                "SELECT DISTINCT {} FROM (SELECT DISTINCT g.organization_id AS id FROM {} g WHERE g.organization_id IS NOT NULL) o",
                Buckets::of("o.id"),
                self.tables.group.sql_name
            ),
            Mode::Write,
            &[],
        );
        Some((0..rows.len()).filter_map(|row| rows.get(row, 0)).collect())
    }
}
