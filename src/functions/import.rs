//! Exports of other systems into ordinary tables: DynamoDB items, Convex documents.

use media_assets_core::import::convex::{read_documents, Cell, ColumnType as ConvexType, Table};
use media_assets_core::import::dynamodb::{read_items, JobRow, MediaRow};
use media_assets_core::import::Problem;
use pgrx::pg_sys::Datum;
use pgrx::prelude::*;
use serde_json::json;

use super::tables::execute_of;
use crate::engine::relation::Relation;
use crate::engine::rights;
use crate::error::{invalid_argument, Result};
use crate::jobs::asset_tables::{self, extension_schema};
use crate::jobs::import::{ImportRow, Imported, Importer, Value};
use crate::jobs::needs::{self, ColumnType, Need};
use crate::postgres::jsonb::from_text;
use crate::postgres::record::{form, Record};
use crate::postgres::spi::{self, Connection};

/// Columns of `media` besides the id that an export fills.
const MEDIA: [Need; 7] = [
    ("type", ColumnType::Text),
    ("thumbnail_url", ColumnType::Text),
    ("thumbnail_urls", ColumnType::Jsonb),
    ("created_by", ColumnType::Text),
    ("is_public", ColumnType::Boolean),
    ("metadata", ColumnType::Jsonb),
    ("updated_at", ColumnType::Time),
];
const JOBS: [Need; 5] = [
    ("media_id", ColumnType::Text),
    ("original_media_id", ColumnType::Text),
    ("result_media_id", ColumnType::Text),
    ("mode", ColumnType::Text),
    ("status", ColumnType::Text),
];

