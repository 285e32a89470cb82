//! Writing a decided slice: a handful of statements over arrays, in an order that cannot deadlock with itself.
//!
//! What is inserted was looked up just before and found missing. Should another session be first all the same, the unique
//! constraint fails the slice's savepoint and the slice is decided again, from what that session wrote. That is a fifth
//! cheaper than ON CONFLICT DO NOTHING, which probes every row twice and confirms each in the WAL, for a case that one
//! run in thousands meets.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use media_assets_core::jobs::lesson::{AssetId, Description, Media, Normalized, Outcome, Slot};

use super::known::find_by_key;
use super::read::Lesson;
use super::undo_log::{place_hash, Patched, PatchedColumns, UsageId, ANYWHERE};
use super::{Decided, Item};
use crate::engine::Stale;
use crate::jobs::asset_tables::{Tables, ASSET_COLUMNS};
use crate::postgres::jsonb::{from_text, Jsonb, JsonbRef};
use crate::postgres::patch::patch_asset_ids;
use crate::postgres::spi::{Connection, Mode, Parameter, Statement};
use crate::postgres::{arrays, write_flag};

/// The statements that write.
pub struct Writer {
    ids_are_uuids: bool,
    organizations_are_uuids: bool,
    lock_lessons: Statement,
    /// `None` where a foreign key does the same when the usage is inserted.
    share_assets: Option<Statement>,
    insert_assets: Statement,
    find_assets: Statement,
    insert_usages: Statement,
    /// The id of a usage is ours when its column is a uuid without default.
    makes_usage_ids: bool,
    usage_ids_are_uuids: bool,
    update_videos: Statement,
    update_documents: Statement,
    update_both: Statement,
}

impl Writer {
    pub fn new(connection: &Connection, tables: &Tables) -> Option<Self> {
        let (assets, usages) = (tables.assets.as_ref()?, tables.usages.as_ref()?);
        let lesson = &tables.lesson.sql_name;
        let id_type = tables.lesson.type_of("id");
        // Functions side by side in a SELECT list advance together, without the tuple store that each would fill in FROM.
        // One column is a constant; every other one is an array, cast to the column's own type without its length, so
        // that a value that is too long is an error and not cut.
        let arrays: Vec<&str> = ASSET_COLUMNS.into_iter().filter(|column| *column != "status").collect();
        let unnested: Vec<String> = arrays
            .iter()
            .enumerate()
            .map(|(n, column)| format!("pg_catalog.unnest(${}) AS {column}", n + 1))
            .collect();
        let values: Vec<String> = ASSET_COLUMNS
            .into_iter()
            .map(|column| match column {
                "status" => format!("'active'::{}", assets.type_of(column)),
                _ => format!("u.{column}::{}", assets.type_of(column)),
            })
            .collect();
        let insert_assets = format!(
            "INSERT INTO {} ({}) SELECT {} FROM (SELECT {}) u RETURNING id",
            assets.sql_name,
            ASSET_COLUMNS.join(", "),
            values.join(", "),
            unnested.join(", "),
        );
        let makes_usage_ids = usages
            .columns
            .get("id")
            .is_some_and(|id| id.sql_type == "uuid" && !id.has_default);
        let usage_ids_are_uuids = usages.is_of_type("id", pgrx::pg_sys::UUIDOID);
        let id_back = if usage_ids_are_uuids {
            "id"
        } else {
            "id::pg_catalog.text"
        };
        let (id_column, id_value) = if makes_usage_ids { ("id, ", "u.id, ") } else { ("", "") };
        let insert_usages = format!(
            "INSERT INTO {table} ({id_column}organization_id, asset_id, target_type, target_id, slot_type, position)
             SELECT {id_value}u.organization_id, u.asset_id, 'lesson', u.target_id, u.slot_type, u.place
             FROM (SELECT pg_catalog.unnest($1::{organization}[]) AS organization_id, pg_catalog.unnest($2) AS asset_id,
                          pg_catalog.unnest($3::{target}[]) AS target_id, pg_catalog.unnest($4::{slot}[]) AS slot_type,
                          pg_catalog.unnest($5) AS place, pg_catalog.unnest($6) AS id) u
             RETURNING {id_back}, asset_id",
            table = usages.sql_name,
            organization = usages.type_of("organization_id"),
            target = usages.type_of("target_id"),
            slot = usages.type_of("slot_type"),
        );
        let update = |set: &str, columns: &str, unnested: &str| {
            Statement::new(format!(
                "UPDATE {lesson} l SET {set} FROM ROWS FROM (pg_catalog.unnest($1::{id_type}[]), {unnested}) u(id, {columns}) WHERE l.id = u.id"
            ))
        };
        Some(Writer {
            ids_are_uuids: tables.lesson_ids_are_uuids(),
            organizations_are_uuids: tables.organizations_are_uuids(),
            lock_lessons: Statement::new(format!(
                "SELECT u.n, l.course_id::pg_catalog.text, l.videos, l.documents
                 FROM pg_catalog.unnest($1::{id_type}[]) WITH ORDINALITY u(id, n) JOIN {lesson} l ON l.id = u.id
                 ORDER BY u.n FOR NO KEY UPDATE OF l"
            )),
            share_assets: (!usages.references(connection, assets)).then(|| {
                Statement::new(format!(
                    "SELECT 1 FROM pg_catalog.unnest($1) WITH ORDINALITY u(id, n) JOIN {} a ON a.id = u.id
                     ORDER BY u.n FOR KEY SHARE OF a",
                    assets.sql_name
                ))
            }),
            insert_assets: Statement::new(insert_assets),
            find_assets: find_by_key(assets),
            insert_usages: Statement::new(insert_usages),
            makes_usage_ids,
            usage_ids_are_uuids,
            update_videos: update("videos = u.videos", "videos", "pg_catalog.unnest($2)"),
            update_documents: update("documents = u.documents", "documents", "pg_catalog.unnest($2)"),
            update_both: update(
                "videos = u.videos, documents = u.documents",
                "videos, documents",
                "pg_catalog.unnest($2), pg_catalog.unnest($3)",
            ),
        })
    }

