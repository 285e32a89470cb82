//! Connection strings as libpq takes them, both forms, and service files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{refused, variable};
use crate::failure::Failure;

/// Options that the client library does not know as libpq does, and that are handled here.
const OURS: [&str; 6] = ["sslmode", "sslrootcert", "sslcert", "sslkey", "service", "passfile"];
/// Options that change nothing here: this program speaks UTF-8, and no GSSAPI.
const WITHOUT_MEANING: [&str; 5] = [
    "client_encoding",
    "fallback_application_name",
    "gssencmode",
    "krbsrvname",
    "sslcompression",
];

/// Takes our options out of a connection string; the rest is for the client library.
pub fn take(text: &str) -> (String, BTreeMap<String, String>) {
    let mut taken = BTreeMap::new();
    let mut is_taken = |name: &str, value: &dyn Fn() -> String| {
        if OURS.contains(&name) {
            taken.insert(name.to_owned(), value());
            return true;
        }
        WITHOUT_MEANING.contains(&name)
    };
    let text = if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        match text.split_once('?') {
            None => text.to_owned(),
            Some((base, query)) => {
                let kept: Vec<&str> = query
                    .split('&')
                    .filter(|pair| match pair.split_once('=') {
                        Some((name, value)) => !is_taken(name, &|| percent_decoded(value)),
                        None => true,
                    })
                    .collect();
                let mark = if kept.is_empty() { "" } else { "?" };
                format!("{base}{mark}{}", kept.join("&"))
            }
        }
    } else {
        // What cannot be read so, the client library refuses with its own words.
        match pairs(text) {
            None => text.to_owned(),
            Some(pairs) => {
                let kept = pairs
                    .into_iter()
                    .filter(|(name, value)| !is_taken(name, &|| value.clone()));
                let kept: Vec<String> = kept.map(|(name, value)| format!("{name}={}", quoted(&value))).collect();
                kept.join(" ")
            }
        }
    };
    (text, taken)
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// `name = value` pairs; values may stand in single quotes, a backslash escapes. `None` for a text of another form.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_end();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return None;
        }
        let after = after.trim_start();
        let (is_quoted, body) = match after.strip_prefix('\'') {
            Some(body) => (true, body),
            None => (false, after),
        };
        let mut value = String::new();
        let mut letters = body.char_indices();
        let end = loop {
            match letters.next() {
                Some((_, '\\')) => value.extend(letters.next().map(|(_, letter)| letter)),
                Some((at, '\'')) if is_quoted => break at + 1,
                Some((at, letter)) if !is_quoted && letter.is_whitespace() => break at,
                Some((_, letter)) => value.push(letter),
                None if is_quoted => return None,
                None => break body.len(),
            }
        };
        pairs.push((name.to_owned(), value));
        rest = body[end..].trim_start();
    }
    Some(pairs)
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let decoded = (first == b'%')
            .then(|| u8::from_str_radix(std::str::from_utf8(after.get(..2)?).ok()?, 16).ok())
            .flatten();
        bytes.push(decoded.unwrap_or(first));
        rest = if decoded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The options that the service `name` stands for: the first file that has it, PGSERVICEFILE or ~/.pg_service.conf, then
/// pg_service.conf in PGSYSCONFDIR.
///
/// # Errors
/// When no file has it.
pub fn of_service(name: &str) -> Result<BTreeMap<String, String>, Failure> {
    let own = match variable("PGSERVICEFILE") {
        Some(file) => Some(PathBuf::from(file)),
        None => variable("HOME").map(|home| PathBuf::from(home).join(".pg_service.conf")),
    };
    let of_system = variable("PGSYSCONFDIR").unwrap_or_else(|| "/etc/postgresql-common".to_owned());
    let files = own
        .into_iter()
        .chain([PathBuf::from(of_system).join("pg_service.conf")]);
    files
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .find_map(|text| section(&text, name))
        .ok_or_else(|| {
            refused(format!("the service {name} is not defined"))
                .hint("Define it in the file that PGSERVICEFILE names, or in ~/.pg_service.conf.")
        })
}

/// The lines of `[name]`.
fn section(text: &str, name: &str) -> Option<BTreeMap<String, String>> {
    let mut lines = text.lines().map(str::trim);
    let header = format!("[{name}]");
    lines.find(|line| *line == header)?;
    let inside = lines.take_while(|line| !line.starts_with('['));
    let mut options = BTreeMap::new();
    for line in inside.filter(|line| !line.starts_with('#')) {
        if let Some((name, value)) = line.split_once('=') {
            // Of an option that is given twice the first counts.
            options.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    Some(options)
}

#[cfg(test)]
mod tests {
    use super::{section, take};

    #[test]
    fn our_options_are_taken_out_of_both_forms() {
        let (text, taken) =
            take("postgresql://u@h/d?sslmode=verify-full&connect_timeout=3&sslrootcert=%2Fx%20y&client_encoding=utf8");
        assert_eq!(text, "postgresql://u@h/d?connect_timeout=3");
        assert_eq!(
            (taken["sslmode"].as_str(), taken["sslrootcert"].as_str()),
            ("verify-full", "/x y")
        );
        let (text, taken) = take(r"host=h sslrootcert = '/a b/it\'s.crt' user='u\\v' sslmode=verify-ca password=a\ b");
        assert_eq!(text, r"host='h' user='u\\v' password='a b'");
        assert_eq!(taken["sslrootcert"], "/a b/it's.crt");
        assert_eq!(taken["sslmode"], "verify-ca");
        assert_eq!(take("postgresql://h/d?sslmode=require").0, "postgresql://h/d");
        for refused in ["host", "host='x", "a b=c"] {
            assert_eq!(take(refused).0, refused);
        }
    }

    #[test]
    fn a_service_is_one_section() {
        let text = "# x\n[a]\nhost=1\n[b]\n#host=2\nhost=3\nport=4\nhost=5\n\n[c]\nuser=6";
        let service = section(text, "b").expect("there");
        assert_eq!((service["host"].as_str(), service["port"].as_str()), ("3", "4"));
        assert!(!service.contains_key("user"));
        assert!(section(text, "d").is_none());
    }
}
