//! Image-to-video thumbnails: reads videos, decides each by the chain of its sources, writes the fields that it lacks.

mod known;
pub mod program;
mod tables;

use std::collections::BTreeMap;
use std::rc::Rc;

use media_assets_core::jobs::i2v_thumbnails::{decide, is_missing_url, Counters, Map, Outcome, Reason};

use crate::engine::journal::{Changes, CELL_SET};
use crate::engine::ledger::decisions::Decision;
use crate::engine::{Job, Stale, Tally};
use crate::error::Result;
use crate::jobs::keyset::{Keyset, Scope};
use crate::postgres::jsonb::{Jsonb, JsonbRef};
use crate::postgres::spi::{Connection, Mode, Rows, Statement};
use crate::postgres::{arrays, write_flag};
use crate::settings::LogDecisions;
use known::{columns, fingerprint, Loader, Row, Store};
pub use tables::Tables;

impl Tally for Counters {
    fn names() -> Vec<&'static str> {
        Counters::default().columns().map(|(name, _)| name).collect()
    }

    fn values(&self) -> Vec<i64> {
        self.columns().map(|(_, value)| value).collect()
    }

    fn add(&mut self, other: &Self) {
        self.add(other);
    }

    fn check(&self) -> std::result::Result<(), &'static str> {
        self.check()
    }
}

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
    /// What the table then had: URL, map and time as texts, and the time before.
    after: Option<[Option<String>; 4]>,
}

struct Before {
    fingerprint: i64,
    thumbnail_url: Option<String>,
    thumbnail_urls: Option<String>,
}

/// A decided slice.
pub struct Decided {
    pub verdicts: Vec<Verdict>,
    counters: Counters,
    /// Fingerprints of the rows that the verdicts rest on, besides the videos.
    read: BTreeMap<String, i64>,
}

/// The job over the relations of one run.
pub struct Thumbnails {
    tables: Rc<Tables>,
    allow_private_sources: bool,
    loader: Loader,
    keyset: Keyset,
    check: Statement,
    write: Statement,
    /// What the page says of the slice's videos is out of date: load them anew.
    reload: bool,
}

