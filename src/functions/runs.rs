//! Long runs as SQL sees them: the procedures that commit, and the functions that steer them.

use std::collections::BTreeMap;

use media_assets_core::json::{Json, Kind};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::{jellyfin_runs, keys, lesson, s3_assets, thumbnails, undo};
use crate::engine::ledger::record::RunMode;
use crate::engine::ledger::runs::Run;
use crate::engine::ledger::Ledger;
use crate::engine::long::{self, requests, End, Program};
use crate::engine::options::GivenOptions;
use crate::engine::{rights, Options};
use crate::error::{in_transaction_block, invalid_argument, not_supported, wrong_state};
use crate::jobs::asset_tables::Found;
use crate::jobs::collection_ingest;
use crate::jobs::i2v_thumbnails::program::ThumbnailsProgram;
use crate::jobs::jellyfin::program::{JellyfinOptions, JellyfinProgram};
use crate::jobs::keys_program::KeysProgram;
use crate::jobs::lesson_assets::program::{LessonOptions, LessonProgram};
use crate::jobs::s3_assets::program::S3Program;
use crate::jobs::undo::program::UndoProgram;
use crate::postgres::jsonb::Jsonb;
use crate::postgres::record::{form, Record};
use crate::postgres::spi::{self, Connection, Mode};
use crate::postgres::transaction;

/// The jobs that `run_backfill` knows.
const JOBS: &str = "Jobs are lesson_assets, asset_keys, i2v_thumbnails, s3_assets, jellyfin_metadata and undo.";

#[pg_extern(sql = r#"
CREATE PROCEDURE run_backfill(job text, batch integer DEFAULT 500, execute boolean DEFAULT false, options jsonb DEFAULT '{}',
    INOUT run_id bigint DEFAULT NULL)
LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn run_backfill(
    job: Option<&str>,
    batch: Option<i32>,
    execute: Option<bool>,
    options: Option<Jsonb>,
    run_id: Option<i64>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let job = job.ok_or_else(|| invalid_argument("job must not be NULL", JOBS))?;
    let given = given_options(options)?;
    let how = Options::new(batch, execute, None)?;
    if run_id.is_some() {
        return Err(invalid_argument(
            "run_id is given back, not taken",
            format!(
                "Leave it out; to go on with a run: CALL resume_backfill({});",
                run_id.unwrap_or(0)
            ),
        ));
    }
    if !how.execute {
        spi::connect(|connection| dry_run(connection, job, given, &how))?;
        return Ok(form(fcinfo, &[None]));
    }
    check_may_commit(fcinfo, "run_backfill")?;
    let run_id = spi::connect_committing(|connection| -> Result<i64, ErrorReport> {
        rights::check_can_execute("run_backfill")?;
        let ledger = Ledger::open(connection)?;
        let (program, run_id): (Box<dyn Program>, i64) = match job {
            "lesson_assets" => {
                let mut program = LessonProgram::new(connection, LessonOptions::parse(given)?, true)?;
                let run_id = program
                    .new_run(connection, RunMode::Procedure, how.batch)?
                    .start(connection, &ledger);
                program.run_id = Some(run_id);
                (Box::new(program), run_id)
            }
            "asset_keys" => {
                let refresh = KeysProgram::refresh_of(given)?;
                let Some(program) = KeysProgram::load(connection, Found::look(connection), refresh, true)? else {
                    return Err(unknown_job(job));
                };
                let run_id = program
                    .new_run(RunMode::Procedure, how.batch)
                    .start(connection, &ledger);
                (Box::new(program), run_id)
            }
            "i2v_thumbnails" => {
                let program = ThumbnailsProgram::new(connection, ThumbnailsProgram::options(given)?, true)?;
                let run_id = program
                    .new_run(RunMode::Procedure, how.batch)
                    .start(connection, &ledger);
                (Box::new(program), run_id)
            }
            "s3_assets" => {
                let program = S3Program::new(connection, S3Program::options(given)?, true)?;
                let run_id = program
                    .new_run(RunMode::Procedure, how.batch)
                    .start(connection, &ledger);
                (Box::new(program), run_id)
            }
            "jellyfin_metadata" => {
                let program = JellyfinProgram::new(connection, JellyfinOptions::parse(given)?, true)?;
                let run_id = program
                    .new_run(RunMode::Procedure, how.batch)
                    .start(connection, &ledger);
                (Box::new(program), run_id)
            }
            "undo" => {
                let program = UndoProgram::new(connection, &ledger, undo::run_of(given)?, true)?;
                let run_id = program
                    .new_run(RunMode::Procedure, how.batch)
                    .start(connection, &ledger);
                (Box::new(program), run_id)
            }
            _ => return Err(unknown_job(job)),
        };
        let run = Run::find(connection, &ledger, Some(run_id), Mode::Write)?;
        work(connection, &ledger, program.as_ref(), &run)?;
        Ok(run_id)
    })?;
    Ok(form(fcinfo, &[Some(run_id.into())]))
}

