//! Keys that no longer fit their row are taken away, so that `asset_keys` gives the right ones.

use std::collections::HashSet;

use media_assets_core::identity::row_canonical_key;

use crate::engine::journal::Changes;
use crate::engine::ledger::decisions::Decision;
use crate::engine::long::Buckets;
use crate::engine::relation::{quote_literal, Relation};
use crate::engine::{Job, Stale, Tally};
use crate::error::Result;
use crate::postgres::spi::{Connection, Mode, Rows, Statement};
use crate::postgres::{arrays, write_flag};
use crate::settings::LogDecisions;

/// Undo's name for a key that was taken away because it did not fit its row: `before` is the key.
pub const KEY_RELEASED: &str = "key_released";

/// What was found.
#[derive(Clone, Default)]
pub struct Counters {
    /// Rows whose key is right; they need nothing.
    pub sound: i64,
    pub released: i64,
    pub errors: i64,
}

impl Tally for Counters {
    fn names() -> Vec<&'static str> {
        super::asset_keys::Counters::names()
    }

    /// As counters of `asset_keys`, of which this is a phase: rows that get a key there are counted there.
    fn values(&self) -> Vec<i64> {
        let scanned = self.sound + self.errors;
        super::asset_keys::Counters {
            rows_scanned: scanned,
            errors: self.errors,
            ..Default::default()
        }
        .values()
    }

    fn add(&mut self, other: &Self) {
        self.sound += other.sound;
        self.released += other.released;
        self.errors += other.errors;
    }

    fn check(&self) -> std::result::Result<(), &'static str> {
        Ok(())
    }
}

/// Looks at every row that has a key, in the order of ids.
pub struct WrongKeys {
    table: String,
    first: Statement,
    next: Statement,
    these: Statement,
    release: Statement,
    /// The rows whose keys a dry run would take away.
    pub released: Vec<[u8; 16]>,
    remembers: bool,
}

/// The greatest id; `None` where there is no row.
pub fn last_id(connection: &Connection, mode: Mode, assets: &Relation) -> Option<String> {
    let rows = connection.query(
        &format!(
            "SELECT a.id::pg_catalog.text FROM {} a ORDER BY a.id DESC LIMIT 1",
            assets.sql_name
        ),
        mode,
        &[],
    );
    if rows.is_empty() {
        return None;
    }
    rows.text(0, 0)
}

/// Columns id, key, provider, storage key, link, kind.
pub struct Page {
    rows: Rows,
}

/// The rows of a slice with a wrong key, and how many have a right one.
pub struct Decided {
    wrong: Vec<([u8; 16], String)>,
    sound: i64,
}

impl WrongKeys {
    /// `bound` is the last row of the run, where it has one.
    pub fn new(assets: &Relation, buckets: Buckets, bound: Option<&str>, execute: bool) -> Self {
        let table = &assets.sql_name;
        let bound = bound.map_or_else(String::new, |bound| {
            format!(" AND a.id <= {}::pg_catalog.uuid", quote_literal(bound))
        });
        let select = format!(
            "SELECT a.id, a.canonical_key::pg_catalog.text, a.provider::pg_catalog.text, a.storage_key::pg_catalog.text,
                    a.source_url::pg_catalog.text, a.kind::pg_catalog.text
             FROM {table} a WHERE a.canonical_key IS NOT NULL AND a.organization_id IS NOT NULL{bound}{}",
            buckets
                .condition("a.organization_id")
                .map_or_else(String::new, |condition| format!(" AND {condition}"))
        );
        WrongKeys {
            first: Statement::new(format!("{select} ORDER BY a.id LIMIT $1")),
            next: Statement::new(format!(
                "{select} AND a.id > $2::pg_catalog.uuid ORDER BY a.id LIMIT $1"
            )),
            release: Statement::new(format!(
                "UPDATE {table} a SET canonical_key = NULL
                 FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) u(id, key)
                 WHERE a.id = u.id AND a.canonical_key = u.key RETURNING a.id"
            )),
            these: Statement::new(format!("{select} AND a.id::pg_catalog.text = ANY ($1) ORDER BY a.id")),
            table: table.clone(),
            released: Vec::new(),
            remembers: !execute,
        }
    }
}

