//! The job as a whole: its option, its two phases, its place in the ledger.

use std::rc::Rc;

use media_assets_core::identity::canonical_url;
use media_assets_core::jobs::s3_assets::Counters;

use super::phase::PhaseOver;
use super::scenes::SceneDecider;
use super::sessions::SessionDecider;
use super::tables::{SCENE_WRITTEN, SESSION_WRITTEN};
use super::write::Writer;
use super::{Tables, NAME};
use crate::engine::ledger::record::{NewRun, RunMode};
use crate::engine::ledger::runs::Run;
use crate::engine::long::{phase_of, Buckets, Phase, Program};
use crate::engine::options::GivenOptions;
use crate::engine::relation::LockTarget;
use crate::engine::Tally;
use crate::error::{invalid_argument, Result};
use crate::jobs::keyset::{estimate, last_id, Keyset, Scope};
use crate::postgres::spi::{Connection, Mode};

/// The job over the relations of one run.
pub struct S3Program {
    tables: Rc<Tables>,
    /// What keys without a URL of their own are joined to.
    bucket_url: Option<String>,
    /// The last scene and the last session when the run started.
    bounds: [Option<String>; 2],
}

const PHASES: [&str; 2] = ["scenes", "sessions"];

impl S3Program {
    /// # Errors
    /// 22023 for an unknown option or one of the wrong type.
    pub fn options(mut given: GivenOptions) -> Result<Option<String>> {
        let bucket_url = given.text("bucket_url");
        given.finish(NAME)?;
        Ok(bucket_url)
    }

    fn check_bucket_url(bucket_url: Option<&str>) -> Result<()> {
        let Some(url) = bucket_url else { return Ok(()) };
        let lower = url.to_ascii_lowercase();
        let has_scheme = ["https://", "http://", "s3://"]
            .iter()
            .any(|scheme| lower.starts_with(scheme));
        let is_plain = !url.contains(|c: char| c.is_whitespace() || "?#@".contains(c));
        if has_scheme && is_plain && canonical_url(url).is_some() {
            return Ok(());
        }
        Err(invalid_argument(
            format!("bucket_url is no address of a bucket: {url}"),
            "bucket_url => 'https://my-bucket.s3.eu-central-1.amazonaws.com'; NULL leaves URLs out that nothing tells.",
        ))
    }

    /// For a new run, on the caller's search_path.
    ///
    /// # Errors
    /// 22023 for a `bucket_url` that is none; what is missing, as [`Tables::load`] says it.
    pub fn new(connection: &Connection, bucket_url: Option<String>, execute: bool) -> Result<Self> {
        Self::check_bucket_url(bucket_url.as_deref())?;
        let tables = Rc::new(Tables::load(connection, &|_| None, execute)?);
        let mode = if execute { Mode::Write } else { Mode::Read };
        let bounds = [&tables.scenes, &tables.sessions].map(|relation| last_id(connection, mode, relation));
        Ok(S3Program {
            tables,
            bucket_url,
            bounds,
        })
    }

    /// For a run of the ledger, on the relations that it names.
    ///
    /// # Errors
    /// What is missing by now.
    pub fn stored(connection: &Connection, run: &Run) -> Result<Self> {
        let stored = |name: &str| run.relation(name).map(str::to_owned);
        let bound = |phase: usize| run.bounds.get(phase).cloned().flatten();
        Ok(S3Program {
            tables: Rc::new(Tables::load(connection, &stored, true)?),
            bucket_url: Self::options(GivenOptions::new(run.options.clone()))?,
            bounds: [bound(0), bound(1)],
        })
    }

    /// The run as the ledger is to have it.
    pub fn new_run(&self, mode: RunMode, batch: i32) -> NewRun<'static> {
        let estimates = [estimate(&self.tables.scenes), estimate(&self.tables.sessions)];
        NewRun {
            job: NAME,
            mode,
            batch,
            options: self.bucket_url.iter().map(|url| ("bucket_url", url.clone())).collect(),
            relations: self.tables.names(),
            phases: &PHASES,
            bounds: self.bounds.to_vec(),
            counter_names: Counters::names(),
            rows_total: estimates[0]
                .zip(estimates[1])
                .map(|(scenes, sessions)| scenes + sessions),
        }
    }

    pub fn scenes(&self, buckets: Buckets) -> PhaseOver<SceneDecider> {
        let tables = &self.tables;
        let scope = self.scope(0, buckets);
        PhaseOver {
            entity: SceneDecider::new(tables, self.bucket_url.clone()),
            keyset: Keyset::new(&tables.select_scenes(), "s.id", &tables.scene_order, scope, None),
            writer: Writer::new(tables, &tables.scenes, &SCENE_WRITTEN, &tables.scene_versions),
            estimate: estimate(&tables.scenes),
            reread: false,
        }
    }

    pub fn sessions(&self, buckets: Buckets, execute: bool) -> PhaseOver<SessionDecider> {
        let tables = &self.tables;
        let scope = self.scope(1, buckets);
        PhaseOver {
            entity: SessionDecider::new(tables, self.bucket_url.clone(), execute),
            keyset: Keyset::new(&tables.select_sessions(), "s.id", &tables.session_order, scope, None),
            writer: Writer::new(tables, &tables.sessions, &SESSION_WRITTEN, &tables.session_versions),
            estimate: estimate(&tables.sessions),
            reread: false,
        }
    }

    fn scope(&self, phase: usize, buckets: Buckets) -> Scope {
        Scope {
            bound: self.bounds[phase].clone(),
            buckets,
        }
    }
}

impl Program for S3Program {
    fn name(&self) -> &'static str {
        NAME
    }

    fn locks(&self) -> LockTarget {
        self.tables.scenes.lock_target()
    }

    fn check_can_be_shared(&self) -> Result<()> {
        // Any part of the scenes, then any part of the sessions: the phases do not overlap.
        Ok(())
    }

    fn open(&self, _: &Connection, buckets: Buckets) -> Result<Vec<Box<dyn Phase>>> {
        Ok(vec![
            phase_of(self.scenes(buckets)),
            phase_of(self.sessions(buckets, true)),
        ])
    }

    fn max_rows(&self) -> Option<i64> {
        None
    }
}
