//! From lessons to decided items: the one way for runs, dry runs and triggers.

use media_assets_core::jobs::lesson::{decide, normalize, Slot};
use media_assets_core::json::{Json, Kind};

use super::known::{Known, OfOrganization};
use super::read::Lesson;
use super::Item;
use crate::postgres::jsonb::JsonbRef;

/// The items of lessons, videos before documents, normalised and not yet decided.
pub fn items_of_lessons(lessons: &[Lesson]) -> Vec<Item> {
    let mut items = Vec::new();
    for (index, lesson) in lessons.iter().enumerate() {
        for (slot, column) in [(Slot::Video, &lesson.videos), (Slot::Document, &lesson.documents)] {
            let Some(column) = column else { continue };
            each_item(column.value_in_context(), |position, element| {
                items.push(Item::undecided(index, slot, position, normalize(slot, element)));
            });
        }
    }
    items
}

/// Decides all items. Gives the indexes of those whose assets are created, one for each asset.
pub fn decide_items(lessons: &[Lesson], items: &mut [Item], known: &mut Known<'_>) -> Vec<usize> {
    let mut creating = Vec::new();
    for (index, item) in items.iter_mut().enumerate() {
        item.outcome = match lessons[item.lesson].organization.as_deref() {
            None => decide(&item.normalized, None::<&mut OfOrganization<'_, '_>>),
            Some(organization) => {
                let mut own = known.of(organization);
                let outcome = decide(&item.normalized, Some(&mut own));
                if own.created {
                    creating.push(index);
                }
                outcome
            }
        };
    }
    creating
}

/// Calls `each` with the items of a column: none for JSON null, one malformed one for anything else but an array.
pub fn each_item<'a>(column: JsonbRef<'a>, mut each: impl FnMut(i32, Option<JsonbRef<'a>>)) {
    match column.kind() {
        Kind::Null => {}
        Kind::Array => (0..column.len()).for_each(|index| each(index as i32, column.at(index))),
        _ => each(0, None),
    }
}
