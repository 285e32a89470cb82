//! Keys that the rules make anew are given to their rows; a key that another row has or wants is given to none.

use std::collections::BTreeMap;

use super::call::Collection;
use super::items::by_the_unique_index;
use super::tables::Tables;
use crate::engine::journal::{Changes, CELL_SET};
use crate::engine::ledger::decisions::Decision;
use crate::engine::{Job, Stale, Tally};
use crate::error::Result;
use crate::jobs::asset_tables::extension_schema;
use crate::postgres::cursor::Cursor;
use crate::postgres::spi::{Connection, Mode, Parameter, Rows, Statement};
use crate::postgres::{arrays, write_flag};
use crate::settings::LogDecisions;

/// The job's name in the ledger.
pub const REKEY: &str = "collection_rekey";

/// What becomes of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Rekey,
    /// Another row has the key, or wants it too: all are left.
    Collision,
    /// Neither `uri` nor key tell what the key was made of.
    UnknownLocator,
    /// Somebody changed the key, or removed the row, after the run had read it.
    ChangedMeanwhile,
}

impl Fate {
    pub const fn name(self) -> &'static str {
        match self {
            Fate::Rekey => "rekey",
            Fate::Collision => "collision",
            Fate::UnknownLocator => "unknown_locator",
            Fate::ChangedMeanwhile => "changed_meanwhile",
        }
    }
}

/// Rows whose key is not what the rules make of them.
#[derive(Clone, Default)]
pub struct Counters {
    pub rows_scanned: i64,
    pub rekeyed: i64,
    pub collisions: i64,
    pub unknown_locators: i64,
    pub changed_meanwhile: i64,
    pub errors: i64,
}

impl Counters {
    fn add_fate(&mut self, fate: Fate) {
        self.rows_scanned += 1;
        *match fate {
            Fate::Rekey => &mut self.rekeyed,
            Fate::Collision => &mut self.collisions,
            Fate::UnknownLocator => &mut self.unknown_locators,
            Fate::ChangedMeanwhile => &mut self.changed_meanwhile,
        } += 1;
    }
}

impl Tally for Counters {
    fn names() -> Vec<&'static str> {
        vec![
            "rows_scanned",
            "rekeyed",
            "collisions",
            "unknown_locators",
            "changed_meanwhile",
            "errors",
        ]
    }

    fn values(&self) -> Vec<i64> {
        vec![
            self.rows_scanned,
            self.rekeyed,
            self.collisions,
            self.unknown_locators,
            self.changed_meanwhile,
            self.errors,
        ]
    }

    fn add(&mut self, other: &Self) {
        self.rows_scanned += other.rows_scanned;
        self.rekeyed += other.rekeyed;
        self.collisions += other.collisions;
        self.unknown_locators += other.unknown_locators;
        self.changed_meanwhile += other.changed_meanwhile;
        self.errors += other.errors;
    }

    fn check(&self) -> std::result::Result<(), &'static str> {
        let settled = self.rekeyed + self.collisions + self.unknown_locators + self.changed_meanwhile;
        if self.rows_scanned == settled + self.errors {
            Ok(())
        } else {
            Err("rows scanned <> rekeyed + collisions + unknown locators + changed meanwhile + errors")
        }
    }
}

/// One row: its id, its key, the key of the rules, and what becomes of it.
#[derive(Clone)]
pub struct Rekeyed {
    pub id: [u8; 16],
    pub old_key: String,
    pub new_key: Option<String>,
    pub fate: Fate,
}

pub struct Page {
    rows: Rows,
}

pub struct Decided {
    pub rows: Vec<Rekeyed>,
}

pub struct Rekeys {
    wanted: Cursor,
    collection: [u8; 16],
    assets: String,
    look_up: Statement,
    update: Statement,
    /// Rows that are to be written and are not settled yet; at the end, those that could not be.
    tried: BTreeMap<[u8; 16], Rekeyed>,
}