#[pg_extern(sql = r#"
CREATE PROCEDURE resume_backfill(run_id bigint) LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn resume_backfill(run_id: Option<i64>, fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    check_may_commit(fcinfo, "resume_backfill")?;
    spi::connect_committing(|connection| {
        rights::check_can_execute("resume_backfill")?;
        let ledger = Ledger::open(connection)?;
        let run = Run::find(connection, &ledger, run_id, Mode::Write)?;
        let workers = run.other_workers(connection, &ledger);
        if let Some(worker) = workers.first() {
            return Err(wrong_state(
                format!("run {} is running", run.run_id),
                format!("{} of its sessions live, one with pid {}.", workers.len(), worker.pid),
                format!("CALL join_backfill({});", run.run_id),
            ));
        }
        let run = match requests::obey_cancel(connection, &ledger, &run) {
            true => {
                // It stays cancelled, whatever is said next.
                transaction::commit(connection);
                Run::find(connection, &ledger, run_id, Mode::Write)?
            }
            false => run,
        };
        requests::reopen(connection, &ledger, &run)?;
        let program = stored_program(connection, &ledger, &run)?;
        let run = Run::find(connection, &ledger, run_id, Mode::Write)?;
        work(connection, &ledger, program.as_ref(), &run)
    })
}

#[pg_extern(sql = r#"
CREATE PROCEDURE join_backfill(run_id bigint) LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn join_backfill(run_id: Option<i64>, fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    check_may_commit(fcinfo, "join_backfill")?;
    spi::connect_committing(|connection| {
        rights::check_can_execute("join_backfill")?;
        let ledger = Ledger::open(connection)?;
        let run = Run::find(connection, &ledger, run_id, Mode::Write)?;
        if run.state != "running" {
            return Err(wrong_state(
                format!("run {} is {}", run.run_id, run.state),
                "Only a run that is running can be joined.",
                format!("CALL resume_backfill({});", run.run_id),
            ));
        }
        let program = stored_program(connection, &ledger, &run)?;
        program.check_can_be_shared()?;
        work(connection, &ledger, program.as_ref(), &run)
    })
}

/// What is to be done with a run that was written down, on the relations that it names.
fn stored_program(connection: &Connection, ledger: &Ledger, run: &Run) -> Result<Box<dyn Program>, ErrorReport> {
    match run.job.as_str() {
        "lesson_assets" => Ok(Box::new(LessonProgram::stored(connection, run)?)),
        "asset_keys" => match KeysProgram::stored(connection, run)? {
            Some(program) => Ok(Box::new(program)),
            None => Err(unknown_job(&run.job)),
        },
        "i2v_thumbnails" => Ok(Box::new(ThumbnailsProgram::stored(connection, run)?)),
        "s3_assets" => Ok(Box::new(S3Program::stored(connection, run)?)),
        "jellyfin_metadata" => Ok(Box::new(JellyfinProgram::stored(connection, run)?)),
        "undo" => Ok(Box::new(UndoProgram::stored(connection, ledger, run)?)),
        job => Err(unknown_job(job)),
    }
}

