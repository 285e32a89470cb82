//! From a discovered item and the stored row to what is written.

use std::borrow::Cow;

use super::content::{comparable_signatures, Content};
use super::decision::{ingest_decision, Action, Decision, Reason};
use super::AssetState;
use crate::identity::{asset_canonical_key, path_canonical_key};

/// The canonical key of an item: that of its source type, or, for files of a collection in which case plays no part, of
/// the folded path. `None` for a locator that identifies nothing.
///
/// Source: collection ingest rules, `ingest_collection`.
pub fn item_key(source_type: &str, locator: &str, case_sensitive: bool) -> Option<String> {
    if source_type.eq_ignore_ascii_case("filesystem") {
        return path_canonical_key(locator, case_sensitive);
    }
    asset_canonical_key(source_type, locator, None)
}

/// One discovered item, as the table of items has it.
#[derive(Clone, Debug, Default)]
pub struct Item<'a> {
    pub content: Content<'a>,
    /// The item's own; it wins over the collection's.
    pub enricher_checksum: Option<Cow<'a, str>>,
}

/// The stored row of an item, as far as the decision reads it.
#[derive(Clone, Debug)]
pub struct Stored<'a> {
    pub state: AssetState,
    pub is_deleted: bool,
    pub content: Content<'a>,
    pub content_signature: Option<Cow<'a, str>>,
    pub enricher_checksum: Option<Cow<'a, str>>,
}

impl<'a> Stored<'a> {
    /// The content columns, and what only the signature still knows.
    fn known_content(&self) -> Content<'a> {
        let of_signature = self
            .content_signature
            .as_deref()
            .map(Content::of_signature)
            .unwrap_or_default();
        Content {
            hash: self.content.usable().hash.or(of_signature.hash),
            size: self.content.size.or(of_signature.size),
            mtime: self.content.mtime.or(of_signature.mtime),
        }
    }
}

impl Stored<'_> {
    /// Whether the row knows all that the item says and nothing else, which is what most items of most runs are: no
    /// signature has to be made to see it.
    fn is_equal(&self, item: &Item<'_>, enricher_checksum: Option<&str>) -> bool {
        self.state != AssetState::Retired
            && !self.is_deleted
            && self.content_signature.is_some()
            && self.content == item.content
            && self.enricher_checksum.as_deref() == enricher_checksum
    }
}

/// What is written of an item. `uri`, title, season, episode and metadata are the shell's to copy: an insert and an
/// update take the item's values where they are not NULL, a fill-in does not touch them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write<'a> {
    Nothing,
    /// A row in state `new`, never approved.
    Insert {
        content: Content<'a>,
        content_signature: Option<String>,
        enricher_checksum: Option<Cow<'a, str>>,
    },
    /// Content columns that were NULL learn their values; nothing else moves.
    FillIn {
        content: Content<'a>,
        content_signature: Option<String>,
    },
    /// The state of the decision, no approval, not deleted, and these values.
    Update {
        content: Content<'a>,
        content_signature: Option<String>,
        enricher_checksum: Option<Cow<'a, str>>,
        /// `duration_ms`, the codecs and the container described the old bytes and become NULL.
        clears_technical: bool,
    },
}

/// The decision of an item and what it writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<'a> {
    pub decision: Decision,
    pub write: Write<'a>,
}

/// Decides `item` against the row with its key and says what is written.
///
/// `collection_checksum` is `enricher_checksum` of the collection's enrichers.
///
/// Source: collection ingest rules, content and enrichers.
pub fn plan<'a>(stored: Option<&Stored<'a>>, item: &Item<'a>, collection_checksum: Option<&'a str>) -> Plan<'a> {
    let enricher_checksum = item
        .enricher_checksum
        .clone()
        .or_else(|| collection_checksum.map(Cow::Borrowed));
    if let Some(stored) = stored.filter(|stored| stored.is_equal(item, enricher_checksum.as_deref())) {
        return Plan {
            decision: ingest_decision(true, Some(stored.state), false, None, None, None, None),
            write: Write::Nothing,
        };
    }
    plan_in_full(stored, item, enricher_checksum)
}

