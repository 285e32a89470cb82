//! The tests' tiny job as a function; only in builds with the feature `tiny_job`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::engine::{self, Options};
use crate::jobs::tiny::Tiny;
use crate::postgres::record::{form, Record};
use crate::postgres::spi;

#[pg_extern(sql = r#"
CREATE FUNCTION run_tiny_job(batch integer, execute boolean, OUT scanned bigint, OUT shouted bigint, OUT unchanged bigint,
    OUT errors bigint, OUT batches bigint)
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
COMMENT ON FUNCTION run_tiny_job(integer, boolean) IS 'The tests'' second job: shouts the words of table tiny.';
"#)]
fn run_tiny_job(
    batch: Option<i32>,
    execute: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let options = Options::new(batch, execute, None)?;
    let summary = spi::connect(|connection| engine::run(connection, &mut Tiny::new(), &options, None, |_, _, _| {}))?;
    let counters = summary.counters;
    let columns = [
        counters.scanned,
        counters.shouted,
        counters.unchanged,
        counters.errors,
        summary.batches,
    ];
    Ok(form(fcinfo, &columns.map(|value| Some(value.into()))))
}
