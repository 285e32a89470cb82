//! Jellyfin metadata: resolving, payloads, and whole runs on a model of the tables.

#[path = "support/schema.rs"]
mod schema;
mod support;

use std::collections::BTreeMap;

use media_assets_core::jobs::jellyfin_metadata::{
    content_published_payload, decide, is_candidate, question, resolve_jellyfin_item, Arguments, Counters, Known, Mode,
    Outcome, PayloadSettings, Question, Reason, Search, StoredItem,
};
use schema::breaches;
use serde_json::{json, Value};
use support::{check, compare, compare_counters, jsonb, written};

#[test]
fn jellyfin_resolve() {
    check("jellyfin_resolve", |vector| {
        let items = vector["items"].as_array().into_iter().flatten();
        let got = match resolve_jellyfin_item(vector["title"].as_str(), vector["premiere_date"].as_str(), items) {
            Ok(id) => json!({"item_id": id}),
            Err(reason) => json!({"reason": reason.name()}),
        };
        let mut differences = Vec::new();
        compare(&mut differences, "resolved", &vector["expect"], &got);
        differences
    });
}

fn without_meta(mut payload: Value) -> Value {
    if let Some(members) = payload.as_object_mut() {
        members.remove("meta");
    }
    payload
}

#[test]
fn jellyfin_payloads() {
    check("jellyfin_payloads", |vector| {
        let settings = PayloadSettings {
            public_base: vector["public_base"].as_str(),
            ..PayloadSettings::default()
        };
        let payload = content_published_payload(&vector["row"], Some(&vector["item"]), &settings).ok();
        let mut differences = payload.as_ref().map(breaches).unwrap_or_default();
        let text = payload.as_ref().map(Value::to_string).unwrap_or_default();
        for word in vector["forbidden"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if text.contains(word) {
                differences.push(format!("{word} leaves"));
            }
        }
        let got = payload.map_or(Value::Null, without_meta);
        compare(&mut differences, "payload", &vector["expect"], &got);
        differences
    });
}

/// The tables of a run.
#[derive(Clone, Debug, PartialEq)]
struct Tables {
    board: BTreeMap<i64, Value>,
    outbox: BTreeMap<[u8; 16], Value>,
    reasons: BTreeMap<String, &'static str>,
}

struct Fetched(BTreeMap<String, (Option<Value>, Option<i32>)>);

impl<'a> Known<&'a Value> for &'a Fetched {
    fn item(&self, item_id: &str) -> Option<StoredItem<&'a Value>> {
        let (doc, http_status) = self.0.get(item_id)?;
        Some(StoredItem {
            doc: doc.as_ref(),
            http_status: *http_status,
        })
    }

    fn items_like(&self, _: &Search) -> Vec<StoredItem<&'a Value>> {
        self.0.keys().filter_map(|id| self.item(id)).collect()
    }
}

impl Tables {
    fn read(vector: &Value) -> (Self, Fetched) {
        let rows = vector["studio_board"].as_array().expect("rows");
        let board = rows
            .iter()
            .map(|row| {
                let mut row = row.clone();
                // In a row as jsonb both nulls are null.
                row["meta"] = jsonb(row.get("meta")).unwrap_or_default();
                (row["id"].as_i64().expect("id"), row)
            })
            .collect();
        let items = vector["jellyfin_items"].as_array().expect("items");
        let fetched = items
            .iter()
            .map(|item| {
                let status = item["http_status"]
                    .as_i64()
                    .and_then(|status| i32::try_from(status).ok());
                (
                    item["item_id"].as_str().expect("id").to_owned(),
                    (jsonb(item.get("doc")), status),
                )
            })
            .collect();
        let tables = Tables {
            board,
            outbox: BTreeMap::new(),
            reasons: BTreeMap::new(),
        };
        (tables, Fetched(fetched))
    }

    fn run(&mut self, fetched: &Fetched, arguments: &Arguments<'_>) -> Counters {
        let mut counters = Counters::default();
        let ids: Vec<i64> = self.board.keys().copied().collect();
        for id in ids {
            let row = self.board[&id].clone();
            if !is_candidate(&row) {
                continue;
            }
            let outcome = decide(id, &row, &fetched, arguments);
            let mut queued = false;
            match &outcome {
                Outcome::Enriched(enriched) => {
                    let meta = &mut self.board.get_mut(&id).expect("a row")["meta"];
                    for (name, value) in enriched.patch.as_object().expect("a patch") {
                        assert!(!value.is_null(), "no null over a value");
                        meta[name] = value.clone();
                    }
                    if let Some(event) = &enriched.event {
                        assert_eq!(breaches(&event.payload), Vec::<String>::new());
                        let row = json!({"subject_id": event.subject_id, "topic": event.topic, "source": event.source,
                                         "state": "queued", "payload": without_meta(event.payload.clone())});
                        queued = self.outbox.insert(event.id, row).is_none();
                    }
                    if enriched.sets_sent_at && queued {
                        meta["publish_event_sent_at"] = json!("now");
                    }
                }
                Outcome::Skipped(reason) => {
                    self.reasons.insert(id.to_string(), reason.name());
                }
                Outcome::Failed => unreachable!("nothing refuses a row here"),
            }
            counters.count(&outcome, queued);
        }
        counters.check().expect("the sums hold");
        counters
    }
}

