//! Assets that a run made: they go, unless something uses them now.

use std::cell::RefCell;
use std::rc::Rc;

use super::references::{Going, References};
use super::uses::Uses;
use super::{Counters, Element, Fate, Kind};
use crate::engine::ledger::Ledger;
use crate::engine::relation::Relation;
use crate::engine::Stale;
use crate::error::Result;
use crate::jobs::asset_tables::Tables;
use crate::jobs::lesson_assets::undo_log::ASSET_CREATED;
use crate::postgres::spi::{Connection, Mode, Parameter, Statement};
use crate::postgres::{arrays, write_flag};

pub struct Assets {
    run_id: i64,
    ledger: Rc<Ledger>,
    tables: Rc<Tables>,
    uses: Rc<RefCell<Uses>>,
    read: Statement,
    usages: Statement,
    references: References,
    lock: Statement,
    delete: Statement,
}

impl Assets {
    pub fn new(
        connection: &Connection,
        run_id: i64,
        ledger: &Rc<Ledger>,
        tables: &Rc<Tables>,
        (assets, usages): (&Relation, &Relation),
        (uses, going): (&Rc<RefCell<Uses>>, &Rc<Going>),
    ) -> Result<Self> {
        let table = &assets.sql_name;
        Ok(Assets {
            run_id,
            ledger: Rc::clone(ledger),
            tables: Rc::clone(tables),
            uses: Rc::clone(uses),
            read: Statement::new(format!(
                "SELECT u.n, a.organization_id::pg_catalog.text
                 FROM pg_catalog.unnest($1::pg_catalog.uuid[]) WITH ORDINALITY u(id, n) JOIN {table} a ON a.id = u.id"
            )),
            usages: Statement::new(format!(
                "SELECT u.n, pg_catalog.count(*)
                 FROM pg_catalog.unnest($1::pg_catalog.uuid[]) WITH ORDINALITY u(id, n) JOIN {} s ON s.asset_id = u.id GROUP BY u.n",
                usages.sql_name
            )),
            references: References::find(connection, (assets, "id"), Some((usages, "asset_id")), going)?,
            lock: Statement::new(format!(
                "SELECT 1 FROM pg_catalog.unnest($1::pg_catalog.uuid[]) WITH ORDINALITY u(id, n) JOIN {table} a ON a.id = u.id
                 ORDER BY u.n FOR UPDATE OF a"
            )),
            delete: Statement::new(format!(
                "DELETE FROM {table} a USING pg_catalog.unnest($1::pg_catalog.uuid[]) u(id) WHERE a.id = u.id"
            )),
        })
    }
}

fn ids<'e>(elements: impl Iterator<Item = &'e Element>) -> Parameter {
    arrays::text(elements.map(|element| Some(element.id.as_str()))).into()
}

impl Kind for Assets {
    fn action(&self) -> &'static str {
        ASSET_CREATED
    }

    fn counter<'c>(&self, counters: &'c mut Counters) -> &'c mut i64 {
        &mut counters.assets_removed
    }

    fn begin(&mut self, connection: &Connection, mode: Mode) -> Result<()> {
        let mut uses = self.uses.borrow_mut();
        uses.count_items(connection, mode, &self.ledger, self.run_id, &self.tables)
    }

    fn decide(&mut self, connection: &Connection, mode: Mode, elements: &[Element]) -> Vec<Fate> {
        let uses = self.uses.borrow();
        let mut fates = vec![Fate::Already; elements.len()];
        let all = [ids(elements.iter())];
        let rows = connection.run(&self.read, mode, &all);
        for row in 0..rows.len() {
            let (Some(n), organization) = (rows.get::<i64>(row, 0), rows.text(row, 1)) else {
                continue;
            };
            let index = n as usize - 1;
            let id = media_assets_core::jobs::lesson::parse_asset_id(&elements[index].id);
            let in_lesson = id
                .zip(organization.as_deref())
                .is_some_and(|(id, organization)| uses.items(organization, id) > 0);
            fates[index] = if in_lesson {
                Fate::Conflict("in_use_by_lesson")
            } else {
                Fate::Undo
            };
        }
        drop(rows);
        let rows = connection.run(&self.usages, mode, &all);
        for row in 0..rows.len() {
            let (Some(n), Some(count)) = (rows.get::<i64>(row, 0), rows.get::<i64>(row, 1)) else {
                continue;
            };
            let index = n as usize - 1;
            let removed = media_assets_core::jobs::lesson::parse_asset_id(&elements[index].id)
                .map_or(0, |id| uses.usages_removed(id));
            if count > removed {
                fates[index] = Fate::Conflict("in_use_by_usage");
            }
        }
        drop(rows);
        let of_all: Vec<&Element> = elements.iter().collect();
        self.references.mark(connection, mode, all[0], &of_all, &mut fates);
        fates
    }

    fn write(
        &mut self,
        connection: &Connection,
        elements: &[Element],
        fates: &[Fate],
    ) -> std::result::Result<(), Stale> {
        let mut undone: Vec<&Element> = elements
            .iter()
            .zip(fates)
            .filter(|(_, fate)| **fate == Fate::Undo)
            .map(|(element, _)| element)
            .collect();
        undone.sort_unstable_by(|left, right| left.id.cmp(&right.id));
        let parameters = [ids(undone.iter().copied())];
        // A reference to a locked row has to wait: what is seen from here on is all there is.
        connection.run(&self.lock, Mode::Write, &parameters);
        if self.decide(connection, Mode::Write, elements) != fates {
            return Err(Stale);
        }
        let deleted = write_flag::while_writing(|| connection.run(&self.delete, Mode::Write, &parameters)).len();
        if deleted == undone.len() {
            Ok(())
        } else {
            Err(Stale)
        }
    }

    fn remember(&mut self, elements: &[Element], fates: &[Fate]) -> Result<()> {
        self.references.remember(&elements.iter().collect::<Vec<_>>(), fates)
    }
}
