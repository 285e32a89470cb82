//! What becomes of one candidate.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::candidate::{lookup, Lookup, Search};
use super::enrichment::enrich;
use super::payload::{content_published_payload, PayloadError, PayloadSettings};
use super::resolve::{resolve_jellyfin_item, Unresolved};
use super::{meta_of, SOURCE, TOPIC};
use crate::identity::trim;
use crate::jobs::counters::counters;
use crate::json::{Kind, Members};

/// Whether rows are only enriched, or their event is published again too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Republish,
    MetadataOnly,
}

impl Mode {
    /// The mode called `name`, `None` for any other word.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "republish" => Some(Mode::Republish),
            "metadata_only" => Some(Mode::MetadataOnly),
            _ => None,
        }
    }
}

/// What a run is called with.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'s> {
    pub mode: Mode,
    pub backfill_version: &'s str,
    pub public_base: &'s str,
    pub default_namespace: Option<&'s str>,
}

/// A row of `jellyfin_items`.
#[derive(Clone, Copy, Debug)]
pub struct StoredItem<J> {
    /// `None` is SQL NULL.
    pub doc: Option<J>,
    pub http_status: Option<i32>,
}

/// What was fetched from Jellyfin so far.
pub trait Known<J> {
    /// The row with this `item_id`.
    fn item(&self, item_id: &str) -> Option<StoredItem<J>>;
    /// The answers that may have this name and date; more than those do no harm.
    fn items_like(&self, search: &Search) -> Vec<StoredItem<J>>;
}

/// Why a row is passed over; each has one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No id and no date, or the item or the search was not fetched yet.
    NoItem,
    /// Jellyfin does not have it.
    NotFound,
    Ambiguous,
    MissingArtifactUri,
    InvalidPayload,
}

impl Reason {
    pub const ALL: [Reason; 5] = [
        Reason::NoItem,
        Reason::NotFound,
        Reason::Ambiguous,
        Reason::MissingArtifactUri,
        Reason::InvalidPayload,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Reason::NoItem => "no_item",
            Reason::NotFound => "not_found",
            Reason::Ambiguous => "ambiguous",
            Reason::MissingArtifactUri => "missing_artifact_uri",
            Reason::InvalidPayload => "invalid_payload",
        }
    }

    /// Whether time alone changes nothing: such a row is looked at again only on request, or when row or item changed.
    pub const fn is_terminal(self) -> bool {
        self.hours_until_next_attempt().is_none()
    }

    /// After how many hours such a row is looked at again, though neither row nor item has changed; `None` for never.
    ///
    /// What is known of an item may change without us (a failed answer is fetched again); what a person has to mend is
    /// not asked for every hour.
    pub const fn hours_until_next_attempt(self) -> Option<i32> {
        match self {
            Reason::NoItem => Some(1),
            Reason::NotFound => None,
            Reason::Ambiguous | Reason::MissingArtifactUri | Reason::InvalidPayload => Some(24),
        }
    }

    /// Whether it is about the event only, so that it does not matter where none is made.
    pub const fn is_about_event(self) -> bool {
        matches!(self, Reason::MissingArtifactUri | Reason::InvalidPayload)
    }
}

impl From<Unresolved> for Reason {
    fn from(unresolved: Unresolved) -> Self {
        match unresolved {
            Unresolved::NotFound => Reason::NotFound,
            Unresolved::Ambiguous => Reason::Ambiguous,
        }
    }
}

impl From<PayloadError> for Reason {
    fn from(error: PayloadError) -> Self {
        match error {
            PayloadError::MissingArtifactUri => Reason::MissingArtifactUri,
            PayloadError::InvalidPayload => Reason::InvalidPayload,
        }
    }
}

/// A row of `event_outbox`, state `queued`.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub id: [u8; 16],
    pub topic: &'static str,
    pub source: &'static str,
    pub subject_id: String,
    pub payload: Value,
}

