//! What holds of Jellyfin metadata for every row and every answer.

#[path = "support/schema.rs"]
mod schema;

use std::collections::HashMap;

use media_assets_core::jobs::jellyfin_metadata::{
    breach, content_published_payload, decide, event_id, is_candidate, lookup, resolve_jellyfin_item, Arguments, Known,
    Lookup, Mode, Outcome, PayloadSettings, Search, StoredItem, Unresolved,
};
use proptest::prelude::*;
use schema::breaches;
use serde_json::{json, Value};

/// A server path that no payload may hold.
const SECRET: &str = "/media/secret/example.mp4";

fn value() -> impl Strategy<Value = Value> {
    let odd = prop::sample::select(vec![
        json!(null),
        json!(5),
        json!(-1.5),
        json!(true),
        json!([]),
        json!({}),
        json!(["a", " a ", 1, null, ""]),
        json!(" "),
        json!("a, b ,,a"),
        json!("s3://bucket/a%20b.mp4"),
        json!("s3://bucket"),
        json!("https://cdn.test/x"),
        json!("2025-10-01"),
        json!("2025-10-01T05:00:00+09:00"),
        json!("12345678901"),
        json!("Name"),
        json!("id1"),
    ]);
    prop_oneof![4 => odd, 1 => "\\PC{0,6}".prop_map(Value::from)]
}

fn object(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop::collection::vec(prop::option::weighted(0.6, value()), names.len()).prop_map(|values| {
        let members = names.iter().zip(values);
        members
            .filter_map(|(name, value)| Some(((*name).to_owned(), value?)))
            .collect()
    })
}

fn meta() -> impl Strategy<Value = Value> {
    let known = object(&[
        "jellyfin_public_url",
        "jellyfin_item_id",
        "artifact_uri",
        "published_path",
        "thumbnail_uri",
        "thumbnail_url",
        "duration",
        "tags",
        "namespace",
        "premiere_date",
        "production_year",
        "container",
        "slug",
        "artifact_type",
        "publish_event_sent_at",
        "title",
    ])
    .prop_map(|mut meta| {
        meta["Path"] = SECRET.into();
        meta["secret"] = SECRET.into();
        meta
    });
    prop_oneof![8 => known, 1 => value()]
}

fn row() -> impl Strategy<Value = Value> {
    let columns = object(&[
        "title",
        "content_url",
        "namespace",
        "description",
        "public_url",
        "thumbnail_url",
        "tags",
    ]);
    let told = |row: &mut Value, name: &str| {
        if row.get(name).is_some_and(Value::is_null) {
            row[name] = format!("at {SECRET}").into();
        }
    };
    (columns, meta(), prop::bool::weighted(0.9)).prop_map(move |(mut row, meta, published)| {
        for name in ["title", "namespace", "description", "public_url", "tags"] {
            told(&mut row, name);
        }
        row["id"] = 7.into();
        row["status"] = if published { "published" } else { "draft" }.into();
        row["meta"] = meta;
        row
    })
}

fn item() -> impl Strategy<Value = Value> {
    let known = object(&[
        "Id",
        "Name",
        "PremiereDate",
        "RunTimeTicks",
        "ProductionYear",
        "Container",
        "ImageTags",
    ]);
    let known = (known, value()).prop_map(|(mut item, tag)| {
        item["Path"] = SECRET.into();
        if item.get("Container").is_some_and(Value::is_null) {
            item["Container"] = SECRET.into();
        }
        if item.get("ImageTags").is_some_and(Value::is_object) {
            item["ImageTags"] = json!({"Primary": tag});
        }
        item
    });
    prop_oneof![8 => known, 1 => value()]
}

/// A member of a payload, and one of that where it is an object.
fn member() -> impl Strategy<Value = (&'static str, Option<&'static str>)> {
    let outer = prop::sample::select(vec![
        "artifact_uri",
        "published_path",
        "title",
        "description",
        "public_url",
        "jellyfin_item_id",
        "jellyfin_public_url",
        "namespace",
        "thumbnail_url",
        "tags",
        "duration",
        "meta",
        "unknown",
    ]);
    let inner = prop::sample::select(vec![
        "premiere_date",
        "production_year",
        "container",
        "slug",
        "artifact_type",
        "Path",
    ]);
    (outer, prop::option::weighted(0.5, inner))
}

struct Fetched(HashMap<String, (Value, Option<i32>)>);