#[test]
fn jellyfin_scenarios() {
    check("jellyfin_scenarios", |vector| {
        let expect = &vector["expect"];
        let text = |name: &str| vector["args"][name].as_str().expect("an argument");
        let arguments = Arguments {
            mode: Mode::parse(text("mode")).expect("a mode"),
            backfill_version: text("backfill_version"),
            public_base: text("public_base"),
            default_namespace: None,
        };
        let mut differences = Vec::new();
        let (before, fetched) = Tables::read(vector);
        let mut after = before.clone();
        let counters = after.run(&fetched, &arguments);
        compare_counters(&mut differences, "execute", &expect["counters"], counters.columns());
        let mut sent = Vec::new();
        for (id, row) in &after.board {
            let mut meta = row["meta"].clone();
            let set = meta.get("publish_event_sent_at") == Some(&json!("now"));
            if let Some(members) = meta.as_object_mut().filter(|_| set) {
                members.remove("publish_event_sent_at");
                sent.push(*id);
            }
            let wanted = match &expect["meta"][id.to_string()] {
                Value::Null => Value::Null,
                value => written(jsonb(Some(value)).as_ref()),
            };
            compare(&mut differences, &format!("meta of {id}"), &wanted, &meta);
        }
        compare(&mut differences, "sent_at_set", &expect["sent_at_set"], &json!(sent));
        let mut events: Vec<&Value> = after.outbox.values().collect();
        events.sort_by_key(|event| event["subject_id"].as_str().and_then(|id| id.parse::<i64>().ok()));
        compare(&mut differences, "events", &expect["events"], &json!(events));
        compare(&mut differences, "reasons", &expect["reasons"], &json!(after.reasons));
        let settled = after.clone();
        let second = after.run(&fetched, &arguments);
        if after != settled || second.enriched != 0 || second.events_queued != 0 {
            differences.push("the second run wrote something".into());
        }
        differences
    });
}

#[test]
fn what_is_asked_is_what_a_decision_lacks() {
    let fetched = |items: Value| Tables::read(&json!({"studio_board": [], "jellyfin_items": items})).1;
    let row = |id: Option<&str>, date: Option<&str>| json!({"id": 1, "title": "A", "status": "published", "meta": {"jellyfin_item_id": id, "premiere_date": date}});
    let (gone, broken) = (
        json!({"item_id": "i", "doc": null, "http_status": 404}),
        json!({"item_id": "i", "doc": null, "http_status": 503}),
    );
    let made = json!({"item_id": "search:a|2025-10-01", "doc": null, "http_status": 404});
    let item =
        json!({"item_id": "x", "doc": {"Id": "x", "Name": "a", "PremiereDate": "2025-10-01"}, "http_status": 200});
    let search = || {
        Some(Question::Search(Search {
            title: Some("A".into()),
            date: "2025-10-01".into(),
        }))
    };
    let id = || Some(Question::Item("i".into()));
    let date = Some("2025-10-01");
    for (row, items, expected) in [
        (row(None, None), json!([]), None),
        (row(Some("i"), None), json!([]), id()),
        (row(Some("i"), date), json!([broken]), id()),
        (row(Some("i"), None), json!([gone]), None),
        (row(Some("i"), date), json!([gone]), search()),
        (row(Some("i"), date), json!([gone, made]), None),
        (row(Some("x"), date), json!([item]), None),
        (row(None, date), json!([]), search()),
        (row(None, date), json!([item]), None),
        (row(None, date), json!([made]), None),
    ] {
        let fetched = fetched(items.clone());
        assert_eq!(question(&row, &&fetched), expected, "{row} {items}");
        let arguments = Arguments {
            mode: Mode::MetadataOnly,
            backfill_version: "v",
            public_base: "https://x",
            default_namespace: None,
        };
        let lacks = decide(1, &row, &&fetched, &arguments) == Outcome::Skipped(Reason::NoItem);
        assert_eq!(
            lacks,
            expected.is_some() || row == row_without_anything(),
            "{row} {items}"
        );
    }
}

/// Neither id nor date: no question would help.
fn row_without_anything() -> Value {
    json!({"id": 1, "title": "A", "status": "published", "meta": {"jellyfin_item_id": null, "premiere_date": null}})
}

#[test]
fn only_what_cannot_be_found_is_left_for_good() {
    for reason in Reason::ALL {
        assert_eq!(
            reason.hours_until_next_attempt().is_none(),
            reason == Reason::NotFound,
            "{}",
            reason.name()
        );
        assert_eq!(reason.is_terminal(), reason == Reason::NotFound);
    }
}
