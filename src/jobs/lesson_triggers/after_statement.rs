//! AFTER STATEMENT: makes assets, usages and items of the lessons that a statement wrote agree.

use std::collections::HashMap;
use std::rc::Rc;

use media_assets_core::jobs::lesson::{Normalized, Slot};

use super::log::{decisions_of, failed, record};
use super::place::Place;
use super::untouched::{trust_untouched, AllUsages};
use super::usages::{compare_usages, delete, usages_of};
use super::{goes_to_the_application, guarded, nesting, reserved};
use crate::engine::key_set::{hash, KeySet, KeyedRows};
use crate::engine::ledger::decisions::Decision;
use crate::engine::Stale;
use crate::error::raise;
use crate::jobs::lesson_assets::deciding::{decide_items, items_of_lessons};
use crate::jobs::lesson_assets::known::Known;
use crate::jobs::lesson_assets::read::Lesson;
use crate::jobs::lesson_assets::write::asset_of;
use crate::jobs::lesson_assets::{Decided, Item};
use crate::postgres::jsonb::Jsonb;
use crate::postgres::memory::in_own_context;
use crate::postgres::patch::without_asset_ids;
use crate::postgres::spi::{Connection, Mode, Rows};
use crate::postgres::subtransaction::{in_subtransaction, Failure};
use crate::postgres::transitions::{LessonColumns, Written};
use crate::postgres::trigger::{Event, TriggerCall};
use crate::postgres::{arrays, write_flag};
use crate::settings::{self, LogDecisions};

/// A failing lesson costs at most the repeated work of one slice.
const SLICE: usize = 100;
/// Another session may be first with an asset, or take one away, that often before a lesson is left as it is.
const TRIES: usize = 3;

/// Looks at every lesson that the statement wrote.
pub fn run(call: &TriggerCall) {
    if call.event() == Event::Truncate {
        return forget_all(call);
    }
    let (Some(id), Some(videos), Some(documents), Some(course)) = (
        call.column("id"),
        call.column("videos"),
        call.column("documents"),
        call.column("course_id"),
    ) else {
        return;
    };
    let columns = LessonColumns {
        id,
        course,
        videos,
        documents,
    };
    let mut transitions = call.transitions();
    let mut statement = Statement {
        place: None,
        rows_are_final: nesting::ended_alone(call.relation(), call.event() != Event::Delete),
        organizations: HashMap::new(),
        rows: transitions.len(),
        all_usages: None,
    };
    while in_own_context(|| {
        let is_settled = |row: &Written| statement.passes_over(row);
        match transitions.changed(&columns, SLICE, is_settled) {
            Some(rows) => statement.take(call, &rows),
            None => false,
        }
    }) {}
    reserved::forget_found();
}

/// What is kept from slice to slice.
struct Statement {
    place: Option<Rc<Place>>,
    /// No other statement has written lessons since this one began: its rows are as they are in the table.
    rows_are_final: bool,
    /// By course.
    organizations: HashMap<String, Option<String>>,
    /// How many rows the statement wrote.
    rows: i64,
    /// Read with the first rows that need any.
    all_usages: Option<AllUsages>,
}

impl Statement {
    /// Settles some rows; says whether to go on.
    fn take(&mut self, call: &TriggerCall, rows: &[Written]) -> bool {
        if rows.is_empty() {
            return true;
        }
        if self.place.is_none() {
            match guarded(|| Place::of(call).unwrap_or_else(|report| raise(report))) {
                Ok(found) => self.place = Some(found),
                Err(failure) => {
                    let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
                    left_alone(&ids, &failure.sqlstate(), failure.message());
                    return false;
                }
            }
        }
        if let Some(place) = self.place.clone() {
            if rows.iter().any(|row| row.now.is_some()) {
                self.learn(&place);
            }
            settle(&place, self, rows);
        }
        true
    }

    /// Whether nothing is to do for a lesson although its media are written anew, and nobody wants to read so in the log.
    fn passes_over(&self, row: &Written) -> bool {
        let Some((all, place)) = self.all_usages.as_ref().zip(self.place.as_ref()) else {
            return false;
        };
        self.rows_are_final
            && place.writer.usages_keep_assets()
            && settings::log_decisions() < LogDecisions::All
            && all.are_those_of(row)
    }