    /// Writes what was decided for the slice.
    ///
    /// # Errors
    /// [`Stale`] when a lesson changed since it was read, a reused asset has gone, or another session was first.
    pub fn write(&self, connection: &Connection, decided: &mut Decided) -> Result<(), Stale> {
        write_flag::while_writing(|| {
            self.lock(connection, decided)?;
            self.share(connection, decided)?;
            let renamed = self.create_assets(connection, decided)?;
            if !renamed.is_empty() {
                decided.rename_assets(&renamed);
            }
            decided.written.usages = self.create_usages(connection, decided)?;
            decided.written.patched = self.patch(connection, decided)?;
            Ok(())
        })
    }

    /// Locks the lessons that have something to write and looks whether they are as they were read.
    fn lock(&self, connection: &Connection, decided: &Decided) -> Result<(), Stale> {
        let lessons: Vec<&Lesson> = decided
            .each_lesson()
            .filter(|(_, items)| items.iter().any(Item::has_writes))
            .map(|(lesson, _)| lesson)
            .collect();
        let parameters = [arrays::ids(
            self.ids_are_uuids,
            lessons.iter().map(|lesson| Some(lesson.id.as_str())),
        )
        .into()];
        let rows = connection.run(&self.lock_lessons, Mode::Write, &parameters);
        if rows.len() != lessons.len() {
            return Err(Stale);
        }
        let same = |read: Option<Jsonb>, now: Option<Jsonb>| match (read, now) {
            (None, None) => true,
            (Some(read), Some(now)) => read.same_bytes(now),
            _ => false,
        };
        for (row, lesson) in lessons.iter().enumerate() {
            if rows.text(row, 1) != lesson.course
                || !same(lesson.videos, rows.get(row, 2))
                || !same(lesson.documents, rows.get(row, 3))
            {
                return Err(Stale);
            }
        }
        Ok(())
    }

    /// Keeps the reused assets that get a usage from being deleted meanwhile.
    pub fn share(&self, connection: &Connection, decided: &Decided) -> Result<(), Stale> {
        let Some(share_assets) = &self.share_assets else {
            return Ok(());
        };
        let created: HashSet<AssetId> = decided
            .creating
            .iter()
            .filter_map(|index| asset_of(&decided.items[*index]))
            .collect();
        let mut reused: Vec<AssetId> = decided
            .items
            .iter()
            .filter(|item| item.has_writes())
            .filter_map(asset_of)
            .filter(|id| !created.contains(id))
            .collect();
        reused.sort_unstable();
        reused.dedup();
        if reused.is_empty() {
            return Ok(());
        }
        let parameters = [arrays::uuid(reused.iter().map(|id| Some(*id))).into()];
        expect(
            connection.run(share_assets, Mode::Write, &parameters).len(),
            reused.len(),
        )
    }

