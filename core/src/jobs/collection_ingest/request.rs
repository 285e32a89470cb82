//! What a run is asked for: its collection, its prerequisites, its scope, its reconciliation. The first check that fails
//! ends the run before anything is written.

use std::fmt;

use uuid::Uuid;

use crate::identity::fold_case;

/// Why a run does not start, or does not finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngestError {
    CollectionNotFound,
    CollectionAmbiguous,
    NotSyncEnabled,
    NotIngestible,
    SeasonNeedsTitle,
    EpisodeNeedsSeason,
    NegativeScope,
    ReconcileNeedsFullScope,
    FractionOutOfRange,
    ScopeNotFound,
    ReconcileEmpty,
    ReconcileIncomplete,
    ReconcileFraction,
}

impl IngestError {
    /// The cause in one word.
    pub const fn name(self) -> &'static str {
        match self {
            IngestError::CollectionNotFound => "collection_not_found",
            IngestError::CollectionAmbiguous => "collection_ambiguous",
            IngestError::NotSyncEnabled => "not_sync_enabled",
            IngestError::NotIngestible => "not_ingestible",
            IngestError::SeasonNeedsTitle => "season_needs_title",
            IngestError::EpisodeNeedsSeason => "episode_needs_season",
            IngestError::NegativeScope => "negative_scope",
            IngestError::ReconcileNeedsFullScope => "reconcile_needs_full_scope",
            IngestError::FractionOutOfRange => "fraction_out_of_range",
            IngestError::ScopeNotFound => "scope_not_found",
            IngestError::ReconcileEmpty => "reconcile_empty",
            IngestError::ReconcileIncomplete => "reconcile_incomplete",
            IngestError::ReconcileFraction => "reconcile_fraction",
        }
    }

    /// What to type instead.
    pub const fn hint(self) -> &'static str {
        match self {
            IngestError::CollectionNotFound => "Name it by its UUID, its external id or its name.",
            IngestError::CollectionAmbiguous => "Name it by its UUID.",
            IngestError::NotSyncEnabled => "Set sync_enabled, or ingest one title.",
            IngestError::NotIngestible => "Set ingestible once the source of the collection can be read.",
            IngestError::SeasonNeedsTitle => "Give the title too.",
            IngestError::EpisodeNeedsSeason => "Give the season too.",
            IngestError::NegativeScope => "Seasons and episodes count from 0.",
            IngestError::ReconcileNeedsFullScope => "Leave title, season and episode out, or reconcile.",
            IngestError::FractionOutOfRange => "Give a fraction from 0 to 1.",
            IngestError::ScopeNotFound => "Titles are compared exactly.",
            IngestError::ReconcileEmpty => "Look whether the source is there; an empty list never removes anything.",
            IngestError::ReconcileIncomplete => {
                "Correct the items without a usable locator, or ingest without reconcile."
            }
            IngestError::ReconcileFraction => "Look whether the whole source was read, or raise max_removed_fraction.",
        }
    }
}

impl fmt::Display for IngestError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            IngestError::CollectionNotFound => "the collection does not exist",
            IngestError::CollectionAmbiguous => "several collections have this name",
            IngestError::NotSyncEnabled => "the collection is not enabled for synchronisation",
            IngestError::NotIngestible => "the collection is not ingestible",
            IngestError::SeasonNeedsTitle => "a season needs a title",
            IngestError::EpisodeNeedsSeason => "an episode needs a season",
            IngestError::NegativeScope => "season and episode cannot be negative",
            IngestError::ReconcileNeedsFullScope => "only an ingest of the whole collection can reconcile",
            IngestError::FractionOutOfRange => "max_removed_fraction is not between 0 and 1",
            IngestError::ScopeNotFound => "no item is in this scope",
            IngestError::ReconcileEmpty => "reconcile refused: there are no items",
            IngestError::ReconcileIncomplete => {
                "reconcile refused: an item could not be keyed, so the list is incomplete"
            }
            IngestError::ReconcileFraction => "reconcile refused: too many assets would be removed",
        })
    }
}

impl std::error::Error for IngestError {}

/// A collection as it can be asked for.
#[derive(Clone, Copy, Debug)]
pub struct Collection<'a> {
    pub uuid: [u8; 16],
    pub external_id: Option<&'a str>,
    pub name: Option<&'a str>,
}

