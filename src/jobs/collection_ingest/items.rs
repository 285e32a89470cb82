//! The items of an ingest as a job of the engine: page after page of the spool is decided against the stored rows.

mod look_up;
mod write;

use std::borrow::Cow;
use std::cell::Cell;

use media_assets_core::jobs::collection_ingest::{
    plan, without_secrets, Action, AssetState, Content, Counters, Item, Outcome, Refusal, Write,
};

pub use self::look_up::by_the_unique_index;
use self::look_up::{stored, Found, LookUps, Row, ROW};
use super::call::Collection;
use super::spool::{column, Spool};
use super::tables::Tables;
use super::{changes, unix_time, JOB};
use crate::engine::journal::Changes;
use crate::engine::ledger::decisions::Decision;
use crate::engine::{Job, Stale};
use crate::error::Result;
use crate::postgres::arrays;
use crate::postgres::memory::in_own_context;
use crate::postgres::spi::{Connection, Mode, Rows, Statement};
use crate::settings::{self, LogDecisions};

tally_of_core!(Counters);

/// What is written of an item, without borrowing from it.
enum Writing {
    Nothing,
    Insert(Values),
    FillIn(Values),
    Update { values: Values, clears_technical: bool },
}

struct Values {
    content: Content<'static>,
    signature: Option<String>,
    enrichers: Option<String>,
}

impl Values {
    fn of(content: Content<'_>, signature: Option<String>, enrichers: Option<Cow<'_, str>>) -> Self {
        Values {
            content: Content {
                hash: content.hash.map(|hash| Cow::Owned(hash.into_owned())),
                size: content.size,
                mtime: content.mtime,
            },
            signature,
            enrichers: enrichers.map(Cow::into_owned),
        }
    }
}

/// One item and what becomes of it.
pub struct Fate {
    /// Its place in the page.
    pub row: usize,
    pub outcome: Outcome,
    /// The row as it was decided on, where it is to be updated.
    stored: Option<Row>,
    writing: Writing,
    /// The row that was written: its id, its image before, and the fingerprint of the image after.
    written: Option<([u8; 16], Option<String>, Option<String>)>,
    /// What the log of decisions calls the item, where it takes it.
    logged: Option<String>,
}

/// Items of the spool.
pub struct Page {
    rows: Rows,
    /// The key of the item before the first one.
    before: Option<String>,
    /// The rows with the keys of the page as they were when it was read, for the first decision on each.
    found: Found,
    /// Items before this one were decided on: another decision has to look again.
    decided: Cell<usize>,
}

impl Page {
    pub fn locator(&self, row: usize) -> Option<&str> {
        self.rows.get(row, column::LOCATOR)
    }

    pub fn key(&self, row: usize) -> Option<&str> {
        self.rows.get(row, column::KEY)
    }
}

pub struct Decided {
    pub fates: Vec<Fate>,
}

pub struct Items {
    spool: Spool,
    collection: Collection,
    assets: String,
    last_key: Option<String>,
    /// How much the log of decisions takes.
    logs: LogDecisions,
    look_ups: LookUps,
    lock: Statement,
    insert: Statement,
    update: Statement,
    fill_in: Statement,
}

