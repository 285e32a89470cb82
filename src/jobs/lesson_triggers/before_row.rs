//! BEFORE ROW: finds or makes the assets of a lesson that is being written, and puts `assetId` into its items.

use std::rc::Rc;

use media_assets_core::jobs::lesson::{decide, normalize, AssetId, Normalized, Outcome, Slot};
use media_assets_core::json::Json;

use super::hints::Hints;
use super::place::Place;
use super::untouched::same_medium;
use super::{goes_to_the_application, guarded, nesting, reserved, INSERT_TRIGGER, UPDATE_TRIGGER};
use crate::engine::key_set::hash;
use crate::engine::Stale;
use crate::error::raise;
use crate::jobs::lesson_assets::deciding::each_item;
use crate::jobs::lesson_assets::read::Lesson;
use crate::jobs::lesson_assets::write::asset_of;
use crate::jobs::lesson_assets::{Decided, Item};
use crate::postgres::jsonb::JsonbRef;
use crate::postgres::patch::patch_asset_ids;
use crate::postgres::spi::Connection;
use crate::postgres::subtransaction::in_subtransaction;
use crate::postgres::trigger::{text_of, Column, Event, Returned, TriggerCall};
use crate::postgres::write_flag;

/// Rows of a statement whose assets are made at once, each with its row. Those of the rows behind them get their ids, and
/// are made together at the end of the statement: that is what makes a bulk write fast.
const ROWS_AT_ONCE: u64 = 32;
/// A new asset that another session has made meanwhile is looked up again, that often.
const TRIES: usize = 3;

/// What is kept from row to row of a statement.
#[derive(Default)]
pub struct Statement {
    columns: Option<Columns>,
    place: Option<Rc<Place>>,
    /// The relations cannot be worked on; the statement trigger says so.
    is_lost: bool,
    rows: u64,
    hints: Hints,
}

#[derive(Clone, Copy)]
struct Columns {
    videos: Column,
    documents: Column,
    course: Column,
}

impl Columns {
    fn of(call: &TriggerCall) -> Option<Self> {
        Some(Columns {
            videos: call.column("videos")?,
            documents: call.column("documents")?,
            course: call.column("course_id")?,
        })
    }
}

/// The row as it is to be written.
pub fn run(call: &TriggerCall) -> Returned {
    let mut statement = call.state::<Statement>().borrow_mut();
    if statement.columns.is_none() {
        nesting::begins(call.relation());
        statement.columns = Columns::of(call);
    }
    let Some(columns) = statement.columns.filter(|_| !statement.is_lost) else {
        return call.row();
    };
    let is_update = call.event() == Event::Update;
    if is_update && call.leaves(&[columns.videos, columns.documents, columns.course]) {
        return call.row();
    }
    statement.rows += 1;
    statement.row(call, columns, is_update)
}

impl Statement {
    fn row(&mut self, call: &TriggerCall, columns: Columns, is_update: bool) -> Returned {
        let mut lesson = Lesson {
            videos: call.new_jsonb(&columns.videos),
            documents: call.new_jsonb(&columns.documents),
            ..Lesson::default()
        };
        let old = (is_update && call.leaves(&[columns.course])).then(|| Lesson {
            videos: call.old_jsonb(&columns.videos),
            documents: call.old_jsonb(&columns.documents),
            ..Lesson::default()
        });
        let items = items_to_settle(&lesson, old.as_ref());
        if items.is_empty() {
            return call.row();
        }
        let course = call.new_value(&columns.course);
        lesson.course = course.map(|course| text_of(&columns.course, course));
        let Some(course) = lesson.course.clone() else {
            return call.row();
        };
        let Some(place) = self.place(call) else {
            return call.row();
        };
        lesson.organization = match self.hints.organization(&course) {
            Some(organization) => organization,
            None => {
                let asked = guarded(|| {
                    place.home(|connection| {
                        self.hints.learn(connection, &place, self.rows);
                        match self.hints.organization(&course) {
                            Some(organization) => organization,
                            None => self.hints.ask_organization(connection, &place, &course),
                        }
                    })
                });
                self.is_lost |= asked.is_err();
                asked.ok().flatten()
            }
        };
        let Some(organization) = lesson.organization.clone() else {
            return call.row();
        };
        let defers = self.rows > ROWS_AT_ONCE && reserved::has_room() && makes_assets_at_the_end(call);
        let mut decided = Decided::new(vec![lesson], items, Vec::new());
        let mut refused = Vec::new();
        for _ in 0..TRIES {
            if guarded(|| self.ask(&place, &organization, &decided.items)).is_err() {
                self.is_lost = true;
                return call.row();
            }
            self.decide(&organization, &mut decided);
            if defers {
                reserve(&organization, &mut decided);
            }
            match self.create(&place, &organization, &mut decided) {
                Made::All => refused.clear(),
                Made::Nothing {
                    of,
                    is_about_other_rows,
                } => {
                    refused = of;
                    if is_about_other_rows {
                        continue;
                    }
                }
            }
            break;
        }
        note_found(&organization, &decided);
        patched(call, columns, &decided, &refused)
    }