/// The index of the collection that `asked` names: by UUID, else exact external id, else exact name, else name without
/// regard to case. The first stage with a match decides.
///
/// # Errors
/// `CollectionNotFound`; `CollectionAmbiguous` when that stage has several matches.
pub fn find_collection(asked: &str, collections: &[Collection<'_>]) -> Result<usize, IngestError> {
    let uuid = Uuid::try_parse(asked).ok().map(Uuid::into_bytes);
    let folded = fold_case(asked);
    let stages: [&dyn Fn(&Collection<'_>) -> bool; 4] = [
        &|collection| uuid == Some(collection.uuid),
        &|collection| collection.external_id == Some(asked),
        &|collection| collection.name == Some(asked),
        &|collection| collection.name.is_some_and(|name| fold_case(name) == folded),
    ];
    for stage in stages {
        let mut matches = (0..collections.len()).filter(|&index| stage(&collections[index]));
        match (matches.next(), matches.next()) {
            (Some(index), None) => return Ok(index),
            (Some(_), Some(_)) => return Err(IngestError::CollectionAmbiguous),
            (None, _) => (),
        }
    }
    Err(IngestError::CollectionNotFound)
}

/// How much of a collection a run looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopeLevel {
    Collection,
    Title,
    Season,
    Episode,
}

impl ScopeLevel {
    /// The word in the column `scope`.
    pub const fn name(self) -> &'static str {
        match self {
            ScopeLevel::Collection => "collection",
            ScopeLevel::Title => "title",
            ScopeLevel::Season => "season",
            ScopeLevel::Episode => "episode",
        }
    }
}

/// The part of a collection that a run is limited to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope<'a> {
    pub title: Option<&'a str>,
    pub season: Option<i32>,
    pub episode: Option<i32>,
}

impl Scope<'_> {
    pub const fn level(&self) -> ScopeLevel {
        match (self.title, self.season, self.episode) {
            (_, _, Some(_)) => ScopeLevel::Episode,
            (_, Some(_), None) => ScopeLevel::Season,
            (Some(_), None, None) => ScopeLevel::Title,
            (None, None, None) => ScopeLevel::Collection,
        }
    }

    /// Whether an item is in scope; titles are compared exactly.
    pub fn contains(&self, title: Option<&str>, season: Option<i32>, episode: Option<i32>) -> bool {
        (self.title.is_none() || self.title == title)
            && (self.season.is_none() || self.season == season)
            && (self.episode.is_none() || self.episode == episode)
    }

    fn check(&self) -> Result<(), IngestError> {
        if self.season.is_some() && self.title.is_none() {
            return Err(IngestError::SeasonNeedsTitle);
        }
        if self.episode.is_some() && self.season.is_none() {
            return Err(IngestError::EpisodeNeedsSeason);
        }
        if [self.season, self.episode]
            .into_iter()
            .flatten()
            .any(|number| number < 0)
        {
            return Err(IngestError::NegativeScope);
        }
        Ok(())
    }
}

/// What one run is asked for, once its collection is found.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub scope: Scope<'a>,
    pub reconcile: bool,
    pub max_removed_fraction: f64,
}

impl Request<'_> {
    /// Checks prerequisites, then arguments. That the scope matches an item is checked once the items are counted
    /// ([`Request::check_matches`]).
    ///
    /// # Errors
    /// The first check that fails.
    pub fn check(&self, sync_enabled: bool, ingestible: bool) -> Result<(), IngestError> {
        let full = self.scope.level() == ScopeLevel::Collection;
        if full && !sync_enabled {
            return Err(IngestError::NotSyncEnabled);
        }
        if !ingestible {
            return Err(IngestError::NotIngestible);
        }
        self.scope.check()?;
        if self.reconcile && !full {
            return Err(IngestError::ReconcileNeedsFullScope);
        }
        if !(0.0..=1.0).contains(&self.max_removed_fraction) {
            return Err(IngestError::FractionOutOfRange);
        }
        Ok(())
    }

    /// Checks that a limited scope matches one of the items, those that cannot be keyed included.
    ///
    /// # Errors
    /// `ScopeNotFound`.
    pub fn check_matches(&self, items_in_scope: i64) -> Result<(), IngestError> {
        if self.scope.level() != ScopeLevel::Collection && items_in_scope == 0 {
            return Err(IngestError::ScopeNotFound);
        }
        Ok(())
    }
}

/// What is counted before rows are removed.
#[derive(Clone, Copy, Debug)]
pub struct Reconcile {
    pub items: i64,
    pub unkeyable_items: i64,
    /// Rows of the collection before the run that are neither deleted nor retired.
    pub live_rows: i64,
    /// Those of them whose key no item has.
    pub unseen_rows: i64,
}