impl Items {
    /// `logs`: the run has a log of decisions.
    pub fn new(tables: &Tables, collection: &Collection, spool: Spool, logs: bool) -> Self {
        let assets = &tables.assets;
        let table = &assets.sql_name;
        let of = |column: &str| assets.type_of(column).to_owned();
        // Without a journal nobody asks for images.
        let (image, fingerprint) = if settings::log_changes() {
            let image = changes::image(assets);
            (format!("({image})::pg_catalog.text"), changes::fingerprint(&image))
        } else {
            ("NULL::pg_catalog.text".to_owned(), "NULL::pg_catalog.text".to_owned())
        };
        let content = format!(
            "size = u.size::{}, mtime = u.mtime::{}, content_hash = u.hash::{}, content_signature = u.signature::{}",
            of("size"),
            of("mtime"),
            of("content_hash"),
            of("content_signature")
        );
        let kept = |column: &str| format!("{column} = COALESCE(u.{column}::{}, a.{column})", of(column));
        let cleared = |column: &str| format!("{column} = CASE WHEN u.clears THEN NULL ELSE a.{column} END");
        let technical: Vec<String> = ["duration_ms", "video_codec", "audio_codec", "container"]
            .map(cleared)
            .into();
        let described: Vec<String> = ["uri", "title", "season", "episode", "metadata"].map(kept).into();
        Items {
            spool,
            collection: collection.clone(),
            assets: table.clone(),
            last_key: None,
            logs: if logs { settings::log_decisions() } else { LogDecisions::None },
            look_ups: LookUps::new(table, collection.uuid),
            lock: Statement::new(format!(
                "SELECT u.n, {ROW}, {image} FROM pg_catalog.unnest($1) WITH ORDINALITY u(id, n) JOIN {table} a ON a.uuid = u.id
                 ORDER BY u.n FOR NO KEY UPDATE OF a"
            )),
            insert: Statement::new(format!(
                "INSERT INTO {table} AS a (uuid, collection_uuid, canonical_key, uri, title, season, episode, size, mtime, content_hash,
                     content_signature, enricher_checksum, metadata, state, approved_for_broadcast, is_deleted, discovered_at, created_at, updated_at)
                 SELECT u.id, $13, u.key::{key}, u.uri::{uri}, u.title::{title}, u.season::{season}, u.episode::{episode}, u.size::{size},
                        u.mtime::{mtime}, u.hash::{hash}, u.signature::{signature}, u.enrichers::{enrichers}, u.metadata::{metadata},
                        'new'::{state}, false, false, pg_catalog.now(), pg_catalog.now(), pg_catalog.now()
                 FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5),
                      pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8), pg_catalog.unnest($9), pg_catalog.unnest($10),
                      pg_catalog.unnest($11), pg_catalog.unnest($12))
                      WITH ORDINALITY u(id, key, uri, title, season, episode, metadata, size, mtime, hash, signature, enrichers, n)
                 ORDER BY u.n
                 ON CONFLICT (collection_uuid, canonical_key) DO NOTHING RETURNING a.uuid, {fingerprint}",
                key = of("canonical_key"),
                uri = of("uri"),
                title = of("title"),
                season = of("season"),
                episode = of("episode"),
                size = of("size"),
                mtime = of("mtime"),
                hash = of("content_hash"),
                signature = of("content_signature"),
                enrichers = of("enricher_checksum"),
                metadata = of("metadata"),
                state = of("state"),
            )),
            update: Statement::new(format!(
                "UPDATE {table} a SET state = u.state::{}, approved_for_broadcast = false, is_deleted = false, deleted_at = NULL, {content},
                     enricher_checksum = u.enrichers::{}, {}, {}, updated_at = pg_catalog.now()
                 FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5),
                      pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8), pg_catalog.unnest($9), pg_catalog.unnest($10),
                      pg_catalog.unnest($11), pg_catalog.unnest($12), pg_catalog.unnest($13))
                      u(id, size, mtime, hash, signature, enrichers, state, clears, uri, title, season, episode, metadata)
                 WHERE a.uuid = u.id RETURNING a.uuid, {fingerprint}",
                of("state"),
                of("enricher_checksum"),
                technical.join(", "),
                described.join(", ")
            )),
            fill_in: Statement::new(format!(
                "UPDATE {table} a SET {content}
                 FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5))
                      u(id, size, mtime, hash, signature)
                 WHERE a.uuid = u.id RETURNING a.uuid, {fingerprint}"
            )),
        }
    }

    fn fate(&self, page: &Page, row: usize, found: &Found) -> Fate {
        let mut fate = Fate {
            row,
            outcome: Outcome::Refused(Refusal::Unkeyable),
            stored: None,
            writing: Writing::Nothing,
            written: None,
            logged: None,
        };
        if page.key(row).is_some() {
            self.decide_item(page, found, &mut fate);
        }
        let wanted = log_level_of(&fate.outcome);
        if self.logs >= wanted {
            fate.logged = Some(without_secrets(page.locator(row).unwrap_or_default()).into_owned());
        }
        fate
    }

    fn decide_item(&self, page: &Page, found: &Found, fate: &mut Fate) {
        let row = fate.row;
        if is_repeated(page, row) {
            fate.outcome = Outcome::Refused(Refusal::Duplicate);
            return;
        }
        let place = found.of(row);
        let of_row = match place {
            Some((rows, place)) => match stored(rows, place) {
                Some(stored) => Some(stored),
                None => {
                    fate.outcome = Outcome::Refused(Refusal::Rejected);
                    return;
                }
            },
            None => None,
        };
        let rows = &page.rows;
        let item = Item {
            content: Content {
                hash: rows.get::<&str>(row, column::HASH).map(Cow::Borrowed),
                size: rows.get(row, column::SIZE),
                mtime: rows.get(row, column::MTIME).and_then(unix_time),
            },
            enricher_checksum: rows.get::<&str>(row, column::ENRICHERS).map(Cow::Borrowed),
        };
        let plan = plan(of_row.as_ref(), &item, self.collection.enrichers.as_deref());
        fate.outcome = Outcome::Decided(plan.decision);
        fate.writing = match plan.write {
            Write::Nothing => return,
            Write::Insert {
                content,
                content_signature,
                enricher_checksum,
            } => Writing::Insert(Values::of(content, content_signature, enricher_checksum)),
            Write::FillIn {
                content,
                content_signature,
            } => Writing::FillIn(Values::of(content, content_signature, None)),
            Write::Update {
                content,
                content_signature,
                enricher_checksum,
                clears_technical,
            } => Writing::Update {
                values: Values::of(content, content_signature, enricher_checksum),
                clears_technical,
            },
        };
        fate.stored = place.and_then(|(rows, place)| Row::read(rows, place));
    }

    /// Locks the rows that are to be updated and takes their images; they have to be as they were when they were
    /// decided on.
    fn lock(&self, connection: &Connection, fates: &mut [Fate]) -> std::result::Result<(), Stale> {
        let places: Vec<usize> = (0..fates.len())
            .filter(|place| matches!(fates[*place].writing, Writing::FillIn(_) | Writing::Update { .. }))
            .collect();
        if places.is_empty() {
            return Ok(());
        }
        let ids = arrays::uuid(
            places
                .iter()
                .map(|place| fates[*place].stored.as_ref().map(|stored| stored.id)),
        );
        let rows = connection.run(&self.lock, Mode::Write, &[ids.into()]);
        if rows.len() != places.len() {
            return Err(Stale);
        }
        for row in 0..rows.len() {
            let place = places[rows.get::<i64>(row, 0).map_or(0, |n| n as usize - 1)];
            let now = Row::read(&rows, row);
            if now.is_none() || now != fates[place].stored {
                return Err(Stale);
            }
            fates[place].written = now.map(|now| (now.id, rows.text(row, 9), None));
        }
        Ok(())
    }
}

