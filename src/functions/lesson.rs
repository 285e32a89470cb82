//! The lesson job as functions: normalise, backfill, explain.

use media_assets_core::jobs::lesson::{normalize, Normalized, Outcome, Slot};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::Datum;
use pgrx::prelude::*;

use crate::engine::ledger::record::{Recorder, RunMode};
use crate::engine::ledger::Ledger;
use crate::engine::long::{Buckets, Program};
use crate::engine::{self, rights, Options, Summary, Tally};
use crate::error::invalid_argument;
use crate::jobs::lesson_assets::program::{LessonOptions, LessonProgram};
use crate::jobs::lesson_assets::{Decided, LessonTally};
use crate::postgres::arrays::{text_datum, uuid_datum};
use crate::postgres::jsonb::{from_text, Jsonb, JsonbRef};
use crate::postgres::record::{form, Record};
use crate::postgres::row_set::RowSet;
use crate::postgres::spi::{self, Connection};

#[pg_extern(sql = r#"
CREATE FUNCTION normalize_lesson_media(slot_type text, item jsonb,
    OUT outcome text, OUT reason text, OUT provider text, OUT storage_provider text, OUT storage_key text, OUT source_url text,
    OUT canonical_key text, OUT kind text, OUT mime_type text, OUT byte_size bigint, OUT title text, OUT description text,
    OUT thumbnail_url text, OUT duration_seconds integer, OUT aspect_ratio text, OUT is_external boolean, OUT asset_id uuid,
    OUT metadata jsonb)
IMMUTABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn normalize_lesson_media(
    slot_type: Option<&str>,
    item: Option<Jsonb>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let slot = slot_type.and_then(Slot::parse).ok_or_else(|| {
        invalid_argument(
            format!("unknown slot type: {}", slot_type.unwrap_or("NULL")),
            "It is 'lesson_video' or 'lesson_document'.",
        )
    })?;
    let normalized = normalize(slot, item.as_ref().map(Jsonb::value));
    let mut values: Vec<Option<Datum>> = Vec::with_capacity(18);
    match &normalized {
        Normalized::Eligible(_) => values.extend([Some(text_datum("eligible")), None]),
        Normalized::Skipped { reason, .. } => {
            values.extend([Some(text_datum("skipped")), Some(text_datum(reason.name()))]);
        }
    }
    values.extend(fields(&normalized));
    Ok(form(fcinfo, &values))
}

/// The sixteen columns from `provider` to `metadata`.
fn fields(item: &Normalized<'_, JsonbRef<'_>>) -> [Option<Datum>; 16] {
    let mut values = [None; 16];
    match item {
        Normalized::Skipped { asset_id, .. } => values[14] = asset_id.map(uuid_datum),
        Normalized::Eligible(media) => {
            let optional = |text: Option<&str>| text.map(text_datum);
            let described = media.describe();
            values = [
                Some(text_datum(media.provider)),
                Some(text_datum(media.storage_provider)),
                optional(media.storage_key.as_deref()),
                optional(media.source_url.as_deref()),
                Some(text_datum(&media.canonical_key)),
                Some(text_datum(media.kind)),
                optional(media.mime_type.as_deref()),
                media.byte_size().map(Datum::from),
                optional(described.title.as_deref()),
                optional(described.description.as_deref()),
                optional(described.thumbnail_url.as_deref()),
                described.duration_seconds.map(Datum::from),
                optional(described.aspect_ratio.as_deref()),
                Some(Datum::from(media.is_external)),
                media.asset_id.map(uuid_datum),
                Some(
                    media
                        .metadata
                        .map_or_else(|| from_text("{}").datum(), JsonbRef::to_datum),
                ),
            ];
        }
    }
    values
}

/// What a run came to.
pub struct LessonResult {
    pub summary: Summary<LessonTally>,
    pub run_id: Option<i64>,
}

impl LessonResult {
    /// The row of the result: counters, batches, run, settled lessons.
    pub fn columns(&self) -> Vec<(&'static str, Option<i64>)> {
        let tally = &self.summary.counters;
        let mut columns: Vec<_> = tally
            .counters
            .columns()
            .map(|(name, value)| (name, Some(value)))
            .collect();
        columns.extend([
            ("batches", Some(self.summary.batches)),
            ("run_id", self.run_id),
            ("lessons_settled", Some(tally.lessons_settled)),
        ]);
        columns
    }
}

/// Keys rows without one and runs the lesson job over the scope, in the caller's transaction; `each` sees every settled
/// slice.
///
/// # Errors
/// As [`engine::run`].
pub fn run(
    connection: &Connection,
    program: &mut LessonProgram,
    options: &Options,
    each: impl FnMut(&Decided),
) -> Result<LessonResult, ErrorReport> {
    let mut each = each;
    let ledger;
    let mut recorder = None;
    if options.execute {
        rights::lock_job(connection, program.name(), program.locks());
        ledger = Ledger::open(connection)?;
        let run_id = program
            .new_run(connection, RunMode::Function, options.batch)?
            .start(connection, &ledger);
        recorder = Some(Recorder::new(connection, &ledger, run_id));
        program.run_id = Some(run_id);
    }
    let mut keys = program.keys(Buckets::ALL, options.execute);
    if let Some(keys) = &mut keys {
        engine::run_phase(connection, keys, options, recorder.as_mut(), |_, _, _| {})?;
    }
    if let Some(recorder) = &mut recorder {
        recorder.phase = 1;
    }
    let mut job = program.job(connection, Buckets::ALL, keys, options.execute)?;
    job.learn_keys(connection, options.mode());
    let summary = engine::run(connection, &mut job, options, recorder.as_mut(), |_, _, decided| {
        each(decided)
    })?;
    if let Some(recorder) = &mut recorder {
        recorder.phase = 2;
        recorder.finish_function(connection, &summary.counters.values(), summary.rows, summary.batches);
    }
    Ok(LessonResult {
        summary,
        run_id: recorder.map(|recorder| recorder.run_id),
    })
}

