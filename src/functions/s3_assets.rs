//! S3 asset tracking as functions.

use media_assets_core::jobs::s3_assets::{Counters, Outcome as Fate, Reason};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::Datum;
use pgrx::prelude::*;
use serde_json::{Map, Value};

use super::outcome::{put_all, InTransaction, Outcome};
use super::tables::{execute_of, run_steps};
use crate::engine::ledger::record::RunMode;
use crate::engine::ledger::Ledger;
use crate::engine::long::Buckets;
use crate::engine::{rights, Options};
use crate::jobs::asset_tables::{self, extension_schema};
use crate::jobs::s3_assets::program::S3Program;
use crate::jobs::s3_assets::{Decided, Found, New};
use crate::jobs::scene_ddl;
use crate::postgres::arrays::text_datum;
use crate::postgres::jsonb::from_text;
use crate::postgres::record::Record;
use crate::postgres::row_set::RowSet;
use crate::postgres::settings_level::SettingsLevel;
use crate::postgres::spi::{self, Connection, Mode};

const VERIFY: &str = include_str!("../../sql/parts/verify_s3_assets.sql");

#[pg_extern(sql = r#"
CREATE FUNCTION backfill_s3_assets(batch integer DEFAULT 500, execute boolean DEFAULT false, bucket_url text DEFAULT NULL,
    OUT scenes_scanned bigint, OUT scenes_migrated bigint, OUT sessions_scanned bigint, OUT sessions_migrated bigint,
    OUT references_created bigint, OUT references_existing bigint, OUT skipped_unchanged bigint, OUT skipped_no_asset bigint,
    OUT errors bigint, OUT total_records_migrated bigint, OUT batches bigint, OUT run_id bigint)
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn backfill_s3_assets(
    batch: Option<i32>,
    execute: Option<bool>,
    bucket_url: Option<&str>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let options = Options::new(batch, execute, None)?;
    let outcome = spi::connect(|connection| {
        if options.execute {
            rights::check_can_execute("backfill_s3_assets")?;
        }
        let program = S3Program::new(connection, bucket_url.map(str::to_owned), options.execute)?;
        run(connection, &program, &options, |_| {})
    })?;
    Ok(outcome.record(fcinfo))
}

/// Runs scenes, then sessions, in the caller's transaction; `each` sees every settled slice.
///
/// # Errors
/// As [`engine::run`].
pub fn run(
    connection: &Connection,
    program: &S3Program,
    options: &Options,
    mut each: impl FnMut(&Decided),
) -> Result<Outcome<Counters>, ErrorReport> {
    let ledger = Ledger::open(connection)?;
    let new_run = |batch| program.new_run(RunMode::Function, batch);
    let mut run = InTransaction::begin(connection, &ledger, program, options, new_run);
    run.phase(program.scenes(Buckets::ALL), &mut each)?;
    run.phase(program.sessions(Buckets::ALL, options.execute), &mut each)?;
    Ok(run.finish())
}

#[pg_extern(sql = r#"
CREATE FUNCTION explain_s3_assets(bucket_url text DEFAULT NULL)
RETURNS TABLE (entity_type text, entity_id text, outcome text, reason text, writes jsonb, references_created bigint, references_existing bigint)
STABLE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn explain_s3_assets(bucket_url: Option<&str>, fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    let options = Options::new(Some(500), Some(false), None)?;
    let rows = RowSet::begin(fcinfo)?;
    spi::connect(|connection| {
        let program = S3Program::new(connection, bucket_url.map(str::to_owned), false)?;
        run(connection, &program, &options, |decided| put_decisions(&rows, decided))
    })?;
    Ok(())
}

fn put_decisions(rows: &RowSet, decided: &Decided) {
    for verdict in &decided.verdicts {
        let outcome = match verdict.outcome {
            Fate::Migrated => "migrated",
            Fate::Failed => "failed",
            Fate::Unchanged | Fate::NoAsset => "skipped",
        };
        let value = |after: &New| match after {
            New::Text(text) => text.as_str().into(),
            New::Number(number) => (*number).into(),
            New::Json(value) => value.clone(),
        };
        let writes = verdict.writes.iter();
        let writes: Map<String, Value> = writes
            .map(|write| (write.column.to_owned(), value(&write.after)))
            .collect();
        rows.put(&[
            Some(text_datum(verdict.entity())),
            Some(text_datum(&verdict.id)),
            Some(text_datum(outcome)),
            verdict.reason.map(Reason::name).map(text_datum),
            Some(from_text(&Value::Object(writes).to_string()).datum()),
            Some(Datum::from(verdict.references.len() as i64)),
            Some(Datum::from(verdict.references_existing)),
        ]);
    }
}

#[pg_extern(sql = r#"
CREATE FUNCTION verify_s3_assets() RETURNS TABLE (severity text, finding text, entity_type text, entity_id text, asset_type text, detail text)
STABLE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn verify_s3_assets(fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    let rows = RowSet::begin(fcinfo)?;
    spi::connect(|connection| {
        let found = Found::look(connection, &|_| None);
        let mut problems = found.input_problems(connection);
        problems.extend(found.new_problems(connection));
        // It reads only: what a run would need for writing is not asked for.
        problems.retain(|problem| problem.sqlstate != "55000");
        asset_tables::raise(&problems)?;
        let relations = [&found.scenes, &found.sessions, &found.references];
        rights::check_row_security(relations.into_iter().flatten())?;
        let mut sql = VERIFY.replace("{extension}", &extension_schema(connection));
        for (name, relation) in ["{scenes}", "{sessions}", "{references}"].into_iter().zip(relations) {
            let relation = relation.as_ref();
            sql = sql.replace(name, relation.map_or("", |relation| relation.sql_name.as_str()));
        }
        // It looks at everything once: on tables that were never analysed a nested loop would be quadratic.
        let _level = SettingsLevel::with([("enable_nestloop", "off".to_owned()), ("jit", "off".to_owned())]);
        let findings = connection.query(&sql, Mode::Read, &[]);
        put_all(&rows, &findings, 6);
        Ok(())
    })
}

#[pg_extern(sql = r#"
CREATE FUNCTION create_scene_tables() RETURNS TABLE (relation text, ddl text, executed boolean)
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn create_scene_tables(fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    run_steps(fcinfo, "create_scene_tables()", true, scene_ddl::create)
}

#[pg_extern(sql = r#"
CREATE FUNCTION extend_scene_tables(execute boolean DEFAULT false) RETURNS TABLE (relation text, ddl text, executed boolean)
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn extend_scene_tables(execute: Option<bool>, fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    let execute = execute_of(execute)?;
    run_steps(
        fcinfo,
        "extend_scene_tables(execute => true)",
        execute,
        scene_ddl::extend,
    )
}
