//! What a job over ordinary tables needs of each, and one error that names all that is missing.

use pgrx::pg_sys;

use super::asset_tables::Problem;
use crate::engine::relation::Relation;
use crate::postgres::spi::Connection;

/// What a column has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    Text,
    Integer,
    Bigint,
    Boolean,
    Jsonb,
    Time,
    Uuid,
}

impl ColumnType {
    /// The type that our own DDL gives it.
    pub const fn sql(self) -> &'static str {
        match self {
            ColumnType::Text => "pg_catalog.text",
            ColumnType::Integer => "pg_catalog.int4",
            ColumnType::Bigint => "pg_catalog.int8",
            ColumnType::Boolean => "pg_catalog.bool",
            ColumnType::Jsonb => "pg_catalog.jsonb",
            ColumnType::Time => "pg_catalog.timestamptz",
            ColumnType::Uuid => "pg_catalog.uuid",
        }
    }

    /// Types that statements can work with as they stand; `None` is any.
    const fn usable(self) -> Option<&'static [pg_sys::Oid]> {
        match self {
            ColumnType::Text => Some(&[pg_sys::TEXTOID, pg_sys::VARCHAROID]),
            ColumnType::Integer | ColumnType::Bigint => Some(&[pg_sys::INT4OID, pg_sys::INT8OID]),
            ColumnType::Boolean => Some(&[pg_sys::BOOLOID]),
            ColumnType::Jsonb => Some(&[pg_sys::JSONBOID]),
            ColumnType::Time => Some(&[pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPOID]),
            ColumnType::Uuid => None,
        }
    }
}

/// A column by name.
pub type Need = (&'static str, ColumnType);

/// Adds what `relation`, called `name`, lacks. `make` is the call that makes or extends it.
pub fn of_relation(
    name: &'static str,
    relation: Option<&Relation>,
    columns: &[Need],
    make: &str,
    problems: &mut Vec<Problem>,
) {
    let Some(relation) = relation else {
        problems.push(problem(
            name,
            format!("relation {name} is not on the search_path"),
            "42P01",
            make,
        ));
        return;
    };
    for (column, wanted) in columns {
        if !relation.has(column) {
            problems.push(problem(
                &relation.sql_name,
                format!("column {column} does not exist"),
                "42703",
                &format!(
                    "ALTER TABLE {} ADD COLUMN {column} {};",
                    relation.base_sql_name,
                    wanted.sql().trim_start_matches("pg_catalog.")
                ),
            ));
            continue;
        }
        let fits = wanted
            .usable()
            .is_none_or(|types| types.iter().any(|oid| relation.is_of_type(column, *oid)));
        if !fits {
            let wanted = wanted.sql().trim_start_matches("pg_catalog.");
            problems.push(problem(
                &relation.sql_name,
                format!("column {column} is {}, not {wanted}", relation.type_of(column)),
                "42804",
                &format!(
                    "ALTER TABLE {} ALTER COLUMN {column} TYPE {wanted} USING {column}::{wanted};",
                    relation.base_sql_name
                ),
            ));
        }
    }
}

/// Adds the lack of a primary key on `column` alone, in whose order rows are read.
pub fn primary_key(connection: &Connection, relation: &Relation, column: &str, problems: &mut Vec<Problem>) {
    if relation.has(column) && relation.primary_key_order(connection, column).is_none() {
        problems.push(problem(
            &relation.sql_name,
            format!("no primary key on column {column}"),
            "55000",
            &format!("ALTER TABLE {} ADD PRIMARY KEY ({column});", relation.base_sql_name),
        ));
    }
}

pub fn problem(relation: &str, problem: String, sqlstate: &'static str, ddl: &str) -> Problem {
    Problem {
        relation: relation.to_owned(),
        problem,
        sqlstate,
        ddl: ddl.to_owned(),
        blocks: true,
    }
}

/// Tells what an execute would still need, where a dry run can do without.
pub fn notice(problems: &[Problem]) {
    let Some(first) = problems.first() else { return };
    let what: Vec<String> = problems
        .iter()
        .map(|problem| format!("{}: {}", problem.relation, problem.problem))
        .collect();
    crate::postgres::message::notice!("before executing, run {}  -- {}", first.ddl, what.join("; "));
}
