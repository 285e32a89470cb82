//! The two thumbnail columns: what is missing, what is malformed, and which path of a map comes first.

use std::borrow::Cow;

use crate::identity::trim;
use crate::json::{Json, Kind, Members};

/// Sizes in the order in which they stand in for a missing `thumbnail_url`; others follow by name.
const SIZE_ORDER: [&str; 6] = ["small", "medium", "large", "xlarge", "cover", "originalSize"];

/// Whether a `thumbnail_url` is missing: NULL or blank.
pub fn is_missing_url(url: Option<&str>) -> bool {
    url.is_none_or(|url| trim(url).is_empty())
}

/// What a `thumbnail_urls` column holds.
#[derive(Clone, Debug)]
pub enum Map<J> {
    /// SQL NULL, JSON null, `{}`, or strings that are all blank.
    Missing,
    /// An object of strings with one that is not blank.
    Usable(J),
    /// Anything else: it counts as present in a video, and gives nothing in a source.
    Malformed,
}

impl<J> Map<J> {
    pub fn read<'a>(column: Option<J>) -> Self
    where
        J: Members<'a>,
    {
        let Some(value) = column.filter(|value| value.kind() != Kind::Null) else {
            return Map::Missing;
        };
        if value.kind() != Kind::Object {
            return Map::Malformed;
        }
        let mut any = false;
        for (_, path) in value.members() {
            match path.as_str() {
                Some(path) => any |= !trim(&path).is_empty(),
                None => return Map::Malformed,
            }
        }
        if any {
            Map::Usable(value)
        } else {
            Map::Missing
        }
    }

    pub const fn is_missing(&self) -> bool {
        matches!(self, Map::Missing)
    }
}

/// The path that stands in for a missing `thumbnail_url`: `small`, else the first by size order that is not blank.
pub(super) fn first_path<'a, J: Members<'a>>(map: J) -> Option<Cow<'a, str>> {
    map.members()
        .filter_map(|(size, path)| Some((size, path.as_str().filter(|path| !trim(path).is_empty())?)))
        .min_by(|(a, _), (b, _)| (rank(a), a).cmp(&(rank(b), b)))
        .map(|(_, path)| path)
}

fn rank(size: &str) -> usize {
    SIZE_ORDER
        .iter()
        .position(|known| *known == size)
        .unwrap_or(SIZE_ORDER.len())
}

/// Whether two maps have the same members.
pub(super) fn same_map<'a, J: Members<'a>>(a: J, b: J) -> bool {
    a.len() == b.len()
        && a.members()
            .all(|(size, path)| b.get(&size).and_then(Json::as_str) == path.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{json, Value};

    #[test]
    fn maps_are_missing_usable_or_malformed() {
        for missing in [json!(null), json!({}), json!({"small": "", "large": "\u{2003}"})] {
            assert!(Map::read(Some(&missing)).is_missing(), "{missing}");
        }
        assert!(Map::read(None::<&Value>).is_missing());
        for malformed in [
            json!([]),
            json!("x"),
            json!(""),
            json!(5),
            json!({"small": null}),
            json!({"small": "/a", "large": 1}),
            json!({"small": {"a": "/b"}}),
        ] {
            assert!(matches!(Map::read(Some(&malformed)), Map::Malformed), "{malformed}");
        }
        assert!(matches!(
            Map::read(Some(&json!({"small": " ", "x": "/x"}))),
            Map::Usable(_)
        ));
    }

    #[test]
    fn sizes_have_an_order() {
        for (map, expected) in [
            (json!({"large": "/l", "small": "/s", "aaa": "/a"}), "/s"),
            (json!({"originalSize": "/o", "cover": "/c", "small": " "}), "/c"),
            (json!({"zzz": "/z", "bbb": "/b"}), "/b"),
        ] {
            assert_eq!(first_path(&map).as_deref(), Some(expected), "{map}");
        }
        assert!(is_missing_url(Some("")) && is_missing_url(None) && !is_missing_url(Some("/a")));
    }
}
