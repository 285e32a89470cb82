//! Runs that commit, as the tests watch them: calls in the background, what the ledger says of a run.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use postgres::error::DbError;

use crate::{describe, literal, Database, Row, Session, LESSON_COUNTERS, PATIENCE};

/// `CALL run_backfill` for lessons.
pub fn run_lessons(batch: u32, options: &str) -> String {
    format!(
        "CALL run_backfill('lesson_assets', batch => {batch}, execute => true, options => {})",
        literal(options)
    )
}

pub fn resume(run_id: i64) -> String {
    format!("CALL resume_backfill({run_id})")
}

pub fn join(run_id: i64) -> String {
    format!("CALL join_backfill({run_id})")
}

/// A call that goes on in a thread with a session of its own.
pub struct Background {
    pub pid: i64,
    thread: JoinHandle<(Session, Result<(), Option<DbError>>)>,
}

impl Background {
    /// Runs `settings`, then starts `call`.
    pub fn start(database: &Database, settings: &str, call: &str) -> Self {
        let mut session = database.session();
        session.run(settings);
        Self::start_in(session, call)
    }

    /// Starts `call` in a session that is ready.
    pub fn start_in(mut session: Session, call: &str) -> Self {
        let pid = session.process_id();
        let call = call.to_owned();
        let thread = std::thread::spawn(move || {
            let outcome = session.client.simple_query(&call);
            let outcome = outcome.map(|_| ()).map_err(|error| error.as_db_error().cloned());
            (session, outcome)
        });
        Background { pid, thread }
    }

    /// Its session, after a call that went well.
    ///
    /// # Panics
    /// When it did not.
    pub fn finish(self) -> Session {
        let (session, outcome) = self.join();
        if let Err(error) = outcome {
            panic!(
                "{}",
                error.map_or("the connection was lost".to_owned(), |error| describe(&error))
            );
        }
        session
    }

    /// Its session, after a call that failed with this SQLSTATE.
    ///
    /// # Panics
    /// When it did not.
    pub fn fails(self, state: &str) -> (Session, DbError) {
        let (session, outcome) = self.join();
        match outcome {
            Err(Some(error)) => {
                assert_eq!(error.code().code(), state, "{}", describe(&error));
                (session, error)
            }
            Err(None) => panic!("the connection was lost"),
            Ok(()) => panic!("{state} expected, but it went well"),
        }
    }

    /// Its session and what became of the call; the error is `None` when the connection was lost.
    pub fn join(self) -> (Session, Result<(), Option<DbError>>) {
        self.thread.join().expect("the thread does not panic")
    }

    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }
}

/// The newest run.
pub fn last_run(session: &mut Session) -> Option<i64> {
    session
        .value("SELECT max(run_id) FROM backfill_runs")
        .map(|id| id.parse().expect("a number"))
}

/// Waits for a run to begin, and gives its id.
///
/// # Panics
/// When none begins.
pub fn await_run(session: &mut Session) -> i64 {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(run_id) = last_run(session) {
            return run_id;
        }
        assert!(Instant::now() < end, "no run began");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A column of the view for one run.
pub fn progress(session: &mut Session, run_id: i64, column: &str) -> Option<String> {
    session.value(&format!(
        "SELECT {column} FROM backfill_progress WHERE run_id = {run_id}"
    ))
}

pub fn state(session: &mut Session, run_id: i64) -> String {
    progress(session, run_id, "state").expect("a run has a state")
}

/// Waits until the view shows this state.
pub fn await_state(session: &mut Session, run_id: i64, state: &str) {
    session.wait_until(&format!(
        "SELECT state = {} FROM backfill_progress WHERE run_id = {run_id}",
        literal(state)
    ));
}

/// Waits until so many rows are done.
pub fn await_rows(session: &mut Session, run_id: i64, rows: i64) {
    session.wait_until(&format!(
        "SELECT rows_done >= {rows} FROM backfill_progress WHERE run_id = {run_id}"
    ));
}

/// A run's counters, by name, summed over its ranges.
pub fn counters(session: &mut Session, run_id: i64) -> Vec<Row> {
    session.rows(&format!(
        "SELECT r.counter_names[c.place], sum(c.value) FROM backfill_runs r JOIN backfill_ranges g USING (run_id)
         CROSS JOIN LATERAL unnest(g.counters) WITH ORDINALITY c (value, place)
         WHERE run_id = {run_id} GROUP BY c.place, 1 ORDER BY c.place"
    ))
}

/// One of them.
pub fn counter(session: &mut Session, run_id: i64, name: &str) -> i64 {
    let found = counters(session, run_id)
        .into_iter()
        .find(|row| row[0].as_deref() == Some(name))
        .unwrap_or_else(|| panic!("no counter {name}"));
    found[1]
        .as_deref()
        .and_then(|value| value.parse().ok())
        .expect("a number")
}

/// The counters of a plain function's row that a run has, too, in the same shape.
pub fn function_counters(row: &crate::Counters) -> Vec<Row> {
    LESSON_COUNTERS
        .iter()
        .filter(|name| !["batches", "run_id"].contains(name))
        .map(|name| vec![Some((*name).to_owned()), Some(row.get(name).to_string())])
        .collect()
}

/// The decisions that were logged for a run, in an order of their own.
pub fn decisions(session: &mut Session, run_id: i64) -> Vec<Row> {
    session.rows(&format!(
        "SELECT item_key, slot, position, outcome, action, reason FROM backfill_decisions WHERE run_id = {run_id} ORDER BY 1, 2, 3, 4, 5, 6"
    ))
}

/// The rows in quarantine.
pub fn quarantine(session: &mut Session, run_id: i64) -> Vec<Row> {
    session.rows(&format!(
        "SELECT phase, item_key, sqlstate, message, counters FROM backfill_quarantine WHERE run_id = {run_id} ORDER BY 1, 2"
    ))
}

/// All that a run left: in the tables, in its counters, its log and its quarantine.
pub fn traces(session: &mut Session, run_id: i64) -> [Vec<Row>; 4] {
    [
        counters(session, run_id),
        quarantine(session, run_id),
        decisions(session, run_id),
        crate::school::outcome(session),
    ]
}

/// Asserts that two runs left the same.
pub fn assert_same_traces(one: &[Vec<Row>; 4], other: &[Vec<Row>; 4], which: &str) {
    for (name, (one, other)) in ["counters", "quarantine", "decisions", "tables"]
        .iter()
        .zip(one.iter().zip(other))
    {
        let missing: Vec<_> = one.iter().filter(|row| !other.contains(row)).take(5).collect();
        let extra: Vec<_> = other.iter().filter(|row| !one.contains(row)).take(5).collect();
        assert!(
            one == other,
            "{which}: {name} differ: {} rows, not {}; missing {missing:?}, extra {extra:?}",
            other.len(),
            one.len()
        );
    }
}

/// How often a test repeats what it proves by chance: `MEDIA_ASSETS_SOAK`, or else this few.
pub fn rounds(few: u32) -> u32 {
    std::env::var("MEDIA_ASSETS_SOAK")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(few)
}
