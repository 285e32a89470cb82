//! Keys of stored rows that have drifted from the rules, and what the tables say of themselves.

use media_assets_core::jobs::collection_ingest::{item_key, rekey, KeyRule};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::engine::rights;
use crate::error::invalid_argument;
use crate::jobs::asset_tables::extension_schema;
use crate::jobs::collection_ingest::call;
use crate::jobs::collection_ingest::tables::Tables;
use crate::postgres::row_set::RowSet;
use crate::postgres::settings_level::SettingsLevel;
use crate::postgres::spi::{self, Mode, Parameter};

const VERIFY: &str = include_str!("../../sql/parts/verify_collection_assets.sql");

/// The key that a stored row would have now; NULL where its locator is not known any more.
#[pg_extern(immutable, parallel_safe)]
fn collection_asset_rekey(
    source_type: Option<&str>,
    stored_key: Option<&str>,
    uri: Option<&str>,
    case_sensitive: Option<bool>,
) -> Option<String> {
    let source = source_type?;
    let sensitive = |locator: &str| item_key(source, locator, true);
    let folded = |locator: &str| item_key(source, locator, false);
    let known: [KeyRule<'_>; 2] = [&sensitive, &folded];
    let new: KeyRule<'_> = if case_sensitive.unwrap_or(true) {
        &sensitive
    } else {
        &folded
    };
    rekey(stored_key?, uri, &known, new)
}

#[pg_extern(sql = r#"
CREATE FUNCTION rekey_collection(collection text, execute boolean DEFAULT false)
RETURNS TABLE (asset_uuid uuid, old_key text, new_key text, outcome text, executed boolean)
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn rekey_collection(
    collection: Option<&str>,
    execute: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<(), ErrorReport> {
    let collection = collection.ok_or_else(|| {
        invalid_argument(
            "collection must not be NULL",
            "Give the UUID, the external id or the name of a collection.",
        )
    })?;
    let execute = execute.ok_or_else(|| {
        invalid_argument(
            "execute must be true or false, not NULL",
            "false shows what would be done, true does it.",
        )
    })?;
    if execute {
        rights::check_can_execute("rekey_collection")?;
    }
    let mode = if execute { Mode::Write } else { Mode::Read };
    let rows = RowSet::begin(fcinfo)?;
    spi::connect(|connection| {
        let tables = Tables::load(connection, &|_| None, false)?;
        if execute {
            rights::check_privilege(connection, &tables.collections, "UPDATE", &["last_ingest_time"])?;
            rights::check_privilege(connection, &tables.assets, "UPDATE", &["canonical_key"])?;
        }
        let collection = call::find_by_name(connection, &tables, collection, mode)?;
        let assets = &tables.assets;
        // A key that several rows would have, or that one has now which another wants, is given to none of them.
        let wanted = format!(
            "SELECT w.uuid, w.old_key, w.new_key, CASE
                 WHEN w.new_key IS NULL THEN 'unknown_locator'
                 WHEN w.wanting > 1 OR EXISTS (SELECT FROM {table} h WHERE h.collection_uuid = $1 AND h.canonical_key = w.new_key AND h.uuid <> w.uuid)
                     THEN 'collision'
                 ELSE 'rekey' END AS outcome
             FROM (SELECT a.uuid, a.canonical_key::pg_catalog.text AS old_key, k.new_key,
                          pg_catalog.count(*) OVER (PARTITION BY k.new_key) AS wanting
                   FROM {table} a
                   CROSS JOIN LATERAL (SELECT {extension}collection_asset_rekey($2, a.canonical_key::pg_catalog.text, a.uri::pg_catalog.text, $3) AS new_key) k
                   WHERE a.collection_uuid = $1) w
             WHERE w.new_key IS DISTINCT FROM w.old_key",
            table = assets.sql_name,
            extension = extension_schema(connection)
        );
        let parameters = [
            Parameter::uuid(collection.uuid),
            collection.source_type.as_str().into(),
            collection.case_sensitive.into(),
        ];
        let sql = if execute {
            format!(
                "WITH wanted AS MATERIALIZED ({wanted}), moved AS (
                     UPDATE {} a SET canonical_key = w.new_key::{} FROM wanted w
                     WHERE a.uuid = w.uuid AND w.outcome = 'rekey' AND a.canonical_key::pg_catalog.text = w.old_key RETURNING a.uuid)
                 SELECT w.uuid, w.old_key, w.new_key, w.outcome, m.uuid IS NOT NULL
                 FROM wanted w LEFT JOIN moved m ON m.uuid = w.uuid ORDER BY w.new_key COLLATE pg_catalog.\"C\", w.old_key COLLATE pg_catalog.\"C\"",
                assets.sql_name,
                assets.type_of("canonical_key")
            )
        } else {
            format!(
                "SELECT w.*, false FROM ({wanted}) w ORDER BY w.new_key COLLATE pg_catalog.\"C\", w.old_key COLLATE pg_catalog.\"C\""
            )
        };
        let found = connection.query(&sql, mode, &parameters);
        for row in 0..found.len() {
            let values: Vec<Option<pg_sys::Datum>> = (0..5).map(|column| found.datum(row, column)).collect();
            rows.put(&values);
        }
        Ok(())
    })
}

#[pg_extern(sql = r#"
CREATE FUNCTION verify_collection_assets(collection text DEFAULT NULL)
RETURNS TABLE (severity text, finding text, collection_uuid uuid, asset_uuid uuid, detail text)
STABLE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn verify_collection_assets(collection: Option<&str>, fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    let rows = RowSet::begin(fcinfo)?;
    spi::connect(|connection| {
        let tables = Tables::load(connection, &|_| None, false)?;
        let only = collection
            .map(|collection| call::find_by_name(connection, &tables, collection, Mode::Read))
            .transpose()?;
        let sql = VERIFY
            .replace("{collections}", &tables.collections.sql_name)
            .replace("{assets}", &tables.assets.sql_name)
            .replace("{extension}", &extension_schema(connection));
        let _level = SettingsLevel::with([("enable_nestloop", "off".to_owned())]);
        let parameters = [
            only.map_or_else(Parameter::null_uuid, |collection| Parameter::uuid(collection.uuid)),
            i64::from(tables.assets.base_oid.to_u32()).into(),
        ];
        let findings = connection.query(&sql, Mode::Read, &parameters);
        for row in 0..findings.len() {
            let values: Vec<Option<pg_sys::Datum>> = (0..5).map(|column| findings.datum(row, column)).collect();
            rows.put(&values);
        }
        Ok(())
    })
}
