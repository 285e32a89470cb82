//! The items of a run: read once, keyed and sorted by PostgreSQL's own sort, which spills to disk.

use std::collections::{HashMap, HashSet};

use media_assets_core::jobs::collection_ingest::{check_reconcile, IngestError, Reconcile};
use pgrx::pg_sys;

use super::call::{refused, Asked, Collection};
use super::tables::Tables;
use crate::engine::key_set::{hash, within_memory, Build};
use crate::error::{invalid_argument, not_prepared, permission_denied, row_security, Result};
use crate::jobs::asset_tables::extension_schema;
use crate::postgres::cursor::Cursor;
use crate::postgres::spi::{Connection, Mode, Parameter, Rows};

/// The columns of the spool, in their order, behind the key.
const TEXTS: [&str; 5] = ["locator", "uri", "content_hash", "title", "enricher_checksum"];
/// Rows that the counting pass reads at once.
const COUNTED_AT_ONCE: i64 = 1000;

/// A table or view of items.
struct Source {
    sql_name: String,
    columns: HashMap<String, pg_sys::Oid>,
}

/// The sorted items.
pub struct Spool {
    cursor: Cursor,
    /// The first ones, where they were looked at already.
    first: Option<Rows>,
}

/// Columns of a row of the spool.
pub mod column {
    pub const KEY: usize = 0;
    pub const LOCATOR: usize = 1;
    pub const URI: usize = 2;
    pub const SIZE: usize = 3;
    pub const MTIME: usize = 4;
    pub const HASH: usize = 5;
    pub const TITLE: usize = 6;
    pub const SEASON: usize = 7;
    pub const EPISODE: usize = 8;
    pub const METADATA: usize = 9;
    pub const ENRICHERS: usize = 10;
}

impl Source {
    /// # Errors
    /// 42809 for what has no rows, 42703 without a column `locator`, 42804 for a column of a type that says something
    /// else, 42501 without the right to read all of it.
    fn find(connection: &Connection, items: pg_sys::Oid) -> Result<Self> {
        let oid = i64::from(items.to_u32());
        let rows = connection.query(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.relkind::pg_catalog.text,
                    pg_catalog.row_security_active(c.oid)
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.oid = $1::pg_catalog.oid",
            Mode::Read,
            &[oid.into()],
        );
        if rows.is_empty() {
            return Err(invalid_argument(
                format!("items names no relation: {oid}"),
                "It is a table or view with a column locator.",
            ));
        }
        let sql_name = rows.text(0, 0).unwrap_or_default();
        if !matches!(rows.text(0, 1).as_deref(), Some("r" | "p" | "v" | "m" | "f")) {
            return Err(not_prepared(
                "42809",
                format!("{sql_name} is no table and no view"),
                "Items are read from its rows.",
                "Give a table or view with a column locator.",
            ));
        }
        if rows.get(0, 2) == Some(true) {
            return Err(row_security(&sql_name));
        }
        let rows = connection.query(
            "SELECT a.attname::pg_catalog.text, a.atttypid, pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT')
             FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1::pg_catalog.oid AND a.attnum > 0 AND NOT a.attisdropped",
            Mode::Read,
            &[oid.into()],
        );
        let mut source = Source {
            sql_name,
            columns: HashMap::new(),
        };
        let mut hidden = Vec::new();
        for row in 0..rows.len() {
            let name = rows.text(row, 0).unwrap_or_default();
            if !EXPECTED.iter().any(|(expected, ..)| *expected == name) {
                continue;
            }
            if rows.get(row, 2) != Some(true) {
                hidden.push(name.clone());
            }
            source
                .columns
                .insert(name, rows.get(row, 1).unwrap_or(pg_sys::InvalidOid));
        }
        if !source.columns.contains_key("locator") {
            return Err(not_prepared(
                "42703",
                format!("column locator of {} does not exist", source.sql_name),
                "It holds the path or the external id of each item.",
                format!(
                    "CREATE VIEW items AS SELECT path AS locator, … FROM {};",
                    source.sql_name
                ),
            ));
        }
        if !hidden.is_empty() {
            let columns = hidden.join(", ");
            return Err(
                permission_denied(&source.sql_name, format!("The run needs SELECT ({columns}) on it.")).set_hint(
                    format!(
                        "GRANT SELECT ON {} TO {};",
                        source.sql_name,
                        crate::engine::relation::quote_ident(&crate::postgres::user::current_name())
                    ),
                ),
            );
        }
        source.check_types()?;
        Ok(source)
    }

