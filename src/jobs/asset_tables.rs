//! The relations of the lesson job, and everything that may be wrong with them.

use pgrx::pg_sys;

use crate::engine::relation::{quote_ident, Ordering, Relation};
use crate::engine::rights;
use crate::error::{not_prepared, Result};
use crate::postgres::spi::{Connection, Mode};

/// Columns of `assets` that the engine writes, in the order in which it names them.
pub const ASSET_COLUMNS: [&str; 18] = [
    "id",
    "organization_id",
    "kind",
    "provider",
    "storage_provider",
    "storage_key",
    "source_url",
    "mime_type",
    "byte_size",
    "title",
    "description",
    "thumbnail_url",
    "duration_seconds",
    "aspect_ratio",
    "is_external",
    "status",
    "metadata",
    "canonical_key",
];
/// What must be unique among assets.
pub const ASSET_KEY: [&str; 2] = ["organization_id", "canonical_key"];
/// What must be unique among usages, NULLs being equal.
pub const USAGE_KEY: [&str; 7] = [
    "organization_id",
    "asset_id",
    "target_type",
    "target_id",
    "slot_type",
    "slot_key",
    "position",
];
/// NULLS NOT DISTINCT came with PostgreSQL 15; before, an expression index stands for it.
pub const HAS_NULLS_NOT_DISTINCT: bool = !cfg!(any(feature = "pg13", feature = "pg14"));

/// One thing that stands in the way, or may.
pub struct Problem {
    pub relation: String,
    pub problem: String,
    pub sqlstate: &'static str,
    /// What to run against it.
    pub ddl: String,
    /// Whether an execute is refused; the others are only reported.
    pub blocks: bool,
}

/// The relations as they were found; `None` where there is none.
pub struct Found {
    pub lesson: Option<Relation>,
    pub course: Option<Relation>,
    pub group: Option<Relation>,
    pub assets: Option<Relation>,
    pub usages: Option<Relation>,
    pub state: Option<Relation>,
}

/// The schema of the extension, quoted, with a dot behind it.
pub fn extension_schema(connection: &Connection) -> String {
    let rows = connection.query(
        "SELECT n.nspname::pg_catalog.text FROM pg_catalog.pg_extension e
         JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'media_assets'",
        Mode::Read,
        &[],
    );
    let schema = if rows.is_empty() { None } else { rows.text(0, 0) };
    schema.map_or_else(String::new, |schema| format!("{}.", quote_ident(&schema)))
}

impl Found {
    /// The relations on the caller's search_path.
    pub fn look(connection: &Connection) -> Self {
        Self::look_at(connection, &|_| None)
    }

    /// The relations that `stored` names, and those it does not by the search_path.
    pub fn look_at(connection: &Connection, stored: &dyn Fn(&str) -> Option<String>) -> Self {
        let find = |name| Relation::find(connection, name, stored(name).as_deref());
        Found {
            lesson: find("lesson"),
            course: find("course"),
            group: find("group"),
            assets: find("assets"),
            usages: find("asset_usages"),
            state: find("lesson_media_state"),
        }
    }

