//! The Jellyfin job as functions: candidates, backfill, explain, verify, re-open.

use media_assets_core::jobs::jellyfin_metadata::{is_candidate, lookup, question, Lookup, Outcome, Question, Reason};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::Datum;
use pgrx::prelude::*;

use super::jellyfin::date_datum;
use crate::engine::ledger::record::{Recorder, RunMode};
use crate::engine::ledger::Ledger;
use crate::engine::long::{Buckets, Program};
use crate::engine::{self, engine_settings, rights, Options, Tally};
use crate::error::invalid_argument;
use crate::jobs::asset_tables::extension_schema;
use crate::jobs::jellyfin::program::{JellyfinOptions, JellyfinProgram};
use crate::jobs::jellyfin::read::{Reader, Wanted};
use crate::jobs::jellyfin::tables::{Found, Tables};
use crate::jobs::jellyfin::{enriched_of, Counters, Decided};
use crate::postgres::arrays::{text_datum, uuid_datum};
use crate::postgres::backend;
use crate::postgres::jsonb::{from_text, Jsonb};
use crate::postgres::memory::in_own_context;
use crate::postgres::record::{form, Record};
use crate::postgres::row_set::RowSet;
use crate::postgres::settings_level::SettingsLevel;
use crate::postgres::spi::{self, Connection, Mode};

const VERIFY: &str = include_str!("../../sql/parts/verify_jellyfin_metadata.sql");

/// What a run came to.
pub struct JellyfinResult {
    counters: Counters,
    batches: i64,
    run_id: Option<i64>,
}

impl JellyfinResult {
    /// The row of the result: counters, batches, run.
    pub fn columns(&self) -> Vec<(&'static str, Option<i64>)> {
        let mut columns: Vec<_> = self
            .counters
            .columns()
            .map(|(name, value)| (name, Some(value)))
            .collect();
        columns.extend([("batches", Some(self.batches)), ("run_id", self.run_id)]);
        columns
    }
}

/// Runs the job in the caller's transaction; `each` sees every settled slice.
///
/// # Errors
/// As [`engine::run`].
pub fn run(
    connection: &Connection,
    program: &JellyfinProgram,
    options: &Options,
    mut each: impl FnMut(&Decided),
) -> Result<JellyfinResult, ErrorReport> {
    let ledger;
    let mut recorder = None;
    if options.execute {
        rights::lock_job(connection, program.name(), program.locks());
        ledger = Ledger::open(connection)?;
        let run_id = program
            .new_run(RunMode::Function, options.batch)
            .start(connection, &ledger);
        recorder = Some(Recorder::new(connection, &ledger, run_id));
    }
    let mut job = program.job(connection, Buckets::ALL, options.execute);
    let summary = engine::run(connection, &mut job, options, recorder.as_mut(), |_, _, decided| {
        each(decided)
    })?;
    if let Some(recorder) = &mut recorder {
        recorder.phase = 1;
        recorder.finish_function(connection, &summary.counters.values(), summary.rows, summary.batches);
    }
    Ok(JellyfinResult {
        counters: summary.counters,
        batches: summary.batches,
        run_id: recorder.map(|recorder| recorder.run_id),
    })
}

