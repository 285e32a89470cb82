//! Lesson media → assets: reads lessons, decides their items, writes assets, usages and `assetId`s.

pub(super) mod deciding;
pub(super) mod known;
mod known_keys;
pub mod program;
pub(super) mod read;
mod settled;
pub mod undo_log;
pub(super) mod write;

use std::collections::HashMap;
use std::rc::Rc;

use media_assets_core::jobs::lesson::{AssetId, Counters, Found, Normalized, Outcome, Reason, Slot};

use super::asset_keys::AssetKeys;
use super::asset_tables::Tables;
use crate::engine::journal::Changes;
use crate::engine::key_set::{KeySet, KeyedRows};
use crate::engine::ledger::decisions::Decision;
use crate::engine::long::Buckets;
use crate::engine::{Job, Stale, Tally};
use crate::error::Result;
use crate::postgres::jsonb::JsonbRef;
use crate::postgres::spi::{Connection, Mode};
use crate::settings::LogDecisions;
use deciding::{decide_items, items_of_lessons};
use known::{Known, LookUps};
use known_keys::KnownKeys;
use read::{Lesson, Page};
pub use read::{Reader, Scope};
pub use settled::{Settled, STATE};
use undo_log::Written;
use write::Writer;

/// The counters of a run and the items of its failed lessons, which no other counter holds.
#[derive(Clone, Default)]
pub struct LessonTally {
    pub counters: Counters,
    /// Lessons that were passed over, since they are as a finished run left them.
    pub lessons_settled: i64,
    items_of_failed: i64,
}

impl Tally for LessonTally {
    fn names() -> Vec<&'static str> {
        let mut names: Vec<&'static str> = Counters::default().columns().map(|(name, _)| name).collect();
        names.push("lessons_settled");
        names
    }

    fn values(&self) -> Vec<i64> {
        let mut values: Vec<i64> = self.counters.columns().map(|(_, value)| value).collect();
        values.push(self.lessons_settled);
        values
    }

    fn add(&mut self, other: &Self) {
        self.counters.add(&other.counters);
        self.lessons_settled += other.lessons_settled;
        self.items_of_failed += other.items_of_failed;
    }

    fn check(&self) -> std::result::Result<(), &'static str> {
        self.counters.check(self.items_of_failed)
    }
}

/// One item and what becomes of it.
pub struct Item {
    /// Its lesson, as an index into the slice.
    pub lesson: usize,
    pub slot: Slot,
    pub position: i32,
    pub normalized: Normalized<'static, JsonbRef<'static>>,
    pub outcome: Outcome,
    pub usage_exists: bool,
}

/// A decided slice.
pub struct Decided {
    pub lessons: Vec<Lesson>,
    pub items: Vec<Item>,
    /// Indexes of the items whose assets are created, one for each asset.
    pub(super) creating: Vec<usize>,
    /// Lessons that were passed over.
    settled: i64,
    /// How the lessons are left is to be written down.
    marks: bool,
    /// What the writing of the slice left behind, for undo.
    written: Written,
}

impl Decided {
    /// What was decided, with nothing written yet.
    pub(super) fn new(lessons: Vec<Lesson>, items: Vec<Item>, creating: Vec<usize>) -> Self {
        Decided {
            lessons,
            items,
            creating,
            settled: 0,
            marks: false,
            written: Written::default(),
        }
    }

    /// Puts the ids that a trigger of the user's gave in the place of ours.
    pub(super) fn rename_assets(&mut self, renamed: &HashMap<AssetId, AssetId>) {
        for item in &mut self.items {
            if let Outcome::Eligible { asset, patch, .. } = &mut item.outcome {
                if let Some(id) = asset.id.and_then(|id| renamed.get(&id)) {
                    asset.id = Some(*id);
                    *patch = true;
                }
            }
        }
    }

    /// The lesson and its items, in order.
    pub fn each_lesson(&self) -> impl Iterator<Item = (&Lesson, &[Item])> {
        let mut rest = self.items.as_slice();
        self.lessons.iter().enumerate().map(move |(index, lesson)| {
            let own = rest.iter().take_while(|item| item.lesson == index).count();
            let (items, others) = rest.split_at(own);
            rest = others;
            (lesson, items)
        })
    }
}

