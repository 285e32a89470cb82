//! A model of `collections` and `collection_assets` for the tests of collection ingest.

use std::borrow::Cow;
use std::collections::HashSet;

use media_assets_core::identity::enricher_checksum;
use media_assets_core::jobs::collection_ingest::{
    check_insert, check_reconcile, check_update, find_collection, item_key, plan, AssetState, Collection, Content,
    Counters, Decision, Guarded, IngestError, Item, Outcome, Reconcile, Refusal, Request, Scope, Stored, Write,
};
use media_assets_core::jobs::lesson::parse_asset_id;
use serde_json::{json, Value};

use crate::support::microseconds;

pub fn state(value: &Value) -> Option<AssetState> {
    AssetState::parse(value.as_str()?)
}

/// A row of `collection_assets`.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub collection: String,
    pub key: String,
    state: AssetState,
    approved: bool,
    is_deleted: bool,
    content: Content<'static>,
    content_signature: Option<String>,
    enricher_checksum: Option<String>,
    uri: Value,
    title: Value,
    season: Value,
    episode: Value,
}

impl Row {
    fn guarded(&self) -> Guarded<'_> {
        Guarded {
            state: self.state,
            approved: self.approved,
            is_deleted: self.is_deleted,
            content: self.content.clone(),
            content_signature: self.content_signature.as_deref(),
            enricher_checksum: self.enricher_checksum.as_deref(),
        }
    }

    fn stored(&self) -> Stored<'static> {
        Stored {
            state: self.state,
            is_deleted: self.is_deleted,
            content: self.content.clone(),
            content_signature: self.content_signature.clone().map(Cow::Owned),
            enricher_checksum: self.enricher_checksum.clone().map(Cow::Owned),
        }
    }

    /// Non-NULL values of an item replace what is there.
    fn describe(&mut self, item: &Value) {
        for (column, name) in [
            (&mut self.uri, "uri"),
            (&mut self.title, "title"),
            (&mut self.season, "season"),
            (&mut self.episode, "episode"),
        ] {
            if !item[name].is_null() {
                *column = item[name].clone();
            }
        }
    }

    pub fn written(&self) -> Value {
        json!({
            "collection_uuid": self.collection, "canonical_key": self.key, "state": self.state.name(),
            "approved_for_broadcast": self.approved, "is_deleted": self.is_deleted,
            "size": self.content.size, "mtime": self.content.mtime, "content_hash": self.content.hash,
            "content_signature": self.content_signature, "enricher_checksum": self.enricher_checksum,
            "uri": self.uri, "title": self.title, "season": self.season, "episode": self.episode,
        })
    }
}

fn content(value: &Value) -> Content<'static> {
    Content {
        hash: value["content_hash"].as_str().map(|hash| Cow::Owned(hash.to_owned())),
        size: value["size"].as_i64(),
        mtime: microseconds(&value["mtime"]),
    }
}

/// `@current` is the checksum of the collection, `@enrichers:[…]` that of an array.
pub fn checksum(value: &Value, current: Option<&str>) -> Option<String> {
    match value.as_str()? {
        "@current" => current.map(str::to_owned),
        text => match text.strip_prefix("@enrichers:") {
            Some(array) => enricher_checksum(&serde_json::from_str::<Value>(array).expect("an array")),
            None => Some(text.to_owned()),
        },
    }
}

/// What a run did.
pub struct Ingested {
    pub counters: Counters,
    pub scope: &'static str,
    pub items: Vec<Value>,
    pub rows: Vec<Row>,
}