    /// Gives the ids that a trigger of the user's replaced, by ours.
    pub fn create_assets(
        &self,
        connection: &Connection,
        decided: &Decided,
    ) -> Result<HashMap<AssetId, AssetId>, Stale> {
        let mut new: Vec<(&str, &Media<'static, JsonbRef<'static>>, AssetId)> = decided
            .creating
            .iter()
            .filter_map(|index| {
                let item = &decided.items[*index];
                let organization = decided.lessons[item.lesson].organization.as_deref()?;
                match &item.normalized {
                    Normalized::Eligible(media) => Some((organization, media.as_ref(), asset_of(item)?)),
                    Normalized::Skipped { .. } => None,
                }
            })
            .collect();
        if new.is_empty() {
            return Ok(HashMap::new());
        }
        new.sort_unstable_by(|left, right| (left.0, &left.1.canonical_key).cmp(&(right.0, &right.1.canonical_key)));
        let described: Vec<Description<'static>> = new.iter().map(|(_, media, _)| media.describe()).collect();
        let text = |of: for<'d> fn(&'d Description<'static>) -> &'d Option<Cow<'static, str>>| -> Parameter {
            arrays::text(described.iter().map(|described| of(described).as_deref())).into()
        };
        let empty = from_text("{}").datum();
        // In the order of ASSET_COLUMNS, without status.
        let parameters: [Parameter; 17] = [
            arrays::uuid(new.iter().map(|(.., id)| Some(*id))).into(),
            arrays::ids(
                self.organizations_are_uuids,
                new.iter().map(|(organization, ..)| Some(*organization)),
            )
            .into(),
            arrays::text(new.iter().map(|(_, media, _)| Some(media.kind))).into(),
            arrays::text(new.iter().map(|(_, media, _)| Some(media.provider))).into(),
            arrays::text(new.iter().map(|(_, media, _)| Some(media.storage_provider))).into(),
            arrays::text(new.iter().map(|(_, media, _)| media.storage_key.as_deref())).into(),
            arrays::text(new.iter().map(|(_, media, _)| media.source_url.as_deref())).into(),
            arrays::text(new.iter().map(|(_, media, _)| media.mime_type.as_deref())).into(),
            arrays::int8(new.iter().map(|(_, media, _)| media.byte_size())).into(),
            text(|described| &described.title),
            text(|described| &described.description),
            text(|described| &described.thumbnail_url),
            arrays::int4(described.iter().map(|described| described.duration_seconds)).into(),
            text(|described| &described.aspect_ratio),
            arrays::boolean(new.iter().map(|(_, media, _)| Some(media.is_external))).into(),
            arrays::jsonb(
                new.iter()
                    .map(|(_, media, _)| Some(media.metadata.map_or(empty, JsonbRef::to_datum))),
            )
            .into(),
            arrays::text(new.iter().map(|(_, media, _)| Some(media.canonical_key.as_str()))).into(),
        ];
        let rows = connection.run(&self.insert_assets, Mode::Write, &parameters);
        expect(rows.len(), new.len())?;
        let ours: HashSet<AssetId> = new.iter().map(|(.., id)| *id).collect();
        if (0..rows.len()).all(|row| rows.uuid(row, 0).is_some_and(|id| ours.contains(&id))) {
            return Ok(HashMap::new());
        }
        let found = connection.run(&self.find_assets, Mode::Write, &[parameters[1], parameters[16]]);
        expect(found.len(), new.len())?;
        Ok((0..found.len())
            .filter_map(|row| Some((new[found.get::<i64>(row, 0)? as usize - 1].2, found.uuid(row, 1)?)))
            .collect())
    }

    /// Gives the new usages' ids, each with its asset and its place.
    pub fn create_usages(
        &self,
        connection: &Connection,
        decided: &Decided,
    ) -> Result<Vec<(UsageId, AssetId, i32)>, Stale> {
        let new: Vec<(&Item, AssetId)> = decided
            .items
            .iter()
            .filter(|item| !item.usage_exists)
            .filter_map(|item| Some((item, asset_of(item)?)))
            .collect();
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let lesson = |item: &Item| &decided.lessons[item.lesson];
        let ids = new
            .iter()
            .map(|_| self.makes_usage_ids.then(|| *uuid::Uuid::now_v7().as_bytes()));
        let parameters = [
            arrays::ids(
                self.organizations_are_uuids,
                new.iter().map(|(item, _)| lesson(item).organization.as_deref()),
            )
            .into(),
            arrays::uuid(new.iter().map(|(_, asset)| Some(*asset))).into(),
            arrays::text(new.iter().map(|(item, _)| Some(lesson(item).id.as_str()))).into(),
            arrays::text(new.iter().map(|(item, _)| Some(item.slot.name()))).into(),
            arrays::int4(new.iter().map(|(item, _)| Some(item.position))).into(),
            arrays::uuid(ids).into(),
        ];
        let rows = connection.run(&self.insert_usages, Mode::Write, &parameters);
        expect(rows.len(), new.len())?;
        Ok((0..rows.len())
            .filter_map(|row| {
                let id = if self.usage_ids_are_uuids {
                    UsageId::Uuid(rows.uuid(row, 0)?)
                } else {
                    UsageId::Text(rows.text(row, 0)?)
                };
                // Rows come back in the order in which they went in.
                let (item, asset) = new[row];
                let place = place_hash("lesson", &lesson(item).id, item.slot.name(), item.position);
                let given = rows.uuid(row, 1)?;
                Some((id, given, if given == asset { place } else { ANYWHERE }))
            })
            .collect())
    }

    /// Gives the new columns of the lessons that were patched.
    pub fn patch(&self, connection: &Connection, decided: &Decided) -> Result<Patched, Stale> {
        let mut all = Patched::new();
        for (index, (lesson, items)) in decided.each_lesson().enumerate() {
            let patched = |slot, column: Option<Jsonb>| {
                let ids = patches(items, slot);
                column
                    .filter(|_| ids.iter().any(Option::is_some))
                    .map(|column| patch_asset_ids(column, &ids))
            };
            let columns = (
                patched(Slot::Video, lesson.videos),
                patched(Slot::Document, lesson.documents),
            );
            if columns.0.is_some() || columns.1.is_some() {
                all.insert(index, columns);
            }
        }
        // In the order of the page, in which the lessons were locked.
        let rows: Vec<(&str, &PatchedColumns)> = all
            .iter()
            .map(|(index, columns)| (decided.lessons[*index].id.as_str(), columns))
            .collect();
        let ids = |rows: &[(&str, &PatchedColumns)]| -> Parameter {
            arrays::ids(self.ids_are_uuids, rows.iter().map(|(id, _)| Some(*id))).into()
        };
        let column = |rows: &[(&str, &PatchedColumns)], of: fn(&PatchedColumns) -> Option<Jsonb>| -> Parameter {
            arrays::jsonb(rows.iter().map(|(_, columns)| of(columns).map(Jsonb::datum))).into()
        };
        let (both, single): (Vec<_>, Vec<_>) = rows
            .into_iter()
            .partition(|(_, columns)| columns.0.is_some() && columns.1.is_some());
        let (videos, documents): (Vec<_>, Vec<_>) = single.into_iter().partition(|(_, columns)| columns.0.is_some());
        if !videos.is_empty() {
            let parameters = [ids(&videos), column(&videos, |columns| columns.0)];
            expect(
                connection.run(&self.update_videos, Mode::Write, &parameters).len(),
                videos.len(),
            )?;
        }
        if !documents.is_empty() {
            let parameters = [ids(&documents), column(&documents, |columns| columns.1)];
            expect(
                connection.run(&self.update_documents, Mode::Write, &parameters).len(),
                documents.len(),
            )?;
        }
        if !both.is_empty() {
            let parameters = [
                ids(&both),
                column(&both, |columns| columns.0),
                column(&both, |columns| columns.1),
            ];
            expect(
                connection.run(&self.update_both, Mode::Write, &parameters).len(),
                both.len(),
            )?;
        }
        Ok(all)
    }
}

