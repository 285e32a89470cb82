//! A streaming hot standby of a server, made for one test and removed after it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use postgres::config::Host;

use crate::programs::{as_server_user, install_folder};
use crate::{unique, Database, Server, Session};

/// A hot standby; it is stopped and its folder removed when the value goes.
pub struct Standby {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
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
            server: server.clone(),
        };
        let folder = standby.folder.display().to_string();
        install_folder(&standby.folder);
        as_server_user(&format!(
            "'{}/pg_basebackup' -h '{host}' -p {primary_port} -U '{user}' -D '{folder}' -R -X stream -c fast --no-sync",
            standby.programs.display()
        ));
        as_server_user(&format!(
            "'{}/pg_ctl' -D '{folder}' -w -t 60 -l '{folder}/standby.log' -o \"-p {port} -c shared_buffers=32MB -c hot_standby=on{limits}\" start",
            standby.programs.display()
        ));
        standby
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
}

impl Drop for Standby {
    fn drop(&mut self) {
        as_server_user(&format!(
            "'{}/pg_ctl' -D '{folder}' -m immediate -w -t 60 stop; rm -rf '{folder}' || true",
            self.programs.display(),
            folder = self.folder.display()
        ));
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
