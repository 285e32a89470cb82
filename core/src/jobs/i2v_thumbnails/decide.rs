//! What becomes of one video.

use std::borrow::Cow;

use super::chain::{source_of, Chain, Found, Known, Source};
use super::thumbnails::{is_missing_url, Map};
use super::Media;
use crate::jobs::counters::counters;
use crate::json::Members;

/// Why a video is passed over; each has one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    AlreadyHasThumbnails,
    NoI2vJobFound,
    JobHasNoSource,
    SourceMediaNotFound,
    /// The source's map is no object of strings, and no URL comes from it or from further up.
    SourceThumbnailsMalformed,
    /// Nothing anywhere up the chain.
    SourceHasNoThumbnails,
    /// Something usable stands at or behind a private row, and nothing else was found.
    SourceIsPrivate,
    /// Something was found, but nothing that the video lacks.
    NothingToCopy,
}

impl Reason {
    pub const fn name(self) -> &'static str {
        match self {
            Reason::AlreadyHasThumbnails => "already_has_thumbnails",
            Reason::NoI2vJobFound => "no_i2v_job_found",
            Reason::JobHasNoSource => "job_has_no_source",
            Reason::SourceMediaNotFound => "source_media_not_found",
            Reason::SourceThumbnailsMalformed => "source_thumbnails_malformed",
            Reason::SourceHasNoThumbnails => "source_has_no_thumbnails",
            Reason::SourceIsPrivate => "source_is_private",
            Reason::NothingToCopy => "nothing_to_copy",
        }
    }
}

/// What is done with a video.
#[derive(Clone, Debug)]
pub enum Outcome<'a, J> {
    /// The fields that the video lacks and gets; at least one of them. Each with the id of the row that it comes from.
    Updated {
        thumbnail_url: Found<Cow<'a, str>>,
        thumbnail_urls: Found<J>,
    },
    Skipped(Reason),
    /// The database refused the row.
    Failed,
}

impl<J> Outcome<'_, J> {
    /// The word in the column `outcome`.
    pub const fn name(&self) -> &'static str {
        match self {
            Outcome::Updated { .. } => "updated",
            Outcome::Skipped(_) => "skipped",
            Outcome::Failed => "failed",
        }
    }

    /// The word in the column `reason`; `None` for an update.
    pub const fn reason(&self) -> Option<&'static str> {
        match self {
            Outcome::Updated { .. } => None,
            Outcome::Skipped(reason) => Some(reason.name()),
            Outcome::Failed => Some("rejected"),
        }
    }
}

/// The outcome of a video and the rows that it was read from.
#[derive(Clone, Debug)]
pub struct Decision<'a, J> {
    pub outcome: Outcome<'a, J>,
    /// The id of the direct source, whether its row is there or not; `None` where no source is named or none was looked for.
    pub source: Option<String>,
    /// The rows of the chain that the decision depends on, besides the video: what a write has to re-check.
    pub read: Vec<String>,
}

/// Decides one video: the first reason that holds, else the fields that it lacks. An existing value is never changed.
///
/// Source: image-to-video thumbnails, decision table and rulings.
pub fn decide<'a, J: Members<'a>>(
    video: &Media<'a, J>,
    known: &impl Known<'a, J>,
    allow_private_sources: bool,
) -> Decision<'a, J> {
    let decided = |reason, source| Decision {
        outcome: Outcome::Skipped(reason),
        source,
        read: Vec::new(),
    };
    let lacks_url = is_missing_url(video.thumbnail_url.as_deref());
    let lacks_map = Map::read(video.thumbnail_urls).is_missing();
    if !lacks_url && !lacks_map {
        return decided(Reason::AlreadyHasThumbnails, None);
    }
    let id = match source_of(video, known) {
        Source::Media(id) => id,
        Source::NoJob => return decided(Reason::NoI2vJobFound, None),
        Source::NoSource => return decided(Reason::JobHasNoSource, None),
    };
    let Some(source) = known.media(&id) else {
        return decided(Reason::SourceMediaNotFound, Some(id));
    };
    let is_malformed = matches!(Map::read(source.thumbnail_urls), Map::Malformed);
    let chain = Chain::walk(video, source, known);
    let arrived = chain.arrived(video, allow_private_sources);
    let outcome = if arrived.is_nothing() {
        Outcome::Skipped(if arrived.held_back {
            Reason::SourceIsPrivate
        } else if is_malformed {
            Reason::SourceThumbnailsMalformed
        } else {
            Reason::SourceHasNoThumbnails
        })
    } else {
        let thumbnail_url = arrived.url.filter(|_| lacks_url);
        let thumbnail_urls = arrived.map.filter(|_| lacks_map);
        if thumbnail_url.is_none() && thumbnail_urls.is_none() {
            Outcome::Skipped(Reason::NothingToCopy)
        } else {
            Outcome::Updated {
                thumbnail_url,
                thumbnail_urls,
            }
        }
    };
    Decision {
        outcome,
        source: Some(id),
        read: chain.ids().map(str::to_owned).collect(),
    }
}

counters! {
    videos_scanned,
    updated,
    skipped,
    /// Videos that could not be written.
    errors,
    already_has_thumbnails,
    no_i2v_job_found,
    job_has_no_source,
    source_media_not_found,
    source_thumbnails_malformed,
    source_has_no_thumbnails,
    source_is_private,
    nothing_to_copy,
}

impl Counters {
    /// Counts one video.
    pub fn count<J>(&mut self, outcome: &Outcome<'_, J>) {
        self.videos_scanned += 1;
        match outcome {
            Outcome::Updated { .. } => self.updated += 1,
            Outcome::Failed => self.errors += 1,
            Outcome::Skipped(reason) => {
                self.skipped += 1;
                *self.of_reason(*reason) += 1;
            }
        }
    }

    fn of_reason(&mut self, reason: Reason) -> &mut i64 {
        match reason {
            Reason::AlreadyHasThumbnails => &mut self.already_has_thumbnails,
            Reason::NoI2vJobFound => &mut self.no_i2v_job_found,
            Reason::JobHasNoSource => &mut self.job_has_no_source,
            Reason::SourceMediaNotFound => &mut self.source_media_not_found,
            Reason::SourceThumbnailsMalformed => &mut self.source_thumbnails_malformed,
            Reason::SourceHasNoThumbnails => &mut self.source_has_no_thumbnails,
            Reason::SourceIsPrivate => &mut self.source_is_private,
            Reason::NothingToCopy => &mut self.nothing_to_copy,
        }
    }

    /// The sums that must hold in every batch.
    ///
    /// # Errors
    /// The sum that does not hold, in words.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.videos_scanned != self.updated + self.skipped + self.errors {
            return Err("videos scanned <> updated + skipped + errors");
        }
        let reasons = self.already_has_thumbnails
            + self.no_i2v_job_found
            + self.job_has_no_source
            + self.source_media_not_found
            + self.source_thumbnails_malformed
            + self.source_has_no_thumbnails
            + self.source_is_private
            + self.nothing_to_copy;
        if self.skipped != reasons {
            return Err("skipped <> the sum of its reasons");
        }
        Ok(())
    }
}