impl Job for WrongKeys {
    type Page = Page;
    type Decided = Decided;
    type Counters = Counters;

    const NAME: &'static str = "asset_keys";
    const ROWS: &'static str = "assets with key";
    const ROW: &'static str = "asset";

    fn estimate(&self, _: &Connection) -> Option<i64> {
        None
    }

    fn read(&mut self, connection: &Connection, mode: Mode, after: Option<&str>, limit: i64) -> Page {
        let rows = match after {
            None => connection.run(&self.first, mode, &[limit.into()]),
            Some(id) => connection.run(&self.next, mode, &[limit.into(), id.into()]),
        };
        Page { rows }
    }

    fn read_these(&mut self, connection: &Connection, ids: &[String]) -> Page {
        let ids = arrays::text(ids.iter().map(|id| Some(id.as_str())));
        Page {
            rows: connection.run(&self.these, Mode::Write, &[ids.into()]),
        }
    }

    fn len(page: &Page) -> usize {
        page.rows.len()
    }

    fn cursor(page: &Page) -> String {
        Self::id(page, page.rows.len() - 1)
    }

    fn weight(_: &Page, _: usize) -> usize {
        512
    }

    fn decide(&mut self, _: &Connection, _: Mode, page: &Page, from: usize, to: usize) -> Result<Decided> {
        let mut decided = Decided {
            wrong: Vec::new(),
            sound: 0,
        };
        for row in from..to {
            let text = |column| page.rows.text(row, column);
            let (Some(id), Some(key)) = (page.rows.uuid(row, 0), text(1)) else {
                continue;
            };
            let [provider, storage_key, source_url, kind] = [2, 3, 4, 5].map(text);
            let right = row_canonical_key(
                provider.as_deref(),
                storage_key.as_deref(),
                source_url.as_deref(),
                kind.as_deref(),
            );
            if right.as_deref() == Some(key.as_str()) {
                decided.sound += 1;
            } else {
                decided.wrong.push((id, key));
            }
        }
        Ok(decided)
    }

    fn has_writes(decided: &Decided) -> bool {
        !decided.wrong.is_empty()
    }

    fn write(
        &mut self,
        connection: &Connection,
        _: &Page,
        _: usize,
        _: usize,
        mut decided: Decided,
    ) -> std::result::Result<Decided, Stale> {
        let parameters = [
            arrays::uuid(decided.wrong.iter().map(|(id, _)| Some(*id))).into(),
            arrays::text(decided.wrong.iter().map(|(_, key)| Some(key.as_str()))).into(),
        ];
        // A row whose key has changed meanwhile is somebody else's by now.
        let rows = write_flag::while_writing(|| connection.run(&self.release, Mode::Write, &parameters));
        let released: HashSet<[u8; 16]> = (0..rows.len()).filter_map(|row| rows.uuid(row, 0)).collect();
        let before = decided.wrong.len();
        decided.wrong.retain(|(id, _)| released.contains(id));
        decided.sound += (before - decided.wrong.len()) as i64;
        Ok(decided)
    }

    fn count(decided: &Decided) -> Counters {
        Counters {
            sound: decided.sound,
            released: decided.wrong.len() as i64,
            errors: 0,
        }
    }

    fn count_failed(_: &Decided) -> Counters {
        Counters {
            errors: 1,
            ..Counters::default()
        }
    }

    fn id(page: &Page, index: usize) -> String {
        uuid::Uuid::from_bytes(page.rows.uuid(index, 0).unwrap_or_default()).to_string()
    }

    fn remember(&mut self, decided: &Decided) -> Result<()> {
        if self.remembers {
            self.released.extend(decided.wrong.iter().map(|(id, _)| *id));
        }
        Ok(())
    }

    fn changes(&self, decided: &Decided, changes: &mut Changes) {
        let released = changes.of(KEY_RELEASED, &self.table, Some("canonical_key"), true);
        for (id, key) in &decided.wrong {
            released.ids.push_uuid(*id);
            released.before.push(Some(key.clone()));
        }
    }

    fn decisions(_: &Decided, _: LogDecisions, _: &mut Vec<Decision>) {}
}
