//! Triggers on the lesson table: live writes get their assets and usages by the rules of the job, while and after it runs.
//!
//! The row trigger guesses and writes `assetId`s into the row, so that a lesson is written once. The statement trigger is
//! what counts: it looks at the lessons as they are when the statement's rows are in, decides them as a run would, and
//! makes assets, usages and items agree.

mod after_statement;
pub mod attach;
mod before_row;
mod hints;
mod log;
mod nesting;
mod place;
pub mod reserved;
mod untouched;
mod usages;

use std::ffi::CStr;

use crate::postgres::subtransaction::{in_subtransaction, Failure};
use crate::postgres::trigger::{Returned, TriggerCall};
use crate::postgres::write_flag;

pub const ROW_TRIGGER: &CStr = c"media_assets_lesson_row";
pub const INSERT_TRIGGER: &CStr = c"media_assets_lesson_insert";
pub const UPDATE_TRIGGER: &CStr = c"media_assets_lesson_update";
pub const DELETE_TRIGGER: &CStr = c"media_assets_lesson_delete";
pub const TRUNCATE_TRIGGER: &CStr = c"media_assets_lesson_truncate";

/// Called once from `_PG_init`.
pub fn register() {
    reserved::register();
    nesting::register();
}

/// The row trigger. The engine's own writes pass through.
pub fn before_row(call: &TriggerCall) -> Returned {
    if write_flag::is_set() {
        call.row()
    } else {
        before_row::run(call)
    }
}

/// The statement triggers. The engine's own writes need none.
pub fn after_statement(call: &TriggerCall) -> Returned {
    if !write_flag::is_set() {
        after_statement::run(call);
    }
    Returned::nothing()
}

/// Runs `work` so that its failure is undone and does not reach the application, but for those that are its own.
///
/// # Errors
/// What failed.
fn guarded<R>(work: impl FnOnce() -> R) -> Result<R, Failure> {
    match in_subtransaction(|| Ok::<_, std::convert::Infallible>(work())) {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(never)) => match never {},
        Err(failure) if goes_to_the_application(&failure) => failure.rethrow(),
        Err(failure) => Err(failure),
    }
}

/// Whether a failure of ours is the application's own affair: a cancel, a timeout, a shutdown, or its `lock_timeout`.
/// Everything else must not make its statement fail.
fn goes_to_the_application(failure: &Failure) -> bool {
    let state = failure.sqlstate();
    state.starts_with("57") || state == "55P03"
}