fn plan_in_full<'a>(stored: Option<&Stored<'a>>, item: &Item<'a>, enricher_checksum: Option<Cow<'a, str>>) -> Plan<'a> {
    let new = item.content.usable();
    let Some(stored) = stored else {
        return Plan {
            decision: ingest_decision(false, None, false, None, None, None, None),
            write: Write::Insert {
                content_signature: new.signature(),
                content: new,
                enricher_checksum,
            },
        };
    };
    let (stored_signature, new_signature) = comparable_signatures(&stored.known_content(), &new);
    let decision = ingest_decision(
        true,
        Some(stored.state),
        stored.is_deleted,
        stored_signature.as_deref(),
        stored.enricher_checksum.as_deref(),
        new_signature.as_deref(),
        enricher_checksum.as_deref(),
    );
    if decision.reason == Reason::Retired {
        return Plan {
            decision,
            write: Write::Nothing,
        };
    }
    let content_changed = stored_signature != new_signature;
    let (content, content_signature) = if content_changed {
        let signature = new.signature();
        (new, signature)
    } else {
        filled_in(stored, new, stored_signature.is_some())
    };
    let write = match decision.action {
        Action::Skip
            if content == stored.content && content_signature.as_deref() == stored.content_signature.as_deref() =>
        {
            Write::Nothing
        }
        Action::Skip => Write::FillIn {
            content,
            content_signature,
        },
        _ => Write::Update {
            content,
            content_signature,
            enricher_checksum,
            clears_technical: content_changed,
        },
    };
    Plan { decision, write }
}

/// The stored content with its NULLs learned from `new`. A known value is never refreshed, the signature neither.
/// `are_same_bytes`: both sides know a facet, and it is equal.
fn filled_in<'a>(stored: &Stored<'a>, new: Content<'a>, are_same_bytes: bool) -> (Content<'a>, Option<String>) {
    // The next run compares by the hash where this one learns it. Else, where nothing says that the bytes are the same, a
    // size beside the mtime of others would be a change to it.
    let is_compared_by_hash = stored.content.hash.is_none() && new.hash.is_some();
    let other_mtime = stored.content.mtime.is_some() && new.mtime.is_some() && stored.content.mtime != new.mtime;
    let of_other_bytes = other_mtime && !are_same_bytes && !is_compared_by_hash;
    let content = Content {
        hash: stored.content.hash.clone().or(new.hash),
        size: stored.content.size.or(new.size.filter(|_| !of_other_bytes)),
        mtime: stored.content.mtime.or(new.mtime),
    };
    let signature = match &stored.content_signature {
        Some(signature) => Some(signature.clone().into_owned()),
        None => content.signature(),
    };
    (content, signature)
}

/// Why an item has no decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its key was there before in the run: the least locator wins.
    Duplicate,
    /// No locator, or one that identifies nothing.
    Unkeyable,
    /// The database refused its row.
    Rejected,
}

impl Refusal {
    pub const fn name(self) -> &'static str {
        match self {
            Refusal::Duplicate => "duplicate",
            Refusal::Unkeyable => "unkeyable",
            Refusal::Rejected => "rejected",
        }
    }
}

/// What became of one item in scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Decided(Decision),
    Refused(Refusal),
}

