//! Harness of the tests from outside: servers, databases that live as long as a test, sessions.
//!
//! Each test runs on every server that the environment names (`MEDIA_ASSETS_PG15_DSN`,
//! `MEDIA_ASSETS_PG16_DSN`, `MEDIA_ASSETS_PG18_DSN`), in a database of its own that it drops again.
//! Without a server a test fails: nothing here passes by not running.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use postgres::config::Host;
use postgres::error::{DbError, Severity};
use postgres::{Client, Config, NoTls, SimpleQueryMessage};

pub mod application;
pub mod authority;
pub mod cluster;
pub mod counters;
pub mod ingest;
pub mod jellyfin;
pub mod json;
pub mod long;
mod programs;
pub mod psql;
pub mod random;
pub mod relay;
pub mod runs;
pub mod samples;
pub mod scenarios;
pub mod school;
pub mod standby;
pub mod stub;

pub use application::Application;
pub use cluster::Cluster;
pub use counters::{Counters, LESSON_COUNTERS};

/// PostgreSQL majors that a runner may give, each by `MEDIA_ASSETS_PG<major>_DSN`.
const MAJORS: [u32; 3] = [15, 16, 18];

/// How long a test waits for another session to reach a state before it gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// One running server that the runner gave us.
#[derive(Clone, Debug)]
pub struct Server {
    pub major: u32,
    pub config: Config,
    /// Folder of its programs (`pg_basebackup`, `pg_ctl`), where given.
    pub programs: Option<PathBuf>,
}

impl Server {
    /// A session as superuser in the database of the DSN.
    pub fn maintenance(&self) -> Session {
        Session::open(&self.config)
    }

    /// A new database with the extension in `public`.
    pub fn database(&self) -> Database {
        let database = self.empty_database();
        database.session().run("CREATE EXTENSION media_assets");
        database
    }

    /// A new database without the extension.
    pub fn empty_database(&self) -> Database {
        let name = unique("ma_test");
        // template0: nobody is ever connected to it, so tests may copy it at the same time
        self.maintenance()
            .run(&format!("CREATE DATABASE {name} TEMPLATE template0"));
        let mut config = self.config.clone();
        config.dbname(&name);
        Database {
            server: self.clone(),
            name,
            config,
        }
    }

    /// A new role; it is dropped, with what it owns in `database`, when the value goes.
    pub fn role(&self, database: &Database) -> Role {
        let name = unique("ma_role");
        self.maintenance().run(&format!("CREATE ROLE {name} LOGIN NOSUPERUSER"));
        Role {
            config: database.config.clone(),
            name,
        }
    }

    /// Host and port as a client on the same machine writes them.
    pub fn address(&self) -> (String, u16) {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            #[cfg(unix)]
            Some(Host::Unix(folder)) => folder.display().to_string(),
            None => "localhost".into(),
        };
        (host, self.config.get_ports().first().copied().unwrap_or(5432))
    }
}

/// Runs `test` on every server of the environment, oldest major first.
///
/// # Panics
/// When no server is given, or one cannot be reached.
pub fn each_server(test: impl Fn(&Server)) {
    let mut given = 0;
    for major in MAJORS {
        let Ok(dsn) = std::env::var(format!("MEDIA_ASSETS_PG{major}_DSN")) else {
            continue;
        };
        if dsn.trim().is_empty() {
            continue;
        }
        given += 1;
        let config: Config = dsn
            .parse()
            .unwrap_or_else(|e| panic!("MEDIA_ASSETS_PG{major}_DSN is no key/value string: {e}"));
        let programs = std::env::var_os(format!("MEDIA_ASSETS_PG{major}_BINDIR")).map(PathBuf::from);
        let server = Server {
            major,
            config,
            programs,
        };
        let says = server.maintenance().text("SHOW server_version_num");
        assert_eq!(
            says[..2].parse(),
            Ok(major),
            "MEDIA_ASSETS_PG{major}_DSN leads to a server {says}"
        );
        eprintln!("-- PostgreSQL {major}");
        test(&server);
    }
    assert!(
        given > 0,
        "no server: set MEDIA_ASSETS_PG15_DSN (or …PG16…, …PG18…) to a key/value connection string of a superuser, \
         for instance by `make test`"
    );
}

