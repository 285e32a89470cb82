//! The real psql, as a shell or a pipeline calls it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Database;

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    /// Standard output, then standard error.
    pub said: String,
}

impl Ended {
    /// # Panics
    /// When it ended otherwise, with all that it said.
    pub fn with(self, status: i32) -> String {
        assert_eq!(self.status, Some(status), "{}", self.said);
        self.said
    }
}

/// The clone's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Database {
    /// `program` of the server's own version, to be run against this database from the clone's root.
    ///
    /// # Panics
    /// When the environment does not name the server's programs.
    pub fn command(&self, program: &str) -> Command {
        let major = self.server.major;
        let programs = self.server.programs.clone();
        let programs = programs.unwrap_or_else(|| panic!("set MEDIA_ASSETS_PG{major}_BINDIR to the folder of psql"));
        let (host, port) = self.server.address();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program);
        command
            .current_dir(root())
            .env("PATH", format!("{}:{path}", programs.display()))
            .env("PGHOST", host)
            .env("PGPORT", port.to_string())
            .env("PGUSER", self.server.config.get_user().unwrap_or("postgres"))
            .env("PGDATABASE", &self.name)
            .env("PGCLIENTENCODING", "UTF8")
            .stdin(Stdio::null());
        command
    }

    /// psql with a script of `sql/run/` and variables.
    pub fn script(&self, name: &str, variables: &[(&str, &str)]) -> Command {
        let mut command = self.command("psql");
        command.args(["-X", "-v", "ON_ERROR_STOP=1"]);
        for (name, value) in variables {
            command.arg("-v").arg(format!("{name}={value}"));
        }
        command.arg("-f").arg(format!("sql/run/{name}.psql"));
        command
    }
}

/// Runs it to its end.
///
/// # Panics
/// When it cannot be started.
pub fn run(mut command: Command) -> Ended {
    ended(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn())
}

/// Starts it; [`wait`] ends it.
///
/// # Panics
/// When it cannot be started.
pub fn start(mut command: Command) -> Child {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    child.unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// Waits for its end.
pub fn wait(child: Child) -> Ended {
    ended(Ok(child))
}

fn ended(child: std::io::Result<Child>) -> Ended {
    let output = child
        .and_then(Child::wait_with_output)
        .unwrap_or_else(|e| panic!("the program could not be run: {e}"));
    Ended {
        status: output.status.code(),
        said: [&output.stdout[..], &output.stderr[..]]
            .map(String::from_utf8_lossy)
            .concat(),
    }
}
