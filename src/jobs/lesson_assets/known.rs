//! What is known of assets and usages while a slice is decided.

use std::collections::{HashMap, HashSet};

use media_assets_core::jobs::lesson::{self, AssetId, Found, Media, Normalized};
use media_assets_core::json::Json;

use super::known_keys::{Knowledge, KnownKeys};
use super::read::Lesson;
use super::Item;
use crate::engine::key_set::{hash, Build, KeySet, KeyedRows};
use crate::engine::relation::Relation;
use crate::jobs::asset_tables::Tables;
use crate::jobs::lesson_triggers::reserved;
use crate::postgres::arrays;
use crate::postgres::spi::{Connection, Mode, Statement};

/// An asset as its row has it.
struct Stored {
    /// The hash of (organization, key); `None` for a row without key.
    key: Option<u128>,
    has_byte_size: bool,
}

/// Assets by id and by key, those of the slice's own making included.
pub struct Known<'r> {
    by_id: HashMap<u128, Stored, Build>,
    by_key: HashMap<u128, Found, Build>,
    planned: &'r KeySet,
    keyed: &'r KeyedRows,
    /// Ids that this slice gave to assets of its own making.
    created: HashSet<AssetId>,
    makes_ids: bool,
    /// An item with a reserved id is taken to have no asset yet. Where another session has made one meanwhile, the unique
    /// constraint says so.
    pub trusts_reservations: bool,
}

impl<'r> Known<'r> {
    pub fn new(planned: &'r KeySet, keyed: &'r KeyedRows, makes_ids: bool) -> Self {
        Known {
            by_id: HashMap::default(),
            by_key: HashMap::default(),
            planned,
            keyed,
            created: HashSet::new(),
            makes_ids,
            trusts_reservations: false,
        }
    }

    /// Takes for granted that an asset exists and has this key: it is not looked up.
    pub fn trust(&mut self, organization: &str, id: AssetId, canonical_key: &str) {
        let stored = Stored {
            key: Some(hash(organization, canonical_key.as_bytes())),
            has_byte_size: false,
        };
        self.by_id.insert(hash(organization, &id), stored);
    }

    pub fn of<'k>(&'k mut self, organization: &'k str) -> OfOrganization<'k, 'r> {
        OfOrganization {
            known: self,
            organization,
            created: false,
        }
    }
}

/// The view of one organization, which never sees another's assets.
pub struct OfOrganization<'k, 'r> {
    known: &'k mut Known<'r>,
    organization: &'k str,
    /// Whether an asset was created through this view.
    pub created: bool,
}

impl lesson::Known for OfOrganization<'_, '_> {
    fn by_id(&self, id: AssetId) -> Option<Found> {
        let stored = self.known.by_id.get(&hash(self.organization, &id))?;
        Some(Found {
            id: Some(id),
            has_byte_size: stored.has_byte_size,
        })
    }

    fn has_key(&self, id: AssetId, canonical_key: &str) -> bool {
        match self
            .known
            .by_id
            .get(&hash(self.organization, &id))
            .and_then(|stored| stored.key)
        {
            Some(key) => key == hash(self.organization, canonical_key.as_bytes()),
            None => self
                .known
                .keyed
                .get(self.organization, canonical_key)
                .is_some_and(|(keyed, _)| keyed == id),
        }
    }

    fn by_key(&self, canonical_key: &str) -> Option<Found> {
        if let Some(found) = self
            .known
            .by_key
            .get(&hash(self.organization, canonical_key.as_bytes()))
        {
            return Some(*found);
        }
        if let Some((id, has_byte_size)) = self.known.keyed.get(self.organization, canonical_key) {
            return Some(Found {
                id: Some(id),
                has_byte_size,
            });
        }
        let has_byte_size = self.known.planned.get(self.organization, canonical_key)?;
        Some(Found {
            id: None,
            has_byte_size,
        })
    }

    fn create<'a, J: Json<'a>>(&mut self, media: &Media<'a, J>) -> Found {
        let key = hash(self.organization, media.canonical_key.as_bytes());
        let id = self
            .known
            .makes_ids
            .then(|| media.asset_id.filter(|id| reserved::is_for(*id, key)))
            .map(|reserved| reserved.unwrap_or_else(|| *uuid::Uuid::now_v7().as_bytes()));
        let found = Found {
            id,
            has_byte_size: media.byte_size().is_some(),
        };
        self.known.by_key.insert(key, found);
        self.known.created.extend(id);
        self.created = true;
        found
    }
}

pub fn has_size(assets: &Relation) -> &'static str {
    if assets.has("byte_size") {
        "a.byte_size IS NOT NULL"
    } else {
        "false"
    }
}

