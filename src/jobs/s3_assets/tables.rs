//! `scenes`, `video_sessions` and `asset_references`, and everything that may be wrong with them.

use crate::engine::relation::{quote_ident, Ordering, Relation};
use crate::engine::rights;
use crate::error::Result;
use crate::jobs::asset_tables::{self, extension_schema, has_index_on, unique_usable, Problem};
use crate::jobs::needs::{self, ColumnType, Need};
use crate::jobs::row_version::Versions;
use crate::postgres::spi::Connection;

pub const SCENE_INPUT: [Need; 11] = [
    ("id", ColumnType::Text),
    ("session_id", ColumnType::Text),
    ("project_id", ColumnType::Text),
    ("index", ColumnType::Integer),
    ("status", ColumnType::Text),
    ("error_message", ColumnType::Text),
    ("s3_chunk_key", ColumnType::Text),
    ("s3_chunk_url", ColumnType::Text),
    ("s3_source_key", ColumnType::Text),
    ("checksum", ColumnType::Text),
    ("updated_at", ColumnType::Time),
];
/// The structs stand in the order of core's `AssetType::OF_SCENE`.
pub const SCENE_NEW: [Need; 8] = [
    ("video_asset", ColumnType::Jsonb),
    ("source_code_asset", ColumnType::Jsonb),
    ("thumbnail_asset", ColumnType::Jsonb),
    ("subtitle_asset", ColumnType::Jsonb),
    ("assets_status", ColumnType::Text),
    ("assets_error_message", ColumnType::Text),
    ("asset_version", ColumnType::Integer),
    ("previous_asset_versions", ColumnType::Jsonb),
];
pub const SCENE_WRITTEN: [Need; 6] = [
    ("video_asset", ColumnType::Jsonb),
    ("source_code_asset", ColumnType::Jsonb),
    ("assets_status", ColumnType::Text),
    ("assets_error_message", ColumnType::Text),
    ("asset_version", ColumnType::Integer),
    ("previous_asset_versions", ColumnType::Jsonb),
];
pub const SESSION_INPUT: [Need; 4] = [
    ("id", ColumnType::Text),
    ("project_id", ColumnType::Text),
    ("status", ColumnType::Text),
    ("error_message", ColumnType::Text),
];
/// The structs stand in the order of core's `AssetType::OF_SESSION`.
pub const SESSION_NEW: [Need; 7] = [
    ("combined_video_asset", ColumnType::Jsonb),
    ("combined_subtitle_asset", ColumnType::Jsonb),
    ("manifest_asset", ColumnType::Jsonb),
    ("total_asset_size", ColumnType::Bigint),
    ("asset_count", ColumnType::Integer),
    ("assets_status", ColumnType::Text),
    ("assets_error_message", ColumnType::Text),
];
pub const SESSION_WRITTEN: [Need; 4] = [
    ("total_asset_size", ColumnType::Bigint),
    ("asset_count", ColumnType::Integer),
    ("assets_status", ColumnType::Text),
    ("assets_error_message", ColumnType::Text),
];
pub const REFERENCE: [Need; 12] = [
    ("id", ColumnType::Uuid),
    ("entity_type", ColumnType::Text),
    ("entity_id", ColumnType::Text),
    ("asset_type", ColumnType::Text),
    ("s3_key", ColumnType::Text),
    ("s3_url", ColumnType::Text),
    ("content_type", ColumnType::Text),
    ("size", ColumnType::Bigint),
    ("checksum", ColumnType::Text),
    ("version", ColumnType::Integer),
    ("created_at", ColumnType::Time),
    ("metadata", ColumnType::Jsonb),
];
/// The columns that are read of a scene, and of a session.
const SCENES: [&[Need]; 2] = [&SCENE_INPUT, &SCENE_NEW];
const SESSIONS: [&[Need]; 2] = [&SESSION_INPUT, &SESSION_NEW];
/// What must be unique among references.
pub const REFERENCE_KEY: [&str; 4] = ["entity_type", "entity_id", "asset_type", "version"];

