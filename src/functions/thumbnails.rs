//! Image-to-video thumbnails as functions.

use media_assets_core::jobs::i2v_thumbnails::Counters;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::outcome::{put_all, InTransaction, Outcome};
use super::tables::run_steps;
use crate::engine::ledger::record::RunMode;
use crate::engine::ledger::Ledger;
use crate::engine::long::Buckets;
use crate::engine::{rights, Options};
use crate::error::invalid_argument;
use crate::jobs::i2v_thumbnails::program::ThumbnailsProgram;
use crate::jobs::i2v_thumbnails::{Decided, Tables};
use crate::jobs::media_ddl;
use crate::postgres::arrays::text_datum;
use crate::postgres::jsonb::Jsonb;
use crate::postgres::record::Record;
use crate::postgres::row_set::RowSet;
use crate::postgres::settings_level::SettingsLevel;
use crate::postgres::spi::{self, Connection, Mode};

const VERIFY: &str = include_str!("../../sql/parts/verify_i2v_thumbnails.sql");

fn allow(allow_private_sources: Option<bool>) -> Result<bool, ErrorReport> {
    allow_private_sources.ok_or_else(|| {
        invalid_argument(
            "allow_private_sources must be true or false, not NULL",
            "false keeps the thumbnails of private media from public videos.",
        )
    })
}

#[pg_extern(sql = r#"
CREATE FUNCTION backfill_i2v_thumbnails(batch integer DEFAULT 500, execute boolean DEFAULT false, allow_private_sources boolean DEFAULT false,
    OUT videos_scanned bigint, OUT updated bigint, OUT skipped bigint, OUT errors bigint, OUT already_has_thumbnails bigint,
    OUT no_i2v_job_found bigint, OUT job_has_no_source bigint, OUT source_media_not_found bigint,
    OUT source_thumbnails_malformed bigint, OUT source_has_no_thumbnails bigint, OUT source_is_private bigint,
    OUT nothing_to_copy bigint, OUT batches bigint, OUT run_id bigint)
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn backfill_i2v_thumbnails(
    batch: Option<i32>,
    execute: Option<bool>,
    allow_private_sources: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let options = Options::new(batch, execute, None)?;
    let allow_private_sources = allow(allow_private_sources)?;
    let outcome = spi::connect(|connection| {
        if options.execute {
            rights::check_can_execute("backfill_i2v_thumbnails")?;
        }
        let program = ThumbnailsProgram::new(connection, allow_private_sources, options.execute)?;
        run(connection, &program, &options, |_| {})
    })?;
    Ok(outcome.record(fcinfo))
}

/// Runs the job in the caller's transaction; `each` sees every settled slice.
///
/// # Errors
/// As [`engine::run`].
pub fn run(
    connection: &Connection,
    program: &ThumbnailsProgram,
    options: &Options,
    mut each: impl FnMut(&Decided),
) -> Result<Outcome<Counters>, ErrorReport> {
    let ledger = Ledger::open(connection)?;
    let new_run = |batch| program.new_run(RunMode::Function, batch);
    let mut run = InTransaction::begin(connection, &ledger, program, options, new_run);
    run.phase(program.job(Buckets::ALL), &mut each)?;
    Ok(run.finish())
}

#[pg_extern(sql = r#"
CREATE FUNCTION explain_i2v_thumbnails(allow_private_sources boolean DEFAULT false)
RETURNS TABLE (media_id text, outcome text, reason text, source_media_id text, thumbnail_url text, thumbnail_urls jsonb)
STABLE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn explain_i2v_thumbnails(
    allow_private_sources: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<(), ErrorReport> {
    let options = Options::new(Some(500), Some(false), None)?;
    let allow_private_sources = allow(allow_private_sources)?;
    let rows = RowSet::begin(fcinfo)?;
    spi::connect(|connection| {
        let program = ThumbnailsProgram::new(connection, allow_private_sources, false)?;
        run(connection, &program, &options, |decided| {
            for verdict in &decided.verdicts {
                rows.put(&[
                    Some(text_datum(&verdict.id)),
                    Some(text_datum(verdict.outcome)),
                    verdict.reason.map(text_datum),
                    verdict.source.as_deref().map(text_datum),
                    verdict.thumbnail_url.as_deref().map(text_datum),
                    verdict.thumbnail_urls.map(Jsonb::datum),
                ]);
            }
        })
    })?;
    Ok(())
}

#[pg_extern(sql = r#"
CREATE FUNCTION verify_i2v_thumbnails() RETURNS TABLE (severity text, finding text, media_id text, source_media_id text, detail text)
STABLE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn verify_i2v_thumbnails(fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    let rows = RowSet::begin(fcinfo)?;
    spi::connect(|connection| {
        let tables = Tables::load(connection, &|_| None, false)?;
        let sql = VERIFY
            .replace("{media}", &tables.media.sql_name)
            .replace("{jobs}", &tables.jobs.sql_name);
        let _level = SettingsLevel::with([("jit", "off".to_owned())]);
        let findings = connection.query(&sql, Mode::Read, &[]);
        put_all(&rows, &findings, 5);
        Ok(())
    })
}

#[pg_extern(sql = r#"
CREATE FUNCTION create_media_tables() RETURNS TABLE (relation text, ddl text, executed boolean)
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn create_media_tables(fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    run_steps(fcinfo, "create_media_tables()", true, media_ddl::create)
}
