//! One session's work on a run.

use std::time::{Duration, Instant};

use super::claim::{self, Claim, Range};
use super::control;
use super::pace::{lagging, Commits, Orders, Wait};
use super::phase::Phase;
use super::{retry, End, Program};
use crate::engine::batch::{Failures, Policy};
use crate::engine::journal::Journal;
use crate::engine::ledger::record::{quarantined, Recorder};
use crate::engine::ledger::runs::Run;
use crate::engine::ledger::Ledger;
use crate::engine::progress::Progress;
use crate::engine::rights;
use crate::error::{taken_over, Result};
use crate::postgres::backends::{self, Backend};
use crate::postgres::memory::in_own_context;
use crate::postgres::spi::{Connection, Mode};
use crate::postgres::subtransaction::{attempt, catching, Failure};
use crate::postgres::transaction::{commit, with_snapshot};
use crate::postgres::user;

/// How often a batch is tried again when another transaction stood in the way, before the row alone pays.
const MOST_TRIES: u32 = 5;
/// A batch that wrote nothing saves its place no more often than that.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How often a waiting session looks whether it has something to do, in milliseconds.
pub(super) const LOOK_EVERY: i64 = 100;

/// Waits that will last so long, in milliseconds, are shown in the view.
const SHOWN_FROM: i64 = 1000;

