//! Triggers that keep live writes of lessons consistent, by the rules of the job.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::tables::{execute_of, put_steps};
use crate::error::not_its_trigger;
use crate::jobs::lesson_triggers::{self, attach};
use crate::jobs::table_ddl::{self, Step};
use crate::postgres::backend;
use crate::postgres::row_set::RowSet;
use crate::postgres::spi::{self, Connection};
use crate::postgres::trigger::{Returned, TriggerCall};

fn show_or_run(
    function: &str,
    execute: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
    steps: impl FnOnce(&Connection) -> Result<Vec<Step>, ErrorReport>,
) -> Result<(), ErrorReport> {
    let execute = execute_of(execute)?;
    if execute {
        backend::prevent_if_read_only(&format!("{function}(execute => true)"));
    }
    let rows = RowSet::begin(fcinfo)?;
    spi::connect(|connection| {
        let steps = steps(connection)?;
        if execute {
            table_ddl::run(connection, &steps);
        }
        put_steps(&rows, &steps, execute);
        Ok(())
    })
}

#[pg_extern(sql = r#"
CREATE FUNCTION attach_lesson_triggers(execute boolean DEFAULT false) RETURNS TABLE (relation text, ddl text, executed boolean)
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn attach_lesson_triggers(execute: Option<bool>, fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    show_or_run("attach_lesson_triggers", execute, fcinfo, attach::attach)
}

#[pg_extern(sql = r#"
CREATE FUNCTION detach_lesson_triggers(execute boolean DEFAULT false) RETURNS TABLE (relation text, ddl text, executed boolean)
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn detach_lesson_triggers(execute: Option<bool>, fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    show_or_run("detach_lesson_triggers", execute, fcinfo, attach::detach)
}

#[pg_extern(sql = r#"
CREATE FUNCTION lesson_before_row() RETURNS trigger
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn lesson_before_row(fcinfo: pg_sys::FunctionCallInfo) -> Result<Returned, ErrorReport> {
    let call = TriggerCall::of(fcinfo).filter(TriggerCall::is_before_row);
    let call = call.ok_or_else(|| not_its_trigger("lesson_before_row"))?;
    Ok(lesson_triggers::before_row(&call))
}

#[pg_extern(sql = r#"
CREATE FUNCTION lesson_after_statement() RETURNS trigger
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn lesson_after_statement(fcinfo: pg_sys::FunctionCallInfo) -> Result<Returned, ErrorReport> {
    let call = TriggerCall::of(fcinfo).filter(TriggerCall::is_after_statement);
    let call = call.ok_or_else(|| not_its_trigger("lesson_after_statement"))?;
    Ok(lesson_triggers::after_statement(&call))
}
