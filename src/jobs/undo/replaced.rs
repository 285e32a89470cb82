//! Rows that a run changed or removed as a whole: they are again what they were, unless somebody changed them since.

use std::collections::HashMap;

use super::tables::{by_place, Keyed};
use super::{Counters, Element, Fate, Kind};
use crate::engine::journal::ROW_REPLACED;
use crate::engine::relation::quote_ident;
use crate::engine::Stale;
use crate::error::Result;
use crate::postgres::spi::{Connection, Mode, Parameter, Statement};
use crate::postgres::{arrays, write_flag};

struct Table {
    ids_are_uuids: bool,
    read: Statement,
    lock: Statement,
    update: Statement,
    insert: Statement,
}

pub struct ReplacedRows {
    /// By relation, as the changes name it.
    tables: HashMap<String, Table>,
}

impl Table {
    fn new(table: &Keyed) -> Self {
        let relation = &table.relation;
        let (name, key, key_type) = (&relation.sql_name, quote_ident(&table.key), table.key_type());
        let unnested = format!(
            "ROWS FROM (pg_catalog.unnest($1::{key_type}[]), pg_catalog.unnest($2), pg_catalog.unnest($3)) WITH ORDINALITY u(id, before, after, n)"
        );
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
        let values = values.join(", ");
        Table {
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
            update: Statement::new(format!(
                "UPDATE {name} r SET ({list}) = (SELECT {values} FROM {} p) FROM {unnested}
                 WHERE r.{key} = u.id AND u.after IS NOT NULL",
                row("u.before")
            )),
            insert: Statement::new(format!(
                "INSERT INTO {name} ({list}) SELECT {values} FROM {unnested} CROSS JOIN LATERAL {} p WHERE u.after IS NULL ORDER BY u.n",
                row("u.before")
            )),
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
}

impl ReplacedRows {
    /// `tables` are those with rows that the run replaced.
    pub fn new(tables: &[Keyed]) -> Self {
        ReplacedRows {
            tables: tables
                .iter()
                .map(|table| (table.recorded_as.clone(), Table::new(table)))
                .collect(),
        }
    }
}

impl Kind for ReplacedRows {
    fn action(&self) -> &'static str {
        ROW_REPLACED
    }

    fn counter<'c>(&self, counters: &'c mut Counters) -> &'c mut i64 {
        &mut counters.cells_restored
    }

    fn begin(&mut self, _: &Connection, _: Mode) -> Result<()> {
        Ok(())
    }

    fn decide(&mut self, connection: &Connection, mode: Mode, elements: &[Element]) -> Vec<Fate> {
        let mut fates = vec![Fate::Conflict("row_gone"); elements.len()];
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
            connection.run(&table.lock, Mode::Write, &parameters);
            if table
                .fates(connection, Mode::Write, &group)
                .iter()
                .any(|fate| *fate != Fate::Undo)
            {
                return Err(Stale);
            }
            let written = write_flag::while_writing(|| {
                [&table.update, &table.insert]
                    .map(|statement| connection.run(statement, Mode::Write, &parameters).len())
            });
            if written.iter().sum::<usize>() != group.len() {
                return Err(Stale);
            }
        }
        Ok(())
    }

    fn remember(&mut self, _: &[Element], _: &[Fate]) -> Result<()> {
        Ok(())
    }
}
