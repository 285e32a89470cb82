//! A stable text identity for file paths.

use std::borrow::Cow;

use icu_casemap::CaseMapper;
use unicode_normalization::{is_nfc, UnicodeNormalization};

use super::text::{percent_decode, scheme_of, strip_prefix_ignore_case};

/// The normalised form of a file path or of the URI of a file, without touching a disk; `None` for the empty text.
///
/// - Windows (`C:\x`), UNC (`\\server\share\x`) and `file:` forms become `/c/x`, `//server/share/x` and the plain path
/// - repeated and trailing slashes go, `.` and `..` are resolved lexically, Unicode becomes NFC
/// - `case_sensitive`: false folds everything (full case folding)
///
/// Nothing is trimmed and a backslash in a POSIX name stays: two files never share a path. `None` also for a `file:` URI
/// whose decoded path is no text.
///
/// Source: identity rules, `normalize_path`.
pub fn normalize_path(path: &str, case_sensitive: bool) -> Option<String> {
    if path.is_empty() {
        return None;
    }
    let path = normalize_unicode(path, case_sensitive);
    if let Some(rest) = strip_prefix_ignore_case(&path, "file:/") {
        // Decoding brings characters that have not been normalised yet.
        let decoded = decode_file_uri(&path[path.len() - rest.len() - 1..])?;
        return Some(normalize_plain(&normalize_unicode(&decoded, case_sensitive)));
    }
    Some(match split_uri(&path) {
        Some((scheme, rest)) => normalize_uri(scheme, rest, case_sensitive),
        None => normalize_plain(&path),
    })
}

/// `text` for comparing names without regard to case: NFC, full case folding (`ß` is `ss`), NFC again.
pub fn fold_case(text: &str) -> String {
    normalize_unicode(text, false).into_owned()
}

/// NFC, and before it, where case plays no part, the full case folding of the NFC form.
fn normalize_unicode(text: &str, case_sensitive: bool) -> Cow<'_, str> {
    let composed = compose(text);
    if case_sensitive {
        return composed;
    }
    if composed.is_ascii() {
        return Cow::Owned(composed.to_ascii_lowercase());
    }
    let folded = CaseMapper::new().fold_string(&composed).into_owned();
    Cow::Owned(compose(&folded).into_owned())
}

fn compose(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || is_nfc(text) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.nfc().collect())
    }
}

/// The plain path of a `file:` URI whose scheme was cut off: `///x`, `//host/x` or `/x`.
fn decode_file_uri(rest: &str) -> Option<String> {
    let (host, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find(['/', '\\']).unwrap_or(rest.len())),
        None => ("", rest),
    };
    let path = percent_decode(path)?;
    let host = percent_decode(host)?;
    if host.is_empty() || host.eq_ignore_ascii_case("localhost") {
        // `/C:/x` is `C:/x` and `/C:` is `C:/`; without that form the slash belongs to the path.
        let below = path.strip_prefix('/').unwrap_or_default();
        if is_drive(below) {
            return Some(format!("{below}/"));
        }
        let plain = Some(below)
            .filter(|below| split_drive(below).is_some())
            .unwrap_or(&path);
        return (!plain.is_empty()).then(|| plain.to_owned());
    }
    // `file://C:/x`, written with a slash too few
    if is_drive(&host) {
        return Some(format!("{host}/{path}"));
    }
    Some(format!("//{host}{path}"))
}

/// Scheme and rest of `scheme://rest`; one letter is a drive.
fn split_uri(path: &str) -> Option<(&str, &str)> {
    let scheme = scheme_of(path).filter(|scheme| scheme.len() > 1)?;
    let rest = path[scheme.len() + 1..].strip_prefix("//")?;
    Some((scheme, rest))
}

/// Another URI: scheme and host in lower case, no userinfo, no trailing slash. All else is kept, for it may tell two
/// files apart.
fn normalize_uri(scheme: &str, rest: &str, case_sensitive: bool) -> String {
    let scheme = scheme.to_ascii_lowercase();
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default().to_lowercase();
    // In an address of the web a slash after `?` or `#` does not end the path.
    let keeps_slash = matches!(scheme.as_str(), "http" | "https") && path.contains(['?', '#']);
    let path = if keeps_slash { path } else { path.trim_end_matches('/') };
    normalize_unicode(&format!("{scheme}://{host}{path}"), case_sensitive).into_owned()
}

/// A path in one of the plain forms.
fn normalize_plain(path: &str) -> String {
    if path.starts_with("\\\\") || path.starts_with("//") {
        return normalize_double_slash(&path.replace('\\', "/"));
    }
    if let Some((drive, rest)) = split_drive(path) {
        return resolve_drive(drive, &rest.replace('\\', "/"));
    }
    match path.strip_prefix('/') {
        Some(rest) => rooted("/", resolve(rest, 0)),
        None => relative(path),
    }
}

/// `//server/share/x`, `//?/C:/x`, `//?/UNC/server/share/x`, or a root with slashes too many.
fn normalize_double_slash(path: &str) -> String {
    let rest = &path[2..];
    if let Some(device) = rest.strip_prefix("?/").or_else(|| rest.strip_prefix("./")) {
        if let Some(share) = strip_prefix_ignore_case(device, "UNC/") {
            return normalize_share(share);
        }
        if let Some((drive, rest)) = split_drive(device) {
            return resolve_drive(drive, rest);
        }
        if is_drive(device) {
            return resolve_drive(&device[..1], "");
        }
    }
    normalize_share(rest)
}

