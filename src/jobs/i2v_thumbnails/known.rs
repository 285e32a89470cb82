//! Media and jobs that decide the videos of a slice: loaded level by level up their chains, each level by two statements.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use media_assets_core::jobs::i2v_thumbnails::{is_missing_url, source_of, Job, Known, Map, Media, Source};

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

/// The jobs of one id: the one that has it, and where none has, the one that names it as its result.
#[derive(Default)]
struct JobsOf {
    job: Option<JobRow>,
    by_result: Option<JobRow>,
}

/// What is known while a slice is decided.
#[derive(Default)]
pub struct Store {
    /// `None` for an id that no row has.
    media: HashMap<String, Option<Row>>,
    jobs: HashMap<String, JobsOf>,
}

/// An expression over a row `m` of `media`, by which a write sees whether what was read of it has changed.
pub fn fingerprint(tables: &Tables) -> String {
    let columns = MEDIA.map(|(name, _)| format!("m.{name}"));
    tables.media.row_version("m", &columns)
}

/// The statements that load rows by their ids.
pub struct Loader {
    media: Statement,
    jobs: Statement,
}

/// The columns of a media row that [`Row::read`] takes, of a row `m`.
pub fn columns(tables: &Tables) -> String {
    format!(
        "{} AS fingerprint, m.type = 'video' AS is_video, m.thumbnail_url::pg_catalog.text AS thumbnail_url, m.thumbnail_urls,
         m.is_public, m.metadata",
        fingerprint(tables)
    )
}

impl Row {
    /// Reads [`columns`], which begin at `first`. JSON is copied, so that it outlives the rows.
    pub fn read(rows: &Rows, row: usize, first: usize) -> Self {
        Row {
            fingerprint: rows.get(row, first).unwrap_or_default(),
            is_video: rows.get(row, first + 1).unwrap_or(false),
            thumbnail_url: rows.text(row, first + 2),
            thumbnail_urls: rows.get(row, first + 3).map(Jsonb::copied),
            is_public: rows.get(row, first + 4),
            metadata: rows.get(row, first + 5).map(Jsonb::copied),
        }
    }

    fn lacks(&self) -> (bool, bool) {
        let map = Map::read(self.thumbnail_urls.as_ref().map(Jsonb::value));
        (is_missing_url(self.thumbnail_url.as_deref()), map.is_missing())
    }

    /// Whether it has a URL and a map to give.
    fn is_complete(&self) -> bool {
        let map = Map::read(self.thumbnail_urls.as_ref().map(Jsonb::value));
        !is_missing_url(self.thumbnail_url.as_deref()) && matches!(map, Map::Usable(_))
    }
}

impl Loader {
    pub fn new(tables: &Tables) -> Self {
        let (media, jobs) = (&tables.media.sql_name, &tables.jobs.sql_name);
        let columns = columns(tables);
        // LATERAL with LIMIT keeps the plan a nested loop over the indexes, whatever the statistics say.
        Loader {
            media: Statement::new(format!(
                "SELECT u.n, m.* FROM pg_catalog.unnest($1) WITH ORDINALITY u(id, n)
                 CROSS JOIN LATERAL (SELECT {columns} FROM {media} m WHERE m.id = u.id LIMIT 1) m"
            )),
            jobs: Statement::new(format!(
                "SELECT u.n, j.found, j.media_id, j.original_media_id, r.found, r.media_id, r.original_media_id
                 FROM pg_catalog.unnest($1) WITH ORDINALITY u(id, n)
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

    /// Loads what decides the videos with these ids, all rows up their chains. Videos that `store` has are taken as they
    /// are.
    ///
    /// A video that lacks both fields takes them from the first row that has both, or something is kept back on the way
    /// from it: what is further up changes nothing, and is not loaded for it.
    pub fn load(&self, connection: &Connection, mode: Mode, store: &mut Store, ids: Vec<String>) {
        self.load_media(connection, mode, store, &ids);
        let lacks_both = |id: &String| store.stored(id).is_none_or(|row| row.lacks() == (true, true));
        let (short, whole): (Vec<String>, Vec<String>) = ids.into_iter().partition(lacks_both);
        self.climb(connection, mode, store, short, true);
        self.climb(connection, mode, store, whole, false);
    }

    fn climb(&self, connection: &Connection, mode: Mode, store: &mut Store, ids: Vec<String>, short: bool) {
        let mut met: HashSet<String> = ids.iter().cloned().collect();
        let mut level = ids;
        while !level.is_empty() {
            crate::postgres::backend::check_for_interrupts();
            self.load_media(connection, mode, store, &level);
            level.retain(|id| store.stored(id).is_some_and(|row| !(short && row.is_complete())));
            self.load_jobs(connection, mode, store, &level);
            let sources = level
                .iter()
                .filter_map(|id| match source_of(&store.row(id)?, &&*store) {
                    Source::Media(source) => Some(source),
                    Source::NoJob | Source::NoSource => None,
                });
            level = sources.filter(|source| met.insert(source.clone())).collect();
        }
    }

    fn load_media(&self, connection: &Connection, mode: Mode, store: &mut Store, ids: &[String]) {
        let ids: Vec<&String> = ids.iter().filter(|id| !store.media.contains_key(*id)).collect();
        if ids.is_empty() {
            return;
        }
        let parameters = [arrays::text(ids.iter().map(|id| Some(id.as_str()))).into()];
        let rows = connection.run(&self.media, mode, &parameters);
        for id in &ids {
            store.media.insert((*id).clone(), None);
        }
        for row in 0..rows.len() {
            if let Some(n) = rows.get::<i64>(row, 0) {
                store
                    .media
                    .insert(ids[n as usize - 1].clone(), Some(Row::read(&rows, row, 1)));
            }
        }
    }

    fn load_jobs(&self, connection: &Connection, mode: Mode, store: &mut Store, ids: &[String]) {
        let ids: Vec<&String> = ids.iter().filter(|id| !store.jobs.contains_key(*id)).collect();
        if ids.is_empty() {
            return;
        }
        let parameters = [arrays::text(ids.iter().map(|id| Some(id.as_str()))).into()];
        let rows = connection.run(&self.jobs, mode, &parameters);
        for row in 0..rows.len() {
            let Some(n) = rows.get::<i64>(row, 0) else { continue };
            let job = |found: usize| {
                let is_there: Option<bool> = rows.get(row, found);
                is_there.map(|_| (rows.text(row, found + 1), rows.text(row, found + 2)))
            };
            let jobs = JobsOf {
                job: job(1),
                by_result: job(4),
            };
            store.jobs.insert(ids[n as usize - 1].clone(), jobs);
        }
    }
}

impl Store {
    /// The row with this id as it was loaded.
    pub fn stored(&self, id: &str) -> Option<&Row> {
        self.media.get(id)?.as_ref()
    }

    /// Takes a row that was read in another way.
    pub fn put(&mut self, id: String, row: Row) {
        self.media.insert(id, Some(row));
    }

    /// As core sees it.
    pub fn row<'s>(&'s self, id: &str) -> Option<Media<'s, JsonbRef<'s>>> {
        let (id, row) = self.media.get_key_value(id)?;
        let row = row.as_ref()?;
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
        self.jobs.get(job_id)?.job.as_ref().map(job)
    }

    fn job_by_result(&self, media_id: &str) -> Option<Job<'s>> {
        self.jobs.get(media_id)?.by_result.as_ref().map(job)
    }
}
