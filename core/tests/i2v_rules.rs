//! Image-to-video thumbnails: single rules of the page, on small chains.

#[path = "support/i2v.rs"]
mod tables;

use serde_json::{json, Value};
use tables::{JobRow, Row, Tables};

/// `a`, `b`, `c`, … each with its columns, and the next one as its source.
fn chain(rows: Vec<Value>) -> Tables {
    let mut tables = Tables::default();
    let ids: Vec<String> = (b'a'..)
        .map(|letter| char::from(letter).to_string())
        .take(rows.len())
        .collect();
    for (index, row) in rows.iter().enumerate() {
        tables.media.insert(
            ids[index].clone(),
            Row {
                is_video: true,
                url: row["url"].as_str().map(str::to_owned),
                map: row.get("map").cloned(),
                is_public: row["public"].as_bool(),
                metadata: row.get("metadata").cloned(),
            },
        );
        if let Some(source) = ids.get(index + 1) {
            tables.jobs.insert(
                ids[index].clone(),
                JobRow {
                    media_id: Some(source.clone()),
                    ..JobRow::default()
                },
            );
        }
    }
    tables
}

/// What becomes of `a`: its columns after it was decided, and the reason.
fn decided(mut tables: Tables, allow_private: bool) -> (Option<String>, Option<Value>, Option<String>) {
    let (_, decisions) = tables.run(&["a".to_owned()], allow_private, true, &|_| false);
    let row = &tables.media["a"];
    (row.url.clone(), row.map.clone(), decisions["a"].1.clone())
}

fn skipped(reason: &str) -> (Option<String>, Option<Value>, Option<String>) {
    (None, None, Some(reason.to_owned()))
}

#[test]
fn each_field_comes_from_the_nearest_that_has_it() {
    let rows = vec![
        json!({}),
        json!({"url": "/b"}),
        json!({"url": "/c", "map": {"small": "/m"}}),
    ];
    assert_eq!(
        decided(chain(rows), false),
        (Some("/b".into()), Some(json!({"small": "/m"})), None)
    );
}

#[test]
fn a_malformed_map_lets_only_a_url_pass() {
    let top = json!({"url": "/c", "map": {"small": "/m"}});
    let rows = vec![json!({}), json!({"map": [1]}), top];
    assert_eq!(decided(chain(rows), false), (Some("/c".into()), None, None));
    let rows = vec![json!({}), json!({"map": [1]}), json!({})];
    assert_eq!(decided(chain(rows), false), skipped("source_thumbnails_malformed"));
    let rows = vec![json!({}), json!({}), json!({"map": [1]})];
    assert_eq!(decided(chain(rows), false), skipped("source_has_no_thumbnails"));
}

#[test]
fn nothing_passes_a_private_row_on_its_way_to_a_public_one() {
    let with = |video: Value, middle: Value| chain(vec![video, middle, json!({"url": "/c"})]);
    let public = || json!({"public": true});
    assert_eq!(
        decided(with(public(), json!({"public": false})), false),
        skipped("source_is_private")
    );
    assert_eq!(
        decided(with(json!({}), json!({"public": false})), false),
        skipped("source_is_private")
    );
    let own = json!({"public": false, "url": "/b"});
    assert_eq!(
        decided(with(public(), own.clone()), false),
        skipped("source_is_private")
    );
    assert_eq!(decided(with(public(), own.clone()), true).0.as_deref(), Some("/b"));
    assert_eq!(
        decided(with(json!({"public": false}), own), false).0.as_deref(),
        Some("/b")
    );
    let behind = chain(vec![public(), json!({}), json!({"public": false, "url": "/c"})]);
    assert_eq!(decided(behind, false), skipped("source_is_private"));
    let nothing = chain(vec![public(), json!({"public": false})]);
    assert_eq!(decided(nothing, false), skipped("source_has_no_thumbnails"));
    let nearer = chain(vec![
        public(),
        json!({"url": "/b"}),
        json!({"public": false, "url": "/c"}),
    ]);
    assert_eq!(decided(nearer, false).0.as_deref(), Some("/b"));
}

