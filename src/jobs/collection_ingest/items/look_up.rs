//! The stored rows of items: those of a page that lie beside each other by one scan, the others one by one.

use std::borrow::Cow;

use media_assets_core::jobs::collection_ingest::{AssetState, Content, Stored};

use super::super::spool::column;
use super::super::unix_time;
use crate::postgres::arrays;
use crate::postgres::settings_level::SettingsLevel;
use crate::postgres::spi::{Connection, Mode, Parameter, Rows, Statement};

/// A stored row, as far as a decision reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub id: [u8; 16],
    state: String,
    is_deleted: bool,
    hash: Option<String>,
    size: Option<i64>,
    /// As PostgreSQL counts it, infinite times too.
    mtime: Option<i64>,
    signature: Option<String>,
    enrichers: Option<String>,
}

/// The columns of [`Row`], behind one that says which key it is of.
pub const ROW: &str =
    "a.uuid, a.state::pg_catalog.text, a.is_deleted, a.content_hash::pg_catalog.text, a.size::pg_catalog.int8,
    a.mtime::pg_catalog.timestamptz, a.content_signature::pg_catalog.text, a.enricher_checksum::pg_catalog.text";

impl Row {
    pub fn read(rows: &Rows, row: usize) -> Option<Self> {
        Some(Row {
            id: rows.uuid(row, 1)?,
            state: rows.text(row, 2)?,
            is_deleted: rows.get(row, 3).unwrap_or_default(),
            hash: rows.text(row, 4),
            size: rows.get(row, 5),
            mtime: rows.get(row, 6),
            signature: rows.text(row, 7),
            enrichers: rows.text(row, 8),
        })
    }
}

/// What a decision reads of a row that was found. `None` for a state that the rules do not know: such a row is left alone.
pub fn stored(rows: &Rows, row: usize) -> Option<Stored<'_>> {
    let text = |column| rows.get::<&str>(row, column).map(Cow::Borrowed);
    Some(Stored {
        state: AssetState::parse(rows.get(row, 2)?)?,
        is_deleted: rows.get(row, 3).unwrap_or_default(),
        content: Content {
            hash: text(4),
            size: rows.get(row, 5),
            mtime: rows.get(row, 6).and_then(unix_time),
        },
        content_signature: text(7),
        enricher_checksum: text(8),
    })
}

/// Rows that were looked up by the keys of some items.
pub struct Found {
    /// Rows between the least and the greatest key, and those that were looked up one by one.
    near: Option<Rows>,
    probed: Option<Rows>,
    /// The item at which the look-up started.
    from: usize,
    /// For each item from there on the place of its row.
    places: Vec<Option<Place>>,
}

#[derive(Clone, Copy)]
enum Place {
    Near(usize),
    Probed(usize),
}

impl Found {
    /// The row of an item.
    pub fn of(&self, item: usize) -> Option<(&Rows, usize)> {
        match self.places[item - self.from]? {
            Place::Near(row) => Some((self.near.as_ref()?, row)),
            Place::Probed(row) => Some((self.probed.as_ref()?, row)),
        }
    }
}

/// Pages that are probed key by key after one that had few of its rows beside each other.
const PAGES_OF_PROBES: u32 = 8;

/// Runs a look-up in the order of its keys. To the planner a table that was never analysed is so small that an index on the
/// collection alone, if somebody made one, is as good as that on both columns; only the latter gives the order without a
/// sort. An equality would not do: it leaves nothing to be ordered.
pub fn by_the_unique_index<R>(look_up: impl FnOnce() -> R) -> R {
    let _level = SettingsLevel::with([("enable_sort", "off".to_owned())]);
    look_up()
}

pub struct LookUps {
    /// The collection's id.
    collection: [u8; 16],
    /// So many pages are not looked at as a whole.
    pages_of_probes: u32,
    near: Statement,
    one_by_one: Statement,
}

