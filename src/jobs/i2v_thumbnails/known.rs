//! Media and jobs that decide the videos of a slice: loaded level by level up their chains, each level by two statements.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use media_assets_core::jobs::i2v_thumbnails::{is_missing_url, source_of, Job, Known, Map, Media, Source};

use super::tables::Tables;
use crate::jobs::row_version::Version;
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
    /// Microseconds since 2000; `None` too where a dry run does without the column.
    pub updated_at: Option<i64>,
    pub version: Version,
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

/// The statements that load rows by their ids.
pub struct Loader {
    media: Statement,
    jobs: Statement,
    jobs_by_result: Statement,
}

/// The columns of a media row that [`Row::read`] takes, of a row `m`.
pub fn columns(tables: &Tables) -> String {
    let updated_at = match tables.media.has("updated_at") {
        true => "m.updated_at",
        false => "NULL::pg_catalog.timestamptz AS updated_at",
    };
    format!(
        "{}, m.type = 'video' AS is_video, m.thumbnail_url::pg_catalog.text AS thumbnail_url, m.thumbnail_urls,
         m.is_public, m.metadata, {updated_at}",
        tables.versions.columns()
    )
}

impl Row {
    /// Reads [`columns`], which begin at `first`. JSON is copied, so that it outlives the rows.
    pub fn read(rows: &Rows, row: usize, first: usize) -> Self {
        Row {
            version: Version::read(rows, row, first),
            is_video: rows.get(row, first + 2).unwrap_or(false),
            thumbnail_url: rows.text(row, first + 3),
            thumbnail_urls: rows.get(row, first + 4).map(Jsonb::copied),
            is_public: rows.get(row, first + 5),
            metadata: rows.get(row, first + 6).map(Jsonb::copied),
            updated_at: rows.get::<pgrx::pg_sys::TimestampTz>(row, first + 7),
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
                "SELECT u.n, j.* FROM pg_catalog.unnest($1) WITH ORDINALITY u(id, n)
                 CROSS JOIN LATERAL (SELECT j.media_id::pg_catalog.text, j.original_media_id::pg_catalog.text
                                     FROM {jobs} j WHERE j.job_id = u.id LIMIT 1) j"
            )),
            jobs_by_result: Statement::new(format!(
                "SELECT u.n, j.* FROM pg_catalog.unnest($1) WITH ORDINALITY u(id, n)
                 CROSS JOIN LATERAL (SELECT j.media_id::pg_catalog.text, j.original_media_id::pg_catalog.text
                                     FROM {jobs} j WHERE j.result_media_id = u.id
                                     ORDER BY j.job_id COLLATE pg_catalog.\"C\" LIMIT 1) j"
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

    /// Looks for the job with each id, and where there is none, for the one that names it as its result.
    fn load_jobs(&self, connection: &Connection, mode: Mode, store: &mut Store, ids: &[String]) {
        let ids: Vec<&String> = ids.iter().filter(|id| !store.jobs.contains_key(*id)).collect();
        let jobs = found_jobs(connection, mode, &self.jobs, &ids);
        let without: Vec<&String> = ids
            .iter()
            .zip(&jobs)
            .filter(|(_, job)| job.is_none())
            .map(|(id, _)| *id)
            .collect();
        let mut by_result = found_jobs(connection, mode, &self.jobs_by_result, &without).into_iter();
        for (id, job) in ids.into_iter().zip(jobs) {
            let by_result = match job {
                Some(_) => None,
                None => by_result.next().flatten(),
            };
            store.jobs.insert(id.clone(), JobsOf { job, by_result });
        }
    }
}

/// What a statement finds for each id.
fn found_jobs(connection: &Connection, mode: Mode, statement: &Statement, ids: &[&String]) -> Vec<Option<JobRow>> {
    let mut jobs = vec![None; ids.len()];
    if ids.is_empty() {
        return jobs;
    }
    let parameters = [arrays::text(ids.iter().map(|id| Some(id.as_str()))).into()];
    let rows = connection.run(statement, mode, &parameters);
    for row in 0..rows.len() {
        if let Some(n) = rows.get::<i64>(row, 0) {
            jobs[n as usize - 1] = Some((rows.text(row, 1), rows.text(row, 2)));
        }
    }
    jobs
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