pub(super) struct Worker<'w> {
    pub connection: &'w Connection,
    pub ledger: &'w Ledger,
    pub program: &'w dyn Program,
    pub run: &'w Run,
    pub me: Backend,
    pub recorder: Recorder<'w>,
    pub journal: Journal,
    pub failures: Failures,
    orders: Orders,
    /// The pace request that `orders` came from.
    orders_of: i64,
    commits: Commits,
    /// Waits that are over and not yet in the ledger.
    waits: Vec<Wait>,
    progress: Progress,
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
                Some(Claim::Range(range)) => self.one_range(range)?,
                Some(Claim::Nothing { behind }) => {
                    if self.program.check_can_be_shared().is_ok() {
                        let role = self.run.run_by.clone();
                        self.guarded(|worker| {
                            control::ask_to_join(worker.connection, worker.ledger, worker.run.run_id, &role);
                            Ok(())
                        })?;
                        self.commit()?;
                    }
                    self.rest(if behind { "phase" } else { "other_run" }, String::new(), LOOK_EVERY)?;
                }
                Some(Claim::AllDone) => {
                    if retry::all(self)? {
                        continue;
                    }
                    self.guarded(|worker| {
                        worker.keep_waits();
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
        let buckets = range.buckets;
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
                    tries = 0;
                    if phases.get(phase as usize).is_some_and(|phase| phase.counts()) {
                        self.tell(|progress| progress.after_batch(range.rows_done))?;
                    }
                    if range.buckets != buckets {
                        // Halved: what was opened for all of it no longer fits.
                        self.give_back(&range)?;
                        return Ok(());
                    }
                    if rows > 0 {
                        let wanted = self.orders.batch.unwrap_or(self.run.batch);
                        range.batch_size = self.orders.next_size(range.batch_size, wanted, started.elapsed());
                    }
                    self.pace(&range)?;
                }
                Next::PhaseOver => {}
                Next::Claim => {
                    if range.done {
                        self.tell(|progress| progress.finish(range.rows_done))?;
                    }
                    return Ok(());
                }
                Next::Wait(reason) => {
                    self.rest(reason, String::new(), LOOK_EVERY)?;
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
            Some(max) => max - range.rows_done,
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
        self.recorder.phase = range.phase;
        let decided = !self.journal.decisions.is_empty() && !self.recorder.log_is_full();
        let wrote = self.journal.wrote || decided || !self.journal.failures.is_empty();
        self.recorder.keep(connection, &mut self.journal);
        // A request is open until somebody has something to give.
        let could_share = control.asked_to_share && step.rows >= limit && next.buckets.halves().is_some();
        if could_share && control::take_share_request(connection, ledger, run_id) {
            // Both halves go on from here; the other one counts from zero.
            if let Some(half) = next.split(connection, ledger, run_id) {
                next = half;
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

    fn leave(&mut self) {
        claim::release(self.connection, self.ledger, self.run.run_id, self.me);
    }

    fn keep_waits(&mut self) {
        for wait in std::mem::take(&mut self.waits) {
            control::keep_wait(self.connection, self.ledger, self.run.run_id, &wait);
        }
    }

    /// Rests between batches, as long as the orders say and standbys are behind.
    fn pace(&mut self, range: &Range) -> Result<()> {
        backends::reload_settings();
        if self.orders.batch_pause() > 0 {
            let began = Instant::now();
            self.wait_while("batch_pause", range, |worker| {
                // Asked anew each time: the order may change while it is obeyed.
                let pause = i64::from(worker.orders.batch_pause());
                let left = pause - i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
                Ok((left > 0).then(|| (format!("{pause} ms"), left)))
            })?;
        }
        if self.orders.max_replica_lag() > 0 {
            self.guarded(|worker| {
                worker.commits.note(worker.connection);
                Ok(())
            })?;
            self.commit()?;
            self.wait_while("replica_lag", range, |worker| {
                let allowed = worker.orders.max_replica_lag();
                if allowed == 0 {
                    return Ok(None);
                }
                let standby = lagging(worker.connection, &mut worker.commits, allowed)?;
                Ok(standby.map(|standby| (standby, i64::MAX)))
            })?;
        }
        Ok(())
    }

    /// Waits while `holds` gives a value and the milliseconds that are left; a request or an order ends it early. The wait
    /// is shown while it lasts, and written down afterwards.
    fn wait_while(
        &mut self,
        reason: &'static str,
        range: &Range,
        mut holds: impl FnMut(&mut Self) -> Result<Option<(String, i64)>>,
    ) -> Result<()> {
        let began = Instant::now();
        let at = control::now();
        let (phase, number) = (range.phase, range.number);
        let mut waiting = false;
        let mut shown = false;
        loop {
            let left = self.guarded(|worker| {
                let (connection, ledger, run_id) = (worker.connection, worker.ledger, worker.run.run_id);
                let control = control::look(connection, ledger, run_id, phase);
                if control.asked_to_stop || control.state != "running" || control.pace > worker.orders_of {
                    return Ok(None);
                }
                let Some((value, left)) = holds(worker)? else {
                    return Ok(None);
                };
                // A short rest is over before anybody could see it.
                if !shown && left >= SHOWN_FROM {
                    control::show_throttle(connection, ledger, run_id, number, reason, &value);
                    shown = true;
                }
                // Noted from the start, so that a cancel does not lose it.
                worker.note_wait(waiting, reason, value, began.elapsed(), at);
                waiting = true;
                Ok(Some(left))
            })?;
            self.commit()?;
            let Some(left) = left else { break };
            self.sleep(left.min(LOOK_EVERY))?;
            backends::reload_settings();
        }
        if let Some(wait) = self.waits.last_mut().filter(|_| waiting) {
            wait.length = began.elapsed();
            wait.range = Some(number);
        }
        if shown {
            self.guarded(|worker| {
                worker.keep_waits();
                control::hide_throttle(worker.connection, worker.ledger, worker.run.run_id, number);
                Ok(())
            })?;
            self.commit()?;
        }
        Ok(())
    }

    /// Takes note of a wait, or of how long the last one is by now.
    fn note_wait(&mut self, same: bool, reason: &'static str, value: String, length: Duration, began: i64) {
        match self.waits.last_mut().filter(|_| same) {
            Some(wait) => (wait.value, wait.length) = (value, length),
            None => self.waits.push(Wait {
                reason,
                value,
                length,
                began,
                range: None,
            }),
        }
    }

    /// Waits for other sessions, and notes it.
    pub(super) fn rest(&mut self, reason: &'static str, value: String, milliseconds: i64) -> Result<()> {
        let began = Instant::now();
        let at = control::now();
        self.sleep(milliseconds)?;
        // One wait for one reason, however often it was looked whether it is over.
        let last = self
            .waits
            .last()
            .filter(|wait| wait.reason == reason && reason != "lock");
        let (before, began_at) = last.map_or((Duration::ZERO, at), |wait| (wait.length, wait.began));
        let same = last.is_some();
        self.note_wait(same, reason, value, before + began.elapsed(), began_at);
        Ok(())
    }

    fn sleep(&mut self, milliseconds: i64) -> Result<()> {
        self.guarded(|_| {
            backends::sleep(milliseconds);
            Ok(())
        })
    }

    /// Runs `work` in a subtransaction of its own; an error gives up the claim, says in the run's row what stopped it,
    /// and is raised.
    pub(super) fn guarded<R>(&mut self, work: impl FnOnce(&mut Self) -> Result<R>) -> Result<R> {
        match self.attempt(work)? {
            Ok(done) => Ok(done),
            Err(contention) => self.stop(contention),
        }
    }

    /// As [`Worker::guarded`], but another transaction that stood in the way is handed back, to be tried again.
    pub(super) fn attempt<R>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<R>,
    ) -> Result<std::result::Result<R, Failure>> {
        let worker = &mut *self;
        let outcome = in_own_context(|| attempt(|| with_snapshot(|| work(worker))));
        match outcome {
            Ok(done) => Ok(Ok(done)),
            Err(failure) if failure.is_contention() => {
                // Locks that the attempt took go with the transaction.
                self.commit()?;
                Ok(Err(failure))
            }
            Err(failure) => self.stop(failure),
        }
    }

    fn stop<R>(&mut self, failure: Failure) -> Result<R> {
        self.note_stop(&failure);
        failure.rethrow()
    }

    /// Writes down what stopped the run, as well as that is still possible. A cancel is nobody's fault: the run is
    /// interrupted, not failed.
    fn note_stop(&mut self, failure: &Failure) {
        let worker = &mut *self;
        let (sqlstate, message) = (failure.sqlstate(), failure.message());
        let noted = in_own_context(|| {
            attempt(|| {
                if !sqlstate.starts_with("57") {
                    control::set_failed(worker.connection, worker.ledger, worker.run.run_id, &sqlstate, message);
                }
                worker.leave();
                worker.keep_waits();
                Ok(())
            })
        });
        if noted.is_ok() {
            commit(self.connection);
        }
        pgrx::log!(
            "media_assets run={} job={} event=stopped role={} sqlstate={} message={:?}",
            self.run.run_id,
            self.run.job,
            user::current_name(),
            sqlstate,
            message
        );
    }

    /// Commits. A commit that fails has rolled back; then the claim is given up, too.
    pub(super) fn commit(&mut self) -> Result<()> {
        // Before PostgreSQL 15 nothing can be done after a commit that failed.
        if cfg!(any(feature = "pg13", feature = "pg14")) {
            commit(self.connection);
            return Ok(());
        }
        match catching(|| commit(self.connection)) {
            Ok(()) => Ok(()),
            Err(failure) => self.stop(failure),
        }
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
