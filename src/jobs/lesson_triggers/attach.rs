//! Putting the triggers on the lesson table, and taking them off.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::place::{at_home, tables_at};
use super::{DELETE_TRIGGER, INSERT_TRIGGER, ROW_TRIGGER, TRUNCATE_TRIGGER, UPDATE_TRIGGER};
use crate::engine::relation::{quote_ident, quote_literal, Relation};
use crate::error::{not_prepared, Result};
use crate::jobs::asset_tables::{self, extension_schema, Found};
use crate::jobs::table_ddl::Step;
use crate::postgres::spi::{Connection, Mode};

const ROW_FUNCTION: &str = "lesson_before_row";
const STATEMENT_FUNCTION: &str = "lesson_after_statement";

/// The triggers, by name, and what stands before and behind the table in their DDL.
const TRIGGERS: [(&CStr, &str, &str); 5] = [
    (ROW_TRIGGER, "BEFORE INSERT OR UPDATE", "FOR EACH ROW"),
    (
        INSERT_TRIGGER,
        "AFTER INSERT",
        "REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT",
    ),
    (
        UPDATE_TRIGGER,
        "AFTER UPDATE",
        "REFERENCING OLD TABLE AS before_update NEW TABLE AS after_update FOR EACH STATEMENT",
    ),
    (
        DELETE_TRIGGER,
        "AFTER DELETE",
        "REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT",
    ),
    (TRUNCATE_TRIGGER, "AFTER TRUNCATE", "FOR EACH STATEMENT"),
];

/// A table of the lesson's: itself, or one of its partitions.
struct Part {
    oid: pg_sys::Oid,
    sql_name: String,
    is_partition: bool,
}

fn oid_parameter(oid: pg_sys::Oid) -> crate::postgres::spi::Parameter {
    i64::from(oid.to_u32()).into()
}

fn parts(connection: &Connection, lesson: &Relation) -> Vec<Part> {
    let rows = connection.query(
        "SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relispartition
         FROM (SELECT $1::pg_catalog.oid AS relid, 0 AS level
               UNION SELECT t.relid::pg_catalog.oid, t.level FROM pg_catalog.pg_partition_tree($1::pg_catalog.oid::pg_catalog.regclass) t) t
         JOIN pg_catalog.pg_class c ON c.oid = t.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p') ORDER BY t.level, c.oid",
        Mode::Read,
        &[oid_parameter(lesson.oid)],
    );
    (0..rows.len())
        .filter_map(|row| {
            Some(Part {
                oid: rows.get(row, 0)?,
                sql_name: rows.text(row, 1)?,
                is_partition: rows.get(row, 2)?,
            })
        })
        .collect()
}

/// A trigger of ours that a table has.
struct Present {
    name: String,
    /// In hexadecimal digits.
    arguments: String,
    enabled: bool,
    /// It came with the parent's and goes with it.
    is_inherited: bool,
}

fn present(connection: &Connection, part: &Part) -> Vec<Present> {
    let rows = connection.query(
        "SELECT t.tgname::pg_catalog.text, pg_catalog.encode(t.tgargs, 'hex'), t.tgenabled <> 'D', t.tgparentid <> 0
         FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
         WHERE t.tgrelid = $1::pg_catalog.oid AND p.proname IN ('lesson_before_row', 'lesson_after_statement')
           AND p.pronamespace = (SELECT e.extnamespace FROM pg_catalog.pg_extension e WHERE e.extname = 'media_assets')
         ORDER BY t.tgname",
        Mode::Read,
        &[oid_parameter(part.oid)],
    );
    (0..rows.len())
        .filter_map(|row| {
            Some(Present {
                name: rows.text(row, 0)?,
                arguments: rows.text(row, 1)?,
                enabled: rows.get(row, 2)?,
                is_inherited: rows.get(row, 3)?,
            })
        })
        .collect()
}

fn drop_trigger(part: &Part, name: &str) -> Step {
    Step::new(
        &part.sql_name,
        format!("DROP TRIGGER {} ON {}", quote_ident(name), part.sql_name),
    )
}

/// What `attach_lesson_triggers()` does.
///
/// # Errors
/// 42P01, 42703, 42804, 55000 with all that is missing; 55000 for a view or foreign table, and unless one role owns lesson,
/// assets and usages; 42501 for a right that this role lacks.
pub fn attach(connection: &Connection) -> Result<Vec<Step>> {
    let found = Found::look(connection);
    if let Some(lesson) = &found.lesson {
        refuse_what_has_no_triggers(connection, lesson)?;
    }
    let mut problems = found.lesson_problems(connection);
    problems.extend(found.asset_problems(connection));
    asset_tables::raise(&problems)?;
    let (Some(lesson), Some(course), Some(group), Some(assets), Some(usages)) =
        (&found.lesson, &found.course, &found.group, &found.assets, &found.usages)
    else {
        return Err(crate::error::counters_do_not_add_up("relations"));
    };
    let owner = one_owner(connection, [lesson, assets, usages])?;
    let names: Vec<String> = [course, group, assets, usages]
        .map(|relation| relation.sql_name.clone())
        .into();
    // Row security and rights are those of the role as which the triggers will work.
    at_home(owner, |connection| {
        tables_at(connection, &lesson.sql_name, &names).map(drop)
    })?;
    let mut steps = Vec::new();
    if !has_index_on_target(connection, usages) {
        // Every write of a lesson asks for its usages.
        let table = &usages.base_sql_name;
        let target = usages.base_column(connection, "target_id");
        steps.push(Step::new(
            table,
            format!(
                "CREATE INDEX ON {table} ({})",
                quote_ident(target.as_deref().unwrap_or("target_id"))
            ),
        ));
    }
    for part in parts(connection, lesson) {
        steps.extend(attach_to(connection, &part, &names));
    }
    Ok(steps)
}

