//! AFTER STATEMENT: makes assets, usages and items of the lessons that a statement wrote agree.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use media_assets_core::jobs::lesson::{normalize, Action, AssetId, Normalized, Outcome, Slot};
use media_assets_core::json::Json;

use super::place::Place;
use super::{goes_to_the_application, guarded, nesting, reserved};
use crate::engine::key_set::{hash, KeySet, KeyedRows};
use crate::engine::ledger::decisions::{Decision, DecisionLog};
use crate::engine::ledger::Ledger;
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
use crate::postgres::spi::{self, Connection, Mode, Rows};
use crate::postgres::subtransaction::{in_subtransaction, Failure};
use crate::postgres::trigger::{Event, LessonColumns, TriggerCall, Written};
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
        rows_are_final: nesting::ended_alone(call.relation()),
        organizations: HashMap::new(),
    };
    while in_own_context(|| {
        let rows = transitions.changed(&columns, SLICE);
        !rows.is_empty() && statement.take(call, &rows)
    }) {}
}

/// What is kept from slice to slice.
struct Statement {
    place: Option<Rc<Place>>,
    /// No other statement has written lessons since this one began: its rows are as they are in the table.
    rows_are_final: bool,
    /// By course.
    organizations: HashMap<String, Option<String>>,
}

impl Statement {
    /// Settles some rows; says whether to go on.
    fn take(&mut self, call: &TriggerCall, rows: &[Written]) -> bool {
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
            settle(&place, self, rows);
        }
        true
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

/// A usage that is there.
struct Usage {
    target: String,
    organization: String,
    asset: Option<AssetId>,
    slot: String,
    key: Option<String>,
    position: Option<i32>,
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
    let usages = usages_of(connection, place, &ids);
    if is_final && place.writer.usages_keep_assets() {
        trust_untouched(written, &lessons, &items, &usages, &mut known);
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

/// Spares the look-up of assets for items that had the same key and `assetId` before, where the usage is there and a
/// foreign key vouches for the asset.
fn trust_untouched(written: &[Written], lessons: &[Lesson], items: &[Item], usages: &[Usage], known: &mut Known<'_>) {
    if usages.is_empty() {
        return;
    }
    let mut there: HashSet<(&str, &str, i32, AssetId)> = HashSet::with_capacity(usages.len());
    for usage in usages {
        if let (Some(asset), Some(position), None) = (usage.asset, usage.position, &usage.key) {
            there.insert((&usage.target, &usage.slot, position, asset));
        }
    }
    for item in items {
        let lesson = &lessons[item.lesson];
        let (Normalized::Eligible(media), Some(organization), Some(before)) =
            (&item.normalized, &lesson.organization, &written[item.lesson].before)
        else {
            continue;
        };
        let Some(id) = media.asset_id else { continue };
        if there.contains(&(lesson.id.as_str(), item.slot.name(), item.position, id)) {
            let element = |videos: Option<Jsonb>, documents: Option<Jsonb>| {
                let column = match item.slot {
                    Slot::Video => videos,
                    Slot::Document => documents,
                };
                let position = usize::try_from(item.position).ok()?;
                column?.value_in_context().at(position)
            };
            let old = element(before.videos, before.documents);
            let now = element(lesson.videos, lesson.documents);
            let is_same = match (old, now) {
                (Some(old), Some(now)) if old.same_container(now) => true,
                _ => matches!(normalize(item.slot, old), Normalized::Eligible(old)
                    if old.asset_id == media.asset_id && old.canonical_key == media.canonical_key),
            };
            if is_same {
                known.trust(organization, id, &media.canonical_key);
            }
        }
    }
}

/// The usages that lessons with some ids have.
fn usages_of(connection: &Connection, place: &Place, ids: &[String]) -> Vec<Usage> {
    let targets = arrays::text(ids.iter().map(|id| Some(id.as_str())));
    let rows = connection.run(&place.usages, Mode::Write, &[targets.into()]);
    (0..rows.len())
        .map(|row| Usage {
            target: rows.text(row, 0).unwrap_or_default(),
            organization: rows.text(row, 1).unwrap_or_default(),
            asset: rows.uuid(row, 2),
            slot: rows.text(row, 3).unwrap_or_default(),
            key: rows.text(row, 4),
            position: rows.get(row, 5),
        })
        .collect()
}

/// Marks the items whose usage is there, and gives the usages that belong to no item.
fn compare_usages(usages: Vec<Usage>, lessons: &[Lesson], items: &mut [Item]) -> Vec<Usage> {
    if usages.is_empty() {
        return Vec::new();
    }
    let mut wanted: HashMap<(&str, &str, i32), usize> = HashMap::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        wanted.insert((&lessons[item.lesson].id, item.slot.name(), item.position), index);
    }
    let mut there: HashSet<usize> = HashSet::new();
    let mut superfluous = Vec::new();
    for usage in usages {
        let own = usage
            .position
            .filter(|_| usage.key.is_none())
            .and_then(|position| wanted.get(&(usage.target.as_str(), usage.slot.as_str(), position)))
            .copied()
            .filter(|index| {
                let item = &items[*index];
                lessons[item.lesson].organization.as_deref() == Some(&usage.organization)
                    && item.outcome.existing_asset().is_some_and(|id| Some(id) == usage.asset)
            });
        match own {
            Some(index) => drop(there.insert(index)),
            None => superfluous.push(usage),
        }
    }
    for index in there {
        items[index].usage_exists = true;
    }
    superfluous
}

fn delete(connection: &Connection, place: &Place, usages: &[Usage]) {
    if usages.is_empty() {
        return;
    }
    let text = |of: fn(&Usage) -> Option<&str>| arrays::text(usages.iter().map(of)).into();
    let parameters = [
        text(|usage| Some(&usage.target)),
        arrays::ids(
            place.tables.organizations_are_uuids(),
            usages.iter().map(|usage| Some(usage.organization.as_str())),
        )
        .into(),
        arrays::uuid(usages.iter().map(|usage| usage.asset)).into(),
        text(|usage| Some(&usage.slot)),
        text(|usage| usage.key.as_deref()),
        arrays::int4(usages.iter().map(|usage| usage.position)).into(),
    ];
    connection.query(&place.delete_usages, Mode::Write, &parameters);
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

fn failed(id: &str, state: &str) -> Decision {
    Decision {
        item_key: id.to_owned(),
        slot: None,
        position: None,
        outcome: "failed",
        action: None,
        reason: Some(Cow::Owned(state.to_owned())),
    }
}

/// The decisions that `media_assets.log_decisions` wants kept.
fn decisions_of(decided: &Decided) -> Vec<Decision> {
    let level = settings::log_decisions();
    let wanted = |item: &&Item| match item.outcome {
        Outcome::Skipped(_) => level >= LogDecisions::Skipped,
        Outcome::Eligible { .. } => {
            level >= LogDecisions::All || (level >= LogDecisions::Changed && (item.has_writes() || is_new(item)))
        }
    };
    let decision = |item: &Item| Decision {
        item_key: decided.lessons[item.lesson].id.clone(),
        slot: Some(item.slot.name()),
        position: Some(item.position),
        outcome: match item.outcome {
            Outcome::Skipped(_) => "skipped",
            Outcome::Eligible { .. } => "eligible",
        },
        action: match item.outcome {
            Outcome::Skipped(_) => None,
            Outcome::Eligible { action, .. } => Some(action.name()),
        },
        reason: match item.outcome {
            Outcome::Skipped(reason) => Some(Cow::Borrowed(reason.name())),
            Outcome::Eligible { .. } => None,
        },
    };
    decided.items.iter().filter(wanted).map(decision).collect()
}

fn is_new(item: &Item) -> bool {
    matches!(
        item.outcome,
        Outcome::Eligible {
            action: Action::Create,
            ..
        }
    )
}

/// Writes decisions to the ledger; a failure of that is nobody's.
fn record(decisions: Vec<Decision>) {
    thread_local! {
        /// Written by this session since it last cut the log to its limit.
        static SINCE_CUT: std::cell::Cell<i64> = const { std::cell::Cell::new(0) };
    }
    if decisions.is_empty() || settings::log_decisions() == LogDecisions::None {
        return;
    }
    let limit = settings::log_decisions_limit();
    let _ = guarded(|| {
        spi::connect(|connection| {
            let ledger = Ledger::open(connection).unwrap_or_else(|report| raise(report));
            DecisionLog::of_triggers().write(connection, &ledger, &decisions);
            // One cut for each hundredth of the limit: it reads the whole log.
            SINCE_CUT.set(SINCE_CUT.get() + decisions.len() as i64);
            if SINCE_CUT.get() > limit / 100 {
                DecisionLog::trim(connection, &ledger);
                SINCE_CUT.set(0);
            }
        });
    });
}
