//! A server of a test's own, to be killed, stopped and configured without disturbing the others.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use postgres::{Config, NoTls};

use crate::programs::{as_server_user, install_folder};
use crate::{unique, Database, Server, Session, PATIENCE};

/// A server with the programs, and so with the extension, of another; stopped and removed when the value goes.
pub struct Cluster {
    pub server: Server,
    programs: PathBuf,
    folder: PathBuf,
}

impl Cluster {
    /// Makes and starts one.
    ///
    /// # Panics
    /// When the environment does not name the server's programs, or one of them fails.
    pub fn like(model: &Server) -> Self {
        let programs = model
            .programs
            .clone()
            .unwrap_or_else(|| panic!("set MEDIA_ASSETS_PG{}_BINDIR to the folder of initdb", model.major));
        let data = PathBuf::from(model.maintenance().text("SHOW data_directory"));
        let folder = data.parent().unwrap_or(Path::new("/tmp")).join(unique("cluster"));
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let mut config = Config::new();
        config.host("127.0.0.1").port(port).user("postgres").dbname("postgres");
        let cluster = Cluster {
            server: Server {
                major: model.major,
                config,
                programs: Some(programs.clone()),
            },
            programs,
            folder,
        };
        let folder = cluster.folder.display();
        install_folder(&cluster.folder);
        as_server_user(&format!(
            "'{}/initdb' -D '{folder}' -U postgres -A trust -E UTF8 --locale=C --no-sync",
            cluster.programs.display()
        ));
        as_server_user(&format!(
            "printf '%s\\n' \"listen_addresses = '127.0.0.1'\" \"port = {port}\" \"unix_socket_directories = ''\" 'fsync = off' \
             'shared_buffers = 32MB' 'wal_level = replica' 'max_wal_senders = 4' 'autovacuum = off' 'max_connections = 30' \
             >> '{folder}/postgresql.conf'"
        ));
        cluster.start();
        cluster
    }

    pub fn start(&self) {
        as_server_user(&format!(
            "'{}/pg_ctl' -D '{folder}' -w -t 60 -l '{folder}/log' start",
            self.programs.display(),
            folder = self.folder.display()
        ));
    }

    /// Its folder of data, as the server's user and root see it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs a shell command in the folder of data, as the server's user.
    ///
    /// # Panics
    /// When it fails.
    pub fn run(&self, command: &str) {
        as_server_user(&format!("cd '{}' && {{ {command}\n}}", self.folder.display()));
    }

    /// Stops the server when nobody needs it any more, and starts it with what was written into its files.
    pub fn restart(&self) {
        as_server_user(&format!(
            "'{}/pg_ctl' -D '{folder}' -m fast -w -t 60 -l '{folder}/log' restart",
            self.programs.display(),
            folder = self.folder.display()
        ));
    }

    /// Stops the server as a crash would: the next start recovers from its WAL.
    pub fn crash(&self) {
        as_server_user(&format!(
            "'{}/pg_ctl' -D '{}' -m immediate -w -t 60 stop",
            self.programs.display(),
            self.folder.display()
        ));
    }

    /// Kills one backend with the signal that it cannot see, and waits until the server has begun to restart all of them.
    pub fn kill_backend(&self, pid: i64) {
        let mut witness = self.server.maintenance();
        // The backend may have ended by itself meanwhile.
        let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        let end = Instant::now() + PATIENCE;
        while witness.client.simple_query("SELECT 1").is_ok() {
            assert!(Instant::now() < end, "the server did not notice");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A session in a database of this server, when the server takes sessions again.
    pub fn session(&self, database: &Database) -> Session {
        let mut config = self.server.config.clone();
        config.dbname(&database.name);
        let end = Instant::now() + PATIENCE;
        loop {
            if config.connect(NoTls).is_ok() {
                return database.session();
            }
            assert!(Instant::now() < end, "the server did not come back");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        as_server_user(&format!(
            "'{}/pg_ctl' -D '{folder}' -m immediate -w -t 60 stop; rm -rf '{folder}' || true",
            self.programs.display(),
            folder = self.folder.display()
        ));
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
