//! Usages that a run made.

use std::cell::RefCell;
use std::rc::Rc;

use super::references::References;
use super::uses::Uses;
use super::{Counters, Element, Fate, Kind};
use crate::engine::relation::Relation;
use crate::engine::Stale;
use crate::error::Result;
use crate::jobs::lesson_assets::undo_log::USAGE_CREATED;
use crate::postgres::spi::{Connection, Mode, Parameter, Statement};
use crate::postgres::{arrays, write_flag};

pub struct Usages {
    uses: Rc<RefCell<Uses>>,
    ids_are_uuids: bool,
    read: Statement,
    references: References,
    lock: Statement,
    delete: Statement,
}

impl Usages {
    /// # Errors
    /// 42501 when a table that refers to usages cannot be seen whole.
    pub fn new(connection: &Connection, usages: &Relation, uses: &Rc<RefCell<Uses>>) -> Result<Self> {
        let id_type = usages.type_of("id");
        let table = &usages.sql_name;
        Ok(Usages {
            uses: Rc::clone(uses),
            ids_are_uuids: usages.is_of_type("id", pgrx::pg_sys::UUIDOID),
            read: Statement::new(format!(
                "SELECT u.n, s.asset_id FROM pg_catalog.unnest($1::{id_type}[]) WITH ORDINALITY u(id, n) JOIN {table} s ON s.id = u.id"
            )),
            references: References::find(connection, usages, None)?,
            lock: Statement::new(format!(
                "SELECT 1 FROM pg_catalog.unnest($1::{id_type}[]) WITH ORDINALITY u(id, n) JOIN {table} s ON s.id = u.id
                 ORDER BY s.id FOR UPDATE OF s"
            )),
            delete: Statement::new(format!(
                "DELETE FROM {table} s USING ROWS FROM (pg_catalog.unnest($1::{id_type}[]), pg_catalog.unnest($2)) u(id, asset)
                 WHERE s.id = u.id AND s.asset_id = u.asset"
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
        let rows = connection.run(&self.read, mode, &[self.ids(elements.iter())]);
        for row in 0..rows.len() {
            if let Some(n) = rows.get::<i64>(row, 0) {
                let index = n as usize - 1;
                fates[index] = if rows.uuid(row, 1) == elements[index].asset {
                    Fate::Undo
                } else {
                    Fate::Conflict("usage_changed")
                };
            }
        }
        drop(rows);
        self.references
            .mark(connection, mode, self.ids(elements.iter()), &mut fates);
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
        let parameters = [
            self.ids(undone.iter().copied()),
            arrays::uuid(undone.iter().map(|element| element.asset)).into(),
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
        Ok(())
    }
}
