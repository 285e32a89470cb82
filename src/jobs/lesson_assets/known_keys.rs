//! All keys of the scope, while they are few: a first run into (nearly) empty tables then looks up nothing by key.
//!
//! What this says is only believed until the tables object: a key that another session made meanwhile is a unique
//! violation, an asset that has gone a foreign-key violation, and the slice is decided again with real look-ups.

use std::collections::HashMap;

use media_assets_core::jobs::lesson::{AssetId, Found};

use crate::engine::key_set::{hash, Build};
use crate::engine::relation::Relation;
use crate::postgres::spi::{Connection, Mode};

/// Existing rows that are read at the start; more of them, and there is nothing to win.
const MOST_AT_START: i64 = 20_000;
/// Keys that are kept; about 13 MB. Beyond, every key is looked up.
const MOST: usize = 220_000;

#[derive(Default)]
pub struct KnownKeys {
    /// `None` when they are too many.
    keys: Option<HashMap<u128, Found, Build>>,
}

/// What is known of a key without asking a table.
pub enum Knowledge {
    Exists(Found),
    Missing,
    Unknown,
}

impl KnownKeys {
    /// Reads the keys of the scope, unless they are many.
    pub fn load(connection: &Connection, mode: Mode, assets: Option<&Relation>, organization: Option<&str>) -> Self {
        let Some(assets) = assets.filter(|assets| assets.has("canonical_key")) else {
            return KnownKeys {
                keys: Some(HashMap::default()),
            };
        };
        let size = if assets.has("byte_size") {
            "a.byte_size IS NOT NULL"
        } else {
            "false"
        };
        let scope = match organization {
            Some(_) => format!("a.organization_id = $2::{}", assets.type_of("organization_id")),
            None => "$2::pg_catalog.text IS NULL".to_owned(),
        };
        let rows = connection.query(
            &format!(
                "SELECT a.organization_id::pg_catalog.text, a.canonical_key::pg_catalog.text, a.id, {size}
                 FROM {} a WHERE {scope} AND a.canonical_key IS NOT NULL AND a.organization_id IS NOT NULL LIMIT $1",
                assets.sql_name
            ),
            mode,
            &[(MOST_AT_START + 1).into(), organization.into()],
        );
        if rows.len() as i64 > MOST_AT_START {
            return KnownKeys { keys: None };
        }
        let keys = (0..rows.len())
            .filter_map(|row| {
                let found = Found {
                    id: rows.uuid(row, 2),
                    has_byte_size: rows.get(row, 3).unwrap_or(false),
                };
                Some((hash(&rows.text(row, 0)?, rows.text(row, 1)?.as_bytes()), found))
            })
            .collect();
        KnownKeys { keys: Some(keys) }
    }

    pub fn of(&self, key: u128) -> Knowledge {
        match &self.keys {
            None => Knowledge::Unknown,
            Some(keys) => keys
                .get(&key)
                .map_or(Knowledge::Missing, |found| Knowledge::Exists(*found)),
        }
    }

    /// Takes note of an asset that was created and is there to stay.
    pub fn created(&mut self, organization: &str, canonical_key: &str, id: AssetId, has_byte_size: bool) {
        if let Some(keys) = &mut self.keys {
            keys.insert(
                hash(organization, canonical_key.as_bytes()),
                Found {
                    id: Some(id),
                    has_byte_size,
                },
            );
            if keys.len() > MOST {
                self.keys = None;
            }
        }
    }
}
