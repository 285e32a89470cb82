//! A run's own rows: its start, what its batches did, its end.

use super::decisions::DecisionLog;
use super::{lock_run, Ledger};
use crate::engine::journal::{Change, Changes, Ids, Journal, RowFailure};
use crate::postgres::arrays;
use crate::postgres::backends::{application_name, Backend};
use crate::postgres::memory::in_own_context;
use crate::postgres::spi::{Connection, Mode, Parameter};
use crate::postgres::user;
use crate::settings;

/// Whether a run commits after each batch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum RunMode {
    Function,
    Procedure,
}

/// What a run is, as it is written down when it starts.
pub struct NewRun<'n> {
    pub job: &'n str,
    pub mode: RunMode,
    pub batch: i32,
    /// Names and values; what was not given is left out.
    pub options: Vec<(&'static str, String)>,
    /// Names as the job calls them, each with the schema-qualified, quoted one.
    pub relations: Vec<(&'static str, String)>,
    pub phases: &'n [&'static str],
    pub bounds: Vec<Option<String>>,
    pub counter_names: Vec<&'static str>,
    /// About how many rows there are.
    pub rows_total: Option<i64>,
}

impl NewRun<'_> {
    /// Writes the run's row and its first range, which is all organizations, and this session's where it will commit: others
    /// see a run that lives. Gives the run's id.
    pub fn start(&self, connection: &Connection, ledger: &Ledger) -> i64 {
        fn names<'l>(list: &'l [(&'static str, String)]) -> impl Iterator<Item = Option<&'l str>> + 'l {
            list.iter().map(|(name, _)| Some(*name))
        }
        fn values<'l>(list: &'l [(&'static str, String)]) -> impl Iterator<Item = Option<&'l str>> + 'l {
            list.iter().map(|(_, value)| Some(value.as_str()))
        }
        let me = (self.mode == RunMode::Procedure).then(Backend::own);
        let mode = match self.mode {
            RunMode::Function => "function",
            RunMode::Procedure => "procedure",
        };
        let rows = ledger.write(
            connection,
            "WITH run AS (
                 INSERT INTO ~backfill_runs (job, mode, state, batch, options, relations, phases, bounds, counter_names, rows_total,
                                             run_by, application_name)
                 VALUES ($1, $2, 'running', $3, jsonb_object($4, $5), jsonb_object($6, $7), $8, $9, $10, $11, $12::name, $13)
                 RETURNING run_id)
             INSERT INTO ~backfill_ranges (run_id, range_number, first_bucket, last_bucket, counters, batch_size, pid, backend_start)
             SELECT run_id, 0, 0, 65535, array_fill(0::bigint, ARRAY[$14]), $3, $15, $16 FROM run RETURNING run_id",
            &[
                self.job.into(),
                mode.into(),
                self.batch.into(),
                arrays::text(names(&self.options)).into(),
                arrays::text(values(&self.options)).into(),
                arrays::text(names(&self.relations)).into(),
                arrays::text(values(&self.relations)).into(),
                arrays::text(self.phases.iter().map(|phase| Some(*phase))).into(),
                arrays::text(self.bounds.iter().map(Option::as_deref)).into(),
                arrays::text(self.counter_names.iter().map(|name| Some(*name))).into(),
                Parameter::int8(self.rows_total),
                user::current_name().as_str().into(),
                application_name().as_str().into(),
                (self.counter_names.len() as i32).into(),
                Parameter::int4(me.map(|me| me.pid)),
                Parameter::timestamp_or_null(me.map(|me| me.start)),
            ],
        );
        rows.get(0, 0).unwrap_or_default()
    }
}

/// Writes what the batches of a run did.
pub struct Recorder<'l> {
    pub ledger: &'l Ledger,
    pub run_id: i64,
    pub phase: i32,
    log: DecisionLog,
}

impl<'l> Recorder<'l> {
    pub fn new(connection: &Connection, ledger: &'l Ledger, run_id: i64) -> Self {
        if !settings::log_changes() {
            ledger.write(
                connection,
                "UPDATE ~backfill_runs SET changes_kept = false WHERE run_id = $1 AND changes_kept",
                &[run_id.into()],
            );
        }
        Recorder {
            ledger,
            run_id,
            phase: 0,
            log: DecisionLog::of_run(connection, ledger, run_id),
        }
    }

    /// Whether the log of decisions takes nothing more.
    pub fn log_is_full(&self) -> bool {
        self.log.is_full()
    }

    /// Writes what the journal holds, and empties it.
    pub fn keep(&mut self, connection: &Connection, journal: &mut Journal) {
        // The arrays of a batch go with it.
        in_own_context(|| {
            for change in journal.changes.drain() {
                self.change(connection, &change);
            }
            self.log.write(connection, self.ledger, &journal.decisions);
            for failure in &journal.failures {
                self.failure(connection, failure);
            }
        });
        journal.start_batch();
    }