/// (place in the arrays, id, has a size) of the assets with the given organizations and keys.
pub fn find_by_key(assets: &Relation) -> Statement {
    // LATERAL with LIMIT keeps the plan a nested loop over the index, whatever the statistics say; and that index is the
    // unique one, since only it has the order: an equality would leave nothing to order, and on an empty table an index on
    // organization_id alone looks as good.
    Statement::new(format!(
        "SELECT u.n, a.id, a.has_size
         FROM ROWS FROM (pg_catalog.unnest($1::{organization}[]), pg_catalog.unnest($2)) WITH ORDINALITY u(org, key, n)
         CROSS JOIN LATERAL (SELECT a.id, {has_size} AS has_size FROM {table} a
                             WHERE a.organization_id = u.org AND a.canonical_key >= u.key AND a.canonical_key <= u.key
                             ORDER BY a.canonical_key LIMIT 1) a",
        organization = assets.type_of("organization_id"),
        has_size = has_size(assets),
        table = assets.sql_name,
    ))
}

/// The statements that ask the tables; `None` where a dry run has no such table yet.
pub struct LookUps {
    organizations_are_uuids: bool,
    by_key: Option<Statement>,
    by_id: Option<Statement>,
    usage: Option<Statement>,
}

impl LookUps {
    pub fn new(tables: &Tables) -> Self {
        let keyed_assets = tables.assets.as_ref().filter(|assets| assets.has("canonical_key"));
        let by_key = keyed_assets.map(find_by_key);
        let by_id = tables.assets.as_ref().map(|assets| {
            // The organization is compared outside of LIMIT: inside, a plan made for a small table reads all assets of the
            // organization for each id.
            Statement::new(format!(
                "SELECT u.n, a.key, a.has_size
                 FROM ROWS FROM (pg_catalog.unnest($1::{organization}[]), pg_catalog.unnest($2)) WITH ORDINALITY u(org, id, n)
                 CROSS JOIN LATERAL (SELECT {key}::pg_catalog.text AS key, {has_size} AS has_size, a.organization_id FROM {table} a
                                     WHERE a.id = u.id LIMIT 1) a
                 WHERE a.organization_id = u.org",
                organization = assets.type_of("organization_id"),
                key = if assets.has("canonical_key") { "a.canonical_key" } else { "NULL" },
                has_size = has_size(assets),
                table = assets.sql_name,
            ))
        });
        let usage = tables.usages.as_ref().map(|usages| {
            Statement::new(format!(
                "SELECT u.n
                 FROM ROWS FROM (pg_catalog.unnest($1::{organization}[]), pg_catalog.unnest($2), pg_catalog.unnest($3::{target}[]),
                                 pg_catalog.unnest($4::{slot}[]), pg_catalog.unnest($5)) WITH ORDINALITY u(org, asset, target, slot, place, n)
                 CROSS JOIN LATERAL (SELECT 1 FROM {table} s
                                     WHERE s.organization_id = u.org AND s.asset_id = u.asset AND s.target_type = 'lesson'
                                       AND s.target_id = u.target AND s.slot_type = u.slot AND s.slot_key IS NULL
                                       AND s.position = u.place LIMIT 1) s",
                organization = usages.type_of("organization_id"),
                target = usages.type_of("target_id"),
                slot = usages.type_of("slot_type"),
                table = usages.sql_name,
            ))
        });
        LookUps {
            organizations_are_uuids: tables.organizations_are_uuids(),
            by_key,
            by_id,
            usage,
        }
    }

    /// Asks for the assets that the items name: by id, and by key those that no id settles.
    pub fn assets(
        &self,
        connection: &Connection,
        mode: Mode,
        lessons: &[Lesson],
        items: &[Item],
        known: &mut Known<'_>,
        keys: Option<&KnownKeys>,
    ) {
        self.by_id(connection, mode, lessons, items, known);
        self.by_key(connection, mode, lessons, items, known, keys);
    }

