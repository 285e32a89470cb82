//! The lifecycle of a row of `collection_assets`: what the trigger on the table lets pass, whoever writes.

use super::content::Content;
use super::AssetState;

/// Whether a row may go from one state to another; staying is no transition.
///
/// Source: collection ingest rules, tables.
pub const fn is_allowed_transition(from: AssetState, to: AssetState) -> bool {
    use AssetState::{Enriching, New, Ready, Retired};
    match from {
        New => matches!(to, New | Enriching | Retired),
        Enriching => matches!(to, Enriching | New | Ready | Retired),
        Ready => matches!(to, Ready | New | Enriching | Retired),
        Retired => matches!(to, Retired | New),
    }
}

/// The columns of a row that the lifecycle looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded<'a> {
    pub state: AssetState,
    pub approved: bool,
    pub is_deleted: bool,
    pub content: Content<'a>,
    pub content_signature: Option<&'a str>,
    pub enricher_checksum: Option<&'a str>,
}

/// What the database rejects with SQLSTATE 23514.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    InsertedReady,
    InsertedApproved,
    Transition { from: AssetState, to: AssetState },
    ApprovedNotReady,
    ApprovedDeleted,
    ContentChangedWhileReady,
    EnrichersChangedWhileReady,
}

impl Violation {
    /// What is wrong, in one line.
    pub fn message(&self) -> String {
        match self {
            Violation::InsertedReady => "an asset cannot be created in state ready".into(),
            Violation::InsertedApproved => "an asset cannot be created approved for broadcast".into(),
            Violation::Transition { from, to } => {
                format!("an asset cannot go from {} to {}", from.name(), to.name())
            }
            Violation::ApprovedNotReady => "only an asset in state ready can be approved for broadcast".into(),
            Violation::ApprovedDeleted => "a deleted asset cannot be approved for broadcast".into(),
            Violation::ContentChangedWhileReady => "the content of an asset cannot change while it stays ready".into(),
            Violation::EnrichersChangedWhileReady => {
                "the enrichers of an asset cannot change while it stays ready".into()
            }
        }
    }

    /// What to do instead.
    pub const fn hint(&self) -> &'static str {
        match self {
            Violation::InsertedReady | Violation::InsertedApproved => {
                "Insert it in state new; enrichment makes it ready, and an operator approves it then."
            }
            Violation::Transition { .. } => {
                "Allowed are new to enriching or retired, enriching to new, ready or retired, ready to new, enriching or \
                 retired, and retired to new."
            }
            Violation::ApprovedNotReady | Violation::ApprovedDeleted => {
                "Set approved_for_broadcast to false in the same statement."
            }
            Violation::ContentChangedWhileReady | Violation::EnrichersChangedWhileReady => {
                "Set state to new or enriching and approved_for_broadcast to false in the same statement."
            }
        }
    }
}

/// Whether a row may be inserted.
///
/// # Errors
/// The first rule that it breaks.
pub const fn check_insert(row: &Guarded<'_>) -> Result<(), Violation> {
    if row.approved {
        return Err(Violation::InsertedApproved);
    }
    match row.state {
        AssetState::Ready => Err(Violation::InsertedReady),
        _ => Ok(()),
    }
}

/// Whether a row may be updated from `old` to `new`.
///
/// Learning a content value that was NULL is no change; losing one is. Enrichers have no unknown: NULL is a value.
///
/// # Errors
/// The first rule that the update breaks.
pub fn check_update(old: &Guarded<'_>, new: &Guarded<'_>) -> Result<(), Violation> {
    if !is_allowed_transition(old.state, new.state) {
        return Err(Violation::Transition {
            from: old.state,
            to: new.state,
        });
    }
    if new.approved && new.state != AssetState::Ready {
        return Err(Violation::ApprovedNotReady);
    }
    if new.approved && new.is_deleted {
        return Err(Violation::ApprovedDeleted);
    }
    let stays_ready = old.state == AssetState::Ready && new.state == AssetState::Ready;
    let stays_approved = old.approved && new.approved;
    if !stays_ready && !stays_approved {
        return Ok(());
    }
    if changes_known(&old.content_signature, &new.content_signature)
        || changes_known(&old.content.hash, &new.content.hash)
        || changes_known(&old.content.size, &new.content.size)
        || changes_known(&old.content.mtime, &new.content.mtime)
    {
        return Err(Violation::ContentChangedWhileReady);
    }
    if old.enricher_checksum != new.enricher_checksum {
        return Err(Violation::EnrichersChangedWhileReady);
    }
    Ok(())
}

