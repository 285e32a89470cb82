//! The relations of an ingest, and what a run needs of them.

use pgrx::pg_sys;

use super::{ASSETS, COLLECTIONS};
use crate::engine::relation::Relation;
use crate::engine::rights;
use crate::error::Result;
use crate::jobs::asset_tables::{extension_schema, missing_columns, raise, Problem};
use crate::postgres::spi::Connection;

/// Columns of `collections` that a run reads.
const COLLECTION_COLUMNS: [&str; 8] = [
    "uuid",
    "source_type",
    "external_id",
    "name",
    "sync_enabled",
    "ingestible",
    "case_sensitive",
    "enrichers",
];

/// Columns of `collection_assets` that a run writes.
pub const WRITTEN: [&str; 24] = [
    "uuid",
    "collection_uuid",
    "canonical_key",
    "uri",
    "title",
    "season",
    "episode",
    "size",
    "mtime",
    "content_hash",
    "content_signature",
    "enricher_checksum",
    "state",
    "approved_for_broadcast",
    "duration_ms",
    "video_codec",
    "audio_codec",
    "container",
    "metadata",
    "discovered_at",
    "is_deleted",
    "deleted_at",
    "created_at",
    "updated_at",
];

/// The two tables of an ingest.
#[derive(Clone, Debug)]
pub struct Tables {
    pub collections: Relation,
    pub assets: Relation,
}

impl Tables {
    /// The tables on the caller's search_path, or those that `stored` names; with the rights that are needed, those to
    /// write only where it executes.
    ///
    /// # Errors
    /// All that is missing in one (42P01, 42703, 42804); 42501.
    pub fn load(connection: &Connection, stored: &dyn Fn(&str) -> Option<String>, execute: bool) -> Result<Self> {
        let collections = Relation::find(connection, COLLECTIONS, stored(COLLECTIONS).as_deref());
        let assets = Relation::find(connection, ASSETS, stored(ASSETS).as_deref());
        let create = format!("SELECT * FROM {}create_ingest_tables();", extension_schema(connection));
        let mut problems = Vec::new();
        for (name, relation, columns) in [
            (COLLECTIONS, &collections, &COLLECTION_COLUMNS[..]),
            (ASSETS, &assets, &WRITTEN[..]),
        ] {
            match relation {
                None => problems.push(Problem {
                    relation: name.to_owned(),
                    problem: format!("relation {name} is not on the search_path"),
                    sqlstate: "42P01",
                    ddl: create.clone(),
                    blocks: true,
                }),
                Some(relation) => missing_columns(relation, columns, &mut problems),
            }
        }
        for (relation, column, oid, name) in [
            (&collections, "uuid", pg_sys::UUIDOID, "uuid"),
            (&collections, "enrichers", pg_sys::JSONBOID, "jsonb"),
            (&assets, "uuid", pg_sys::UUIDOID, "uuid"),
            (&assets, "collection_uuid", pg_sys::UUIDOID, "uuid"),
        ] {
            let Some(relation) = relation.as_ref().filter(|relation| relation.has(column)) else {
                continue;
            };
            if !relation.is_of_type(column, oid) {
                problems.push(Problem {
                    relation: relation.sql_name.clone(),
                    problem: format!("column {column} is {}, not {name}", relation.type_of(column)),
                    sqlstate: "42804",
                    ddl: format!(
                        "ALTER TABLE {} ALTER COLUMN {column} TYPE {name} USING {column}::text::{name};",
                        relation.base_sql_name
                    ),
                    blocks: true,
                });
            }
        }
        if let Some(assets) = &assets {
            let key = ["collection_uuid", "canonical_key"];
            if key.iter().all(|column| assets.has(column))
                && !assets
                    .unique_indexes(connection, &key)
                    .iter()
                    .any(|index| !index.deferrable && !index.partial && !index.has_expressions)
            {
                problems.push(Problem {
                    relation: assets.sql_name.clone(),
                    problem: "no unique constraint on (collection_uuid, canonical_key)".to_owned(),
                    sqlstate: "55000",
                    ddl: format!(
                        "ALTER TABLE {} ADD UNIQUE (collection_uuid, canonical_key);",
                        assets.base_sql_name
                    ),
                    blocks: true,
                });
            }
        }
        raise(&problems)?;
        let (Some(collections), Some(assets)) = (collections, assets) else {
            return Err(crate::error::no_schema());
        };
        let tables = Tables { collections, assets };
        rights::check_row_security([&tables.collections, &tables.assets])?;
        rights::check_privilege(connection, &tables.collections, "SELECT", &COLLECTION_COLUMNS)?;
        rights::check_privilege(connection, &tables.assets, "SELECT", &WRITTEN)?;
        if execute {
            tables.check_writes(connection)?;
        }
        Ok(tables)
    }

    fn check_writes(&self, connection: &Connection) -> Result<()> {
        rights::check_privilege(connection, &self.collections, "UPDATE", &["last_ingest_time"])?;
        rights::check_privilege(connection, &self.assets, "INSERT", &WRITTEN)?;
        let updated: Vec<&str> = WRITTEN
            .into_iter()
            .filter(|column| {
                !matches!(
                    *column,
                    "uuid" | "collection_uuid" | "canonical_key" | "discovered_at" | "created_at"
                )
            })
            .collect();
        rights::check_privilege(connection, &self.assets, "UPDATE", &updated)
    }

    /// Names as the job calls them, each with the qualified one.
    pub fn names(&self) -> Vec<(&'static str, String)> {
        vec![
            (COLLECTIONS, self.collections.sql_name.clone()),
            (ASSETS, self.assets.sql_name.clone()),
        ]
    }
}