/// Whether the unseen rows may be soft-deleted.
///
/// # Errors
/// `ReconcileEmpty` without items, `ReconcileIncomplete` when an item could not be keyed, `ReconcileFraction` when more
/// than `max_removed_fraction` of the live rows would go.
pub fn check_reconcile(counted: Reconcile, max_removed_fraction: f64) -> Result<(), IngestError> {
    if counted.items == 0 {
        return Err(IngestError::ReconcileEmpty);
    }
    if counted.unkeyable_items > 0 {
        return Err(IngestError::ReconcileIncomplete);
    }
    // A quotient is rounded as the fraction that was typed is: 29 of 100 is not more than 0.29.
    if counted.unseen_rows > 0 && counted.unseen_rows as f64 / counted.live_rows as f64 > max_removed_fraction {
        return Err(IngestError::ReconcileFraction);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(title: Option<&str>, season: Option<i32>, episode: Option<i32>) -> Request<'_> {
        Request {
            scope: Scope { title, season, episode },
            reconcile: false,
            max_removed_fraction: 0.1,
        }
    }

    #[test]
    fn a_scoped_ingest_needs_no_synchronisation() {
        assert_eq!(
            request(None, None, None).check(false, false),
            Err(IngestError::NotSyncEnabled)
        );
        assert_eq!(request(Some("a"), None, None).check(false, true), Ok(()));
        assert_eq!(
            request(Some("a"), None, None).check(true, false),
            Err(IngestError::NotIngestible)
        );
    }

    #[test]
    fn arguments_are_checked_in_their_order() {
        for (scope, expected) in [
            ((None, Some(-1), None), Err(IngestError::SeasonNeedsTitle)),
            ((None, None, Some(-1)), Err(IngestError::EpisodeNeedsSeason)),
            ((Some("a"), Some(0), Some(-1)), Err(IngestError::NegativeScope)),
            ((Some("a"), Some(0), Some(0)), Ok(())),
        ] {
            assert_eq!(
                request(scope.0, scope.1, scope.2).check(true, true),
                expected,
                "{scope:?}"
            );
        }
        let mut reconcile = request(Some("a"), None, None);
        reconcile.reconcile = true;
        assert_eq!(reconcile.check(true, true), Err(IngestError::ReconcileNeedsFullScope));
        let mut fraction = request(None, None, None);
        fraction.max_removed_fraction = f64::NAN;
        assert_eq!(fraction.check(true, true), Err(IngestError::FractionOutOfRange));
    }

    #[test]
    fn reconcile_is_guarded() {
        let counted = |items, unkeyable_items, live_rows, unseen_rows| Reconcile {
            items,
            unkeyable_items,
            live_rows,
            unseen_rows,
        };
        for (counts, fraction, expected) in [
            (counted(0, 0, 0, 0), 1.0, Err(IngestError::ReconcileEmpty)),
            (counted(5, 1, 5, 0), 1.0, Err(IngestError::ReconcileIncomplete)),
            (counted(5, 0, 100, 29), 0.29, Ok(())),
            (counted(5, 0, 100, 30), 0.29, Err(IngestError::ReconcileFraction)),
            (counted(5, 0, 20, 2), 0.1, Ok(())),
            (counted(5, 0, 20, 3), 0.1, Err(IngestError::ReconcileFraction)),
            (counted(5, 0, 20, 1), 0.0, Err(IngestError::ReconcileFraction)),
            (counted(5, 0, 0, 0), 0.0, Ok(())),
            (counted(5, 0, 3, 3), 1.0, Ok(())),
        ] {
            assert_eq!(check_reconcile(counts, fraction), expected, "{counts:?} {fraction}");
        }
    }

    #[test]
    fn the_first_stage_with_a_match_decides() {
        let collection = |byte, external_id, name| Collection {
            uuid: [byte; 16],
            external_id: Some(external_id),
            name: Some(name),
        };
        let all = [
            collection(1, "lib-1", "Straße"),
            collection(2, "lib-2", "STRASSE"),
            collection(3, "x", "lib-1"),
        ];
        assert_eq!(find_collection("01010101-0101-0101-0101-010101010101", &all), Ok(0));
        assert_eq!(find_collection("lib-1", &all), Ok(0));
        assert_eq!(find_collection("STRASSE", &all), Ok(1));
        assert_eq!(find_collection("strasse", &all), Err(IngestError::CollectionAmbiguous));
        assert_eq!(find_collection("LIB-1", &all), Ok(2));
        assert_eq!(find_collection("lib_1", &all), Err(IngestError::CollectionNotFound));
    }
}