impl Rekeys {
    /// The rows of the collection as they are now.
    pub fn new(connection: &Connection, tables: &Tables, collection: &Collection, mode: Mode) -> Self {
        let table = &tables.assets.sql_name;
        // In the order of the keys that are wanted, so that two sessions cannot wait for each other.
        let wanted = format!(
            "SELECT w.uuid, w.old_key, w.new_key, w.wanting > 1 FROM (
                 SELECT a.uuid, a.canonical_key::pg_catalog.text AS old_key, k.new_key, pg_catalog.count(*) OVER (PARTITION BY k.new_key) AS wanting
                 FROM {table} a
                 CROSS JOIN LATERAL (SELECT {extension}collection_asset_rekey($2, a.canonical_key::pg_catalog.text, a.uri::pg_catalog.text, $3) AS new_key) k
                 WHERE a.collection_uuid = $1) w
             WHERE w.new_key IS DISTINCT FROM w.old_key
             ORDER BY w.new_key COLLATE pg_catalog.\"C\", w.old_key COLLATE pg_catalog.\"C\"",
            extension = extension_schema(connection)
        );
        let parameters = [
            Parameter::uuid(collection.uuid),
            collection.source_type.as_str().into(),
            collection.case_sensitive.into(),
        ];
        let changed = "FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) WITH ORDINALITY u(id, old_key, new_key, n)";
        Rekeys {
            wanted: Cursor::open(connection, &wanted, mode, &parameters),
            collection: collection.uuid,
            assets: table.clone(),
            look_up: Statement::new(format!(
                "SELECT u.n, EXISTS (SELECT FROM (SELECT h.uuid FROM {table} h WHERE h.collection_uuid = $4
                     AND h.canonical_key >= u.new_key AND h.canonical_key <= u.new_key ORDER BY h.canonical_key LIMIT 1) h WHERE h.uuid <> u.id)
                 {changed} JOIN {table} a ON a.uuid = u.id WHERE a.canonical_key::pg_catalog.text = u.old_key"
            )),
            update: Statement::new(format!(
                "UPDATE {table} a SET canonical_key = u.new_key::{} {changed}
                 WHERE a.uuid = u.id AND a.collection_uuid = $4 AND a.canonical_key::pg_catalog.text = u.old_key RETURNING 1",
                tables.assets.type_of("canonical_key")
            )),
            tried: BTreeMap::new(),
        }
    }

    /// The rows that the database would not take.
    pub fn failed(self) -> Vec<Rekeyed> {
        self.tried.into_values().collect()
    }

    fn parameters<'r>(&self, rows: impl Iterator<Item = &'r Rekeyed> + Clone) -> [Parameter; 4] {
        [
            arrays::uuid(rows.clone().map(|row| Some(row.id))).into(),
            arrays::text(rows.clone().map(|row| Some(row.old_key.as_str()))).into(),
            arrays::text(rows.map(|row| row.new_key.as_deref())).into(),
            Parameter::uuid(self.collection),
        ]
    }
}

impl Job for Rekeys {
    type Page = Page;
    type Decided = Decided;
    type Counters = Counters;

    const NAME: &'static str = REKEY;
    const ROWS: &'static str = "assets";
    const ROW: &'static str = "asset";

    fn estimate(&self, _: &Connection) -> Option<i64> {
        None
    }

    fn read(&mut self, connection: &Connection, _: Mode, _: Option<&str>, limit: i64) -> Page {
        Page {
            rows: self.wanted.fetch(connection, limit),
        }
    }

    fn read_these(&mut self, connection: &Connection, _: &[String]) -> Page {
        Page {
            rows: self.wanted.fetch(connection, 0),
        }
    }

    fn len(page: &Page) -> usize {
        page.rows.len()
    }

    fn cursor(page: &Page) -> String {
        let last = page.rows.len().saturating_sub(1);
        page.rows.text(last, 2).unwrap_or_default()
    }

    fn weight(_: &Page, _: usize) -> usize {
        4096
    }