/// One run over the model, as the shell does it with statements.
pub fn ingest(vector: &Value, rows: &[Row], execute: bool) -> Result<Ingested, IngestError> {
    let collection = collection_of(vector)?;
    let request = request_of(vector);
    request.check(
        collection["sync_enabled"] == json!(true),
        collection["ingestible"] == json!(true),
    )?;
    let items = items_in_scope(vector, collection, &request.scope);
    request.check_matches(items.len() as i64)?;
    let uuid = collection["uuid"].as_str().expect("uuid");
    let seen: HashSet<&str> = items.iter().filter_map(|(key, _)| key.as_deref()).collect();
    let is_unseen = |row: &Row| {
        let is_live = row.collection == uuid && !row.is_deleted && row.state != AssetState::Retired;
        is_live.then(|| !seen.contains(row.key.as_str()))
    };
    if request.reconcile {
        let unseen: Vec<bool> = rows.iter().filter_map(is_unseen).collect();
        let counted = Reconcile {
            items: items.len() as i64,
            unkeyable_items: items.iter().filter(|(key, _)| key.is_none()).count() as i64,
            live_rows: unseen.len() as i64,
            unseen_rows: unseen.into_iter().filter(|unseen| *unseen).count() as i64,
        };
        check_reconcile(counted, request.max_removed_fraction)?;
    }
    let mut run = Ingested {
        counters: Counters::default(),
        scope: request.scope.level().name(),
        items: Vec::new(),
        rows: rows.to_vec(),
    };
    let reject = Some(&vector["reject"]).filter(|_| execute);
    let mut last_key = None;
    for (key, item) in &items {
        match key {
            None => run.refuse(key, item, Refusal::Unkeyable),
            Some(_) if last_key == Some(key) => run.refuse(key, item, Refusal::Duplicate),
            Some(key) => run.decide(collection, key, item, reject),
        }
        last_key = Some(key);
    }
    if request.reconcile {
        for row in run.rows.iter_mut().filter(|row| is_unseen(row) == Some(true)) {
            row.is_deleted = true;
            row.approved = false;
            run.counters.assets_removed += 1;
        }
    }
    run.counters.check().expect("the sums hold");
    Ok(run)
}

fn collection_of(vector: &Value) -> Result<&Value, IngestError> {
    let collections = vector["collections"].as_array().expect("collections");
    let known: Vec<Collection> = collections
        .iter()
        .map(|collection| Collection {
            uuid: parse_asset_id(collection["uuid"].as_str().expect("uuid")).expect("uuid"),
            external_id: collection["external_id"].as_str(),
            name: collection["name"].as_str(),
        })
        .collect();
    let asked = vector["call"]["collection"].as_str().expect("collection");
    Ok(&collections[find_collection(asked, &known)?])
}

fn int(value: &Value) -> Option<i32> {
    value.as_i64().and_then(|number| i32::try_from(number).ok())
}

fn request_of(vector: &Value) -> Request<'_> {
    let call = &vector["call"];
    Request {
        scope: Scope {
            title: call["title"].as_str(),
            season: int(&call["season"]),
            episode: int(&call["episode"]),
        },
        reconcile: call["reconcile"] == json!(true),
        max_removed_fraction: call["max_removed_fraction"].as_f64().unwrap_or(0.1),
    }
}

/// The items in scope with their keys, sorted as the spool is.
fn items_in_scope<'v>(vector: &'v Value, collection: &Value, scope: &Scope<'_>) -> Vec<(Option<String>, &'v Value)> {
    let source_type = collection["source_type"].as_str().expect("source type");
    let case_sensitive = collection["case_sensitive"] != json!(false);
    let items = vector["items"].as_array().expect("items").iter();
    let mut items: Vec<(Option<String>, &Value)> = items
        .filter(|item| scope.contains(item["title"].as_str(), int(&item["season"]), int(&item["episode"])))
        .map(|item| {
            let locator = item["locator"].as_str();
            (
                locator.and_then(|locator| item_key(source_type, locator, case_sensitive)),
                item,
            )
        })
        .collect();
    items.sort_by_key(|(key, item)| {
        (
            key.clone(),
            item["locator"].as_str().map(str::to_owned),
            item.to_string(),
        )
    });
    items
}

impl Ingested {
    fn refuse(&mut self, key: &Option<String>, item: &Value, refusal: Refusal) {
        let outcome = Outcome::Refused(refusal);
        self.counters.count(&outcome);
        self.items.push(json!({
            "locator": item["locator"], "canonical_key": key, "action": outcome.action(), "reason": outcome.reason(),
        }));
    }

