//! The relations of the Jellyfin job: what is read of them, what is missing, and how they are made.

use media_assets_core::jobs::jellyfin_metadata::Reason;
use pgrx::pg_sys;

use crate::engine::relation::Relation;
use crate::engine::rights;
use crate::error::Result;
use crate::jobs::asset_tables::{self, extension_schema, missing_columns, Problem};
use crate::jobs::table_ddl::{current_schema, Step};
use crate::postgres::spi::Connection;

/// Columns that `studio_board` has to have.
const BOARD: [&str; 6] = ["id", "title", "namespace", "content_url", "status", "meta"];
/// Columns of it that are read where they are there.
const BOARD_OPTIONAL: [&str; 4] = ["description", "public_url", "thumbnail_url", "tags"];
const ITEMS: [&str; 3] = ["item_id", "doc", "http_status"];
const SKIPS: [&str; 5] = ["row_id", "reason", "next_attempt_at", "seen", "skipped_at"];
const OUTBOX: [&str; 9] = [
    "event_id",
    "topic",
    "payload",
    "source",
    "subject_id",
    "created_at",
    "attempts",
    "next_attempt_at",
    "state",
];

/// The relations as they were found; `None` where there is none.
pub struct Found {
    pub board: Option<Relation>,
    pub items: Option<Relation>,
    pub skips: Option<Relation>,
    pub outbox: Option<Relation>,
}

/// The relations of a run.
pub struct Tables {
    pub board: Relation,
    /// These are `None` in a dry run only: they count as empty.
    pub items: Option<Relation>,
    pub skips: Option<Relation>,
    pub outbox: Option<Relation>,
}

impl Found {
    pub fn look(connection: &Connection) -> Self {
        Self::look_at(connection, &|_| None)
    }

    /// The relations that `stored` names, and those it does not by the search_path.
    pub fn look_at(connection: &Connection, stored: &dyn Fn(&str) -> Option<String>) -> Self {
        let find = |name| Relation::find(connection, name, stored(name).as_deref());
        Found {
            board: find("studio_board"),
            items: find("jellyfin_items"),
            skips: find("jellyfin_skips"),
            outbox: find("event_outbox"),
        }
    }

    /// What is wrong with `studio_board`: even a dry run needs it.
    fn board_problems(&self, connection: &Connection) -> Vec<Problem> {
        let mut problems = Vec::new();
        let Some(board) = &self.board else {
            problems.push(Problem {
                relation: "studio_board".to_owned(),
                problem: "relation studio_board is not on the search_path".to_owned(),
                sqlstate: "42P01",
                ddl: format!("CREATE VIEW studio_board AS SELECT {} FROM …;", BOARD.join(", ")),
                blocks: true,
            });
            return problems;
        };
        missing_columns(board, &BOARD, &mut problems);
        let mut wrong = |problem: String, sqlstate, ddl: String| {
            problems.push(Problem {
                relation: board.sql_name.clone(),
                problem,
                sqlstate,
                ddl,
                blocks: true,
            });
        };
        let table = &board.base_sql_name;
        if board.has("meta") && !board.is_of_type("meta", pg_sys::JSONBOID) {
            wrong(
                format!("column meta is {}, not jsonb", board.type_of("meta")),
                "42804",
                format!("ALTER TABLE {table} ALTER COLUMN meta TYPE jsonb USING meta::jsonb;"),
            );
        }
        let integers = [pg_sys::INT2OID, pg_sys::INT4OID, pg_sys::INT8OID];
        if board.has("id") && !integers.iter().any(|oid| board.is_of_type("id", *oid)) {
            wrong(
                format!("column id is {}, not bigint", board.type_of("id")),
                "42804",
                format!("ALTER TABLE {table} ALTER COLUMN id TYPE bigint USING id::bigint;"),
            );
        } else if board.has("id") && board.primary_key_order(connection, "id").is_none() {
            wrong(
                "no primary key on column id".to_owned(),
                "55000",
                format!("ALTER TABLE {table} ADD PRIMARY KEY (id);"),
            );
        }
        problems
    }

