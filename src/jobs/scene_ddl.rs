//! The DDL of `scenes`, `video_sessions` and `asset_references`: for those who have none, and for those whose tables have
//! the legacy columns only.

use super::asset_tables::{has_index_on, unique_usable};
use super::needs::Need;
use super::s3_assets::{Found, REFERENCE, REFERENCE_KEY, SCENE_INPUT, SCENE_NEW, SESSION_INPUT, SESSION_NEW};
use super::table_ddl::{base_columns, current_schema, Step};
use crate::engine::relation::{quote_ident, Relation};
use crate::error::{not_prepared, Result};
use crate::postgres::spi::Connection;

/// Columns of a session that only an import fills.
const SESSION_OTHER: [Need; 1] = [("updated_at", super::needs::ColumnType::Time)];

fn column_list(columns: &[&[Need]], key: &str) -> String {
    let lines: Vec<String> = columns
        .concat()
        .iter()
        .map(|(name, wanted)| {
            let more = if *name == "id" { key } else { "" };
            format!("    {} {}{more}", quote_ident(name), wanted.sql())
        })
        .collect();
    lines.join(",\n")
}

/// What `create_scene_tables()` does: makes the tables that are not there, in the current schema.
///
/// # Errors
/// 3F000 when the search_path names no schema to make them in.
pub fn create(connection: &Connection) -> Result<Vec<Step>> {
    let found = Found::look(connection, &|_| None);
    let schema = current_schema(connection)?;
    let mut steps = Vec::new();
    let mut table = |name: &str, relation: &Option<Relation>, columns: &[&[Need]], more: &[Step]| match relation {
        Some(relation) => steps.push(Step::exists(&relation.sql_name)),
        None => {
            let table = format!("{schema}.{name}");
            let list = column_list(columns, " PRIMARY KEY");
            steps.push(Step::new(&table, format!("CREATE TABLE {table} (\n{list}\n)")));
            steps.extend(more.iter().cloned());
        }
    };
    let scenes = format!("{schema}.scenes");
    let index = Step::new(&scenes, format!("CREATE INDEX ON {scenes} (session_id)"));
    table("scenes", &found.scenes, &[&SCENE_INPUT, &SCENE_NEW], &[index]);
    let columns: [&[Need]; 3] = [&SESSION_INPUT, &SESSION_OTHER, &SESSION_NEW];
    table("video_sessions", &found.sessions, &columns, &[]);
    steps.extend(references(&found, &schema));
    Ok(steps)
}

fn references(found: &Found, schema: &str) -> [Step; 1] {
    if let Some(references) = &found.references {
        return [Step::exists(&references.sql_name)];
    }
    let table = format!("{schema}.asset_references");
    let of = |column: &str| match column {
        "id" => " PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid()",
        "entity_type" => " NOT NULL CHECK (entity_type IN ('scene', 'session'))",
        "entity_id" | "asset_type" => " NOT NULL",
        "version" => " NOT NULL DEFAULT 1",
        "created_at" => " DEFAULT pg_catalog.now()",
        _ => "",
    };
    let lines: Vec<String> = REFERENCE
        .iter()
        .map(|(name, wanted)| format!("    {name} {}{}", wanted.sql(), of(name)))
        .collect();
    [Step::new(
        &table,
        format!(
            "CREATE TABLE {table} (\n{},\n    UNIQUE ({})\n)",
            lines.join(",\n"),
            REFERENCE_KEY.join(", ")
        ),
    )]
}

/// What `extend_scene_tables()` does: brings existing tables up to what an execute needs.
///
/// # Errors
/// 42P01 when scenes or sessions are missing, 42809 when one that lacks columns is a view, 3F000 when there is no schema to
/// make `asset_references` in.
pub fn extend(connection: &Connection) -> Result<Vec<Step>> {
    let found = Found::look(connection, &|_| None);
    let mut problems = found.input_problems(connection);
    // What it cannot add: relations and their legacy columns.
    problems.retain(|problem| problem.sqlstate == "42P01");
    super::asset_tables::raise(&problems)?;
    let mut steps = Vec::new();
    for (relation, columns) in [(&found.scenes, SCENE_NEW.as_slice()), (&found.sessions, &SESSION_NEW)] {
        steps.extend(missing_columns(relation.as_ref(), columns)?);
    }
    if let Some(scenes) = &found.scenes {
        if !has_index_on(connection, scenes, "session_id") {
            let table = &scenes.base_sql_name;
            let column = base_columns(connection, scenes, &["session_id"]);
            steps.push(Step::new(table, format!("CREATE INDEX ON {table} ({column})")));
        }
    }
    match &found.references {
        None => steps.extend(references(&found, &current_schema(connection)?)),
        Some(references) => {
            steps.extend(missing_columns(Some(references), &REFERENCE)?);
            if !unique_usable(connection, references, &REFERENCE_KEY, false) {
                let table = &references.base_sql_name;
                let columns = base_columns(connection, references, &REFERENCE_KEY);
                steps.push(Step::new(table, format!("ALTER TABLE {table} ADD UNIQUE ({columns})")));
            }
        }
    }
    Ok(steps)
}

fn missing_columns(relation: Option<&Relation>, columns: &[Need]) -> Result<Option<Step>> {
    let Some(relation) = relation else { return Ok(None) };
    let added: Vec<String> = columns
        .iter()
        .filter(|(name, _)| !relation.has(name))
        .map(|(name, wanted)| format!("ADD COLUMN {name} {}", wanted.sql()))
        .collect();
    if added.is_empty() {
        return Ok(None);
    }
    let table = &relation.base_sql_name;
    let ddl = format!("ALTER TABLE {table} {}", added.join(", "));
    if relation.is_view {
        return Err(not_prepared(
            "42809",
            format!("{} is a view that lacks columns", relation.sql_name),
            format!("Its base table is {table}."),
            format!(
                "{ddl}; then CREATE OR REPLACE VIEW {} with these columns, and call this again.",
                relation.sql_name
            ),
        ));
    }
    Ok(Some(Step::new(table, ddl)))
}
