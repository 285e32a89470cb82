//! `backfill_asset_keys`: keys for rows that an application wrote without one.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::engine::{self, rights, Options, Tally};
use crate::jobs::asset_keys::{AssetKeys, Counters};
use crate::jobs::asset_tables::{self, Found};
use crate::jobs::wrong_keys::WrongKeys;
use crate::postgres::record::{form, Record};
use crate::postgres::spi;

#[pg_extern(sql = r#"
CREATE FUNCTION backfill_asset_keys(batch integer DEFAULT 500, execute boolean DEFAULT false, refresh boolean DEFAULT false,
    OUT rows_scanned bigint, OUT keyed bigint, OUT duplicates bigint, OUT unkeyable bigint, OUT errors bigint, OUT batches bigint, OUT run_id bigint)
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn backfill_asset_keys(
    batch: Option<i32>,
    execute: Option<bool>,
    refresh: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let options = Options::new(batch, execute, None)?;
    let refresh = refresh.ok_or_else(|| {
        crate::error::invalid_argument(
            "refresh must be true or false, not NULL",
            "true also repairs keys that no longer fit their row.",
        )
    })?;
    let (counters, batches) = spi::connect(|connection| -> Result<(Counters, i64), ErrorReport> {
        if options.execute {
            rights::check_can_execute("backfill_asset_keys")?;
        }
        let found = Found::look(connection);
        let problems: Vec<_> = found
            .asset_problems(connection)
            .into_iter()
            .filter(|problem| problem.blocks)
            .filter(|problem| {
                found
                    .assets
                    .as_ref()
                    .is_none_or(|assets| problem.relation == assets.sql_name)
            })
            .filter(|problem| problem.relation != "asset_usages")
            .collect();
        if options.execute {
            asset_tables::raise(&problems)?;
        } else if let Some(first) = problems.first() {
            pgrx::notice!(
                "before executing, run {}  -- {}: {}",
                first.ddl,
                first.relation,
                first.problem
            );
        }
        let Some(assets) = found.assets else {
            return Ok((Counters::default(), 0));
        };
        rights::check_row_security([&assets])?;
        rights::check_privilege(
            connection,
            &assets,
            "SELECT",
            &[
                "id",
                "organization_id",
                "provider",
                "storage_key",
                "source_url",
                "kind",
                "canonical_key",
                "created_at",
            ],
        )?;
        if options.execute {
            rights::check_privilege(connection, &assets, "UPDATE", &["canonical_key"])?;
            rights::lock_job(connection, "asset_keys", &assets);
        }
        let mut released = Vec::new();
        let mut counters = Counters::default();
        let mut batches = 0;
        if refresh && assets.has("canonical_key") {
            let mut wrong = WrongKeys::new(&assets);
            let summary = engine::run_phase(connection, &mut wrong, &options)?;
            counters.rows_scanned = summary.counters.sound + summary.counters.errors;
            counters.errors = summary.counters.errors;
            batches = summary.batches;
            if !options.execute {
                released = wrong.released;
            }
        }
        let mut job = AssetKeys::new(&assets, None, options.execute, &released);
        let summary = engine::run(connection, &mut job, &options, |_, _, _| {})?;
        counters.add(&summary.counters);
        Ok((counters, batches + summary.batches))
    })?;
    let columns = [
        counters.rows_scanned,
        counters.keyed,
        counters.duplicates,
        counters.unkeyable,
        counters.errors,
        batches,
    ];
    let mut values: Vec<Option<pg_sys::Datum>> = columns.into_iter().map(|value| Some(value.into())).collect();
    values.push(None);
    Ok(form(fcinfo, &values))
}
