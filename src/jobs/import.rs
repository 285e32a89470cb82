//! Rows of an export put into ordinary tables: set by set, and where one is refused, row by row. A row whose id is there
//! already stays as it is.

use std::collections::HashSet;

use media_assets_core::import::Problem;

use super::needs::{ColumnType, Need};
use crate::engine::relation::{quote_ident, Relation};
use crate::engine::rights;
use crate::error::Result;
use crate::postgres::arrays;
use crate::postgres::spi::{Connection, Mode, Parameter, Statement};
use crate::postgres::subtransaction::in_subtransaction;

/// Rows that one statement writes; a refused row costs the repeated work of so many.
const MOST_ROWS: usize = 100;
/// From 1970 to 2000, where PostgreSQL counts from, in microseconds.
const EPOCH: i64 = 946_684_800_000_000;
/// The first time that PostgreSQL has, 4713 BC, in microseconds since 1970.
const FIRST_TIME: i64 = -210_866_803_200_000_000;

/// A value of a row.
pub enum Value {
    Null,
    /// Text, or the JSON text of a jsonb column.
    Text(String),
    Integer(i64),
    Boolean(bool),
    /// Microseconds since 1970.
    Time(i64),
}

impl Value {
    pub fn text(text: Option<String>) -> Self {
        text.map_or(Value::Null, Value::Text)
    }

    fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// A row and the line that it came from; the first value is the id.
pub struct ImportRow {
    pub line: i64,
    pub id: String,
    pub values: Vec<Value>,
}

/// What became of the rows.
#[derive(Default)]
pub struct Imported {
    pub inserted: i64,
    /// A row with that id, or that is unique in the same way, was there already.
    pub unchanged: i64,
    pub failed: i64,
    pub problems: Vec<Problem>,
}

/// One table that rows are put into.
pub struct Importer<'r> {
    relation: &'r Relation,
    columns: &'r [Need],
    insert: Statement,
    look_up: Statement,
}

