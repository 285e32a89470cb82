//! Keys of stored rows that have drifted from the rules, and what the tables say of themselves.

use media_assets_core::jobs::collection_ingest::{item_key, rekey, KeyRule};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::Datum;
use pgrx::prelude::*;

use crate::engine::ledger::record::{NewRun, Recorder, RunMode};
use crate::engine::ledger::Ledger;
use crate::engine::{self, rights, Options, Tally};
use crate::error::invalid_argument;
use crate::jobs::asset_tables::extension_schema;
use crate::jobs::collection_ingest::call::{self, Collection};
use crate::jobs::collection_ingest::rekeys::{Counters, Fate, Rekeyed, Rekeys, REKEY};
use crate::jobs::collection_ingest::tables::Tables;
use crate::postgres::arrays::{text_datum, uuid_datum};
use crate::postgres::row_set::RowSet;
use crate::postgres::settings_level::SettingsLevel;
use crate::postgres::spi::{self, Connection, Mode, Parameter};

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
RETURNS TABLE (asset_uuid uuid, old_key text, new_key text, outcome text, executed boolean, run_id bigint)
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
    let options = Options::new(Some(500), execute, None)?;
    if options.execute {
        rights::check_can_execute("rekey_collection")?;
    }
    let rows = RowSet::begin(fcinfo)?;
    spi::connect(|connection| rekey_rows(connection, collection, &options, &rows))
}

fn rekey_rows(connection: &Connection, collection: &str, options: &Options, rows: &RowSet) -> Result<(), ErrorReport> {
    let tables = Tables::load(connection, &|_| None, false)?;
    if options.execute {
        // The lock on the collection's row is one that only who may update it can take.
        rights::check_privilege(connection, &tables.collections, "UPDATE", &["last_ingest_time"])?;
        rights::check_privilege(connection, &tables.assets, "UPDATE", &["canonical_key"])?;
    }
    let collection = call::find_by_name(connection, &tables, collection, options.mode())?;
    let ledger;
    let mut recorder = None;
    if options.execute {
        ledger = Ledger::open(connection)?;
        let run_id = new_run(&tables, &collection, options).start(connection, &ledger);
        recorder = Some(Recorder::new(connection, &ledger, run_id));
    }
    let run_id = recorder.as_ref().map(|recorder| recorder.run_id);
    let put = |row: &Rekeyed, outcome: &str, executed: bool| {
        rows.put(&[
            Some(uuid_datum(row.id)),
            Some(text_datum(&row.old_key)),
            row.new_key.as_deref().map(text_datum),
            Some(text_datum(outcome)),
            Some(Datum::from(executed)),
            run_id.map(Datum::from),
        ]);
    };
    let mut job = Rekeys::new(connection, &tables, &collection, options.mode());
    let summary = engine::run_phase(connection, &mut job, options, recorder.as_mut(), |_, _, decided| {
        for row in &decided.rows {
            put(row, row.fate.name(), options.execute && row.fate == Fate::Rekey);
        }
    })?;
    for row in job.failed() {
        put(&row, "failed", false);
    }
    if let Some(recorder) = &mut recorder {
        recorder.phase = 1;
        recorder.finish_function(connection, &summary.counters.values(), summary.rows, summary.batches);
    }
    Ok(())
}

fn new_run<'n>(tables: &Tables, collection: &Collection, options: &Options) -> NewRun<'n> {
    let mut given = vec![("collection_uuid", uuid::Uuid::from_bytes(collection.uuid).to_string())];
    given.extend(collection.name.clone().map(|name| ("collection_name", name)));
    NewRun {
        job: REKEY,
        mode: RunMode::Function,
        batch: options.batch,
        options: given,
        relations: tables.names(),
        phases: &["keys"],
        bounds: vec![None],
        counter_names: Counters::names(),
        rows_total: None,
    }
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
