//! MIME types of assets.

use super::canonical_url::Link;
use super::text::{percent_decode, trim};

/// What is declared or guessed where nobody knows.
const UNKNOWN: &str = "application/octet-stream";

/// The MIME type of an asset, lower-cased and without parameters: the first that answers of a declared `type/subtype`, a
/// declared extension (`pdf`, `.mp4`), the extension of the file name, the extension of the last path segment of the
/// link. `application/octet-stream` is no answer; `None` when there is none.
///
/// `mime_guess` is the table of extensions. A link that [`canonical_url`](super::canonical_url()) refuses has no path.
///
/// Source: identity rules, `infer_mime_type`.
pub fn infer_mime_type(declared: Option<&str>, filename: Option<&str>, link: Option<&str>) -> Option<String> {
    declared
        .and_then(|declared| declared_type(declared).or_else(|| declared_extension(declared)))
        .or_else(|| type_of_extension(extension(trim(filename?))?))
        .or_else(|| type_of_link(link?))
}

/// The type that the path of a canonical URL ends in.
pub(super) fn type_of_canonical_url(url: &str) -> Option<String> {
    let path = match url.find("://") {
        Some(at) => {
            let after = &url[at + 3..];
            &after[after.find('/')?..]
        }
        None => url,
    };
    type_of_path(path.split(['?', '#']).next()?)
}

/// The `type/subtype` of a MIME type without its parameters, as written; `None` unless both are names after RFC 6838
/// §4.2.
pub(super) fn essence(mime_type: &str) -> Option<&str> {
    let essence = trim(mime_type.split(';').next()?);
    let (top_level, subtype) = essence.split_once('/')?;
    (is_restricted_name(top_level) && is_restricted_name(subtype)).then_some(essence)
}

fn is_restricted_name(name: &str) -> bool {
    name.len() <= 127
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
}

fn declared_type(declared: &str) -> Option<String> {
    essence(declared)
        .map(str::to_ascii_lowercase)
        .filter(|essence| essence != UNKNOWN)
}

fn declared_extension(declared: &str) -> Option<String> {
    let name = trim(declared);
    type_of_extension(name.strip_prefix('.').unwrap_or(name))
}

fn type_of_link(link: &str) -> Option<String> {
    let canonical = Link::parse(link)?;
    let path = match &canonical {
        Link::RootRelative(path) => path.split(['?', '#']).next()?.into(),
        Link::Absolute(absolute) => absolute.path(),
    };
    type_of_path(&path)
}

fn type_of_path(path: &str) -> Option<String> {
    let segment = path.rsplit('/').next()?;
    // A name in another encoding than UTF-8 still has its extension.
    let segment = percent_decode(segment).unwrap_or(segment.into());
    type_of_extension(extension(&segment)?)
}

/// The extension of a file name: what follows its last dot, where something stands before that dot.
fn extension(name: &str) -> Option<&str> {
    let name = name.rsplit('/').next()?;
    let (stem, extension) = name.rsplit_once('.')?;
    (!stem.is_empty()).then_some(extension)
}

fn type_of_extension(extension: &str) -> Option<String> {
    let guessed = mime_guess::from_ext(extension).first_raw()?;
    (guessed != UNKNOWN).then(|| guessed.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::infer_mime_type;

    #[test]
    fn what_is_declared() {
        for (declared, expected) in [
            (" PDF ", Some("application/pdf")),
            (".mp4", Some("video/mp4")),
            ("text/plain; charset=utf-8", Some("text/plain")),
            ("*/*", None),
            ("video/*", None),
            ("video /mp4", None),
            ("..mp4", None),
            ("application/octet-stream", None),
            ("a.pdf", None),
            ("", None),
        ] {
            assert_eq!(
                infer_mime_type(Some(declared), None, None).as_deref(),
                expected,
                "{declared:?}"
            );
        }
    }

    #[test]
    fn what_a_link_ends_in() {
        for (link, expected) in [
            ("https://example.mov", None),
            ("https://e.test/a%2Emp4?x=.pdf", Some("video/mp4")),
            ("/a/b.PDF?x#y.mp4", Some("application/pdf")),
            ("https://e.test/#/a.mp4", None),
            ("javascript:a.mp4", None),
            ("e.test/.mp4", None),
            ("https://e.test/caf%E9.mp4", Some("video/mp4")),
        ] {
            assert_eq!(infer_mime_type(None, None, Some(link)).as_deref(), expected, "{link:?}");
        }
    }
}
