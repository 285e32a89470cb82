//! One session's work on a run.

use std::time::{Duration, Instant};

use super::claim::{self, Claim, Range};
use super::control;
use super::pace::{Commits, Orders, Wait};
use super::phase::Phase;
use super::{retry, Buckets, End, Program};
use crate::engine::batch::{Failures, Policy};
use crate::engine::journal::Journal;
use crate::engine::ledger::record::{quarantined, quarantined_by_now, Recorder};
use crate::engine::ledger::runs::Run;
use crate::engine::ledger::Ledger;
use crate::engine::progress::Progress;
use crate::engine::rights;
use crate::error::{taken_over, Result};
use crate::postgres::backends::Backend;
use crate::postgres::spi::{Connection, Mode};
use crate::postgres::transaction::commit;

/// How often a batch is tried again when another transaction stood in the way, before the row alone pays.
pub(super) const MOST_TRIES: u32 = 5;
/// A batch that wrote nothing saves its place no more often than that.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How often a waiting session looks whether it has something to do, in milliseconds, when it has waited for a while.
pub(super) const LOOK_EVERY: i64 = 100;
/// How soon it looks at first, in milliseconds; later whenever it has waited for an eighth longer.
const FIRST_LOOK: i64 = 2;
/// A batch that took longer looks at its end, too, whether another session asks for a part of the range.
const LONG_BATCH: Duration = Duration::from_millis(20);

pub(super) struct Worker<'w> {
    pub connection: &'w Connection,
    pub ledger: &'w Ledger,
    pub program: &'w dyn Program,
    pub run: &'w Run,
    pub me: Backend,
    pub recorder: Recorder<'w>,
    pub journal: Journal,
    pub failures: Failures,
    pub orders: Orders,
    /// The pace request that `orders` came from.
    pub orders_of: i64,
    pub commits: Commits,
    /// Waits that are over and not yet in the ledger.
    pub waits: Vec<Wait>,
    pub progress: Progress,
    /// Since when this session has nothing to do.
    idle: Option<Instant>,
    /// How often quarantined rows were tried again in vain, because another transaction stood in the way.
    pub retries: u32,
    /// The program's [`Program::buckets_in_use`], once asked.
    in_use: Option<Option<Vec<i32>>>,
}

/// What to do after a batch.
enum Next {
    /// The same range goes on.
    Go { rows: i64 },
    /// The phase is over for this range.
    PhaseOver,
    /// Another range, another phase, or the end: look again.
    Claim,
    /// Another run, or another phase, has to be done first.
    Wait(&'static str),
}

/// Works on `run` until there is nothing left to do, or somebody asks to stop.
///
/// # Errors
/// What stops a run; the run's row then says so, and `resume_backfill` goes on from the last batch.
pub fn work(connection: &Connection, ledger: &Ledger, program: &dyn Program, run: &Run) -> Result<End> {
    let mut worker = Worker {
        connection,
        ledger,
        program,
        run,
        me: Backend::own(),
        recorder: Recorder::new(connection, ledger, run.run_id),
        journal: Journal::by_settings(),
        failures: Failures {
            count: quarantined(connection, ledger, run.run_id),
        },
        orders: Orders::default(),
        orders_of: 0,
        commits: Commits::default(),
        waits: Vec::new(),
        progress: Progress::start(program.name(), "rows", None),
        idle: None,
        retries: 0,
        in_use: None,
    };
    commit(connection);
    worker.all_ranges()
}

impl Worker<'_> {
    fn all_ranges(&mut self) -> Result<End> {
        loop {
            let (state, claim) = self.guarded(|worker| {
                let control = control::look(worker.connection, worker.ledger, worker.run.run_id, 0);
                if control.asked_to_stop {
                    control::obey(worker.connection, worker.ledger, worker.run.run_id);
                }
                let control = control::look(worker.connection, worker.ledger, worker.run.run_id, 0);
                if control.state != "running" {
                    worker.leave();
                    return Ok((control.state, None));
                }
                let claim = claim::take(worker.connection, worker.ledger, worker.run.run_id, worker.me);
                Ok((control.state, Some(claim)))
            })?;
            self.commit()?;
            match claim {
                None => return Ok(end_of(&state)),
                Some(Claim::Range(range)) => {
                    self.idle = None;
                    self.one_range(range)?;
                }
                Some(Claim::Nothing { behind }) => {
                    if self.program.check_can_be_shared().is_ok() {
                        let role = self.run.run_by.clone();
                        self.guarded(|worker| {
                            control::ask_to_join(worker.connection, worker.ledger, worker.run.run_id, &role);
                            Ok(())
                        })?;
                        self.commit()?;
                    }
                    let look = self.next_look();
                    self.rest(if behind { "phase" } else { "other_run" }, String::new(), look)?;
                }
                Some(Claim::AllDone) => {
                    if retry::all(self)? {
                        continue;
                    }
                    self.guarded(|worker| {
                        worker.keep_waits();
                        claim::release_all(worker.connection, worker.ledger, worker.run.run_id);
                        control::set_state(worker.connection, worker.ledger, worker.run.run_id, "finished");
                        Ok(())
                    })?;
                    self.commit()?;
                    return Ok(End::Finished);
                }
            }
        }
    }

