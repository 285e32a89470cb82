//! Runs of the ledger: made, stopped half-way, taken back, looked at.

use std::thread::{self, JoinHandle};

use postgres::error::DbError;

use crate::{describe, literal, Application, Counters, Database, Role, Server, Session};

/// A database with an application of so many lessons of one upload each.
pub fn with_lessons(server: &Server, lessons: u32) -> (Database, Session, Application) {
    let database = server.database();
    let mut session = database.session();
    session.run("SET media_assets.progress = off");
    let application = Application::create(&mut session);
    application.add_uploads(&mut session, 1, lessons);
    (database, session, application)
}

/// Runs the lesson job over everything; gives the run's id.
pub fn execute(session: &mut Session) -> i64 {
    session
        .counters("SELECT * FROM backfill_lesson_assets(execute => true)")
        .get("run_id")
}

/// Rows of a table.
pub fn count(session: &mut Session, table: &str) -> i64 {
    session.number(&format!("SELECT count(*) FROM {table}"))
}

/// The id of the newest run.
pub fn last_run(session: &mut Session) -> i64 {
    session.number("SELECT max(run_id) FROM backfill_progress")
}

/// The state of a run as its view has it.
pub fn state(session: &mut Session, run_id: i64) -> String {
    session.text(&format!("SELECT state FROM backfill_progress WHERE run_id = {run_id}"))
}

/// Counters but for those that tell one run from another.
pub fn same_work(counters: &Counters) -> Counters {
    Counters(
        counters
            .0
            .iter()
            .filter(|(name, _)| !["run_id", "undo_run_id", "batches"].contains(&name.as_str()))
            .cloned()
            .collect(),
    )
}

/// What an undo would do, asked in a READ ONLY transaction that gets no transaction id; asserts that `explain_undo` says
/// the same.
pub fn dry_undo(session: &mut Session, run_id: i64) -> Counters {
    session.run("BEGIN READ ONLY");
    let counters = session.counters(&format!("SELECT * FROM undo_backfill({run_id})"));
    let explained = session.counters(&format!(
        "SELECT count(*) AS values_scanned,
                count(*) FILTER (WHERE outcome = 'undo' AND position IS NOT NULL) AS items_restored,
                count(*) FILTER (WHERE outcome = 'undo' AND position IS NULL AND column_name IS NULL AND asset_id IS NOT NULL) AS usages_removed,
                count(*) FILTER (WHERE outcome = 'undo' AND column_name IS NULL AND asset_id IS NULL) AS assets_removed,
                count(*) FILTER (WHERE outcome = 'undo' AND column_name = 'canonical_key') AS keys_restored,
                count(*) FILTER (WHERE outcome = 'already_undone') AS already_undone,
                count(*) FILTER (WHERE outcome = 'conflict' AND reason IS NOT NULL) AS conflicts
         FROM explain_undo({run_id})"
    ));
    assert!(session.is_true("SELECT pg_current_xact_id_if_assigned() IS NULL"));
    session.run("COMMIT");
    for (name, value) in &explained.0 {
        assert_eq!(
            *value,
            Some(counters.get(name)),
            "{name} of explain_undo and {counters:?}"
        );
    }
    assert_eq!(
        counters.0.iter().find(|(name, _)| name == "undo_run_id"),
        Some(&("undo_run_id".to_owned(), None))
    );
    counters
}

/// Takes a run back, and asserts that the dry undo said so.
pub fn undo(session: &mut Session, run_id: i64) -> Counters {
    let dry = dry_undo(session, run_id);
    let executed = session.counters(&format!("SELECT * FROM undo_backfill({run_id}, true)"));
    assert_eq!(
        same_work(&dry),
        same_work(&executed),
        "dry undo = executed undo of run {run_id}"
    );
    assert_eq!(dry.get("batches"), executed.get("batches"));
    executed
}

/// The conflicts that a dry undo sees, by reason.
pub fn conflicts(session: &mut Session, run_id: i64) -> Vec<(String, i64)> {
    session
        .rows(&format!(
            "SELECT reason, count(*) FROM explain_undo({run_id}) WHERE outcome = 'conflict' GROUP BY 1 ORDER BY 1"
        ))
        .into_iter()
        .map(|row| {
            let mut values = row.into_iter().map(Option::unwrap_or_default);
            let reason = values.next().unwrap_or_default();
            (reason, values.next().unwrap_or_default().parse().unwrap_or(0))
        })
        .collect()
}

/// A call that runs in a session of its own.
pub struct Background {
    pub process_id: i64,
    thread: JoinHandle<Result<(), Box<DbError>>>,
}

impl Background {
    /// Starts `call`, after `settings`, as `role` or as the superuser.
    pub fn start(database: &Database, role: Option<&Role>, settings: &str, call: &str) -> Self {
        let mut session = match role {
            Some(role) => database.session_as(role),
            None => database.session(),
        };
        session.run(settings);
        let process_id = session.process_id();
        let call = call.to_owned();
        Background {
            process_id,
            thread: thread::spawn(move || session.try_rows(&call).map(drop)),
        }
    }

    /// Waits until it stands at the gate of [`close_gate`]. `session` is a superuser's: others are not told.
    pub fn wait_at_gate(&self, session: &mut Session) {
        session.wait_until(&format!(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = {} AND wait_event = 'PgSleep'",
            self.process_id
        ));
    }

    /// Ends its session by force.
    pub fn kill(self, session: &mut Session) {
        session.run(&format!("SELECT pg_terminate_backend({}, 10000)", self.process_id));
        // A lost connection is a panic of the session's thread or an error.
        let _ = self.thread.join();
    }

    /// How it ended.
    ///
    /// # Panics
    /// When the connection was lost.
    pub fn end(self) -> Result<(), Box<DbError>> {
        self.thread.join().expect("the session's thread does not panic")
    }

    /// Waits for its end, which is a good one.
    ///
    /// # Panics
    /// When it was an error.
    pub fn finish(self) {
        self.end().unwrap_or_else(|error| panic!("{}", describe(&error)));
    }
}

/// Makes an update of this lesson, of the table that the session sees, wait until the gate is opened.
pub fn close_gate(session: &mut Session, lesson: &str) {
    let schema = session.text("SELECT quote_ident(current_schema())");
    session.run(&format!(
        "CREATE TABLE gate (opened boolean);
         GRANT SELECT ON gate TO PUBLIC;
         CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             WHILE NOT EXISTS (SELECT FROM {schema}.gate) LOOP PERFORM pg_sleep(0.01); END LOOP;
             RETURN NEW;
         END $$;
         CREATE TRIGGER wait_at_gate BEFORE UPDATE ON lesson FOR EACH ROW WHEN (OLD.id::text = {})
         EXECUTE FUNCTION wait_at_gate()",
        literal(lesson)
    ));
}

pub fn open_gate(session: &mut Session) {
    session.run("INSERT INTO gate VALUES (true)");
}

pub fn remove_gate(session: &mut Session) {
    session.run("DROP TABLE gate; DROP FUNCTION wait_at_gate CASCADE");
}

/// A run of `role` over lessons one by one that was ended by force at lesson number `at`. Gives its id. `session` is a
/// superuser's, and sees the lessons.
pub fn interrupted(database: &Database, role: Option<&Role>, session: &mut Session, at: u32) -> i64 {
    close_gate(session, &Application::default().lesson(at));
    let run = Background::start(
        database,
        role,
        "SET media_assets.progress = off",
        "CALL run_backfill('lesson_assets', 1, true)",
    );
    run.wait_at_gate(session);
    let run_id = last_run(session);
    run.kill(session);
    remove_gate(session);
    run_id
}
