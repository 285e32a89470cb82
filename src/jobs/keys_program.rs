//! `asset_keys` as a whole: its option, its phases, its place in the ledger.

use super::asset_keys::{AssetKeys, Counters};
use super::asset_tables::{self, Found};
use super::keys_bound::Bound;
use super::wrong_keys::{last_id, WrongKeys};
use crate::engine::ledger::record::{NewRun, RunMode};
use crate::engine::ledger::runs::Run;
use crate::engine::long::{Buckets, Phase, PhaseOf, Program};
use crate::engine::options::GivenOptions;
use crate::engine::relation::{LockTarget, Relation};
use crate::engine::{rights, Job, Tally};
use crate::error::Result;
use crate::postgres::spi::{Connection, Mode};

/// The job over the assets of one run.
pub struct KeysProgram {
    pub assets: Relation,
    /// Whether keys that no longer fit their row are taken away first.
    pub refresh: bool,
    /// Where each phase ends; `None` in a dry run, which sees one state of the table anyway.
    bounds: Option<Bounds>,
}

/// Where the phases of a run end.
#[derive(Clone)]
struct Bounds {
    /// The greatest id; `None` where nothing is refreshed.
    wrong: Option<String>,
    keys: Bound,
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
        let bounds = execute.then(|| Bounds {
            wrong: refresh.then(|| last_id(connection, Mode::Write, &assets)).flatten(),
            keys: Bound::now(connection, Mode::Write, &assets, refresh),
        });
        Ok(Some(KeysProgram {
            assets,
            refresh,
            bounds,
        }))
    }

    /// For a run of the ledger, on the relation that it names.
    ///
    /// # Errors
    /// What is missing by now.
    pub fn stored(connection: &Connection, run: &Run) -> Result<Option<Self>> {
        let found = Found::look_at(connection, &|name| run.relation(name).map(str::to_owned));
        let refresh = Self::refresh_of(GivenOptions::new(run.options.clone()))?;
        let mut program = Self::load(connection, found, refresh, true)?;
        if let Some(program) = &mut program {
            program.bounds = run.bounds.get(1).cloned().flatten().map(|keys| Bounds {
                wrong: run.bounds.first().cloned().flatten(),
                keys: Bound::parse(&keys),
            });
        }
        Ok(program)
    }

    /// The phase that takes away keys which do not fit their row.
    pub fn wrong_keys(&self, buckets: Buckets, execute: bool) -> WrongKeys {
        let bound = self.bounds.as_ref().and_then(|bounds| bounds.wrong.as_deref());
        // No last row means that there was none.
        let is_empty = self.bounds.is_some() && bound.is_none();
        let buckets = if self.refresh && !is_empty {
            buckets
        } else {
            Buckets::NONE
        };
        WrongKeys::new(&self.assets, buckets, bound, execute)
    }

    /// The phase that gives keys; `released` are rows whose keys a dry run treats as taken away.
    pub fn keys(&self, buckets: Buckets, execute: bool, released: &[[u8; 16]]) -> AssetKeys {
        let bound = self.bounds.as_ref().map(|bounds| &bounds.keys);
        AssetKeys::new(&self.assets, None, buckets, bound, execute, released)
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
            bounds: match &self.bounds {
                Some(bounds) => vec![bounds.wrong.clone(), Some(bounds.keys.to_text())],
                None => vec![None, None],
            },
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
        Ok(vec![
            Box::new(PhaseOf {
                job: self.wrong_keys(buckets, true),
                counts: true,
                begin: |_: &mut WrongKeys, _: &Connection| Ok(()),
            }),
            Box::new(PhaseOf {
                job: self.keys(buckets, true, &[]),
                counts: true,
                begin: |_: &mut AssetKeys, _: &Connection| Ok(()),
            }),
        ])
    }

    fn max_rows(&self) -> Option<i64> {
        None
    }

    fn buckets_in_use(&self, connection: &Connection) -> Option<Vec<i32>> {
        // From one organization to the next, by the index of the keys: never all rows.
        let table = &self.assets.sql_name;
        let rows = connection.query(
            &format!(
                "WITH RECURSIVE o(id) AS (
                     (SELECT a.organization_id FROM {table} a WHERE a.organization_id IS NOT NULL ORDER BY a.organization_id LIMIT 1)
                     UNION ALL
                     SELECT n.id FROM o CROSS JOIN LATERAL (
                         SELECT a.organization_id AS id FROM {table} a WHERE a.organization_id > o.id ORDER BY a.organization_id LIMIT 1) n)
                 SELECT DISTINCT {} FROM o",
                Buckets::of("o.id")
            ),
            Mode::Write,
            &[],
        );
        Some((0..rows.len()).filter_map(|row| rows.get(row, 0)).collect())
    }
}
