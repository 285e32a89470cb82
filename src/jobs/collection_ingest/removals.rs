//! Reconciliation: rows whose item was not seen are soft-deleted; approval goes, the state stays.

use media_assets_core::jobs::collection_ingest::{without_secrets, Counters};

use super::tables::Tables;
use super::{changes, JOB};
use crate::engine::journal::Changes;
use crate::engine::ledger::decisions::Decision;
use crate::engine::{Job, Stale};
use crate::error::Result;
use crate::postgres::spi::{Connection, Mode, Statement};
use crate::postgres::{arrays, write_flag};
use crate::settings::{self, LogDecisions};

/// What goes, with what explain shows of it.
pub struct Removed {
    pub id: [u8; 16],
    pub key: String,
    pub state: String,
    images: (Option<String>, Option<String>),
}

pub struct Page {
    ids: Vec<[u8; 16]>,
}

pub struct Decided {
    pub removed: Vec<Removed>,
}

pub struct Removals {
    unseen: std::vec::IntoIter<[u8; 16]>,
    assets: String,
    look_up: Statement,
    lock: Statement,
    remove: Statement,
}

impl Removals {
    /// `unseen` are ids of rows, in order.
    pub fn new(tables: &Tables, unseen: Vec<[u8; 16]>) -> Self {
        let assets = &tables.assets;
        let table = &assets.sql_name;
        let (image, fingerprint) = if settings::log_changes() {
            let image = changes::image(assets);
            (format!("({image})::pg_catalog.text"), changes::fingerprint(&image))
        } else {
            ("NULL::pg_catalog.text".to_owned(), "NULL::pg_catalog.text".to_owned())
        };
        let live = "NOT a.is_deleted AND a.state::pg_catalog.text <> 'retired'";
        let columns = "a.uuid, a.canonical_key::pg_catalog.text, a.state::pg_catalog.text";
        Removals {
            unseen: unseen.into_iter(),
            assets: table.clone(),
            // What somebody retired or deleted meanwhile is left alone.
            look_up: Statement::new(format!(
                "SELECT {columns}, NULL::pg_catalog.text FROM pg_catalog.unnest($1) WITH ORDINALITY u(id, n)
                 JOIN {table} a ON a.uuid = u.id WHERE {live} ORDER BY u.n"
            )),
            lock: Statement::new(format!(
                "SELECT {columns}, {image} FROM pg_catalog.unnest($1) WITH ORDINALITY u(id, n)
                 JOIN {table} a ON a.uuid = u.id WHERE {live} ORDER BY u.n FOR NO KEY UPDATE OF a"
            )),
            remove: Statement::new(format!(
                "UPDATE {table} a SET is_deleted = true, deleted_at = pg_catalog.now(), approved_for_broadcast = false, updated_at = pg_catalog.now()
                 FROM pg_catalog.unnest($1) u(id) WHERE a.uuid = u.id RETURNING a.uuid, {fingerprint}"
            )),
        }
    }

    fn read_rows(&self, connection: &Connection, statement: &Statement, mode: Mode, ids: &[[u8; 16]]) -> Vec<Removed> {
        let ids = arrays::uuid(ids.iter().map(|id| Some(*id)));
        let rows = connection.run(statement, mode, &[ids.into()]);
        (0..rows.len())
            .filter_map(|row| {
                Some(Removed {
                    id: rows.uuid(row, 0)?,
                    key: rows.text(row, 1)?,
                    state: rows.text(row, 2)?,
                    images: (rows.text(row, 3), None),
                })
            })
            .collect()
    }
}

impl Job for Removals {
    type Page = Page;
    type Decided = Decided;
    type Counters = Counters;

    const NAME: &'static str = JOB;
    const ROWS: &'static str = "assets";
    const ROW: &'static str = "asset";

    fn estimate(&self, _: &Connection) -> Option<i64> {
        None
    }

    fn read(&mut self, _: &Connection, _: Mode, _: Option<&str>, limit: i64) -> Page {
        Page {
            ids: self.unseen.by_ref().take(usize::try_from(limit).unwrap_or(1)).collect(),
        }
    }

    fn read_these(&mut self, _: &Connection, _: &[String]) -> Page {
        Page { ids: Vec::new() }
    }

    fn len(page: &Page) -> usize {
        page.ids.len()
    }

    fn cursor(page: &Page) -> String {
        page.ids
            .last()
            .map_or_else(String::new, |id| uuid::Uuid::from_bytes(*id).to_string())
    }

    fn weight(_: &Page, _: usize) -> usize {
        1024
    }

    fn decide(&mut self, connection: &Connection, mode: Mode, page: &Page, from: usize, to: usize) -> Result<Decided> {
        Ok(Decided {
            removed: self.read_rows(connection, &self.look_up, mode, &page.ids[from..to]),
        })
    }

    fn has_writes(decided: &Decided) -> bool {
        !decided.removed.is_empty()
    }

    fn write(
        &mut self,
        connection: &Connection,
        _: &Page,
        _: usize,
        _: usize,
        decided: Decided,
    ) -> std::result::Result<Decided, Stale> {
        let ids: Vec<[u8; 16]> = decided.removed.iter().map(|removed| removed.id).collect();
        let mut removed = self.read_rows(connection, &self.lock, Mode::Write, &ids);
        let ids = arrays::uuid(removed.iter().map(|removed| Some(removed.id)));
        let rows = write_flag::while_writing(|| connection.run(&self.remove, Mode::Write, &[ids.into()]));
        if rows.len() != removed.len() {
            return Err(Stale);
        }
        for row in 0..rows.len() {
            let id = rows.uuid(row, 0);
            if let Some(removed) = removed.iter_mut().find(|removed| Some(removed.id) == id) {
                removed.images.1 = rows.text(row, 1);
            }
        }
        Ok(Decided { removed })
    }

    fn count(decided: &Decided) -> Counters {
        Counters {
            assets_removed: decided.removed.len() as i64,
            ..Counters::default()
        }
    }

    fn count_failed(_: &Decided) -> Counters {
        // No item: the failure itself is in the quarantine.
        Counters::default()
    }

    fn id(page: &Page, index: usize) -> String {
        uuid::Uuid::from_bytes(page.ids[index]).to_string()
    }

    fn remember(&mut self, _: &Decided) -> Result<()> {
        Ok(())
    }

    fn changes(&self, decided: &Decided, changes: &mut Changes) {
        for removed in &decided.removed {
            let (before, after) = removed.images.clone();
            changes::add(changes, changes::REMOVED, &self.assets, removed.id, before, after);
        }
    }

    fn decisions(decided: &Decided, level: LogDecisions, decisions: &mut Vec<Decision>) {
        if level < LogDecisions::Changed {
            return;
        }
        decisions.extend(decided.removed.iter().map(|removed| Decision {
            item_key: without_secrets(&removed.key).into_owned(),
            slot: None,
            position: None,
            outcome: "eligible",
            action: Some("remove"),
            reason: Some("not_seen".into()),
        }));
    }
}