impl<'r> Importer<'r> {
    /// `key` is the column of the ids, `columns` are the others.
    ///
    /// # Errors
    /// 42501 for row security or a missing privilege.
    pub fn new(
        connection: &Connection,
        relation: &'r Relation,
        key: &'static str,
        columns: &'r [Need],
        execute: bool,
    ) -> Result<Self> {
        rights::check_row_security([relation])?;
        rights::check_privilege(connection, relation, "SELECT", &[key])?;
        if execute {
            let mut names = vec![key];
            names.extend(columns.iter().map(|(name, _)| *name));
            rights::check_privilege(connection, relation, "INSERT", &names)?;
        }
        let table = &relation.sql_name;
        let key_type = relation.type_of(key);
        let names: Vec<String> = columns.iter().map(|(name, _)| quote_ident(name)).collect();
        let values: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(place, (name, wanted))| {
                let value = match wanted {
                    // A time without zone is UTC.
                    ColumnType::Time if relation.is_of_type(name, pgrx::pg_sys::TIMESTAMPOID) => {
                        format!("u.c{place} AT TIME ZONE 'UTC'")
                    }
                    _ => format!("u.c{place}::{}", relation.type_of(name)),
                };
                // A reference that names no version is the first.
                if *name == "version" {
                    format!("COALESCE({value}, 1)")
                } else {
                    value
                }
            })
            .collect();
        let unnested: Vec<String> = (0..columns.len())
            .map(|place| format!(", pg_catalog.unnest(${})", place + 2))
            .collect();
        let aliases: Vec<String> = (0..columns.len()).map(|place| format!(", c{place}")).collect();
        Ok(Importer {
            insert: Statement::new(format!(
                "INSERT INTO {table} ({}, {}) SELECT u.id::{key_type}, {} FROM ROWS FROM (pg_catalog.unnest($1){}) u(id{})
                 ON CONFLICT DO NOTHING",
                quote_ident(key),
                names.join(", "),
                values.join(", "),
                unnested.concat(),
                aliases.concat(),
            )),
            look_up: Statement::new(format!(
                "SELECT u.n FROM pg_catalog.unnest($1::{key_type}[]) WITH ORDINALITY u(id, n)
                 CROSS JOIN LATERAL (SELECT FROM {table} t WHERE t.{} = u.id LIMIT 1) t",
                quote_ident(key)
            )),
            relation,
            columns,
        })
    }

    /// Puts the rows into the table; a dry run only looks which are there.
    ///
    /// # Errors
    /// Those that say nothing about a row are raised.
    pub fn import(&self, connection: &Connection, rows: &[ImportRow], execute: bool) -> Imported {
        let mut imported = Imported::default();
        let mut seen: HashSet<&str> = HashSet::new();
        for slice in rows.chunks(MOST_ROWS) {
            crate::postgres::backend::check_for_interrupts();
            if execute {
                self.insert(connection, slice, &mut imported);
                continue;
            }
            let parameters = [arrays::text(slice.iter().map(|row| Some(row.id.as_str()))).into()];
            let found = connection.run(&self.look_up, Mode::Read, &parameters);
            let there: HashSet<i64> = (0..found.len()).filter_map(|row| found.get(row, 0)).collect();
            for (n, row) in (1..).zip(slice) {
                if seen.insert(&row.id) && !there.contains(&n) {
                    imported.inserted += 1;
                } else {
                    imported.unchanged += 1;
                }
            }
        }
        imported
    }

    fn insert(&self, connection: &Connection, rows: &[ImportRow], imported: &mut Imported) {
        let attempt = in_subtransaction(|| -> std::result::Result<usize, std::convert::Infallible> {
            Ok(connection.run(&self.insert, Mode::Write, &self.parameters(rows)).len())
        });
        match attempt {
            Ok(Ok(inserted)) => {
                imported.inserted += inserted as i64;
                imported.unchanged += (rows.len() - inserted) as i64;
            }
            Err(failure) if failure.stops_the_run() || failure.is_contention() => failure.rethrow(),
            Err(failure) if rows.len() == 1 => {
                imported.failed += 1;
                imported.problems.push(Problem {
                    line: rows[0].line,
                    message: format!(
                        "{} {} could not be written: {} (SQLSTATE {})",
                        self.relation.name,
                        rows[0].id,
                        failure.message(),
                        failure.sqlstate()
                    ),
                });
            }
            Err(_) => {
                let (first, second) = rows.split_at(rows.len() / 2);
                self.insert(connection, first, imported);
                self.insert(connection, second, imported);
            }
        }
    }

    fn parameters(&self, rows: &[ImportRow]) -> Vec<Parameter> {
        let mut parameters = vec![Parameter::from(arrays::text(
            rows.iter().map(|row| Some(row.id.as_str())),
        ))];
        parameters.extend(self.columns.iter().enumerate().map(|(place, (_, wanted))| {
            let values = rows.iter().map(|row| row.values.get(place).unwrap_or(&Value::Null));
            Parameter::from(match wanted {
                ColumnType::Integer | ColumnType::Bigint => arrays::int8(values.map(|value| match value {
                    Value::Integer(number) => Some(*number),
                    _ => None,
                })),
                ColumnType::Boolean => arrays::boolean(values.map(|value| match value {
                    Value::Boolean(value) => Some(*value),
                    _ => None,
                })),
                ColumnType::Time => arrays::timestamptz(values.map(|value| match value {
                    Value::Time(time) if *time >= FIRST_TIME => time.checked_sub(EPOCH),
                    _ => None,
                })),
                // jsonb is read by SQL, so that a number beyond its range costs its row only.
                ColumnType::Text | ColumnType::Jsonb | ColumnType::Uuid => arrays::text(values.map(Value::as_text)),
            })
        }));
        parameters
    }
}
