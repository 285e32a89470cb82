//! A phase of a run, with its job's types hidden.

use super::Buckets;
use crate::engine::batch::{settle_page, Failures, Policy};
use crate::engine::journal::Journal;
use crate::engine::{engine_settings, Job, Tally};
use crate::error::Result;
use crate::postgres::spi::{Connection, Mode};

/// What a batch of a phase came to.
pub struct Step {
    pub rows: i64,
    pub cursor: String,
    pub counters: Vec<i64>,
}

/// One pass over rows, as a worker sees it.
pub trait Phase {
    /// Whether its rows and counters are those of the run; else it only prepares.
    fn counts(&self) -> bool;
    fn rows(&self) -> &'static str;
    /// Called once before the first batch that this session does.
    fn begin(&mut self, connection: &Connection) -> Result<()>;
    /// One batch of at most `limit` rows behind the cursor `after`; `None` when there are none.
    fn step(
        &mut self,
        connection: &Connection,
        after: Option<&str>,
        limit: i64,
        policy: Policy,
        failures: &mut Failures,
        journal: &mut Journal,
    ) -> Result<Option<Step>>;
    /// Goes on with a part of its organizations, knowing what it has learned. Gives `false` where it has to be opened anew.
    fn narrow(&mut self, connection: &Connection, buckets: Buckets) -> Result<bool>;
    /// Tries the rows with these ids again. Gives the counters and the ids that are still there.
    fn again(
        &mut self,
        connection: &Connection,
        ids: &[String],
        policy: Policy,
        failures: &mut Failures,
        journal: &mut Journal,
    ) -> Result<(Vec<i64>, Vec<String>)>;
}

/// A job as a phase.
pub struct PhaseOf<J, B> {
    pub job: J,
    pub counts: bool,
    pub begin: B,
}

/// A phase whose rows count, and which needs nothing before its first batch.
pub fn phase_of<J: Job + 'static>(job: J) -> Box<dyn Phase> {
    Box::new(PhaseOf {
        job,
        counts: true,
        begin: |_: &mut J, _: &Connection| Ok(()),
    })
}

impl<J: Job, B: FnMut(&mut J, &Connection) -> Result<()>> Phase for PhaseOf<J, B> {
    fn counts(&self) -> bool {
        self.counts
    }

    fn rows(&self) -> &'static str {
        J::ROWS
    }

    fn begin(&mut self, connection: &Connection) -> Result<()> {
        (self.begin)(&mut self.job, connection)
    }

    fn step(
        &mut self,
        connection: &Connection,
        after: Option<&str>,
        limit: i64,
        policy: Policy,
        failures: &mut Failures,
        journal: &mut Journal,
    ) -> Result<Option<Step>> {
        let _level = engine_settings();
        let page = self.job.read(connection, Mode::Write, after, limit);
        let rows = J::len(&page) as i64;
        if rows == 0 {
            return Ok(None);
        }
        let job = &mut self.job;
        let counters = settle_page(connection, job, policy, &page, failures, journal, &mut |_, _, _| {})?;
        Ok(Some(Step {
            rows,
            cursor: J::cursor(&page),
            counters: counters.values(),
        }))
    }

    fn narrow(&mut self, connection: &Connection, buckets: Buckets) -> Result<bool> {
        self.job.narrow(connection, buckets)
    }

    fn again(
        &mut self,
        connection: &Connection,
        ids: &[String],
        policy: Policy,
        failures: &mut Failures,
        journal: &mut Journal,
    ) -> Result<(Vec<i64>, Vec<String>)> {
        let _level = engine_settings();
        let page = self.job.read_these(connection, ids);
        let found = (0..J::len(&page)).map(|row| J::id(&page, row)).collect();
        let job = &mut self.job;
        let counters = settle_page(connection, job, policy, &page, failures, journal, &mut |_, _, _| {})?;
        Ok((counters.values(), found))
    }
}