    /// Writes changes that were made outside of a batch, where they are kept.
    pub fn keep_change(&mut self, connection: &Connection, add: impl FnOnce(&mut Changes)) {
        if settings::log_changes() {
            let mut changes = Changes::default();
            add(&mut changes);
            for change in changes.drain() {
                self.change(connection, &change);
            }
        }
    }

    /// Adds what is known at the end only to the options of the run.
    pub fn add_option(&self, connection: &Connection, name: &str, value: Option<&str>) {
        self.ledger.write(
            connection,
            "UPDATE ~backfill_runs SET options = options || jsonb_build_object($2, $3) WHERE run_id = $1",
            &[self.run_id.into(), name.into(), value.into()],
        );
    }

    fn change(&self, connection: &Connection, change: &Change) {
        fn unless_empty<T>(values: &[T], array: impl FnOnce() -> arrays::ArrayDatum, empty: Parameter) -> Parameter {
            if values.is_empty() {
                empty
            } else {
                array().into()
            }
        }
        let (texts, uuids) = match &change.ids {
            Ids::Texts(ids) => (
                arrays::text(ids.iter().map(|id| Some(id.as_str()))).into(),
                Parameter::null_uuids(),
            ),
            Ids::Uuids(ids) => (
                Parameter::null_texts(),
                arrays::uuid(ids.iter().map(|id| Some(*id))).into(),
            ),
        };
        let texts_of = |values: &[Option<String>]| -> Parameter {
            // All absent is NULL: the usual case costs nothing.
            if values.iter().all(Option::is_none) {
                Parameter::null_texts()
            } else {
                arrays::text(values.iter().map(Option::as_deref)).into()
            }
        };
        let parameters = [
            self.run_id.into(),
            self.phase.into(),
            change.action.into(),
            change.relation.as_str().into(),
            change.column.into(),
            texts,
            uuids,
            unless_empty(
                &change.positions,
                || arrays::int4(change.positions.iter().map(|position| Some(*position))),
                Parameter::null_int4s(),
            ),
            unless_empty(
                &change.assets,
                || arrays::uuid(change.assets.iter().map(|asset| Some(*asset))),
                Parameter::null_uuids(),
            ),
            texts_of(&change.before),
            texts_of(&change.after),
        ];
        self.ledger.write(
            connection,
            "INSERT INTO ~backfill_changes (run_id, phase, action, relation, column_name, ids, uuids, positions, assets, before, after)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            &parameters,
        );
    }

    fn failure(&self, connection: &Connection, failure: &RowFailure) {
        self.ledger.write(
            connection,
            "INSERT INTO ~backfill_quarantine AS q (run_id, phase, item_key, sqlstate, message, counters)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (run_id, phase, item_key) DO UPDATE
             SET sqlstate = excluded.sqlstate, message = excluded.message, counters = excluded.counters,
                 attempts = q.attempts + 1, retry = false, quarantined_at = clock_timestamp()",
            &[
                self.run_id.into(),
                self.phase.into(),
                failure.id.as_str().into(),
                failure.sqlstate.as_str().into(),
                failure.message.as_str().into(),
                arrays::int8(failure.counters.iter().map(|value| Some(*value))).into(),
            ],
        );
    }

    /// Ends the run of a plain function: the caller's transaction holds all of it.
    pub fn finish_function(&self, connection: &Connection, counters: &[i64], rows: i64, batches: i64) {
        self.ledger.write(
            connection,
            "WITH range AS (
                 UPDATE ~backfill_ranges SET phase = $5, done = true, counters = $2, rows_done = $3, batches = $4
                 WHERE run_id = $1)
             UPDATE ~backfill_runs SET state = 'finished', finished_at = clock_timestamp() WHERE run_id = $1",
            &[
                self.run_id.into(),
                arrays::int8(counters.iter().map(|value| Some(*value))).into(),
                rows.into(),
                batches.into(),
                self.phase.into(),
            ],
        );
    }
}

/// [`quarantined`], with what other sessions have not committed yet.
pub fn quarantined_by_now(connection: &Connection, ledger: &Ledger, run_id: i64) -> i64 {
    lock_run(connection, ledger, run_id);
    quarantined(connection, ledger, run_id)
}

/// How many items of the run are quarantined.
pub fn quarantined(connection: &Connection, ledger: &Ledger, run_id: i64) -> i64 {
    ledger
        .run(
            connection,
            Mode::Write,
            "SELECT count(*) FROM ~backfill_quarantine WHERE run_id = $1 AND NOT retry",
            &[run_id.into()],
        )
        .get(0, 0)
        .unwrap_or(0)
}