fn normalize_share(share: &str) -> String {
    let (server, rest) = share.split_once('/').unwrap_or((share, ""));
    if matches!(server, "" | "." | "..") {
        return rooted("/", resolve(share, 0));
    }
    let server = compose(&server.to_lowercase()).into_owned();
    // The share is the root: `..` does not leave it.
    rooted(&format!("//{server}/"), resolve(rest, 1))
}

/// Drive letter and rest of `C:\x` and `C:/x`. `C:x` is relative to a directory that nobody knows, a plain name.
fn split_drive(path: &str) -> Option<(&str, &str)> {
    let (drive, rest) = path.split_once(':')?;
    (is_drive_letter(drive) && rest.starts_with(['/', '\\'])).then_some((drive, rest))
}

/// `C:` alone.
fn is_drive(text: &str) -> bool {
    text.strip_suffix(':').is_some_and(is_drive_letter)
}

fn is_drive_letter(text: &str) -> bool {
    text.len() == 1 && text.as_bytes()[0].is_ascii_alphabetic()
}

fn resolve_drive(drive: &str, rest: &str) -> String {
    rooted(&format!("/{}/", drive.to_ascii_lowercase()), resolve(rest, 0))
}

/// The root and the segments below it; without segments the root loses its slash, except `/` itself.
fn rooted(root: &str, segments: Vec<&str>) -> String {
    if segments.is_empty() && root.len() > 1 {
        return root.trim_end_matches('/').to_owned();
    }
    format!("{root}{}", segments.join("/"))
}

/// The segments of a path below a root; `..` does not take the first `fixed` ones away.
fn resolve(path: &str, fixed: usize) -> Vec<&str> {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => (),
            ".." => {
                if segments.len() > fixed {
                    segments.pop();
                }
            }
            name => segments.push(name),
        }
    }
    segments
}

/// A relative path: `..` at its beginning stays, nothing left is `.`.
fn relative(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => (),
            ".." if segments.last().is_some_and(|last| *last != "..") => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    if segments.is_empty() {
        return ".".to_owned();
    }
    segments.join("/")
}

#[cfg(test)]
mod tests {
    use super::normalize_path;

    fn assert_path(path: &str, expected: &str) {
        assert_eq!(normalize_path(path, true).as_deref(), Some(expected), "{path:?}");
    }

    #[test]
    fn windows_and_shares() {
        assert_path("C:\\", "/c");
        assert_path("C:/", "/c");
        assert_path("C:", "C:");
        assert_path("C://a", "/c/a");
        assert_path("\\\\?\\C:\\x", "/c/x");
        assert_path("\\\\?\\c:", "/c");
        assert_path("\\\\?\\UNC\\Srv\\Share\\x", "//srv/Share/x");
        assert_path("\\\\?\\unc\\Srv\\Share\\..\\x", "//srv/Share/x");
        assert_path("//SRV/Share/a\\b/", "//srv/Share/a/b");
        assert_path("//srv/share/../../x", "//srv/share/x");
        assert_path("//srv", "//srv");
        assert_path("//", "/");
        assert_path("///a//b", "/a/b");
        assert_path("////srv/share/x", "/srv/share/x");
    }

    #[test]
    fn posix() {
        assert_path("/", "/");
        assert_path("/a\\b", "/a\\b");
        assert_path("a\\b", "a\\b");
        assert_path("\\a", "\\a");
        assert_path("/C:/x", "/C:/x");
        assert_path("../../a/../b/", "../../b");
        assert_path("a/..", ".");
        assert_path("a/../..", "..");
        assert_path("./", ".");
        assert_path(" a ", " a ");
        assert_path("file:x", "file:x");
    }

    #[test]
    fn file_uris() {
        assert_path("file:/mnt/x", "/mnt/x");
        assert_path("file://localhost/mnt/x", "/mnt/x");
        assert_path("file://LOCALHOST/C:/x", "/c/x");
        assert_path("file://Host/Share/a%20b", "//host/Share/a b");
        assert_path("file:///C:\\a%5Cb", "/c/a/b");
        assert_path("file://C:/x", "/c/x");
        assert_path("file:///C:", "/c");
        assert_path("file:///a%5Cb%", "/a\\b%");
        assert_path("file:///a%2520b", "/a%20b");
        assert_path("file:///a%2Fb", "/a/b");
        assert_path("file:///a?b#c", "/a?b#c");
        assert_path("file:///cafe%CC%81", "/café");
        assert_eq!(normalize_path("file:///a%00", true), None);
        assert_eq!(normalize_path("file:///a%FF", true), None);
        assert_eq!(
            normalize_path("file:///CAFE%CC%81%C3%89", false).as_deref(),
            Some("/caféé")
        );
    }

    #[test]
    fn other_uris() {
        assert_path("SMB://User:p%40w@Host/Share/A/", "smb://host/Share/A");
        assert_path("smb://host/share/Show #1/", "smb://host/share/Show #1");
        assert_path("http://host/a?b=/", "http://host/a?b=/");
        assert_path("http://host:80/", "http://host:80");
        assert_path("nfs://nas/a/../b//c", "nfs://nas/a/../b//c");
        assert_eq!(normalize_path("SMB://Host/ÀB", false).as_deref(), Some("smb://host/àb"));
    }
}