    /// What is wrong with the tables that `create_jellyfin_tables()` makes.
    fn own_problems(&self, connection: &Connection) -> Vec<Problem> {
        let create = format!(
            "SELECT * FROM {}create_jellyfin_tables();",
            extension_schema(connection)
        );
        let mut problems = Vec::new();
        let sides: [(&'static str, &Option<Relation>, &[&str], &str); 3] = [
            ("jellyfin_items", &self.items, &ITEMS, "item_id"),
            ("jellyfin_skips", &self.skips, &SKIPS, "row_id"),
            ("event_outbox", &self.outbox, &OUTBOX, "event_id"),
        ];
        for (name, relation, columns, key) in sides {
            let Some(relation) = relation else {
                problems.push(Problem {
                    relation: name.to_owned(),
                    problem: format!("relation {name} is not on the search_path"),
                    sqlstate: "42P01",
                    ddl: create.clone(),
                    blocks: true,
                });
                continue;
            };
            missing_columns(relation, columns, &mut problems);
            if relation.has(key) && !asset_tables::unique_usable(connection, relation, &[key], false) {
                problems.push(Problem {
                    relation: relation.sql_name.clone(),
                    problem: format!("no UNIQUE ({key})"),
                    sqlstate: "55000",
                    ddl: format!("ALTER TABLE {} ADD PRIMARY KEY ({key});", relation.base_sql_name),
                    blocks: true,
                });
            }
        }
        problems
    }
}

impl Tables {
    /// Finds the relations of a run and checks all that can be known before it.
    ///
    /// # Errors
    /// 42P01, 42703, 42804, 55000 with everything that is missing; 42501 for row security or a missing privilege. A dry
    /// run needs `studio_board` only.
    pub fn load(connection: &Connection, found: Found, execute: bool) -> Result<Self> {
        let mut problems = found.board_problems(connection);
        let own = found.own_problems(connection);
        if execute {
            problems.extend(own);
            asset_tables::raise(&problems)?;
        } else {
            asset_tables::raise(&problems)?;
            if let Some(first) = own.first() {
                let what: Vec<String> = own
                    .iter()
                    .map(|problem| format!("{}: {}", problem.relation, problem.problem))
                    .collect();
                crate::postgres::message::notice!("before executing, run {}  -- {}", first.ddl, what.join("; "));
            }
        }
        let Some(board) = found.board else {
            return Err(crate::error::counters_do_not_add_up("relations"));
        };
        // A half-made table of ours counts as empty, as a missing one does.
        let whole = |relation: Option<Relation>, columns: &[&str]| {
            relation.filter(|relation| columns.iter().all(|column| relation.has(column)))
        };
        let tables = Tables {
            board,
            items: whole(found.items, &ITEMS),
            skips: whole(found.skips, &SKIPS),
            outbox: whole(found.outbox, &OUTBOX),
        };
        tables.check_rights(connection, execute)?;
        Ok(tables)
    }

    /// As [`Tables::load`] for a look that needs all of them and writes nothing.
    ///
    /// # Errors
    /// As there; for the tables of the job too.
    pub fn load_to_verify(connection: &Connection, found: Found) -> Result<Self> {
        let mut problems = found.board_problems(connection);
        problems.extend(found.own_problems(connection));
        // It reads only: what a run would need for writing is not asked for.
        problems.retain(|problem| problem.sqlstate != "55000");
        asset_tables::raise(&problems)?;
        Self::load(connection, found, false)
    }

    fn check_rights(&self, connection: &Connection, execute: bool) -> Result<()> {
        let own = [&self.items, &self.skips, &self.outbox];
        rights::check_row_security([&self.board].into_iter().chain(own.into_iter().flatten()))?;
        let mut read = BOARD.to_vec();
        read.extend(BOARD_OPTIONAL);
        rights::check_privilege(connection, &self.board, "SELECT", &read)?;
        if let Some(items) = &self.items {
            rights::check_privilege(connection, items, "SELECT", &ITEMS)?;
        }
        if let Some(skips) = &self.skips {
            rights::check_privilege(connection, skips, "SELECT", &SKIPS)?;
        }
        if let Some(outbox) = &self.outbox {
            rights::check_privilege(connection, outbox, "SELECT", &["event_id"])?;
        }
        if !execute {
            return Ok(());
        }
        rights::check_privilege(connection, &self.board, "UPDATE", &["meta"])?;
        if let Some(skips) = &self.skips {
            rights::check_privilege(connection, skips, "INSERT", &SKIPS)?;
            rights::check_privilege(connection, skips, "UPDATE", &SKIPS[1..])?;
            rights::check_privilege(connection, skips, "DELETE", &[])?;
        }
        if let Some(outbox) = &self.outbox {
            rights::check_privilege(connection, outbox, "INSERT", &OUTBOX)?;
        }
        Ok(())
    }