/// Whether the item before this one has the same key: of equal keys the first is decided on.
fn is_repeated(page: &Page, row: usize) -> bool {
    match row {
        0 => page.before.is_some() && page.before.as_deref() == page.key(0),
        _ => page.key(row) == page.key(row - 1),
    }
}

/// From which level on the log of decisions takes such an item.
fn log_level_of(outcome: &Outcome) -> LogDecisions {
    match outcome {
        Outcome::Decided(decision) => match decision.action {
            Action::Create | Action::Update => LogDecisions::Changed,
            Action::Skip if decision.next_state == Some(AssetState::Retired) => LogDecisions::Skipped,
            Action::Skip => LogDecisions::All,
        },
        Outcome::Refused(_) => LogDecisions::Skipped,
    }
}

/// Whether an item is skipped on purpose, in the words of the log.
fn logged_outcome(outcome: &Outcome) -> &'static str {
    match log_level_of(outcome) {
        LogDecisions::Skipped => "skipped",
        _ => "eligible",
    }
}

impl Job for Items {
    type Page = Page;
    type Decided = Decided;
    type Counters = Counters;

    const NAME: &'static str = JOB;
    const ROWS: &'static str = "items";
    const ROW: &'static str = "item";

    fn estimate(&self, _: &Connection) -> Option<i64> {
        None
    }

