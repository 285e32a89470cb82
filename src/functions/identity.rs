//! The identity functions: pure, immutable, safe in indexes.

use media_assets_core::identity;
use pgrx::prelude::*;

use crate::postgres::arrays::text_datum;
use crate::postgres::jsonb::{from_text, Jsonb};
use crate::postgres::record::{form, Record};

/// The key of a locator of a provider; NULL provider or locator gives NULL, NULL or blank kind is `other`.
#[pg_extern(immutable, parallel_safe)]
fn asset_canonical_key(
    provider: Option<&str>,
    locator: Option<&str>,
    kind: default!(Option<&str>, "NULL"),
) -> Option<String> {
    identity::asset_canonical_key(provider?, locator?, kind)
}

/// The key of an existing row of `assets`.
#[pg_extern(immutable, parallel_safe)]
fn asset_key_of_row(
    provider: Option<&str>,
    storage_key: Option<&str>,
    source_url: Option<&str>,
    kind: Option<&str>,
) -> Option<String> {
    identity::row_canonical_key(provider, storage_key, source_url, kind)
}

/// The version of the key rules.
#[pg_extern(immutable, parallel_safe)]
fn asset_key_version() -> i32 {
    identity::ASSET_KEY_VERSION
}

/// A link in its normal form; NULL for text that is no link and for schemes that carry no media.
#[pg_extern(immutable, parallel_safe)]
fn canonical_url(link: &str) -> Option<String> {
    identity::canonical_url(link)
}

/// What a link points to.
#[pg_extern(sql = r#"
CREATE FUNCTION parse_media_link(link text, OUT provider text, OUT media_kind text, OUT media_id text, OUT canonical_url text, OUT facets jsonb)
IMMUTABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn parse_media_link(link: Option<&str>, fcinfo: pg_sys::FunctionCallInfo) -> Record {
    let Some(link) = link else {
        return form(fcinfo, &[None; 5]);
    };
    let parsed = identity::parse_media_link(link);
    form(
        fcinfo,
        &[
            parsed.provider.map(text_datum),
            parsed.media_kind.map(text_datum),
            parsed.media_id.as_deref().map(text_datum),
            parsed.canonical_url.as_deref().map(text_datum),
            Some(from_text(&parsed.facets.to_json_text()).datum()),
        ],
    )
}

/// The MIME type that a declared value, a file name or a link shows, the first that answers.
#[pg_extern(immutable, parallel_safe)]
fn infer_mime_type(declared: Option<&str>, filename: Option<&str>, link: Option<&str>) -> Option<String> {
    identity::infer_mime_type(declared, filename, link)
}

/// The kind of asset of a MIME type; `fallback` where it says nothing.
#[pg_extern(immutable, parallel_safe)]
fn infer_asset_kind(mime_type: Option<&str>, fallback: default!(Option<&str>, "'other'")) -> Option<String> {
    match fallback {
        Some(fallback) => Some(identity::infer_asset_kind(mime_type, fallback).to_owned()),
        None => Some(identity::infer_asset_kind(mime_type, "").to_owned()).filter(|kind| !kind.is_empty()),
    }
}

/// A stable text identity for a file path.
#[pg_extern(immutable, parallel_safe)]
fn normalize_path(path: &str, case_sensitive: default!(bool, true)) -> Option<String> {
    identity::normalize_path(path, case_sensitive)
}

/// The checksum of a set of enrichers; NULL when there are none.
#[pg_extern(immutable, parallel_safe)]
fn enricher_checksum(enrichers: Jsonb) -> Option<String> {
    identity::enricher_checksum(enrichers.value())
}

/// What says whether a file's content changed: a strong hash, else size and time, else size.
#[pg_extern(immutable, parallel_safe)]
fn content_signature(
    hash: Option<&str>,
    size: Option<i64>,
    mtime: Option<pgrx::datum::TimestampWithTimeZone>,
) -> Option<String> {
    // PostgreSQL counts from 2000-01-01; infinite times are no times.
    const MICROSECONDS_1970_TO_2000: i64 = 946_684_800_000_000;
    let since_1970 = mtime
        .map(|time| time.into_inner())
        .filter(|time| *time != i64::MIN && *time != i64::MAX)
        .and_then(|time| time.checked_add(MICROSECONDS_1970_TO_2000));
    identity::content_signature(hash, size, since_1970)
}