    /// What is wrong on the side that is only read and patched: even a dry run needs it.
    pub fn lesson_problems(&self, connection: &Connection) -> Vec<Problem> {
        let mut problems = Vec::new();
        let sides: [(&'static str, &Option<Relation>, &[&str]); 3] = [
            ("lesson", &self.lesson, &["id", "course_id", "videos", "documents"]),
            ("course", &self.course, &["id", "group_id"]),
            ("group", &self.group, &["id", "organization_id"]),
        ];
        for (name, relation, columns) in sides {
            let quoted = quote_ident(name);
            match relation {
                None => problems.push(Problem {
                    relation: quoted.clone(),
                    problem: format!("relation {quoted} is not on the search_path"),
                    sqlstate: "42P01",
                    ddl: format!("CREATE VIEW {quoted} AS SELECT {} FROM …;", columns.join(", ")),
                    blocks: true,
                }),
                Some(relation) => missing_columns(relation, columns, &mut problems),
            }
        }
        let Some(lesson) = &self.lesson else { return problems };
        for column in ["videos", "documents"] {
            if lesson.has(column) && !lesson.is_of_type(column, pg_sys::JSONBOID) {
                problems.push(Problem {
                    relation: lesson.sql_name.clone(),
                    problem: format!("column {column} is {}, not jsonb", lesson.type_of(column)),
                    sqlstate: "42804",
                    ddl: format!(
                        "ALTER TABLE {} ALTER COLUMN {column} TYPE jsonb USING {column}::jsonb;",
                        lesson.base_sql_name
                    ),
                    blocks: true,
                });
            }
        }
        if lesson.has("id") && lesson.primary_key_order(connection, "id").is_none() {
            problems.push(Problem {
                relation: lesson.sql_name.clone(),
                problem: "no primary key on column id".to_owned(),
                sqlstate: "55000",
                ddl: format!("ALTER TABLE {} ADD PRIMARY KEY (id);", lesson.base_sql_name),
                blocks: true,
            });
        }
        problems
    }

    /// What is wrong with `assets` and `asset_usages`: an execute needs them whole.
    pub fn asset_problems(&self, connection: &Connection) -> Vec<Problem> {
        let schema = extension_schema(connection);
        let create = format!("SELECT * FROM {schema}create_asset_tables();");
        let prepare = format!("SELECT * FROM {schema}prepare_asset_tables(true);");
        let mut problems = Vec::new();
        for (name, relation) in [("assets", &self.assets), ("asset_usages", &self.usages)] {
            if relation.is_none() {
                problems.push(Problem {
                    relation: name.to_owned(),
                    problem: format!("relation {name} is not on the search_path"),
                    sqlstate: "42P01",
                    ddl: create.clone(),
                    blocks: true,
                });
            }
        }
        if let Some(assets) = &self.assets {
            missing_columns(assets, &ASSET_COLUMNS, &mut problems);
            for problem in &mut problems {
                if problem.sqlstate == "42703" && problem.problem.contains("canonical_key") {
                    problem.ddl = prepare.clone();
                }
            }
            if !unique_usable(connection, assets, &ASSET_KEY, false) {
                problems.push(missing_unique(connection, assets, &ASSET_KEY, false, &prepare));
            }
            if assets.has("id") && !assets.is_of_type("id", pg_sys::UUIDOID) {
                problems.push(Problem {
                    relation: assets.sql_name.clone(),
                    problem: format!("column id is {}, not uuid", assets.type_of("id")),
                    sqlstate: "42804",
                    ddl: format!(
                        "ALTER TABLE {} ALTER COLUMN id TYPE uuid USING id::text::uuid;",
                        assets.base_sql_name
                    ),
                    blocks: true,
                });
            }
            self.narrow_and_unfilled(assets, &ASSET_COLUMNS, &mut problems);
        }
        if let Some(usages) = &self.usages {
            missing_columns(usages, &["id"], &mut problems);
            missing_columns(usages, &USAGE_KEY, &mut problems);
            if !unique_usable(connection, usages, &USAGE_KEY, true) {
                problems.push(missing_unique(connection, usages, &USAGE_KEY, true, &prepare));
            }
            let mut written = USAGE_KEY.to_vec();
            written.push("id");
            self.narrow_and_unfilled(usages, &written, &mut problems);
        }
        problems
    }

    fn narrow_and_unfilled(&self, relation: &Relation, written: &[&str], problems: &mut Vec<Problem>) {
        // The longest key has 1,000 bytes; links and titles have no bound of ours.
        let longest = [
            ("kind", 8),
            ("provider", 12),
            ("storage_provider", 8),
            ("status", 6),
            ("canonical_key", 1000),
            ("source_url", 2048),
            ("storage_key", 1024),
            ("target_id", 36),
            ("target_type", 6),
            ("slot_type", 15),
        ];
        for (column, characters) in longest {
            if let Some(length) = relation.columns.get(column).and_then(|column| column.length) {
                if length < characters {
                    problems.push(Problem {
                        relation: relation.sql_name.clone(),
                        problem: format!("column {column} holds {length} characters; {characters} are needed"),
                        sqlstate: "22001",
                        ddl: format!(
                            "ALTER TABLE {} ALTER COLUMN {column} TYPE text;",
                            relation.base_sql_name
                        ),
                        blocks: false,
                    });
                }
            }
        }
        let mut unfilled: Vec<&String> = relation
            .columns
            .iter()
            .filter(|(name, column)| column.not_null && !column.has_default && !written.contains(&name.as_str()))
            .map(|(name, _)| name)
            .collect();
        unfilled.sort();
        for name in unfilled {
            problems.push(Problem {
                relation: relation.sql_name.clone(),
                problem: format!("column {name} is NOT NULL, has no default, and is not written by the run"),
                sqlstate: "23502",
                ddl: format!(
                    "ALTER TABLE {} ALTER COLUMN {} SET DEFAULT …;",
                    relation.base_sql_name,
                    quote_ident(name)
                ),
                blocks: false,
            });
        }
    }
}

pub fn missing_columns(relation: &Relation, columns: &[&str], problems: &mut Vec<Problem>) {
    for column in columns.iter().filter(|column| !relation.has(column)) {
        problems.push(Problem {
            relation: relation.sql_name.clone(),
            problem: format!("column {column} does not exist"),
            sqlstate: "42703",
            ddl: format!("ALTER TABLE {} ADD COLUMN {column} …;", relation.base_sql_name),
            blocks: true,
        });
    }
}

/// Whether ON CONFLICT can rely on a unique index over `columns`.
pub fn unique_usable(connection: &Connection, relation: &Relation, columns: &[&str], nulls_equal: bool) -> bool {
    if nulls_equal && !HAS_NULLS_NOT_DISTINCT {
        // Two of the seven columns are wrapped in expressions there.
        return relation.every_unique_index(connection).iter().any(|index| {
            index.has_expressions && !index.partial && !index.deferrable && index.numbers.len() == columns.len()
        });
    }
    relation.unique_indexes(connection, columns).iter().any(|index| {
        !index.deferrable && !index.partial && !index.has_expressions && (!nulls_equal || index.nulls_not_distinct)
    })
}

/// Whether rows are found by `column` alone: an index of the base table begins with it and has all rows.
pub fn has_index_on(connection: &Connection, relation: &Relation, column: &str) -> bool {
    let Some(column) = relation.base_column(connection, column) else {
        return false;
    };
    let rows = connection.query(
        "SELECT FROM pg_catalog.pg_index i
         JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND a.attname::pg_catalog.text = $2
         WHERE i.indrelid = $1::pg_catalog.oid AND i.indpred IS NULL AND i.indisvalid LIMIT 1",
        Mode::Read,
        &[i64::from(relation.base_oid.to_u32()).into(), column.as_str().into()],
    );
    !rows.is_empty()
}

fn missing_unique(
    connection: &Connection,
    relation: &Relation,
    columns: &[&str],
    nulls_equal: bool,
    prepare: &str,
) -> Problem {
    let why: Vec<String> = relation
        .unique_indexes(connection, columns)
        .iter()
        .map(|index| {
            let what = if index.deferrable {
                "is deferrable"
            } else if index.partial {
                "is partial"
            } else {
                "treats NULLs as distinct"
            };
            format!("; index {} {what}, which is no safety net", index.name)
        })
        .collect();
    let kind = if nulls_equal {
        "UNIQUE NULLS NOT DISTINCT"
    } else {
        "UNIQUE"
    };
    Problem {
        relation: relation.sql_name.clone(),
        problem: format!("no {kind} ({}){}", columns.join(", "), why.concat()),
        sqlstate: "55000",
        ddl: prepare.to_owned(),
        blocks: true,
    }
}

/// One error that names all that is missing, with the calls that make it.
pub fn raise(problems: &[Problem]) -> Result<()> {
    let blocking: Vec<&Problem> = problems.iter().filter(|problem| problem.blocks).collect();
    let Some(state) = ["42P01", "42703", "42804", "55000"]
        .into_iter()
        .find(|state| blocking.iter().any(|problem| problem.sqlstate == *state))
    else {
        return Ok(());
    };
    let lines: Vec<String> = blocking
        .iter()
        .map(|problem| format!("{}: {}", problem.relation, problem.problem))
        .collect();
    let mut calls: Vec<&str> = Vec::new();
    for problem in &blocking {
        if !calls.contains(&problem.ddl.as_str()) {
            calls.push(&problem.ddl);
        }
    }
    let message = match lines.as_slice() {
        [single] => single.clone(),
        many => format!("{} things are missing: {}", many.len(), many.join("; ")),
    };
    Err(not_prepared(state, message, lines.join("\n"), calls.join("\n")))
}

/// The relations of a run, ready for it.
pub struct Tables {
    pub lesson: Relation,
    pub course: Relation,
    pub group: Relation,
    /// `None` only in a dry run: counts as empty.
    pub assets: Option<Relation>,
    pub usages: Option<Relation>,
    /// How runs that skip settled lessons left them.
    pub state: Option<Relation>,
    pub lesson_order: Ordering,
}

/// Finds the relations of a run and checks all that can be known before it.
///
/// # Errors
/// 42P01, 42703, 42804, 55000 with everything that is missing; 42501 for row security or a missing privilege. A dry run
/// needs the lesson side only.
pub fn load(connection: &Connection, execute: bool) -> Result<Tables> {
    load_found(connection, Found::look(connection), execute)
}

/// As [`load`], for relations that were found in some other way.
///
/// # Errors
/// As [`load`].
pub fn load_found(connection: &Connection, found: Found, execute: bool) -> Result<Tables> {
    if execute {
        return checked(connection, found);
    }
    raise(&found.lesson_problems(connection))?;
    let of_assets = found.asset_problems(connection);
    let blocking: Vec<&Problem> = of_assets.iter().filter(|problem| problem.blocks).collect();
    if let Some(first) = blocking.first() {
        let what: Vec<String> = blocking
            .iter()
            .map(|problem| format!("{}: {}", problem.relation, problem.problem))
            .collect();
        crate::postgres::message::notice!("before executing, run {}  -- {}", first.ddl, what.join("; "));
    }
    ready(connection, found, false)
}

/// The relations that were found, when an execution could write them.
///
/// # Errors
/// As [`load`] for an execution.
pub fn checked(connection: &Connection, found: Found) -> Result<Tables> {
    let mut problems = found.lesson_problems(connection);
    problems.extend(found.asset_problems(connection));
    raise(&problems)?;
    ready(connection, found, true)
}

fn ready(connection: &Connection, found: Found, execute: bool) -> Result<Tables> {
    let (Some(lesson), Some(course), Some(group)) = (found.lesson, found.course, found.group) else {
        return Err(crate::error::counters_do_not_add_up("relations"));
    };
    let Some(lesson_order) = lesson.primary_key_order(connection, "id") else {
        return Err(crate::error::counters_do_not_add_up("primary key"));
    };
    let tables = Tables {
        lesson,
        course,
        group,
        assets: found.assets,
        usages: found.usages,
        state: found.state,
        lesson_order,
    };
    tables.check_rights(connection, execute)?;
    Ok(tables)
}

impl Tables {
    /// Whether lesson ids are uuids.
    pub fn lesson_ids_are_uuids(&self) -> bool {
        self.lesson.is_of_type("id", pg_sys::UUIDOID)
    }

