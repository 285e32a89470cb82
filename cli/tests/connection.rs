//! The client connects as libpq does: passwords from the file or the service file, a connection string, TLS with a
//! certificate made on the spot.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use media_assets_tests::ingest::{add_collection, create_tables};
use media_assets_tests::{each_server, unique, Cluster, Database};
use serde_json::Value;

/// A folder of this test, with one media file.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let root = std::env::temp_dir().join(unique("media_assets_connection"));
        fs::create_dir_all(&root).expect("a directory");
        let folder = Folder(root);
        folder.file("tree/Film (1999).mkv", "x", 0o644);
        folder
    }

    fn file(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        let file = self.0.join(name);
        fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
        fs::write(&file, content).expect("a file");
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("a mode");
        file
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The program with these variables and no other; HOME is the test's folder.
fn ingest(folder: &Folder, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_media-assets"));
    command.env_clear().env("HOME", &folder.0);
    command
        .args(["ingest", "TV", "--json", "--path"])
        .arg(folder.0.join("tree"));
    for (name, value) in variables {
        command.env(name, value);
    }
    command.output().expect("the program runs")
}

fn message(output: &Output) -> String {
    let result: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    result["error"]["message"].as_str().unwrap_or_default().to_owned()
}

fn succeeds(folder: &Folder, variables: &[(&str, &str)]) {
    let output = ingest(folder, variables);
    assert_eq!(output.status.code(), Some(0), "{variables:?}: {output:?}");
}

/// Fails with this exit code, and says neither password.
fn fails(folder: &Folder, code: i32, variables: &[(&str, &str)]) -> String {
    let output = ingest(folder, variables);
    assert_eq!(output.status.code(), Some(code), "{variables:?}: {output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("right:") && !said.contains("wrong password"), "{said}");
    message(&output)
}

/// A server that takes passwords only, of the role `walker` in the database `shows`.
fn with_passwords(test: impl Fn(&Cluster, &Database, &Folder, &str)) {
    each_server(|model| {
        let cluster = Cluster::like(model);
        let database = cluster.server.database();
        let mut session = database.session();
        create_tables(&mut session);
        add_collection(&mut session, "TV");
        session.run(
            "SET password_encryption = 'scram-sha-256'; CREATE ROLE walker LOGIN SUPERUSER PASSWORD 'right:pass word'",
        );
        cluster.run("(echo 'host all walker 127.0.0.1/32 scram-sha-256'; cat pg_hba.conf) > hba && mv hba pg_hba.conf");
        session.run("SELECT pg_reload_conf()");
        let (_, port) = cluster.server.address();
        test(&cluster, &database, &Folder::new(), &port.to_string());
    });
}

#[test]
fn a_password_comes_from_its_variable_or_its_file() {
    with_passwords(|_, database, folder, port| {
        let name = database.name.as_str();
        let base = [
            ("PGHOST", "127.0.0.1"),
            ("PGPORT", port),
            ("PGUSER", "walker"),
            ("PGDATABASE", name),
        ];
        let with = |more: &[(&'static str, &str)]| -> Vec<(String, String)> {
            let all = base.iter().chain(more);
            all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let call = |variables: &[(String, String)]| -> Output {
            let variables: Vec<(&str, &str)> = variables.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            ingest(folder, &variables)
        };
        let code = |more: &[(&'static str, &str)]| call(&with(more)).status.code();
        assert_eq!(code(&[]), Some(3), "no password");
        assert_eq!(code(&[("PGPASSWORD", "wrong password")]), Some(3));
        assert_eq!(code(&[("PGPASSWORD", "right:pass word")]), Some(0));
        // ~/.pgpass
        let lines = format!("# of this test\nother:*:*:*:wrong password\n127.0.0.1:{port}:{name}:walker:right\\:pass word\n*:*:*:*:wrong password\n");
        folder.file(".pgpass", &lines, 0o600);
        assert_eq!(code(&[]), Some(0), "~/.pgpass");
        folder.file(".pgpass", &lines, 0o644);
        let output = call(&with(&[]));
        assert_eq!(output.status.code(), Some(3), "a file that others may read is not used");
        assert!(String::from_utf8_lossy(&output.stderr).contains("readable by others"));
        // PGPASSFILE wins over it
        folder.file(".pgpass", "*:*:*:*:wrong password\n", 0o600);
        let file = folder.file("secret dir/passes", &lines, 0o600);
        let file = file.to_str().expect("utf-8");
        assert_eq!(code(&[]), Some(3));
        assert_eq!(code(&[("PGPASSFILE", file)]), Some(0), "PGPASSFILE");
        // and the option of the string over both
        let text = format!("passfile='{file}' client_encoding=UTF8");
        assert_eq!(code(&[("DATABASE_URL", &text)]), Some(0), "passfile in the string");
    });
}

#[test]
fn a_connection_string_wins_over_the_variables_and_is_completed_by_them() {
    with_passwords(|_, database, folder, port| {
        let name = database.name.as_str();
        let url = format!("postgresql://walker:right%3Apass%20word@127.0.0.1:{port}/{name}?connect_timeout=20");
        succeeds(
            folder,
            &[
                ("DATABASE_URL", &url),
                ("PGHOST", "192.0.2.1"),
                ("PGUSER", "nobody"),
                ("PGPASSWORD", "wrong password"),
            ],
        );
        let text = format!("host=127.0.0.1 user = walker password='right:pass word' dbname='{name}'");
        succeeds(folder, &[("DATABASE_URL", &text), ("PGPORT", port)]);
        // several ports for several hosts: the first that answers
        let ports = format!("1,{port}");
        succeeds(
            folder,
            &[
                ("PGHOST", "127.0.0.1,127.0.0.1"),
                ("PGPORT", &ports),
                ("PGUSER", "walker"),
                ("PGDATABASE", name),
                ("PGPASSWORD", "right:pass word"),
            ],
        );
        fails(
            folder,
            1,
            &[("DATABASE_URL", "postgresql://walker:right:pass@127.0.0.1:port/x")],
        );
        fails(folder, 1, &[("PGPORT", "many")]);
        fails(folder, 1, &[("PGHOSTADDR", "localhost")]);
        let said = fails(folder, 3, &[("DATABASE_URL", &url.replace("right", "wrong"))]);
        assert!(said.contains("password"), "{said}");
    });
}

#[test]
fn a_service_stands_between_the_string_and_the_variables() {
    with_passwords(|_, database, folder, port| {
        let name = database.name.as_str();
        let service = format!("[other]\nhost=192.0.2.1\n\n[shows]\n# the library\nhost=127.0.0.1\nport={port}\nuser=walker\npassword=right:pass word\ndbname={name}\n");
        let file = folder.file("services", &service, 0o600);
        let file = file.to_str().expect("utf-8");
        fn with<'v>(more: &[(&'v str, &'v str)]) -> Vec<(&'v str, &'v str)> {
            let outvoted = [
                ("PGHOST", "192.0.2.1"),
                ("PGUSER", "nobody"),
                ("PGPASSWORD", "wrong password"),
            ];
            outvoted.iter().chain(more).copied().collect()
        }
        succeeds(folder, &with(&[("PGSERVICE", "shows"), ("PGSERVICEFILE", file)]));
        fs::rename(file, folder.0.join(".pg_service.conf")).expect("moved");
        succeeds(folder, &with(&[("PGSERVICE", "shows")]));
        succeeds(folder, &with(&[("DATABASE_URL", "service=shows")]));
        succeeds(folder, &with(&[("DATABASE_URL", "postgresql:///?service=shows")]));
        let said = fails(folder, 1, &[("PGSERVICE", "nothing")]);
        assert!(said.contains("service nothing is not defined"), "{said}");
    });
}

/// An authority of its own, a certificate of it for `localhost`, one that the server signed itself, one that is over.
const CERTIFICATES: &str = r#"
umask 077
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj '/CN=Authority of the test' -keyout ca.key -out ca.crt
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=localhost' -keyout server.key -out server.csr
printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' > extensions
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile extensions -out signed.crt
openssl req -x509 -key server.key -days 30 -subj '/CN=localhost' -addext subjectAltName=DNS:localhost -out self.crt
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj '/CN=Somebody else' -keyout other.key -out other.crt
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj '/CN=walker' -keyout client.key -out client.csr
printf 'basicConstraints=CA:FALSE\n' > client.ext
openssl x509 -req -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile client.ext -out client.crt
cp signed.crt server.crt
cat >> postgresql.conf <<'CONF'
ssl = on
ssl_cert_file = 'server.crt'
ssl_key_file = 'server.key'
ssl_ca_file = 'ca.crt'
listen_addresses = 'localhost'
CONF
cat > pg_hba.conf <<'HBA'
hostssl all walker all cert
hostssl all secured all trust
hostnossl all secured all reject
hostnossl all plain all trust
hostssl all plain all reject
host all postgres all trust
HBA
"#;

/// Takes a file of the server's folder where this user can read it.
fn taken(cluster: &Cluster, folder: &Folder, name: &str) -> String {
    let to = folder.0.join(name);
    let text = fs::read_to_string(cluster.folder().join(name)).expect("the test's user may read the server's folder");
    fs::write(&to, text).expect("a file");
    fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).expect("a mode");
    to.to_str().expect("utf-8").to_owned()
}

#[test]
fn tls_is_what_sslmode_asks_for() {
    let tested = Cell::new(0);
    each_server(|model| {
        if model.maintenance().text("SHOW ssl_library").is_empty() {
            eprintln!("   built without TLS");
            return;
        }
        tested.set(tested.get() + 1);
        let cluster = Cluster::like(model);
        cluster.run(CERTIFICATES);
        cluster.restart();
        let database = cluster.server.database();
        let mut session = database.session();
        create_tables(&mut session);
        add_collection(&mut session, "TV");
        session.run(
            "CREATE ROLE secured LOGIN SUPERUSER; CREATE ROLE plain LOGIN SUPERUSER; CREATE ROLE walker LOGIN SUPERUSER;
             CREATE TABLE used (tls boolean);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
                 INSERT INTO used SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid(); RETURN NULL; END$$;
             CREATE TRIGGER note AFTER UPDATE ON collections FOR EACH STATEMENT EXECUTE FUNCTION note()",
        );
        let folder = Folder::new();
        let authority = taken(&cluster, &folder, "ca.crt");
        let other = taken(&cluster, &folder, "other.crt");
        let own = taken(&cluster, &folder, "self.crt");
        let (certificate, key) = (
            taken(&cluster, &folder, "client.crt"),
            taken(&cluster, &folder, "client.key"),
        );
        let (_, port) = cluster.server.address();
        let port = port.to_string();
        let mut expect = |code: i32, tls: Option<&str>, host: &str, user: &str, mode: &str, more: &[(&str, &str)]| {
            let mut variables = vec![
                ("PGHOST", host),
                ("PGPORT", port.as_str()),
                ("PGUSER", user),
                ("PGDATABASE", database.name.as_str()),
                ("PGSSLMODE", mode),
            ];
            variables.extend(more);
            session.run("TRUNCATE used");
            let output = ingest(&folder, &variables);
            assert_eq!(output.status.code(), Some(code), "{variables:?}: {output:?}");
            assert_eq!(
                session.value("SELECT string_agg(tls::text, ' ') FROM used").as_deref(),
                tls,
                "{variables:?}"
            );
            if code == 0 {
                String::new()
            } else {
                message(&output)
            }
        };
        let by_authority = [("PGSSLROOTCERT", authority.as_str())];
        let by_other = [("PGSSLROOTCERT", other.as_str())];
        let by_own = [("PGSSLROOTCERT", own.as_str())];

        // without a file of roots
        expect(0, Some("false"), "localhost", "plain", "disable", &[]);
        expect(0, Some("true"), "localhost", "secured", "require", &[]);
        expect(0, Some("true"), "127.0.0.1", "secured", "prefer", &[]);
        expect(0, Some("true"), "localhost", "secured", "allow", &[]);
        expect(0, Some("false"), "localhost", "plain", "allow", &[]);
        expect(0, Some("false"), "localhost", "plain", "prefer", &[]);
        expect(3, None, "localhost", "secured", "disable", &[]);
        expect(3, None, "localhost", "plain", "require", &[]);
        for mode in ["verify-ca", "verify-full"] {
            let said = expect(1, None, "localhost", "secured", mode, &[]);
            assert!(said.contains("root certificates"), "{said}");
        }
        // with the right one
        for mode in ["require", "verify-ca", "verify-full"] {
            expect(0, Some("true"), "localhost", "secured", mode, &by_authority);
        }
        // the name in the certificate is checked by verify-full only
        expect(0, Some("true"), "127.0.0.1", "secured", "verify-ca", &by_authority);
        let said = expect(3, None, "127.0.0.1", "secured", "verify-full", &by_authority);
        assert!(said.contains("certificate"), "{said}");
        // with the wrong one; require checks it too where there is one
        for mode in ["require", "verify-ca", "verify-full"] {
            let said = expect(3, None, "localhost", "secured", mode, &by_other);
            assert!(said.contains("certificate"), "{said}");
        }
        // ~/.postgresql/root.crt is the usual place
        fs::create_dir(folder.0.join(".postgresql")).expect("a directory");
        fs::copy(&authority, folder.0.join(".postgresql/root.crt")).expect("a file");
        expect(0, Some("true"), "localhost", "secured", "verify-full", &[]);
        fs::copy(&other, folder.0.join(".postgresql/root.crt")).expect("a file");
        expect(3, None, "localhost", "secured", "verify-full", &[]);
        fs::remove_file(folder.0.join(".postgresql/root.crt")).expect("removed");
        // in the string
        let url = format!("postgresql:///?sslmode=verify-full&sslrootcert={authority}");
        expect(
            0,
            Some("true"),
            "localhost",
            "secured",
            "disable",
            &[("DATABASE_URL", &url)],
        );
        // a file that holds no certificate
        let empty = folder.file("empty.crt", "", 0o600);
        expect(
            1,
            None,
            "localhost",
            "secured",
            "verify-ca",
            &[("PGSSLROOTCERT", empty.to_str().expect("utf-8"))],
        );
        // a certificate of the client's own
        expect(3, None, "localhost", "walker", "require", &[]);
        expect(
            0,
            Some("true"),
            "localhost",
            "walker",
            "verify-full",
            &[("PGSSLCERT", &certificate), ("PGSSLKEY", &key), by_authority[0]],
        );
        // a server that signed its own certificate, which the client has as its root
        cluster.run("cp self.crt server.crt");
        cluster.restart();
        session = database.session();
        let expect = |code: i32, host: &str, mode: &str, more: &[(&str, &str)]| {
            let mut variables = vec![
                ("PGHOST", host),
                ("PGPORT", port.as_str()),
                ("PGUSER", "secured"),
                ("PGDATABASE", database.name.as_str()),
                ("PGSSLMODE", mode),
            ];
            variables.extend(more);
            let output = ingest(&folder, &variables);
            assert_eq!(output.status.code(), Some(code), "{variables:?}: {output:?}");
        };
        expect(0, "localhost", "verify-full", &by_own);
        expect(0, "127.0.0.1", "verify-ca", &by_own);
        expect(3, "127.0.0.1", "verify-full", &by_own);
        expect(3, "localhost", "verify-ca", &by_authority);
        assert_eq!(session.number("SELECT count(*) FROM collection_assets"), 1);
    });
    // Debian's own is; those of the other majors are not.
    let is_due = std::env::var_os("MEDIA_ASSETS_PG15_DSN").is_some();
    assert!(tested.get() > 0 || !is_due, "no server of these was built with TLS");
}

#[test]
fn nothing_else_of_the_machine_is_asked() {
    // an empty environment has no server: an error of reach, and one JSON document
    let folder = Folder::new();
    let output = ingest(&folder, &[("PGHOST", "/no/such/directory"), ("PGUSER", "nobody")]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(!message(&output).is_empty());
    assert!(Path::new(&folder.0).is_dir());
}
