//! Connecting as libpq does: a connection string, a service file, the PG* variables, .pgpass, sslmode.

mod options;
mod pgpass;
mod tls;

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use postgres::config::{Host, SslMode as Negotiation};
use postgres::{Client, Config, NoTls};

use crate::failure::{with_causes, Cause, Failure};
use tls::SslMode;

/// How to reach one server.
pub struct Target {
    config: Config,
    ssl_mode: SslMode,
    files: tls::Files,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn refused(message: impl Into<String>) -> Failure {
    Failure::new(Cause::Validation, message)
}

impl Target {
    /// DATABASE_URL where it is set, completed by the PG* variables.
    pub fn of_environment() -> Result<Self, Failure> {
        Self::of_url(variable("DATABASE_URL").as_deref())
    }

    /// The server that the variable `name` names, which has to be set.
    pub fn of_variable(name: &str) -> Result<Self, Failure> {
        match variable(name) {
            Some(url) => Self::of_url(Some(&url)),
            None => Err(refused(format!("{name} is not set")).hint(format!("export {name}=postgresql://…"))),
        }
    }

    fn of_url(url: Option<&str>) -> Result<Self, Failure> {
        let (text, mut given) = options::take(url.unwrap_or_default());
        let mut config: Config = text
            .parse()
            // The text may hold a password: it is not repeated.
            .map_err(|error: postgres::Error| refused(format!("the connection string is refused: {}", with_causes(&error))))?;
        // What the string leaves open the service says, and what that leaves open the variables.
        let service = match given.remove("service").or_else(|| variable("PGSERVICE")) {
            Some(name) => options::of_service(&name)?,
            None => BTreeMap::new(),
        };
        let known = |option: &str, name: &str| service.get(option).cloned().or_else(|| variable(name));
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            set_hosts(&mut config, known("host", "PGHOST"), known("hostaddr", "PGHOSTADDR"))?;
        }
        if config.get_ports().is_empty() {
            for port in known("port", "PGPORT").iter().flat_map(|ports| ports.split(',')) {
                config.port(number("PGPORT", port)?);
            }
        }
        if config.get_user().is_none() {
            let user = match known("user", "PGUSER") {
                Some(user) => user,
                None => {
                    whoami::username().map_err(|error| refused(format!("no user name: {error}")).hint("Set PGUSER."))?
                }
            };
            config.user(&user);
        }
        if config.get_dbname().is_none() {
            let user = config.get_user().unwrap_or_default().to_owned();
            config.dbname(&known("dbname", "PGDATABASE").unwrap_or(user));
        }
        if config.get_password().is_none() {
            let file = given.remove("passfile").or_else(|| known("passfile", "PGPASSFILE"));
            let password = known("password", "PGPASSWORD").or_else(|| pgpass::look_up(&config, file));
            if let Some(password) = password {
                config.password(password);
            }
        }
        if config.get_application_name().is_none() {
            let name = known("application_name", "PGAPPNAME");
            config.application_name(&name.unwrap_or_else(|| "media-assets".to_owned()));
        }
        if config.get_options().is_none() {
            if let Some(options) = known("options", "PGOPTIONS") {
                config.options(&options);
            }
        }
        if config.get_connect_timeout().is_none() {
            if let Some(seconds) = known("connect_timeout", "PGCONNECT_TIMEOUT") {
                let seconds: i32 = number("PGCONNECT_TIMEOUT", &seconds)?;
                // As with libpq, 0 and less is to wait for ever.
                if let Ok(seconds @ 1..) = u64::try_from(seconds) {
                    config.connect_timeout(Duration::from_secs(seconds));
                }
            }
        }
        let mut tls_option = |option: &str, name: &str| given.remove(option).or_else(|| known(option, name));
        let mode = tls_option("sslmode", "PGSSLMODE");
        let ssl_mode = SslMode::parse(mode.as_deref().unwrap_or("prefer"))
            .ok_or_else(|| refused(format!("sslmode is unknown: {}", mode.unwrap_or_default())).hint(SslMode::HINT))?;
        Ok(Target {
            config,
            ssl_mode,
            files: tls::Files {
                roots: tls_option("sslrootcert", "PGSSLROOTCERT"),
                certificate: tls_option("sslcert", "PGSSLCERT"),
                key: tls_option("sslkey", "PGSSLKEY"),
            },
        })
    }

    /// Connects as the sslmode asks.
    pub fn connect(&self) -> Result<Client, Failure> {
        let local = |host: &Host| !matches!(host, Host::Tcp(_));
        let only_sockets = !self.config.get_hosts().is_empty() && self.config.get_hosts().iter().all(local);
        // A socket has no TLS, whatever was asked for, as with libpq.
        let mode = if only_sockets { SslMode::Disable } else { self.ssl_mode };
        let plainly = |config: &Config| config.connect(NoTls);
        let mut config = self.config.clone();
        // What a run could not write is said in WARNINGs.
        config.notice_callback(|notice| {
            if matches!(notice.severity(), "WARNING") {
                eprintln!("WARNING: {}", notice.message());
            }
        });
        let result = match mode {
            SslMode::Disable => plainly(config.ssl_mode(Negotiation::Disable)),
            SslMode::Allow => match plainly(config.ssl_mode(Negotiation::Disable)) {
                Err(error) if error.as_db_error().is_some() => {
                    config.ssl_mode(Negotiation::Require).connect(self.connector()?)
                }
                result => result,
            },
            SslMode::Prefer => match config.ssl_mode(Negotiation::Prefer).connect(self.connector()?) {
                // The handshake failed, or the server takes this user without TLS only.
                Err(error) if refuses_tls(&error) => plainly(config.ssl_mode(Negotiation::Disable)).map_err(|_| error),
                result => result,
            },
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
                config.ssl_mode(Negotiation::Require).connect(self.connector()?)
            }
        };
        result.map_err(|error| Failure {
            cause: Cause::SourceUnreachable,
            ..Failure::of_database(&error, None)
        })
    }

    fn connector(&self) -> Result<tokio_postgres_rustls::MakeRustlsConnect, Failure> {
        tls::connector(self.ssl_mode, &self.files)
    }
}

/// Hosts and addresses, as lists; the server's usual socket where neither is given.
fn set_hosts(config: &mut Config, hosts: Option<String>, addresses: Option<String>) -> Result<(), Failure> {
    if hosts.is_none() && addresses.is_none() {
        config.host(default_host());
    }
    for host in hosts.iter().flat_map(|hosts| hosts.split(',')) {
        config.host(host);
    }
    for address in addresses.iter().flat_map(|addresses| addresses.split(',')) {
        config.hostaddr(
            address
                .parse()
                .map_err(|_| refused(format!("PGHOSTADDR is not an address: {address}")))?,
        );
    }
    Ok(())
}

fn number<N: FromStr>(name: &str, text: &str) -> Result<N, Failure> {
    let parsed = text.trim().parse();
    parsed.map_err(|_| refused(format!("{name} is not a number: {text}")))
}

/// Whether another try without TLS may succeed: the handshake failed, or pg_hba.conf has no line for TLS (28000).
fn refuses_tls(error: &postgres::Error) -> bool {
    match error.as_db_error() {
        Some(server) => server.code().code() == "28000",
        None => error.to_string().contains("TLS"),
    }
}

/// The directory of the server's socket, as PostgreSQL of the distributions has it.
fn default_host() -> &'static str {
    const SOCKETS: &str = "/var/run/postgresql";
    match (cfg!(unix), Path::new(SOCKETS).is_dir()) {
        (true, true) => SOCKETS,
        (true, false) => "/tmp",
        (false, _) => "localhost",
    }
}