#[test]
fn a_lone_map_gives_a_url_too() {
    let map = json!({"large": "/l", "cover": "/c"});
    let rows = vec![json!({}), json!({"map": map})];
    assert_eq!(
        decided(chain(rows), false),
        (Some("/l".into()), Some(map.clone()), None)
    );
    let rows = vec![json!({"map": {"small": "/own"}}), json!({"map": map})];
    assert_eq!(decided(chain(rows), false).0.as_deref(), Some("/l"));
    // The source itself would be given the URL from further up: that is nearer than a path of its map.
    let rows = vec![json!({}), json!({"map": map}), json!({"url": "/up"})];
    assert_eq!(decided(chain(rows), false).0.as_deref(), Some("/up"));
}

#[test]
fn back_at_the_start_is_none() {
    let mut itself = chain(vec![json!({"map": {"small": "/a"}})]);
    itself.jobs.insert(
        "a".into(),
        JobRow {
            media_id: Some("a".into()),
            ..JobRow::default()
        },
    );
    assert_eq!(decided(itself, false).2.as_deref(), Some("source_has_no_thumbnails"));
    // `b` was given what `a` has, before or in this run.
    for b in [json!({}), json!({"url": "/a", "map": {"small": "/a"}})] {
        let mut pair = chain(vec![json!({"map": {"small": "/a"}}), b]);
        pair.jobs.insert(
            "b".into(),
            JobRow {
                media_id: Some("a".into()),
                ..JobRow::default()
            },
        );
        assert_eq!(decided(pair, false).2.as_deref(), Some("source_has_no_thumbnails"));
    }
}

#[test]
fn how_a_source_is_found() {
    let job = |media: Option<&str>, original: Option<&str>, result: Option<&str>| JobRow {
        media_id: media.map(str::to_owned),
        original_media_id: original.map(str::to_owned),
        result_media_id: result.map(str::to_owned),
    };
    let video = |metadata: Value| {
        let mut tables = chain(vec![
            json!({"metadata": metadata}),
            json!({"url": "/b"}),
            json!({"url": "/c"}),
        ]);
        tables.jobs.clear();
        tables
    };
    let mut original = video(json!({}));
    original.jobs.insert("a".into(), job(Some(" "), Some("b"), None));
    assert_eq!(decided(original, false).0.as_deref(), Some("/b"));
    let mut least = video(json!({}));
    least.jobs.insert("j2".into(), job(Some("c"), None, Some("a")));
    least.jobs.insert("j1".into(), job(Some("b"), None, Some("a")));
    assert_eq!(decided(least, false).0.as_deref(), Some("/b"));
    assert_eq!(
        decided(video(json!({"originalMediaId": "c"})), false).0.as_deref(),
        Some("/c")
    );
    for none in [
        json!({"originalMediaId": 5}),
        json!({"originalMediaId": ""}),
        json!("c"),
        json!(null),
    ] {
        assert_eq!(decided(video(none), false), skipped("no_i2v_job_found"));
    }
    let mut empty = video(json!({"originalMediaId": "c"}));
    empty.jobs.insert("a".into(), job(None, Some(""), None));
    assert_eq!(decided(empty, false), skipped("job_has_no_source"));
}

#[test]
fn a_very_long_chain_is_walked_to_its_end() {
    let mut tables = Tables::default();
    for index in 0..5_000 {
        let url = (index == 4_999).then(|| "/end".to_owned());
        tables.media.insert(
            index.to_string(),
            Row {
                is_video: true,
                url,
                ..Row::default()
            },
        );
        let job = JobRow {
            media_id: Some((index + 1).to_string()),
            ..JobRow::default()
        };
        tables.jobs.insert(index.to_string(), job);
    }
    tables.run(&["0".to_owned()], false, true, &|_| false);
    assert_eq!(tables.media["0"].url.as_deref(), Some("/end"));
}