    fn by_id(&self, connection: &Connection, mode: Mode, lessons: &[Lesson], items: &[Item], known: &mut Known<'_>) {
        let Some(statement) = &self.by_id else { return };
        let ids: Vec<(&str, AssetId)> = items
            .iter()
            .filter_map(|item| {
                Some((
                    lessons[item.lesson].organization.as_deref()?,
                    item.normalized.asset_id()?,
                ))
            })
            .filter(|(organization, id)| known.by_id.is_empty() || !known.by_id.contains_key(&hash(organization, id)))
            .filter(|(_, id)| !known.trusts_reservations || !reserved::is_waiting(*id))
            .collect();
        if ids.is_empty() {
            return;
        }
        let parameters = [
            arrays::ids(
                self.organizations_are_uuids,
                ids.iter().map(|(organization, _)| Some(*organization)),
            )
            .into(),
            arrays::uuid(ids.iter().map(|(_, id)| Some(*id))).into(),
        ];
        let rows = connection.run(statement, mode, &parameters);
        for row in 0..rows.len() {
            if let Some(n) = rows.get::<i64>(row, 0) {
                let (organization, id) = ids[n as usize - 1];
                let key = rows.text(row, 1).map(|key| hash(organization, key.as_bytes()));
                let stored = Stored {
                    key,
                    has_byte_size: rows.get(row, 2).unwrap_or(false),
                };
                known.by_id.insert(hash(organization, &id), stored);
            }
        }
    }

    fn by_key(
        &self,
        connection: &Connection,
        mode: Mode,
        lessons: &[Lesson],
        items: &[Item],
        known: &mut Known<'_>,
        known_keys: Option<&KnownKeys>,
    ) {
        let Some(statement) = &self.by_key else { return };
        let mut keys: Vec<(&str, &str, u128)> = Vec::with_capacity(items.len());
        let mut asked = HashSet::with_capacity_and_hasher(items.len(), Build::default());
        for item in items {
            let (Some(organization), Normalized::Eligible(media)) =
                (lessons[item.lesson].organization.as_deref(), &item.normalized)
            else {
                continue;
            };
            let key = hash(organization, media.canonical_key.as_bytes());
            let settled_by_id = media
                .asset_id
                .and_then(|id| known.by_id.get(&hash(organization, &id)))
                .is_some_and(|stored| stored.key == Some(key));
            let is_reserved = known.trusts_reservations && media.asset_id.is_some_and(|id| reserved::is_for(id, key));
            if !settled_by_id
                && !is_reserved
                && asked.insert(key)
                && known.planned.get(organization, &media.canonical_key).is_none()
            {
                match known_keys.map_or(Knowledge::Unknown, |known_keys| known_keys.of(key)) {
                    Knowledge::Exists(found) => drop(known.by_key.insert(key, found)),
                    Knowledge::Missing => {}
                    Knowledge::Unknown => keys.push((organization, &media.canonical_key, key)),
                }
            }
        }
        if keys.is_empty() {
            return;
        }
        let parameters = [
            arrays::ids(
                self.organizations_are_uuids,
                keys.iter().map(|(organization, ..)| Some(*organization)),
            )
            .into(),
            arrays::text(keys.iter().map(|(_, key, _)| Some(*key))).into(),
        ];
        let rows = connection.run(statement, mode, &parameters);
        for row in 0..rows.len() {
            if let Some(n) = rows.get::<i64>(row, 0) {
                let found = Found {
                    id: rows.uuid(row, 1),
                    has_byte_size: rows.get(row, 2).unwrap_or(false),
                };
                known.by_key.insert(keys[n as usize - 1].2, found);
            }
        }
    }

    /// Marks the items whose usage exists. Assets of this slice's making have none yet.
    pub fn usages(
        &self,
        connection: &Connection,
        mode: Mode,
        lessons: &[Lesson],
        items: &mut [Item],
        known: &Known<'_>,
    ) {
        let Some(statement) = &self.usage else { return };
        let asked: Vec<(usize, AssetId)> = items
            .iter()
            .enumerate()
            .filter_map(|(index, item)| Some((index, item.outcome.existing_asset()?)))
            .filter(|(_, asset)| !known.created.contains(asset))
            .collect();
        if asked.is_empty() {
            return;
        }
        let lesson = |index: usize| &lessons[items[index].lesson];
        let parameters = [
            arrays::ids(
                self.organizations_are_uuids,
                asked.iter().map(|(index, _)| lesson(*index).organization.as_deref()),
            )
            .into(),
            arrays::uuid(asked.iter().map(|(_, asset)| Some(*asset))).into(),
            arrays::text(asked.iter().map(|(index, _)| Some(lesson(*index).id.as_str()))).into(),
            arrays::text(asked.iter().map(|(index, _)| Some(items[*index].slot.name()))).into(),
            arrays::int4(asked.iter().map(|(index, _)| Some(items[*index].position))).into(),
        ];
        let rows = connection.run(statement, mode, &parameters);
        for row in 0..rows.len() {
            if let Some(n) = rows.get::<i64>(row, 0) {
                items[asked[n as usize - 1].0].usage_exists = true;
            }
        }
    }
}
