//! The DDL of `media` and `i2v_jobs`, for those who have none.

use super::table_ddl::{current_schema, Step};
use crate::engine::relation::Relation;
use crate::error::Result;
use crate::postgres::spi::Connection;

/// What `create_media_tables()` does: makes the tables that are not there, in the current schema.
///
/// # Errors
/// 3F000 when the search_path names no schema to make them in.
pub fn create(connection: &Connection) -> Result<Vec<Step>> {
    let schema = current_schema(connection)?;
    let mut steps = Vec::new();
    match Relation::find(connection, "media", None) {
        Some(media) => steps.push(Step::exists(&media.sql_name)),
        None => {
            let table = format!("{schema}.media");
            steps.push(Step::new(
                &table,
                format!(
                    "CREATE TABLE {table} (
    id pg_catalog.text PRIMARY KEY,
    type pg_catalog.text,
    thumbnail_url pg_catalog.text,
    thumbnail_urls pg_catalog.jsonb,
    created_by pg_catalog.text,
    is_public pg_catalog.bool,
    metadata pg_catalog.jsonb,
    updated_at pg_catalog.timestamptz
)"
                ),
            ));
        }
    }
    match Relation::find(connection, "i2v_jobs", None) {
        Some(jobs) => steps.push(Step::exists(&jobs.sql_name)),
        None => {
            let table = format!("{schema}.i2v_jobs");
            steps.push(Step::new(
                &table,
                format!(
                    "CREATE TABLE {table} (
    job_id pg_catalog.text PRIMARY KEY,
    media_id pg_catalog.text,
    original_media_id pg_catalog.text,
    result_media_id pg_catalog.text,
    mode pg_catalog.text,
    status pg_catalog.text
)"
                ),
            ));
            // The job of a video that is not named like its job.
            steps.push(Step::new(&table, format!("CREATE INDEX ON {table} (result_media_id)")));
        }
    }
    Ok(steps)
}