/// What is written for a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Enriched {
    /// `meta = meta || patch`: a JSON object without nulls.
    pub patch: Value,
    /// In mode republish only.
    pub event: Option<Event>,
    /// Whether `meta.publish_event_sent_at` is missing and is set once the event is queued.
    pub sets_sent_at: bool,
}

/// What becomes of one row.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Enriched(Box<Enriched>),
    Skipped(Reason),
    /// The database refused the row.
    Failed,
}

/// Decides one candidate. `board_row` is the row as a JSON object of its columns, `row_id` its id.
///
/// Source: Jellyfin metadata, `backfill_jellyfin_metadata` and rulings.
pub fn decide<'a, J: Members<'a>>(
    row_id: i64,
    board_row: J,
    known: &impl Known<J>,
    arguments: &Arguments<'_>,
) -> Outcome {
    let item = match find_item(board_row, known) {
        Ok(item) => item,
        Err(reason) => return Outcome::Skipped(reason),
    };
    let event = match arguments.mode {
        Mode::MetadataOnly => None,
        Mode::Republish => {
            let settings = PayloadSettings {
                public_base: Some(arguments.public_base),
                default_namespace: arguments.default_namespace,
                backfill_version: Some(arguments.backfill_version),
            };
            match content_published_payload(board_row, Some(item), &settings) {
                Ok(payload) => Some(Event {
                    id: event_id(row_id, arguments.backfill_version),
                    topic: TOPIC,
                    source: SOURCE,
                    subject_id: row_id.to_string(),
                    payload,
                }),
                Err(error) => return Outcome::Skipped(error.into()),
            }
        }
    };
    let mut patch: Map<String, Value> = enrich(board_row, Some(item), Some(arguments.public_base)).members();
    patch.insert("backfill_version".to_owned(), arguments.backfill_version.into());
    Outcome::Enriched(Box::new(Enriched {
        patch: Value::Object(patch),
        sets_sent_at: event.is_some() && lacks_sent_at(board_row),
        event,
    }))
}

/// The item of a row, by id, and by name and date where Jellyfin no longer has that id or the row names none.
fn find_item<'a, J: Members<'a>>(board_row: J, known: &impl Known<J>) -> Result<J, Reason> {
    match lookup(board_row) {
        Lookup::Nothing => Err(Reason::NoItem),
        Lookup::Search(search) => find_by_name(&search, known),
        Lookup::Item { id, search } => match (known.item(&id).map(answer), search) {
            (Some(Answer::Item(item)), _) => Ok(item),
            (Some(Answer::Gone), Some(search)) => find_by_name(&search, known),
            (Some(Answer::Gone), None) => Err(Reason::NotFound),
            (Some(Answer::None) | None, _) => Err(Reason::NoItem),
        },
    }
}

/// Among what was fetched. Not found is an answer only when that search was made: else it is yet to be.
fn find_by_name<'a, J: Members<'a>>(search: &Search, known: &impl Known<J>) -> Result<J, Reason> {
    let items: Vec<J> = known
        .items_like(search)
        .into_iter()
        .filter_map(|stored| match answer(stored) {
            Answer::Item(item) => Some(item),
            Answer::Gone | Answer::None => None,
        })
        .collect();
    match resolve_jellyfin_item(search.title.as_deref(), Some(&search.date), items.iter().copied()) {
        Ok(id) => items
            .into_iter()
            .find(|item| super::string(*item, "Id").as_deref() == Some(&*id))
            .ok_or(Reason::NotFound),
        Err(Unresolved::NotFound) if search.title.is_some() && !was_made(search, known) => Err(Reason::NoItem),
        Err(unresolved) => Err(unresolved.into()),
    }
}

fn was_made<J>(search: &Search, known: &impl Known<J>) -> bool {
    known
        .item(&search.key())
        .is_some_and(|stored| matches!(stored.http_status, Some(404 | 410 | 200..=299)))
}

