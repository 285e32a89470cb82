//! References that are there.

use std::collections::HashSet;

use media_assets_core::jobs::s3_assets::{AssetType, EntityType};

use super::tables::Tables;
use crate::postgres::arrays;
use crate::postgres::spi::{Connection, Mode, Statement};

/// The look-up of references that exist.
pub struct Existing {
    asset_types: &'static [AssetType],
    statement: Statement,
}

impl Existing {
    /// `None` where there are no references yet.
    pub fn new(tables: &Tables, entity: EntityType, asset_types: &'static [AssetType]) -> Option<Self> {
        let references = tables.references.as_ref()?;
        Some(Existing {
            asset_types,
            // OFFSET keeps the plan a nested loop over the unique index, whatever the statistics say. Types are told apart
            // here: each of them would be a descent of its own.
            statement: Statement::new(format!(
                "SELECT u.n, r.asset_type
                 FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) WITH ORDINALITY u(id, version, n)
                 CROSS JOIN LATERAL (SELECT r.asset_type::pg_catalog.text FROM {} r
                                     WHERE r.entity_type = '{}' AND r.entity_id = u.id AND r.version = u.version OFFSET 0) r",
                references.sql_name,
                entity.name()
            )),
        })
    }

    /// The references of entities with these ids and versions, by place and type.
    pub fn of(
        existing: Option<&Self>,
        connection: &Connection,
        mode: Mode,
        keys: &[(&str, i32)],
    ) -> HashSet<(usize, AssetType)> {
        let Some(existing) = existing.filter(|_| !keys.is_empty()) else {
            return HashSet::new();
        };
        let parameters = [
            arrays::text(keys.iter().map(|(id, _)| Some(*id))).into(),
            arrays::int4(keys.iter().map(|(_, version)| Some(*version))).into(),
        ];
        let rows = connection.run(&existing.statement, mode, &parameters);
        (0..rows.len())
            .filter_map(|row| {
                let (place, name) = (rows.get::<i64>(row, 0)?, rows.text(row, 1)?);
                let asset = existing.asset_types.iter().find(|asset| asset.name() == name)?;
                Some((place as usize - 1, *asset))
            })
            .collect()
    }
}
