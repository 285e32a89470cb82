//! Usages that a run made.

use std::cell::RefCell;
use std::rc::Rc;

use super::references::{Going, References};
use super::uses::Uses;
use super::{Counters, Element, Fate, Kind};
use crate::engine::relation::Relation;
use crate::engine::Stale;
use crate::error::Result;
use crate::jobs::lesson_assets::undo_log::{place_hash, ANYWHERE, USAGE_CREATED};
use crate::postgres::spi::{Connection, Mode, Parameter, Statement};
use crate::postgres::{arrays, write_flag};

/// Target type, target, slot, position.
type Place = (String, String, String, i32);

pub struct Usages {
    uses: Rc<RefCell<Uses>>,
    ids_are_uuids: bool,
    /// Where the usages of the present slice are now.
    places: Vec<Option<Place>>,
    read: Statement,
    references: References,
    lock: Statement,
    delete: Statement,
}

impl Usages {
    /// # Errors
    /// 42501 when a table that refers to usages cannot be seen whole.
    pub fn new(
        connection: &Connection,
        usages: &Relation,
        uses: &Rc<RefCell<Uses>>,
        going: &Rc<Going>,
    ) -> Result<Self> {
        let id_type = usages.type_of("id");
        let table = &usages.sql_name;
        Ok(Usages {
            uses: Rc::clone(uses),
            ids_are_uuids: usages.is_of_type("id", pgrx::pg_sys::UUIDOID),
            read: Statement::new(format!(
                "SELECT u.n, s.asset_id, s.target_type::pg_catalog.text, s.target_id::pg_catalog.text, s.slot_type::pg_catalog.text,
                        s.position::pg_catalog.int4
                 FROM pg_catalog.unnest($1::{id_type}[]) WITH ORDINALITY u(id, n) JOIN {table} s ON s.id = u.id"
            )),
            places: Vec::new(),
            references: References::find(connection, (usages, "id"), None, going)?,
            lock: Statement::new(format!(
                "SELECT 1 FROM pg_catalog.unnest($1::{id_type}[]) WITH ORDINALITY u(id, n) JOIN {table} s ON s.id = u.id
                 ORDER BY s.id FOR UPDATE OF s"
            )),
            delete: Statement::new(format!(
                "DELETE FROM {table} s USING ROWS FROM (pg_catalog.unnest($1::{id_type}[]), pg_catalog.unnest($2), pg_catalog.unnest($3),
                     pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6)) u(id, asset, target_type, target_id, slot_type, place)
                 WHERE s.id = u.id AND s.asset_id = u.asset AND s.target_type::pg_catalog.text = u.target_type
                   AND s.target_id::pg_catalog.text = u.target_id AND s.slot_type::pg_catalog.text = u.slot_type
                   AND s.position::pg_catalog.int4 = u.place"
            )),
        })
    }

    fn ids<'e>(&self, elements: impl Iterator<Item = &'e Element>) -> Parameter {
        arrays::ids(self.ids_are_uuids, elements.map(|element| Some(element.id.as_str()))).into()
    }
}

impl Kind for Usages {
    fn action(&self) -> &'static str {
        USAGE_CREATED
    }

    fn counter<'c>(&self, counters: &'c mut Counters) -> &'c mut i64 {
        &mut counters.usages_removed
    }

    fn begin(&mut self, _: &Connection, _: Mode) -> Result<()> {
        Ok(())
    }

    fn decide(&mut self, connection: &Connection, mode: Mode, elements: &[Element]) -> Vec<Fate> {
        let mut fates = vec![Fate::Already; elements.len()];
        self.places = vec![None; elements.len()];
        let rows = connection.run(&self.read, mode, &[self.ids(elements.iter())]);
        for row in 0..rows.len() {
            if let Some(n) = rows.get::<i64>(row, 0) {
                let index = n as usize - 1;
                let text = |column| rows.text(row, column);
                self.places[index] = text(2)
                    .zip(text(3))
                    .zip(text(4))
                    .zip(rows.get(row, 5))
                    .map(|(((target_type, target), slot), position)| (target_type, target, slot, position));
                let is_there = self.places[index]
                    .as_ref()
                    .is_some_and(|(target_type, target, slot, position)| {
                        let now = place_hash(target_type, target, slot, *position);
                        elements[index]
                            .place
                            .is_none_or(|place| place == now || place == ANYWHERE)
                    });
                fates[index] = if is_there && rows.uuid(row, 1) == elements[index].asset {
                    Fate::Undo
                } else {
                    Fate::Conflict("usage_changed")
                };
            }
        }
        drop(rows);
        let all: Vec<&Element> = elements.iter().collect();
        self.references
            .mark(connection, mode, self.ids(elements.iter()), &all, &mut fates);
        fates
    }

    fn write(
        &mut self,
        connection: &Connection,
        elements: &[Element],
        fates: &[Fate],
    ) -> std::result::Result<(), Stale> {
        let undone: Vec<&Element> = elements
            .iter()
            .zip(fates)
            .filter(|(_, fate)| **fate == Fate::Undo)
            .map(|(element, _)| element)
            .collect();
        if !self.references.is_empty() {
            // A reference to a locked row has to wait: what is seen from here on is all there is.
            connection.run(&self.lock, Mode::Write, &[self.ids(undone.iter().copied())]);
            if self.decide(connection, Mode::Write, elements) != fates {
                return Err(Stale);
            }
        }
        let places: Vec<&Place> = self
            .places
            .iter()
            .zip(fates)
            .filter(|(_, fate)| **fate == Fate::Undo)
            .filter_map(|(place, _)| place.as_ref())
            .collect();
        let parameters = [
            self.ids(undone.iter().copied()),
            arrays::uuid(undone.iter().map(|element| element.asset)).into(),
            arrays::text(places.iter().map(|place| Some(place.0.as_str()))).into(),
            arrays::text(places.iter().map(|place| Some(place.1.as_str()))).into(),
            arrays::text(places.iter().map(|place| Some(place.2.as_str()))).into(),
            arrays::int4(places.iter().map(|place| Some(place.3))).into(),
        ];
        let deleted = write_flag::while_writing(|| connection.run(&self.delete, Mode::Write, &parameters)).len();
        if deleted == undone.len() {
            Ok(())
        } else {
            Err(Stale)
        }
    }

    fn remember(&mut self, elements: &[Element], fates: &[Fate]) -> Result<()> {
        let mut uses = self.uses.borrow_mut();
        for (element, _) in elements.iter().zip(fates).filter(|(_, fate)| **fate == Fate::Undo) {
            if let Some(asset) = element.asset {
                uses.usage_removed(asset)?;
            }
        }
        self.references.remember(&elements.iter().collect::<Vec<_>>(), fates)
    }
}