fn work(connection: &Connection, ledger: &Ledger, program: &dyn Program, run: &Run) -> Result<(), ErrorReport> {
    crate::postgres::message::log!(
        "media_assets run={} job={} event=started role={:?} batch={}",
        run.run_id,
        run.job,
        crate::postgres::user::current_name(),
        run.batch
    );
    let end = long::work(connection, ledger, program, run)?;
    let run_id = run.run_id;
    match end {
        End::Finished if !crate::settings::progress() => {}
        End::Finished => crate::postgres::message::info!("run {run_id} finished: SELECT backfill_report({run_id});"),
        End::Paused => {
            crate::postgres::message::notice!("run {run_id} is paused; to go on: CALL resume_backfill({run_id});")
        }
        End::Failed => crate::postgres::message::notice!(
            "run {run_id} was stopped by an error in another session; to go on: CALL resume_backfill({run_id});"
        ),
        End::Cancelled => {
            crate::postgres::message::notice!(
                "run {run_id} is cancelled; to take it back: SELECT * FROM undo_backfill({run_id}, true);"
            )
        }
    }
    crate::postgres::message::log!("media_assets run={} job={} event={}", run_id, run.job, end.name());
    Ok(())
}

fn dry_run(connection: &Connection, job: &str, given: GivenOptions, how: &Options) -> Result<(), ErrorReport> {
    let columns = match job {
        "lesson_assets" => {
            let options = LessonOptions::parse(given)?;
            let how = Options {
                max_rows: options.max_lessons,
                ..*how
            };
            let mut program = LessonProgram::new(connection, options, false)?;
            lesson::run(connection, &mut program, &how, |_| {})?.columns()
        }
        "asset_keys" => {
            let refresh = KeysProgram::refresh_of(given)?;
            match KeysProgram::load(connection, Found::look(connection), refresh, false)? {
                Some(program) => keys::run(connection, &program, how)?,
                None => keys::KeysResult::default(),
            }
            .columns()
        }
        "i2v_thumbnails" => {
            let program = ThumbnailsProgram::new(connection, ThumbnailsProgram::options(given)?, false)?;
            thumbnails::run(connection, &program, how, |_| {})?.columns()
        }
        "s3_assets" => {
            let program = S3Program::new(connection, S3Program::options(given)?, false)?;
            s3_assets::run(connection, &program, how, |_| {})?.columns()
        }
        "jellyfin_metadata" => {
            let options = JellyfinOptions::parse(given)?;
            let how = Options {
                max_rows: options.max_rows,
                ..*how
            };
            let program = JellyfinProgram::new(connection, options, false)?;
            jellyfin_runs::run(connection, &program, &how, |_| {})?.columns()
        }
        "undo" => {
            let ledger = Ledger::open(connection)?;
            let program = UndoProgram::new(connection, &ledger, undo::run_of(given)?, false)?;
            undo::run(connection, &ledger, &program, how, |_| {})?.columns()
        }
        _ => return Err(unknown_job(job)),
    };
    let row: Vec<String> = columns
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", value?)))
        .collect();
    crate::postgres::message::info!("{job} dry run: {}", row.join(" "));
    Ok(())
}

fn unknown_job(job: &str) -> ErrorReport {
    if job == collection_ingest::JOB {
        return not_supported(
            "an ingest is one unit of work and does not commit in between",
            "SELECT * FROM ingest_collection('collection', 'items', execute => true);",
        );
    }
    invalid_argument(format!("there is no job {job}"), JOBS)
}

fn check_may_commit(fcinfo: pg_sys::FunctionCallInfo, procedure: &str) -> Result<(), ErrorReport> {
    if transaction::may_commit(fcinfo) {
        Ok(())
    } else {
        Err(in_transaction_block(procedure))
    }
}

/// Options by name, each as a text.
fn given_options(options: Option<Jsonb>) -> Result<GivenOptions, ErrorReport> {
    let bad = |what: String| invalid_argument(what, r#"options => '{"organization_id": "…"}'"#);
    let Some(options) = options else {
        return Err(bad("options must not be NULL".to_owned()));
    };
    let object = options.value();
    if object.kind() != Kind::Object {
        return Err(bad("options must be a JSON object".to_owned()));
    }
    let mut values = BTreeMap::new();
    for (name, value) in object.members() {
        let text = match value.kind() {
            Kind::Null => continue,
            Kind::String => value.as_str().unwrap_or_default().into_owned(),
            Kind::Number | Kind::Bool => value.to_text(),
            Kind::Object | Kind::Array => {
                return Err(bad(format!("option {name} must be a text, a number, true or false")))
            }
        };
        values.insert(name, text);
    }
    Ok(GivenOptions::new(values))
}

#[pg_extern(sql = r#"
CREATE FUNCTION pause_backfill(run_id bigint) RETURNS text VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn pause_backfill(run_id: Option<i64>) -> Result<&'static str, ErrorReport> {
    ask(run_id, requests::Request::Pause)
}