    /// Whether organizations are uuids, where they come from and in every table that has them.
    pub fn organizations_are_uuids(&self) -> bool {
        [Some(&self.group), self.assets.as_ref(), self.usages.as_ref()]
            .into_iter()
            .flatten()
            .all(|relation| relation.is_of_type("organization_id", pg_sys::UUIDOID))
    }

    /// The relations by name, as a run's row in the ledger keeps them.
    pub fn names(&self) -> Vec<(&'static str, String)> {
        [&self.lesson, &self.course, &self.group]
            .into_iter()
            .chain(&self.assets)
            .chain(&self.usages)
            .chain(&self.state)
            .map(|relation| (relation.name, relation.sql_name.clone()))
            .collect()
    }

    pub fn check_rights(&self, connection: &Connection, execute: bool) -> Result<()> {
        let asset_side = [&self.assets, &self.usages].into_iter().flatten();
        rights::check_row_security([&self.lesson, &self.course, &self.group].into_iter().chain(asset_side))?;
        rights::check_privilege(
            connection,
            &self.lesson,
            "SELECT",
            &["id", "course_id", "videos", "documents"],
        )?;
        rights::check_privilege(connection, &self.course, "SELECT", &["id", "group_id"])?;
        rights::check_privilege(connection, &self.group, "SELECT", &["id", "organization_id"])?;
        if let Some(assets) = &self.assets {
            let read = [
                "id",
                "organization_id",
                "provider",
                "storage_key",
                "source_url",
                "kind",
                "byte_size",
                "canonical_key",
                "created_at",
            ];
            rights::check_privilege(connection, assets, "SELECT", &read)?;
        }
        if let Some(usages) = &self.usages {
            let mut read = USAGE_KEY.to_vec();
            read.push("id");
            rights::check_privilege(connection, usages, "SELECT", &read)?;
        }
        if !execute {
            return Ok(());
        }
        if let Some(assets) = &self.assets {
            rights::check_privilege(connection, assets, "INSERT", &ASSET_COLUMNS)?;
            rights::check_privilege(connection, assets, "UPDATE", &["canonical_key"])?;
        }
        if let Some(usages) = &self.usages {
            rights::check_privilege(connection, usages, "INSERT", &USAGE_KEY)?;
        }
        rights::check_privilege(connection, &self.lesson, "UPDATE", &["videos", "documents"])
    }
}