    /// What the trigger works on, learnt with the first row that needs it.
    fn place(&mut self, call: &TriggerCall) -> Option<Rc<Place>> {
        if self.place.as_ref().is_none_or(|place| !place.is_current()) {
            self.place = guarded(|| Place::of(call).unwrap_or_else(|report| raise(report))).ok();
            self.is_lost = self.place.is_none();
        }
        self.place.clone()
    }

    /// Asks for what is not known of the items, with one statement.
    fn ask(&mut self, place: &Place, organization: &str, items: &[Item]) {
        let unknown = |hints: &Hints| -> Vec<usize> {
            (0..items.len())
                .filter(|index| match &items[*index].normalized {
                    Normalized::Eligible(media) => !hints.knows(organization, media),
                    Normalized::Skipped { .. } => false,
                })
                .collect()
        };
        if unknown(&self.hints).is_empty() {
            return;
        }
        place.home(|connection| {
            self.hints.learn(connection, place, self.rows);
            let unknown = unknown(&self.hints);
            if unknown.is_empty() {
                return;
            }
            let (mut ids, mut keys) = (Vec::new(), Vec::new());
            for index in unknown {
                if let Normalized::Eligible(media) = &items[index].normalized {
                    ids.extend(media.asset_id);
                    keys.push(media.canonical_key.as_str());
                }
            }
            self.hints.ask(connection, place, organization, &ids, &keys);
        });
    }

    fn decide(&mut self, organization: &str, decided: &mut Decided) {
        decided.creating.clear();
        for (index, item) in decided.items.iter_mut().enumerate() {
            let mut known = self.hints.of(organization);
            item.outcome = decide(&item.normalized, Some(&mut known));
            if known.created {
                decided.creating.push(index);
            }
        }
    }

    /// Makes the new assets of the row.
    fn create(&mut self, place: &Place, organization: &str, decided: &mut Decided) -> Made {
        if decided.creating.is_empty() {
            return Made::All;
        }
        let of: Vec<AssetId> = decided
            .creating
            .iter()
            .filter_map(|index| asset_of(&decided.items[*index]))
            .collect();
        let made = in_subtransaction(|| place.home(|connection| create_assets(connection, place, decided)));
        let is_about_other_rows = match made {
            Ok(Ok(renamed)) => {
                if renamed {
                    self.forget(organization, decided);
                }
                return Made::All;
            }
            Ok(Err(Stale)) => true,
            Err(failure) if goes_to_the_application(&failure) => failure.rethrow(),
            Err(failure) => failure.is_about_other_rows(),
        };
        self.forget(organization, decided);
        Made::Nothing {
            of,
            is_about_other_rows,
        }
    }

    fn forget(&mut self, organization: &str, decided: &Decided) {
        for index in &decided.creating {
            if let Normalized::Eligible(media) = &decided.items[*index].normalized {
                self.hints.forget(organization, &media.canonical_key);
            }
        }
    }
}

/// What became of the new assets of a row.
enum Made {
    All,
    /// Their items stay as they are; the statement trigger tries again, and says why when it fails too.
    Nothing {
        of: Vec<AssetId>,
        /// Another session was first: worth another look.
        is_about_other_rows: bool,
    },
}

