//! What holds of collection ingest for every input.

use std::borrow::Cow;

use media_assets_core::jobs::collection_ingest::{
    check_insert, check_update, comparable_signatures, ingest_decision, item_key, plan, plex_items, read_file_name,
    Action, AssetState, Content, Guarded, Item, PathMappings, Reason, Stored, Write,
};
use proptest::prelude::*;
use serde_json::json;

fn content() -> impl Strategy<Value = Content<'static>> {
    let hash = prop::sample::select(vec![None, Some("a"), Some("b"), Some("B"), Some("no hash")]);
    (hash, prop::option::of(-1i64..3), prop::option::of(0i64..3)).prop_map(|(hash, size, mtime)| Content {
        hash: hash.map(|hash| {
            Cow::Owned(if hash.len() == 1 {
                hash.repeat(64)
            } else {
                hash.to_owned()
            })
        }),
        size,
        mtime,
    })
}

fn checksum() -> impl Strategy<Value = Option<Cow<'static, str>>> {
    prop::sample::select(vec![None, Some(Cow::Borrowed("c")), Some(Cow::Borrowed("d"))])
}

fn state() -> impl Strategy<Value = AssetState> {
    prop::sample::select(AssetState::ALL.to_vec())
}

#[derive(Clone, Debug)]
struct Row {
    stored: Stored<'static>,
    approved: bool,
}

/// A row as the database lets it be.
fn row() -> impl Strategy<Value = Row> {
    (
        state(),
        any::<bool>(),
        any::<bool>(),
        content(),
        (any::<bool>(), any::<bool>()),
        checksum(),
    )
        .prop_map(
            |(state, is_deleted, approved, content, (signed, bare), enricher_checksum)| Row {
                approved: approved && !is_deleted && state == AssetState::Ready,
                stored: Stored {
                    state,
                    is_deleted,
                    content_signature: content.signature().filter(|_| signed).map(Cow::Owned),
                    // An old row may have its signature alone.
                    content: if bare { Content::default() } else { content },
                    enricher_checksum,
                },
            },
        )
}

fn guarded(row: &Row) -> Guarded<'_> {
    Guarded {
        state: row.stored.state,
        approved: row.approved,
        is_deleted: row.stored.is_deleted,
        content: row.stored.content.clone(),
        content_signature: row.stored.content_signature.as_deref(),
        enricher_checksum: row.stored.enricher_checksum.as_deref(),
    }
}

/// The row after the plan.
fn written(
    before: Option<&Row>,
    item: &Item<'static>,
    collection: Option<&'static str>,
) -> (Option<Row>, Action, Reason) {
    let plan = plan(before.map(|row| &row.stored), item, collection);
    let decision = plan.decision;
    let row = match plan.write {
        Write::Nothing => before.cloned(),
        Write::FillIn {
            content,
            content_signature,
        } => before.map(|row| Row {
            approved: row.approved,
            stored: Stored {
                content,
                content_signature: content_signature.map(Cow::Owned),
                ..row.stored.clone()
            },
        }),
        Write::Insert {
            content,
            content_signature,
            enricher_checksum,
        }
        | Write::Update {
            content,
            content_signature,
            enricher_checksum,
            ..
        } => Some(Row {
            approved: before.is_some_and(|row| row.approved) && !decision.clears_approval,
            stored: Stored {
                state: decision.next_state.expect("a written row has a state"),
                is_deleted: false,
                content,
                content_signature: content_signature.map(Cow::Owned),
                enricher_checksum,
            },
        }),
    };
    (row, decision.action, decision.reason)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_decision_makes_or_leaves_an_updated_row_ready(
        found in any::<bool>(), state in prop::option::of(state()), is_deleted in any::<bool>(),
        texts in prop::collection::vec(prop::option::of("(sha256:|size:|stat:)?[0-9a]{0,2}(:[0-9])?"), 4),
    ) {
        let decision = ingest_decision(
            found, state, is_deleted, texts[0].as_deref(), texts[1].as_deref(), texts[2].as_deref(), texts[3].as_deref(),
        );
        match decision.action {
            Action::Skip => prop_assert_eq!((decision.next_state, decision.clears_approval), (state, false)),
            Action::Create => prop_assert!(!found && decision.next_state == Some(AssetState::New)),
            Action::Update => {
                prop_assert!(found && decision.clears_approval);
                prop_assert!(matches!(decision.next_state, Some(AssetState::New | AssetState::Enriching)));
            }
        }
    }

    /// The database lets pass what a run writes, and a second run writes nothing.
    #[test]
    fn a_run_is_lawful_and_settles(before in prop::option::of(row()), content in content(), own in checksum(), of_collection in any::<bool>()) {
        let item = Item { content, enricher_checksum: own };
        let collection = of_collection.then_some("c");
        let (after, action, _) = written(before.as_ref(), &item, collection);
        let after = after.expect("there is a row now");
        match &before {
            Some(before) => prop_assert_eq!(check_update(&guarded(before), &guarded(&after)), Ok(())),
            None => prop_assert_eq!(check_insert(&guarded(&after)), Ok(())),
        }
        if action != Action::Skip {
            prop_assert!(after.stored.state != AssetState::Ready && !after.approved && !after.stored.is_deleted);
prop_assert!(after.stored.content_signature.is_some() || after.stored.content.signature().is_none());
        }
        let second = plan(Some(&after.stored), &item, collection);
        prop_assert_eq!((second.decision.action, second.write), (Action::Skip, Write::Nothing));
    }

    #[test]
    fn comparing_content_knows_no_direction(a in content(), b in content()) {
        let (left, right) = comparable_signatures(&a, &b);
        prop_assert_eq!((right, left), comparable_signatures(&b, &a));
    }

    #[test]
    fn nothing_panics(path in "([A-Za-z0-9 ._()\\[\\]/\\\\x-]|S01E02|Season 1/|é|\\.\\./){0,12}", other in any::<String>(), sensitive in any::<bool>()) {
        for text in [&path, &other] {
            let name = read_file_name(text);
            prop_assert!(name.episode.is_none() || name.season.is_some());
            let _ = item_key("filesystem", text, sensitive);
            let mappings = PathMappings::read(&json!({text.as_str(): "/mnt", "/": text}));
            let _ = mappings.map(&path);
            let _ = mappings.map(&other);
            let _ = plex_items(&json!({"MediaContainer": {"Metadata": [{"type": "movie", "ratingKey": text, "title": other}]}}), &mappings);
        }
    }
}
