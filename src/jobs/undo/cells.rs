//! Values of columns that a run set: they go back while they still are what the run made of them.

use super::place::{unnested, Parameters, Place};
use super::tables::{Keep, Keyed};
use super::{Counters, Element, Fate};
use crate::engine::journal::{fingerprint, CELL_SET, FINGERPRINT};
use crate::engine::relation::{quote_ident, quote_literal, Relation};
use crate::error::Result;
use crate::postgres::spi::{Connection, Mode, Statement};

/// The column of one table.
pub struct Cell {
    ids_are_uuids: bool,
    read: Statement,
    lock: Statement,
    write: Statement,
    keep: Keep,
}

/// `text`, an SQL expression, as a value of the column; the text is the one that the contract of [`CELL_SET`] names.
fn value(relation: &Relation, column: &str, text: &str) -> String {
    let sql_type = relation.type_of(column);
    if sql_type.ends_with("[]") {
        // An array is kept as JSON.
        let (table, name) = (&relation.sql_name, quote_ident(column));
        let label = quote_literal(column);
        return format!(
            "CASE WHEN {text} IS NOT NULL THEN
             (pg_catalog.jsonb_populate_record(NULL::{table}, pg_catalog.jsonb_build_object({label}, {text}::pg_catalog.jsonb))).{name} END"
        );
    }
    format!("{text}::{sql_type}")
}

impl Cell {
    pub fn new(table: &Keyed, column: &str, keep: Keep) -> Self {
        let relation = &table.relation;
        let (name, key, unnested) = (&relation.sql_name, quote_ident(&table.key), unnested(table));
        let cell = format!("r.{}", quote_ident(column));
        // json has no equality.
        let cast = match relation.type_of(column) {
            "json" => "::pg_catalog.text",
            _ => "",
        };
        let (before, after) = (value(relation, column, "u.before"), value(relation, column, "u.after"));
        let is_after = format!("{cell}{cast} IS NOT DISTINCT FROM ({after}){cast}");
        // Of a jsonb value its fingerprint may be known only.
        let (is_after, text) = if relation.is_of_type(column, pgrx::pg_sys::JSONBOID) {
            let is_short = format!("u.after LIKE '{FINGERPRINT}%'");
            (
                format!("CASE WHEN {is_short} THEN false ELSE {is_after} END"),
                format!("CASE WHEN {is_short} THEN {cell}::pg_catalog.text END"),
            )
        } else {
            (is_after, "NULL::pg_catalog.text".to_owned())
        };
        Cell {
            ids_are_uuids: table.ids_are_uuids(),
            read: Statement::new(format!(
                "SELECT u.n, {is_after}, {cell}{cast} IS NOT DISTINCT FROM ({before}){cast}, {}, {text}
                 FROM {unnested} JOIN {name} r ON r.{key} = u.id",
                keep.sql()
            )),
            lock: Statement::new(format!(
                "SELECT 1 FROM {unnested} JOIN {name} r ON r.{key} = u.id ORDER BY u.n FOR NO KEY UPDATE OF r"
            )),
            // They are locked, and were looked at since.
            write: Statement::new(format!(
                "UPDATE {name} r SET {} = {before} FROM {unnested} WHERE r.{key} = u.id",
                quote_ident(column)
            )),
            keep,
        }
    }
}

impl Place for Cell {
    const ACTION: &'static str = CELL_SET;
    const UNKNOWN: Fate = Fate::Conflict("column_gone");

    fn counter(counters: &mut Counters) -> &mut i64 {
        &mut counters.cells_restored
    }

    fn column(element: &Element) -> Option<&str> {
        element.column.as_deref()
    }

    fn ids_are_uuids(&self) -> bool {
        self.ids_are_uuids
    }

    fn fates(&self, connection: &Connection, mode: Mode, elements: &[&Element], parameters: &Parameters) -> Vec<Fate> {
        let mut fates = vec![Fate::Conflict("row_gone"); elements.len()];
        let rows = connection.run(&self.read, mode, parameters);
        for row in 0..rows.len() {
            let Some(n) = rows.get::<i64>(row, 0) else { continue };
            let index = n as usize - 1;
            let is_after = match rows.text(row, 4) {
                Some(text) => elements[index].after == Some(fingerprint(&text)),
                None => rows.get(row, 1) == Some(true),
            };
            fates[index] = if is_after {
                self.keep.reason(rows.get(row, 3)).map_or(Fate::Undo, Fate::Conflict)
            } else if rows.get(row, 2) == Some(true) {
                Fate::Already
            } else {
                Fate::Conflict("value_changed")
            };
        }
        fates
    }

    fn lock(&self) -> &Statement {
        &self.lock
    }

    fn take_back(&self) -> &Statement {
        &self.write
    }

    fn remember(&self, _: &[&Element], _: &[Fate]) -> Result<()> {
        Ok(())
    }
}
