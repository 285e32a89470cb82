//! The only place that knows SQLSTATEs: every error a user can meet, with what to type next.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::PgSqlErrorCode as Code;

/// The result of everything that a user's input can make fail.
pub type Result<T> = std::result::Result<T, ErrorReport>;

fn report(code: Code, message: impl Into<String>) -> ErrorReport {
    ErrorReport::new(code, message.into(), "media_assets")
}

/// Raises a report as the server's own error, where the caller's type has no room for it.
pub fn raise(report: ErrorReport) -> ! {
    report.report(pgrx::PgLogLevel::ERROR);
    unreachable!("ERROR does not return")
}

/// A trigger function was called by hand, or attached where it cannot work (39P01).
pub fn not_its_trigger(function: &str) -> ErrorReport {
    report(
        Code::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
        format!("{function}() works only in the triggers that attach_lesson_triggers makes"),
    )
    .set_hint("SELECT * FROM attach_lesson_triggers(execute => true);")
}

/// An argument outside its range or of the wrong form (22023).
pub fn invalid_argument(message: impl Into<String>, hint: impl Into<String>) -> ErrorReport {
    report(Code::ERRCODE_INVALID_PARAMETER_VALUE, message).set_hint(hint)
}

/// Something that this version or this transaction does not offer (0A000).
pub fn not_supported(message: impl Into<String>, hint: impl Into<String>) -> ErrorReport {
    report(Code::ERRCODE_FEATURE_NOT_SUPPORTED, message).set_hint(hint)
}

/// A limit that a setting names was reached (53400).
pub fn limit_reached(message: impl Into<String>, detail: impl Into<String>, hint: impl Into<String>) -> ErrorReport {
    report(Code::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, message)
        .set_detail(detail)
        .set_hint(hint)
}

/// The extension's own tables are needed, and it is not installed in this database (42704).
pub fn not_installed() -> ErrorReport {
    report(
        Code::ERRCODE_UNDEFINED_OBJECT,
        "extension media_assets is not installed in this database",
    )
    .set_hint("CREATE EXTENSION media_assets;")
}

/// No run has this id (42704).
pub fn no_such_run(run_id: &str) -> ErrorReport {
    report(Code::ERRCODE_UNDEFINED_OBJECT, format!("there is no run {run_id}"))
        .set_hint("SELECT run_id, job, state FROM backfill_progress;")
}

/// A run of another role (42501).
pub fn not_your_run(run_id: i64, role: &str) -> ErrorReport {
    report(
        Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("permission denied for run {run_id}"),
    )
    .set_detail(format!("It belongs to role {role}."))
    .set_hint("Its role, members of that role and the extension's owner may see and steer it.")
}

/// A run, or the session, is in a state that does not allow it (55000).
pub fn wrong_state(message: impl Into<String>, detail: impl Into<String>, hint: impl Into<String>) -> ErrorReport {
    report(Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
        .set_detail(detail)
        .set_hint(hint)
}

/// Another session has the range that this one worked on (55000).
pub fn taken_over(run_id: i64) -> ErrorReport {
    wrong_state(
        format!("another session has taken over what this one did of run {run_id}"),
        "Nothing of the last batch was kept.",
        format!("CALL join_backfill({run_id});"),
    )
}

/// `media_assets.max_replica_lag` needs to see the standbys (42501).
pub fn may_not_see_replication(role: &str) -> ErrorReport {
    report(
        Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "permission denied to see how far standbys are behind",
    )
    .set_detail("media_assets.max_replica_lag is set, and pg_stat_replication hides the lag from this role.")
    .set_hint(format!(
        "GRANT pg_monitor TO {}; or SET media_assets.max_replica_lag = 0;",
        pgrx::spi::quote_identifier(role)
    ))
}

/// A run whose changes cannot be taken back (55000).
pub fn not_undoable(run_id: i64, detail: &str) -> ErrorReport {
    wrong_state(
        format!("run {run_id} cannot be undone"),
        detail,
        format!("SELECT backfill_report({run_id});"),
    )
}

/// A committing procedure inside a transaction block (25001).
pub fn in_transaction_block(procedure: &str) -> ErrorReport {
    report(
        Code::ERRCODE_ACTIVE_SQL_TRANSACTION,
        format!("{procedure} commits after every batch and cannot run inside a transaction"),
    )
    .set_detail("It was called in a transaction block, in a block with EXCEPTION, from a function, or from a procedure that cannot commit.")
    .set_hint(
        "CALL it by itself, outside BEGIN … COMMIT; inside a transaction use SELECT * FROM backfill_…(batch, true).",
    )
}

/// The search_path names no schema that exists (3F000).
pub fn no_schema() -> ErrorReport {
    report(
        Code::ERRCODE_INVALID_SCHEMA_NAME,
        "no schema has been selected to create the tables in",
    )
    .set_hint("SET search_path = public;")
}

/// A right that the caller lacks (42501), in the server's own words.
pub fn permission_denied(relation: &str, detail: impl Into<String>) -> ErrorReport {
    report(
        Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("permission denied for {relation}"),
    )
    .set_detail(detail)
}

/// Row security is active, so that a run would see a part of the rows only (42501).
pub fn row_security(relation: &str) -> ErrorReport {
    report(
        Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("row-level security is active on {relation} for the current role"),
    )
    .set_detail("Decisions made on a part of the rows would create duplicates of the hidden ones.")
    .set_hint("Run as the table's owner or as a role with BYPASSRLS.")
}

/// Something that has to be there before the call can work; `state` is 42P01, 42703 or 55000.
pub fn not_prepared(
    state: &str,
    message: impl Into<String>,
    detail: impl Into<String>,
    hint: impl Into<String>,
) -> ErrorReport {
    let code = match state {
        "42P01" => Code::ERRCODE_UNDEFINED_TABLE,
        "42703" => Code::ERRCODE_UNDEFINED_COLUMN,
        "42809" => Code::ERRCODE_WRONG_OBJECT_TYPE,
        "42804" => Code::ERRCODE_DATATYPE_MISMATCH,
        _ => Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
    };
    report(code, message).set_detail(detail).set_hint(hint)
}

/// A sum of a batch's counters that does not hold: a defect of ours, and the batch must not land.
pub fn counters_do_not_add_up(sum: &str) -> ErrorReport {
    report(
        Code::ERRCODE_INTERNAL_ERROR,
        format!("the counters of a batch do not add up: {sum}"),
    )
    .set_hint("This is a defect of media_assets; nothing of this call was kept.")
}
