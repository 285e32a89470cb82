//! A board and the servers that the client `media-assets jellyfin` speaks to.

use serde_json::{json, Value};

use crate::jellyfin::{board, item, run_client, BASE, VERSION};
use crate::stub::{Reply, Request, Stub};
use crate::{Database, Server, Session};

/// Fast enough for tests.
const QUICK: [&str; 4] = ["--timeout", "400ms", "--backoff", "10ms"];

/// Arguments of a call.
pub fn with<'a>(command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&[command][..], &QUICK, more].concat()
}

/// A database with a board of `rows` published rows: most name an item `i<id>`, every tenth is to be searched for, and
/// every seventh is not to be found.
pub fn published_board(server: &Server, rows: u32) -> (Database, Session) {
    let database = server.database();
    let mut session = database.session();
    board(&mut session);
    session.run(&format!(
        "INSERT INTO studio_board
         SELECT n, 'Title ' || n, NULL, 's3://outputs/' || n || '.mp4', 'published',
                CASE WHEN n % 10 = 0 THEN jsonb_build_object('premiere_date', '2025-10-01') ELSE jsonb_build_object('jellyfin_item_id', 'i' || n) END
         FROM generate_series(1, {rows}) n"
    ));
    (database, session)
}

/// Whether Jellyfin has the item of that number.
pub fn exists(number: u32) -> bool {
    !number.is_multiple_of(7)
}

/// What Jellyfin says to a request for items, by ids or by name.
pub fn items(request: &Request) -> Value {
    let of = |number: u32| {
        item(
            &format!("i{number}"),
            &format!("Title {number}"),
            "2025-10-01T00:00:00.0000000Z",
        )
    };
    let numbers: Vec<u32> = match (request.parameter("ids"), request.parameter("searchTerm")) {
        (Some(ids), _) => ids
            .split(',')
            .filter_map(|id| id.strip_prefix('i')?.parse().ok())
            .collect(),
        (None, Some(title)) => title
            .strip_prefix("Title ")
            .and_then(|n| n.parse().ok())
            .into_iter()
            .collect(),
        (None, None) => Vec::new(),
    };
    let found: Vec<Value> = numbers.into_iter().filter(|number| exists(*number)).map(of).collect();
    json!({"Items": found, "TotalRecordCount": found.len(), "StartIndex": 0})
}

/// What Jellyfin and Agent Zero say on a good day.
pub fn honest(request: &Request) -> Reply {
    match request.method.as_str() {
        "GET" => Reply::Json(200, items(request)),
        _ => Reply::Json(
            200,
            json!({"id": format!("envelope of {}", request.json()["correlation_id"].as_str().unwrap_or("?"))}),
        ),
    }
}

/// Runs the job over all that is due.
pub fn enrich(session: &mut Session) {
    session.run(&format!(
        "SELECT * FROM backfill_jellyfin_metadata(execute => true, backfill_version => '{VERSION}', public_base => '{BASE}')"
    ));
}

/// Board, items and events, ready to be posted.
pub fn queued_board(server: &Server, rows: u32) -> (Database, Session) {
    let (database, mut session) = published_board(server, rows);
    let stub = Stub::start(honest);
    let fetched = run_client(&database, &stub.base(), &with("fetch", &[]));
    assert_eq!(fetched.code, Some(0), "{}", fetched.text);
    enrich(&mut session);
    (database, session)
}