impl Writer {
    /// Whether a foreign key keeps an asset with a usage from going.
    pub fn usages_keep_assets(&self) -> bool {
        self.share_assets.is_none()
    }

    /// Writes the media columns of one lesson that are given.
    pub fn set_media(&self, connection: &Connection, id: &str, videos: Option<Jsonb>, documents: Option<Jsonb>) {
        for (statement, column) in [(&self.update_videos, videos), (&self.update_documents, documents)] {
            if let Some(column) = column {
                let parameters = [
                    arrays::ids(self.ids_are_uuids, std::iter::once(Some(id))).into(),
                    arrays::jsonb(std::iter::once(Some(column.datum()))).into(),
                ];
                connection.run(statement, Mode::Write, &parameters);
            }
        }
    }
}

fn expect(rows: usize, wanted: usize) -> Result<(), Stale> {
    if rows == wanted {
        Ok(())
    } else {
        Err(Stale)
    }
}

pub fn asset_of(item: &Item) -> Option<AssetId> {
    match item.outcome {
        Outcome::Eligible { asset, .. } => asset.id,
        Outcome::Skipped(_) => None,
    }
}

/// The ids to write into a column's items, by position.
fn patches(items: &[Item], slot: Slot) -> Vec<Option<AssetId>> {
    items
        .iter()
        .filter(|item| item.slot == slot)
        .map(|item| match item.outcome {
            Outcome::Eligible { asset, patch: true, .. } => asset.id,
            _ => None,
        })
        .collect()
}
