//! Which asset an item ends at, and what is written for it.

use super::{AssetId, Media, Normalized, Reason};
use crate::jobs::counters::counters;
use crate::json::Json;

/// An asset that an item can be joined to, as the tables (or, in a dry run, the run so far) know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// `None` only in a dry run, for an asset that the run would have created.
    pub id: Option<AssetId>,
    pub has_byte_size: bool,
}

/// What is known of assets when an item is decided. All answers are about the lesson's own organization.
pub trait Known {
    /// The asset `id`, whatever its key.
    fn by_id(&self, id: AssetId) -> Option<Found>;
    /// Whether the stored key of asset `id` (or the key that it is about to get) is `canonical_key`.
    fn has_key(&self, id: AssetId, canonical_key: &str) -> bool;
    /// The asset with that key, those that this run created before included.
    fn by_key(&self, canonical_key: &str) -> Option<Found>;
    /// Takes down that the run creates the asset of `media`; returns it, with its id where one is made.
    fn create<'a, J: Json<'a>>(&mut self, media: &Media<'a, J>) -> Found;
}

/// How an eligible item came to its asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Create,
    ReuseAssetId,
    ReuseKey,
}

impl Action {
    pub const fn name(self) -> &'static str {
        match self {
            Action::Create => "create",
            Action::ReuseAssetId => "reuse_asset_id",
            Action::ReuseKey => "reuse_key",
        }
    }
}

/// What becomes of one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Eligible { action: Action, asset: Found, patch: bool },
    Skipped(Reason),
}

impl Outcome {
    /// The existing row that the item ends at: only such an asset can have a usage already.
    pub fn existing_asset(&self) -> Option<AssetId> {
        match self {
            Outcome::Eligible {
                action: Action::ReuseAssetId | Action::ReuseKey,
                asset,
                ..
            } => asset.id,
            _ => None,
        }
    }
}

/// Decides one item of a lesson. `known` is `None` for a lesson without an organization.
pub fn decide<'a, J: Json<'a>, K: Known>(item: &Normalized<'a, J>, known: Option<&mut K>) -> Outcome {
    let Some(known) = known else {
        return Outcome::Skipped(Reason::MissingOrganization);
    };
    let media = match item {
        Normalized::Eligible(media) => media,
        Normalized::Skipped { reason, asset_id } => {
            // An HLS video: its manifest is on the asset, not in the item.
            return match asset_id.and_then(|id| known.by_id(id)) {
                Some(asset) => Outcome::Eligible {
                    action: Action::ReuseAssetId,
                    asset,
                    patch: false,
                },
                None => Outcome::Skipped(*reason),
            };
        }
    };
    if let Some(id) = media.asset_id {
        if let Some(asset) = known.by_id(id).filter(|_| known.has_key(id, &media.canonical_key)) {
            return Outcome::Eligible {
                action: Action::ReuseAssetId,
                asset,
                patch: false,
            };
        }
    }
    let (action, asset) = match known.by_key(&media.canonical_key) {
        Some(asset) => (Action::ReuseKey, asset),
        None => (Action::Create, known.create(media)),
    };
    let patch = asset.id.is_none() || media.asset_id != asset.id;
    Outcome::Eligible { action, asset, patch }
}

counters! {
    lessons_scanned,
    media_items_scanned,
    media_items_eligible,
    assets_created,
    assets_reused,
    usages_created,
    usages_reused,
    lesson_items_patched_with_asset_id,
    /// Eligible items whose asset row has a size, once for each item.
    assets_with_byte_size,
    assets_missing_byte_size,
    skipped_malformed,
    skipped_missing_key,
    skipped_missing_link,
    skipped_unsupported_type,
    /// Lessons that could not be written.
    errors,
    skipped_missing_organization,
}

impl Counters {
    /// Counts one decided item. `usage_exists` is ignored for a skipped one.
    pub fn count(&mut self, outcome: &Outcome, usage_exists: bool) {
        self.media_items_scanned += 1;
        match outcome {
            Outcome::Eligible { action, asset, patch } => {
                self.media_items_eligible += 1;
                match action {
                    Action::Create => self.assets_created += 1,
                    Action::ReuseAssetId | Action::ReuseKey => self.assets_reused += 1,
                }
                if usage_exists {
                    self.usages_reused += 1;
                } else {
                    self.usages_created += 1;
                }
                self.lesson_items_patched_with_asset_id += i64::from(*patch);
                if asset.has_byte_size {
                    self.assets_with_byte_size += 1;
                } else {
                    self.assets_missing_byte_size += 1;
                }
            }
            Outcome::Skipped(reason) => *self.skipped(*reason) += 1,
        }
    }

    fn skipped(&mut self, reason: Reason) -> &mut i64 {
        match reason {
            Reason::Malformed => &mut self.skipped_malformed,
            Reason::MissingKey => &mut self.skipped_missing_key,
            Reason::MissingLink => &mut self.skipped_missing_link,
            Reason::UnsupportedType | Reason::UnsupportedLink => &mut self.skipped_unsupported_type,
            Reason::MissingOrganization => &mut self.skipped_missing_organization,
        }
    }

    /// The counters of a lesson that could not be written: nothing of it but that it was there.
    pub fn of_failed_lesson(items: i64) -> Self {
        Counters {
            lessons_scanned: 1,
            media_items_scanned: items,
            errors: 1,
            ..Counters::default()
        }
    }

    /// The sums that must hold in every batch; `items_of_failed` are the items of its failed lessons.
    ///
    /// # Errors
    /// The sum that does not hold, in words.
    pub fn check(&self, items_of_failed: i64) -> Result<(), &'static str> {
        let skipped = self.skipped_malformed
            + self.skipped_missing_key
            + self.skipped_missing_link
            + self.skipped_unsupported_type
            + self.skipped_missing_organization;
        if self.media_items_scanned != self.media_items_eligible + skipped + items_of_failed {
            return Err("items scanned <> eligible + skipped + items of failed lessons");
        }
        if self.media_items_eligible != self.assets_created + self.assets_reused {
            return Err("items eligible <> assets created + assets reused");
        }
        if self.media_items_eligible != self.usages_created + self.usages_reused {
            return Err("items eligible <> usages created + usages reused");
        }
        if self.media_items_eligible != self.assets_with_byte_size + self.assets_missing_byte_size {
            return Err("items eligible <> assets with + assets without byte size");
        }
        Ok(())
    }
}