    /// Reads all usages, once, where that spares more than it costs.
    fn learn(&mut self, place: &Place) {
        let rows = std::mem::take(&mut self.rows);
        if rows == 0 {
            return;
        }
        // Where it fails, the lessons are looked up.
        self.all_usages = guarded(|| place.home(|connection| AllUsages::read(connection, place, rows)))
            .ok()
            .flatten();
    }

    /// The lessons of rows that are final.
    fn lessons(&mut self, connection: &Connection, place: &Place, written: &[Written]) -> Vec<Lesson> {
        let now = || written.iter().filter_map(|row| Some((row, row.now.as_ref()?)));
        let mut missing: Vec<&str> = now()
            .filter_map(|(_, media)| media.course.as_deref())
            .filter(|course| !self.organizations.contains_key(*course))
            .collect();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            let courses = arrays::text(missing.iter().map(|course| Some(*course)));
            let rows = connection.run(&place.organizations_of, Mode::Write, &[courses.into()]);
            let mut found: HashMap<usize, Option<String>> = (0..rows.len())
                .filter_map(|row| Some((rows.get::<i64>(row, 0)? as usize - 1, rows.text(row, 1))))
                .collect();
            for (index, course) in missing.into_iter().enumerate() {
                self.organizations
                    .insert(course.to_owned(), found.remove(&index).flatten());
            }
        }
        now()
            .map(|(row, media)| Lesson {
                id: row.id.clone(),
                organization: media
                    .course
                    .as_ref()
                    .and_then(|course| self.organizations.get(course).cloned().flatten()),
                course: media.course.clone(),
                videos: media.videos,
                documents: media.documents,
            })
            .collect()
    }
}

/// The trigger cannot work at all: the first lessons of the statement are named in the ledger.
fn left_alone(ids: &[String], state: &str, message: &str) {
    crate::postgres::message::warning!(
        "media_assets: the lesson triggers cannot do their work: {message} (SQLSTATE {state})"
    );
    let decisions = ids.iter().map(|id| failed(id, state)).collect();
    record(decisions);
}

/// After TRUNCATE no lesson is left, so no usage of one is.
fn forget_all(call: &TriggerCall) {
    let outcome = guarded(|| {
        let place = Place::of(call).unwrap_or_else(|report| raise(report));
        place.home(|connection| {
            write_flag::while_writing(|| drop(connection.run(&place.delete_all_usages, Mode::Write, &[])));
        });
    });
    if let Err(failure) = outcome {
        crate::postgres::message::warning!(
            "media_assets: the usages of lessons were left: {} (SQLSTATE {})",
            failure.message(),
            failure.sqlstate()
        );
    }
}

/// Settles the lessons with these ids: together, and where that fails in halves, until a failing one stands alone.
fn settle(place: &Place, statement: &mut Statement, written: &[Written]) {
    let mut tries = 0;
    loop {
        let outcome = in_own_context(|| {
            in_subtransaction(|| place.home(|connection| attempt(connection, place, statement, written, tries == 0)))
        });
        let failure = match outcome {
            Ok(Ok(decisions)) => return record(decisions),
            Ok(Err(Stale)) => None,
            Err(failure) if goes_to_the_application(&failure) => failure.rethrow(),
            Err(failure) => Some(failure),
        };
        tries += 1;
        match failure {
            None if tries < TRIES => {}
            Some(failure) if failure.is_about_other_rows() && tries < TRIES => {}
            failure => {
                if let [Written { id, .. }] = written {
                    let failure = failure.unwrap_or_else(|| Failure::refused("lesson"));
                    take_back(place, id);
                    return record(vec![failed(id, &failure.sqlstate())]);
                }
                let (left, right) = written.split_at(written.len() / 2);
                settle(place, statement, left);
                return settle(place, statement, right);
            }
        }
    }
}

/// The lessons with some ids, as they are now.
fn read(connection: &Connection, place: &Place, ids: &[String]) -> (Rows, Vec<Lesson>) {
    let ids = arrays::ids(
        place.tables.lesson_ids_are_uuids(),
        ids.iter().map(|id| Some(id.as_str())),
    );
    let rows = connection.run(&place.lessons, Mode::Write, &[ids.into()]);
    let lessons = (0..rows.len())
        .map(|row| Lesson {
            id: rows.text(row, 0).unwrap_or_default(),
            organization: rows.text(row, 1),
            course: rows.text(row, 2),
            videos: rows.get(row, 3),
            documents: rows.get(row, 4),
        })
        .collect();
    (rows, lessons)
}

