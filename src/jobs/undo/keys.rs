//! Canonical keys that a run gave or took away.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use media_assets_core::jobs::lesson::parse_asset_id;

use super::{Counters, Element, Fate, Kind};
use crate::engine::key_set::within_memory;
use crate::engine::relation::Relation;
use crate::engine::Stale;
use crate::error::Result;
use crate::jobs::asset_keys::KEY_SET;
use crate::jobs::wrong_keys::KEY_RELEASED;
use crate::postgres::spi::{Connection, Mode, Statement};
use crate::postgres::{arrays, write_flag};

/// The two kinds of change to a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A row without key got one.
    Set,
    /// A key that did not fit was taken away.
    Released,
}

/// Rows from which a dry run would take the key that the run gave.
pub type Cleared = Rc<RefCell<HashSet<[u8; 16]>>>;

pub struct Keys {
    change: Change,
    /// `None` where nothing is given back after it.
    cleared: Option<Cleared>,
    read: Statement,
    holders: Statement,
    write: Statement,
}

impl Keys {
    pub fn new(assets: &Relation, change: Change, cleared: Option<&Cleared>) -> Self {
        let table = &assets.sql_name;
        Keys {
            change,
            cleared: cleared.map(Rc::clone),
            read: Statement::new(format!(
                "SELECT u.n, a.canonical_key::pg_catalog.text
                 FROM pg_catalog.unnest($1::pg_catalog.uuid[]) WITH ORDINALITY u(id, n) JOIN {table} a ON a.id = u.id"
            )),
            // Other rows that have the key which row n had.
            holders: Statement::new(format!(
                "SELECT u.n, h.id FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.uuid[]), pg_catalog.unnest($2)) WITH ORDINALITY u(id, before, n)
                 JOIN {table} a ON a.id = u.id
                 CROSS JOIN LATERAL (SELECT o.id FROM {table} o WHERE o.organization_id = a.organization_id
                                       AND o.canonical_key >= u.before AND o.canonical_key <= u.before ORDER BY o.canonical_key LIMIT 1) h
                 WHERE h.id <> u.id"
            )),
            write: Statement::new(format!(
                "UPDATE {table} a SET canonical_key = u.before
                 FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.uuid[]), pg_catalog.unnest($2), pg_catalog.unnest($3)) u(id, before, after)
                 WHERE a.id = u.id AND a.canonical_key::pg_catalog.text IS NOT DISTINCT FROM u.after"
            )),
        }
    }

    /// Whether a dry run, in the phase before this one, would have left the row without key.
    fn is_cleared(&self, id: Option<[u8; 16]>) -> bool {
        let cleared = self.cleared.as_ref().filter(|_| self.change == Change::Released);
        cleared
            .zip(id)
            .is_some_and(|(cleared, id)| cleared.borrow().contains(&id))
    }
}

impl Kind for Keys {
    fn action(&self) -> &'static str {
        match self.change {
            Change::Set => KEY_SET,
            Change::Released => KEY_RELEASED,
        }
    }

    fn counter<'c>(&self, counters: &'c mut Counters) -> &'c mut i64 {
        &mut counters.keys_restored
    }

    fn begin(&mut self, _: &Connection, _: Mode) -> Result<()> {
        Ok(())
    }

    fn decide(&mut self, connection: &Connection, mode: Mode, elements: &[Element]) -> Vec<Fate> {
        let mut fates = vec![Fate::Conflict("asset_gone"); elements.len()];
        let ids = || arrays::text(elements.iter().map(|element| Some(element.id.as_str()))).into();
        let rows = connection.run(&self.read, mode, &[ids()]);
        for row in 0..rows.len() {
            let Some(n) = rows.get::<i64>(row, 0) else { continue };
            let element = &elements[n as usize - 1];
            let now = rows
                .text(row, 1)
                .filter(|_| !self.is_cleared(parse_asset_id(&element.id)));
            fates[n as usize - 1] = if now == element.after {
                Fate::Undo
            } else if now == element.before {
                Fate::Already
            } else {
                Fate::Conflict("key_changed")
            };
        }
        drop(rows);
        if self.change == Change::Released {
            let before = arrays::text(elements.iter().map(|element| element.before.as_deref())).into();
            let rows = connection.run(&self.holders, mode, &[ids(), before]);
            for row in 0..rows.len() {
                let Some(n) = rows.get::<i64>(row, 0) else { continue };
                if fates[n as usize - 1] == Fate::Undo && !self.is_cleared(rows.uuid(row, 1)) {
                    fates[n as usize - 1] = Fate::Conflict("key_taken");
                }
            }
        }
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
        let parameters = [
            arrays::text(undone.iter().map(|element| Some(element.id.as_str()))).into(),
            arrays::text(undone.iter().map(|element| element.before.as_deref())).into(),
            arrays::text(undone.iter().map(|element| element.after.as_deref())).into(),
        ];
        let written = write_flag::while_writing(|| connection.run(&self.write, Mode::Write, &parameters)).len();
        if written == undone.len() {
            Ok(())
        } else {
            Err(Stale)
        }
    }

    fn remember(&mut self, elements: &[Element], fates: &[Fate]) -> Result<()> {
        let Some(cleared) = self.cleared.as_ref().filter(|_| self.change == Change::Set) else {
            return Ok(());
        };
        let mut cleared = cleared.borrow_mut();
        for (element, _) in elements.iter().zip(fates).filter(|(_, fate)| **fate == Fate::Undo) {
            if cleared.len() == cleared.capacity() {
                within_memory(cleared.capacity() * 2 * (size_of::<[u8; 16]>() + 1))?;
            }
            cleared.extend(parse_asset_id(&element.id));
        }
        Ok(())
    }
}
