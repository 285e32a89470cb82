//! Lessons that a run may pass over, since their media are as a finished run left them.
//!
//! `lesson_media_state` holds one fingerprint for each lesson: of its organization, its media, and the number of its
//! usages. So a lesson is looked at again when its media change, when it moves to another organization, and when
//! somebody removes one of its usages, or (where no foreign key forbids that) an asset that it uses.

use std::collections::HashMap;

use media_assets_core::jobs::lesson::RULE_VERSION;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::read::Lesson;
use super::Decided;
use crate::engine::relation::Relation;
use crate::engine::{rights, Stale};
use crate::error::{not_prepared, Result};
use crate::jobs::asset_tables::{extension_schema, has_index_on, Tables};
use crate::postgres::jsonb::Jsonb;
use crate::postgres::spi::{Connection, Mode, Rows, Statement};
use crate::postgres::{arrays, write_flag};

/// The table, as a caller has it.
pub const STATE: &str = "lesson_media_state";

/// The statements over the state of lessons.
pub struct Settled {
    ids_are_uuids: bool,
    /// The state of a slice is read as a range of ids, since all lessons between its first and its last are its own.
    reads_range: bool,
    /// So are its usages: the texts of uuids have the order of the uuids.
    counts_range: bool,
    /// `None` in a dry run that has no such table yet: nothing is settled.
    read: Option<Statement>,
    count: Option<Statement>,
    upsert: Option<Statement>,
}

impl Settled {
    /// Checks what passing over lessons needs.
    ///
    /// # Errors
    /// 42P01 without the table, 42703 without one of its columns, 55000 without an index by which the usages of a lesson
    /// are found, 42501 without the rights. A dry run needs none of it.
    pub fn check(connection: &Connection, tables: &Tables, execute: bool) -> Result<()> {
        let prepare = format!(
            "SELECT * FROM {}prepare_asset_tables(true);",
            extension_schema(connection)
        );
        let mut problem = None;
        match &tables.state {
            None => problem = Some(("42P01", format!("relation {STATE} is not on the search_path"))),
            Some(state) => {
                rights::check_row_security([state])?;
                rights::check_privilege(connection, state, "SELECT", &STATE_COLUMNS)?;
                if execute {
                    rights::check_privilege(connection, state, "INSERT", &STATE_COLUMNS)?;
                    rights::check_privilege(connection, state, "UPDATE", &STATE_COLUMNS)?;
                }
                if let Some(column) = STATE_COLUMNS.iter().find(|column| !state.has(column)) {
                    problem = Some(("42703", format!("{} has no column {column}", state.sql_name)));
                }
            }
        }
        if let Some(usages) = &tables.usages {
            if !has_index_on(connection, usages, "target_id") {
                problem = Some((
                    "55000",
                    format!("{} has no index that begins with target_id", usages.sql_name),
                ));
            }
        }
        match problem {
            None => Ok(()),
            Some((state, what)) if execute => Err(not_prepared(
                state,
                what,
                "Passing over settled lessons needs to know how a run left them, and how many usages they have.",
                prepare,
            )),
            Some((_, what)) => {
                crate::postgres::message::notice!("before executing with skip_settled, run {prepare}  -- {what}");
                Ok(())
            }
        }
    }

    /// `all` says that the run looks at every lesson, not at those of some organizations only.
    pub fn new(connection: &Connection, tables: &Tables, all: bool) -> Self {
        let counts_range = all && tables.lesson_ids_are_uuids();
        let not_greater = &tables.lesson_order.not_greater;
        let id_type = tables.lesson.type_of("id");
        let state = tables
            .state
            .as_ref()
            .filter(|state| STATE_COLUMNS.iter().all(|column| state.has(column)));
        let read = |table: &str| {
            Statement::new(if all {
                format!(
                    "SELECT t.lesson_id::pg_catalog.text, t.fingerprint FROM {table} t
                     WHERE $1::{id_type} {not_greater} t.lesson_id AND t.lesson_id {not_greater} $2::{id_type} AND t.rule_version = $3"
                )
            } else {
                format!(
                    "SELECT t.lesson_id::pg_catalog.text, t.fingerprint FROM pg_catalog.unnest($1::{id_type}[]) u(id)
                     CROSS JOIN LATERAL (SELECT t.lesson_id, t.fingerprint FROM {table} t
                                         WHERE t.lesson_id = u.id AND t.rule_version = $2 LIMIT 1) t"
                )
            })
        };
        let count = |usages| count_statement(connection, usages, tables.assets.as_ref(), counts_range);
        Settled {
            ids_are_uuids: tables.lesson_ids_are_uuids(),
            reads_range: all,
            counts_range,
            read: state.map(|state| read(&state.sql_name)),
            count: tables.usages.as_ref().map(count),
            upsert: state.map(|state| {
                Statement::new(format!(
                    "INSERT INTO {} AS t (lesson_id, fingerprint, rule_version, run_id)
                     SELECT pg_catalog.unnest($1::{id_type}[]), pg_catalog.unnest($2), $3, $4
                     ON CONFLICT (lesson_id) DO UPDATE SET fingerprint = excluded.fingerprint, rule_version = excluded.rule_version,
                         run_id = excluded.run_id
                     WHERE t.fingerprint <> excluded.fingerprint OR t.rule_version <> excluded.rule_version",
                    state.sql_name
                ))
            }),
        }
    }

