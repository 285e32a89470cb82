//! A board of published content and what Jellyfin answered about it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{json, Value};

use crate::json::as_text;
use crate::{literal, literal_or_null, Database, Session};

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

/// A call of the backfill with the arguments that the tests share.
pub fn call(execute: bool, more: &str) -> String {
    format!(
        "SELECT * FROM backfill_jellyfin_metadata(execute => {execute}, backfill_version => '{VERSION}', public_base => '{BASE}'{more})"
    )
}

/// All four tables, row for row.
pub fn contents(session: &mut Session) -> Vec<Vec<Option<String>>> {
    session.rows(
        "SELECT 'board', id::text, to_jsonb(b)::text FROM studio_board b
         UNION ALL SELECT 'item', item_id, to_jsonb(i)::text FROM jellyfin_items i
         UNION ALL SELECT 'skip', row_id::text, to_jsonb(s)::text FROM jellyfin_skips s
         UNION ALL SELECT 'event', event_id::text, to_jsonb(e)::text FROM event_outbox e ORDER BY 1, 2",
    )
}

/// A published row that names its item.
pub fn row(id: i64, item_id: &str) -> Value {
    json!({"id": id, "title": "Example Video", "namespace": "pmoves", "content_url": format!("s3://outputs/{id}.mp4"),
           "status": "published", "meta": {"jellyfin_item_id": item_id, "kept": 1.50}})
}

/// What Jellyfin says of an item that it has.
pub fn answered(item_id: &str) -> Value {
    json!({"item_id": item_id, "doc": item(item_id, "Example Video", "2025-10-01"), "http_status": 200})
}

/// … and of one that it does not have.
pub fn gone(item_id: &str) -> Value {
    json!({"item_id": item_id, "doc": null, "http_status": 404})
}

/// The skips that are remembered.
pub fn reasons(session: &mut Session) -> String {
    session.text("SELECT coalesce(string_agg(row_id || ' ' || reason, ', ' ORDER BY row_id), '') FROM jellyfin_skips")
}

/// The board of the long runs: most rows are enriched, some are skipped, and one row of seven was skipped before.
pub fn long_board(session: &mut Session, rows: i64) {
    session.run(&format!(
        "INSERT INTO studio_board SELECT n, 'T' || n, NULL, 's3://b/' || n, 'published', jsonb_build_object('jellyfin_item_id', 'i' || n % 50) FROM generate_series(1, {rows}) n;
         INSERT INTO jellyfin_items SELECT 'i' || n, CASE WHEN n % 5 > 0 THEN jsonb_build_object('Id', 'i' || n) END, CASE WHEN n % 5 > 0 THEN 200 ELSE 404 END, '2025-01-01' FROM generate_series(0, 49) n;
         INSERT INTO jellyfin_skips SELECT n, 'no_item', timestamptz '2025-01-01', 0, timestamptz '2025-01-01' FROM generate_series(1, {rows}, 7) n"
    ));
}

/// A key that must never be printed or stored.
pub const KEY: &str = "k3y-that-nobody-may-see";

/// The client `media-assets`, built from this source.
fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "media-assets"]);
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        // What cargo tells this test of its own package would be taken for a change by build scripts.
        for (name, _) in std::env::vars_os() {
            let of_package = name
                .to_str()
                .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"));
            if of_package {
                build.env_remove(name);
            }
        }
        let built = build.status().expect("cargo runs");
        assert!(built.success(), "the client does not build");
        let tests = std::env::current_exe().expect("this test is a file");
        let folder = tests.parent().and_then(Path::parent).expect("target/debug/deps");
        folder.join("media-assets")
    })
}

/// `media-assets jellyfin` with these arguments, against the database and a server.
pub fn client(database: &Database, base: &str, arguments: &[&str]) -> Command {
    let (host, port) = database.server.address();
    let user = database.server.config.get_user().unwrap_or("postgres").to_owned();
    let mut command = Command::new(program());
    command
        .env_clear()
        .env(
            "DATABASE_URL",
            format!(
                "host={host} port={port} user={user} dbname={} sslmode=disable",
                database.name
            ),
        )
        .env("JELLYFIN_URL", base)
        .env("JELLYFIN_API_KEY", KEY)
        .env("AGENT_ZERO_BASE_URL", base)
        .arg("jellyfin")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// How a call of the client ended.
pub struct Ended {
    pub code: Option<i32>,
    /// Both outputs.
    pub text: String,
}

/// Runs the client to its end.
///
/// # Panics
/// When it cannot be started, or prints the key.
pub fn run_client(database: &Database, base: &str, arguments: &[&str]) -> Ended {
    ended(client(database, base, arguments).output().expect("the client starts"))
}

/// What a call came to; the key is in none of it.
///
/// # Panics
/// When it is.
pub fn ended(output: std::process::Output) -> Ended {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!text.contains(KEY), "the key is printed: {text}");
    Ended {
        code: output.status.code(),
        text,
    }
}