/// A name that no other test of this or another process uses.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{prefix}_{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A database that is dropped when the value goes.
pub struct Database {
    pub server: Server,
    pub name: String,
    config: Config,
}

impl Database {
    /// A new session as superuser.
    pub fn session(&self) -> Session {
        Session::open(&self.config)
    }

    /// A new session that acts as `role` from its first statement on.
    pub fn session_as(&self, role: &Role) -> Session {
        let mut session = self.session();
        session.run(&format!("SET SESSION AUTHORIZATION {}", role.name));
        session
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Ok(mut client) = self.server.config.connect(NoTls) {
            let _ = client.batch_execute(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        }
    }
}

/// A role that is dropped when the value goes. Declare it after its database, so that it goes first.
pub struct Role {
    config: Config,
    pub name: String,
}

impl Drop for Role {
    fn drop(&mut self) {
        if let Ok(mut client) = self.config.connect(NoTls) {
            let name = &self.name;
            let _ = client.batch_execute(&format!(
                "REASSIGN OWNED BY {name} TO CURRENT_USER; DROP OWNED BY {name} CASCADE; DROP ROLE {name}"
            ));
        }
    }
}

/// One row of text values, as the simple protocol gives them.
pub type Row = Vec<Option<String>>;

/// A connection that keeps the notices it got.
pub struct Session {
    pub client: Client,
    notices: Arc<Mutex<Vec<DbError>>>,
}

impl Session {
    fn open(config: &Config) -> Self {
        let notices = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&notices);
        let mut config = config.clone();
        config.notice_callback(move |notice| sink.lock().expect("no test panics while it holds this").push(notice));
        let client = config
            .connect(NoTls)
            .unwrap_or_else(|e| panic!("cannot connect with {config:?}: {e}"));
        Session { client, notices }
    }

