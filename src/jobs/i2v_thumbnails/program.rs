//! The job as a whole: its option, its phase, its place in the ledger.

use std::rc::Rc;

use media_assets_core::jobs::i2v_thumbnails::Counters;

use super::{Tables, Thumbnails};
use crate::engine::ledger::record::{NewRun, RunMode};
use crate::engine::ledger::runs::Run;
use crate::engine::long::{phase_of, Buckets, Phase, Program};
use crate::engine::options::GivenOptions;
use crate::engine::relation::LockTarget;
use crate::engine::{Job, Tally};
use crate::error::Result;
use crate::jobs::keyset::{self, Scope};
use crate::postgres::spi::{Connection, Mode};

/// The job over the relations of one run.
pub struct ThumbnailsProgram {
    tables: Rc<Tables>,
    /// Whether public videos take the thumbnails of private sources.
    allow_private_sources: bool,
    bound: Option<String>,
}

const PHASES: [&str; 1] = [Thumbnails::NAME];

impl ThumbnailsProgram {
    /// # Errors
    /// 22023 for an unknown option or one of the wrong type.
    pub fn options(mut given: GivenOptions) -> Result<bool> {
        let allow_private_sources = given.flag("allow_private_sources")?;
        given.finish(Thumbnails::NAME)?;
        Ok(allow_private_sources)
    }

    /// For a new run, on the caller's search_path.
    ///
    /// # Errors
    /// What is missing, as [`Tables::load`] says it.
    pub fn new(connection: &Connection, allow_private_sources: bool, execute: bool) -> Result<Self> {
        let tables = Rc::new(Tables::load(connection, &|_| None, execute)?);
        let mode = if execute { Mode::Write } else { Mode::Read };
        let bound = keyset::last_id(connection, mode, &tables.media);
        Ok(ThumbnailsProgram {
            tables,
            allow_private_sources,
            bound,
        })
    }

    /// For a run of the ledger, on the relations that it names.
    ///
    /// # Errors
    /// What is missing by now.
    pub fn stored(connection: &Connection, run: &Run) -> Result<Self> {
        let stored = |name: &str| run.relation(name).map(str::to_owned);
        Ok(ThumbnailsProgram {
            tables: Rc::new(Tables::load(connection, &stored, true)?),
            allow_private_sources: Self::options(GivenOptions::new(run.options.clone()))?,
            bound: run.bounds.last().cloned().flatten(),
        })
    }

    /// The run as the ledger is to have it.
    pub fn new_run(&self, mode: RunMode, batch: i32) -> NewRun<'static> {
        let private = ("allow_private_sources", "true".to_owned());
        NewRun {
            job: Thumbnails::NAME,
            mode,
            batch,
            options: Some(private)
                .into_iter()
                .filter(|_| self.allow_private_sources)
                .collect(),
            relations: self.tables.names(),
            phases: &PHASES,
            bounds: vec![self.bound.clone()],
            counter_names: Counters::names(),
            rows_total: None,
        }
    }

    pub fn job(&self, buckets: Buckets) -> Thumbnails {
        let scope = Scope {
            bound: self.bound.clone(),
            buckets,
        };
        Thumbnails::new(&self.tables, self.allow_private_sources, scope)
    }
}

impl Program for ThumbnailsProgram {
    fn name(&self) -> &'static str {
        Thumbnails::NAME
    }

    fn locks(&self) -> LockTarget {
        self.tables.media.lock_target()
    }

    fn check_can_be_shared(&self) -> Result<()> {
        // Any part of the videos: what one is given does not depend on when another was.
        Ok(())
    }

    fn open(&self, _: &Connection, buckets: Buckets) -> Result<Vec<Box<dyn Phase>>> {
        Ok(vec![phase_of(self.job(buckets))])
    }

    fn max_rows(&self) -> Option<i64> {
        None
    }
}