    /// Takes the settled ones out of `lessons`; gives their number.
    pub fn pass_over(&self, connection: &Connection, mode: Mode, lessons: &mut Vec<Lesson>) -> i64 {
        let Some(read) = &self.read else { return 0 };
        let (Some(first), Some(last)) = (lessons.first(), lessons.last()) else {
            return 0;
        };
        let rows = if self.reads_range {
            let parameters = [first.id.as_str().into(), last.id.as_str().into(), RULE_VERSION.into()];
            connection.run(read, mode, &parameters)
        } else {
            let ids = lessons.iter().map(|lesson| Some(lesson.id.as_str()));
            let parameters = [arrays::ids(self.ids_are_uuids, ids).into(), RULE_VERSION.into()];
            connection.run(read, mode, &parameters)
        };
        if rows.is_empty() {
            return 0;
        }
        let known = numbers(&rows);
        let counts = self.counts(connection, mode, lessons);
        let before = lessons.len();
        lessons.retain(|lesson| {
            let usages = counts.get(&lesson.id).copied().unwrap_or(0);
            known.get(&lesson.id) != Some(&fingerprint(lesson, lesson.videos, lesson.documents, usages))
        });
        (before - lessons.len()) as i64
    }

    /// Writes down how the run leaves the lessons of a slice.
    pub fn mark(&self, connection: &Connection, decided: &Decided, run_id: i64) -> std::result::Result<(), Stale> {
        let Some(upsert) = &self.upsert else { return Ok(()) };
        let counts = self.counts(connection, Mode::Write, &decided.lessons);
        let fingerprints = decided.lessons.iter().enumerate().map(|(index, lesson)| {
            let patched = decided.written.patched.get(&index).copied().unwrap_or_default();
            let usages = counts.get(&lesson.id).copied().unwrap_or(0);
            let (videos, documents) = (patched.0.or(lesson.videos), patched.1.or(lesson.documents));
            Some(fingerprint(lesson, videos, documents, usages))
        });
        let ids = decided.lessons.iter().map(|lesson| Some(lesson.id.as_str()));
        let parameters = [
            arrays::ids(self.ids_are_uuids, ids).into(),
            arrays::int8(fingerprints).into(),
            RULE_VERSION.into(),
            run_id.into(),
        ];
        write_flag::while_writing(|| connection.run(upsert, Mode::Write, &parameters));
        Ok(())
    }

    /// How many usages each lesson has.
    fn counts(&self, connection: &Connection, mode: Mode, lessons: &[Lesson]) -> HashMap<String, i64> {
        let Some(count) = &self.count else {
            return HashMap::new();
        };
        let ids = || lessons.iter().map(|lesson| lesson.id.as_str());
        let rows = if self.counts_range {
            connection.run(count, mode, &[ids().min().into(), ids().max().into()])
        } else {
            connection.run(count, mode, &[arrays::text(ids().map(Some)).into()])
        };
        numbers(&rows)
    }
}

/// A number for each id.
fn numbers(rows: &Rows) -> HashMap<String, i64> {
    (0..rows.len())
        .filter_map(|row| Some((rows.text(row, 0)?, rows.get(row, 1)?)))
        .collect()
}

const STATE_COLUMNS: [&str; 4] = ["lesson_id", "fingerprint", "rule_version", "run_id"];

fn count_statement(connection: &Connection, usages: &Relation, assets: Option<&Relation>, range: bool) -> Statement {
    // A foreign key keeps an asset that has a usage; without one a usage of nothing does not count.
    let of_assets = match assets {
        Some(assets) if !usages.references(connection, assets) => {
            format!(
                " AND EXISTS (SELECT FROM {} a WHERE a.id = s.asset_id)",
                assets.sql_name
            )
        }
        _ => String::new(),
    };
    let target = usages.type_of("target_id");
    let of_lessons = if range {
        format!("s.target_id >= $1::{target} AND s.target_id <= $2::{target}")
    } else {
        format!("s.target_id = ANY ($1::{target}[])")
    };
    Statement::new(format!(
        "SELECT s.target_id::pg_catalog.text, pg_catalog.count(*) FROM {} s
         WHERE {of_lessons} AND s.target_type = 'lesson'{of_assets} GROUP BY s.target_id",
        usages.sql_name
    ))
}

fn fingerprint(lesson: &Lesson, videos: Option<Jsonb>, documents: Option<Jsonb>, usages: i64) -> i64 {
    let mut hash = match &lesson.organization {
        Some(organization) => xxh3_64_with_seed(organization.as_bytes(), 1),
        None => 0,
    };
    for column in [videos, documents] {
        hash = match column {
            Some(column) => xxh3_64_with_seed(column.bytes(), hash),
            None => hash.rotate_left(1) ^ 1,
        };
    }
    hash.wrapping_add((usages as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)) as i64
}
