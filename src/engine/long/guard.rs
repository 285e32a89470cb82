//! Errors of a session: each piece of work in a subtransaction, so that whatever goes wrong gives up the claim and is
//! written in the run's row.

use super::control;
use super::worker::Worker;
use crate::error::Result;
use crate::postgres::memory::in_own_context;
use crate::postgres::subtransaction::{attempt, catching, Failure};
use crate::postgres::transaction::{commit, with_snapshot};
use crate::postgres::user;

/// Characters of an error's message that the server's log gets; the run's row has all of it.
const MOST_LOGGED: usize = 500;

impl Worker<'_> {
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
        crate::postgres::message::log!(
            "media_assets run={} job={} event=stopped role={:?} sqlstate={} message={:?}",
            self.run.run_id,
            self.run.job,
            user::current_name(),
            sqlstate,
            message.chars().take(MOST_LOGGED).collect::<String>()
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