/// Takes what the row trigger has found for granted, once: the foreign key of a usage vouches for its asset.
fn trust_found(lessons: &[Lesson], items: &[Item], known: &mut Known<'_>) {
    for item in items {
        let (Normalized::Eligible(media), Some(organization)) = (&item.normalized, &lessons[item.lesson].organization)
        else {
            continue;
        };
        if let Some(id) = media.asset_id {
            let key = hash(organization, media.canonical_key.as_bytes());
            if reserved::was_found(hash(organization, &id), key) {
                known.trust(organization, id, &media.canonical_key);
            }
        }
    }
}

/// Decides and writes; gives what is to be recorded.
///
/// # Errors
/// [`Stale`] when something that was relied on has changed meanwhile.
fn attempt(
    connection: &Connection,
    place: &Place,
    statement: &mut Statement,
    written: &[Written],
    is_first: bool,
) -> Result<Vec<Decision>, Stale> {
    let ids: Vec<String> = written.iter().map(|row| row.id.clone()).collect();
    let is_final = statement.rows_are_final && written.iter().all(|row| row.now.is_some());
    // The media are borrowed from the rows, those of the query or those of the transition tables.
    let (_rows, lessons) = if is_final {
        (None, statement.lessons(connection, place, written))
    } else {
        let (rows, lessons) = read(connection, place, &ids);
        (Some(rows), lessons)
    };
    let (planned, keyed) = (KeySet::default(), KeyedRows::default());
    let mut items = items_of_lessons(&lessons);
    let mut known = Known::new(&planned, &keyed, true);
    known.trusts_reservations = is_first;
    // Where all usages have been read, most lessons are known to have none.
    let usages = match statement.all_usages.as_ref().filter(|_| is_first) {
        Some(all) => usages_of(connection, place, ids.iter().filter(|id| all.has_some(id))),
        None => usages_of(connection, place, ids.iter()),
    };
    if is_first && place.writer.usages_keep_assets() {
        trust_found(&lessons, &items, &mut known);
        if is_final {
            trust_untouched(written, &lessons, &items, &usages, &mut known);
        }
    }
    place
        .look_ups
        .assets(connection, Mode::Write, &lessons, &items, &mut known, None);
    let creating = decide_items(&lessons, &mut items, &mut known);
    let superfluous = compare_usages(usages, &lessons, &mut items);
    let mut decided = Decided::new(lessons, items, creating);
    if !superfluous.is_empty() || decided.items.iter().any(Item::has_writes) {
        write_flag::while_writing(|| {
            place.writer.share(connection, &decided)?;
            let renamed = place.writer.create_assets(connection, &decided)?;
            decided.rename_assets(&renamed);
            delete(connection, place, &superfluous);
            place.writer.create_usages(connection, &decided)?;
            place.writer.patch(connection, &decided).map(drop)
        })?;
        for id in decided
            .creating
            .iter()
            .filter_map(|index| asset_of(&decided.items[*index]))
        {
            reserved::settle(id);
        }
    }
    Ok(decisions_of(&decided))
}

/// A lesson that cannot be settled keeps no `assetId` that was only reserved for it.
fn take_back(place: &Place, id: &String) {
    // Where even that is refused, the next run makes the asset, or another id takes its place.
    let _ = guarded(|| {
        place.home(|connection| {
            let (_rows, lessons) = read(connection, place, std::slice::from_ref(id));
            let items = items_of_lessons(&lessons);
            let Some(lesson) = lessons.first() else { return };
            let taken = |slot: Slot| -> Vec<bool> {
                let own = items.iter().filter(|item| item.slot == slot);
                own.map(|item| is_reserved(lesson, item)).collect()
            };
            let of = |slot, column: Option<Jsonb>| {
                let taken = taken(slot);
                column
                    .filter(|_| taken.contains(&true))
                    .map(|column| without_asset_ids(column, &taken))
            };
            let (videos, documents) = (of(Slot::Video, lesson.videos), of(Slot::Document, lesson.documents));
            write_flag::while_writing(|| place.writer.set_media(connection, &lesson.id, videos, documents));
        });
    });
}

fn is_reserved(lesson: &Lesson, item: &Item) -> bool {
    match (&item.normalized, &lesson.organization) {
        (Normalized::Eligible(media), Some(organization)) => media
            .asset_id
            .is_some_and(|id| reserved::is_for(id, hash(organization, media.canonical_key.as_bytes()))),
        _ => false,
    }
}