    fn read(&mut self, connection: &Connection, mode: Mode, _: Option<&str>, limit: i64) -> Page {
        let rows = self.spool.next(connection, limit);
        let last = rows.len().checked_sub(1).and_then(|last| rows.text(last, column::KEY));
        Page {
            // The array of keys goes at once.
            found: in_own_context(|| self.look_ups.of_page(connection, mode, &rows)),
            rows,
            before: std::mem::replace(&mut self.last_key, last),
            decided: Cell::new(0),
        }
    }

    fn read_these(&mut self, connection: &Connection, _: &[String]) -> Page {
        // Quarantined items of a plain function are not tried again: the next ingest does that.
        self.read(connection, Mode::Read, None, 0)
    }

    fn len(page: &Page) -> usize {
        page.rows.len()
    }

    fn cursor(page: &Page) -> String {
        let last = page.rows.len().saturating_sub(1);
        page.rows.text(last, column::KEY).unwrap_or_default()
    }

    fn weight(page: &Page, index: usize) -> usize {
        1024 + page.rows.raw_size(index, column::METADATA) + page.rows.raw_size(index, column::LOCATOR)
    }

    fn decide(&mut self, connection: &Connection, mode: Mode, page: &Page, from: usize, to: usize) -> Result<Decided> {
        let again;
        let found = if from >= page.decided.get() {
            page.decided.set(to);
            &page.found
        } else {
            again = self.look_ups.of_items(connection, mode, &page.rows, from, to);
            &again
        };
        Ok(Decided {
            fates: (from..to).map(|row| self.fate(page, row, found)).collect(),
        })
    }

    fn has_writes(decided: &Decided) -> bool {
        decided
            .fates
            .iter()
            .any(|fate| !matches!(fate.writing, Writing::Nothing))
    }

    fn write(
        &mut self,
        connection: &Connection,
        page: &Page,
        _: usize,
        _: usize,
        mut decided: Decided,
    ) -> std::result::Result<Decided, Stale> {
        self.lock(connection, &mut decided.fates)?;
        self.update(connection, page, &mut decided.fates)?;
        self.fill_in(connection, &mut decided.fates)?;
        self.insert(connection, page, &mut decided.fates)?;
        Ok(decided)
    }

    fn count(decided: &Decided) -> Counters {
        let mut counters = Counters::default();
        for fate in &decided.fates {
            counters.count(&fate.outcome);
        }
        counters
    }

    fn count_failed(decided: &Decided) -> Counters {
        let mut counters = Counters::default();
        for _ in &decided.fates {
            counters.count(&Outcome::Refused(Refusal::Rejected));
        }
        counters
    }

    fn id(page: &Page, index: usize) -> String {
        let locator = page.rows.get::<&str>(index, column::LOCATOR).unwrap_or_default();
        without_secrets(locator).into_owned()
    }

    fn remember(&mut self, _: &Decided) -> Result<()> {
        Ok(())
    }

    fn changes(&self, decided: &Decided, changes: &mut Changes) {
        for fate in &decided.fates {
            let action = match fate.writing {
                Writing::Nothing => continue,
                Writing::Insert(_) => changes::INSERTED,
                Writing::FillIn(_) => changes::FILLED,
                Writing::Update { .. } => changes::UPDATED,
            };
            if let Some((id, before, after)) = &fate.written {
                changes::add(changes, action, &self.assets, *id, before.clone(), after.clone());
            }
        }
    }

    fn decisions(decided: &Decided, _: LogDecisions, decisions: &mut Vec<Decision>) {
        for fate in &decided.fates {
            let Some(item_key) = fate.logged.clone() else { continue };
            decisions.push(Decision {
                item_key,
                slot: None,
                position: None,
                outcome: logged_outcome(&fate.outcome),
                action: Some(fate.outcome.action()),
                reason: Some(fate.outcome.reason().into()),
            });
        }
    }
}
