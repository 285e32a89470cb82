//! The one savepoint helper of the code base.

use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::pg_sys::{self, PgTryBuilder};

/// What went wrong inside a subtransaction that was rolled back.
#[derive(Debug)]
pub struct Failure {
    caught: Caught,
}

#[derive(Debug)]
enum Caught {
    /// The error, and its code as PostgreSQL had it: pgrx turns codes that it does not know into XX000.
    Error(Box<CaughtError>, i32),
    /// A trigger of the user's kept a row from being written, without an error.
    Refused(String),
}

impl Failure {
    /// A row that a trigger of the user's kept from being written, without an error.
    pub fn refused(row: &str) -> Self {
        Failure {
            caught: Caught::Refused(format!("a trigger kept what belongs to this {row} from being written")),
        }
    }

    fn of(caught: CaughtError, raised: i32) -> Self {
        let known = report(&caught).sql_error_code() as i32;
        let unknown = pg_sys::errcodes::PgSqlErrorCode::ERRCODE_INTERNAL_ERROR as i32;
        let code = if known == unknown && raised != 0 { raised } else { known };
        Failure {
            caught: Caught::Error(Box::new(caught), code),
        }
    }

    /// The five characters of the SQLSTATE.
    pub fn sqlstate(&self) -> String {
        match &self.caught {
            // triggered_action_exception
            Caught::Refused(_) => "09000".to_owned(),
            Caught::Error(_, code) => sqlstate_text(*code),
        }
    }

    pub fn message(&self) -> &str {
        match &self.caught {
            Caught::Refused(message) => message,
            Caught::Error(caught, _) => report(caught).message(),
        }
    }

    /// Whether the failure says nothing about the row at hand: cancelled, shut down, out of resources, broken.
    pub fn stops_the_run(&self) -> bool {
        matches!(&self.caught, Caught::Error(caught, _) if matches!(**caught, CaughtError::RustPanic { .. }))
            || matches!(self.sqlstate().get(..2), Some("53" | "57" | "58" | "XX"))
    }

    /// Whether another transaction stood in the way: serialization, deadlock, lock timeout.
    pub fn is_contention(&self) -> bool {
        let state = self.sqlstate();
        state.starts_with("40") || state == "55P03"
    }

    /// Whether the failure may be about what another session did since the rows were read: a row that was relied on has
    /// gone (foreign key violation), or one that was missing has come (unique violation).
    pub fn is_about_other_rows(&self) -> bool {
        matches!(self.sqlstate().as_str(), "23503" | "23505")
    }

    /// Raises the failure again as it was.
    pub fn rethrow(self) -> ! {
        match self.caught {
            Caught::Error(caught, _) => caught.rethrow(),
            Caught::Refused(message) => panic!("{message}"),
        }
    }
}

fn report(caught: &CaughtError) -> &pg_sys::panic::ErrorReportWithLevel {
    match caught {
        CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. } => report,
    }
}

fn sqlstate_text(code: i32) -> String {
    // Six bits for each character, least significant first, as MAKE_SQLSTATE packs them.
    (0..5)
        .map(|place| char::from((((code >> (6 * place)) & 0x3F) as u8) + b'0'))
        .collect()
}

thread_local! {
    /// The code of the error that was reported last.
    static RAISED: std::cell::Cell<i32> = const { std::cell::Cell::new(0) };
}

/// Called by PostgreSQL while it builds an error report, with the code still as it was given.
unsafe extern "C-unwind" fn note_code(_: *mut std::ffi::c_void) {
    // SAFETY: an error report is being built whenever a context callback runs.
    RAISED.set(unsafe { pg_sys::geterrcode() });
}

/// Catches what `work` raises without a savepoint: only for what cleans up by itself, as a commit does.
pub fn catching<R>(work: impl FnOnce() -> R) -> Result<R, Failure> {
    PgTryBuilder::new(AssertUnwindSafe(|| Ok(work())))
        .catch_others(|caught| Err(Failure::of(caught, 0)))
        .catch_rust_panic(|caught| Err(Failure::of(caught, 0)))
        .execute()
}

/// As [`in_subtransaction`], for work whose own errors are failures like any other.
pub fn attempt<R>(work: impl FnOnce() -> crate::error::Result<R>) -> Result<R, Failure> {
    let outcome = in_subtransaction(|| -> Result<R, std::convert::Infallible> {
        Ok(work().unwrap_or_else(|report| raise(report)))
    });
    outcome.map(|Ok(done)| done)
}

fn raise(report: pg_sys::panic::ErrorReport) -> ! {
    report.report(pgrx::PgLogLevel::ERROR);
    unreachable!("an ERROR leaves by unwinding")
}

/// Runs `work` in a subtransaction: released when it gives `Ok`, rolled back when it gives `Err` or raises.
///
/// Restores the memory context and resource owner on both ways out. Nothing that `work` counted may be kept when this
/// gives a [`Failure`].
pub fn in_subtransaction<R, E>(work: impl FnOnce() -> Result<R, E>) -> Result<Result<R, E>, Failure> {
    // SAFETY: this is the sequence of PL/pgSQL's exception block: the subtransaction is begun and ended in the same
    // function, and context and owner are put back before anything else runs.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        // On top of the stack while `work` runs, and taken off whatever becomes of it.
        let mut watch = pg_sys::ErrorContextCallback {
            previous: pg_sys::error_context_stack,
            callback: Some(note_code),
            arg: std::ptr::null_mut(),
        };
        RAISED.set(0);
        pg_sys::error_context_stack = &mut watch;
        let outcome = PgTryBuilder::new(AssertUnwindSafe(|| Ok(work())))
            .catch_others(|caught| Err(Failure::of(caught, RAISED.get())))
            .catch_rust_panic(|caught| Err(Failure::of(caught, 0)))
            .execute();
        pg_sys::error_context_stack = watch.previous;
        if matches!(outcome, Ok(Ok(_))) {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        outcome
    }
}
