//! S3 asset tracking: scenes get structs and references, then sessions their sums.

mod existing;
mod phase;
pub mod program;
mod scenes;
mod sessions;
mod tables;
mod verdict;
mod write;

use media_assets_core::jobs::s3_assets::Counters;

pub use tables::{Found, Tables, REFERENCE, REFERENCE_KEY, SCENE_INPUT, SCENE_NEW, SESSION_INPUT, SESSION_NEW};
pub use verdict::{Decided, New};
pub use write::REFERENCE_CONTENT;

/// The job's name in the ledger and in messages.
const NAME: &str = "s3_assets";

tally_of_core!(Counters);