/// The relations as they were found; `None` where there is none.
pub struct Found {
    pub scenes: Option<Relation>,
    pub sessions: Option<Relation>,
    pub references: Option<Relation>,
}

impl Found {
    /// By the caller's search_path, or as `stored` names them.
    pub fn look(connection: &Connection, stored: &dyn Fn(&str) -> Option<String>) -> Self {
        let find = |name| Relation::find(connection, name, stored(name).as_deref());
        Found {
            scenes: find("scenes"),
            sessions: find("video_sessions"),
            references: find("asset_references"),
        }
    }

    /// What is wrong on the side that has been there before: even a dry run needs it.
    pub fn input_problems(&self, connection: &Connection) -> Vec<Problem> {
        let make = format!("SELECT * FROM {}create_scene_tables();", extension_schema(connection));
        let mut problems = Vec::new();
        needs::of_relation("scenes", self.scenes.as_ref(), &SCENE_INPUT, &make, &mut problems);
        needs::of_relation(
            "video_sessions",
            self.sessions.as_ref(),
            &SESSION_INPUT,
            &make,
            &mut problems,
        );
        for relation in [&self.scenes, &self.sessions].into_iter().flatten() {
            needs::primary_key(connection, relation, "id", &mut problems);
        }
        problems
    }

    /// What `extend_scene_tables` adds. A column of another type is an input problem: nothing adds it.
    pub fn new_problems(&self, connection: &Connection) -> Vec<Problem> {
        let make = format!(
            "SELECT * FROM {}extend_scene_tables(true);",
            extension_schema(connection)
        );
        let mut problems = Vec::new();
        for (relation, columns) in [(&self.scenes, SCENE_NEW.as_slice()), (&self.sessions, &SESSION_NEW)] {
            if let Some(relation) = relation {
                needs::of_relation(relation.name, Some(relation), columns, &make, &mut problems);
            }
        }
        needs::of_relation(
            "asset_references",
            self.references.as_ref(),
            &REFERENCE,
            &make,
            &mut problems,
        );
        for problem in problems.iter_mut().filter(|problem| problem.sqlstate == "42703") {
            problem.ddl.clone_from(&make);
        }
        if let Some(references) = &self.references {
            needs::primary_key(connection, references, "id", &mut problems);
            if !unique_usable(connection, references, &REFERENCE_KEY, false) {
                problems.push(needs::problem(
                    &references.sql_name,
                    format!("no UNIQUE ({})", REFERENCE_KEY.join(", ")),
                    "55000",
                    &make,
                ));
            }
        }
        problems
    }
}

/// The relations of a run, ready for it.
pub struct Tables {
    pub scenes: Relation,
    pub sessions: Relation,
    /// `None` only in a dry run: counts as empty.
    pub references: Option<Relation>,
    pub scene_order: Ordering,
    pub session_order: Ordering,
    /// Of a row `s`.
    pub scene_versions: Versions,
    /// Of a row `s`.
    pub session_versions: Versions,
}