#[pg_extern(sql = r#"
CREATE FUNCTION cancel_backfill(run_id bigint) RETURNS text VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn cancel_backfill(run_id: Option<i64>) -> Result<&'static str, ErrorReport> {
    ask(run_id, requests::Request::Cancel)
}

fn ask(run_id: Option<i64>, request: requests::Request) -> Result<&'static str, ErrorReport> {
    spi::connect(|connection| {
        let ledger = Ledger::open(connection)?;
        let run = Run::find(connection, &ledger, run_id, Mode::Write)?;
        requests::ask(connection, &ledger, &run, request)
    })
}

#[pg_extern(sql = r#"
CREATE FUNCTION retry_quarantined(run_id bigint) RETURNS bigint VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn retry_quarantined(run_id: Option<i64>) -> Result<i64, ErrorReport> {
    spi::connect(|connection| {
        let ledger = Ledger::open(connection)?;
        let run = Run::find(connection, &ledger, run_id, Mode::Write)?;
        requests::retry(connection, &ledger, &run)
    })
}

#[pg_extern(sql = r#"
CREATE FUNCTION set_backfill_pace(run_id bigint, batch integer DEFAULT NULL, batch_pause interval DEFAULT NULL,
    target_batch_time interval DEFAULT NULL, max_replica_lag interval DEFAULT NULL)
RETURNS void VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn set_backfill_pace(
    run_id: Option<i64>,
    batch: Option<i32>,
    batch_pause: Option<pgrx::datum::Interval>,
    target_batch_time: Option<pgrx::datum::Interval>,
    max_replica_lag: Option<pgrx::datum::Interval>,
) -> Result<(), ErrorReport> {
    if batch.is_some() {
        Options::new(batch, Some(true), None)?;
    }
    let pace = [
        ("batch", batch),
        ("batch_pause", milliseconds("batch_pause", batch_pause)?),
        (
            "target_batch_time",
            milliseconds("target_batch_time", target_batch_time)?,
        ),
        ("max_replica_lag", milliseconds("max_replica_lag", max_replica_lag)?),
    ];
    spi::connect(|connection| {
        let ledger = Ledger::open(connection)?;
        let run = Run::find(connection, &ledger, run_id, Mode::Write)?;
        requests::set_pace(connection, &ledger, &run, &pace)
    })
}

fn milliseconds(name: &str, interval: Option<pgrx::datum::Interval>) -> Result<Option<i32>, ErrorReport> {
    let Some(interval) = interval else { return Ok(None) };
    let bad = || {
        invalid_argument(
            format!("{name} must be between 0 and 24 days"),
            format!("{name} => '200 milliseconds'; 0 turns it off."),
        )
    };
    if interval.months() != 0 {
        return Err(bad());
    }
    let whole = i64::from(interval.days()) * 86_400_000 + interval.micros() / 1000;
    i32::try_from(whole)
        .ok()
        .filter(|whole| *whole >= 0)
        .map(Some)
        .ok_or_else(bad)
}

#[pg_extern(sql = r#"
CREATE FUNCTION prune_backfill_runs(older_than interval) RETURNS bigint VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn prune_backfill_runs(older_than: Option<pgrx::datum::Interval>) -> Result<i64, ErrorReport> {
    let older_than = older_than
        .ok_or_else(|| invalid_argument("older_than must not be NULL", "SELECT prune_backfill_runs('90 days');"))?;
    spi::connect(|connection| {
        let ledger = Ledger::open(connection)?;
        Ok(requests::prune(connection, &ledger, older_than))
    })
}

/// Whether the server has a backend with that process id and start; what the view of runs asks.
#[pg_extern(volatile, parallel_restricted)]
fn backfill_worker_is_alive(pid: i32, backend_start: TimestampWithTimeZone) -> bool {
    let start: pg_sys::TimestampTz = backend_start.into();
    crate::postgres::backends::Backend { pid, start }.is_alive()
}
