//! Keys for assets that have none: the oldest of several equal rows gets the key, the others stay NULL.

use std::collections::HashMap;

use media_assets_core::identity::row_canonical_key;

use super::keys_bound::{time_of, Bound, Place};
use crate::engine::journal::Changes;
use crate::engine::key_set::KeyedRows;
use crate::engine::ledger::decisions::Decision;
use crate::engine::long::Buckets;
use crate::engine::relation::Relation;
use crate::engine::{Job, Stale, Tally};
use crate::error::Result;
use crate::postgres::spi::{Connection, Mode, Rows, Statement};
use crate::postgres::{arrays, write_flag};
use crate::settings::LogDecisions;

/// Undo's name for a key that was given to a row without one: `after` is the key.
pub const KEY_SET: &str = "key_set";

/// Provider, storage key, link and kind of a row: what its key is made of.
type KeyFields = [Option<String>; 4];

/// A row and its fate: place in the page, id, organization, fate, whether it has a size.
type FateOfRow = (usize, [u8; 16], String, Fate, bool);

/// What became of one row.
#[derive(Clone, PartialEq, Eq)]
enum Fate {
    Key(String),
    Duplicate,
    /// Its fields give no key.
    Unkeyable,
}

/// Counters of `backfill_asset_keys`.
#[derive(Clone, Default)]
pub struct Counters {
    pub rows_scanned: i64,
    pub keyed: i64,
    pub duplicates: i64,
    pub unkeyable: i64,
    pub errors: i64,
}

impl Tally for Counters {
    fn names() -> Vec<&'static str> {
        vec!["rows_scanned", "keyed", "duplicates", "unkeyable", "errors"]
    }

    fn values(&self) -> Vec<i64> {
        vec![
            self.rows_scanned,
            self.keyed,
            self.duplicates,
            self.unkeyable,
            self.errors,
        ]
    }

    fn add(&mut self, other: &Self) {
        self.rows_scanned += other.rows_scanned;
        self.keyed += other.keyed;
        self.duplicates += other.duplicates;
        self.unkeyable += other.unkeyable;
        self.errors += other.errors;
    }

    fn check(&self) -> std::result::Result<(), &'static str> {
        if self.rows_scanned == self.keyed + self.duplicates + self.unkeyable + self.errors {
            Ok(())
        } else {
            Err("rows scanned <> keyed + duplicates + unkeyable + errors")
        }
    }
}

/// Keys the rows of one organization, of a range of them, or of all.
pub struct AssetKeys {
    assets: Relation,
    organization: Option<String>,
    /// Keys that a dry run has given.
    pub given: KeyedRows,
    remembers: bool,
    first: Statement,
    next: Statement,
    next_without_time: Statement,
    look_up: Statement,
    update: Statement,
    again: Statement,
    these: Statement,
    /// Rows of the present page that changed after it was read; `None` for one that has gone or got a key.
    changed: HashMap<[u8; 16], Option<KeyFields>>,
}

/// A page of rows: columns id, organization, creation time, provider, storage key, link, kind, has a size.
pub struct Page {
    rows: Rows,
}

/// The fates of a slice's rows.
pub struct Decided {
    fates: Vec<FateOfRow>,
}

