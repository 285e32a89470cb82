//! Making, checking and mending the tables that assets live in.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::Datum;
use pgrx::prelude::*;

use crate::error::{invalid_argument, not_prepared};
use crate::jobs::asset_tables::{self, extension_schema, Found};
use crate::jobs::table_ddl::{self, Step};
use crate::postgres::arrays::text_datum;
use crate::postgres::backend;
use crate::postgres::row_set::RowSet;
use crate::postgres::spi;

pub(super) fn put_steps(rows: &RowSet, steps: &[Step], executed: bool) {
    for step in steps {
        rows.put(&[
            Some(text_datum(&step.relation)),
            Some(text_datum(&step.ddl)),
            Some(Datum::from(executed && !step.exists)),
        ]);
    }
}

pub(super) fn execute_of(execute: Option<bool>) -> Result<bool, ErrorReport> {
    execute.ok_or_else(|| {
        invalid_argument(
            "execute must be true or false, not NULL",
            "false shows what would be done, true does it.",
        )
    })
}

#[pg_extern(sql = r#"
CREATE FUNCTION create_asset_tables() RETURNS TABLE (relation text, ddl text, executed boolean)
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn create_asset_tables(fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    backend::prevent_if_read_only("create_asset_tables()");
    let rows = RowSet::begin(fcinfo)?;
    spi::connect(|connection| {
        let steps = table_ddl::create(connection)?;
        table_ddl::run(connection, &steps);
        put_steps(&rows, &steps, true);
        Ok(())
    })
}

#[pg_extern(sql = r#"
CREATE FUNCTION prepare_asset_tables(execute boolean DEFAULT false) RETURNS TABLE (relation text, ddl text, executed boolean)
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn prepare_asset_tables(execute: Option<bool>, fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    let execute = execute_of(execute)?;
    if execute {
        backend::prevent_if_read_only("prepare_asset_tables(execute => true)");
    }
    let rows = RowSet::begin(fcinfo)?;
    spi::connect(|connection| {
        let found = Found::look(connection);
        let mut missing = found.asset_problems(connection);
        // What it cannot add: relations, and columns other than the key.
        missing.retain(|problem| {
            problem.sqlstate == "42P01"
                || problem.sqlstate == "42804"
                || (problem.sqlstate == "42703" && !problem.problem.contains("canonical_key"))
        });
        asset_tables::raise(&missing)?;
        let (Some(assets), Some(usages)) = (&found.assets, &found.usages) else {
            return Ok(());
        };
        if assets.is_view && !assets.has("canonical_key") {
            return Err(not_prepared(
                "42809",
                format!("{} is a view without a column canonical_key", assets.sql_name),
                format!("Its base table is {}.", assets.base_sql_name),
                format!(
                    "ALTER TABLE {} ADD COLUMN canonical_key text; then CREATE OR REPLACE VIEW {} with that column, and call this again.",
                    assets.base_sql_name, assets.sql_name
                ),
            ));
        }
        let duplicates = table_ddl::duplicate_usages(connection, usages, 20);
        if !duplicates.is_empty() {
            return Err(not_prepared(
                "55000",
                format!(
                    "{} holds equal usages, which a unique constraint cannot be put upon",
                    usages.sql_name
                ),
                table_ddl::describe(&duplicates),
                format!(
                    "SELECT * FROM {}dedupe_asset_usages(true);",
                    extension_schema(connection)
                ),
            ));
        }
        let mut steps = table_ddl::prepare(connection, assets, usages);
        // The unique constraint that was just planned is such an index.
        let indexed = steps.iter().any(|step| step.ddl.contains("target_id"));
        steps.extend(
            table_ddl::prepare_settled(connection, &found, usages)?
                .into_iter()
                .filter(|step| !(indexed && step.ddl.starts_with("CREATE INDEX"))),
        );
        if execute {
            table_ddl::run(connection, &steps);
        }
        put_steps(&rows, &steps, execute);
        Ok(())
    })
}

#[pg_extern(sql = r#"
CREATE FUNCTION check_asset_tables() RETURNS TABLE (relation text, problem text, sqlstate text, ddl text)
STABLE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn check_asset_tables(fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    let rows = RowSet::begin(fcinfo)?;
    spi::connect(|connection| {
        let found = Found::look(connection);
        let mut problems = found.lesson_problems(connection);
        problems.extend(found.asset_problems(connection));
        for problem in problems {
            rows.put(&[
                Some(text_datum(&problem.relation)),
                Some(text_datum(&problem.problem)),
                Some(text_datum(problem.sqlstate)),
                Some(text_datum(&problem.ddl)),
            ]);
        }
    });
    Ok(())
}

#[pg_extern(sql = r#"
CREATE FUNCTION dedupe_asset_usages(execute boolean DEFAULT false)
RETURNS TABLE (organization_id text, asset_id text, target_type text, target_id text, slot_type text, slot_key text,
    "position" integer, copies bigint, executed boolean)
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn dedupe_asset_usages(execute: Option<bool>, fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    let execute = execute_of(execute)?;
    if execute {
        backend::prevent_if_read_only("dedupe_asset_usages(execute => true)");
    }
    let rows = RowSet::begin(fcinfo)?;
    spi::connect(|connection| {
        let found = Found::look(connection);
        let mut missing = found.asset_problems(connection);
        missing.retain(|problem| {
            problem.sqlstate == "42P01" && problem.relation == "asset_usages"
                || problem.sqlstate == "42703"
                    && found
                        .usages
                        .as_ref()
                        .is_some_and(|usages| problem.relation == usages.sql_name)
        });
        asset_tables::raise(&missing)?;
        let Some(usages) = &found.usages else { return Ok(()) };
        crate::engine::rights::check_row_security([usages])?;
        if execute {
            // Between the list and the deletion no other copy may come or go.
            connection.execute_ddl(&format!(
                "LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE",
                usages.base_sql_name
            ));
        }
        let groups = table_ddl::duplicate_usages(connection, usages, i64::MAX);
        if execute && !groups.is_empty() {
            table_ddl::delete_duplicate_usages(connection, usages);
        }
        for group in groups {
            rows.put(&[
                Some(text_datum(&group.organization_id)),
                Some(text_datum(&group.asset_id)),
                Some(text_datum(&group.target_type)),
                Some(text_datum(&group.target_id)),
                Some(text_datum(&group.slot_type)),
                group.slot_key.as_deref().map(text_datum),
                group.position.map(Datum::from),
                Some(Datum::from(group.copies)),
                Some(Datum::from(execute)),
            ]);
        }
        Ok(())
    })
}
