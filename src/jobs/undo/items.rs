//! assetIds that a run wrote into the items of lessons.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use media_assets_core::json::{Json, Kind as JsonKind};

use super::uses::Uses;
use super::{Counters, Element, Fate, Kind};
use crate::engine::Stale;
use crate::error::Result;
use crate::jobs::asset_tables::Tables;
use crate::jobs::lesson_assets::undo_log::ITEM_PATCHED;
use crate::postgres::jsonb::{from_text, Jsonb};
use crate::postgres::patch::{patch, AssetId};
use crate::postgres::spi::{Connection, Mode, Statement};
use crate::postgres::{arrays, write_flag};

pub struct Items {
    tables: Rc<Tables>,
    uses: Rc<RefCell<Uses>>,
    read: Statement,
    lock: Statement,
    update_videos: Statement,
    update_documents: Statement,
    /// Organizations of the lessons of the present slice.
    organizations: HashMap<String, Option<String>>,
}

/// Columns of a lesson as they are now.
struct Lesson {
    videos: Option<Jsonb>,
    documents: Option<Jsonb>,
}

impl Lesson {
    fn column(&self, name: Option<&str>) -> Option<Jsonb> {
        match name {
            Some("videos") => self.videos,
            Some("documents") => self.documents,
            _ => None,
        }
    }
}

impl Items {
    pub fn new(tables: &Rc<Tables>, uses: &Rc<RefCell<Uses>>) -> Self {
        let id_type = tables.lesson.type_of("id");
        let (lesson, course, group) = (&tables.lesson.sql_name, &tables.course.sql_name, &tables.group.sql_name);
        let update = |column: &str| {
            Statement::new(format!(
                "UPDATE {lesson} l SET {column} = u.items FROM ROWS FROM (pg_catalog.unnest($1::{id_type}[]), pg_catalog.unnest($2)) u(id, items)
                 WHERE l.id = u.id"
            ))
        };
        Items {
            read: Statement::new(format!(
                "SELECT u.n, l.videos, l.documents, o.organization_id::pg_catalog.text
                 FROM pg_catalog.unnest($1::{id_type}[]) WITH ORDINALITY u(id, n) JOIN {lesson} l ON l.id = u.id
                 LEFT JOIN LATERAL (SELECT g.organization_id FROM {course} c JOIN {group} g ON g.id = c.group_id
                                    WHERE c.id = l.course_id LIMIT 1) o ON true"
            )),
            lock: Statement::new(format!(
                "SELECT u.n, l.videos, l.documents, NULL::pg_catalog.text
                 FROM pg_catalog.unnest($1::{id_type}[]) WITH ORDINALITY u(id, n) JOIN {lesson} l ON l.id = u.id
                 ORDER BY u.n FOR NO KEY UPDATE OF l"
            )),
            update_videos: update("videos"),
            update_documents: update("documents"),
            tables: Rc::clone(tables),
            uses: Rc::clone(uses),
            organizations: HashMap::new(),
        }
    }