impl AssetKeys {
    /// `bound` is where the run ends, nowhere where there is none; `released` are rows whose keys a dry run treats as taken
    /// away.
    pub fn new(
        assets: &Relation,
        organization: Option<String>,
        buckets: Buckets,
        bound: Option<&Bound>,
        execute: bool,
        released: &[[u8; 16]],
    ) -> Self {
        let table = &assets.sql_name;
        let created_at = time_of(assets);
        let ids: Vec<String> = released
            .iter()
            .map(|id| uuid::Uuid::from_bytes(*id).to_string())
            .collect();
        let is_released = format!("a.id = ANY ('{{{}}}'::pg_catalog.uuid[])", ids.join(","));
        let unkeyed = match (assets.has("canonical_key"), ids.is_empty()) {
            (false, _) => "true".to_owned(),
            (true, true) => "a.canonical_key IS NULL".to_owned(),
            (true, false) => format!("(a.canonical_key IS NULL OR {is_released})"),
        };
        let not_released = if ids.is_empty() {
            String::new()
        } else {
            format!(" AND NOT {is_released}")
        };
        let has_size = if assets.has("byte_size") {
            "a.byte_size IS NOT NULL"
        } else {
            "false"
        };
        let select = format!(
            "SELECT a.id, a.organization_id::pg_catalog.text, {created_at}, a.provider::pg_catalog.text,
                    a.storage_key::pg_catalog.text, a.source_url::pg_catalog.text, a.kind::pg_catalog.text, {has_size}
             FROM {table} a WHERE {unkeyed} AND a.organization_id IS NOT NULL"
        );
        let organization_type = assets.type_of("organization_id");
        let scope = if organization.is_some() {
            format!(" AND a.organization_id = $2::{organization_type}")
        } else {
            " AND $2::pg_catalog.text IS NULL".to_owned()
        };
        let scope = match buckets.condition("a.organization_id") {
            Some(condition) => format!("{scope} AND {condition}"),
            None => scope,
        };
        let scope = match bound {
            Some(bound) => format!("{scope} AND {}", bound.condition(assets)),
            None => scope,
        };
        let time_type = assets.type_of("created_at");
        // With the partial index that prepare_asset_tables makes, a page is one index scan.
        let (order, after, after_without_time) = if assets.has("created_at") {
            (
                "a.created_at, a.id",
                format!(" AND (a.created_at, a.id) > ($3::{time_type}, $4::pg_catalog.uuid)"),
                " AND a.created_at IS NULL AND ($3::pg_catalog.text IS NULL) AND a.id > $4::pg_catalog.uuid".to_owned(),
            )
        } else {
            let after = " AND ($3::pg_catalog.text IS NULL) AND a.id > $4::pg_catalog.uuid".to_owned();
            ("a.id", after.clone(), after)
        };
        let limit = format!(" ORDER BY {order} LIMIT $1");
        let key_column = if assets.has("canonical_key") {
            "a.canonical_key"
        } else {
            "NULL::pg_catalog.text"
        };
        AssetKeys {
            first: Statement::new(format!("{select}{scope}{limit}")),
            next: Statement::new(format!("{select}{scope}{after}{limit}")),
            next_without_time: Statement::new(format!("{select}{scope}{after_without_time}{limit}")),
            look_up: Statement::new(format!(
                "SELECT u.n FROM ROWS FROM (pg_catalog.unnest($1::{organization_type}[]), pg_catalog.unnest($2)) WITH ORDINALITY u(org, key, n)
                 WHERE EXISTS (SELECT FROM {table} a WHERE a.organization_id = u.org AND {key_column} = u.key{not_released})"
            )),
            update: Statement::new(format!(
                "UPDATE {table} a SET canonical_key = u.key
                 FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6))
                      u(id, key, provider, storage_key, source_url, kind)
                 WHERE a.id = u.id AND a.canonical_key IS NULL
                   AND a.provider::pg_catalog.text IS NOT DISTINCT FROM u.provider
                   AND a.storage_key::pg_catalog.text IS NOT DISTINCT FROM u.storage_key
                   AND a.source_url::pg_catalog.text IS NOT DISTINCT FROM u.source_url
                   AND a.kind::pg_catalog.text IS NOT DISTINCT FROM u.kind
                 RETURNING 1"
            )),
            again: Statement::new(format!(
                "SELECT a.id, a.provider::pg_catalog.text, a.storage_key::pg_catalog.text, a.source_url::pg_catalog.text,
                        a.kind::pg_catalog.text
                 FROM pg_catalog.unnest($1) u(id) JOIN {table} a ON a.id = u.id WHERE {unkeyed}"
            )),
            these: Statement::new(format!(
                "{select} AND a.id::pg_catalog.text = ANY ($1) ORDER BY {order}"
            )),
            changed: HashMap::new(),
            assets: assets.clone(),
            organization,
            given: KeyedRows::default(),
            remembers: !execute,
        }
    }

    /// Provider, storage key, link and kind of a row as last seen; `None` when it needs no key any more.
    fn fields(&self, page: &Page, row: usize, id: [u8; 16]) -> Option<KeyFields> {
        match self.changed.get(&id) {
            Some(fields) => fields.clone(),
            None => Some([3, 4, 5, 6].map(|column| page.rows.text(row, column))),
        }
    }

    /// Looks again at rows that were not as they had been read.
    fn look_again(&mut self, connection: &Connection, ids: &[[u8; 16]]) {
        let parameters = [arrays::uuid(ids.iter().map(|id| Some(*id))).into()];
        let rows = connection.run(&self.again, Mode::Write, &parameters);
        self.changed.extend(ids.iter().map(|id| (*id, None)));
        for row in 0..rows.len() {
            if let Some(id) = rows.uuid(row, 0) {
                self.changed
                    .insert(id, Some([1, 2, 3, 4].map(|column| rows.text(row, column))));
            }
        }
    }
}

