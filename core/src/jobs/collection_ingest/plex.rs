//! A Plex library response turned into items.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::path_mappings::PathMappings;
use crate::fields::{text, whole_number};
use crate::identity::trim;
use crate::json::{Kind, Members};

/// One playable entry of a library, with the columns of a table of items.
#[derive(Clone, Debug, PartialEq)]
pub struct PlexItem {
    /// The rating key; `None` where the entry has none, which cannot be keyed and makes the list incomplete.
    pub locator: Option<String>,
    /// The local path of the first file.
    pub uri: Option<String>,
    /// Bytes of all parts of the first version; `None` unless every part has a size.
    pub size: Option<i64>,
    /// The show of an episode, else the entry's own title.
    pub title: Option<String>,
    pub season: Option<i32>,
    pub episode: Option<i32>,
    /// `type`, `guid`, `year` and, for an episode, `episodeTitle`; what is not known is absent.
    pub metadata: Value,
}

/// The items of `response`: the entries of `MediaContainer.Metadata` (or of the bare array) that can be played, in their
/// order. Shows, seasons and other directories are passed over. Anything but a response gives no items.
///
/// `updatedAt` is when Plex last looked at its own record, not the time of the file, so no item has an mtime.
///
/// Source: collection ingest rules, importers.
pub fn plex_items<'a, J: Members<'a>>(response: J, mappings: &PathMappings) -> Vec<PlexItem> {
    let entries = match response.get("MediaContainer") {
        Some(container) => container.get("Metadata"),
        None if response.kind() == Kind::Array => Some(response),
        None => response.get("Metadata"),
    };
    entries
        .into_iter()
        .flat_map(Members::elements)
        .filter(|entry| is_playable(*entry))
        .map(|entry| item(entry, mappings))
        .collect()
}

fn is_playable<'a, J: Members<'a>>(entry: J) -> bool {
    let listed = text(entry, "type").is_some_and(|kind| matches!(&*kind, "movie" | "episode" | "track" | "clip"));
    listed || entry.get("Media").is_some_and(|media| media.kind() == Kind::Array)
}

fn item<'a, J: Members<'a>>(entry: J, mappings: &PathMappings) -> PlexItem {
    let owned = |name: &str| text(entry, name).map(Cow::into_owned);
    let number = |name: &str| i32::try_from(whole_number(entry.get(name)?)?).ok();
    let is_episode = text(entry, "type").as_deref() == Some("episode");
    let parts = entry
        .get("Media")
        .and_then(|versions| versions.at(0))
        .and_then(|version| version.get("Part"));
    let file = parts.and_then(|parts| parts.at(0)?.get("file")?.as_str());
    let mut metadata = Map::new();
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            metadata.insert(name.to_owned(), value);
        }
    };
    add("type", owned("type").map(Value::from));
    add("guid", owned("guid").map(Value::from));
    add("year", number("year").map(Value::from));
    if is_episode {
        add("episodeTitle", owned("title").map(Value::from));
    }
    PlexItem {
        locator: entry.get("ratingKey").and_then(rating_key),
        uri: file
            .filter(|file| !file.is_empty())
            .map(|file| mappings.map(&file).into_owned()),
        size: parts.and_then(total_size),
        title: if is_episode {
            owned("grandparentTitle")
        } else {
            owned("title")
        },
        season: number("parentIndex").filter(|_| is_episode),
        episode: number("index").filter(|_| is_episode),
        metadata: Value::Object(metadata),
    }
}

/// A rating key is text or an integer.
fn rating_key<'a, J: Members<'a>>(value: J) -> Option<String> {
    match value.as_str() {
        Some(key) => Some(trim(&key).to_owned()).filter(|key| !key.is_empty()),
        None => whole_number(value).map(|key| key.to_string()),
    }
}

fn total_size<'a, J: Members<'a>>(parts: J) -> Option<i64> {
    if parts.is_empty() {
        return None;
    }
    parts
        .elements()
        .try_fold(0i64, |total, part| total.checked_add(whole_number(part.get("size")?)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_library_of_all_kinds() {
        let mappings = PathMappings::read(&json!({"/plex": "/mnt"}));
        let response = json!({"MediaContainer": {"size": 5, "Metadata": [
            {"ratingKey": "77", "type": "episode", "grandparentTitle": "Show", "title": "Pilot", "parentIndex": 1,
             "index": 2, "guid": "plex://episode/1", "updatedAt": 1754798400,
             "Media": [{"container": "mkv", "Part": [{"file": "/plex/tv/a.mkv", "size": 10}, {"file": "/plex/tv/b.mkv", "size": 5}]},
                       {"Part": [{"file": "/plex/tv/other.mkv", "size": 1}]}]},
            {"ratingKey": 78, "type": "movie", "title": "Film", "year": 1999, "index": 4, "Media": [{"Part": [{"file": "/other/f.mkv"}]}]},
            {"ratingKey": "9", "type": "show", "title": "Show"},
            {"type": "movie", "title": "No key"},
            5, null]}});
        let items = plex_items(&response, &mappings);
        assert_eq!(
            items,
            [
                PlexItem {
                    locator: Some("77".into()),
                    uri: Some("/mnt/tv/a.mkv".into()),
                    size: Some(15),
                    title: Some("Show".into()),
                    season: Some(1),
                    episode: Some(2),
                    metadata: json!({"type": "episode", "guid": "plex://episode/1", "episodeTitle": "Pilot"}),
                },
                PlexItem {
                    locator: Some("78".into()),
                    uri: Some("/other/f.mkv".into()),
                    size: None,
                    title: Some("Film".into()),
                    season: None,
                    episode: None,
                    metadata: json!({"type": "movie", "year": 1999}),
                },
                PlexItem {
                    locator: None,
                    uri: None,
                    size: None,
                    title: Some("No key".into()),
                    season: None,
                    episode: None,
                    metadata: json!({"type": "movie"}),
                },
            ]
        );
    }

    #[test]
    fn what_is_no_response_has_no_items() {
        for response in [
            json!(null),
            json!(5),
            json!({}),
            json!({"MediaContainer": []}),
            json!({"MediaContainer": {"Metadata": {"ratingKey": 1}}}),
        ] {
            assert_eq!(plex_items(&response, &PathMappings::default()), [], "{response}");
        }
    }
}