impl<'a> Known<&'a Value> for &'a Fetched {
    fn item(&self, item_id: &str) -> Option<StoredItem<&'a Value>> {
        let (doc, http_status) = self.0.get(item_id)?;
        Some(StoredItem {
            doc: Some(doc),
            http_status: *http_status,
        })
    }

    fn items_like(&self, _: &Search) -> Vec<StoredItem<&'a Value>> {
        self.0.keys().filter_map(|id| self.item(id)).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_payload_satisfies_the_schema_and_holds_no_path(row in row(), item in item(), base in prop::option::of("(https://j.test(/x)?/?| )")) {
        let settings = PayloadSettings { public_base: base.as_deref(), ..PayloadSettings::default() };
        if let Ok(payload) = content_published_payload(&row, Some(&item), &settings) {
            prop_assert_eq!(breaches(&payload), Vec::<String>::new(), "{}", payload);
            // What is no item has no path that could be known.
            prop_assert!(item.get("Path").is_none() || !payload.to_string().contains(SECRET), "{}", payload);
            let tags = payload["tags"].as_array().expect("tags");
            prop_assert_eq!(tags.iter().filter(|tag| *tag == "backfill").count(), 1);
        }
    }

    /// The rules of the function are those of the schema: what one of them takes, the other takes.
    #[test]
    fn the_function_and_the_schema_have_the_same_rules(changes in prop::collection::vec((member(), prop::option::weighted(0.9, value())), 0..4)) {
        let mut payload = json!({"artifact_uri": "s3://b/k", "published_path": "k", "tags": ["backfill"], "duration": 1.5,
                                 "meta": {"slug": "s", "production_year": 2025}});
        for ((outer, inner), value) in changes {
            let place = match inner {
                Some(inner) if payload[outer].is_object() => payload[outer].as_object_mut().map(|object| (object, inner)),
                _ => payload.as_object_mut().map(|object| (object, outer)),
            };
            if let Some((object, name)) = place {
                match value {
                    Some(value) => drop(object.insert(name.to_owned(), value)),
                    None => drop(object.remove(name)),
                }
            }
        }
        prop_assert_eq!(breach(&payload).is_none(), breaches(&payload).is_empty(), "{}", payload);
    }

    /// What was enriched is no candidate any more; no patch takes a value away.
    #[test]
    fn an_enriched_row_is_done(row in row(), items in prop::collection::vec((item(), prop::option::of(prop::sample::select(vec![200, 404, 500]))), 0..4), republish in any::<bool>()) {
        if !is_candidate(&row) {
            return Ok(());
        }
        let fetched = Fetched(items.into_iter().enumerate().map(|(at, item)| (format!("id{at}"), item)).collect());
        let mode = if republish { Mode::Republish } else { Mode::MetadataOnly };
        let arguments = Arguments { mode, backfill_version: "v", public_base: "https://j.test", default_namespace: None };
        let outcome = decide(7, &row, &&fetched, &arguments);
        let Outcome::Enriched(enriched) = outcome else { return Ok(()) };
        prop_assert!(row["meta"].is_object());
        let patch = enriched.patch.as_object().expect("a patch");
        prop_assert!(patch.values().all(|value| !value.is_null()));
        prop_assert!(!enriched.patch.to_string().contains(SECRET));
        let mut after = row.clone();
        for (name, value) in patch {
            after["meta"][name] = value.clone();
        }
        prop_assert!(!is_candidate(&after));
        prop_assert!(lookup(&after) != Lookup::Nothing);
        prop_assert_eq!(enriched.event.is_some(), republish);
        prop_assert!(republish || !enriched.sets_sent_at);
        if let Some(event) = enriched.event {
            prop_assert_eq!(event.id, event_id(7, "v"));
            prop_assert_eq!(breaches(&event.payload), Vec::<String>::new());
        }
    }

    #[test]
    fn one_hit_whatever_the_order(items in prop::collection::vec(item(), 0..5), title in "(Name|NAME| |x)") {
        let date = Some("2025-10-01");
        let forward = resolve_jellyfin_item(Some(&title), date, &items);
        prop_assert_eq!(&forward, &resolve_jellyfin_item(Some(&title), date, items.iter().rev()));
        let mut twice: Vec<&Value> = items.iter().collect();
        twice.extend(items.iter());
        prop_assert_eq!(&forward, &resolve_jellyfin_item(Some(&title), date, twice));
        if forward != Err(Unresolved::Ambiguous) {
            prop_assert_eq!(forward.is_ok(), items.iter().any(|item| resolve_jellyfin_item(Some(&title), date, [item]).is_ok()));
        }
    }

    #[test]
    fn an_event_has_the_id_of_its_row_and_version(a in any::<i64>(), b in any::<i64>(), v in "[0-9-]{1,4}", w in "[0-9-]{1,4}") {
        prop_assert_eq!(event_id(a, &v) == event_id(b, &w), (a, &v) == (b, &w));
    }
}

#[test]
fn the_id_of_an_event_never_changes() {
    let hex: String = event_id(7, "2025-10-14")
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(hex, "03aa28ec48cf566db655f335a849ea2e");
}
