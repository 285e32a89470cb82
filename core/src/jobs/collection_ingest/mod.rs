//! Collection ingest: what becomes of one discovered item of a collection, and what may be done to a row of
//! `collection_assets`.
//!
//! A run resolves its collection ([`find_collection`]), checks what it was asked for ([`Request::check`]), keys the items
//! in scope ([`item_key`]), decides each against the stored row ([`plan`]) and writes what the plan says. Importers turn
//! files ([`read_file_name`]) and Plex answers ([`plex_items`]) into items.

mod content;
mod counters;
mod decision;
mod file_name;
mod item;
mod lifecycle;
mod path_mappings;
mod plex;
mod rekey;
mod request;
mod without_secrets;

pub use content::{comparable_signatures, Content};
pub use counters::Counters;
pub use decision::{ingest_decision, Action, Decision, Reason};
pub use file_name::{has_extension, read_file_name, FileName, COMMON_EXTENSIONS};
pub use item::{item_key, plan, Item, Outcome, Plan, Refusal, Stored, Write};
pub use lifecycle::{check_insert, check_update, is_allowed_transition, is_restorable, Guarded, Violation};
pub use path_mappings::PathMappings;
pub use plex::{plex_items, PlexItem};
pub use rekey::{rekey, KeyRule};
pub use request::{check_reconcile, find_collection, Collection, IngestError, Reconcile, Request, Scope, ScopeLevel};
pub use without_secrets::without_secrets;

/// The states of the enum `asset_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AssetState {
    New,
    Enriching,
    Ready,
    Retired,
}

impl AssetState {
    pub const ALL: [AssetState; 4] = [
        AssetState::New,
        AssetState::Enriching,
        AssetState::Ready,
        AssetState::Retired,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            AssetState::New => "new",
            AssetState::Enriching => "enriching",
            AssetState::Ready => "ready",
            AssetState::Retired => "retired",
        }
    }

    /// The state called `name`, `None` for any other word.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}