impl Job for AssetKeys {
    type Page = Page;
    type Decided = Decided;
    type Counters = Counters;

    const NAME: &'static str = "asset_keys";
    const ROWS: &'static str = "assets without key";
    const ROW: &'static str = "asset";

    fn estimate(&self, _: &Connection) -> Option<i64> {
        None
    }

    fn read(&mut self, connection: &Connection, mode: Mode, after: Option<&str>, limit: i64) -> Page {
        self.changed.clear();
        let organization = self.organization.as_deref();
        let rows = match after.map(Place::parse) {
            None => connection.run(&self.first, mode, &[limit.into(), organization.into()]),
            Some(cursor) => {
                let parameters = |time: Option<&str>| {
                    [
                        limit.into(),
                        organization.into(),
                        time.into(),
                        cursor.id.as_str().into(),
                    ]
                };
                match cursor.created_at.as_deref() {
                    None => connection.run(&self.next_without_time, mode, &parameters(None)),
                    Some(time) => {
                        let rows = connection.run(&self.next, mode, &parameters(Some(time)));
                        if rows.is_empty() && self.assets.has("created_at") {
                            let start = uuid::Uuid::nil().to_string();
                            let parameters = [limit.into(), organization.into(), None.into(), start.as_str().into()];
                            connection.run(&self.next_without_time, mode, &parameters)
                        } else {
                            rows
                        }
                    }
                }
            }
        };
        Page { rows }
    }

    fn len(page: &Page) -> usize {
        page.rows.len()
    }

    fn read_these(&mut self, connection: &Connection, ids: &[String]) -> Page {
        self.changed.clear();
        let ids = arrays::text(ids.iter().map(|id| Some(id.as_str())));
        Page {
            rows: connection.run(&self.these, Mode::Write, &[ids.into()]),
        }
    }

    fn cursor(page: &Page) -> String {
        let last = page.rows.len() - 1;
        let id = uuid::Uuid::from_bytes(page.rows.uuid(last, 0).unwrap_or_default());
        let place = Place {
            created_at: page.rows.text(last, 2),
            id: id.to_string(),
        };
        place.to_text()
    }

    fn weight(_: &Page, _: usize) -> usize {
        512
    }

    fn decide(&mut self, connection: &Connection, mode: Mode, page: &Page, from: usize, to: usize) -> Result<Decided> {
        let mut keyed = Vec::with_capacity(to - from);
        for row in from..to {
            let id = page.rows.uuid(row, 0).unwrap_or_default();
            let Some([provider, storage_key, source_url, kind]) = self.fields(page, row, id) else {
                continue;
            };
            let key = row_canonical_key(
                provider.as_deref(),
                storage_key.as_deref(),
                source_url.as_deref(),
                kind.as_deref(),
            );
            let organization = page.rows.text(row, 1).unwrap_or_default();
            let has_size: bool = page.rows.get(row, 7).unwrap_or(false);
            keyed.push((row, id, organization, key, has_size));
        }
        let wanted: Vec<(&str, &str)> = keyed
            .iter()
            .filter_map(|(_, _, org, key, _)| Some((org.as_str(), key.as_deref()?)))
            .collect();
        let taken = if wanted.is_empty() {
            Vec::new()
        } else {
            let rows = connection.run(
                &self.look_up,
                mode,
                &[
                    arrays::text(wanted.iter().map(|(org, _)| Some(*org))).into(),
                    arrays::text(wanted.iter().map(|(_, key)| Some(*key))).into(),
                ],
            );
            (0..rows.len())
                .filter_map(|row| rows.get::<i64>(row, 0))
                .map(|n| wanted[n as usize - 1])
                .collect()
        };
        let mut first: HashMap<(String, String), ()> = taken
            .into_iter()
            .map(|(org, key)| ((org.to_owned(), key.to_owned()), ()))
            .collect();
        let fates = keyed
            .into_iter()
            .map(|(row, id, org, key, has_size)| {
                let fate = match key {
                    None => Fate::Unkeyable,
                    Some(key) if self.given.get(&org, &key).is_some() => Fate::Duplicate,
                    Some(key) => match first.insert((org.clone(), key.clone()), ()) {
                        None => Fate::Key(key),
                        Some(()) => Fate::Duplicate,
                    },
                };
                (row, id, org, fate, has_size)
            })
            .collect();
        Ok(Decided { fates })
    }