    /// Runs statements and gives the rows, or the server's error.
    pub fn try_rows(&mut self, sql: &str) -> Result<Vec<Row>, Box<DbError>> {
        match self.client.simple_query(sql) {
            Ok(messages) => Ok(messages
                .iter()
                .filter_map(|message| match message {
                    SimpleQueryMessage::Row(row) => {
                        Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect())
                    }
                    _ => None,
                })
                .collect()),
            Err(error) => match error.as_db_error() {
                Some(error) => Err(Box::new(error.clone())),
                None => panic!(
                    "the connection failed (did the backend crash?): {error}\n{}",
                    short(sql)
                ),
            },
        }
    }

    /// Runs statements that must succeed.
    pub fn run(&mut self, sql: &str) {
        self.rows(sql);
    }

    /// The rows of a query that must succeed.
    pub fn rows(&mut self, sql: &str) -> Vec<Row> {
        self.try_rows(sql)
            .unwrap_or_else(|error| panic!("{}\n{}", describe(&error), short(sql)))
    }

    /// The only value of a query; NULL is None.
    pub fn value(&mut self, sql: &str) -> Option<String> {
        let rows = self.rows(sql);
        assert_eq!(rows.len(), 1, "one row expected: {}", short(sql));
        rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten()
    }

    /// The only value of a query, which is not NULL.
    pub fn text(&mut self, sql: &str) -> String {
        self.value(sql).unwrap_or_else(|| panic!("NULL: {}", short(sql)))
    }

    /// Blocks that a statement touches, triggers of its rows included.
    pub fn blocks(&mut self, sql: &str) -> i64 {
        let plan = self.rows(&format!(
            "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, COSTS OFF, SUMMARY OFF, FORMAT JSON) {sql}"
        ));
        let plan: String = plan.into_iter().flatten().flatten().collect();
        let plan: serde_json::Value = serde_json::from_str(&plan).expect("EXPLAIN gives JSON");
        ["Shared Hit Blocks", "Shared Read Blocks"]
            .iter()
            .map(|name| plan[0]["Plan"][*name].as_i64().expect("blocks"))
            .sum()
    }

    /// The only value of a query, a whole number.
    pub fn number(&mut self, sql: &str) -> i64 {
        let text = self.text(sql);
        text.parse()
            .unwrap_or_else(|_| panic!("{text} is no number: {}", short(sql)))
    }

    /// The only value of a query, a boolean.
    pub fn is_true(&mut self, sql: &str) -> bool {
        self.value(sql).as_deref() == Some("t")
    }

    /// The one row of a backfill function, by column name.
    pub fn counters(&mut self, sql: &str) -> Counters {
        self.try_counters(sql)
            .unwrap_or_else(|error| panic!("{}\n{}", describe(&error), short(sql)))
    }

    /// The one row of a backfill function, or the server's error.
    pub fn try_counters(&mut self, sql: &str) -> Result<Counters, Box<DbError>> {
        match self.client.simple_query(sql) {
            Ok(messages) => Ok(Counters::from_messages(&messages, sql)),
            Err(error) => match error.as_db_error() {
                Some(error) => Err(Box::new(error.clone())),
                None => panic!(
                    "the connection failed (did the backend crash?): {error}\n{}",
                    short(sql)
                ),
            },
        }
    }

    /// The error of statements that must fail with this SQLSTATE. An open transaction is rolled back.
    pub fn fails(&mut self, state: &str, sql: &str) -> DbError {
        let outcome = self.try_rows(sql);
        let _ = self.client.batch_execute("ROLLBACK");
        match outcome {
            Ok(rows) => panic!(
                "{state} expected, but it went well ({} rows): {}",
                rows.len(),
                short(sql)
            ),
            Err(error) => {
                assert_eq!(error.code().code(), state, "{}\n{}", describe(&error), short(sql));
                *error
            }
        }
    }

    /// As `fails`, for an error that tells the user what to do.
    pub fn fails_with_hint(&mut self, state: &str, sql: &str) -> DbError {
        let error = self.fails(state, sql);
        assert!(error.hint().is_some(), "no HINT: {}\n{}", describe(&error), short(sql));
        error
    }

    /// The notices since the last call.
    pub fn take_notices(&mut self) -> Vec<DbError> {
        std::mem::take(&mut *self.notices.lock().expect("no test panics while it holds this"))
    }

    /// The WARNINGs since the last call that took notices.
    pub fn take_warnings(&mut self) -> Vec<DbError> {
        let mut notices = self.take_notices();
        notices.retain(|notice| notice.parsed_severity() == Some(Severity::Warning));
        notices
    }

    /// Process id of the backend.
    pub fn process_id(&mut self) -> i64 {
        self.number("SELECT pg_backend_pid()")
    }

    /// Waits until `condition`, a boolean query, holds.
    ///
    /// # Panics
    /// When it does not hold within half a minute.
    pub fn wait_until(&mut self, condition: &str) {
        assert!(
            self.holds_within(PATIENCE, condition),
            "never happened: {}",
            short(condition)
        );
    }

    /// Whether `condition`, a boolean query, comes true within the time.
    pub fn holds_within(&mut self, time: Duration, condition: &str) -> bool {
        let end = Instant::now() + time;
        loop {
            if self.is_true(condition) {
                return true;
            }
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// WAL bytes that this backend writes while it runs a query; other sessions do not count.
    pub fn wal_bytes(&mut self, query: &str) -> i64 {
        let plan = self.rows(&format!(
            "EXPLAIN (ANALYZE, WAL, TIMING OFF, COSTS OFF, FORMAT JSON) {query}"
        ));
        let text: String = plan.into_iter().flatten().flatten().collect();
        let plan: serde_json::Value = serde_json::from_str(&text).expect("EXPLAIN gives JSON");
        plan[0]["Plan"]["WAL Bytes"].as_i64().expect("the plan has WAL Bytes")
    }
}

/// A text as an SQL literal.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name as an SQL identifier.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A value or NULL as an SQL literal.
pub fn literal_or_null(text: Option<&str>) -> String {
    text.map_or_else(|| "NULL".into(), literal)
}

/// All that the server says about an error, on a few lines.
pub fn describe(error: &DbError) -> String {
    let mut text = format!("{} {}: {}", error.severity(), error.code().code(), error.message());
    for (name, part) in [
        ("DETAIL", error.detail()),
        ("HINT", error.hint()),
        ("CONTEXT", error.where_()),
    ] {
        if let Some(part) = part {
            text.push_str(&format!("\n{name}: {part}"));
        }
    }
    text
}

/// Message, detail and hint of an error or notice, to look for words in.
pub fn words(error: &DbError) -> String {
    [Some(error.message()), error.detail(), error.hint()]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("\n")
}

fn short(sql: &str) -> String {
    match sql.char_indices().nth(600) {
        Some((end, _)) => format!("{} …", &sql[..end]),
        None => sql.into(),
    }
}
