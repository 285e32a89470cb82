//! A locator as it may stand in a log.

use std::borrow::Cow;

/// Parts of the names of query parameters that carry what lets somebody in.
const SECRET: [&str; 14] = [
    "token",
    "sig",
    "secret",
    "pass",
    "pwd",
    "auth",
    "credential",
    "apikey",
    "api_key",
    "api-key",
    "access_key",
    "session",
    "jwt",
    "bearer",
];
/// Whole names of such.
const SECRET_NAMES: [&str; 2] = ["key", "pw"];

/// `locator` without the user and password of a link, and without the values of query parameters that open doors
/// (`X-Plex-Token`, signatures). A path is what it is: paths may be logged.
///
/// Source: collection ingest rules, explaining a run.
pub fn without_secrets(locator: &str) -> Cow<'_, str> {
    let Some(place) = locator.find("://") else {
        return Cow::Borrowed(locator);
    };
    let (scheme, rest) = locator.split_at(place + 3);
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    // A password may hold a slash or a question mark that nobody escaped: what stands before an @ is never shown.
    let has_unescaped = rest[authority..].starts_with(['/', '?', '#']) && !rest[..authority].contains('@') && {
        let before = &rest[..authority];
        before.contains(':')
            && !before
                .rsplit(':')
                .next()
                .is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
    };
    let end_of_user = if has_unescaped {
        rest.rfind('@')
    } else {
        rest[..authority].rfind('@')
    };
    let rest = &rest[end_of_user.map_or(0, |at| at + 1)..];
    let Some(pairs) = rest.find(['?', '#']) else {
        return match end_of_user {
            Some(_) => Cow::Owned(format!("{scheme}{rest}")),
            None => Cow::Borrowed(locator),
        };
    };
    let mut shown = format!("{scheme}{}", &rest[..pairs]);
    for pair in rest[pairs..].split_inclusive(['?', '#', '&', ';']) {
        let (pair, separator) = match pair.char_indices().next_back() {
            Some((at, '?' | '#' | '&' | ';')) => pair.split_at(at),
            _ => (pair, ""),
        };
        match pair.split_once('=') {
            Some((name, _)) if is_secret(name) => shown.extend([name, "=…"]),
            _ => shown.push_str(pair),
        }
        shown.push_str(separator);
    }
    Cow::Owned(shown)
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|part| name.contains(part)) || SECRET_NAMES.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::without_secrets;

    #[test]
    fn users_passwords_and_tokens_go() {
        for (locator, shown) in [
            ("/m/a:b@c.mkv", "/m/a:b@c.mkv"),
            ("/m/a?token=1.mkv", "/m/a?token=1.mkv"),
            ("smb://me:secret@host/share/a.mkv", "smb://host/share/a.mkv"),
            ("smb://me:sec/ret@host/share/a.mkv", "smb://host/share/a.mkv"),
            ("http://host:8080/a@b.mkv", "http://host:8080/a@b.mkv"),
            (
                "http://plex:32400/a.mkv?X-Plex-Token=abc&part=1",
                "http://plex:32400/a.mkv?X-Plex-Token=…&part=1",
            ),
            (
                "https://h/a?X-Amz-Signature=1&sig=2&v=3#t=4",
                "https://h/a?X-Amz-Signature=…&sig=…&v=3#t=4",
            ),
            ("https://h/a?x", "https://h/a?x"),
            (
                "https://h/a?v=1;pass=2&key=3&monkey=4",
                "https://h/a?v=1;pass=…&key=…&monkey=4",
            ),
            ("https://h/a#access_token=abc&t=4", "https://h/a#access_token=…&t=4"),
            ("nfs://host/a", "nfs://host/a"),
            ("", ""),
        ] {
            assert_eq!(without_secrets(locator), shown);
        }
    }
}
