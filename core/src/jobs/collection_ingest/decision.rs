//! `ingest_decision`: create, update or skip, and in which state the row ends.

use super::content::is_changed;
use super::AssetState;

/// What is done with an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Create,
    Update,
    Skip,
}

impl Action {
    pub const fn name(self) -> &'static str {
        match self {
            Action::Create => "create",
            Action::Update => "update",
            Action::Skip => "skip",
        }
    }
}

/// Why it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    NewItem,
    /// An operator took the row out; whatever changed, it stays out.
    Retired,
    /// A soft-deleted row whose item is there again.
    Reappeared,
    Unchanged,
    ContentChanged,
    EnrichersChanged,
    ContentAndEnrichersChanged,
}

impl Reason {
    pub const fn name(self) -> &'static str {
        match self {
            Reason::NewItem => "new_item",
            Reason::Retired => "retired",
            Reason::Reappeared => "reappeared",
            Reason::Unchanged => "unchanged",
            Reason::ContentChanged => "content_changed",
            Reason::EnrichersChanged => "enrichers_changed",
            Reason::ContentAndEnrichersChanged => "content_and_enrichers_changed",
        }
    }
}

/// One row of `ingest_decision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub action: Action,
    pub reason: Reason,
    /// `None` only for a skipped row whose present state is not known.
    pub next_state: Option<AssetState>,
    pub clears_approval: bool,
}

/// Decides one item. Total: every combination of arguments has an answer, and none of them ends in `ready` unless the row
/// was there and stays untouched.
///
/// - `found`: whether the collection has a row with the item's key; the other `stored_…` arguments, `state` and
///   `is_deleted` are that row's and play no part without one
/// - `state`: `None` for a state that is not known
/// - `stored_signature`, `new_signature`: content signatures (`content_signature`) of row and item, made from the
///   strongest facet that both know ([`super::comparable_signatures`]); `None` is unknown, never a change
/// - `stored_enricher_checksum`, `new_enricher_checksum`: `None` is "no enrichers", a value like any other
///
/// Source: collection ingest rules, `ingest_decision`.
pub fn ingest_decision(
    found: bool,
    state: Option<AssetState>,
    is_deleted: bool,
    stored_signature: Option<&str>,
    stored_enricher_checksum: Option<&str>,
    new_signature: Option<&str>,
    new_enricher_checksum: Option<&str>,
) -> Decision {
    if !found {
        return Decision {
            action: Action::Create,
            reason: Reason::NewItem,
            next_state: Some(AssetState::New),
            clears_approval: false,
        };
    }
    let skip = |reason| Decision {
        action: Action::Skip,
        reason,
        next_state: state,
        clears_approval: false,
    };
    let update = |reason, next_state| Decision {
        action: Action::Update,
        reason,
        next_state: Some(next_state),
        clears_approval: true,
    };
    if state == Some(AssetState::Retired) {
        return skip(Reason::Retired);
    }
    if is_deleted {
        return update(Reason::Reappeared, AssetState::New);
    }
    let content = is_changed(stored_signature, new_signature);
    let enrichers = stored_enricher_checksum != new_enricher_checksum;
    let reason = match (content, enrichers) {
        (false, false) => return skip(Reason::Unchanged),
        (true, false) => Reason::ContentChanged,
        (false, true) => Reason::EnrichersChanged,
        (true, true) => Reason::ContentAndEnrichersChanged,
    };
    // Without enrichers nobody would ever take the row out of `enriching`.
    let next_state = match state {
        Some(AssetState::Ready) if new_enricher_checksum.is_some() => AssetState::Enriching,
        _ => AssetState::New,
    };
    update(reason, next_state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_row_without_enrichers_goes_to_new() {
        let decision = ingest_decision(
            true,
            Some(AssetState::Ready),
            false,
            Some("size:1"),
            Some("c"),
            Some("size:1"),
            None,
        );
        assert_eq!(
            (decision.reason, decision.next_state),
            (Reason::EnrichersChanged, Some(AssetState::New))
        );
        assert!(decision.clears_approval);
    }

    #[test]
    fn an_unknown_state_is_never_made_ready() {
        let decide = |new| ingest_decision(true, None, false, Some("size:1"), None, Some(new), None);
        assert_eq!(
            (decide("size:1").action, decide("size:1").next_state),
            (Action::Skip, None)
        );
        assert_eq!(decide("size:2").next_state, Some(AssetState::New));
    }
}