impl LookUps {
    pub fn new(table: &str, collection: [u8; 16]) -> Self {
        LookUps {
            collection,
            pages_of_probes: 0,
            near: Statement::new(format!(
                "SELECT a.canonical_key::pg_catalog.text, {ROW} FROM {table} a
                 WHERE a.collection_uuid = $2 AND a.canonical_key >= (SELECT pg_catalog.min(k) FROM pg_catalog.unnest($1) k)
                   AND a.canonical_key <= (SELECT pg_catalog.max(k) FROM pg_catalog.unnest($1) k)
                 ORDER BY a.canonical_key LIMIT $3"
            )),
            one_by_one: Statement::new(format!(
                "SELECT u.n, x.* FROM pg_catalog.unnest($1) WITH ORDINALITY u(key, n)
                 CROSS JOIN LATERAL (SELECT {ROW} FROM {table} a
                     WHERE a.collection_uuid = $2 AND a.canonical_key >= u.key AND a.canonical_key <= u.key ORDER BY a.canonical_key LIMIT 1) x"
            )),
        }
    }

    /// Looks up the rows with the keys of the items `from..to`.
    pub fn of_items(&self, connection: &Connection, mode: Mode, rows: &Rows, from: usize, to: usize) -> Found {
        let keys = (from..to).map(|row| rows.get::<&str>(row, column::KEY));
        let mut found = Found {
            near: None,
            probed: None,
            from,
            places: vec![None; to - from],
        };
        self.probe(connection, mode, keys, &mut found);
        found
    }

    /// Looks up the rows with these keys, those of the items behind [`Found::from`], where they are not found yet.
    fn probe<'k>(
        &self,
        connection: &Connection,
        mode: Mode,
        keys: impl Iterator<Item = Option<&'k str>>,
        found: &mut Found,
    ) {
        let missing = keys.enumerate().filter(|(item, _)| found.places[*item].is_none());
        let (items, keys): (Vec<usize>, Vec<Option<&str>>) = missing.filter(|(_, key)| key.is_some()).unzip();
        if items.is_empty() {
            return;
        }
        let parameters = [arrays::text(keys.into_iter()).into(), Parameter::uuid(self.collection)];
        let rows = by_the_unique_index(|| connection.run(&self.one_by_one, mode, &parameters));
        for row in 0..rows.len() {
            if let Some(n) = rows.get::<i64>(row, 0) {
                found.places[items[n as usize - 1]] = Some(Place::Probed(row));
            }
        }
        found.probed = Some(rows);
    }

    /// As [`LookUps::of_items`], for a whole page: where most items are stored already, their rows lie beside each other in
    /// the index, and one scan is cheaper than a descent for each key.
    pub fn of_page(&mut self, connection: &Connection, mode: Mode, rows: &Rows) -> Found {
        let all = rows.len();
        if all == 0 || self.pages_of_probes > 0 {
            self.pages_of_probes = self.pages_of_probes.saturating_sub(1);
            return self.of_items(connection, mode, rows, 0, all);
        }
        // Items that cannot be keyed come last.
        let keys: Vec<&str> = (0..all).map_while(|row| rows.get(row, column::KEY)).collect();
        let parameters = [
            arrays::text(keys.iter().map(|key| Some(*key))).into(),
            Parameter::uuid(self.collection),
            (2 * all as i64).into(),
        ];
        let near = by_the_unique_index(|| connection.run(&self.near, mode, &parameters));
        let mut found = Found {
            near: None,
            probed: None,
            from: 0,
            places: vec![None; all],
        };
        let mut hits = 0;
        for row in 0..near.len() {
            let Some(key) = near.get::<&str>(row, 0) else { continue };
            // Of several items with one key the first is decided on.
            let item = keys.partition_point(|other| *other < key);
            if keys.get(item) == Some(&key) {
                found.places[item] = Some(Place::Near(row));
                hits += 1;
            }
        }
        found.near = Some(near);
        if hits * 2 < keys.len() {
            self.pages_of_probes = PAGES_OF_PROBES;
        }
        // A key that is not there may still be: the order of the index need not be that of the items.
        self.probe(connection, mode, keys.iter().map(|key| Some(*key)), &mut found);
        found
    }
}
