//! What a written slice leaves in the ledger: changes for undo, and decisions.

use std::collections::BTreeMap;
use std::hash::Hasher;

use media_assets_core::jobs::lesson::{AssetId, Outcome, Slot};
use media_assets_core::json::Json;
use siphasher::sip::SipHasher13;

use super::{Decided, Item};
use crate::engine::journal::Changes;
use crate::engine::ledger::decisions::Decision;
use crate::jobs::asset_tables::Tables;
use crate::postgres::jsonb::Jsonb;
use crate::settings::LogDecisions;

/// `uuids` are assets that the run made.
pub const ASSET_CREATED: &str = "asset_created";
/// `ids` or `uuids` are usages that the run made, `assets` what they are of, `positions` the [`place_hash`] of where.
pub const USAGE_CREATED: &str = "usage_created";
/// `ids` or `uuids` are lessons; the item at `positions` of the column got `assets` as its assetId. `before` is the JSON
/// text of the value that it had, NULL where it had none.
pub const ITEM_PATCHED: &str = "item_patched";

/// The id of a usage, in the type of its column.
pub enum UsageId {
    Uuid([u8; 16]),
    Text(String),
}

/// What the tables gave to what was written.
#[derive(Default)]
pub struct Written {
    /// Each with its asset and the hash of its place.
    pub usages: Vec<(UsageId, AssetId, i32)>,
    /// New videos and documents of the lessons that were patched, by their place in the slice.
    pub patched: Patched,
}

/// In the place of a [`place_hash`]: nobody knows where the usage was put.
pub const ANYWHERE: i32 = 0;

/// Four bytes that tell a usage that was moved from one that is where the run put it. The same for ever: ledgers keep it.
pub fn place_hash(target_type: &str, target_id: &str, slot_type: &str, position: i32) -> i32 {
    let mut hasher = SipHasher13::new();
    for text in [target_type, target_id, slot_type] {
        hasher.write(text.as_bytes());
        // No text holds this byte.
        hasher.write(&[0xFF]);
    }
    hasher.write(&position.to_le_bytes());
    match hasher.finish() as i32 {
        ANYWHERE => 1,
        hash => hash,
    }
}

/// A lesson's new videos and documents, where they changed.
pub type PatchedColumns = (Option<Jsonb>, Option<Jsonb>);
pub type Patched = BTreeMap<usize, PatchedColumns>;

/// The column that holds the items of a slot.
pub fn column_of(slot: Slot) -> &'static str {
    match slot {
        Slot::Video => "videos",
        Slot::Document => "documents",
    }
}

pub fn changes(tables: &Tables, decided: &Decided, changes: &mut Changes) {
    let (Some(assets), Some(usages)) = (&tables.assets, &tables.usages) else {
        return;
    };
    let created = changes.of(ASSET_CREATED, &assets.sql_name, None, true);
    for index in &decided.creating {
        if let Outcome::Eligible { asset, .. } = &decided.items[*index].outcome {
            asset.id.into_iter().for_each(|id| created.ids.push_uuid(id));
        }
    }
    let usage_ids_are_uuids = usages.is_of_type("id", pgrx::pg_sys::UUIDOID);
    let made = changes.of(USAGE_CREATED, &usages.sql_name, None, usage_ids_are_uuids);
    for (id, asset, place) in &decided.written.usages {
        match id {
            UsageId::Uuid(id) => made.ids.push_uuid(*id),
            UsageId::Text(id) => made.ids.push_text(id),
        }
        made.assets.push(*asset);
        made.positions.push(*place);
    }
    let lesson_ids_are_uuids = tables.lesson_ids_are_uuids();
    for (lesson, items) in decided.each_lesson() {
        for item in items {
            let Outcome::Eligible { asset, patch: true, .. } = &item.outcome else {
                continue;
            };
            let Some(id) = asset.id else { continue };
            let column = match item.slot {
                Slot::Video => lesson.videos,
                Slot::Document => lesson.documents,
            };
            let patched = changes.of(
                ITEM_PATCHED,
                &tables.lesson.sql_name,
                Some(column_of(item.slot)),
                lesson_ids_are_uuids,
            );
            patched.ids.push_text(&lesson.id);
            patched.positions.push(item.position);
            patched.assets.push(id);
            patched.before.push(column.and_then(|column| stale_id(column, item)));
        }
    }
}

/// The JSON text of the assetId that the item had.
fn stale_id(column: Jsonb, item: &Item) -> Option<String> {
    let element = column.value_in_context().at(usize::try_from(item.position).ok()?)?;
    Some(element.get("assetId")?.to_text())
}

pub fn decisions(decided: &Decided, level: LogDecisions, decisions: &mut Vec<Decision>) {
    for (lesson, items) in decided.each_lesson() {
        for item in items {
            let (outcome, action, reason) = match &item.outcome {
                Outcome::Skipped(reason) => ("skipped", None, Some(reason.name())),
                Outcome::Eligible { action, .. }
                    if level == LogDecisions::All || (level == LogDecisions::Changed && item.has_writes()) =>
                {
                    ("eligible", Some(action.name()), None)
                }
                Outcome::Eligible { .. } => continue,
            };
            decisions.push(Decision {
                item_key: lesson.id.clone(),
                slot: Some(item.slot.name()),
                position: Some(item.position),
                outcome,
                action,
                reason: reason.map(Into::into),
            });
        }
    }
}
