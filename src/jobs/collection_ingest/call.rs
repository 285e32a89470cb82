//! One call: which collection, which part of it, and the gates that it passes before anything is read or written.

use media_assets_core::identity::enricher_checksum;
use media_assets_core::jobs::collection_ingest::{
    find_collection, Collection as Named, IngestError, Request, Scope, ScopeLevel,
};

use super::tables::Tables;
use crate::engine::relation::quote_literal;
use crate::error::{ingest_refused, invalid_argument, Result};
use crate::postgres::jsonb::Jsonb;
use crate::postgres::spi::{Connection, Mode, Parameter};

/// What a caller asks for beside the items.
#[derive(Clone, Debug)]
pub struct Asked {
    pub collection: String,
    pub title: Option<String>,
    pub season: Option<i32>,
    pub episode: Option<i32>,
    pub reconcile: bool,
    pub max_removed_fraction: f64,
    /// An argument that was NULL and must not be, and what to give: said with the other arguments, after the collection.
    pub is_null: Option<(&'static str, &'static str)>,
}

impl Asked {
    pub fn scope(&self) -> Scope<'_> {
        Scope {
            title: self.title.as_deref(),
            season: self.season,
            episode: self.episode,
        }
    }

    pub fn level(&self) -> ScopeLevel {
        self.scope().level()
    }

    pub fn request(&self) -> Request<'_> {
        Request {
            scope: self.scope(),
            reconcile: self.reconcile,
            max_removed_fraction: self.max_removed_fraction,
        }
    }
}

/// A row of `collections`.
#[derive(Clone, Debug)]
pub struct Collection {
    pub uuid: [u8; 16],
    pub name: Option<String>,
    pub source_type: String,
    pub case_sensitive: bool,
    /// The checksum of its enrichers; `None` for no enrichers.
    pub enrichers: Option<String>,
}

impl Collection {
    pub fn is_of_files(&self) -> bool {
        self.source_type.eq_ignore_ascii_case("filesystem")
    }
}

/// Finds the collection, locks its row where the run is to write, and checks what was asked for: collection,
/// prerequisites, scope, in this order.
///
/// # Errors
/// The first gate that is closed (42704, 22023, 55000), which is logged too.
pub fn open(connection: &Connection, tables: &Tables, asked: &Asked, mode: Mode) -> Result<Collection> {
    let (collection, sync_enabled, ingestible) = read(connection, tables, asked, mode)?;
    asked
        .request()
        .check(sync_enabled, ingestible)
        .map_err(|error| refused(error, asked, collection.name.as_deref().unwrap_or_default()))?;
    match asked.is_null {
        Some((name, hint)) => Err(invalid_argument(format!("{name} must not be NULL"), hint)),
        None => Ok(collection),
    }
}

/// The collection called `name`, whatever may be done with it; locked where it is to be written.
///
/// # Errors
/// 42704, 22023.
pub fn find_by_name(connection: &Connection, tables: &Tables, name: &str, mode: Mode) -> Result<Collection> {
    let asked = Asked {
        collection: name.to_owned(),
        title: None,
        season: None,
        episode: None,
        reconcile: false,
        max_removed_fraction: 0.0,
        is_null: None,
    };
    read(connection, tables, &asked, mode).map(|(collection, ..)| collection)
}

fn read(connection: &Connection, tables: &Tables, asked: &Asked, mode: Mode) -> Result<(Collection, bool, bool)> {
    let uuid = find(connection, tables, asked, mode)?;
    // Two runs of one collection go one after the other: the second waits here, and reads what the first left.
    let lock = match mode {
        Mode::Write => "FOR NO KEY UPDATE",
        Mode::Read => "",
    };
    let rows = connection.query(
        &format!(
            "SELECT c.name::pg_catalog.text, c.source_type::pg_catalog.text, COALESCE(c.case_sensitive, true),
                    COALESCE(c.sync_enabled, false), COALESCE(c.ingestible, false), c.enrichers
             FROM {} c WHERE c.uuid = $1 {lock}",
            tables.collections.sql_name
        ),
        mode,
        &[Parameter::uuid(uuid)],
    );
    if rows.is_empty() {
        return Err(refused(IngestError::CollectionNotFound, asked, ""));
    }
    let flag = |column| rows.get::<bool>(0, column).unwrap_or_default();
    let enrichers = rows
        .datum(0, 5)
        .and_then(|datum| enricher_checksum(Jsonb::of_column(datum).value()));
    let collection = Collection {
        uuid,
        name: rows.text(0, 0),
        source_type: rows.text(0, 1).unwrap_or_default(),
        case_sensitive: flag(2),
        enrichers,
    };
    Ok((collection, flag(3), flag(4)))
}

fn find(connection: &Connection, tables: &Tables, asked: &Asked, mode: Mode) -> Result<[u8; 16]> {
    let rows = connection.query(
        &format!(
            "SELECT c.uuid, c.external_id::pg_catalog.text, c.name::pg_catalog.text FROM {} c",
            tables.collections.sql_name
        ),
        mode,
        &[],
    );
    let all: Vec<([u8; 16], Option<String>, Option<String>)> = (0..rows.len())
        .filter_map(|row| Some((rows.uuid(row, 0)?, rows.text(row, 1), rows.text(row, 2))))
        .collect();
    let named: Vec<Named<'_>> = all
        .iter()
        .map(|(uuid, external_id, name)| Named {
            uuid: *uuid,
            external_id: external_id.as_deref(),
            name: name.as_deref(),
        })
        .collect();
    find_collection(&asked.collection, &named)
        .map(|index| all[index].0)
        .map_err(|error| refused(error, asked, ""))
}

/// A closed gate: logged, and raised with the facts.
pub fn refused(error: IngestError, asked: &Asked, collection: &str) -> pgrx::pg_sys::panic::ErrorReport {
    crate::postgres::message::log!(
        "media_assets run=- job={} event=refused cause={}",
        super::JOB,
        error.name()
    );
    let detail = match error {
        IngestError::CollectionNotFound | IngestError::CollectionAmbiguous => {
            format!("The collection asked for is {}.", quote_literal(&asked.collection))
        }
        IngestError::NotSyncEnabled | IngestError::NotIngestible => {
            format!("It is the collection {}.", quote_literal(collection))
        }
        _ => format!(
            "Asked for: title {}, season {}, episode {}, reconcile {}, max_removed_fraction {}.",
            asked.title.as_deref().map_or_else(|| "NULL".to_owned(), quote_literal),
            number(asked.season),
            number(asked.episode),
            asked.reconcile,
            asked.max_removed_fraction
        ),
    };
    ingest_refused(error, detail)
}

fn number(number: Option<i32>) -> String {
    number.map_or_else(|| "NULL".to_owned(), |number| number.to_string())
}
