//! A streaming hot standby of a server, made for one test and removed after it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use postgres::config::Host;

use crate::{unique, Database, Server, Session};

/// A hot standby; it is stopped and its folder removed when the value goes.
pub struct Standby {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    /// Options of its start, as pg_ctl takes them.
    options: String,
    server: Server,
}

impl Standby {
    /// Copies a running server with `pg_basebackup` and starts the copy as its standby.
    ///
    /// # Panics
    /// When the environment does not name the server's programs, or one of them fails.
    pub fn of(server: &Server) -> Self {
        let programs = server.programs.clone().unwrap_or_else(|| {
            panic!(
                "set MEDIA_ASSETS_PG{}_BINDIR to the folder of pg_basebackup",
                server.major
            )
        });
        let mut session = server.maintenance();
        let data = PathBuf::from(session.text("SHOW data_directory"));
        // beside the server's own data: the user that runs the server can write there
        let folder = data.parent().unwrap_or(Path::new("/tmp")).join(unique("standby"));
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .expect("a free port")
            .port();
        let user = session.text("SELECT current_user");
        let (host, primary_port) = server.address();
        // a standby may not have less of these than its primary
        let limits: String = [
            "max_connections",
            "max_worker_processes",
            "max_wal_senders",
            "max_prepared_transactions",
        ]
        .iter()
        .map(|name| format!(" -c {name}={}", session.text(&format!("SHOW {name}"))))
        .collect();
        let standby = Standby {
            programs,
            folder,
            port,
            options: format!("-p {port} -c shared_buffers=32MB -c hot_standby=on{limits}"),
            server: server.clone(),
        };
        let folder = standby.folder.display().to_string();
        if as_root() {
            standby.shell_as_root(&format!("install -d -m 700 -o postgres '{folder}'"));
        }
        standby.shell(&format!(
            "'{}/pg_basebackup' -h '{host}' -p {primary_port} -U '{user}' -D '{folder}' -R -X stream -c fast --no-sync",
            standby.programs.display()
        ));
        standby.start();
        standby
    }

    fn start(&self) {
        let folder = self.folder.display();
        self.shell(&format!(
            "'{}/pg_ctl' -D '{folder}' -w -t 60 -l '{folder}/standby.log' -o \"{}\" start",
            self.programs.display(),
            self.options
        ));
    }

    /// Makes it a server of its own, which a test may crash. Gives its copy of `database`.
    pub fn promote(&self, database: &Database) -> Database {
        self.session(database).run("SELECT pg_promote()");
        let host = |config: &postgres::Config| config.get_hosts().first().cloned();
        let mut server = self.server.clone();
        server.config = rebuild_with_port(&server.config, host(&server.config), self.port);
        Database {
            config: rebuild_with_port(&database.config, host(&database.config), self.port),
            name: database.name.clone(),
            server,
        }
    }

    /// Stops it as a power failure would, and starts it again.
    pub fn crash(&self) {
        self.shell(&format!(
            "'{}/pg_ctl' -D '{}' -m immediate -w -t 60 stop",
            self.programs.display(),
            self.folder.display()
        ));
        self.start();
    }

    /// A session on the standby in this database, once the standby has all that the primary has now.
    pub fn session(&self, database: &Database) -> Session {
        let lsn = self.server.maintenance().text("SELECT pg_current_wal_lsn()");
        let mut config = database.config.clone();
        let host = config.get_hosts().first().cloned();
        config = rebuild_with_port(&config, host, self.port);
        let mut maintenance = Session::open(&rebuild_with_port(
            &self.server.config,
            self.server.config.get_hosts().first().cloned(),
            self.port,
        ));
        maintenance.wait_until(&format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'"));
        Session::open(&config)
    }

    fn shell(&self, command: &str) {
        if as_root() {
            // the server's programs refuse root
            run(
                Command::new("su")
                    .args(["postgres", "-s", "/bin/sh", "-c", command])
                    .current_dir("/"),
                command,
            );
        } else {
            self.shell_as_root(command);
        }
    }

    fn shell_as_root(&self, command: &str) {
        run(Command::new("/bin/sh").args(["-c", command]), command);
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        let stop = format!(
            "'{}/pg_ctl' -D '{folder}' -m immediate -w -t 60 stop; rm -rf '{folder}'",
            self.programs.display(),
            folder = self.folder.display()
        );
        let mut command = if as_root() {
            Command::new("su")
        } else {
            Command::new("/bin/sh")
        };
        if as_root() {
            command.args(["postgres", "-s", "/bin/sh"]);
        }
        let _ = command.args(["-c", &stop]).current_dir("/").output();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn rebuild_with_port(old: &postgres::Config, host: Option<Host>, port: u16) -> postgres::Config {
    let mut config = postgres::Config::new();
    match host {
        Some(Host::Tcp(name)) => config.host(&name),
        #[cfg(unix)]
        Some(Host::Unix(folder)) => config.host_path(folder),
        None => config.host("localhost"),
    };
    config.port(port);
    if let Some(user) = old.get_user() {
        config.user(user);
    }
    if let Some(password) = old.get_password() {
        config.password(password);
    }
    if let Some(name) = old.get_dbname() {
        config.dbname(name);
    }
    config
}

fn as_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|out| out.stdout.trim_ascii() == b"0")
}

fn run(command: &mut Command, what: &str) {
    // output to nowhere: a server that inherits a pipe would keep it open for ever
    let status = command.stdout(std::process::Stdio::null()).status();
    assert!(
        status.as_ref().is_ok_and(std::process::ExitStatus::success),
        "{status:?} of {what}"
    );
}
