//! Image-to-video thumbnails: reads videos, decides each by the chain of its sources, writes the fields that it lacks.

mod known;
pub mod program;
mod tables;
mod write;

use std::collections::BTreeMap;
use std::rc::Rc;

use media_assets_core::jobs::i2v_thumbnails::{decide, is_missing_url, Counters, Map, Outcome, Reason};

use crate::engine::journal::Changes;
use crate::engine::ledger::decisions::Decision;
use crate::engine::{Job, Stale};
use crate::error::Result;
use crate::jobs::keyset::{Keyset, Scope};
use crate::jobs::row_version::Version;
use crate::postgres::jsonb::{Jsonb, JsonbRef};
use crate::postgres::spi::{Connection, Mode, Rows};
use crate::settings::LogDecisions;
use known::{columns, Loader, Row, Store};
pub use tables::Tables;
use write::{After, Writer};

tally_of_core!(Counters);

/// What becomes of one video.
pub struct Verdict {
    pub id: String,
    pub outcome: &'static str,
    pub reason: Option<&'static str>,
    pub source: Option<String>,
    /// What it is given.
    pub thumbnail_url: Option<String>,
    pub thumbnail_urls: Option<Jsonb>,
    /// The row as it was decided on, where something is written.
    before: Option<Before>,
    /// What the table then had.
    after: Option<After>,
}

/// The map lies in the slice's memory.
struct Before {
    version: Version,
    thumbnail_url: Option<String>,
    thumbnail_urls: Option<Jsonb>,
    updated_at: Option<i64>,
}

/// A decided slice.
pub struct Decided {
    pub verdicts: Vec<Verdict>,
    counters: Counters,
    /// The rows that the verdicts rest on, besides the videos.
    read: BTreeMap<String, Version>,
}

/// The job over the relations of one run.
pub struct Thumbnails {
    allow_private_sources: bool,
    loader: Loader,
    keyset: Keyset,
    writer: Writer,
    /// What the page says of the slice's videos is out of date: load them anew.
    reload: bool,
}

impl Thumbnails {
    pub fn new(tables: &Rc<Tables>, allow_private_sources: bool, scope: Scope) -> Self {
        let media = &tables.media.sql_name;
        let select = format!("SELECT m.id::pg_catalog.text, {} FROM {media} m", columns(tables));
        // Concatenated, so that no index on type is taken in the place of the primary key's order.
        let is_video = "m.type::pg_catalog.text || '' = 'video'";
        Thumbnails {
            loader: Loader::new(tables),
            keyset: Keyset::new(&select, "m.id", &tables.order, scope, Some(is_video)),
            writer: Writer::new(tables),
            allow_private_sources,
            reload: false,
        }
    }

    fn verdict(&self, id: String, store: &Store, decided: &mut Decided) {
        let Some((row, video)) = store.stored(&id).zip(store.row(&id)) else {
            return;
        };
        if !row.is_video {
            return;
        }
        let decision = decide(&video, &store, self.allow_private_sources);
        decided.counters.count(&decision.outcome);
        let mut verdict = Verdict::of(id, &decision.outcome, decision.source);
        if let Outcome::Updated {
            thumbnail_url,
            thumbnail_urls,
        } = decision.outcome
        {
            verdict.thumbnail_url = thumbnail_url.map(|(url, _)| url.into_owned());
            // The map lies in the slice's memory.
            verdict.thumbnail_urls = thumbnail_urls
                .and_then(|(_, from)| store.stored(&from)?.thumbnail_urls)
                .map(Jsonb::copied);
            verdict.before = Some(Before {
                version: row.version,
                thumbnail_url: row.thumbnail_url.clone(),
                thumbnail_urls: row.thumbnail_urls,
                updated_at: row.updated_at,
            });
            for id in decision.read {
                if let Some(row) = store.stored(&id) {
                    decided.read.insert(id, row.version);
                }
            }
        }
        decided.verdicts.push(verdict);
    }
}

impl Verdict {
    fn of<'a>(id: String, outcome: &Outcome<'a, JsonbRef<'a>>, source: Option<String>) -> Self {
        Verdict {
            id,
            outcome: outcome.name(),
            reason: outcome.reason(),
            source,
            thumbnail_url: None,
            thumbnail_urls: None,
            before: None,
            after: None,
        }
    }
}

