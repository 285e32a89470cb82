//! Collections of a media library: tables filled from vectors, and what a run left.

use serde_json::Value;

use crate::json::as_text;
use crate::{literal, literal_or_null, Session};

/// The counters of `ingest_collection`, in the order of its columns.
pub const INGEST_COUNTERS: [&str; 9] = [
    "assets_discovered",
    "assets_ingested",
    "assets_updated",
    "assets_skipped",
    "assets_failed",
    "duplicates_prevented",
    "assets_removed",
    "changed_content",
    "changed_enrichers",
];

/// The tables of an ingest, in `public`, and an empty table of items.
pub fn create_tables(session: &mut Session) {
    session.run(
        "SELECT * FROM create_ingest_tables();
         CREATE TABLE items (locator text, uri text, size bigint, mtime timestamptz, content_hash text, title text, season integer,
             episode integer, metadata jsonb, enricher_checksum text)",
    );
}

/// Adds a collection that can be ingested; gives its uuid.
pub fn add_collection(session: &mut Session, name: &str) -> String {
    session.text(&format!(
        "INSERT INTO collections (source_type, name, sync_enabled, ingestible) VALUES ('filesystem', {}, true, true) RETURNING uuid",
        literal(name)
    ))
}

/// A field of a vector as an SQL literal; JSON null and a missing field are NULL.
fn field(row: &Value, name: &str) -> String {
    literal_or_null(as_text(&row[name]).as_deref())
}

/// Fills the tables from a scenario, whatever the lifecycle says of such rows.
pub fn fill(session: &mut Session, scenario: &Value) {
    session.run("TRUNCATE collection_assets, collections, items");
    for row in scenario["collections"].as_array().expect("collections") {
        session.run(&format!(
            "INSERT INTO collections (uuid, source_type, external_id, name, sync_enabled, ingestible, case_sensitive, enrichers)
             VALUES ({}, {}, {}, {}, {}, {}, coalesce({}, true), {})",
            field(row, "uuid"),
            field(row, "source_type"),
            field(row, "external_id"),
            field(row, "name"),
            field(row, "sync_enabled"),
            field(row, "ingestible"),
            field(row, "case_sensitive"),
            field(row, "enrichers"),
        ));
    }
    session.run("ALTER TABLE collection_assets DISABLE TRIGGER USER");
    for row in scenario["existing"].as_array().expect("existing rows") {
        session.run(&format!(
            "INSERT INTO collection_assets (collection_uuid, canonical_key, uri, title, season, episode, size, mtime, content_hash,
                 content_signature, enricher_checksum, state, approved_for_broadcast, is_deleted, deleted_at, created_at, updated_at)
             VALUES ({}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, coalesce({}, false), coalesce({deleted}, false),
                 CASE WHEN {deleted} THEN '2025-01-01'::timestamptz END, '2024-01-01', '2024-01-01')",
            field(row, "collection_uuid"),
            field(row, "canonical_key"),
            field(row, "uri"),
            field(row, "title"),
            field(row, "season"),
            field(row, "episode"),
            field(row, "size"),
            field(row, "mtime"),
            field(row, "content_hash"),
            field(row, "content_signature"),
            checksum(row),
            field(row, "state"),
            field(row, "approved_for_broadcast"),
            deleted = format!("{}::boolean", field(row, "is_deleted")),
        ));
    }
    session.run("ALTER TABLE collection_assets ENABLE TRIGGER USER");
    for row in scenario["items"].as_array().expect("items") {
        let values: Vec<String> = [
            "locator",
            "uri",
            "size",
            "mtime",
            "content_hash",
            "title",
            "season",
            "episode",
            "metadata",
            "enricher_checksum",
        ]
        .iter()
        .map(|name| field(row, name))
        .collect();
        session.run(&format!("INSERT INTO items VALUES ({})", values.join(", ")));
    }
}

/// `@current` is the checksum of the row's collection, `@enrichers:[…]` that of an array.
pub fn checksum(row: &Value) -> String {
    match row["enricher_checksum"].as_str() {
        None => "NULL".into(),
        Some("@current") => format!(
            "(SELECT enricher_checksum(c.enrichers) FROM collections c WHERE c.uuid = {})",
            field(row, "collection_uuid")
        ),
        Some(text) => match text.strip_prefix("@enrichers:") {
            Some(array) => format!("enricher_checksum({}::jsonb)", literal(array)),
            None => literal(text),
        },
    }
}

/// The arguments of a scenario's call, behind `items`, in named notation.
pub fn arguments(scenario: &Value) -> String {
    let call = scenario["call"].as_object().expect("a call");
    let others: String = call
        .iter()
        .filter(|(name, _)| name.as_str() != "collection")
        .map(|(name, _)| format!(", {name} => {}", field(&scenario["call"], name)))
        .collect();
    format!("{}, 'items'{others}", field(&scenario["call"], "collection"))
}

/// All rows of both tables, as text; `last_ingest_time` only where asked for.
pub fn contents(session: &mut Session, with_time: bool) -> Vec<String> {
    let time = if with_time { "" } else { " - 'last_ingest_time'" };
    session
        .rows(&format!(
            "SELECT to_jsonb(a)::text FROM collection_assets a
             UNION ALL SELECT (to_jsonb(c){time})::text FROM collections c ORDER BY 1"
        ))
        .into_iter()
        .flatten()
        .flatten()
        .collect()
}

/// The counters of one row of `ingest_collection`.
pub fn counters(session: &mut Session, call: &str) -> Vec<i64> {
    let row = session.rows(&format!(
        "SELECT {} FROM ingest_collection({call})",
        INGEST_COUNTERS.join(", ")
    ));
    row[0]
        .iter()
        .map(|value| {
            value
                .as_deref()
                .and_then(|value| value.parse().ok())
                .expect("a counter")
        })
        .collect()
}