    fn one_range(&mut self, mut range: Range) -> Result<()> {
        let mut buckets = range.buckets;
        let mut phases = self.guarded(|worker| worker.program.open(worker.connection, buckets))?;
        self.commit()?;
        self.progress = Progress::resume(
            self.program.name(),
            rows_name(&phases),
            self.run.rows_total,
            range.rows_done,
        );
        let mut begun = None;
        let mut saved = Instant::now();
        let mut tries = 0;
        // Rows among which the one is that another transaction stood before: until they are done, the tries are its own.
        let mut owed = 0;
        loop {
            let started = Instant::now();
            let phase = range.phase;
            let first = begun != Some(phase);
            let failures = self.failures.count;
            let step =
                self.attempt(|worker| worker.step(&mut range, &mut phases, first, &mut saved, tries >= MOST_TRIES))?;
            let next = match step {
                Ok(next) => next,
                Err(contention) => {
                    tries += 1;
                    owed = i64::from(range.batch_size);
                    // What was rolled back will be met again.
                    self.failures.count = failures;
                    // What the phase has learned may have been rolled back.
                    begun = None;
                    range.batch_size = (range.batch_size / 2).max(1);
                    self.rest(
                        "lock",
                        contention.message().to_owned(),
                        LOOK_EVERY * i64::from(tries.min(MOST_TRIES)),
                    )?;
                    continue;
                }
            };
            begun = Some(phase);
            self.commit()?;
            match next {
                Next::Go { rows } => {
                    self.idle = None;
                    owed -= rows;
                    if owed <= 0 {
                        tries = 0;
                    }
                    if phases.get(phase as usize).is_some_and(|phase| phase.counts()) {
                        self.tell(|progress| progress.after_batch(range.rows_done))?;
                    }
                    if range.buckets != buckets {
                        buckets = range.buckets;
                        if !self.narrow(&mut phases, &range)? {
                            // What was opened for all of it no longer fits; it is saved, and this session's to take again.
                            return Ok(());
                        }
                    }
                    if tries == 0 {
                        let wanted = self.orders.batch.unwrap_or(self.run.batch);
                        range.batch_size = self.orders.next_size(range.batch_size, wanted, started.elapsed());
                    }
                    self.pace(&range)?;
                }
                Next::PhaseOver => tries = 0,
                Next::Claim => {
                    if range.done {
                        self.tell(|progress| progress.finish(range.rows_done))?;
                    }
                    return Ok(());
                }
                Next::Wait(reason) => {
                    let look = self.next_look();
                    self.rest(reason, String::new(), look)?;
                    if reason == "phase" {
                        // What is behind may belong to a session that has died.
                        self.give_back(&range)?;
                        return Ok(());
                    }
                }
            }
        }
    }

    /// One batch with all that belongs to it, in one transaction. `range` is changed only by what will be committed.
    fn step(
        &mut self,
        range: &mut Range,
        phases: &mut [Box<dyn Phase>],
        first: bool,
        saved: &mut Instant,
        contention_costs_row: bool,
    ) -> Result<Next> {
        let (connection, ledger, run_id) = (self.connection, self.ledger, self.run.run_id);
        let began = Instant::now();
        let control = control::look(connection, ledger, run_id, range.phase);
        if control.pace > self.orders_of {
            self.orders = control::orders(connection, ledger, control.pace);
            self.orders_of = control.pace;
            if let Some(batch) = self.orders.batch {
                range.batch_size = batch;
            }
        }
        let mut state = control.state;
        if control.asked_to_stop {
            control::obey(connection, ledger, run_id);
            state = control::look(connection, ledger, run_id, range.phase).state;
        }
        if state != "running" {
            self.save(range)?;
            self.leave();
            return Ok(Next::Claim);
        }
        if control.behind {
            return Ok(Next::Wait("phase"));
        }
        if !rights::try_share_job(connection, self.program.name(), self.program.locks()) {
            return Ok(Next::Wait("other_run"));
        }
        self.journal.start_batch();
        let number = usize::try_from(range.phase).unwrap_or(0);
        let Some(phase) = phases.get_mut(number) else {
            range.done = true;
            self.save(range)?;
            return Ok(Next::Claim);
        };
        if first {
            phase.begin(connection)?;
        }
        let policy = Policy {
            mode: Mode::Write,
            own_transaction: true,
            contention_costs_row,
        };
        let counts = phase.counts();
        let left = match self.program.max_rows().filter(|_| counts) {
            Some(max) if self.program.failures_fill_limit() => max - range.rows_done,
            Some(max) => max - (range.rows_done - self.failures.count),
            None => i64::MAX,
        };
        let limit = i64::from(range.batch_size).min(left);
        let done = if limit > 0 {
            let (journal, failures) = (&mut self.journal, &mut self.failures);
            phase.step(connection, range.cursor.as_deref(), limit, policy, failures, journal)
        } else {
            Ok(None)
        };
        let step = done?;
        let mut next = range.clone();
        let Some(step) = step else {
            next.phase += 1;
            next.cursor = None;
            next.done = usize::try_from(next.phase).unwrap_or(0) >= phases.len();
            self.save(&next)?;
            *range = next;
            *saved = Instant::now();
            return Ok(if range.done { Next::Claim } else { Next::PhaseOver });
        };
        next.cursor = Some(step.cursor);
        if counts {
            next.rows_done += step.rows;
            next.batches += 1;
            for (total, value) in next.counters.iter_mut().zip(&step.counters) {
                *total += value;
            }
        }
        self.check_failures(phase.rows())?;
        self.recorder.phase = range.phase;
        let decided = !self.journal.decisions.is_empty() && !self.recorder.log_is_full();
        let wrote = self.journal.wrote || decided || !self.journal.failures.is_empty();
        self.recorder.keep(connection, &mut self.journal);
        // A request is open until somebody has something to give.
        let asked = control.asked_to_share
            || (began.elapsed() >= LONG_BATCH && control::is_asked_to_share(connection, ledger, run_id));
        let could_share = asked && step.rows >= limit && self.is_worth_sharing(&next, step.rows);
        if let Some(halves) = could_share.then(|| self.halves(next.buckets)).flatten() {
            if control::take_share_request(connection, ledger, run_id) {
                // Both halves go on from here; the other one counts from zero.
                next = next.split(connection, ledger, run_id, halves);
            }
        }
        if wrote || next.buckets != range.buckets || saved.elapsed() >= SAVE_EVERY {
            self.save(&next)?;
            *saved = Instant::now();
        }
        *range = next;
        Ok(Next::Go { rows: step.rows })
    }