/// Finds a relation that rows are to be put into.
///
/// # Errors
/// 42P01, 42703, 42804 with everything that is missing.
fn find(connection: &Connection, names: &[(&'static str, Need, &[Need])], make: &str) -> Result<Vec<Relation>> {
    let make = format!("SELECT * FROM {}{make};", extension_schema(connection));
    let mut problems = Vec::new();
    let mut relations = Vec::new();
    for (name, key, columns) in names {
        let relation = Relation::find(connection, name, None);
        let all = [&[*key], *columns].concat();
        needs::of_relation(name, relation.as_ref(), &all, &make, &mut problems);
        relations.extend(relation);
    }
    asset_tables::raise(&problems)?;
    Ok(relations)
}

fn lines_of(lines: Option<Vec<Option<String>>>, first_line: Option<i64>) -> Result<(Vec<Option<String>>, i64)> {
    let bad = |what: &str| {
        invalid_argument(
            what,
            "lines is an array of the file's lines, first_line the number of its first.",
        )
    };
    let lines = lines.ok_or_else(|| bad("lines must not be NULL"))?;
    let first_line = first_line.ok_or_else(|| bad("first_line must not be NULL"))?;
    Ok((lines, first_line))
}

/// Problems in the order of their lines.
fn problems_datum(mut problems: Vec<Problem>) -> Datum {
    problems.sort_by_key(|problem| problem.line);
    let list: Vec<serde_json::Value> = problems
        .into_iter()
        .map(|problem| json!({"line": problem.line, "message": problem.message}))
        .collect();
    from_text(&serde_json::Value::Array(list).to_string()).datum()
}

fn media_row(row: MediaRow) -> ImportRow {
    let json = |value: Option<serde_json::Value>| Value::text(value.map(|value| value.to_string()));
    ImportRow {
        line: row.line,
        values: vec![
            Value::text(row.media_type),
            Value::text(row.thumbnail_url),
            json(row.thumbnail_urls),
            Value::text(row.created_by),
            row.is_public.map_or(Value::Null, Value::Boolean),
            json(row.metadata),
            row.updated_at.map_or(Value::Null, Value::Time),
        ],
        id: row.id,
    }
}

fn job_row(row: JobRow) -> ImportRow {
    let texts = [
        row.media_id,
        row.original_media_id,
        row.result_media_id,
        row.mode,
        row.status,
    ];
    ImportRow {
        line: row.line,
        id: row.job_id,
        values: texts.into_iter().map(Value::text).collect(),
    }
}

#[pg_extern(sql = r#"
CREATE FUNCTION import_dynamodb_items(lines text[], first_line bigint DEFAULT 1, execute boolean DEFAULT false,
    OUT media bigint, OUT jobs bigint, OUT ignored bigint, OUT failed bigint, OUT problems jsonb, OUT unchanged bigint)
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn import_dynamodb_items(
    lines: Option<Vec<Option<String>>>,
    first_line: Option<i64>,
    execute: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record> {
    let execute = execute_of(execute)?;
    let (lines, first_line) = lines_of(lines, first_line)?;
    let import = read_items(lines.iter().map(Option::as_deref), first_line);
    spi::connect(|connection| {
        if execute {
            rights::check_can_execute("import_dynamodb_items")?;
        }
        let tables = [
            ("media", ("id", ColumnType::Text), MEDIA.as_slice()),
            ("i2v_jobs", ("job_id", ColumnType::Text), JOBS.as_slice()),
        ];
        let relations = find(connection, &tables, "create_media_tables()")?;
        let mut all = Imported::default();
        let mut put = |relation: &Relation, key, columns, rows: Vec<ImportRow>| -> Result<i64> {
            let importer = Importer::new(connection, relation, key, columns, execute)?;
            let imported = importer.import(connection, &rows, execute);
            all.unchanged += imported.unchanged;
            all.failed += imported.failed;
            all.problems.extend(imported.problems);
            Ok(imported.inserted)
        };
        let media = put(
            &relations[0],
            "id",
            &MEDIA,
            import.media.into_iter().map(media_row).collect(),
        )?;
        let jobs = put(
            &relations[1],
            "job_id",
            &JOBS,
            import.jobs.into_iter().map(job_row).collect(),
        )?;
        all.problems.extend(import.problems);
        Ok(form(
            fcinfo,
            &[
                Some(media.into()),
                Some(jobs.into()),
                Some(import.ignored.into()),
                Some((import.failed + all.failed).into()),
                Some(problems_datum(all.problems)),
                Some(all.unchanged.into()),
            ],
        ))
    })
}

fn value_of(cell: Cell) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Text(text) => Value::Text(text),
        Cell::Integer(number) => Value::Integer(number),
        Cell::Json(value) => Value::Text(value.to_string()),
        Cell::Timestamp(time) => Value::Time(time),
    }
}

#[pg_extern(sql = r#"
CREATE FUNCTION import_convex_documents(table_name text, lines text[], first_line bigint DEFAULT 1, execute boolean DEFAULT false,
    OUT imported bigint, OUT unchanged bigint, OUT failed bigint, OUT problems jsonb)
VOLATILE PARALLEL UNSAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn import_convex_documents(
    table_name: Option<&str>,
    lines: Option<Vec<Option<String>>>,
    first_line: Option<i64>,
    execute: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<Record> {
    let execute = execute_of(execute)?;
    let table = table_name.and_then(Table::parse).ok_or_else(|| {
        invalid_argument(
            format!("documents of {} cannot be imported", table_name.unwrap_or("NULL")),
            "Tables are scenes, video_sessions and asset_references.",
        )
    })?;
    let (lines, first_line) = lines_of(lines, first_line)?;
    let import = read_documents(table, lines.iter().map(Option::as_deref), first_line);
    spi::connect(|connection| {
        if execute {
            rights::check_can_execute("import_convex_documents")?;
        }
        let columns: Vec<Need> = table
            .columns()
            .iter()
            .map(|column| {
                let wanted = match column.column_type {
                    ConvexType::Text => ColumnType::Text,
                    ConvexType::Int => ColumnType::Integer,
                    ConvexType::Bigint => ColumnType::Bigint,
                    ConvexType::Jsonb => ColumnType::Jsonb,
                    ConvexType::Timestamptz => ColumnType::Time,
                };
                (column.name, wanted)
            })
            .collect();
        let key = match table {
            Table::AssetReferences => ColumnType::Uuid,
            Table::Scenes | Table::VideoSessions => ColumnType::Text,
        };
        let relations = find(
            connection,
            &[(table.name(), ("id", key), &columns)],
            "create_scene_tables()",
        )?;
        let importer = Importer::new(connection, &relations[0], "id", &columns, execute)?;
        let rows: Vec<ImportRow> = import
            .rows
            .into_iter()
            .map(|row| ImportRow {
                line: row.line,
                id: row.id,
                values: row.cells.into_iter().map(value_of).collect(),
            })
            .collect();
        let mut imported = importer.import(connection, &rows, execute);
        imported.problems.extend(import.problems);
        Ok(form(
            fcinfo,
            &[
                Some(imported.inserted.into()),
                Some(imported.unchanged.into()),
                Some((import.failed + imported.failed).into()),
                Some(problems_datum(imported.problems)),
            ],
        ))
    })
}