/// The job over the relations of one run.
pub struct LessonAssets {
    tables: Rc<Tables>,
    reader: Reader,
    look_ups: LookUps,
    writer: Option<Writer>,
    /// Where settled lessons are passed over: what knows them, and the run that writes its own down.
    settled: Option<Settled>,
    run_id: Option<i64>,
    /// What a dry run would have created so far.
    planned: KeySet,
    /// Keys that a dry run gave to rows without one.
    keyed: KeyedRows,
    /// The keys that exist, while they are few.
    known_keys: KnownKeys,
    remembers: bool,
    /// The reading of the present slice's lessons is out of date: read them again, under lock.
    reread: bool,
}

impl LessonAssets {
    /// `keys` is the finished run over rows without key; a dry run takes over what it gave.
    pub fn new(
        connection: &Connection,
        tables: &Rc<Tables>,
        scope: Scope,
        keys: Option<AssetKeys>,
        execute: bool,
    ) -> Result<Self> {
        let settled = match scope.skip_settled {
            true => Some(Settled::new(connection, tables, scope.is_whole())),
            false => None,
        };
        Ok(LessonAssets {
            settled,
            run_id: None,
            reader: Reader::new(connection, tables, scope, execute)?,
            look_ups: LookUps::new(tables),
            writer: if execute { Writer::new(connection, tables) } else { None },
            tables: Rc::clone(tables),
            planned: KeySet::default(),
            keyed: keys.map(|keys| keys.given).unwrap_or_default(),
            known_keys: KnownKeys::default(),
            remembers: !execute,
            reread: false,
        })
    }
}

impl LessonAssets {
    /// The run that the marks on settled lessons name.
    pub fn of_run(mut self, run_id: Option<i64>) -> Self {
        self.run_id = run_id;
        self
    }

    /// Where the run ends: the greatest id when it started.
    pub fn bound(&self) -> Option<&str> {
        self.reader.bound()
    }

    /// Reads the keys that exist, where they are few; to be called when the rows without key have theirs.
    pub fn learn_keys(&mut self, connection: &Connection, mode: Mode) {
        let organization = self.reader.organization();
        self.known_keys = KnownKeys::load(connection, mode, self.tables.assets.as_ref(), organization);
    }
}

impl Job for LessonAssets {
    type Page = Page;
    type Decided = Decided;
    type Counters = LessonTally;

    const NAME: &'static str = "lesson_assets";
    const ROWS: &'static str = "lessons";
    const ROW: &'static str = "lesson";

    fn estimate(&self, _: &Connection) -> Option<i64> {
        // The statistics say how many lessons there are, not how many of them are in a narrower scope.
        let rows = self.tables.lesson.row_estimate;
        (rows >= 0.0 && !self.reader.is_narrowed()).then_some(rows as i64)
    }

    fn read(&mut self, connection: &Connection, mode: Mode, after: Option<&str>, limit: i64) -> Page {
        self.reader.page(connection, mode, after, limit)
    }

    fn read_these(&mut self, connection: &Connection, ids: &[String]) -> Page {
        self.reader.these(connection, ids)
    }

    fn len(page: &Page) -> usize {
        page.len()
    }

    fn cursor(page: &Page) -> String {
        page.id(page.len() - 1)
    }

    fn weight(page: &Page, index: usize) -> usize {
        page.weight(index)
    }

    fn decide(&mut self, connection: &Connection, mode: Mode, page: &Page, from: usize, to: usize) -> Result<Decided> {
        let again = std::mem::take(&mut self.reread);
        let mut lessons: Vec<Lesson> = if again {
            self.reader.again(connection, page, from, to)
        } else {
            (from..to).map(|row| page.lesson(row)).collect()
        };
        let settled = match &self.settled {
            Some(settled) => settled.pass_over(connection, mode, &mut lessons),
            None => 0,
        };
        let mut decided = self.decide_lessons(connection, mode, lessons, again);
        decided.settled = settled;
        decided.marks = self.settled.is_some() && self.run_id.is_some() && !decided.lessons.is_empty();
        Ok(decided)
    }

