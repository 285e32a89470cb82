//! Waiting between batches: rests, standbys that are behind, other sessions. Each wait is written down.

use std::time::{Duration, Instant};

use super::claim::Range;
use super::control;
use super::pace::{lagging, Wait};
use super::worker::{Worker, LOOK_EVERY};
use crate::error::Result;
use crate::postgres::backends;

/// Waits that will last so long, in milliseconds, are shown in the view.
const SHOWN_FROM: i64 = 1000;

impl Worker<'_> {
    pub(super) fn keep_waits(&mut self) {
        for wait in std::mem::take(&mut self.waits) {
            control::keep_wait(self.connection, self.ledger, self.run.run_id, &wait);
        }
    }

    /// Rests between batches, as long as the orders say and standbys are behind.
    pub(super) fn pace(&mut self, range: &Range) -> Result<()> {
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
}
