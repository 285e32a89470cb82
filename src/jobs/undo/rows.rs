//! Rows that a run inserted: they go, unless something refers to them or they are no longer as the run made them.

use std::collections::HashMap;

use super::references::References;
use super::tables::{by_place, Keep, Keyed};
use super::{Counters, Element, Fate, Kind};
use crate::engine::journal::{row_fingerprint, ROW_INSERTED};
use crate::engine::relation::quote_ident;
use crate::engine::Stale;
use crate::error::Result;
use crate::postgres::spi::{Connection, Mode, Parameter, Statement};
use crate::postgres::{arrays, write_flag};

struct Table {
    ids_are_uuids: bool,
    read: Statement,
    references: References,
    lock: Statement,
    delete: Statement,
    keep: Keep,
}

pub struct InsertedRows {
    /// By relation, as the changes name it.
    tables: HashMap<String, Table>,
}

impl Table {
    fn new(connection: &Connection, table: &Keyed, keep: Keep) -> Result<Self> {
        let relation = &table.relation;
        let (name, key, key_type) = (&relation.sql_name, quote_ident(&table.key), table.key_type());
        let unnested = format!(
            "ROWS FROM (pg_catalog.unnest($1::{key_type}[]), pg_catalog.unnest($2), pg_catalog.unnest($3)) WITH ORDINALITY u(id, before, after, n)"
        );
        Ok(Table {
            ids_are_uuids: table.ids_are_uuids(),
            read: Statement::new(format!(
                "SELECT u.n, CASE WHEN u.after IS NOT NULL THEN {} IS NOT DISTINCT FROM u.after ELSE true END, {}
                 FROM {unnested} JOIN {name} r ON r.{key} = u.id",
                row_fingerprint("r"),
                keep.sql()
            )),
            references: References::find_on(connection, relation, &table.key, None)?,
            lock: Statement::new(format!(
                "SELECT 1 FROM {unnested} JOIN {name} r ON r.{key} = u.id ORDER BY u.n FOR UPDATE OF r"
            )),
            delete: Statement::new(format!("DELETE FROM {name} r USING {unnested} WHERE r.{key} = u.id")),
            keep,
        })
    }

    fn parameters(&self, elements: &[&Element]) -> [Parameter; 3] {
        let texts = |of: fn(&Element) -> Option<&str>| arrays::text(elements.iter().map(|element| of(element))).into();
        [
            arrays::ids(
                self.ids_are_uuids,
                elements.iter().map(|element| Some(element.id.as_str())),
            )
            .into(),
            texts(|element| element.before.as_deref()),
            texts(|element| element.after.as_deref()),
        ]
    }

    fn fates(&self, connection: &Connection, mode: Mode, elements: &[&Element]) -> Vec<Fate> {
        let mut fates = vec![Fate::Already; elements.len()];
        let parameters = self.parameters(elements);
        let rows = connection.run(&self.read, mode, &parameters);
        for row in 0..rows.len() {
            let Some(n) = rows.get::<i64>(row, 0) else { continue };
            fates[n as usize - 1] = match self.keep.reason(rows.get(row, 2)) {
                Some(reason) => Fate::Conflict(reason),
                None if rows.get(row, 1) == Some(true) => Fate::Undo,
                None => Fate::Conflict("row_changed"),
            };
        }
        drop(rows);
        self.references.mark(connection, mode, parameters[0], &mut fates);
        fates
    }
}

impl InsertedRows {
    /// `tables` are those that the run inserted into.
    ///
    /// # Errors
    /// 42501 when a table that refers to one of them cannot be seen whole.
    pub fn new(connection: &Connection, tables: Vec<(Keyed, Keep)>) -> Result<Self> {
        let tables: Result<HashMap<String, Table>> = tables
            .into_iter()
            .map(|(table, keep)| {
                let rows = Table::new(connection, &table, keep)?;
                Ok((table.recorded_as, rows))
            })
            .collect();
        Ok(InsertedRows { tables: tables? })
    }
}

impl Kind for InsertedRows {
    fn action(&self) -> &'static str {
        ROW_INSERTED
    }

    fn counter<'c>(&self, counters: &'c mut Counters) -> &'c mut i64 {
        &mut counters.rows_removed
    }

    fn begin(&mut self, _: &Connection, _: Mode) -> Result<()> {
        Ok(())
    }

    fn decide(&mut self, connection: &Connection, mode: Mode, elements: &[Element]) -> Vec<Fate> {
        let mut fates = vec![Fate::Already; elements.len()];
        for (places, group) in by_place(elements, |_| true) {
            let Some(table) = self.tables.get(&group[0].relation) else {
                continue;
            };
            for (place, fate) in places.into_iter().zip(table.fates(connection, mode, &group)) {
                fates[place] = fate;
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
        for (_, mut group) in by_place(elements, |place| fates[place] == Fate::Undo) {
            let Some(table) = self.tables.get(&group[0].relation) else {
                continue;
            };
            group.sort_unstable_by(|left, right| left.id.cmp(&right.id));
            let parameters = table.parameters(&group);
            // A reference to a locked row has to wait: what is seen from here on is all there is.
            connection.run(&table.lock, Mode::Write, &parameters);
            if table
                .fates(connection, Mode::Write, &group)
                .iter()
                .any(|fate| *fate != Fate::Undo)
            {
                return Err(Stale);
            }
            let deleted = write_flag::while_writing(|| connection.run(&table.delete, Mode::Write, &parameters)).len();
            if deleted != group.len() {
                return Err(Stale);
            }
        }
        Ok(())
    }

    fn remember(&mut self, _: &[Element], _: &[Fate]) -> Result<()> {
        Ok(())
    }
}
