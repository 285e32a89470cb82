//! `jellyfin_metadata` as a whole: its options, its place in the ledger.

use media_assets_core::jobs::jellyfin_metadata::Mode as JobMode;

use super::read::{Reader, Wanted};
use super::tables::{Found, Tables};
use super::{mode_name, Counters, JellyfinMetadata};
use crate::engine::ledger::record::{NewRun, RunMode};
use crate::engine::ledger::runs::Run;
use crate::engine::long::{phase_of, Buckets, Phase, Program};
use crate::engine::options::GivenOptions;
use crate::engine::relation::LockTarget;
use crate::engine::{Job, Tally};
use crate::error::{invalid_argument, not_supported, Result};
use crate::postgres::spi::{Connection, Mode};
use crate::settings;

/// What a caller asks for, with the settings in the place of what was left out.
#[derive(Clone, Debug)]
pub struct JellyfinOptions {
    pub mode: JobMode,
    pub backfill_version: String,
    pub public_base: String,
    /// Of rows that name none; `None` is the rules' own.
    pub default_namespace: Option<String>,
    pub max_rows: Option<i64>,
}

impl JellyfinOptions {
    /// # Errors
    /// 22023 for an unknown mode, for a version or base that neither the call nor its setting gives, for a base that is no
    /// http address, and for a negative number.
    pub fn new(
        mode: Option<&str>,
        backfill_version: Option<&str>,
        public_base: Option<&str>,
        max_rows: Option<i64>,
    ) -> Result<Self> {
        let mode = mode.and_then(JobMode::parse).ok_or_else(|| {
            invalid_argument(
                format!("unknown mode: {}", mode.unwrap_or("NULL")),
                "It is 'republish' (enrich rows and queue their events) or 'metadata_only' (enrich rows).",
            )
        })?;
        let given = |value: Option<&str>| {
            value
                .map(|value| value.trim().to_owned())
                .filter(|value| !value.is_empty())
        };
        let backfill_version = given(backfill_version)
            .or_else(settings::backfill_version)
            .ok_or_else(|| {
                invalid_argument(
                    "backfill_version is not given",
                    "backfill_version => '2025-10-14', or SET media_assets.backfill_version = '2025-10-14';",
                )
            })?;
        let public_base = given(public_base).or_else(settings::jellyfin_public_base).ok_or_else(|| {
            invalid_argument(
                "public_base is not given",
                "public_base => 'https://watch.example.org', or SET media_assets.jellyfin_public_base = 'https://watch.example.org';",
            )
        })?;
        let rest = ["http://", "https://"]
            .into_iter()
            .find_map(|scheme| public_base.strip_prefix(scheme));
        // The rest of a link is put behind it.
        let is_base = |rest: &str| !rest.is_empty() && !rest.contains(|c: char| c.is_whitespace() || "@?#".contains(c));
        if !rest.is_some_and(is_base) {
            return Err(invalid_argument(
                "public_base is no address of a web server",
                "public_base => 'https://watch.example.org', with a path where Jellyfin has one, and without user, password, ? or #.",
            ));
        }
        if max_rows.is_some_and(|max| max < 0) {
            return Err(invalid_argument(
                "max_rows must not be negative",
                "Leave it out for all rows.",
            ));
        }
        Ok(JellyfinOptions {
            mode,
            backfill_version,
            public_base,
            default_namespace: settings::default_namespace(),
            max_rows,
        })
    }

    /// # Errors
    /// As [`JellyfinOptions::new`], and 22023 for an unknown option or one of the wrong type.
    pub fn parse(mut given: GivenOptions) -> Result<Self> {
        let mode = given
            .text("mode")
            .unwrap_or_else(|| mode_name(JobMode::Republish).to_owned());
        let backfill_version = given.text("backfill_version");
        let public_base = given.text("public_base");
        let max_rows = given.number("max_rows")?;
        let default_namespace = given.text("default_namespace");
        given.finish(JellyfinMetadata::NAME)?;
        let options = Self::new(
            Some(&mode),
            backfill_version.as_deref(),
            public_base.as_deref(),
            max_rows,
        )?;
        Ok(JellyfinOptions {
            default_namespace: default_namespace.or(options.default_namespace),
            ..options
        })
    }

