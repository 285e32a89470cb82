//! `asset_keys` as a whole: its option, its phases, its place in the ledger.

use super::asset_keys::{AssetKeys, Counters};
use super::asset_tables::{self, Found};
use super::wrong_keys::WrongKeys;
use crate::engine::ledger::record::{NewRun, RunMode};
use crate::engine::ledger::runs::Run;
use crate::engine::long::{Buckets, Phase, PhaseOf, Program};
use crate::engine::options::GivenOptions;
use crate::engine::relation::{LockTarget, Relation};
use crate::engine::{rights, Job, Tally};
use crate::error::Result;
use crate::postgres::spi::Connection;

/// The job over the assets of one run.
pub struct KeysProgram {
    pub assets: Relation,
    /// Whether keys that no longer fit their row are taken away first.
    pub refresh: bool,
}

const PHASES: [&str; 2] = ["wrong_keys", AssetKeys::NAME];

impl KeysProgram {
    /// # Errors
    /// 22023 for an unknown option or one of the wrong type.
    pub fn refresh_of(mut given: GivenOptions) -> Result<bool> {
        let refresh = given.flag("refresh")?;
        given.finish(AssetKeys::NAME)?;
        Ok(refresh)
    }

    /// Finds `assets` and checks all that can be known before the run; `None` in a dry run that has no such table.
    ///
    /// # Errors
    /// 42P01, 42703, 42804, 55000 with everything that is missing; 42501 for row security or a missing privilege.
    pub fn load(connection: &Connection, found: Found, refresh: bool, execute: bool) -> Result<Option<Self>> {
        let problems: Vec<_> = found
            .asset_problems(connection)
            .into_iter()
            .filter(|problem| problem.blocks && problem.relation != "asset_usages")
            .filter(|problem| {
                found
                    .assets
                    .as_ref()
                    .is_none_or(|assets| problem.relation == assets.sql_name)
            })
            .collect();
        if execute {
            asset_tables::raise(&problems)?;
        } else if let Some(first) = problems.first() {
            crate::postgres::message::notice!(
                "before executing, run {}  -- {}: {}",
                first.ddl,
                first.relation,
                first.problem
            );
        }
        let Some(assets) = found.assets else { return Ok(None) };
        rights::check_row_security([&assets])?;
        let read = [
            "id",
            "organization_id",
            "provider",
            "storage_key",
            "source_url",
            "kind",
            "canonical_key",
            "created_at",
        ];
        rights::check_privilege(connection, &assets, "SELECT", &read)?;
        if execute {
            rights::check_privilege(connection, &assets, "UPDATE", &["canonical_key"])?;
        }
        Ok(Some(KeysProgram { assets, refresh }))
    }

    /// For a run of the ledger, on the relation that it names.
    ///
    /// # Errors
    /// What is missing by now.
    pub fn stored(connection: &Connection, run: &Run) -> Result<Option<Self>> {
        let found = Found::look_at(connection, &|name| run.relation(name).map(str::to_owned));
        let refresh = Self::refresh_of(GivenOptions::new(run.options.clone()))?;
        Self::load(connection, found, refresh, true)
    }

    /// The run as the ledger is to have it.
    pub fn new_run(&self, mode: RunMode, batch: i32) -> NewRun<'static> {
        NewRun {
            job: AssetKeys::NAME,
            mode,
            batch,
            options: if self.refresh {
                vec![("refresh", "true".to_owned())]
            } else {
                Vec::new()
            },
            relations: vec![("assets", self.assets.sql_name.clone())],
            phases: &PHASES,
            bounds: vec![None, None],
            counter_names: Counters::names(),
            rows_total: None,
        }
    }
}

impl Program for KeysProgram {
    fn name(&self) -> &'static str {
        AssetKeys::NAME
    }

    fn locks(&self) -> LockTarget {
        self.assets.lock_target()
    }

    fn check_can_be_shared(&self) -> Result<()> {
        Ok(())
    }

    fn open(&self, _: &Connection, buckets: Buckets) -> Result<Vec<Box<dyn Phase>>> {
        let nobody = if self.refresh { buckets } else { Buckets::NONE };
        Ok(vec![
            Box::new(PhaseOf {
                job: WrongKeys::new(&self.assets, nobody, true),
                counts: true,
                begin: |_: &mut WrongKeys, _: &Connection| Ok(()),
            }),
            Box::new(PhaseOf {
                job: AssetKeys::new(&self.assets, None, buckets, true, &[]),
                counts: true,
                begin: |_: &mut AssetKeys, _: &Connection| Ok(()),
            }),
        ])
    }

    fn max_rows(&self) -> Option<i64> {
        None
    }
}
