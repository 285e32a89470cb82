//! Jellyfin metadata: which published rows lack it, which item belongs to a row, what is written and published.
//!
//! A candidate ([`is_candidate`]) is looked up ([`lookup`]) in what was fetched from Jellyfin; [`decide`] gives the patch
//! of its `meta` and the event, or the reason why there is none.

mod candidate;
mod decide;
mod enrichment;
mod payload;
mod private;
mod resolve;
mod schema;

pub use candidate::{is_candidate, lookup, search_key, search_key_of, Lookup, Search};
pub use decide::{
    decide, event_id, question, Arguments, Counters, Enriched, Event, Known, Mode, Outcome, Question, Reason,
    StoredItem,
};
pub use enrichment::{enrich, Enrichment};
pub use payload::{content_published_payload, PayloadError, PayloadSettings};
pub use resolve::{resolve_jellyfin_item, Unresolved};
pub use schema::breach;

/// The topic of the events, with its version.
pub const TOPIC: &str = "content.published.v1";

/// `source` of the events.
pub const SOURCE: &str = "backfill";

/// The namespace where neither row nor setting has one.
pub const DEFAULT_NAMESPACE: &str = "pmoves";

use std::borrow::Cow;

use crate::json::{Json, Kind};

/// The string member `name` as it stands, unless it is blank.
fn string<'a, J: Json<'a>>(object: J, name: &str) -> Option<Cow<'a, str>> {
    object
        .get(name)?
        .as_str()
        .filter(|text| !crate::identity::trim(text).is_empty())
}

/// The `meta` of a board row; what is no object is read as `{}`, which has nothing either.
fn meta_of<'a, J: Json<'a>>(board_row: J) -> Option<J> {
    board_row.get("meta").filter(|meta| meta.kind() == Kind::Object)
}

/// A string of `meta`.
fn meta_string<'a, J: Json<'a>>(board_row: J, name: &str) -> Option<Cow<'a, str>> {
    string(meta_of(board_row)?, name)
}
