//! What must not leave: the path that the media server has for an item.

use std::borrow::Cow;

use super::string;
use crate::json::{Json, Kind};

/// Where the server keeps the item's file; a text without a separator is no path, and would be found everywhere.
#[derive(Clone, Debug, Default)]
pub struct ServerPath(Option<String>);

impl ServerPath {
    pub fn of<'a, J: Json<'a>>(item: Option<J>) -> Self {
        let path = item
            .filter(|item| item.kind() == Kind::Object)
            .and_then(|item| string(item, "Path"));
        ServerPath(
            path.filter(|path| path.len() > 1 && path.contains(['/', '\\']))
                .map(Cow::into_owned),
        )
    }

    /// Whether `text` tells it. The address of an object may hold the same words: it names a place in a bucket or on the
    /// web, which is public.
    pub fn is_told_by(&self, text: &str) -> bool {
        let is_address = ["s3://", "http://", "https://"]
            .iter()
            .any(|scheme| text.starts_with(scheme))
            && !text.contains(char::is_whitespace);
        let is_file = text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("file:"))
            && text[5..].starts_with(['/', '\\']);
        is_file || (!is_address && self.0.as_deref().is_some_and(|path| text.contains(path)))
    }
}

#[cfg(test)]
mod tests {
    use super::ServerPath;
    use serde_json::json;

    #[test]
    fn addresses_are_no_paths() {
        let path = ServerPath::of(Some(&json!({"Path": "/media/a.mp4"})));
        for (text, tells) in [
            ("/media/a.mp4", true),
            ("see /media/a.mp4", true),
            ("file:///x", true),
            ("FILE:/x", true),
            ("file:\\\\server\\x", true),
            ("File: The Movie", false),
            ("file:archive", false),
            ("https://cdn/x is stored at /media/a.mp4", true),
            ("s3://b/media/a.mp4", false),
            ("https://cdn/media/a.mp4", false),
            ("media/a.mp4", false),
            ("é", false),
        ] {
            assert_eq!(path.is_told_by(text), tells, "{text}");
        }
        for none in [json!({}), json!({"Path": "a"}), json!({"Path": "name"}), json!(5)] {
            assert!(!ServerPath::of(Some(&none)).is_told_by("a name"), "{none}");
        }
    }
}