    /// All of them by name: a run that is resumed takes nothing from the settings of its session.
    fn named(&self) -> Vec<(&'static str, String)> {
        let mut named = vec![
            ("mode", mode_name(self.mode).to_owned()),
            ("backfill_version", self.backfill_version.clone()),
            ("public_base", self.public_base.clone()),
        ];
        named.extend(self.default_namespace.clone().map(|name| ("default_namespace", name)));
        named.extend(self.max_rows.map(|max| ("max_rows", max.to_string())));
        named
    }
}

/// The job over the relations of one run.
pub struct JellyfinProgram {
    tables: Tables,
    options: JellyfinOptions,
    bound: Option<i64>,
}

const PHASES: [&str; 1] = [JellyfinMetadata::NAME];

impl JellyfinProgram {
    /// For a new run, on the caller's search_path.
    ///
    /// # Errors
    /// What is missing, as [`Tables::load`] says it.
    pub fn new(connection: &Connection, options: JellyfinOptions, execute: bool) -> Result<Self> {
        let tables = Tables::load(connection, Found::look(connection), execute)?;
        let mut program = JellyfinProgram {
            tables,
            options,
            bound: None,
        };
        let mode = if execute { Mode::Write } else { Mode::Read };
        program.bound = program.reader(connection, Buckets::ALL, mode).bound();
        Ok(program)
    }

    /// For a run of the ledger, on the relations that it names.
    ///
    /// # Errors
    /// What is missing by now.
    pub fn stored(connection: &Connection, run: &Run) -> Result<Self> {
        let found = Found::look_at(connection, &|name| run.relation(name).map(str::to_owned));
        let bound = run.bounds.first().cloned().flatten();
        Ok(JellyfinProgram {
            tables: Tables::load(connection, found, true)?,
            options: JellyfinOptions::parse(GivenOptions::new(run.options.clone()))?,
            bound: bound.and_then(|bound| bound.parse().ok()),
        })
    }

    /// The run as the ledger is to have it.
    pub fn new_run(&self, mode: RunMode, batch: i32) -> NewRun<'static> {
        NewRun {
            job: JellyfinMetadata::NAME,
            mode,
            batch,
            options: self.options.named(),
            relations: self.tables.names(),
            phases: &PHASES,
            bounds: vec![self.bound.map(|bound| bound.to_string())],
            counter_names: Counters::names(),
            rows_total: None,
        }
    }

    fn reader(&self, connection: &Connection, buckets: Buckets, mode: Mode) -> Reader {
        let wanted = Wanted::Due(self.options.mode);
        Reader::new(connection, &self.tables, wanted, buckets, self.bound, mode)
    }

    pub fn job(&self, connection: &Connection, buckets: Buckets, execute: bool) -> JellyfinMetadata {
        let mode = if execute { Mode::Write } else { Mode::Read };
        // Without a bound there was no row when the run started; those that came since are not its own.
        let buckets = if self.bound.is_some() { buckets } else { Buckets::NONE };
        JellyfinMetadata::new(&self.tables, self.reader(connection, buckets, mode), &self.options)
    }
}

impl Program for JellyfinProgram {
    fn name(&self) -> &'static str {
        JellyfinMetadata::NAME
    }

    fn locks(&self) -> LockTarget {
        self.tables.board.lock_target()
    }

    fn check_can_be_shared(&self) -> Result<()> {
        if self.options.max_rows.is_some() {
            return Err(not_supported(
                "a run with max_rows cannot be shared",
                "The first so many rows are one sequence; leave max_rows out.",
            ));
        }
        Ok(())
    }

    fn open(&self, connection: &Connection, buckets: Buckets) -> Result<Vec<Box<dyn Phase>>> {
        Ok(vec![phase_of(self.job(connection, buckets, true))])
    }

    fn max_rows(&self) -> Option<i64> {
        self.options.max_rows
    }

    fn failures_fill_limit(&self) -> bool {
        JellyfinMetadata::FAILURES_FILL_LIMIT
    }
}
