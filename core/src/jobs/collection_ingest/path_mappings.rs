//! Paths of a media server turned into local ones.

use std::borrow::Cow;

use crate::json::{Kind, Members};

/// The mappings of a collection.
#[derive(Clone, Debug, Default)]
pub struct PathMappings(Vec<(String, String)>);

impl PathMappings {
    /// Reads `collections.path_mappings`: an object of prefix → local prefix, or an array of
    /// `{"from": prefix, "to": local prefix}`. What has another form is passed over.
    pub fn read<'a, J: Members<'a>>(mappings: J) -> Self {
        let text = |value: J| value.as_str().map(Cow::into_owned);
        let pairs = match mappings.kind() {
            Kind::Object => mappings
                .members()
                .filter_map(|(from, to)| Some((from.into_owned(), text(to)?)))
                .collect(),
            _ => mappings
                .elements()
                .filter_map(|pair| Some((text(pair.get("from")?)?, text(pair.get("to")?)?)))
                .collect(),
        };
        Self::of(pairs)
    }

    fn of(pairs: Vec<(String, String)>) -> Self {
        PathMappings(pairs.into_iter().filter(|(from, _)| !from.is_empty()).collect())
    }

    /// `path` with its longest mapped prefix of whole segments replaced; as it is when none fits. A path with `..` is
    /// left alone: it may lead out of the prefix that it begins with.
    pub fn map<'p>(&self, path: &'p str) -> Cow<'p, str> {
        if path.split(['/', '\\']).any(|segment| segment == "..") {
            return Cow::Borrowed(path);
        }
        let longest = self
            .0
            .iter()
            .filter_map(|(from, to)| Some((from.len(), to, rest_below(path, from)?)))
            .max_by_key(|(length, ..)| *length);
        let Some((_, to, rest)) = longest else {
            return Cow::Borrowed(path);
        };
        // Below a local POSIX path a Windows separator would be a letter.
        let rest = if path.starts_with('/') || to.contains('\\') {
            Cow::Borrowed(rest)
        } else {
            Cow::Owned(rest.replace('\\', "/"))
        };
        let root = to.trim_end_matches(['/', '\\']);
        match (root, &*rest) {
            (_, "") => Cow::Owned(to.clone()),
            (root, rest) if to.contains('\\') => Cow::Owned(format!("{root}\\{rest}")),
            (root, rest) => Cow::Owned(format!("{root}/{rest}")),
        }
    }
}

/// What of `path` lies below the directory `prefix`, without the separator between them.
fn rest_below<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let directory = prefix.trim_end_matches(['/', '\\']);
    let rest = path.strip_prefix(directory)?;
    if rest.is_empty() {
        return Some(rest);
    }
    rest.strip_prefix(['/', '\\'])
}

#[cfg(test)]
mod tests {
    use super::PathMappings;

    fn mappings() -> PathMappings {
        PathMappings::read(&serde_json::json!({
            "/data": "/mnt/all",
            "/data/tv/": "/mnt/tv/",
            "D:\\TV": "/mnt/d",
            "/back": "C:\\x",
            "": "/nowhere",
            "/odd": 5,
        }))
    }

    #[test]
    fn the_longest_prefix_of_whole_segments_wins() {
        for (path, expected) in [
            ("/data/tv/a.mkv", "/mnt/tv/a.mkv"),
            ("/data/tv", "/mnt/tv/"),
            ("/data/tvs/a.mkv", "/mnt/all/tvs/a.mkv"),
            ("/database/a.mkv", "/database/a.mkv"),
            ("/data/tv/../../etc/passwd", "/data/tv/../../etc/passwd"),
            ("D:\\TV\\Show\\a.mkv", "/mnt/d/Show/a.mkv"),
            ("/data/a\\b.mkv", "/mnt/all/a\\b.mkv"),
            ("/back/a.mkv", "C:\\x\\a.mkv"),
            ("/odd/a", "/odd/a"),
            ("relative", "relative"),
            ("", ""),
        ] {
            assert_eq!(mappings().map(path), expected, "{path}");
        }
    }

    #[test]
    fn both_forms_are_read() {
        let pairs = serde_json::json!([{"from": "/a", "to": "/b"}, {"from": "/c"}, 5, null]);
        assert_eq!(PathMappings::read(&pairs).map("/a/x"), "/b/x");
        for none in [serde_json::json!(null), serde_json::json!("x"), serde_json::json!([])] {
            assert_eq!(PathMappings::read(&none).map("/a/x"), "/a/x");
        }
        let root = serde_json::json!({"/": "/mnt"});
        assert_eq!(PathMappings::read(&root).map("/a/x"), "/mnt/a/x");
    }
}
