//! The rules of an ingest as functions: the key of an item, its decision, the lifecycle of its row.

use media_assets_core::jobs::collection_ingest::{
    self as rules, check_insert, check_update, AssetState, Content, Guarded, Violation,
};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::Datum;
use pgrx::prelude::*;

use crate::error::lifecycle_violation;
use crate::postgres::arrays::text_datum;
use crate::postgres::record::{form, Record};

/// The key of an item of a collection.
#[pg_extern(immutable, parallel_safe)]
fn collection_item_key(
    source_type: Option<&str>,
    locator: Option<&str>,
    case_sensitive: default!(Option<bool>, "true"),
) -> Option<String> {
    rules::item_key(source_type?, locator?, case_sensitive.unwrap_or(true))
}

#[pg_extern(sql = r#"
CREATE FUNCTION ingest_decision(found boolean, state text, is_deleted boolean, stored_signature text, stored_enricher_checksum text,
    new_signature text, new_enricher_checksum text,
    OUT action text, OUT reason text, OUT next_state text, OUT clears_approval boolean)
IMMUTABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
#[allow(clippy::too_many_arguments, reason = "they are the page's")]
fn ingest_decision(
    found: Option<bool>,
    state: Option<&str>,
    is_deleted: Option<bool>,
    stored_signature: Option<&str>,
    stored_enricher_checksum: Option<&str>,
    new_signature: Option<&str>,
    new_enricher_checksum: Option<&str>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Record {
    let decision = rules::ingest_decision(
        found.unwrap_or(false),
        state.and_then(AssetState::parse),
        is_deleted.unwrap_or(false),
        stored_signature,
        stored_enricher_checksum,
        new_signature,
        new_enricher_checksum,
    );
    form(
        fcinfo,
        &[
            Some(text_datum(decision.action.name())),
            Some(text_datum(decision.reason.name())),
            decision.next_state.map(|state| text_datum(state.name())),
            Some(Datum::from(decision.clears_approval)),
        ],
    )
}

#[pg_extern(sql = r#"
CREATE FUNCTION check_collection_asset(new_state text, new_approved boolean, new_is_deleted boolean, new_hash text, new_size bigint,
    new_mtime timestamptz, new_signature text, new_enricher_checksum text, old_state text DEFAULT NULL, old_approved boolean DEFAULT NULL,
    old_is_deleted boolean DEFAULT NULL, old_hash text DEFAULT NULL, old_size bigint DEFAULT NULL, old_mtime timestamptz DEFAULT NULL,
    old_signature text DEFAULT NULL, old_enricher_checksum text DEFAULT NULL)
RETURNS void IMMUTABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
#[allow(clippy::too_many_arguments, reason = "the guarded columns of the row, new and old")]
fn check_collection_asset(
    new_state: Option<&str>,
    new_approved: Option<bool>,
    new_is_deleted: Option<bool>,
    new_hash: Option<&str>,
    new_size: Option<i64>,
    new_mtime: Option<TimestampWithTimeZone>,
    new_signature: Option<&str>,
    new_enricher_checksum: Option<&str>,
    old_state: Option<&str>,
    old_approved: Option<bool>,
    old_is_deleted: Option<bool>,
    old_hash: Option<&str>,
    old_size: Option<i64>,
    old_mtime: Option<TimestampWithTimeZone>,
    old_signature: Option<&str>,
    old_enricher_checksum: Option<&str>,
) -> Result<(), ErrorReport> {
    let new = Guarded {
        state: state_of(new_state)?,
        approved: new_approved.unwrap_or(false),
        is_deleted: new_is_deleted.unwrap_or(false),
        content: content(new_hash, new_size, new_mtime),
        content_signature: new_signature,
        enricher_checksum: new_enricher_checksum,
    };
    let verdict = match old_state {
        None => check_insert(&new),
        Some(old_state) => check_update(
            &Guarded {
                state: state_of(Some(old_state))?,
                approved: old_approved.unwrap_or(false),
                is_deleted: old_is_deleted.unwrap_or(false),
                content: content(old_hash, old_size, old_mtime),
                content_signature: old_signature,
                enricher_checksum: old_enricher_checksum,
            },
            &new,
        ),
    };
    verdict.map_err(|violation: Violation| lifecycle_violation(violation.message(), violation.hint()))
}

fn state_of(name: Option<&str>) -> Result<AssetState, ErrorReport> {
    name.and_then(AssetState::parse).ok_or_else(|| {
        lifecycle_violation(
            format!("an asset has no state {}", name.unwrap_or("NULL")),
            "States are new, enriching, ready and retired.",
        )
    })
}

/// Times are compared as they stand, infinite ones too.
fn content<'a>(hash: Option<&'a str>, size: Option<i64>, mtime: Option<TimestampWithTimeZone>) -> Content<'a> {
    Content {
        hash: hash.map(std::borrow::Cow::Borrowed),
        size,
        mtime: mtime.map(TimestampWithTimeZone::into_inner),
    }
}