/// Says whether a trigger of the user's gave other ids than ours.
fn create_assets(connection: &Connection, place: &Place, decided: &mut Decided) -> Result<bool, Stale> {
    write_flag::while_writing(|| {
        let renamed = place.writer.create_assets(connection, decided)?;
        decided.rename_assets(&renamed);
        Ok(!renamed.is_empty())
    })
}

/// The eligible items of a row, but for those that an UPDATE leaves as they were: the statement trigger looks at all items
/// of a lesson whose media have changed.
fn items_to_settle(lesson: &Lesson, old: Option<&Lesson>) -> Vec<Item> {
    let mut items = Vec::new();
    for (slot, column) in [(Slot::Video, lesson.videos), (Slot::Document, lesson.documents)] {
        let Some(column) = column else { continue };
        each_item(column.value_in_context(), |position, now| {
            let before = old.and_then(|old| element(old, slot, position));
            if before
                .zip(now)
                .and_then(|(before, now)| same_medium(slot, before, now))
                .is_some()
            {
                return;
            }
            let normalized = normalize(slot, now);
            if matches!(normalized, Normalized::Eligible(_)) {
                items.push(Item::undecided(0, slot, position, normalized));
            }
        });
    }
    items
}

fn element(lesson: &Lesson, slot: Slot, position: i32) -> Option<JsonbRef<'static>> {
    let column = match slot {
        Slot::Video => lesson.videos,
        Slot::Document => lesson.documents,
    };
    column?.value_in_context().at(usize::try_from(position).ok()?)
}

/// Leaves the making of assets to the end of the statement. An item that carries an `assetId` already is no part of this:
/// should its asset be refused, it could not be put back as it was.
fn reserve(organization: &str, decided: &mut Decided) {
    let (lesson, items) = (&decided.lessons[0], &decided.items);
    decided.creating.retain(|index| {
        let item = &items[*index];
        let is_free = element(lesson, item.slot, item.position).is_some_and(|element| element.get("assetId").is_none());
        if let (true, Normalized::Eligible(media), Some(id)) = (is_free, &item.normalized, asset_of(item)) {
            reserved::add(id, hash(organization, media.canonical_key.as_bytes()));
        }
        !is_free
    });
}

/// Spares the statement trigger the look-up of assets that are there.
fn note_found(organization: &str, decided: &Decided) {
    for item in &decided.items {
        if let (Normalized::Eligible(media), Some(id)) = (&item.normalized, item.outcome.existing_asset()) {
            if !reserved::is_waiting(id) {
                reserved::found(
                    hash(organization, &id),
                    hash(organization, media.canonical_key.as_bytes()),
                );
            }
        }
    }
}

/// Whether the statement trigger of this table will make what is left to it: it is not there when somebody has dropped or
/// disabled it, and does not run when a partition without one is written directly.
fn makes_assets_at_the_end(call: &TriggerCall) -> bool {
    match call.event() {
        Event::Insert => call.has_sibling(INSERT_TRIGGER),
        _ => call.has_sibling(UPDATE_TRIGGER),
    }
}

/// The row with the `assetId`s of its items, but for those whose assets were refused.
fn patched(call: &TriggerCall, columns: Columns, decided: &Decided, refused: &[AssetId]) -> Returned {
    let lesson = &decided.lessons[0];
    let mut values = Vec::new();
    for (slot, column, media) in [
        (Slot::Video, columns.videos, lesson.videos),
        (Slot::Document, columns.documents, lesson.documents),
    ] {
        let mut ids = Vec::new();
        for item in decided.items.iter().filter(|item| item.slot == slot) {
            if let Outcome::Eligible { asset, patch: true, .. } = item.outcome {
                let place = usize::try_from(item.position).unwrap_or(0);
                ids.resize(ids.len().max(place + 1), None);
                ids[place] = asset.id.filter(|id| !refused.contains(id));
            }
        }
        if let (Some(media), true) = (media, ids.iter().any(Option::is_some)) {
            values.push((column, patch_asset_ids(media, &ids).datum()));
        }
    }
    if values.is_empty() {
        call.row()
    } else {
        call.row_with(&values)
    }
}