    fn decide(&mut self, collection: &Value, key: &str, item: &Value, reject: Option<&Value>) {
        let uuid = collection["uuid"].as_str().expect("uuid");
        let at = self
            .rows
            .iter()
            .position(|row| row.collection == uuid && row.key == key);
        let before = at.map(|at| self.rows[at].clone());
        let discovered = Item {
            content: content(item),
            enricher_checksum: item["enricher_checksum"].as_str().map(Cow::Borrowed),
        };
        let collection_checksum = enricher_checksum(&collection["enrichers"]);
        let stored = before.as_ref().map(Row::stored);
        let plan = plan(stored.as_ref(), &discovered, collection_checksum.as_deref());
        let decision = plan.decision;
        let was_approved = before.as_ref().is_some_and(|row| row.approved);
        self.items.push(json!({
            "locator": item["locator"], "canonical_key": key, "action": decision.action.name(),
            "reason": decision.reason.name(), "next_state": decision.next_state.map(AssetState::name),
            "approved": was_approved && !decision.clears_approval,
        }));
        let mut row = before.clone().unwrap_or_else(|| new_row(collection, key, item));
        let wrote = apply(&mut row, plan.write, &decision, item);
        let is_refused = |reject: &Value| {
            let column = reject["column"].as_str();
            column.is_some_and(|column| row.written()[column] == reject["value"])
        };
        if wrote && reject.is_some_and(is_refused) {
            self.counters.count(&Outcome::Refused(Refusal::Rejected));
            return;
        }
        self.counters.count(&Outcome::Decided(decision));
        match before {
            Some(before) => check_update(&before.guarded(), &row.guarded()),
            None => check_insert(&row.guarded()),
        }
        .expect("the trigger lets it pass");
        match at {
            Some(at) => self.rows[at] = row,
            None => self.rows.push(row),
        }
    }
}

/// A row before it is filled; a file's address is its path.
fn new_row(collection: &Value, key: &str, item: &Value) -> Row {
    let is_file = collection["source_type"] == "filesystem";
    Row {
        collection: collection["uuid"].as_str().expect("uuid").to_owned(),
        key: key.to_owned(),
        state: AssetState::New,
        approved: false,
        is_deleted: false,
        content: Content::default(),
        content_signature: None,
        enricher_checksum: None,
        uri: if is_file { item["locator"].clone() } else { Value::Null },
        title: Value::Null,
        season: Value::Null,
        episode: Value::Null,
    }
}

/// Writes what the plan says; false when it says nothing.
fn apply(row: &mut Row, write: Write<'_>, decision: &Decision, item: &Value) -> bool {
    let owned = |content: Content<'_>| Content {
        hash: content.hash.map(|hash| Cow::Owned(hash.into_owned())),
        size: content.size,
        mtime: content.mtime,
    };
    match write {
        Write::Nothing => return false,
        Write::FillIn {
            content,
            content_signature,
        } => {
            row.content = owned(content);
            row.content_signature = content_signature;
        }
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
        } => {
            row.content = owned(content);
            row.content_signature = content_signature;
            row.enricher_checksum = enricher_checksum.map(Cow::into_owned);
            row.state = decision.next_state.expect("a written row has a state");
            row.approved = row.approved && !decision.clears_approval;
            row.is_deleted = false;
            row.describe(item);
        }
    }
    true
}

/// The rows before the run.
pub fn existing(vector: &Value) -> Vec<Row> {
    let collections = vector["collections"].as_array().expect("collections");
    let rows = vector["existing"].as_array().expect("rows");
    rows.iter()
        .map(|row| {
            let collection = collections
                .iter()
                .find(|collection| collection["uuid"] == row["collection_uuid"]);
            let current = collection.and_then(|collection| enricher_checksum(&collection["enrichers"]));
            Row {
                collection: row["collection_uuid"].as_str().expect("uuid").to_owned(),
                key: row["canonical_key"].as_str().expect("key").to_owned(),
                state: state(&row["state"]).expect("a state"),
                approved: row["approved_for_broadcast"] == json!(true),
                is_deleted: row["is_deleted"] == json!(true),
                content: content(row),
                content_signature: row["content_signature"].as_str().map(str::to_owned),
                enricher_checksum: checksum(&row["enricher_checksum"], current.as_deref()),
                uri: row["uri"].clone(),
                title: row["title"].clone(),
                season: row["season"].clone(),
                episode: row["episode"].clone(),
            }
        })
        .collect()
}