    /// The relations by name, as a run's row in the ledger keeps them.
    pub fn names(&self) -> Vec<(&'static str, String)> {
        [&self.board]
            .into_iter()
            .chain(&self.items)
            .chain(&self.skips)
            .chain(&self.outbox)
            .map(|relation| (relation.name, relation.sql_name.clone()))
            .collect()
    }

    /// What decisions read of the row that `alias` names, as one jsonb.
    pub fn board_row(&self, alias: &str) -> String {
        let members: Vec<String> = BOARD
            .into_iter()
            .chain(BOARD_OPTIONAL)
            .filter(|column| self.board.has(column))
            .map(|column| format!("'{column}', {alias}.{column}"))
            .collect();
        format!("pg_catalog.jsonb_build_object({})", members.join(", "))
    }
}

/// What `create_jellyfin_tables()` does: makes the tables that are not there, in the current schema.
///
/// # Errors
/// 3F000 when the search_path names no schema to make them in.
pub fn create(connection: &Connection) -> Result<Vec<Step>> {
    let found = Found::look(connection);
    let schema = current_schema(connection)?;
    let extension = extension_schema(connection);
    let reasons: Vec<String> = Reason::ALL
        .into_iter()
        .map(|reason| format!("'{}'", reason.name()))
        .collect();
    let reasons = reasons.join(", ");
    let terminal = Reason::NotFound.name();
    let mut steps = Vec::new();
    let mut make = |name: &str, relation: &Option<Relation>, ddl: &dyn Fn(&str) -> Vec<String>| match relation {
        Some(relation) => steps.push(Step::exists(&relation.sql_name)),
        None => {
            let table = format!("{schema}.{name}");
            steps.extend(ddl(&table).into_iter().map(|ddl| Step::new(&table, ddl)));
        }
    };
    make("jellyfin_items", &found.items, &|table| {
        vec![
            format!(
                "CREATE TABLE {table} (
    item_id pg_catalog.text PRIMARY KEY,
    doc pg_catalog.jsonb,
    http_status pg_catalog.int4 CHECK (http_status BETWEEN 100 AND 599),
    fetched_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.transaction_timestamp(),
    error pg_catalog.text
)"
            ),
            // By which the items of a name and date are found.
            format!(
                "CREATE INDEX ON {table} ({extension}jellyfin_search_key(doc OPERATOR(pg_catalog.->>) 'Name', doc OPERATOR(pg_catalog.->>) 'PremiereDate'))"
            ),
        ]
    });
    make("jellyfin_skips", &found.skips, &|table| {
        vec![format!(
            "CREATE TABLE {table} (
    row_id pg_catalog.int8 PRIMARY KEY,
    reason pg_catalog.text NOT NULL CHECK (reason IN ({reasons})),
    next_attempt_at pg_catalog.timestamptz,
    seen pg_catalog.int8 NOT NULL,
    skipped_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.transaction_timestamp(),
    CHECK ((reason = '{terminal}') = (next_attempt_at IS NULL))
)"
        )]
    });
    make("event_outbox", &found.outbox, &|table| {
        vec![
            format!(
                "CREATE TABLE {table} (
    event_id pg_catalog.uuid PRIMARY KEY,
    topic pg_catalog.text NOT NULL,
    payload pg_catalog.jsonb NOT NULL CHECK (pg_catalog.jsonb_typeof(payload) = 'object'),
    source pg_catalog.text NOT NULL,
    subject_id pg_catalog.text NOT NULL,
    created_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.transaction_timestamp(),
    attempts pg_catalog.int4 NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_attempt_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.transaction_timestamp(),
    claimed_by pg_catalog.text,
    published_at pg_catalog.timestamptz,
    envelope_id pg_catalog.text,
    last_error pg_catalog.text,
    state pg_catalog.text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'published', 'failed')),
    CHECK ((state = 'published') = (published_at IS NOT NULL)),
    CHECK (claimed_by IS NULL OR state = 'queued')
)"
            ),
            // What a relay claims next; published events cost it nothing.
            format!("CREATE INDEX ON {table} (next_attempt_at, event_id) WHERE state = 'queued'"),
        ]
    });
    Ok(steps)
}
