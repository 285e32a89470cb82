//! A model of `media` and `i2v_jobs` for the tests of the thumbnails.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::borrow::Cow;
use std::collections::BTreeMap;

use media_assets_core::jobs::i2v_thumbnails::{decide, Counters, Job, Known, Media, Outcome};
use serde_json::Value;

/// A row of `media` with its own values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    pub is_video: bool,
    pub url: Option<String>,
    pub map: Option<Value>,
    pub is_public: Option<bool>,
    pub metadata: Option<Value>,
}

/// A row of `i2v_jobs`: source, original source, result.
#[derive(Clone, Debug, Default)]
pub struct JobRow {
    pub media_id: Option<String>,
    pub original_media_id: Option<String>,
    pub result_media_id: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Tables {
    pub media: BTreeMap<String, Row>,
    pub jobs: BTreeMap<String, JobRow>,
}

impl Tables {
    pub fn row<'a>(&'a self, id: &str) -> Option<Media<'a, &'a Value>> {
        let (id, row) = self.media.get_key_value(id)?;
        Some(Media {
            id: Cow::Borrowed(id),
            thumbnail_url: row.url.as_deref().map(Cow::Borrowed),
            thumbnail_urls: row.map.as_ref(),
            is_public: row.is_public,
            metadata: row.metadata.as_ref(),
        })
    }

    /// One run over the videos in the given order; `rejects` is the row trigger. Writes only when `execute`.
    pub fn run(
        &mut self,
        order: &[String],
        allow_private: bool,
        execute: bool,
        rejects: &dyn Fn(&str) -> bool,
    ) -> (Counters, BTreeMap<String, (String, Option<String>)>) {
        let mut counters = Counters::default();
        let mut decisions = BTreeMap::new();
        for id in order {
            let video = self.row(id).expect("a video");
            let decision = decide(&video, &&*self, allow_private);
            let mut outcome = decision.outcome;
            let given = match &outcome {
                Outcome::Updated {
                    thumbnail_url,
                    thumbnail_urls,
                } => Some((
                    thumbnail_url.clone().map(|(url, _)| url.into_owned()),
                    thumbnail_urls.as_ref().map(|(map, _)| (*map).clone()),
                )),
                _ => None,
            };
            if execute && given.is_some() && rejects(id) {
                outcome = Outcome::Failed;
            }
            counters.count(&outcome);
            decisions.insert(
                id.clone(),
                (outcome.name().to_owned(), outcome.reason().map(str::to_owned)),
            );
            // A dry run writes to its copy, as the shell remembers what it would have given.
            let is_updated = matches!(outcome, Outcome::Updated { .. });
            if let Some((url, map)) = given.filter(|_| is_updated) {
                let row = self.media.get_mut(id).expect("a video");
                row.url = url.or(row.url.take());
                row.map = map.or(row.map.take());
            }
        }
        counters.check().expect("the sums hold");
        (counters, decisions)
    }

    pub fn videos(&self) -> Vec<String> {
        let is_video = |(id, row): (&String, &Row)| row.is_video.then(|| id.clone());
        self.media.iter().filter_map(is_video).collect()
    }
}

impl<'a> Known<'a, &'a Value> for &'a Tables {
    fn media(&self, id: &str) -> Option<Media<'a, &'a Value>> {
        self.row(id)
    }

    fn job(&self, job_id: &str) -> Option<Job<'a>> {
        self.jobs.get(job_id).map(job)
    }

    fn job_by_result(&self, media_id: &str) -> Option<Job<'a>> {
        self.jobs
            .values()
            .find(|row| row.result_media_id.as_deref() == Some(media_id))
            .map(job)
    }
}

fn job(row: &JobRow) -> Job<'_> {
    Job {
        media_id: row.media_id.as_deref().map(Cow::Borrowed),
        original_media_id: row.original_media_id.as_deref().map(Cow::Borrowed),
    }
}