    fn has_writes(decided: &Decided) -> bool {
        decided.marks || decided.items.iter().any(Item::has_writes)
    }

    fn write(
        &mut self,
        connection: &Connection,
        _: &Page,
        _: usize,
        _: usize,
        mut decided: Decided,
    ) -> std::result::Result<Decided, Stale> {
        let Some(writer) = &self.writer else { return Err(Stale) };
        if decided.items.iter().any(Item::has_writes) {
            writer.write(connection, &mut decided)?;
        }
        if let Some((settled, run_id)) = self.settled.as_ref().zip(self.run_id).filter(|_| decided.marks) {
            settled.mark(connection, &decided, run_id)?;
        }
        Ok(decided)
    }

    fn look_again(&mut self) {
        self.reread = true;
    }

    fn count(decided: &Decided) -> LessonTally {
        let mut counters = Counters {
            lessons_scanned: decided.lessons.len() as i64,
            ..Counters::default()
        };
        for item in &decided.items {
            counters.count(&item.outcome, item.usage_exists);
        }
        LessonTally {
            counters,
            lessons_settled: decided.settled,
            items_of_failed: 0,
        }
    }

    fn count_failed(decided: &Decided) -> LessonTally {
        let items = decided.items.len() as i64;
        LessonTally {
            counters: Counters::of_failed_lesson(items),
            items_of_failed: items,
            ..LessonTally::default()
        }
    }

    fn id(page: &Page, index: usize) -> String {
        page.id(index)
    }

    fn remember(&mut self, decided: &Decided) -> Result<()> {
        for index in &decided.creating {
            let item = &decided.items[*index];
            if let (Some(organization), Normalized::Eligible(media)) =
                (&decided.lessons[item.lesson].organization, &item.normalized)
            {
                let Outcome::Eligible { asset, .. } = item.outcome else {
                    continue;
                };
                let Found { id, has_byte_size } = asset;
                if self.remembers {
                    self.planned.insert(organization, &media.canonical_key, has_byte_size)?;
                } else if let Some(id) = id {
                    self.known_keys
                        .created(organization, &media.canonical_key, id, has_byte_size);
                }
            }
        }
        Ok(())
    }

    fn narrow(&mut self, connection: &Connection, buckets: Buckets) -> Result<bool> {
        let scope = Scope {
            buckets,
            ..self.reader.scope().clone()
        };
        if self.settled.is_some() {
            self.settled = Some(Settled::new(connection, &self.tables, scope.is_whole()));
        }
        self.reader = Reader::new(connection, &self.tables, scope, true)?;
        Ok(true)
    }

    fn changes(&self, decided: &Decided, changes: &mut Changes) {
        undo_log::changes(&self.tables, decided, changes);
    }

    fn decisions(decided: &Decided, level: LogDecisions, decisions: &mut Vec<Decision>) {
        undo_log::decisions(decided, level, decisions);
    }
}

impl Item {
    /// An item that is normalised and no more.
    pub(super) fn undecided(
        lesson: usize,
        slot: Slot,
        position: i32,
        normalized: Normalized<'static, JsonbRef<'static>>,
    ) -> Self {
        Item {
            lesson,
            slot,
            position,
            normalized,
            outcome: Outcome::Skipped(Reason::Malformed),
            usage_exists: false,
        }
    }

    pub(super) fn has_writes(&self) -> bool {
        matches!(self.outcome, Outcome::Eligible { patch, .. } if patch || !self.usage_exists)
    }
}

impl LessonAssets {
    fn decide_lessons(&mut self, connection: &Connection, mode: Mode, lessons: Vec<Lesson>, again: bool) -> Decided {
        let mut items = items_of_lessons(&lessons);
        let mut known = Known::new(&self.planned, &self.keyed, mode == Mode::Write);
        let known_keys = (!again).then_some(&self.known_keys);
        self.look_ups
            .assets(connection, mode, &lessons, &items, &mut known, known_keys);
        let creating = decide_items(&lessons, &mut items, &mut known);
        self.look_ups.usages(connection, mode, &lessons, &mut items, &known);
        Decided::new(lessons, items, creating)
    }
}
