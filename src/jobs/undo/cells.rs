//! Values of columns that a run set: they go back while they still are what the run made of them.

use std::collections::HashMap;

use super::tables::{by_place, Keep, Keyed};
use super::{Counters, Element, Fate, Kind};
use crate::engine::journal::CELL_SET;
use crate::engine::relation::{quote_ident, Relation};
use crate::engine::Stale;
use crate::error::Result;
use crate::postgres::spi::{Connection, Mode, Parameter, Statement};
use crate::postgres::{arrays, write_flag};

/// The column of one table.
struct Cell {
    ids_are_uuids: bool,
    read: Statement,
    lock: Statement,
    write: Statement,
    keep: Keep,
}

pub struct Cells {
    /// By relation and column, as the changes name them.
    cells: HashMap<(String, String), Cell>,
}

/// `text`, an SQL expression, as a value of the column; the text is the one that the contract of [`CELL_SET`] names.
fn value(relation: &Relation, column: &str, text: &str) -> String {
    let sql_type = relation.type_of(column);
    if sql_type.ends_with("[]") {
        // An array is kept as JSON.
        let (table, name) = (&relation.sql_name, quote_ident(column));
        let label = crate::engine::relation::quote_literal(column);
        return format!(
            "CASE WHEN {text} IS NOT NULL THEN
             (pg_catalog.jsonb_populate_record(NULL::{table}, pg_catalog.jsonb_build_object({label}, {text}::pg_catalog.jsonb))).{name} END"
        );
    }
    format!("{text}::{sql_type}")
}

impl Cell {
    fn new(table: &Keyed, column: &str, keep: Keep) -> Self {
        let relation = &table.relation;
        let (name, key, key_type) = (&relation.sql_name, quote_ident(&table.key), table.key_type());
        let cell = format!("r.{}", quote_ident(column));
        // json has no equality.
        let cast = match relation.type_of(column) {
            "json" => "::pg_catalog.text",
            _ => "",
        };
        let (before, after) = (value(relation, column, "u.before"), value(relation, column, "u.after"));
        let unnested = format!(
            "ROWS FROM (pg_catalog.unnest($1::{key_type}[]), pg_catalog.unnest($2), pg_catalog.unnest($3)) WITH ORDINALITY u(id, before, after, n)"
        );
        Cell {
            ids_are_uuids: table.ids_are_uuids(),
            read: Statement::new(format!(
                "SELECT u.n, {cell}{cast} IS NOT DISTINCT FROM ({after}){cast}, {cell}{cast} IS NOT DISTINCT FROM ({before}){cast}, {}
                 FROM {unnested} JOIN {name} r ON r.{key} = u.id",
                keep.sql()
            )),
            lock: Statement::new(format!(
                "SELECT 1 FROM {unnested} JOIN {name} r ON r.{key} = u.id ORDER BY u.n FOR NO KEY UPDATE OF r"
            )),
            write: Statement::new(format!(
                "UPDATE {name} r SET {} = {before} FROM {unnested}
                 WHERE r.{key} = u.id AND {cell}{cast} IS NOT DISTINCT FROM ({after}){cast}",
                quote_ident(column)
            )),
            keep,
        }
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
        let mut fates = vec![Fate::Conflict("row_gone"); elements.len()];
        let rows = connection.run(&self.read, mode, &self.parameters(elements));
        for row in 0..rows.len() {
            let Some(n) = rows.get::<i64>(row, 0) else { continue };
            fates[n as usize - 1] = if rows.get(row, 1) == Some(true) {
                self.keep.reason(rows.get(row, 3)).map_or(Fate::Undo, Fate::Conflict)
            } else if rows.get(row, 2) == Some(true) {
                Fate::Already
            } else {
                Fate::Conflict("value_changed")
            };
        }
        fates
    }
}

impl Cells {
    /// `columns` are those that the run set, each with its table.
    pub fn new(columns: Vec<(Keyed, String, Keep)>) -> Self {
        Cells {
            cells: columns
                .into_iter()
                .map(|(table, column, keep)| {
                    let cell = Cell::new(&table, &column, keep);
                    ((table.recorded_as, column), cell)
                })
                .collect(),
        }
    }

    fn of(&self, element: &Element) -> Option<&Cell> {
        let column = element.column.clone()?;
        self.cells.get(&(element.relation.clone(), column))
    }
}

impl Kind for Cells {
    fn action(&self) -> &'static str {
        CELL_SET
    }

    fn counter<'c>(&self, counters: &'c mut Counters) -> &'c mut i64 {
        &mut counters.cells_restored
    }

    fn begin(&mut self, _: &Connection, _: Mode) -> Result<()> {
        Ok(())
    }

    fn decide(&mut self, connection: &Connection, mode: Mode, elements: &[Element]) -> Vec<Fate> {
        let mut fates = vec![Fate::Conflict("column_gone"); elements.len()];
        for (places, group) in by_place(elements, |_| true) {
            let Some(cell) = self.of(group[0]) else { continue };
            for (place, fate) in places.into_iter().zip(cell.fates(connection, mode, &group)) {
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
            let Some(cell) = self.of(group[0]) else { continue };
            group.sort_unstable_by(|left, right| left.id.cmp(&right.id));
            let parameters = cell.parameters(&group);
            connection.run(&cell.lock, Mode::Write, &parameters);
            if cell
                .fates(connection, Mode::Write, &group)
                .iter()
                .any(|fate| *fate != Fate::Undo)
            {
                return Err(Stale);
            }
            let written = write_flag::while_writing(|| connection.run(&cell.write, Mode::Write, &parameters)).len();
            if written != group.len() {
                return Err(Stale);
            }
        }
        Ok(())
    }

    fn remember(&mut self, _: &[Element], _: &[Fate]) -> Result<()> {
        Ok(())
    }
}
