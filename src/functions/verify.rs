//! `verify_lesson_assets`: what the tables themselves say, asked by SQL and never by the engine's look-ups.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use crate::jobs::asset_tables::{self, extension_schema, Found};
use crate::postgres::row_set::RowSet;
use crate::postgres::settings_level::SettingsLevel;
use crate::postgres::spi::{self, Mode};

const SQL: &str = include_str!("../../sql/parts/verify_lesson_assets.sql");

#[pg_extern(sql = r#"
CREATE FUNCTION verify_lesson_assets(organization_id text DEFAULT NULL)
RETURNS TABLE (severity text, finding text, lesson_id text, slot_type text, "position" integer, asset_id uuid, detail text)
STABLE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn verify_lesson_assets(organization_id: Option<&str>, fcinfo: pg_sys::FunctionCallInfo) -> Result<(), ErrorReport> {
    let rows = RowSet::begin(fcinfo)?;
    spi::connect(|connection| {
        let found = Found::look(connection);
        let mut problems = found.lesson_problems(connection);
        problems.extend(found.asset_problems(connection));
        // It reads only: what a run would need for writing is not asked for.
        problems.retain(|problem| problem.sqlstate != "55000");
        asset_tables::raise(&problems)?;
        let relations = [&found.lesson, &found.course, &found.group, &found.assets, &found.usages];
        crate::engine::rights::check_row_security(relations.into_iter().flatten())?;
        if let Some(group) = &found.group {
            group.check_value(connection, "organization_id", organization_id, "organization_id")?;
        }
        let mut sql = SQL.to_owned();
        for (name, relation) in ["{lesson}", "{course}", "{group}", "{assets}", "{usages}"]
            .into_iter()
            .zip(relations)
        {
            sql = sql.replace(
                name,
                relation.as_ref().map_or("", |relation| relation.sql_name.as_str()),
            );
        }
        let sql = sql.replace("{extension}", &extension_schema(connection));
        // It looks at everything once: on tables that were never analysed a nested loop would be quadratic. The laterals
        // need one all the same, and its disabled cost would have the whole query compiled.
        let _level = SettingsLevel::with([("enable_nestloop", "off".to_owned()), ("jit", "off".to_owned())]);
        let findings = connection.query(&sql, Mode::Read, &[organization_id.into()]);
        for row in 0..findings.len() {
            let values: Vec<Option<pg_sys::Datum>> = (0..7).map(|column| findings.datum(row, column)).collect();
            rows.put(&values);
        }
        Ok(())
    })
}