    fn decide(&mut self, connection: &Connection, mode: Mode, page: &Page, from: usize, to: usize) -> Result<Decided> {
        let mut rows: Vec<Rekeyed> = (from..to)
            .map(|row| {
                let new_key = page.rows.text(row, 2);
                Rekeyed {
                    id: page.rows.uuid(row, 0).unwrap_or_default(),
                    old_key: page.rows.text(row, 1).unwrap_or_default(),
                    fate: match new_key {
                        Some(_) => Fate::ChangedMeanwhile,
                        None => Fate::UnknownLocator,
                    },
                    new_key,
                }
            })
            .collect();
        let found = by_the_unique_index(|| connection.run(&self.look_up, mode, &self.parameters(rows.iter())));
        for n in 0..found.len() {
            let Some(place) = found.get::<i64>(n, 0).map(|place| place as usize - 1) else {
                continue;
            };
            if rows[place].new_key.is_some() {
                let is_wanted_twice = page.rows.get(from + place, 3) == Some(true);
                rows[place].fate = if is_wanted_twice || found.get(n, 1) == Some(true) {
                    Fate::Collision
                } else {
                    Fate::Rekey
                };
            }
        }
        if mode == Mode::Write {
            let to_write = rows.iter().filter(|row| row.fate == Fate::Rekey);
            self.tried.extend(to_write.map(|row| (row.id, row.clone())));
        }
        Ok(Decided { rows })
    }

    fn has_writes(decided: &Decided) -> bool {
        decided.rows.iter().any(|row| row.fate == Fate::Rekey)
    }

    fn write(
        &mut self,
        connection: &Connection,
        _: &Page,
        _: usize,
        _: usize,
        decided: Decided,
    ) -> std::result::Result<Decided, Stale> {
        let rows = decided.rows.iter().filter(|row| row.fate == Fate::Rekey);
        let parameters = self.parameters(rows.clone());
        let written = write_flag::while_writing(|| connection.run(&self.update, Mode::Write, &parameters)).len();
        if written == rows.count() {
            Ok(decided)
        } else {
            Err(Stale)
        }
    }

    fn count(decided: &Decided) -> Counters {
        let mut counters = Counters::default();
        for row in &decided.rows {
            counters.add_fate(row.fate);
        }
        counters
    }

    fn count_failed(decided: &Decided) -> Counters {
        let rows = decided.rows.len() as i64;
        Counters {
            rows_scanned: rows,
            errors: rows,
            ..Counters::default()
        }
    }

    fn id(page: &Page, index: usize) -> String {
        let id = page.rows.uuid(index, 0).unwrap_or_default();
        uuid::Uuid::from_bytes(id).to_string()
    }

    fn remember(&mut self, decided: &Decided) -> Result<()> {
        for row in &decided.rows {
            self.tried.remove(&row.id);
        }
        Ok(())
    }

    fn changes(&self, decided: &Decided, changes: &mut Changes) {
        let change = changes.of(CELL_SET, &self.assets, Some("canonical_key"), true);
        for row in decided.rows.iter().filter(|row| row.fate == Fate::Rekey) {
            change.ids.push_uuid(row.id);
            change.before.push(Some(row.old_key.clone()));
            change.after.push(row.new_key.clone());
        }
    }

    fn decisions(decided: &Decided, level: LogDecisions, decisions: &mut Vec<Decision>) {
        for row in &decided.rows {
            let (outcome, action, wanted) = match row.fate {
                Fate::Rekey => ("eligible", "rekey", LogDecisions::Changed),
                _ => ("skipped", "skip", LogDecisions::Skipped),
            };
            if level >= wanted {
                decisions.push(Decision {
                    item_key: uuid::Uuid::from_bytes(row.id).to_string(),
                    slot: None,
                    position: None,
                    outcome,
                    action: Some(action),
                    reason: Some(row.fate.name().into()),
                });
            }
        }
    }
}