/// A question that Jellyfin has not answered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The item with this id.
    Item(String),
    /// The items of a name and a date.
    Search(Search),
}

/// What has to be asked of Jellyfin before a row can be decided; `None` when all that can be known is.
pub fn question<'a, J: Members<'a>>(board_row: J, known: &impl Known<J>) -> Option<Question> {
    let unanswered = |search: Search| match find_by_name(&search, known) {
        Err(Reason::NoItem) => Some(Question::Search(search)),
        _ => None,
    };
    match lookup(board_row) {
        Lookup::Nothing => None,
        Lookup::Search(search) => unanswered(search),
        Lookup::Item { id, search } => match known.item(&id).map(answer) {
            Some(Answer::Item(_)) => None,
            Some(Answer::Gone) => search.and_then(unanswered),
            Some(Answer::None) | None => Some(Question::Item(id)),
        },
    }
}

/// What Jellyfin said of an item.
enum Answer<J> {
    Item(J),
    Gone,
    /// A failure, or nothing that could be read: to be fetched again.
    None,
}

fn answer<'a, J: Members<'a>>(stored: StoredItem<J>) -> Answer<J> {
    match stored.http_status {
        Some(404 | 410) => Answer::Gone,
        None | Some(200..=299) => match stored.doc.filter(|doc| doc.kind() == Kind::Object) {
            Some(item) => Answer::Item(item),
            None => Answer::None,
        },
        Some(_) => Answer::None,
    }
}

fn lacks_sent_at<'a, J: Members<'a>>(board_row: J) -> bool {
    let sent_at = meta_of(board_row).and_then(|meta| meta.get("publish_event_sent_at"));
    sent_at.is_none_or(|sent_at| {
        sent_at.kind() == Kind::Null || sent_at.as_str().is_some_and(|text| trim(&text).is_empty())
    })
}

/// The id of the event of a row and a version: the same whenever it is made, so it is never queued twice.
pub fn event_id(row_id: i64, backfill_version: &str) -> [u8; 16] {
    let name = format!("{TOPIC}:{row_id}:{backfill_version}");
    *Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).as_bytes()
}

counters! {
    rows_scanned,
    enriched,
    /// Events that were not in the outbox before.
    events_queued,
    skipped_no_item,
    skipped_not_found,
    skipped_ambiguous,
    skipped_missing_artifact_uri,
    skipped_invalid_payload,
    /// Rows that could not be written.
    errors,
}

impl Counters {
    /// Counts one row; `queued` says whether its event is new in the outbox.
    pub fn count(&mut self, outcome: &Outcome, queued: bool) {
        self.rows_scanned += 1;
        match outcome {
            Outcome::Enriched(_) => {
                self.enriched += 1;
                self.events_queued += i64::from(queued);
            }
            Outcome::Failed => self.errors += 1,
            Outcome::Skipped(Reason::NoItem) => self.skipped_no_item += 1,
            Outcome::Skipped(Reason::NotFound) => self.skipped_not_found += 1,
            Outcome::Skipped(Reason::Ambiguous) => self.skipped_ambiguous += 1,
            Outcome::Skipped(Reason::MissingArtifactUri) => self.skipped_missing_artifact_uri += 1,
            Outcome::Skipped(Reason::InvalidPayload) => self.skipped_invalid_payload += 1,
        }
    }

    /// The sums that must hold in every batch.
    ///
    /// # Errors
    /// The sum that does not hold, in words.
    pub fn check(&self) -> Result<(), &'static str> {
        let skipped = self.skipped_no_item
            + self.skipped_not_found
            + self.skipped_ambiguous
            + self.skipped_missing_artifact_uri
            + self.skipped_invalid_payload;
        if self.rows_scanned != self.enriched + skipped + self.errors {
            return Err("rows scanned <> enriched + skipped + errors");
        }
        if self.events_queued > self.enriched {
            return Err("events queued > rows enriched");
        }
        Ok(())
    }
}
