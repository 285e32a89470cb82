//! Rows that a run inserted: they go, unless something refers to them or they are no longer as the run made them.

use std::rc::Rc;

use super::place::{unnested, Parameters, Place};
use super::references::{Going, References};
use super::tables::{Keep, Keyed};
use super::{Counters, Element, Fate};
use crate::engine::journal::{fingerprint, row_text, ROW_INSERTED};
use crate::engine::relation::quote_ident;
use crate::error::Result;
use crate::postgres::spi::{Connection, Mode, Statement};

/// A table that the run inserted into.
pub struct InsertedRows {
    ids_are_uuids: bool,
    read: Statement,
    references: References,
    lock: Statement,
    delete: Statement,
    keep: Keep,
}

impl InsertedRows {
    /// `content` are the columns that a row's fingerprint is made of, where the job records one.
    ///
    /// # Errors
    /// 42501 when a table that refers to this one cannot be seen whole.
    pub fn new(
        connection: &Connection,
        table: &Keyed,
        content: Option<&[&str]>,
        keep: Keep,
        going: &Rc<Going>,
    ) -> Result<Self> {
        let relation = &table.relation;
        let (name, key, unnested) = (&relation.sql_name, quote_ident(&table.key), unnested(table));
        Ok(InsertedRows {
            ids_are_uuids: table.ids_are_uuids(),
            read: Statement::new(format!(
                "SELECT u.n, {}, {} FROM {unnested} JOIN {name} r ON r.{key} = u.id",
                content.map_or_else(|| "NULL::pg_catalog.text".to_owned(), |columns| row_text("r", columns)),
                keep.sql()
            )),
            references: References::find(connection, (relation, &table.key), None, going)?,
            lock: Statement::new(format!(
                "SELECT 1 FROM {unnested} JOIN {name} r ON r.{key} = u.id ORDER BY u.n FOR UPDATE OF r"
            )),
            delete: Statement::new(format!("DELETE FROM {name} r USING {unnested} WHERE r.{key} = u.id")),
            keep,
        })
    }
}

impl Place for InsertedRows {
    const ACTION: &'static str = ROW_INSERTED;
    const UNKNOWN: Fate = Fate::Already;

    fn counter(counters: &mut Counters) -> &mut i64 {
        &mut counters.rows_removed
    }

    fn column(_: &Element) -> Option<&str> {
        None
    }

    fn ids_are_uuids(&self) -> bool {
        self.ids_are_uuids
    }

    fn fates(&self, connection: &Connection, mode: Mode, elements: &[&Element], parameters: &Parameters) -> Vec<Fate> {
        let mut fates = vec![Fate::Already; elements.len()];
        let rows = connection.run(&self.read, mode, parameters);
        for row in 0..rows.len() {
            let Some(n) = rows.get::<i64>(row, 0) else { continue };
            let index = n as usize - 1;
            // Where no fingerprint was kept, any row is as it was.
            let is_as_made = |made: &String| rows.text(row, 1).is_none_or(|text| *made == fingerprint(&text));
            fates[index] = match self.keep.reason(rows.get(row, 2)) {
                Some(reason) => Fate::Conflict(reason),
                None if elements[index].after.as_ref().is_none_or(is_as_made) => Fate::Undo,
                None => Fate::Conflict("row_changed"),
            };
        }
        drop(rows);
        self.references
            .mark(connection, mode, parameters[0], elements, &mut fates);
        fates
    }

    fn lock(&self) -> &Statement {
        &self.lock
    }

    fn take_back(&self) -> &Statement {
        &self.delete
    }

    fn remember(&self, elements: &[&Element], fates: &[Fate]) -> Result<()> {
        self.references.remember(elements, fates)
    }
}