impl Tables {
    /// Checks all that can be known before a run.
    ///
    /// # Errors
    /// 42P01, 42703, 42804, 55000 with everything that is missing; 42501 for row security or a missing privilege. A dry run
    /// needs the legacy side only.
    pub fn load(connection: &Connection, stored: &dyn Fn(&str) -> Option<String>, execute: bool) -> Result<Self> {
        let found = Found::look(connection, stored);
        let mut problems = found.input_problems(connection);
        let (wrong, missing): (Vec<_>, Vec<_>) = found
            .new_problems(connection)
            .into_iter()
            .partition(|problem| execute || problem.sqlstate == "42804");
        problems.extend(wrong);
        asset_tables::raise(&problems)?;
        needs::notice(&missing);
        let (Some(scenes), Some(sessions)) = (found.scenes, found.sessions) else {
            return Err(crate::error::counters_do_not_add_up("relations"));
        };
        let orders = (
            scenes.primary_key_order(connection, "id"),
            sessions.primary_key_order(connection, "id"),
        );
        let (Some(scene_order), Some(session_order)) = orders else {
            return Err(crate::error::counters_do_not_add_up("primary key"));
        };
        // One that lacks a column counts as empty too: nothing can be looked up in it.
        let whole = |relation: &Relation| REFERENCE.iter().all(|(column, _)| relation.has(column));
        let versions = |relation: &Relation, columns: [&[Need]; 2]| {
            let read = columns.concat();
            Versions::of(connection, relation, "s", read.iter().map(|(name, _)| *name))
        };
        let tables = Tables {
            scene_versions: versions(&scenes, SCENES),
            session_versions: versions(&sessions, SESSIONS),
            scenes,
            sessions,
            references: found.references.filter(whole),
            scene_order,
            session_order,
        };
        tables.check_rights(connection, execute)?;
        if !has_index_on(connection, &tables.scenes, "session_id") {
            crate::postgres::message::notice!(
                "scenes are looked up without an index; run CREATE INDEX ON {} (session_id);",
                tables.scenes.base_sql_name
            );
        }
        Ok(tables)
    }

    fn check_rights(&self, connection: &Connection, execute: bool) -> Result<()> {
        rights::check_row_security([&self.scenes, &self.sessions].into_iter().chain(&self.references))?;
        let names = |columns: &[Need]| columns.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        for (relation, input, new, written) in [
            (
                &self.scenes,
                names(&SCENE_INPUT),
                names(&SCENE_NEW),
                names(&SCENE_WRITTEN),
            ),
            (
                &self.sessions,
                names(&SESSION_INPUT),
                names(&SESSION_NEW),
                names(&SESSION_WRITTEN),
            ),
        ] {
            rights::check_privilege(connection, relation, "SELECT", &[input, new].concat())?;
            if execute {
                rights::check_privilege(connection, relation, "UPDATE", &written)?;
            }
        }
        if let Some(references) = &self.references {
            rights::check_privilege(connection, references, "SELECT", &names(&REFERENCE))?;
            if execute {
                rights::check_privilege(connection, references, "INSERT", &names(&REFERENCE))?;
            }
        }
        Ok(())
    }

    /// The rows of scenes: id, version, then the other columns of `SCENE_INPUT` and `SCENE_NEW`.
    pub fn select_scenes(&self) -> String {
        select(&self.scenes, &self.scene_versions, SCENES)
    }

    /// The rows of sessions: id, version, then the other columns of `SESSION_INPUT` and `SESSION_NEW`.
    pub fn select_sessions(&self) -> String {
        select(&self.sessions, &self.session_versions, SESSIONS)
    }

    /// The relations by name, as a run's row in the ledger keeps them.
    pub fn names(&self) -> Vec<(&'static str, String)> {
        [&self.scenes, &self.sessions]
            .into_iter()
            .chain(&self.references)
            .map(|relation| (relation.name, relation.sql_name.clone()))
            .collect()
    }
}

/// Id, version and the other columns of a row `s`, each in the type that it has to be; one that is not there yet is NULL.
fn select(relation: &Relation, versions: &Versions, columns: [&[Need]; 2]) -> String {
    let all = columns.concat();
    let list: Vec<String> = all
        .iter()
        .filter(|(name, _)| *name != "id")
        .map(|(name, wanted)| {
            if !relation.has(name) {
                return format!("NULL::{}", wanted.sql());
            }
            let column = format!("s.{}", quote_ident(name));
            match wanted {
                // Infinity has no place in a struct; a time without zone is UTC.
                ColumnType::Time => column,
                ColumnType::Integer => format!("{column}::pg_catalog.int8"),
                wanted => format!("{column}::{}", wanted.sql()),
            }
        })
        .collect();
    format!(
        "SELECT s.id::pg_catalog.text, {}, {} FROM {} s",
        versions.columns(),
        list.join(", "),
        relation.sql_name
    )
}
