//! Rows that a run changed or removed as a whole: they are again what they were, unless somebody changed them since.

use super::place::{unnested, Parameters, Place};
use super::tables::Keyed;
use super::{Counters, Element, Fate};
use crate::engine::journal::ROW_REPLACED;
use crate::engine::relation::quote_ident;
use crate::error::Result;
use crate::postgres::spi::{Connection, Mode, Statement};

/// A table with rows that the run replaced.
pub struct ReplacedRows {
    ids_are_uuids: bool,
    read: Statement,
    lock: Statement,
    write: Statement,
}

impl ReplacedRows {
    pub fn new(table: &Keyed) -> Self {
        let relation = &table.relation;
        let (name, key, unnested) = (&relation.sql_name, quote_ident(&table.key), unnested(table));
        let row = |image: &str| format!("pg_catalog.jsonb_populate_record(NULL::{name}, {image}::pg_catalog.jsonb)");
        // As this session writes it: the text of a time depends on its settings.
        let image = |image: &str| {
            let row = row(image);
            format!("CASE WHEN {image} IS NOT NULL THEN pg_catalog.to_jsonb({row}) END")
        };
        let mut columns: Vec<String> = relation.columns.keys().map(|column| quote_ident(column)).collect();
        columns.sort_unstable();
        let list = columns.join(", ");
        let values: Vec<String> = columns.iter().map(|column| format!("p.{column}")).collect();
        let (values, before) = (values.join(", "), row("u.before"));
        ReplacedRows {
            ids_are_uuids: table.ids_are_uuids(),
            read: Statement::new(format!(
                "SELECT u.n, pg_catalog.to_jsonb(r) IS NOT DISTINCT FROM ({}), pg_catalog.to_jsonb(r) IS NOT DISTINCT FROM ({}), r.{key} IS NULL
                 FROM {unnested} LEFT JOIN {name} r ON r.{key} = u.id",
                image("u.after"),
                image("u.before")
            )),
            lock: Statement::new(format!(
                "SELECT 1 FROM {unnested} JOIN {name} r ON r.{key} = u.id ORDER BY u.n FOR UPDATE OF r"
            )),
            write: Statement::new(format!(
                "WITH changed AS (
                     UPDATE {name} r SET ({list}) = (SELECT {values} FROM {before} p) FROM {unnested}
                     WHERE r.{key} = u.id AND u.after IS NOT NULL RETURNING 1
                 ), removed AS (
                     INSERT INTO {name} ({list}) SELECT {values} FROM {unnested} CROSS JOIN LATERAL {before} p
                     WHERE u.after IS NULL ORDER BY u.n RETURNING 1
                 )
                 SELECT 1 FROM changed UNION ALL SELECT 1 FROM removed"
            )),
        }
    }
}

impl Place for ReplacedRows {
    const ACTION: &'static str = ROW_REPLACED;
    const UNKNOWN: Fate = Fate::Conflict("row_gone");

    fn counter(counters: &mut Counters) -> &mut i64 {
        &mut counters.cells_restored
    }

    fn column(_: &Element) -> Option<&str> {
        None
    }

    fn ids_are_uuids(&self) -> bool {
        self.ids_are_uuids
    }

    fn fates(&self, connection: &Connection, mode: Mode, elements: &[&Element], parameters: &Parameters) -> Vec<Fate> {
        let mut fates = vec![Fate::Conflict("row_gone"); elements.len()];
        let rows = connection.run(&self.read, mode, parameters);
        for row in 0..rows.len() {
            let Some(n) = rows.get::<i64>(row, 0) else { continue };
            let is = |column: usize| rows.get(row, column) == Some(true);
            fates[n as usize - 1] = match (is(1), is(2), is(3)) {
                (true, ..) => Fate::Undo,
                (_, true, _) => Fate::Already,
                (.., true) => Fate::Conflict("row_gone"),
                _ => Fate::Conflict("row_changed"),
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