#[pg_extern(sql = r#"
CREATE FUNCTION backfill_jellyfin_metadata(batch integer DEFAULT 500, execute boolean DEFAULT false, mode text DEFAULT 'republish',
    backfill_version text DEFAULT NULL, public_base text DEFAULT NULL, max_rows bigint DEFAULT NULL,
    OUT rows_scanned bigint, OUT enriched bigint, OUT events_queued bigint, OUT skipped_no_item bigint,
    OUT skipped_not_found bigint, OUT skipped_ambiguous bigint, OUT skipped_missing_artifact_uri bigint,
    OUT skipped_invalid_payload bigint, OUT errors bigint, OUT batches bigint, OUT run_id bigint)
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn backfill_jellyfin_metadata(
    batch: Option<i32>,
    execute: Option<bool>,
    mode: Option<&str>,
    backfill_version: Option<&str>,
    public_base: Option<&str>,
    max_rows: Option<i64>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record, ErrorReport> {
    let options = Options::new(batch, execute, max_rows)?;
    let asked = JellyfinOptions::new(mode, backfill_version, public_base, max_rows)?;
    let result = spi::connect(|connection| {
        if options.execute {
            rights::check_can_execute("backfill_jellyfin_metadata")?;
        }
        let program = JellyfinProgram::new(connection, asked, options.execute)?;
        run(connection, &program, &options, |_| {})
    })?;
    let values: Vec<Option<Datum>> = result
        .columns()
        .into_iter()
        .map(|(_, value)| value.map(Datum::from))
        .collect();
    Ok(form(fcinfo, &values))
}

#[pg_extern(sql = r#"
CREATE FUNCTION explain_jellyfin_metadata(mode text DEFAULT 'republish', backfill_version text DEFAULT NULL,
    public_base text DEFAULT NULL, max_rows bigint DEFAULT NULL)
RETURNS TABLE (row_id bigint, outcome text, reason text, item_id text, event_id uuid, queues_event boolean, patch jsonb, payload jsonb)
STABLE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn explain_jellyfin_metadata(
    mode: Option<&str>,
    backfill_version: Option<&str>,
    public_base: Option<&str>,
    max_rows: Option<i64>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<(), ErrorReport> {
    let options = Options::new(Some(500), Some(false), max_rows)?;
    let asked = JellyfinOptions::new(mode, backfill_version, public_base, max_rows)?;
    let rows = RowSet::begin(fcinfo)?;
    spi::connect(|connection| {
        let program = JellyfinProgram::new(connection, asked, false)?;
        run(connection, &program, &options, |decided| put_decisions(&rows, decided))
    })?;
    Ok(())
}

fn put_decisions(rows: &RowSet, decided: &Decided) {
    for row in &decided.rows {
        let reason = match &row.outcome {
            Outcome::Skipped(reason) => Some(reason.name()),
            _ => None,
        };
        let enriched = enriched_of(row);
        let event = enriched.and_then(|enriched| enriched.event.as_ref());
        let item_id = enriched
            .and_then(|enriched| enriched.patch.get("jellyfin_item_id")?.as_str())
            .map(text_datum);
        let json = |text: String| from_text(&text).datum();
        rows.put(&[
            Some(Datum::from(row.candidate.id)),
            Some(text_datum(if enriched.is_some() { "enriched" } else { "skipped" })),
            reason.map(text_datum),
            item_id,
            event.map(|event| uuid_datum(event.id)),
            Some(Datum::from(row.queued)),
            enriched.map(|enriched| json(enriched.patch.to_string())),
            event.map(|event| json(event.payload.to_string())),
        ]);
    }
}

#[pg_extern(sql = r#"
CREATE FUNCTION jellyfin_candidates()
RETURNS TABLE (row_id bigint, item_id text, search_name text, search_date date, search_key text, question text, reason text)
STABLE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn jellyfin_candidates(fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    let rows = RowSet::begin(fcinfo)?;
    spi::connect(|connection| {
        let tables = Tables::load(connection, Found::look(connection), false)?;
        let _level = engine_settings();
        let reader = Reader::new(connection, &tables, Wanted::Unresolved, Buckets::ALL, None, Mode::Read);
        let mut after = None;
        loop {
            let page = reader.page(connection, Mode::Read, after, 500);
            if page.len() == 0 {
                return Ok(());
            }
            after = Some(page.id(page.len() - 1));
            in_own_context(|| {
                for index in 0..page.len() {
                    let candidate = page.candidate(index);
                    let Some(candidate) = candidate.filter(|candidate| is_candidate(candidate.row.value())) else {
                        continue;
                    };
                    let row = Jsonb::value_in_context(candidate.row);
                    let (item_id, search) = match lookup(row) {
                        Lookup::Item { id, search } => (Some(id), search),
                        Lookup::Search(search) => (None, Some(search)),
                        Lookup::Nothing => (None, None),
                    };
                    let search = search.filter(|search| search.title.is_some());
                    let question = question(row, &candidate.fetched()).map(|question| match question {
                        Question::Item(_) => "item",
                        Question::Search(_) => "search",
                    });
                    rows.put(&[
                        Some(Datum::from(candidate.id)),
                        item_id.as_deref().map(text_datum),
                        search
                            .as_ref()
                            .and_then(|search| search.title.as_deref())
                            .map(text_datum),
                        search.as_ref().and_then(date_datum),
                        search.as_ref().map(|search| text_datum(&search.key())),
                        question.map(text_datum),
                        page.reason(index).as_deref().map(text_datum),
                    ]);
                }
            });
        }
    })
}

#[pg_extern(sql = r#"
CREATE FUNCTION reopen_jellyfin_skips(reason text DEFAULT 'not_found', row_id bigint DEFAULT NULL) RETURNS bigint
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn reopen_jellyfin_skips(reason: Option<&str>, row_id: Option<i64>) -> Result<i64, ErrorReport> {
    let known = Reason::ALL.map(Reason::name);
    if let Some(reason) = reason.filter(|reason| !known.contains(reason)) {
        return Err(invalid_argument(
            format!("unknown reason: {reason}"),
            format!("It is one of {}, or NULL for all of them.", known.join(", ")),
        ));
    }
    backend::prevent_if_read_only("reopen_jellyfin_skips()");
    spi::connect(|connection| {
        let tables = Tables::load(connection, Found::look(connection), false)?;
        let (Some(items), Some(skips)) = (&tables.items, &tables.skips) else {
            return Ok(0);
        };
        rights::check_privilege(connection, skips, "DELETE", &[])?;
        rights::check_privilege(connection, items, "DELETE", &[])?;
        // What Jellyfin said it does not have, or has several of, is forgotten too, so that it is asked again.
        let sql = format!(
            "WITH opened AS (
                 DELETE FROM {skips} s WHERE ($1 IS NULL OR s.reason = $1) AND ($2 IS NULL OR s.row_id = $2) RETURNING s.row_id, s.reason
             ), asked AS (
                 SELECT k.item_id, k.search_key, o.reason = 'ambiguous' AS had_several FROM opened o JOIN {board} b ON b.id = o.row_id
                 CROSS JOIN LATERAL {extension}jellyfin_lookup({board_row}) k
             ), forgotten AS (
                 DELETE FROM {items} i USING asked a
                 WHERE (i.item_id = a.item_id AND i.http_status IN (404, 410)) OR i.item_id = a.search_key
                    OR (a.had_several
                        AND {extension}jellyfin_search_key(i.doc ->> 'Name', i.doc ->> 'PremiereDate') = a.search_key)
             )
             SELECT pg_catalog.count(*) FROM opened",
            skips = skips.sql_name,
            items = items.sql_name,
            board = tables.board.sql_name,
            extension = extension_schema(connection),
            board_row = tables.board_row("b"),
        );
        let rows = connection.query(&sql, Mode::Write, &[reason.into(), spi::Parameter::int8(row_id)]);
        Ok(rows.get(0, 0).unwrap_or(0))
    })
}

#[pg_extern(sql = r#"
CREATE FUNCTION verify_jellyfin_metadata()
RETURNS TABLE (severity text, finding text, row_id bigint, event_id uuid, detail text)
STABLE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn verify_jellyfin_metadata(fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    let rows = RowSet::begin(fcinfo)?;
    spi::connect(|connection| {
        let tables = Tables::load_to_verify(connection, Found::look(connection))?;
        let name = |relation: &Option<crate::engine::relation::Relation>| {
            relation
                .as_ref()
                .map_or_else(String::new, |relation| relation.sql_name.clone())
        };
        let sql = VERIFY
            .replace("{board_row}", &tables.board_row("b"))
            .replace("{board}", &tables.board.sql_name)
            .replace("{items}", &name(&tables.items))
            .replace("{skips}", &name(&tables.skips))
            .replace("{outbox}", &name(&tables.outbox))
            .replace("{extension}", &extension_schema(connection));
        // It looks at everything once: on tables that were never analysed a nested loop would be quadratic. The cost of what
        // is disabled would have all of it compiled.
        let _level = SettingsLevel::with([("enable_nestloop", "off".to_owned()), ("jit", "off".to_owned())]);
        let findings = connection.query(&sql, Mode::Read, &[]);
        for row in 0..findings.len() {
            let values: Vec<Option<Datum>> = (0..5).map(|column| findings.datum(row, column)).collect();
            rows.put(&values);
        }
        Ok(())
    })
}