    /// The lessons of the elements as they are now; gone ones are missing.
    fn lessons(
        &mut self,
        connection: &Connection,
        mode: Mode,
        elements: &[Element],
        lock: bool,
    ) -> HashMap<String, Lesson> {
        let mut ids: Vec<&str> = elements.iter().map(|element| element.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        let are_uuids = self.tables.lesson_ids_are_uuids();
        let statement = if lock { &self.lock } else { &self.read };
        let parameters = [arrays::ids(are_uuids, ids.iter().map(|id| Some(*id))).into()];
        let rows = connection.run(statement, mode, &parameters);
        let mut lessons = HashMap::new();
        for row in 0..rows.len() {
            let Some(n) = rows.get::<i64>(row, 0) else { continue };
            let id = ids[n as usize - 1].to_owned();
            if !lock {
                self.organizations.insert(id.clone(), rows.text(row, 3));
            }
            let copied = |column: Option<Jsonb>| column.map(Jsonb::copied);
            lessons.insert(
                id,
                Lesson {
                    videos: copied(rows.get(row, 1)),
                    documents: copied(rows.get(row, 2)),
                },
            );
        }
        lessons
    }
}

fn fate(element: &Element, lessons: &HashMap<String, Lesson>) -> Fate {
    let Some(lesson) = lessons.get(&element.id) else {
        return Fate::Conflict("lesson_gone");
    };
    let position = element.position.and_then(|position| usize::try_from(position).ok());
    let column = lesson.column(element.column.as_deref());
    let item = column.as_ref().zip(position).and_then(|(column, position)| {
        column
            .value()
            .at(position)
            .filter(|item| item.kind() == JsonKind::Object)
    });
    let Some(item) = item else {
        return Fate::Conflict("item_gone");
    };
    let now = item.get("assetId");
    let written = element.asset.map(|asset| uuid::Uuid::from_bytes(asset).to_string());
    if now.and_then(Json::as_str).as_deref() == written.as_deref() {
        return Fate::Undo;
    }
    if now.map(|now| now.to_text()) == element.before {
        return Fate::Already;
    }
    Fate::Conflict("item_changed")
}

impl Kind for Items {
    fn action(&self) -> &'static str {
        ITEM_PATCHED
    }

    fn counter<'c>(&self, counters: &'c mut Counters) -> &'c mut i64 {
        &mut counters.items_restored
    }

    fn begin(&mut self, _: &Connection, _: Mode) -> Result<()> {
        Ok(())
    }

    fn decide(&mut self, connection: &Connection, mode: Mode, elements: &[Element]) -> Vec<Fate> {
        self.organizations.clear();
        let lessons = self.lessons(connection, mode, elements, false);
        elements.iter().map(|element| fate(element, &lessons)).collect()
    }

    fn write(
        &mut self,
        connection: &Connection,
        elements: &[Element],
        fates: &[Fate],
    ) -> std::result::Result<(), Stale> {
        let lessons = self.lessons(connection, Mode::Write, elements, true);
        if elements
            .iter()
            .zip(fates)
            .any(|(element, decided)| fate(element, &lessons) != *decided)
        {
            return Err(Stale);
        }
        let mut places: HashMap<(&str, &str), HashMap<usize, AssetId>> = HashMap::new();
        for (element, _) in elements.iter().zip(fates).filter(|(_, fate)| **fate == Fate::Undo) {
            let (Some(column), Some(position)) = (element.column.as_deref(), element.position) else {
                continue;
            };
            let value = match &element.before {
                Some(text) => AssetId::Restore(from_text(text)),
                None => AssetId::Remove,
            };
            let items = places.entry((element.id.as_str(), column)).or_default();
            items.insert(position as usize, value);
        }
        for (name, statement) in [("videos", &self.update_videos), ("documents", &self.update_documents)] {
            let mut rows: Vec<(&str, Jsonb)> = places
                .iter()
                .filter(|((_, column), _)| *column == name)
                .filter_map(|((id, column), items)| {
                    let now = lessons.get(*id)?.column(Some(column))?;
                    Some((*id, patch(now, |index| items.get(&index).copied())))
                })
                .collect();
            if rows.is_empty() {
                continue;
            }
            rows.sort_unstable_by_key(|(id, _)| *id);
            let are_uuids = self.tables.lesson_ids_are_uuids();
            let parameters = [
                arrays::ids(are_uuids, rows.iter().map(|(id, _)| Some(*id))).into(),
                arrays::jsonb(rows.iter().map(|(_, items)| Some(items.datum()))).into(),
            ];
            let written = write_flag::while_writing(|| connection.run(statement, Mode::Write, &parameters)).len();
            if written != rows.len() {
                return Err(Stale);
            }
        }
        Ok(())
    }

    fn remember(&mut self, elements: &[Element], fates: &[Fate]) -> Result<()> {
        let mut uses = self.uses.borrow_mut();
        for (element, _) in elements.iter().zip(fates).filter(|(_, fate)| **fate == Fate::Undo) {
            if let (Some(asset), Some(Some(organization))) = (element.asset, self.organizations.get(&element.id)) {
                uses.item_restored(organization, asset)?;
            }
        }
        Ok(())
    }
}
