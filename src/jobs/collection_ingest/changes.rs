//! What an ingest writes into the journal, and how a row is put into words for it.
//!
//! A row goes back as a whole or not at all, since its content, its state and its approval belong together. So each
//! change is one row: `before` is its image as jsonb text (none for a row that was made), `after` a fingerprint of the
//! image that the run left.

use crate::engine::journal::Changes;
use crate::engine::relation::Relation;

/// The row was made by the run.
pub const INSERTED: &str = "ingest_inserted";
/// Content, enrichers or reappearance: the row was updated.
pub const UPDATED: &str = "ingest_updated";
/// Unknown values of a skipped row were learned.
pub const FILLED: &str = "ingest_filled";
/// The row was soft-deleted, because its item was not seen.
pub const REMOVED: &str = "ingest_removed";
/// `last_ingest_time` of the collection; before and after are texts of the time in UTC.
pub const TIME: &str = "ingest_time";

/// Columns that a run may change, with the type to cast to; the others of the image only show that somebody else did.
pub const RESTORED: [&str; 20] = [
    "uri",
    "title",
    "season",
    "episode",
    "size",
    "mtime",
    "content_hash",
    "content_signature",
    "enricher_checksum",
    "state",
    "approved_for_broadcast",
    "duration_ms",
    "video_codec",
    "audio_codec",
    "container",
    "metadata",
    "is_deleted",
    "deleted_at",
    "updated_at",
    "canonical_key",
];

/// Columns whose text would depend on the session's time zone.
const TIMES: [&str; 3] = ["mtime", "deleted_at", "updated_at"];

/// The image of the row `a`, as an SQL expression of type jsonb.
pub fn image(assets: &Relation) -> String {
    let mut members: Vec<String> = RESTORED
        .iter()
        .map(|column| {
            if TIMES.contains(column) {
                format!("'{column}', a.{column}::pg_catalog.timestamptz AT TIME ZONE 'UTC'")
            } else if *column == "metadata" {
                // As text: JSON null is a value, and no metadata at all is SQL NULL.
                format!("'{column}', a.{column}::pg_catalog.text")
            } else {
                format!("'{column}', a.{column}")
            }
        })
        .collect();
    members.push("'collection_uuid', a.collection_uuid".to_owned());
    if assets.has("operator_verified") {
        members.push("'operator_verified', a.operator_verified".to_owned());
    }
    format!("pg_catalog.jsonb_build_object({})", members.join(", "))
}

/// The fingerprint of an image: 64 hexadecimal digits.
pub fn fingerprint(image: &str) -> String {
    format!("pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(({image})::pg_catalog.text, 'UTF8')), 'hex')")
}

/// The value of `column` in the image `image`, as an SQL expression of the column's type.
pub fn value_of(assets: &Relation, image: &str, column: &str) -> String {
    let sql_type = assets.type_of(column);
    if TIMES.contains(&column) {
        format!("(({image} ->> '{column}')::pg_catalog.timestamp AT TIME ZONE 'UTC')::{sql_type}")
    } else {
        format!("({image} ->> '{column}')::{sql_type}")
    }
}

/// Notes one row.
pub fn add(
    changes: &mut Changes,
    action: &'static str,
    relation: &str,
    id: [u8; 16],
    before: Option<String>,
    after: Option<String>,
) {
    let change = changes.of(action, relation, Some("uuid"), true);
    change.ids.push_uuid(id);
    change.before.push(before);
    change.after.push(after);
}
