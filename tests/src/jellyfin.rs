//! A board of published content and what Jellyfin answered about it.

use serde_json::{json, Value};

use crate::json::as_text;
use crate::{literal, literal_or_null, Session};

/// The version and the public address that runs of the tests use.
pub const VERSION: &str = "2025-10-14";
pub const BASE: &str = "https://watch.example";

/// Makes `studio_board` and the tables of the job.
pub fn board(session: &mut Session) {
    session.run(
        "SET client_min_messages = warning;
         CREATE TABLE studio_board (id bigint PRIMARY KEY, title text, namespace text, content_url text, status text, meta jsonb);
         SELECT * FROM create_jellyfin_tables()",
    );
}

/// A jsonb column as an SQL literal: `"json null"` stands for JSON null, null for SQL NULL.
fn jsonb(value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::String(text) if text == "json null" => "'null'".into(),
        value => literal(&value.to_string()),
    }
}

/// Adds a row of the board, given as the vectors do.
pub fn insert_row(session: &mut Session, row: &Value) {
    let text = |name: &str| literal_or_null(as_text(&row[name]).as_deref());
    session.run(&format!(
        "INSERT INTO studio_board VALUES ({}, {}, {}, {}, {}, {})",
        text("id"),
        text("title"),
        text("namespace"),
        text("content_url"),
        text("status"),
        jsonb(&row["meta"])
    ));
}

/// Adds what Jellyfin answered, given as the vectors do.
pub fn insert_item(session: &mut Session, item: &Value) {
    session.run(&format!(
        "INSERT INTO jellyfin_items (item_id, doc, http_status) VALUES ({}, {}, {})",
        literal_or_null(as_text(&item["item_id"]).as_deref()),
        jsonb(&item["doc"]),
        literal_or_null(as_text(&item["http_status"]).as_deref())
    ));
}

/// An item as Jellyfin gives it, with a path that nobody may see.
pub fn item(id: &str, name: &str, premiere_date: &str) -> Value {
    json!({"Id": id, "Name": name, "Path": format!("/media/secret/{id}.mp4"), "Container": "mp4", "RunTimeTicks": 1_234_000_000_i64,
           "PremiereDate": premiere_date, "ProductionYear": 2025, "ImageTags": {"Primary": "tag1"}, "UserData": {"Played": false}})
}
