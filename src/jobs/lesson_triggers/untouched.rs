//! What an UPDATE leaves as it was, as far as assets and usages go, although the media are written anew.

use std::collections::{HashMap, HashSet};

use media_assets_core::jobs::lesson::{
    are_same_upload, asset_id_of, is_upload, normalize, parse_asset_id, AssetId, Media, Normalized, Slot,
};
use media_assets_core::json::{Json, Kind};

use super::place::Place;
use super::usages::Usage;
use crate::engine::key_set::{hash, Build};
use crate::jobs::lesson_assets::known::Known;
use crate::jobs::lesson_assets::read::Lesson;
use crate::jobs::lesson_assets::Item;
use crate::postgres::cursor::Cursor;
use crate::postgres::jsonb::{Jsonb, JsonbRef};
use crate::postgres::memory::in_own_context;
use crate::postgres::spi::{Connection, Mode};
use crate::postgres::transitions::Written;

/// Statements of fewer rows look up the usages of their lessons.
const FEWEST_ROWS: i64 = 64;
/// Usages that are worth reading at once, for each row: looking up a lesson's usages costs as much as reading that many.
const USAGES_FOR_A_ROW: i64 = 8;
/// What is remembered; about 25 MB.
const MOST: i64 = 400_000;
const FETCH: i64 = 5_000;

/// Whether an element stands for a medium, with the `assetId` that the medium has.
fn is_medium(slot: Slot, element: JsonbRef<'_>, media: &Media<'_, JsonbRef<'_>>) -> bool {
    matches!(normalize(slot, Some(element)), Normalized::Eligible(own)
        if own.asset_id == media.asset_id && own.canonical_key == media.canonical_key)
}

/// The `assetId` of an eligible element that stands for the same medium as it did before and has one.
pub fn same_medium(slot: Slot, before: JsonbRef<'_>, now: JsonbRef<'_>) -> Option<AssetId> {
    let id = asset_id_of(now)?;
    let is_same = before.same_container(now);
    let is_plain = match is_same {
        true => is_upload(slot, now),
        false => are_same_upload(slot, before, now) && asset_id_of(before) == Some(id),
    };
    if is_plain {
        return Some(id);
    }
    match normalize(slot, Some(now)) {
        Normalized::Eligible(media) => (is_same || is_medium(slot, before, &media)).then_some(id),
        Normalized::Skipped { .. } => None,
    }
}