impl Job for Thumbnails {
    /// Columns: the id, then those of [`Row::read`].
    type Page = Rows;
    type Decided = Decided;
    type Counters = Counters;

    const NAME: &'static str = "i2v_thumbnails";
    const ROWS: &'static str = "videos";
    const ROW: &'static str = "video";

    fn read(&mut self, connection: &Connection, mode: Mode, after: Option<&str>, limit: i64) -> Rows {
        self.keyset.page(connection, mode, after, limit)
    }

    fn read_these(&mut self, connection: &Connection, ids: &[String]) -> Rows {
        self.keyset.these(connection, ids)
    }

    fn len(page: &Rows) -> usize {
        page.len()
    }

    fn cursor(page: &Rows) -> String {
        Self::id(page, page.len() - 1)
    }

    fn weight(page: &Rows, index: usize) -> usize {
        // Its sources bring about as much.
        4096 + 2 * (page.raw_size(index, 5) + page.raw_size(index, 7))
    }

    fn decide(&mut self, connection: &Connection, mode: Mode, page: &Rows, from: usize, to: usize) -> Result<Decided> {
        let lacks = |row: usize| {
            is_missing_url(page.text(row, 4).as_deref())
                || Map::read(page.get::<Jsonb>(row, 5).as_ref().map(Jsonb::value)).is_missing()
        };
        let lacking: Vec<bool> = (from..to).map(lacks).collect();
        let mut store = Store::default();
        let reload = std::mem::take(&mut self.reload);
        let mut ids = Vec::new();
        for (row, _) in (from..to).zip(&lacking).filter(|(_, lacks)| **lacks) {
            let id = Self::id(page, row);
            if !reload {
                store.put(id.clone(), Row::read(page, row, 1));
            }
            ids.push(id);
        }
        self.loader.load(connection, mode, &mut store, ids);
        let mut decided = Decided {
            verdicts: Vec::with_capacity(to - from),
            counters: Counters::default(),
            read: BTreeMap::new(),
        };
        for (row, lacks) in (from..to).zip(lacking) {
            let id = Self::id(page, row);
            if lacks {
                self.verdict(id, &store, &mut decided);
            } else {
                let outcome = Outcome::<JsonbRef<'_>>::Skipped(Reason::AlreadyHasThumbnails);
                decided.counters.count(&outcome);
                decided.verdicts.push(Verdict::of(id, &outcome, None));
            }
        }
        Ok(decided)
    }

    fn has_writes(decided: &Decided) -> bool {
        decided.counters.updated > 0
    }

    fn write(
        &mut self,
        connection: &Connection,
        _: &Rows,
        _: usize,
        _: usize,
        mut decided: Decided,
    ) -> std::result::Result<Decided, Stale> {
        self.writer.write(connection, &mut decided)?;
        Ok(decided)
    }

    fn look_again(&mut self) {
        self.reload = true;
    }

    fn count(decided: &Decided) -> Counters {
        decided.counters
    }

    fn count_failed(decided: &Decided) -> Counters {
        let mut counters = Counters::default();
        for _ in &decided.verdicts {
            counters.count(&Outcome::<JsonbRef<'_>>::Failed);
        }
        counters
    }

    fn id(page: &Rows, index: usize) -> String {
        page.text(index, 0).unwrap_or_default()
    }

    fn changes(&self, decided: &Decided, changes: &mut Changes) {
        self.writer.changes(decided, changes);
    }

    fn decisions(decided: &Decided, level: LogDecisions, decisions: &mut Vec<Decision>) {
        for verdict in &decided.verdicts {
            let is_update = verdict.outcome == "updated";
            let settled = verdict.reason == Some(Reason::AlreadyHasThumbnails.name());
            if (is_update && level < LogDecisions::Changed) || (settled && level < LogDecisions::All) {
                continue;
            }
            decisions.push(Decision {
                item_key: verdict.id.clone(),
                slot: None,
                position: None,
                outcome: if is_update { "eligible" } else { "skipped" },
                action: is_update.then_some("update"),
                reason: verdict.reason.map(Into::into),
            });
        }
    }
}
