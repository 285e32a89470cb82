//! S3 asset tracking: scenes get structs and references, then sessions their sums.

pub mod program;
mod scenes;
mod sessions;
mod tables;
mod verdict;

use media_assets_core::jobs::s3_assets::Counters;

use crate::engine::long::Buckets;
use crate::engine::Tally;
pub use scenes::Scenes;
pub use sessions::Sessions;
pub use tables::{Found, Tables, REFERENCE, REFERENCE_KEY, SCENE_INPUT, SCENE_NEW, SESSION_INPUT, SESSION_NEW};
pub use verdict::{Decided, REFERENCE_CONTENT};

impl Tally for Counters {
    fn names() -> Vec<&'static str> {
        Counters::default().columns().map(|(name, _)| name).collect()
    }

    fn values(&self) -> Vec<i64> {
        self.columns().map(|(_, value)| value).collect()
    }

    fn add(&mut self, other: &Self) {
        self.add(other);
    }

    fn check(&self) -> std::result::Result<(), &'static str> {
        self.check()
    }
}

/// Which rows a phase looks at.
#[derive(Clone)]
pub struct Scope {
    /// The last id; `None` means that there was no row when the run started.
    pub bound: Option<String>,
    pub buckets: Buckets,
    /// About how many rows there are.
    pub estimate: Option<i64>,
}

impl Scope {
    /// A further condition on `id`, an SQL expression.
    fn condition(&self, id: &str) -> String {
        self.buckets
            .condition(id)
            .map_or_else(String::new, |condition| format!(" AND {condition}"))
    }
}
