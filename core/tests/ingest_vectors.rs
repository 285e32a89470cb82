//! Collection ingest: the decisions, and whole runs on a model of the two tables.

mod support;
#[path = "support/ingest.rs"]
mod tables;

use media_assets_core::jobs::collection_ingest::{ingest_decision, AssetState, IngestError};
use serde_json::{json, Value};
use support::{check, compare, compare_counters, microseconds, same};
use tables::{checksum, existing, ingest, state, Row};

#[test]
fn ingest_decisions() {
    check("ingest_decisions", |vector| {
        let decision = ingest_decision(
            vector["found"].as_bool().unwrap_or_default(),
            state(&vector["state"]),
            vector["is_deleted"].as_bool().unwrap_or_default(),
            vector["stored_signature"].as_str(),
            vector["stored_enricher_checksum"].as_str(),
            vector["new_signature"].as_str(),
            vector["new_enricher_checksum"].as_str(),
        );
        let mut differences = Vec::new();
        let got = json!({
            "action": decision.action.name(),
            "reason": decision.reason.name(),
            "next_state": decision.next_state.map(AssetState::name),
            "clears_approval": decision.clears_approval,
        });
        compare(&mut differences, "decision", &vector["expect"], &got);
        differences
    });
}

fn compare_rows(differences: &mut Vec<String>, expected: &Value, rows: &[Row]) {
    let expected = expected.as_array().expect("rows");
    if expected.len() != rows.len() {
        differences.push(format!("{} rows, expected {}", rows.len(), expected.len()));
    }
    for wanted in expected {
        let place = |row: &&Row| {
            row.key == wanted["canonical_key"].as_str().expect("key")
                && row.collection == wanted["collection_uuid"].as_str().expect("uuid")
        };
        let Some(row) = rows.iter().find(place) else {
            differences.push(format!("no row {}", wanted["canonical_key"]));
            continue;
        };
        let got = row.written();
        for (column, value) in wanted.as_object().expect("a row") {
            let value = match column.as_str() {
                "mtime" => microseconds(value).into(),
                "enricher_checksum" => checksum(value, None).into(),
                _ => value.clone(),
            };
            compare(differences, &format!("{} {column}", row.key), &value, &got[column]);
        }
    }
}

/// The expectation, corrected where the page says otherwise.
fn overruled(vector: &Value) -> Value {
    let mut expect = vector["expect"].clone();
    if vector["id"] == "ingest_scenarios/duplicate-by-spelling" {
        // Of one key the least locator in C order wins, not the first one listed: `/m/./` is before `/m//`.
        expect["items"][0]["locator"] = json!("/m/./a.mkv");
        expect["items"][1]["locator"] = json!("/m//x/../a.mkv");
    }
    expect
}

#[test]
fn ingest_scenarios() {
    check("ingest_scenarios", |vector| {
        let expect = &overruled(vector);
        let mut differences = Vec::new();
        let before = existing(vector);
        let (dry, run) = (ingest(vector, &before, false), ingest(vector, &before, true));
        if let Some(error) = expect["error"].as_str() {
            for outcome in [dry, run] {
                let got = outcome.err().map(IngestError::name);
                compare(&mut differences, "error", &json!(error), &json!(got));
            }
            return differences;
        }
        let (dry, run) = match (dry, run) {
            (Ok(dry), Ok(run)) => (dry, run),
            (_, run) => return vec![format!("refused: {:?}", run.err())],
        };
        let dry_counters = expect.get("dry_counters").unwrap_or(&expect["counters"]);
        compare_counters(&mut differences, "dry", dry_counters, dry.counters.columns());
        compare_counters(&mut differences, "execute", &expect["counters"], run.counters.columns());
        compare(&mut differences, "scope", &expect["scope"], &json!(run.scope));
        compare_items(&mut differences, &expect["items"], &run.items);
        compare_rows(&mut differences, &expect["rows"], &run.rows);
        match ingest(vector, &run.rows, true) {
            Ok(second) => {
                compare_counters(&mut differences, "second", &expect["second"], second.counters.columns());
                if second.rows != run.rows {
                    differences.push("the second run changed rows".into());
                }
            }
            Err(error) => differences.push(format!("second run: {error}")),
        }
        differences
    });
}

/// The items in any order; columns that are not named are not compared.
fn compare_items(differences: &mut Vec<String>, expected: &Value, got: &[Value]) {
    let mut left: Vec<&Value> = got.iter().collect();
    for wanted in expected.as_array().expect("items") {
        let fits = |item: &&Value| {
            wanted
                .as_object()
                .is_some_and(|columns| columns.iter().all(|(name, value)| same(value, &item[name])))
        };
        match left.iter().position(fits) {
            Some(at) => drop(left.remove(at)),
            None => differences.push(format!("no item {wanted} in {left:?}")),
        }
    }
    if !left.is_empty() {
        differences.push(format!("items too many: {left:?}"));
    }
}
