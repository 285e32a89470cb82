//! What holds of the thumbnails for every graph of sources: neither order nor a second run changes the outcome.

#[path = "support/i2v.rs"]
mod tables;

use proptest::prelude::*;
use serde_json::{json, Value};
use tables::{JobRow, Row, Tables};

const ROWS: usize = 6;

fn map() -> impl Strategy<Value = Option<Value>> {
    prop::sample::select(vec![
        None,
        None,
        Some(json!(null)),
        Some(json!({"small": " "})),
        Some(json!({"small": "/1"})),
        Some(json!({"large": "/2", "cover": "/3"})),
        Some(json!({"small": "/4", "large": null})),
        Some(json!([])),
    ])
}

fn row() -> impl Strategy<Value = Row> {
    let url = prop::sample::select(vec![None, None, Some(""), Some("/u"), Some("/v"), Some("/1")]);
    let is_public = prop::sample::select(vec![None, Some(true), Some(true), Some(false)]);
    (url, map(), is_public, prop::bool::weighted(0.8)).prop_map(|(url, map, is_public, is_video)| Row {
        is_video,
        url: url.map(str::to_owned),
        map,
        is_public,
        metadata: None,
    })
}

/// Rows `0…`, each with a job that names any other row as its source; in a forest only one with a greater number.
fn tables(forest: bool) -> impl Strategy<Value = (Tables, Vec<String>)> {
    let sources = prop::collection::vec(prop::option::weighted(0.85, 0..=ROWS), ROWS);
    let order = Just((0..ROWS).collect::<Vec<_>>()).prop_shuffle();
    (prop::collection::vec(row(), ROWS), sources, order).prop_map(move |(rows, sources, order)| {
        let mut tables = Tables::default();
        for (index, row) in rows.into_iter().enumerate() {
            tables.media.insert(index.to_string(), row);
            if let Some(source) = sources[index].filter(|source| !forest || *source > index) {
                let job = JobRow {
                    media_id: Some(source.to_string()),
                    ..JobRow::default()
                };
                tables.jobs.insert(index.to_string(), job);
            }
        }
        let is_video = |id: &String| tables.media[id].is_video;
        let order = order.iter().map(ToString::to_string).filter(is_video).collect();
        (tables, order)
    })
}

fn never(_: &str) -> bool {
    false
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_forest_ends_the_same_in_any_order((before, order) in tables(true), allow in any::<bool>()) {
        let sorted = before.videos();
        let (mut one, mut other) = (before.clone(), before.clone());
        let first = one.run(&sorted, allow, true, &never);
        prop_assert_eq!(&first, &other.run(&order, allow, true, &never));
        prop_assert_eq!(&one.media, &other.media);
        prop_assert_eq!(&first, &before.clone().run(&sorted, allow, false, &never));
        let (second, _) = one.run(&order, allow, true, &never);
        prop_assert_eq!(second.updated, 0);
        prop_assert_eq!(&one.media, &other.media);
        // Each video decided alone, over rows that nobody settled: a dry run has nothing to remember.
        for id in &order {
            let mut alone = before.clone();
            let (_, decided) = alone.run(std::slice::from_ref(id), allow, true, &never);
            prop_assert_eq!(&decided[id], &first.1[id]);
            prop_assert_eq!(&alone.media[id], &other.media[id]);
        }
    }

    #[test]
    fn cycles_end_the_same_in_any_order((before, order) in tables(false), allow in any::<bool>()) {
        let (mut one, mut other) = (before.clone(), before.clone());
        let first = one.run(&before.videos(), allow, true, &never);
        prop_assert_eq!(&first, &other.run(&order, allow, true, &never));
        prop_assert_eq!(&one.media, &other.media);
        let (second, _) = one.run(&order, allow, true, &never);
        prop_assert_eq!(second.updated, 0);
        for id in &order {
            let mut alone = before.clone();
            let (_, decided) = alone.run(std::slice::from_ref(id), allow, true, &never);
            prop_assert_eq!(&decided[id], &first.1[id]);
            prop_assert_eq!(&alone.media[id], &other.media[id]);
        }
    }

    #[test]
    fn an_existing_value_is_never_changed((before, order) in tables(false), allow in any::<bool>()) {
        let mut after = before.clone();
        after.run(&order, allow, true, &never);
        for (id, row) in &before.media {
            let now = &after.media[id];
            prop_assert!(row.url.is_none() || row.url.as_deref() == Some("") || row.url == now.url);
            prop_assert!(row.is_video || row == now);
            let is_kept = row.map.as_ref().is_none_or(|map| map.is_null() || *map == json!({"small": " "}));
            prop_assert!(is_kept || row.map == now.map);
        }
    }

    /// A rejected row costs itself only: all others end as they would have.
    #[test]
    fn a_rejected_row_stands_in_nobodys_way((before, order) in tables(true), allow in any::<bool>(), rejected in 0..ROWS) {
        let rejected = rejected.to_string();
        let (mut all, mut some) = (before.clone(), before);
        all.run(&order, allow, true, &never);
        some.run(&order, allow, true, &|id| id == rejected);
        for (id, row) in &all.media {
            prop_assert!(*id == rejected || some.media[id] == *row, "{}", id);
        }
    }
}
