//! Media and jobs that decide the videos of a slice: loaded level by level up their chains, each level by one statement.

use std::borrow::Cow;
use std::collections::HashMap;

use media_assets_core::jobs::i2v_thumbnails::{source_of, Job, Known, Media, Source};

use super::tables::{Tables, MEDIA};
use crate::postgres::arrays;
use crate::postgres::jsonb::{Jsonb, JsonbRef};
use crate::postgres::spi::{Connection, Mode, Rows, Statement};

/// A row of `media` as it was loaded. Its JSON lies in the slice's memory.
pub struct Row {
    pub is_video: bool,
    pub thumbnail_url: Option<String>,
    pub thumbnail_urls: Option<Jsonb>,
    pub is_public: Option<bool>,
    pub metadata: Option<Jsonb>,
    /// By which a write sees whether the row has changed.
    pub fingerprint: i64,
}

/// Source and original source of a job.
type JobRow = (Option<String>, Option<String>);

/// What was asked of one id.
struct Loaded {
    row: Option<Row>,
    job: Option<JobRow>,
    /// Looked for only where no job has the id itself.
    job_by_result: Option<JobRow>,
}

/// What is known while a slice is decided.
#[derive(Default)]
pub struct Store {
    loaded: HashMap<String, Loaded>,
}

/// An expression over a row `m` of `media`, by which a write sees whether what was read of it has changed.
pub fn fingerprint(tables: &Tables) -> String {
    let columns = MEDIA.map(|(name, _)| format!("m.{name}"));
    tables.media.row_version("m", &columns)
}

/// The statement that loads ids.
pub struct Loader {
    level: Statement,
}

impl Loader {
    pub fn new(tables: &Tables) -> Self {
        let (media, jobs, fingerprint) = (&tables.media.sql_name, &tables.jobs.sql_name, fingerprint(tables));
        // LATERAL with LIMIT keeps the plan a nested loop over the indexes, whatever the statistics say.
        Loader {
            level: Statement::new(format!(
                "SELECT u.n, m.fingerprint, m.is_video, m.thumbnail_url, m.thumbnail_urls, m.is_public, m.metadata,
                        j.found, j.media_id, j.original_media_id, r.found, r.media_id, r.original_media_id
                 FROM pg_catalog.unnest($1) WITH ORDINALITY u(id, n)
                 LEFT JOIN LATERAL (SELECT {fingerprint} AS fingerprint, m.type = 'video' AS is_video,
                                           m.thumbnail_url::pg_catalog.text AS thumbnail_url, m.thumbnail_urls, m.is_public, m.metadata
                                    FROM {media} m WHERE m.id = u.id LIMIT 1) m ON true
                 LEFT JOIN LATERAL (SELECT true AS found, j.media_id::pg_catalog.text AS media_id,
                                           j.original_media_id::pg_catalog.text AS original_media_id
                                    FROM {jobs} j WHERE j.job_id = u.id LIMIT 1) j ON true
                 LEFT JOIN LATERAL (SELECT true AS found, j2.media_id::pg_catalog.text AS media_id,
                                           j2.original_media_id::pg_catalog.text AS original_media_id
                                    FROM {jobs} j2 WHERE j2.result_media_id = u.id AND j.found IS NULL
                                    ORDER BY j2.job_id COLLATE pg_catalog.\"C\" LIMIT 1) r ON true"
            )),
        }
    }

    /// Loads `ids` and all rows up their chains.
    pub fn load(&self, connection: &Connection, mode: Mode, ids: Vec<String>) -> Store {
        let mut store = Store::default();
        let mut level = ids;
        while !level.is_empty() {
            crate::postgres::backend::check_for_interrupts();
            let parameters = [arrays::text(level.iter().map(|id| Some(id.as_str()))).into()];
            let rows = connection.run(&self.level, mode, &parameters);
            for row in 0..rows.len() {
                let Some(n) = rows.get::<i64>(row, 0) else { continue };
                store.loaded.insert(level[n as usize - 1].clone(), loaded(&rows, row));
            }
            drop(rows);
            let mut next: Vec<String> = level
                .iter()
                .filter_map(|id| match source_of(&store.row(id)?, &&store) {
                    Source::Media(source) if !store.loaded.contains_key(&source) => Some(source),
                    _ => None,
                })
                .collect();
            next.sort_unstable();
            next.dedup();
            level = next;
        }
        store
    }
}

fn loaded(rows: &Rows, row: usize) -> Loaded {
    let job = |found: usize| {
        let is_there: Option<bool> = rows.get(row, found);
        is_there.map(|_| (rows.text(row, found + 1), rows.text(row, found + 2)))
    };
    Loaded {
        row: rows.get(row, 1).map(|fingerprint| Row {
            is_video: rows.get(row, 2).unwrap_or(false),
            thumbnail_url: rows.text(row, 3),
            thumbnail_urls: rows.get(row, 4).map(Jsonb::copied),
            is_public: rows.get(row, 5),
            metadata: rows.get(row, 6).map(Jsonb::copied),
            fingerprint,
        }),
        job: job(7),
        job_by_result: job(10),
    }
}

impl Store {
    /// The row with this id as it was loaded.
    pub fn stored(&self, id: &str) -> Option<&Row> {
        self.loaded.get(id)?.row.as_ref()
    }

    /// As core sees it.
    pub fn row<'s>(&'s self, id: &str) -> Option<Media<'s, JsonbRef<'s>>> {
        let (id, loaded) = self.loaded.get_key_value(id)?;
        let row = loaded.row.as_ref()?;
        Some(Media {
            id: Cow::Borrowed(id),
            thumbnail_url: row.thumbnail_url.as_deref().map(Cow::Borrowed),
            thumbnail_urls: row.thumbnail_urls.as_ref().map(Jsonb::value),
            is_public: row.is_public,
            metadata: row.metadata.as_ref().map(Jsonb::value),
        })
    }
}

fn job(row: &JobRow) -> Job<'_> {
    Job {
        media_id: row.0.as_deref().map(Cow::Borrowed),
        original_media_id: row.1.as_deref().map(Cow::Borrowed),
    }
}

impl<'s> Known<'s, JsonbRef<'s>> for &'s Store {
    fn media(&self, id: &str) -> Option<Media<'s, JsonbRef<'s>>> {
        self.row(id)
    }

    fn job(&self, job_id: &str) -> Option<Job<'s>> {
        self.loaded.get(job_id)?.job.as_ref().map(job)
    }

    fn job_by_result(&self, media_id: &str) -> Option<Job<'s>> {
        self.loaded.get(media_id)?.job_by_result.as_ref().map(job)
    }
}