impl Thumbnails {
    pub fn new(tables: &Rc<Tables>, allow_private_sources: bool, scope: Scope) -> Self {
        let media = &tables.media.sql_name;
        let fingerprint = fingerprint(tables);
        let select = format!("SELECT m.id::pg_catalog.text, {} FROM {media} m", columns(tables));
        // Concatenated, so that no index on type is taken in the place of the primary key's order.
        let is_video = "m.type::pg_catalog.text || '' = 'video'";
        Thumbnails {
            loader: Loader::new(tables),
            keyset: Keyset::new(&select, "m.id", &tables.order, scope, Some(is_video)),
            check: Statement::new(format!(
                "SELECT 1 FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) u(id, fingerprint)
                 CROSS JOIN LATERAL (SELECT {fingerprint} AS fingerprint FROM {media} m WHERE m.id = u.id LIMIT 1) m
                 WHERE m.fingerprint = u.fingerprint"
            )),
            // One that has changed or gone since is not among the locked, so that the count says so.
            write: Statement::new(format!(
                "WITH locked AS MATERIALIZED (
                     SELECT m.id, u.n, u.url, u.urls, m.updated_at
                     FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4))
                          WITH ORDINALITY u(id, fingerprint, url, urls, n)
                     JOIN {media} m ON m.id = u.id
                     WHERE {fingerprint} = u.fingerprint
                     ORDER BY u.n FOR NO KEY UPDATE OF m)
                 UPDATE {media} m
                 SET thumbnail_url = COALESCE(l.url, m.thumbnail_url), thumbnail_urls = COALESCE(l.urls, m.thumbnail_urls),
                     updated_at = pg_catalog.now()
                 FROM locked l WHERE m.id = l.id
                 RETURNING l.n, m.thumbnail_url::pg_catalog.text, m.thumbnail_urls::pg_catalog.text,
                           pg_catalog.to_jsonb(m.updated_at) #>> '{{}}', pg_catalog.to_jsonb(l.updated_at) #>> '{{}}'"
            )),
            tables: Rc::clone(tables),
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
                fingerprint: row.fingerprint,
                thumbnail_url: row.thumbnail_url.clone(),
                thumbnail_urls: row.thumbnail_urls.map(|urls| urls.value().to_text()),
            });
            for id in decision.read {
                if let Some(row) = store.stored(&id) {
                    decided.read.insert(id, row.fingerprint);
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
        4096 + 2 * (page.raw_size(index, 4) + page.raw_size(index, 6))
    }

    fn decide(&mut self, connection: &Connection, mode: Mode, page: &Rows, from: usize, to: usize) -> Result<Decided> {
        let lacks = |row: usize| {
            is_missing_url(page.text(row, 3).as_deref())
                || Map::read(page.get::<Jsonb>(row, 4).as_ref().map(Jsonb::value)).is_missing()
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
        // Whatever goes wrong from here on, the next decision must not rest on the present reading.
        self.reload = true;
        let mut given: Vec<&mut Verdict> = decided
            .verdicts
            .iter_mut()
            .filter(|verdict| verdict.before.is_some())
            .collect();
        // What the verdicts rest on; a video of this slice may be among it, so it is looked at before the update.
        if !decided.read.is_empty() {
            let parameters = [
                arrays::text(decided.read.keys().map(|id| Some(id.as_str()))).into(),
                arrays::int8(decided.read.values().map(|fingerprint| Some(*fingerprint))).into(),
            ];
            if connection.run(&self.check, Mode::Write, &parameters).len() != decided.read.len() {
                return Err(Stale);
            }
        }
        given.sort_unstable_by(|left, right| left.id.cmp(&right.id));
        let version = |verdict: &Verdict| verdict.before.as_ref().map(|before| before.fingerprint);
        let parameters = [
            arrays::text(given.iter().map(|verdict| Some(verdict.id.as_str()))).into(),
            arrays::int8(given.iter().map(|verdict| version(verdict))).into(),
            arrays::text(given.iter().map(|verdict| verdict.thumbnail_url.as_deref())).into(),
            arrays::jsonb(given.iter().map(|verdict| verdict.thumbnail_urls.map(Jsonb::datum))).into(),
        ];
        let rows = write_flag::while_writing(|| connection.run(&self.write, Mode::Write, &parameters));
        if rows.len() != given.len() {
            return Err(Stale);
        }
        for row in 0..rows.len() {
            if let Some(n) = rows.get::<i64>(row, 0) {
                given[n as usize - 1].after = Some([1, 2, 3, 4].map(|column| rows.text(row, column)));
            }
        }
        self.reload = false;
        Ok(decided)
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
        let relation = &self.tables.media.sql_name;
        let mut cell = |column, id: &str, before: Option<&String>, after: Option<&String>| {
            let change = changes.of(CELL_SET, relation, Some(column), false);
            change.ids.push_text(id);
            change.before.push(before.cloned());
            change.after.push(after.cloned());
        };
        let written = || {
            let verdicts = decided.verdicts.iter();
            verdicts.filter_map(|verdict| Some((verdict, verdict.before.as_ref()?, verdict.after.as_ref()?)))
        };
        for (verdict, before, [url, urls, ..]) in written() {
            if verdict.thumbnail_url.is_some() {
                cell(
                    "thumbnail_url",
                    &verdict.id,
                    before.thumbnail_url.as_ref(),
                    url.as_ref(),
                );
            }
            if verdict.thumbnail_urls.is_some() {
                cell(
                    "thumbnail_urls",
                    &verdict.id,
                    before.thumbnail_urls.as_ref(),
                    urls.as_ref(),
                );
            }
        }
        // The last change is the first that goes back: a trigger that moves the time with every update comes after it.
        for (verdict, _, [.., after, before]) in written() {
            cell("updated_at", &verdict.id, before.as_ref(), after.as_ref());
        }
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
