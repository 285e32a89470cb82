//! The password file of libpq: `hostname:port:database:username:password`, `*` matches anything, `\` escapes.

use std::path::PathBuf;

use postgres::config::Host;
use postgres::Config;

/// The password that `file`, else ~/.pgpass, has for the server; the first line that matches wins.
pub fn look_up(config: &Config, file: Option<String>) -> Option<String> {
    let file = match file {
        Some(file) => PathBuf::from(file),
        None if cfg!(windows) => PathBuf::from(super::variable("APPDATA")?).join("postgresql/pgpass.conf"),
        None => PathBuf::from(super::variable("HOME")?).join(".pgpass"),
    };
    if !is_private(&file) {
        return None;
    }
    let text = std::fs::read_to_string(file).ok()?;
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        // A password for the usual socket is one for localhost; another socket is called by its directory.
        #[cfg(unix)]
        Some(Host::Unix(folder)) if folder != std::path::Path::new(super::default_host()) => {
            folder.display().to_string()
        }
        Some(_) => "localhost".to_owned(),
        None => config.get_hostaddrs().first()?.to_string(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432).to_string();
    let wanted = [
        host.as_str(),
        port.as_str(),
        config.get_dbname().unwrap_or_default(),
        config.get_user().unwrap_or_default(),
    ];
    find(&text, wanted)
}

/// Files that others may read are not used, as with libpq.
#[cfg(unix)]
fn is_private(file: &std::path::Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let Ok(about) = std::fs::metadata(file) else {
        return false;
    };
    if about.permissions().mode() & 0o077 != 0 {
        eprintln!("media-assets: password file is readable by others and not used; chmod 0600 it");
        return false;
    }
    about.is_file()
}

#[cfg(not(unix))]
fn is_private(_: &std::path::Path) -> bool {
    true
}

fn find(text: &str, wanted: [&str; 4]) -> Option<String> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(fields)
        .find(|fields| {
            fields
                .iter()
                .zip(wanted)
                .all(|(field, wanted)| field.is_any || field.text == wanted)
        })
        .map(|[.., password]| password.text)
}

struct Field {
    text: String,
    is_any: bool,
}

/// The five fields of a line; the password goes on to the end of the line.
fn fields(line: &str) -> Option<[Field; 5]> {
    let mut fields = Vec::new();
    let (mut text, mut raw) = (String::new(), String::new());
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => {
                raw.push(letter);
                text.extend(letters.next());
            }
            ':' if fields.len() < 4 => fields.push(Field {
                is_any: std::mem::take(&mut raw) == "*",
                text: std::mem::take(&mut text),
            }),
            _ => {
                raw.push(letter);
                text.push(letter);
            }
        }
    }
    fields.push(Field { is_any: false, text });
    fields.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn the_first_line_that_matches_wins() {
        let text = "# comment\nother:5432:db:me:no\nhost:*:d\\:b:me:a\\\\b:c\n*:*:*:*:last\n";
        assert_eq!(find(text, ["host", "1", "d:b", "me"]).as_deref(), Some("a\\b:c"));
        assert_eq!(find(text, ["host", "1", "db", "me"]).as_deref(), Some("last"));
        assert_eq!(find("\\*:*:*:*:x\nhost:1\n", ["host", "1", "db", "me"]), None);
    }
}