fn attach_to(connection: &Connection, part: &Part, names: &[String]) -> Vec<Step> {
    let extension = extension_schema(connection);
    let arguments: Vec<String> = names.iter().map(|name| quote_literal(name)).collect();
    let wanted: String = names
        .iter()
        .flat_map(|name| name.bytes().chain([0]))
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let present = present(connection, part);
    let mut steps = Vec::new();
    for (name, event, level) in TRIGGERS {
        // A partition gets the row trigger with its parent's.
        if part.is_partition && name == ROW_TRIGGER {
            continue;
        }
        let name = name.to_string_lossy();
        match present.iter().find(|trigger| trigger.name == name) {
            Some(trigger) if trigger.arguments == wanted && trigger.enabled => continue,
            Some(_) => steps.push(drop_trigger(part, &name)),
            None => {}
        }
        let function = if level == "FOR EACH ROW" {
            ROW_FUNCTION
        } else {
            STATEMENT_FUNCTION
        };
        steps.push(Step::new(
            &part.sql_name,
            format!(
                "CREATE TRIGGER {name} {event} ON {}\n    {level}\n    EXECUTE FUNCTION {extension}{function}({})",
                part.sql_name,
                arguments.join(", ")
            ),
        ));
    }
    steps
}

/// What `detach_lesson_triggers()` does.
///
/// # Errors
/// 42P01 when there is no lesson table on the search_path.
pub fn detach(connection: &Connection) -> Result<Vec<Step>> {
    let Some(lesson) = Relation::find(connection, "lesson", None) else {
        return Err(not_prepared(
            "42P01",
            "relation lesson is not on the search_path",
            "The triggers are on the table of that name.",
            "SET search_path = …;",
        ));
    };
    Ok(parts(connection, &lesson)
        .iter()
        .flat_map(|part| {
            present(connection, part)
                .into_iter()
                .filter(|trigger| !trigger.is_inherited)
                .map(|trigger| drop_trigger(part, &trigger.name))
                .collect::<Vec<Step>>()
        })
        .collect())
}

fn refuse_what_has_no_triggers(connection: &Connection, lesson: &Relation) -> Result<()> {
    if lesson.is_view {
        return Err(not_prepared(
            "55000",
            format!("{} is a view; the triggers go on a table", lesson.sql_name),
            format!("Its base table is {}.", lesson.base_sql_name),
            format!(
                "Put {} on the search_path under the name lesson, with columns id, course_id, videos and documents, and call this again; without triggers, run the backfill after writes.",
                lesson.base_sql_name
            ),
        ));
    }
    let rows = connection.query(
        "SELECT 1 FROM pg_catalog.pg_class c WHERE c.oid = $1::pg_catalog.oid AND c.relkind IN ('r', 'p')",
        Mode::Read,
        &[oid_parameter(lesson.oid)],
    );
    if rows.is_empty() {
        return Err(not_prepared(
            "55000",
            format!(
                "{} is a foreign table; the triggers go on a table of this database",
                lesson.sql_name
            ),
            "A foreign table has no transition tables.",
            "Attach them where the table is, or run the backfill after writes.",
        ));
    }
    Ok(())
}

/// The role that owns all of them.
fn one_owner(connection: &Connection, relations: [&Relation; 3]) -> Result<pg_sys::Oid> {
    let owner = |relation: &Relation| -> (pg_sys::Oid, String) {
        let rows = connection.query(
            "SELECT c.relowner, pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner)) FROM pg_catalog.pg_class c
             WHERE c.oid = $1::pg_catalog.oid",
            Mode::Read,
            &[oid_parameter(relation.oid)],
        );
        let oid = rows.get(0, 0).unwrap_or(pg_sys::InvalidOid);
        (oid, rows.text(0, 1).unwrap_or_default())
    };
    let owners = relations.map(owner);
    let (first, name) = &owners[0];
    let strangers: Vec<&Relation> = relations
        .into_iter()
        .zip(&owners)
        .filter(|(_, (other, _))| other != first)
        .map(|(relation, _)| relation)
        .collect();
    if strangers.is_empty() {
        return Ok(*first);
    }
    let facts: Vec<String> = relations
        .iter()
        .zip(&owners)
        .map(|(relation, (_, name))| format!("{} belongs to {name}", relation.sql_name))
        .collect();
    let mends: Vec<String> = strangers
        .iter()
        .map(|relation| {
            let kind = if relation.is_view { "VIEW" } else { "TABLE" };
            format!("ALTER {kind} {} OWNER TO {name};", relation.sql_name)
        })
        .collect();
    Err(not_prepared(
        "55000",
        "lesson, assets and asset_usages do not belong to one role",
        format!("{}. The triggers work as the owner of lesson.", facts.join("; ")),
        mends.join("\n"),
    ))
}

/// Whether an index of the usages begins with the target's id.
fn has_index_on_target(connection: &Connection, usages: &Relation) -> bool {
    let rows = connection.query(
        "SELECT 1 FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
         WHERE i.indrelid = $1::pg_catalog.oid AND i.indisvalid AND i.indpred IS NULL AND a.attname = $2",
        Mode::Read,
        &[
            oid_parameter(usages.base_oid),
            usages.base_column(connection, "target_id").as_deref().into(),
        ],
    );
    !rows.is_empty()
}
