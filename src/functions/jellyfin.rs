//! Jellyfin metadata as functions of their arguments, and the tables of the job.

use media_assets_core::jobs::jellyfin_metadata::{self as rules, lookup, Lookup, PayloadSettings, Search, Unresolved};
use media_assets_core::json::{Kind, Members};
use pgrx::datum::Date;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::Datum;
use pgrx::prelude::*;

use super::tables::put_steps;
use crate::jobs::jellyfin::tables;
use crate::jobs::table_ddl;
use crate::postgres::arrays::text_datum;
use crate::postgres::backend;
use crate::postgres::jsonb::{from_text, Jsonb};
use crate::postgres::record::{form, Record};
use crate::postgres::row_set::RowSet;
use crate::postgres::spi;
use crate::settings;

/// A date as the rules write it; `None` outside the years that they know.
fn date_text(date: Date) -> Option<String> {
    let known = date.is_finite() && (1..=9999).contains(&date.year());
    known.then(|| format!("{:04}-{:02}-{:02}", date.year(), date.month(), date.day()))
}

/// The date of a search as SQL has it.
pub(super) fn date_datum(search: &Search) -> Option<Datum> {
    let mut parts = search.date.splitn(3, '-');
    let year = parts.next()?.parse().ok()?;
    let month = parts.next()?.parse().ok()?;
    let day = parts.next()?.parse().ok()?;
    Date::new(year, month, day).ok()?.into_datum()
}

#[pg_extern(sql = r#"
CREATE FUNCTION resolve_jellyfin_item(title text, premiere_date date, items jsonb, OUT item_id text, OUT reason text)
IMMUTABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn resolve_jellyfin_item(
    title: Option<&str>,
    premiere_date: Option<Date>,
    items: Option<Jsonb>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Record {
    let date = premiere_date.and_then(date_text);
    let found = match &items {
        Some(items) => rules::resolve_jellyfin_item(title, date.as_deref(), items.value().elements()),
        None => Err(Unresolved::NotFound),
    };
    let (item_id, reason) = match &found {
        Ok(id) => (Some(text_datum(id)), None),
        Err(reason) => (None, Some(text_datum(reason.name()))),
    };
    form(fcinfo, &[item_id, reason])
}

#[pg_extern(sql = r#"
CREATE FUNCTION content_published_payload(board_row jsonb, item jsonb, public_base text) RETURNS jsonb
STABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn content_published_payload(
    board_row: Option<Jsonb>,
    item: Option<Jsonb>,
    public_base: Option<&str>,
) -> Option<Jsonb> {
    let board_row = board_row?;
    let namespace = settings::default_namespace();
    let settings = PayloadSettings {
        public_base,
        default_namespace: namespace.as_deref(),
        backfill_version: None,
    };
    let item = item.as_ref().map(Jsonb::value);
    let payload = rules::content_published_payload(board_row.value(), item, &settings).ok()?;
    Some(from_text(&payload.to_string()))
}

#[pg_extern(sql = r#"
CREATE FUNCTION content_published_event_id(row_id bigint, backfill_version text) RETURNS uuid
IMMUTABLE STRICT PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn content_published_event_id(row_id: i64, backfill_version: &str) -> pgrx::Uuid {
    pgrx::Uuid::from_bytes(rules::event_id(row_id, backfill_version))
}

#[pg_extern(sql = r#"
CREATE FUNCTION jellyfin_search_key(title text, premiere_date text) RETURNS text
IMMUTABLE STRICT PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn jellyfin_search_key(title: &str, premiere_date: &str) -> Option<String> {
    rules::search_key_of(title, premiere_date)
}

#[pg_extern(sql = r#"
CREATE FUNCTION jellyfin_lookup(board_row jsonb, OUT item_id text, OUT search_name text, OUT search_date date, OUT search_key text)
IMMUTABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn jellyfin_lookup(board_row: Option<Jsonb>, fcinfo: pg_sys::FunctionCallInfo) -> Record {
    let found = board_row
        .as_ref()
        .map(Jsonb::value)
        .filter(|row| media_assets_core::json::Json::kind(*row) == Kind::Object)
        .map_or(Lookup::Nothing, lookup);
    let (item_id, search) = match &found {
        Lookup::Item { id, search } => (Some(id.as_str()), search.as_ref()),
        Lookup::Search(search) => (None, Some(search)),
        Lookup::Nothing => (None, None),
    };
    // Without a title there is nothing to search for.
    let search = search.filter(|search| search.title.is_some());
    form(
        fcinfo,
        &[
            item_id.map(text_datum),
            search.and_then(|search| search.title.as_deref()).map(text_datum),
            search.and_then(date_datum),
            search.map(|search| text_datum(&search.key())),
        ],
    )
}

#[pg_extern(sql = r#"
CREATE FUNCTION create_jellyfin_tables() RETURNS TABLE (relation text, ddl text, executed boolean)
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn create_jellyfin_tables(fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    backend::prevent_if_read_only("create_jellyfin_tables()");
    let rows = RowSet::begin(fcinfo)?;
    spi::connect(|connection| {
        let steps = tables::create(connection)?;
        table_ddl::run(connection, &steps);
        put_steps(&rows, &steps, true);
        Ok(())
    })
}
