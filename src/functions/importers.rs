//! Importers of an ingest: they read, give items, and write nothing.

use std::cell::Cell;
use std::path::Path;

use media_assets_core::jobs::collection_ingest::{self as rules, PathMappings};
use media_assets_scanner::{scan, Found, Item, Options};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::pg_sys::Datum;
use pgrx::prelude::*;

use crate::error::{directory_unreadable, invalid_argument, may_not_read_server_files};
use crate::jobs::collection_ingest::postgres_time;
use crate::postgres::arrays::text_datum;
use crate::postgres::backend;
use crate::postgres::jsonb::{from_text, Jsonb};
use crate::postgres::memory::in_own_context;
use crate::postgres::row_set::RowSet;
use crate::postgres::user;

/// Problems that are named in WARNINGs; their rows go on.
const MOST_WARNINGS: i64 = 20;

#[pg_extern(sql = r#"
CREATE FUNCTION discover_files(root text, extensions text[] DEFAULT NULL, hash boolean DEFAULT false, follow_symlinks boolean DEFAULT false)
RETURNS TABLE (locator text, uri text, size bigint, mtime timestamptz, content_hash text, title text, season integer, episode integer,
    metadata jsonb)
VOLATILE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn discover_files(
    root: Option<&str>,
    extensions: Option<Vec<Option<String>>>,
    hash: Option<bool>,
    follow_symlinks: Option<bool>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<(), ErrorReport> {
    if !user::is_member_of("pg_read_server_files") {
        return Err(may_not_read_server_files("discover_files", &user::current_name()));
    }
    let root = root
        .filter(|root| Path::new(root).is_absolute())
        .ok_or_else(|| invalid_argument("root is not an absolute path", "discover_files('/srv/media')"))?;
    let flag = |name: &str, value: Option<bool>| {
        value.ok_or_else(|| {
            invalid_argument(
                format!("{name} must be true or false, not NULL"),
                "false is the default.",
            )
        })
    };
    let mut options = Options {
        hash: flag("hash", hash)?,
        follow_symlinks: flag("follow_symlinks", follow_symlinks)?,
        ..Options::default()
    };
    if let Some(extensions) = extensions {
        options.extensions = extensions.into_iter().flatten().collect();
    }
    let rows = RowSet::begin(fcinfo)?;
    let mut files = scan(Path::new(root), &options, &backend::check_for_interrupts)
        .map_err(|error| directory_unreadable(root, &error))?;
    let problems = Cell::new(0);
    let more = Cell::new(true);
    while more.get() {
        // The texts of some rows at a time.
        in_own_context(|| {
            for _ in 0..1000 {
                match files.next() {
                    Some(found) => rows.put(&columns(&found, &problems)),
                    None => {
                        more.set(false);
                        break;
                    }
                }
            }
        });
    }
    Ok(())
}

/// A problem is an item without a locator: a list that has one is not complete, so that nobody reconciles by it.
fn columns(found: &Found, problems: &Cell<i64>) -> [Option<Datum>; 9] {
    match found {
        Found::Item(item) => of_item(item),
        Found::Problem(problem) => {
            problems.set(problems.get() + 1);
            if problems.get() <= MOST_WARNINGS {
                crate::postgres::message::warning!("discover_files: {}: {}", problem.path, problem.what);
            }
            if problems.get() == MOST_WARNINGS {
                crate::postgres::message::warning!(
                    "discover_files: further problems are in the rows without a locator and not named"
                );
            }
            let mut columns = [None; 9];
            let metadata = format!(
                "{{\"path\": {}, \"problem\": {}}}",
                json_text(&problem.path),
                json_text(&problem.what)
            );
            columns[8] = Some(from_text(&metadata).datum());
            columns
        }
    }
}

fn of_item(item: &Item) -> [Option<Datum>; 9] {
    let optional = |text: &Option<String>| text.as_deref().map(text_datum);
    [
        Some(text_datum(&item.path)),
        Some(text_datum(&item.path)),
        Some(Datum::from(item.size)),
        item.mtime.and_then(postgres_time).map(Datum::from),
        optional(&item.hash),
        optional(&item.title),
        item.season.map(Datum::from),
        item.episode.map(Datum::from),
        None,
    ]
}

/// A text as a JSON string.
fn json_text(text: &str) -> String {
    let mut json = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => json.extend(['\\', letter]),
            letter if letter < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(letter))),
            letter => json.push(letter),
        }
    }
    json.push('"');
    json
}

#[pg_extern(sql = r#"
CREATE FUNCTION plex_items(response jsonb, path_mappings jsonb DEFAULT NULL)
RETURNS TABLE (locator text, uri text, size bigint, title text, season integer, episode integer, metadata jsonb)
IMMUTABLE PARALLEL SAFE LANGUAGE c AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';
"#)]
fn plex_items(
    response: Option<Jsonb>,
    path_mappings: Option<Jsonb>,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Result<(), ErrorReport> {
    let rows = RowSet::begin(fcinfo)?;
    let Some(response) = response else { return Ok(()) };
    let mappings = mappings_of(path_mappings.as_ref());
    for item in rules::plex_items(response.value(), &mappings) {
        rows.put(&[
            item.locator.as_deref().map(text_datum),
            item.uri.as_deref().map(text_datum),
            item.size.map(Datum::from),
            item.title.as_deref().map(text_datum),
            item.season.map(Datum::from),
            item.episode.map(Datum::from),
            Some(from_text(&item.metadata.to_string()).datum()),
        ]);
    }
    Ok(())
}

fn mappings_of(path_mappings: Option<&Jsonb>) -> PathMappings {
    path_mappings.map_or_else(PathMappings::default, |mappings| PathMappings::read(mappings.value()))
}

/// A path of a media server as a local one.
#[pg_extern(immutable, parallel_safe)]
fn map_media_path(path: Option<&str>, path_mappings: Option<Jsonb>) -> Option<String> {
    Some(mappings_of(path_mappings.as_ref()).map(path?).into_owned())
}
