//! A run as the ledger has it, and who may do what with it.

use std::collections::BTreeMap;

use pgrx::pg_sys;

use super::Ledger;
use crate::error::{no_such_run, not_your_run, Result};
use crate::postgres::backends::Backend;
use crate::postgres::spi::{Connection, Mode};
use crate::postgres::user;

/// A run's own row.
#[derive(Clone, Debug)]
pub struct Run {
    pub run_id: i64,
    pub job: String,
    pub mode: String,
    pub state: String,
    pub batch: i32,
    pub options: BTreeMap<String, String>,
    pub relations: BTreeMap<String, String>,
    pub bounds: Vec<Option<String>>,
    pub counter_names: Vec<String>,
    pub rows_total: Option<i64>,
    pub run_by: String,
}

impl Run {
    /// The run with that id, for a caller who may see and steer it: its role, a member of that role, or the extension's
    /// owner.
    ///
    /// `mode` is `Write` where this transaction may have written it.
    ///
    /// # Errors
    /// 42704 when there is none, 42501 when it is somebody else's.
    pub fn find(connection: &Connection, ledger: &Ledger, run_id: Option<i64>, mode: Mode) -> Result<Self> {
        let Some(run_id) = run_id else {
            return Err(no_such_run("NULL"));
        };
        let rows = ledger.run(
            connection,
            mode,
            "SELECT r.job, r.mode, r.state, r.batch, o.names, o.texts, n.names, n.texts, r.bounds, r.counter_names,
                    r.rows_total, r.run_by::text
             FROM ~backfill_runs r
             CROSS JOIN LATERAL (SELECT coalesce(array_agg(key), '{}') AS names, coalesce(array_agg(value), '{}') AS texts
                                 FROM jsonb_each_text(r.options)) o
             CROSS JOIN LATERAL (SELECT coalesce(array_agg(key), '{}') AS names, coalesce(array_agg(value), '{}') AS texts
                                 FROM jsonb_each_text(r.relations)) n
             WHERE r.run_id = $1",
            &[run_id.into()],
        );
        if rows.is_empty() {
            return Err(no_such_run(&run_id.to_string()));
        }
        let texts = |column| rows.get::<Vec<Option<String>>>(0, column).unwrap_or_default();
        let pairs = |names, values| {
            texts(names)
                .into_iter()
                .zip(texts(values))
                .filter_map(|(name, value)| Some((name?, value?)))
                .collect()
        };
        let run = Run {
            run_id,
            job: rows.text(0, 0).unwrap_or_default(),
            mode: rows.text(0, 1).unwrap_or_default(),
            state: rows.text(0, 2).unwrap_or_default(),
            batch: rows.get(0, 3).unwrap_or(500),
            options: pairs(4, 5),
            relations: pairs(6, 7),
            bounds: texts(8),
            counter_names: texts(9).into_iter().flatten().collect(),
            rows_total: rows.get(0, 10),
            run_by: rows.text(0, 11).unwrap_or_default(),
        };
        if user::is_member_of(&run.run_by) || user::is_member(ledger.owner()) {
            Ok(run)
        } else {
            Err(not_your_run(run_id, &run.run_by))
        }
    }

    pub fn relation(&self, name: &str) -> Option<&str> {
        self.relations.get(name).map(String::as_str)
    }

    /// Live sessions that work on it, this one left out.
    pub fn other_workers(&self, connection: &Connection, ledger: &Ledger) -> Vec<Backend> {
        let rows = ledger.run(
            connection,
            Mode::Read,
            "SELECT DISTINCT pid, backend_start FROM ~backfill_ranges WHERE run_id = $1 AND pid IS NOT NULL AND backend_start IS NOT NULL",
            &[self.run_id.into()],
        );
        (0..rows.len())
            .filter_map(|row| {
                Some(Backend {
                    pid: rows.get(row, 0)?,
                    start: rows.get::<pg_sys::TimestampTz>(row, 1)?,
                })
            })
            .filter(|backend| *backend != Backend::own() && backend.is_alive())
            .collect()
    }
}
