//! Image-to-video thumbnails: what a generated video takes from the image or video that it was made from.
//!
//! A video is decided by [`decide`]: its source is found through its job ([`source_of`]), and each field that it lacks
//! comes up the chain of sources, from the nearest that has it and may pass it on ([`Chain`]).

mod chain;
mod decide;
mod thumbnails;

pub use chain::{source_of, Chain, Known, Source};
pub use decide::{decide, Counters, Decision, Outcome, Reason};
pub use thumbnails::{is_missing_url, Map};

use std::borrow::Cow;

/// A row of `media`.
#[derive(Clone, Debug)]
pub struct Media<'a, J> {
    pub id: Cow<'a, str>,
    pub thumbnail_url: Option<Cow<'a, str>>,
    /// `None` is SQL NULL.
    pub thumbnail_urls: Option<J>,
    pub is_public: Option<bool>,
    /// `None` is SQL NULL.
    pub metadata: Option<J>,
}

/// A row of `i2v_jobs`.
#[derive(Clone, Debug, Default)]
pub struct Job<'a> {
    pub media_id: Option<Cow<'a, str>>,
    pub original_media_id: Option<Cow<'a, str>>,
}