    fn save(&mut self, range: &Range) -> Result<()> {
        self.keep_waits();
        if range.save(self.connection, self.ledger, self.run.run_id, self.me) {
            Ok(())
        } else {
            Err(taken_over(self.run.run_id))
        }
    }

    /// How long to wait before looking again whether there is something to do, in milliseconds.
    fn next_look(&mut self) -> i64 {
        let waited = self.idle.get_or_insert_with(Instant::now).elapsed();
        i64::try_from(waited.as_millis() / 8).map_or(LOOK_EVERY, |wait| wait.clamp(FIRST_LOOK, LOOK_EVERY))
    }

    /// Whether more is left of the run than another session would need to get ready for it, as far as the statistics tell.
    fn is_worth_sharing(&self, range: &Range, batch: i64) -> bool {
        let Some(total) = self.run.rows_total else { return true };
        let done =
            control::rows_done_by_others(self.connection, self.ledger, self.run.run_id, range.number) + range.rows_done;
        // Where more is done than there should be, nobody knows what is left.
        total <= done || total - done > 2 * batch
    }

    /// The two parts of a range that is shared, where it has two.
    fn halves(&mut self, buckets: Buckets) -> Option<(Buckets, Buckets)> {
        let (program, connection) = (self.program, self.connection);
        let in_use = self.in_use.get_or_insert_with(|| {
            let mut in_use = program.buckets_in_use(connection);
            if let Some(in_use) = &mut in_use {
                in_use.sort_unstable();
            }
            in_use
        });
        buckets.halves(in_use.as_deref())
    }

    /// Makes what was opened for a range fit the half of it that is left. Gives `false` where it has to be opened anew.
    fn narrow(&mut self, phases: &mut [Box<dyn Phase>], range: &Range) -> Result<bool> {
        let ahead = usize::try_from(range.phase).unwrap_or(0);
        let narrowed = self.guarded(|worker| {
            for phase in phases.iter_mut().skip(ahead) {
                if !phase.narrow(worker.connection, range.buckets)? {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        self.commit()?;
        Ok(narrowed)
    }

    /// Stops the run when all its sessions together have met too many failing rows.
    fn check_failures(&mut self, rows: &str) -> Result<()> {
        if let Some(last) = self.journal.failures.last() {
            // What others have met is committed or waits for this lock.
            self.failures.count =
                quarantined_by_now(self.connection, self.ledger, self.run.run_id) + self.journal.failures.len() as i64;
            return self.failures.check(rows, last);
        }
        Ok(())
    }

    /// Says how far the run is. A cancel may arrive with any message, so this is guarded, too.
    fn tell(&mut self, say: impl FnOnce(&mut Progress)) -> Result<()> {
        self.guarded(|worker| {
            say(&mut worker.progress);
            Ok(())
        })
    }

    /// Gives up the range, saved as it stands.
    fn give_back(&mut self, range: &Range) -> Result<()> {
        self.guarded(|worker| {
            worker.save(range)?;
            worker.leave();
            Ok(())
        })?;
        self.commit()
    }

    pub(super) fn leave(&mut self) {
        claim::release(self.connection, self.ledger, self.run.run_id, self.me);
    }
}

fn rows_name(phases: &[Box<dyn Phase>]) -> &'static str {
    phases.last().map_or("rows", |phase| phase.rows())
}

fn end_of(state: &str) -> End {
    match state {
        "paused" => End::Paused,
        "failed" => End::Failed,
        "finished" => End::Finished,
        _ => End::Cancelled,
    }
}