/// Spares the look-up of assets for items that had the same key and `assetId` before, where the usage is there and a
/// foreign key vouches for the asset.
pub fn trust_untouched(
    written: &[Written],
    lessons: &[Lesson],
    items: &[Item],
    usages: &[Usage],
    known: &mut Known<'_>,
) {
    if usages.is_empty() {
        return;
    }
    let mut there: HashSet<(&str, &str, &str, i32, AssetId)> = HashSet::with_capacity(usages.len());
    for usage in usages {
        if let (Some(asset), Some(position), None) = (usage.asset, usage.position, &usage.key) {
            there.insert((&usage.organization, &usage.target, &usage.slot, position, asset));
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
        // A usage of another organization says nothing: its course or group has moved.
        if there.contains(&(
            organization.as_str(),
            lesson.id.as_str(),
            item.slot.name(),
            item.position,
            id,
        )) {
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
            if let (Some(old), Some(now)) = (old, now) {
                if old.same_container(now) || is_medium(item.slot, old, media) {
                    known.trust(organization, id, &media.canonical_key);
                }
            }
        }
    }
}

/// The usages of all lessons, while they are few beside the rows of a statement: then most lessons need no look-up.
///
/// Read once, when the statement's rows are in; who writes a usage of one of these lessons otherwise than by the lesson
/// waits for nobody, and might as well have done so afterwards.
pub struct AllUsages {
    /// Hashes of (organization, lesson, slot, position, asset).
    usages: HashSet<u128, Build>,
    /// How many usages each lesson has, by its hash.
    counts: HashMap<u128, u32, Build>,
    /// The organization of each course.
    courses: HashMap<String, Option<Organization>>,
    organizations: Organizations,
}

/// An organization by its number.
type Organization = u32;

/// Numbers of organizations, which are shorter to hash than their ids.
#[derive(Default)]
struct Organizations {
    by_uuid: HashMap<[u8; 16], Organization>,
    by_text: HashMap<String, Organization>,
}

impl Organizations {
    fn of_uuid(&mut self, id: [u8; 16]) -> Organization {
        let next = self.by_uuid.len() as Organization;
        *self.by_uuid.entry(id).or_insert(next)
    }

    fn of_text(&mut self, id: &str) -> Organization {
        if let Some(number) = self.by_text.get(id) {
            return *number;
        }
        let next = self.by_text.len() as Organization;
        self.by_text.insert(id.to_owned(), next);
        next
    }
}

impl AllUsages {
    /// `None` where they are too many for a statement of so many rows.
    pub fn read(connection: &Connection, place: &Place, rows: i64) -> Option<Self> {
        let most = rows.saturating_mul(USAGES_FOR_A_ROW).min(MOST);
        if rows < FEWEST_ROWS || place.estimated_usages() > most as f32 {
            return None;
        }
        // As many as the statistics say, which is at most `most`; where they say nothing, the maps grow.
        let expected = place.estimated_usages().max(0.0) as usize;
        let mut all = AllUsages {
            usages: HashSet::with_capacity_and_hasher(expected, Build::default()),
            counts: HashMap::with_capacity_and_hasher(expected / 2, Build::default()),
            courses: HashMap::new(),
            organizations: Organizations::default(),
        };
        let courses = connection.run(&place.organizations, Mode::Write, &[(most + 1).into()]);
        if courses.len() as i64 > most {
            return None;
        }
        for row in 0..courses.len() {
            if let Some(course) = courses.text(row, 0) {
                let organization = courses
                    .text(row, 1)
                    .map(|id| match place.tables.organizations_are_uuids() {
                        true => parse_asset_id(&id).map_or(Organization::MAX, |id| all.organizations.of_uuid(id)),
                        false => all.organizations.of_text(&id),
                    });
                all.courses.insert(course, organization);
            }
        }
        drop(courses);
        let mut cursor = Cursor::open(connection, &place.all_usages, Mode::Write, &[]);
        let mut seen = 0;
        loop {
            let read = in_own_context(|| all.take(connection, place, &mut cursor));
            seen += read;
            if seen > most {
                return None;
            }
            if read < FETCH {
                return Some(all);
            }
        }
    }

    fn take(&mut self, connection: &Connection, place: &Place, cursor: &mut Cursor) -> i64 {
        let rows = cursor.fetch(connection, FETCH);
        let are_uuids = place.tables.organizations_are_uuids();
        // The usages of a lesson mostly stand side by side.
        let mut last = ("", 0);
        for row in 0..rows.len() {
            let Some(lesson) = rows.str(row, 1) else { continue };
            if lesson != last.0 {
                last = (lesson, hash("", lesson.as_bytes()));
            }
            *self.counts.entry(last.1).or_default() += 1;
            let organization = match are_uuids {
                true => rows.uuid(row, 0).map(|id| self.organizations.of_uuid(id)),
                false => rows.str(row, 0).map(|id| self.organizations.of_text(id)),
            };
            // One of another form is counted, and found to be none of an item.
            if let (Some(organization), Some(slot), Some(asset), Some(position), Some(true)) = (
                organization,
                rows.str(row, 2).and_then(Slot::parse),
                rows.uuid(row, 3),
                rows.get(row, 4),
                rows.get::<bool>(row, 5),
            ) {
                self.usages
                    .insert(usage_hash(organization, lesson, slot, position, asset));
            }
        }
        rows.len() as i64
    }

    /// Whether a lesson has any usage.
    pub fn has_some(&self, lesson: &str) -> bool {
        self.counts.contains_key(&hash("", lesson.as_bytes()))
    }

    /// Whether all items of a lesson are the media that they were, and its usages are theirs and no others.
    pub fn are_those_of(&self, row: &Written) -> bool {
        let (Some(now), Some(before)) = (&row.now, &row.before) else {
            return false;
        };
        let organization = now.course.as_ref().and_then(|course| self.courses.get(course));
        let Some(Some(organization)) = organization.copied() else {
            return false;
        };
        let mut usages = 0;
        for (slot, before, now) in [
            (Slot::Video, before.videos, now.videos),
            (Slot::Document, before.documents, now.documents),
        ] {
            let (Some(before), Some(now)) = (before, now) else {
                if before.is_none() && now.is_none() {
                    continue;
                }
                return false;
            };
            let (before, now) = (before.value_in_context(), now.value_in_context());
            if now.kind() != Kind::Array || before.kind() != Kind::Array {
                return false;
            }
            for position in 0..now.len() {
                let is_in_use = before
                    .at(position)
                    .zip(now.at(position))
                    .and_then(|(before, now)| same_medium(slot, before, now))
                    .is_some_and(|asset| {
                        let own = usage_hash(organization, &row.id, slot, position as i32, asset);
                        self.usages.contains(&own)
                    });
                if !is_in_use {
                    return false;
                }
                usages += 1;
            }
        }
        self.counts.get(&hash("", row.id.as_bytes())).copied().unwrap_or(0) == usages
    }
}

fn usage_hash(organization: Organization, lesson: &str, slot: Slot, position: i32, asset: AssetId) -> u128 {
    let mut place = [0; 25];
    place[..16].copy_from_slice(&asset);
    place[16..20].copy_from_slice(&position.to_le_bytes());
    place[20..24].copy_from_slice(&organization.to_le_bytes());
    place[24] = slot as u8;
    hash(lesson, &place)
}