/// Whether undo may bring a row back to what it was before a run. What was ready or approved stays as the run left it:
/// neither comes back without enrichment and an operator. The conflict is called `needs_approval`.
pub const fn is_restorable(before: &Guarded<'_>) -> bool {
    !before.approved && !matches!(before.state, AssetState::Ready)
}

fn changes_known<T: PartialEq>(old: &Option<T>, new: &Option<T>) -> bool {
    old.is_some() && old != new
}

#[cfg(test)]
mod tests {
    use super::*;
    use AssetState::{Enriching, New, Ready, Retired};

    fn row(state: AssetState, approved: bool) -> Guarded<'static> {
        Guarded {
            state,
            approved,
            is_deleted: false,
            content: Content {
                hash: None,
                size: Some(1),
                mtime: None,
            },
            content_signature: Some("size:1"),
            enricher_checksum: None,
        }
    }

    #[test]
    fn the_transitions_of_the_page_and_no_others() {
        let allowed = [
            (New, Enriching),
            (New, Retired),
            (Enriching, New),
            (Enriching, Ready),
            (Enriching, Retired),
            (Ready, New),
            (Ready, Enriching),
            (Ready, Retired),
            (Retired, New),
        ];
        for from in AssetState::ALL {
            for to in AssetState::ALL {
                let expected = from == to || allowed.contains(&(from, to));
                assert_eq!(is_allowed_transition(from, to), expected, "{from:?} {to:?}");
            }
        }
    }

    #[test]
    fn nothing_is_born_ready_or_approved() {
        assert_eq!(check_insert(&row(Ready, false)), Err(Violation::InsertedReady));
        assert_eq!(check_insert(&row(New, true)), Err(Violation::InsertedApproved));
        for state in [New, Enriching, Retired] {
            assert_eq!(check_insert(&row(state, false)), Ok(()));
        }
    }

    #[test]
    fn a_ready_row_keeps_its_content_and_its_enrichers() {
        let old = row(Ready, true);
        let mut learned = old.clone();
        learned.content.mtime = Some(5);
        learned.content.hash = Some("h".into());
        assert_eq!(check_update(&old, &learned), Ok(()));
        assert_eq!(
            check_update(&learned, &old),
            Err(Violation::ContentChangedWhileReady),
            "losing a value is a change"
        );
        let mut other_size = old.clone();
        other_size.content.size = Some(2);
        assert_eq!(
            check_update(&old, &other_size),
            Err(Violation::ContentChangedWhileReady)
        );
        other_size.state = Enriching;
        assert_eq!(check_update(&old, &other_size), Err(Violation::ApprovedNotReady));
        other_size.approved = false;
        assert_eq!(check_update(&old, &other_size), Ok(()));
        let mut enrichers = old.clone();
        enrichers.enricher_checksum = Some("c");
        assert_eq!(
            check_update(&old, &enrichers),
            Err(Violation::EnrichersChangedWhileReady)
        );
    }

    #[test]
    fn undo_never_brings_readiness_back() {
        assert!(!is_restorable(&row(Ready, false)) && !is_restorable(&row(Ready, true)));
        assert!(is_restorable(&row(Enriching, false)) && is_restorable(&row(Retired, false)));
    }

    #[test]
    fn a_deleted_row_keeps_its_state_but_no_approval() {
        let old = row(Ready, true);
        let mut deleted = old.clone();
        deleted.is_deleted = true;
        assert_eq!(check_update(&old, &deleted), Err(Violation::ApprovedDeleted));
        deleted.approved = false;
        assert_eq!(check_update(&old, &deleted), Ok(()));
    }
}
