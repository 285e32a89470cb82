//! What is checked before a run touches anything: transaction, row security, privileges.

use super::relation::{LockTarget, Relation};
use crate::error::{not_supported, permission_denied, row_security, Result};
use crate::postgres::backend;
use crate::postgres::spi::{Connection, Mode};

/// Refuses where an execute could not be right: READ ONLY (25006), or an isolation level above READ COMMITTED (0A000).
pub fn check_can_execute(function: &str) -> Result<()> {
    backend::prevent_if_read_only(&format!("{function}(execute => true)"));
    if backend::is_read_committed() {
        return Ok(());
    }
    Err(not_supported(
        format!("{function}(execute => true) needs a READ COMMITTED transaction"),
        "BEGIN ISOLATION LEVEL READ COMMITTED; a dry run takes any level.",
    ))
}

/// 42501 when row security hides rows of one of the relations.
pub fn check_row_security<'r>(relations: impl IntoIterator<Item = &'r Relation>) -> Result<()> {
    match relations.into_iter().find(|relation| relation.row_security) {
        Some(relation) => Err(row_security(&relation.sql_name)),
        None => Ok(()),
    }
}

/// 42501 when the current role lacks `privilege` on the relation, as a whole or on each of `columns`.
pub fn check_privilege(connection: &Connection, relation: &Relation, privilege: &str, columns: &[&str]) -> Result<()> {
    let oid = i64::from(relation.oid.to_u32());
    let whole = connection.query(
        "SELECT pg_catalog.has_table_privilege($1::pg_catalog.oid, $2)",
        Mode::Read,
        &[oid.into(), privilege.into()],
    );
    if whole.get(0, 0) == Some(true) {
        return Ok(());
    }
    let missing: Vec<&str> = columns
        .iter()
        .copied()
        .filter(|column| relation.has(column))
        .filter(|column| {
            let rows = connection.query(
                "SELECT pg_catalog.has_column_privilege($1::pg_catalog.oid, $2, $3)",
                Mode::Read,
                &[oid.into(), (*column).into(), privilege.into()],
            );
            rows.get(0, 0) != Some(true)
        })
        .collect();
    if missing.is_empty() && !columns.is_empty() {
        return Ok(());
    }
    let role = connection
        .query("SELECT pg_catalog.quote_ident(CURRENT_USER)", Mode::Read, &[])
        .text(0, 0);
    let role = role.unwrap_or_default();
    let kind = if relation.is_view { "view" } else { "table" };
    let what = if missing.is_empty() {
        String::new()
    } else {
        format!(" ({})", missing.join(", "))
    };
    Err(permission_denied(
        &format!("{kind} {}", relation.name),
        format!("The run needs {privilege}{what} on it."),
    )
    .set_hint(format!("GRANT {privilege} ON {} TO {role};", relation.sql_name)))
}

/// Takes the job's lock on a table together with other committing sessions, for one batch. Gives `false` while a plain
/// function runs the job there.
pub fn try_share_job(connection: &Connection, job: &str, table: LockTarget) -> bool {
    let rows = connection.query(
        "SELECT pg_catalog.pg_try_advisory_xact_lock_shared(pg_catalog.hashtext('media_assets:' || $1), $2::pg_catalog.int4)",
        Mode::Write,
        &[job.into(), table.0.into()],
    );
    rows.get(0, 0) == Some(true)
}

/// Holds the job's lock on a table until the transaction ends, so that two executing runs go one after the other.
pub fn lock_job(connection: &Connection, job: &str, table: LockTarget) {
    connection.query(
        "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('media_assets:' || $1), $2::pg_catalog.int4)",
        Mode::Write,
        &[job.into(), table.0.into()],
    );
}