#[pg_extern(sql = r#"
CREATE FUNCTION backfill_lesson_assets(batch integer DEFAULT 500, execute boolean DEFAULT false, organization_id text DEFAULT NULL,
    after text DEFAULT NULL, max_lessons bigint DEFAULT NULL, skip_settled boolean DEFAULT false,
    OUT lessons_scanned bigint, OUT media_items_scanned bigint, OUT media_items_eligible bigint, OUT assets_created bigint,
    OUT assets_reused bigint, OUT usages_created bigint, OUT usages_reused bigint, OUT lesson_items_patched_with_asset_id bigint,
    OUT assets_with_byte_size bigint, OUT assets_missing_byte_size bigint, OUT skipped_malformed bigint,
    OUT skipped_missing_key bigint, OUT skipped_missing_link bigint, OUT skipped_unsupported_type bigint, OUT errors bigint,
    OUT skipped_missing_organization bigint, OUT batches bigint, OUT run_id bigint, OUT lessons_settled bigint)
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn backfill_lesson_assets(
    batch: Option<i32>,
    execute: Option<bool>,
    organization_id: Option<&str>,
    after: Option<&str>,
    max_lessons: Option<i64>,
    skip_settled: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let options = Options::new(batch, execute, max_lessons)?;
    let skip_settled = skip_settled.ok_or_else(|| {
        invalid_argument(
            "skip_settled must be true or false, not NULL",
            "false looks at every lesson.",
        )
    })?;
    let asked = LessonOptions {
        organization_id: organization_id.map(str::to_owned),
        after: after.map(str::to_owned),
        max_lessons,
        skip_settled,
    };
    let result = spi::connect(|connection| -> Result<LessonResult, ErrorReport> {
        if options.execute {
            rights::check_can_execute("backfill_lesson_assets")?;
        }
        let mut program = LessonProgram::new(connection, asked, options.execute)?;
        run(connection, &mut program, &options, |_| {})
    })?;
    let values: Vec<Option<Datum>> = result
        .columns()
        .into_iter()
        .map(|(_, value)| value.map(Datum::from))
        .collect();
    Ok(form(fcinfo, &values))
}

#[pg_extern(sql = r#"
CREATE FUNCTION explain_lesson_assets(organization_id text DEFAULT NULL, after text DEFAULT NULL, max_lessons bigint DEFAULT NULL)
RETURNS TABLE (lesson_id text, slot_type text, "position" integer, outcome text, reason text, action text, usage_action text,
    patch boolean, provider text, storage_provider text, storage_key text, source_url text, canonical_key text, kind text,
    mime_type text, byte_size bigint, title text, description text, thumbnail_url text, duration_seconds integer,
    aspect_ratio text, is_external boolean, asset_id uuid, metadata jsonb, resolved_asset_id uuid)
STABLE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn explain_lesson_assets(
    organization_id: Option<&str>,
    after: Option<&str>,
    max_lessons: Option<i64>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<(), ErrorReport> {
    let options = Options::new(Some(500), Some(false), max_lessons)?;
    let asked = LessonOptions {
        organization_id: organization_id.map(str::to_owned),
        after: after.map(str::to_owned),
        max_lessons,
        skip_settled: false,
    };
    let rows = RowSet::begin(fcinfo)?;
    spi::connect(|connection| {
        let mut program = LessonProgram::new(connection, asked, false)?;
        run(connection, &mut program, &options, |decided| {
            put_decisions(&rows, decided)
        })
    })?;
    Ok(())
}

fn put_decisions(rows: &RowSet, decided: &Decided) {
    for (lesson, items) in decided.each_lesson() {
        for item in items {
            let mut values = vec![
                Some(text_datum(&lesson.id)),
                Some(text_datum(item.slot.name())),
                Some(Datum::from(item.position)),
            ];
            let mut resolved = None;
            match &item.outcome {
                Outcome::Eligible { action, asset, patch } => {
                    resolved = asset.id.map(uuid_datum);
                    values.extend([
                        Some(text_datum("eligible")),
                        None,
                        Some(text_datum(action.name())),
                        Some(text_datum(if item.usage_exists { "reuse" } else { "create" })),
                        Some(Datum::from(*patch)),
                    ]);
                }
                Outcome::Skipped(reason) => values.extend([
                    Some(text_datum("skipped")),
                    Some(text_datum(reason.name())),
                    None,
                    None,
                    Some(Datum::from(false)),
                ]),
            }
            match &item.outcome {
                // Without an organization nothing of the item counts.
                Outcome::Skipped(reason) if *reason == media_assets_core::jobs::lesson::Reason::MissingOrganization => {
                    values.extend([None; 16]);
                }
                _ => values.extend(fields(&item.normalized)),
            }
            values.push(resolved);
            rows.put(&values);
        }
    }
}
