//! Canonical keys that a run gave or took away.

use super::{Counters, Element, Fate, Kind};
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

pub struct Keys {
    change: Change,
    read: Statement,
    write: Statement,
}

impl Keys {
    pub fn new(assets: &Relation, change: Change) -> Self {
        let table = &assets.sql_name;
        Keys {
            change,
            read: Statement::new(format!(
                "SELECT u.n, a.canonical_key::pg_catalog.text
                 FROM pg_catalog.unnest($1::pg_catalog.uuid[]) WITH ORDINALITY u(id, n) JOIN {table} a ON a.id = u.id"
            )),
            write: Statement::new(format!(
                "UPDATE {table} a SET canonical_key = u.before
                 FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.uuid[]), pg_catalog.unnest($2), pg_catalog.unnest($3)) u(id, before, after)
                 WHERE a.id = u.id AND a.canonical_key::pg_catalog.text IS NOT DISTINCT FROM u.after"
            )),
        }
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
        let ids = arrays::text(elements.iter().map(|element| Some(element.id.as_str())));
        let rows = connection.run(&self.read, mode, &[ids.into()]);
        for row in 0..rows.len() {
            let Some(n) = rows.get::<i64>(row, 0) else { continue };
            let element = &elements[n as usize - 1];
            let now = rows.text(row, 1);
            // A key that a phase before this one would have taken away again is still there in a dry run.
            let cleared = mode == Mode::Read && self.change == Change::Released && element.before.is_some();
            fates[n as usize - 1] = if now == element.after || (cleared && now != element.before) {
                Fate::Undo
            } else if now == element.before {
                Fate::Already
            } else {
                Fate::Conflict("key_changed")
            };
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

    fn remember(&mut self, _: &[Element], _: &[Fate]) -> Result<()> {
        Ok(())
    }
}
