//! The DDL of `collections` and `collection_assets`, with the lifecycle that no code path can go around.

use super::{ASSETS, COLLECTIONS};
use crate::engine::relation::Relation;
use crate::error::{not_prepared, Result};
use crate::jobs::asset_tables::extension_schema;
use crate::jobs::table_ddl::{current_schema, Step};
use crate::postgres::spi::{Connection, Mode};

/// The states, in the order of the enum.
const STATES: [&str; 4] = ["new", "enriching", "ready", "retired"];

/// What `create_ingest_tables()` does: makes the type and the tables that are not there, in the current schema.
///
/// # Errors
/// 3F000 when the search_path names no schema to make them in; 42804 when a type `asset_state` has other labels.
pub fn create(connection: &Connection) -> Result<Vec<Step>> {
    let schema = current_schema(connection)?;
    let mut steps = Vec::new();
    let state = match state_type(connection)? {
        Some(name) => {
            steps.push(Step::exists(&name));
            name
        }
        None => {
            let name = format!("{schema}.asset_state");
            let labels: Vec<String> = STATES.iter().map(|state| format!("'{state}'")).collect();
            steps.push(Step::new(
                &name,
                format!("CREATE TYPE {name} AS ENUM ({})", labels.join(", ")),
            ));
            name
        }
    };
    let collections = match Relation::find(connection, COLLECTIONS, None) {
        Some(collections) => {
            steps.push(Step::exists(&collections.sql_name));
            collections.sql_name
        }
        None => {
            let table = format!("{schema}.{COLLECTIONS}");
            steps.push(Step::new(
                &table,
                format!(
                    "CREATE TABLE {table} (
    uuid pg_catalog.uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    source_type pg_catalog.text NOT NULL CHECK (source_type IN ('filesystem', 'plex')),
    external_id pg_catalog.text,
    name pg_catalog.text NOT NULL,
    sync_enabled pg_catalog.bool NOT NULL DEFAULT false,
    ingestible pg_catalog.bool NOT NULL DEFAULT false,
    case_sensitive pg_catalog.bool NOT NULL DEFAULT true,
    path_mappings pg_catalog.jsonb,
    enrichers pg_catalog.jsonb,
    last_ingest_time pg_catalog.timestamptz
)"
                ),
            ));
            table
        }
    };
    match Relation::find(connection, ASSETS, None) {
        Some(assets) => steps.push(Step::exists(&assets.sql_name)),
        None => {
            let table = format!("{schema}.{ASSETS}");
            steps.push(Step::new(
                &table,
                format!(
                    "CREATE TABLE {table} (
    uuid pg_catalog.uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    collection_uuid pg_catalog.uuid NOT NULL REFERENCES {collections} (uuid) ON DELETE RESTRICT,
    canonical_key pg_catalog.text COLLATE pg_catalog.\"C\" NOT NULL,
    uri pg_catalog.text,
    title pg_catalog.text,
    season pg_catalog.int4,
    episode pg_catalog.int4,
    size pg_catalog.int8,
    mtime pg_catalog.timestamptz,
    content_hash pg_catalog.text,
    content_signature pg_catalog.text,
    enricher_checksum pg_catalog.text,
    state {state} NOT NULL DEFAULT 'new',
    approved_for_broadcast pg_catalog.bool NOT NULL DEFAULT false,
    operator_verified pg_catalog.bool NOT NULL DEFAULT false,
    duration_ms pg_catalog.int8,
    video_codec pg_catalog.text,
    audio_codec pg_catalog.text,
    container pg_catalog.text,
    metadata pg_catalog.jsonb,
    discovered_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(),
    is_deleted pg_catalog.bool NOT NULL DEFAULT false,
    deleted_at pg_catalog.timestamptz,
    created_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(),
    UNIQUE (collection_uuid, canonical_key),
    CONSTRAINT approved_is_ready CHECK (NOT approved_for_broadcast OR state OPERATOR(pg_catalog.=) 'ready'),
    CONSTRAINT approved_is_not_deleted CHECK (NOT (approved_for_broadcast AND is_deleted)),
    CONSTRAINT deleted_has_time CHECK (is_deleted OPERATOR(pg_catalog.=) (deleted_at IS NOT NULL))
)"
                ),
            ));
            steps.push(Step::new(
                &table,
                format!(
                    "CREATE INDEX ON {table} (collection_uuid, title, season, episode)
    WHERE state OPERATOR(pg_catalog.=) 'ready' AND approved_for_broadcast AND NOT is_deleted"
                ),
            ));
            steps.extend(lifecycle_triggers(connection, &table));
        }
    }
    Ok(steps)
}

/// An INSERT can only break a rule by being ready or approved: nothing else is worth a call.
fn lifecycle_triggers(connection: &Connection, table: &str) -> Vec<Step> {
    let extension = extension_schema(connection);
    ["BEFORE", "AFTER"]
        .into_iter()
        .flat_map(|time| {
            let name = time.to_lowercase();
            [
                format!(
                    "CREATE TRIGGER media_assets_lifecycle_insert_{name} {time} INSERT ON {table} FOR EACH ROW
    WHEN (NEW.state OPERATOR(pg_catalog.=) 'ready' OR NEW.approved_for_broadcast)
    EXECUTE FUNCTION {extension}collection_asset_lifecycle()"
                ),
                format!(
                    "CREATE TRIGGER media_assets_lifecycle_update_{name} {time} UPDATE ON {table} FOR EACH ROW
    EXECUTE FUNCTION {extension}collection_asset_lifecycle()"
                ),
            ]
        })
        .map(|ddl| Step::new(table, ddl))
        .collect()
}

/// The type `asset_state` on the search_path, where there is one.
fn state_type(connection: &Connection) -> Result<Option<String>> {
    let rows = connection.query(
        "SELECT pg_catalog.format('%I.%I', n.nspname, t.typname),
                (SELECT pg_catalog.array_agg(e.enumlabel::pg_catalog.text ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e
                 WHERE e.enumtypid = t.oid)
         FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
         WHERE t.oid = pg_catalog.to_regtype('asset_state')",
        Mode::Read,
        &[],
    );
    if rows.is_empty() {
        return Ok(None);
    }
    let name = rows.text(0, 0).unwrap_or_default();
    let labels: Vec<String> = rows.get(0, 1).unwrap_or_default();
    if labels == STATES {
        return Ok(Some(name));
    }
    Err(not_prepared(
        "42804",
        format!("type {name} is not the enum of the states of an asset"),
        format!(
            "It has the labels ({}), not ({}).",
            labels.join(", "),
            STATES.join(", ")
        ),
        "Call this with a search_path that begins with a schema of its own.",
    ))
}