    fn has_writes(decided: &Decided) -> bool {
        decided.fates.iter().any(|(.., fate, _)| matches!(fate, Fate::Key(_)))
    }

    fn write(
        &mut self,
        connection: &Connection,
        page: &Page,
        _: usize,
        _: usize,
        decided: Decided,
    ) -> std::result::Result<Decided, Stale> {
        let mut keys: Vec<(&str, [u8; 16], KeyFields)> = decided
            .fates
            .iter()
            .filter_map(|(row, id, _, fate, _)| match fate {
                Fate::Key(key) => Some((key.as_str(), *id, self.fields(page, *row, *id)?)),
                _ => None,
            })
            .collect();
        keys.sort_unstable_by(|left, right| left.0.cmp(right.0));
        let field = |index: usize| arrays::text(keys.iter().map(|(_, _, fields)| fields[index].as_deref()));
        let parameters = [
            arrays::uuid(keys.iter().map(|(_, id, _)| Some(*id))).into(),
            arrays::text(keys.iter().map(|(key, ..)| Some(*key))).into(),
            field(0).into(),
            field(1).into(),
            field(2).into(),
            field(3).into(),
        ];
        let updated = write_flag::while_writing(|| connection.run(&self.update, Mode::Write, &parameters)).len();
        if updated == keys.len() {
            return Ok(decided);
        }
        let ids: Vec<[u8; 16]> = keys.iter().map(|(_, id, _)| *id).collect();
        self.look_again(connection, &ids);
        Err(Stale)
    }

    fn count(decided: &Decided) -> Counters {
        let mut counters = Counters {
            rows_scanned: decided.fates.len() as i64,
            ..Counters::default()
        };
        for (.., fate, _) in &decided.fates {
            match fate {
                Fate::Key(_) => counters.keyed += 1,
                Fate::Duplicate => counters.duplicates += 1,
                Fate::Unkeyable => counters.unkeyable += 1,
            }
        }
        counters
    }

    fn count_failed(_: &Decided) -> Counters {
        Counters {
            rows_scanned: 1,
            errors: 1,
            ..Counters::default()
        }
    }

    fn id(page: &Page, index: usize) -> String {
        uuid::Uuid::from_bytes(page.rows.uuid(index, 0).unwrap_or_default()).to_string()
    }

    fn remember(&mut self, decided: &Decided) -> Result<()> {
        if self.remembers {
            for (_, id, org, fate, has_size) in &decided.fates {
                if let Fate::Key(key) = fate {
                    self.given.insert(org, key, *id, *has_size)?;
                }
            }
        }
        Ok(())
    }

    fn changes(&self, decided: &Decided, changes: &mut Changes) {
        let set = changes.of(KEY_SET, &self.assets.sql_name, Some("canonical_key"), true);
        for (_, id, _, fate, _) in &decided.fates {
            if let Fate::Key(key) = fate {
                set.ids.push_uuid(*id);
                set.after.push(Some(key.clone()));
            }
        }
    }

    fn decisions(decided: &Decided, level: LogDecisions, decisions: &mut Vec<Decision>) {
        for (_, id, _, fate, _) in &decided.fates {
            let (outcome, action, reason) = match fate {
                Fate::Key(_) if level >= LogDecisions::Changed => ("eligible", Some("key"), None),
                Fate::Key(_) => continue,
                Fate::Duplicate => ("skipped", None, Some("duplicate")),
                Fate::Unkeyable => ("skipped", None, Some("unkeyable")),
            };
            decisions.push(Decision {
                item_key: uuid::Uuid::from_bytes(*id).to_string(),
                slot: None,
                position: None,
                outcome,
                action,
                reason: reason.map(Into::into),
            });
        }
    }
}