impl Outcome {
    /// The word in the column `reason`.
    pub const fn reason(&self) -> &'static str {
        match self {
            Outcome::Decided(decision) => decision.reason.name(),
            Outcome::Refused(refusal) => refusal.name(),
        }
    }

    /// The word in the column `action`: what is refused is not written, which is a skip to the reader.
    pub const fn action(&self) -> &'static str {
        match self {
            Outcome::Decided(decision) => decision.action.name(),
            Outcome::Refused(_) => Action::Skip.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn content(hash: Option<&'static str>, size: Option<i64>, mtime: Option<i64>) -> Content<'static> {
        Content {
            hash: hash.map(Cow::Borrowed),
            size,
            mtime,
        }
    }

    fn stored(state: AssetState, content: Content<'static>) -> Stored<'static> {
        Stored {
            state,
            is_deleted: false,
            content_signature: content.signature().map(Cow::Owned),
            content,
            enricher_checksum: None,
        }
    }

    fn item(content: Content<'static>) -> Item<'static> {
        Item {
            content,
            enricher_checksum: None,
        }
    }

    #[test]
    fn a_learned_hash_leaves_the_signature() {
        let row = stored(AssetState::Ready, content(None, Some(1), Some(2)));
        let plan = plan(Some(&row), &item(content(Some(HASH), Some(1), Some(2))), None);
        assert_eq!(plan.decision.reason, Reason::Unchanged);
        let Write::FillIn {
            content,
            content_signature,
        } = plan.write
        else {
            panic!("a fill-in: {:?}", plan.write)
        };
        assert_eq!(content.hash.as_deref(), Some(HASH));
        assert_eq!(content_signature.as_deref(), Some("stat:1:2"));
    }

    #[test]
    fn an_equal_item_needs_no_signatures() {
        let hashes = [None, Some(HASH), Some("md5:1")];
        let sizes = [None, Some(-1), Some(1)];
        let mtimes = [None, Some(2)];
        let mut equal = 0;
        let of_size = |hash| sizes.map(|size| (hash, size));
        let contents = hashes.into_iter().flat_map(of_size);
        for (hash, size, mtime) in contents.flat_map(|(hash, size)| mtimes.map(|mtime| (hash, size, mtime))) {
            for signature in [None, Some("size:7"), Some("stat:1:2"), Some("odd")] {
                for enrichers in [None, Some("c")] {
                    for (state, is_deleted) in AssetState::ALL.map(|state| [(state, false), (state, true)]).concat() {
                        let row = Stored {
                            state,
                            is_deleted,
                            content: content(hash, size, mtime),
                            content_signature: signature.map(Cow::Borrowed),
                            enricher_checksum: enrichers.map(Cow::Borrowed),
                        };
                        let item = Item {
                            content: row.content.clone(),
                            enricher_checksum: row.enricher_checksum.clone(),
                        };
                        equal += usize::from(row.is_equal(&item, enrichers));
                        let full = plan_in_full(Some(&row), &item, row.enricher_checksum.clone());
                        assert_eq!(plan(Some(&row), &item, None), full, "{row:?}");
                    }
                }
            }
        }
        assert!(equal > 50, "{equal}");
    }

    #[test]
    fn a_known_mtime_is_never_refreshed() {
        let row = stored(AssetState::New, content(Some(HASH), Some(1), Some(2)));
        let plan = plan(Some(&row), &item(content(Some(HASH), Some(1), Some(9))), None);
        assert_eq!(plan.write, Write::Nothing);
    }

    #[test]
    fn a_size_is_learned_beside_another_mtime_only_of_the_same_bytes() {
        let learned = |hash| {
            let row = stored(AssetState::New, content(hash, None, Some(2)));
            let plan = plan(Some(&row), &item(content(hash, Some(1), Some(9))), None);
            assert_eq!(plan.decision.reason, Reason::Unchanged);
            match plan.write {
                Write::FillIn { content, .. } => content.size,
                _ => None,
            }
        };
        assert_eq!(learned(Some(HASH)), Some(1));
        assert_eq!(learned(None), None);
    }

    #[test]
    fn unknown_parts_of_changed_content_become_null() {
        let row = stored(AssetState::New, content(Some(HASH), Some(1), Some(2)));
        let plan = plan(Some(&row), &item(content(None, Some(7), None)), None);
        assert_eq!(
            plan.write,
            Write::Update {
                content: content(None, Some(7), None),
                content_signature: Some("size:7".into()),
                enricher_checksum: None,
                clears_technical: true,
            }
        );
    }

    #[test]
    fn what_says_nothing_is_not_written() {
        let plan = plan(None, &item(content(Some("md5:1"), Some(-5), Some(3))), None);
        assert_eq!(
            plan.write,
            Write::Insert {
                content: content(None, None, Some(3)),
                content_signature: None,
                enricher_checksum: None,
            }
        );
    }

    #[test]
    fn a_retired_row_learns_nothing() {
        let row = stored(AssetState::Retired, content(None, None, None));
        let plan = plan(Some(&row), &item(content(Some(HASH), Some(1), None)), Some("c"));
        assert_eq!((plan.decision.reason, plan.write), (Reason::Retired, Write::Nothing));
    }

    #[test]
    fn keys_follow_the_case_rule_of_the_collection() {
        let key = |source: &str, locator: &str, case| item_key(source, locator, case);
        assert_eq!(
            key("filesystem", "/M/É.mkv", false).as_deref(),
            Some("filesystem:/m/é.mkv")
        );
        assert_eq!(
            key("filesystem", "/M/É.mkv", true).as_deref(),
            Some("filesystem:/M/É.mkv")
        );
        assert_eq!(key("plex", "77", false).as_deref(), Some("plex:77"));
        assert_eq!(key("filesystem", " ", false), None);
        let long = format!("/M/{}", "X".repeat(3000));
        assert_eq!(
            key("filesystem", &long, false),
            key("filesystem", &long.to_lowercase(), true)
        );
    }
}