    fn check_types(&self) -> Result<()> {
        for (name, types, wanted) in EXPECTED {
            let Some(oid) = self.columns.get(name) else { continue };
            if !types.is_empty() && !types.contains(oid) {
                return Err(not_prepared(
                    "42804",
                    format!("column {name} of {} is not {wanted}", self.sql_name),
                    "A cast could fail in the middle of the items.",
                    format!(
                        "CREATE VIEW items AS SELECT …, {name}::{wanted} FROM {};",
                        self.sql_name
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The column as the spool reads it; NULL where there is none. A number out of range says nothing.
    fn expression(&self, name: &str) -> String {
        let column = format!("i.{name}");
        let ranged = |least: &str, most: &str, sql_type: &str| {
            format!("CASE WHEN {column} BETWEEN {least} AND {most} THEN {column}::pg_catalog.{sql_type} END")
        };
        let is_float = |oid: &pg_sys::Oid| matches!(*oid, pg_sys::NUMERICOID);
        match (name, self.columns.get(name)) {
            ("size", None) => "NULL::pg_catalog.int8".to_owned(),
            ("season" | "episode", None) => "NULL::pg_catalog.int4".to_owned(),
            ("mtime", None) => "NULL::pg_catalog.timestamptz".to_owned(),
            ("metadata", None) => "NULL::pg_catalog.jsonb".to_owned(),
            (_, None) => "NULL::pg_catalog.text".to_owned(),
            ("size", Some(oid)) if is_float(oid) => ranged("0", "9223372036854775807", "int8"),
            ("size", Some(_)) => format!("{column}::pg_catalog.int8"),
            ("season" | "episode", Some(_)) => ranged("-2147483648", "2147483647", "int4"),
            // A day of room for the session's time zone; infinite times say nothing either.
            ("mtime", Some(&pg_sys::DATEOID)) => ranged(
                "'4713-01-02 BC'::pg_catalog.date",
                "'294276-12-30'::pg_catalog.date",
                "timestamptz",
            ),
            ("mtime", Some(&pg_sys::TIMESTAMPOID)) => ranged(
                "'4713-01-02 BC'::pg_catalog.timestamp",
                "'294276-12-30'::pg_catalog.timestamp",
                "timestamptz",
            ),
            ("mtime", Some(_)) => format!("{column}::pg_catalog.timestamptz"),
            ("metadata", Some(_)) => column,
            (_, Some(_)) => format!("{column}::pg_catalog.text"),
        }
    }
}

/// Columns of items, the types that they may have (any, where none is named), and what to cast to.
const EXPECTED: [(&str, &[pg_sys::Oid], &str); 10] = [
    ("locator", &[], "text"),
    ("uri", &[], "text"),
    (
        "size",
        &[pg_sys::INT2OID, pg_sys::INT4OID, pg_sys::INT8OID, pg_sys::NUMERICOID],
        "bigint",
    ),
    (
        "mtime",
        &[pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPOID, pg_sys::DATEOID],
        "timestamptz",
    ),
    ("content_hash", &[], "text"),
    ("title", &[], "text"),
    (
        "season",
        &[pg_sys::INT2OID, pg_sys::INT4OID, pg_sys::INT8OID, pg_sys::NUMERICOID],
        "integer",
    ),
    (
        "episode",
        &[pg_sys::INT2OID, pg_sys::INT4OID, pg_sys::INT8OID, pg_sys::NUMERICOID],
        "integer",
    ),
    ("metadata", &[pg_sys::JSONBOID], "jsonb"),
    ("enricher_checksum", &[], "text"),
];

impl Spool {
    /// Opens the items in scope, in the order of their keys.
    ///
    /// # Errors
    /// What the relation of items lacks.
    pub fn open(
        connection: &Connection,
        items: pg_sys::Oid,
        collection: &Collection,
        asked: &Asked,
        mode: Mode,
    ) -> Result<Self> {
        let source = Source::find(connection, items)?;
        let all: Vec<String> = EXPECTED
            .iter()
            .map(|(name, ..)| format!("{} AS {name}", source.expression(name)))
            .collect();
        let c_order = |name: &str| {
            if TEXTS.contains(&name) {
                format!("s.{name} COLLATE pg_catalog.\"C\"")
            } else {
                format!("s.{name}")
            }
        };
        let names: Vec<String> = EXPECTED.iter().map(|(name, ..)| format!("s.{name}")).collect();
        let order: Vec<String> = EXPECTED.iter().map(|(name, ..)| c_order(name)).collect();
        let sql = format!(
            "SELECT k.key, {names} FROM (SELECT {all} FROM {source} i) s
             CROSS JOIN LATERAL (SELECT {extension}collection_item_key($1, s.locator, $2) AS key) k
             WHERE ($3 IS NULL OR s.title COLLATE pg_catalog.\"C\" = $3) AND ($4 IS NULL OR s.season = $4) AND ($5 IS NULL OR s.episode = $5)
             ORDER BY k.key COLLATE pg_catalog.\"C\", {order}",
            names = names.join(", "),
            all = all.join(", "),
            source = source.sql_name,
            extension = extension_schema(connection),
            order = order.join(", "),
        );
        let parameters = [
            collection.source_type.as_str().into(),
            collection.case_sensitive.into(),
            asked.title.as_deref().into(),
            Parameter::int4(asked.season),
            Parameter::int4(asked.episode),
        ];
        // A reconciliation reads all keys before the first item is decided.
        let open = if asked.reconcile {
            Cursor::open_to_rewind
        } else {
            Cursor::open
        };
        Ok(Spool {
            cursor: open(connection, &sql, mode, &parameters),
            first: None,
        })
    }

    /// The next items, at most `limit`.
    pub fn next(&mut self, connection: &Connection, limit: i64) -> Rows {
        match self.first.take() {
            Some(first) => first,
            None => self.cursor.fetch(connection, limit),
        }
    }

    /// Checks that the scope has an item and, for a reconciliation, counts what it would remove. Gives the rows that
    /// would go. The items can be read from their start afterwards, `limit` of them at once.
    ///
    /// # Errors
    /// P0002 for a scope without a match, 55000 where the reconciliation is refused; 53400 beyond
    /// `media_assets.dry_run_memory`.
    pub fn check(
        &mut self,
        connection: &Connection,
        tables: &Tables,
        collection: &Collection,
        asked: &Asked,
        limit: i64,
        mode: Mode,
    ) -> Result<Vec<[u8; 16]>> {
        let name = collection.name.as_deref().unwrap_or_default();
        if !asked.reconcile {
            let first = self.next(connection, limit);
            asked
                .request()
                .check_matches(first.len() as i64)
                .map_err(|error| refused(error, asked, name))?;
            self.first = Some(first);
            return Ok(Vec::new());
        }
        let mut counted = Reconcile {
            items: 0,
            unkeyable_items: 0,
            live_rows: 0,
            unseen_rows: 0,
        };
        let mut seen: HashSet<u128, Build> = HashSet::default();
        loop {
            let rows = self.next(connection, COUNTED_AT_ONCE);
            if rows.is_empty() {
                break;
            }
            counted.items += rows.len() as i64;
            for row in 0..rows.len() {
                match rows.get::<&str>(row, column::KEY) {
                    Some(key) => {
                        if seen.len() == seen.capacity() {
                            within_memory(seen.capacity() * 2 * (size_of::<u128>() + 1))?;
                        }
                        seen.insert(hash("", key.as_bytes()));
                    }
                    None => counted.unkeyable_items += 1,
                }
            }
        }
        self.cursor.rewind(connection);
        let unseen = unseen_rows(connection, tables, collection, &seen, &mut counted, mode)?;
        check_reconcile(counted, asked.max_removed_fraction).map_err(|error| {
            let report = refused(error, asked, name);
            match error {
                IngestError::ReconcileFraction => report.set_detail(format!(
                    "{} of {} assets would be removed; max_removed_fraction is {}.",
                    counted.unseen_rows, counted.live_rows, asked.max_removed_fraction
                )),
                IngestError::ReconcileIncomplete => report.set_detail(format!(
                    "{} of {} items could not be keyed.",
                    counted.unkeyable_items, counted.items
                )),
                _ => report,
            }
        })?;
        Ok(unseen)
    }
}

/// Ids of the live, non-retired rows of the collection whose key is not in `seen`.
fn unseen_rows(
    connection: &Connection,
    tables: &Tables,
    collection: &Collection,
    seen: &HashSet<u128, Build>,
    counted: &mut Reconcile,
    mode: Mode,
) -> Result<Vec<[u8; 16]>> {
    let mut live = Cursor::open(
        connection,
        &format!(
            "SELECT a.canonical_key::pg_catalog.text, a.uuid FROM {} a
             WHERE a.collection_uuid = $1 AND NOT a.is_deleted AND a.state::pg_catalog.text <> 'retired'",
            tables.assets.sql_name
        ),
        mode,
        &[Parameter::uuid(collection.uuid)],
    );
    let mut unseen = Vec::new();
    loop {
        let rows = live.fetch(connection, COUNTED_AT_ONCE);
        if rows.is_empty() {
            break;
        }
        counted.live_rows += rows.len() as i64;
        for row in 0..rows.len() {
            let key = rows.get::<&str>(row, 0).unwrap_or_default();
            if seen.contains(&hash("", key.as_bytes())) {
                continue;
            }
            if unseen.len() == unseen.capacity() {
                within_memory(unseen.capacity() * 2 * size_of::<[u8; 16]>())?;
            }
            unseen.extend(rows.uuid(row, 1));
        }
    }
    counted.unseen_rows = unseen.len() as i64;
    unseen.sort_unstable();
    Ok(unseen)
}

/// What a caller gave for `items`.
///
/// # Errors
/// 22023 for NULL.
pub fn given(items: Option<pg_sys::Oid>) -> Result<pg_sys::Oid> {
    items.ok_or_else(|| invalid_argument("items must not be NULL", "Name a table or view with a column locator."))
}
