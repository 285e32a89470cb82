//! Which rows of `studio_board` lack Jellyfin metadata, and how their item is looked up.

use std::borrow::Cow;

use super::{meta_of, meta_string, string};
use crate::identity::{fold_case, trim};
use crate::json::{Json, Kind, Members};
use crate::time::date_of_text;

/// Whether a row is published and has no `meta.jellyfin_public_url`: absent, JSON null or blank. Rows that cannot be
/// resolved for good are the shell's to leave out.
///
/// `board_row` is the row as a JSON object of its columns.
///
/// Source: Jellyfin metadata, `jellyfin_candidates`.
pub fn is_candidate<'a, J: Members<'a>>(board_row: J) -> bool {
    let is_published = board_row.get("status").and_then(Json::as_str).as_deref() == Some("published");
    let url = meta_of(board_row).and_then(|meta| meta.get("jellyfin_public_url"));
    is_published
        && url.is_none_or(|url| match url.kind() {
            Kind::Null => true,
            Kind::String => url.as_str().is_none_or(|url| trim(&url).is_empty()),
            _ => false,
        })
}

/// How the item of a row is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The row names the item; `search` is what to try when Jellyfin no longer has it.
    Item { id: String, search: Option<Search> },
    /// By name and date.
    Search(Search),
    /// Neither id nor date.
    Nothing,
}

/// A search to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// `None` finds nothing.
    pub title: Option<String>,
    /// UTC date, `2025-10-01`.
    pub date: String,
}

impl Search {
    /// Where `jellyfin_items` remembers that this search was made and found nothing.
    pub fn key(&self) -> String {
        search_key(self.title.as_deref().unwrap_or_default(), &self.date)
    }
}

/// `item_id` of a search in `jellyfin_items`: `search:<folded name>|<date>`.
pub fn search_key(title: &str, date: &str) -> String {
    format!("search:{}|{date}", fold_case(title))
}

/// [`search_key`] of a name and an ISO 8601 date or time, as an item has them; `None` where no search finds it.
pub fn search_key_of(name: &str, premiere_date: &str) -> Option<String> {
    let date = date_of_text(premiere_date)?;
    (!trim(name).is_empty()).then(|| search_key(name, &date))
}

/// How the item of a row is found: `meta.jellyfin_item_id`, else title and `meta.premiere_date`.
pub fn lookup<'a, J: Members<'a>>(board_row: J) -> Lookup {
    let date = meta_string(board_row, "premiere_date").and_then(|date| date_of_text(&date));
    let search = date.map(|date| Search {
        title: title_of(board_row).map(Cow::into_owned),
        date,
    });
    match (meta_string(board_row, "jellyfin_item_id"), search) {
        (Some(id), search) => Lookup::Item {
            id: id.into_owned(),
            search,
        },
        (None, Some(search)) => Lookup::Search(search),
        (None, None) => Lookup::Nothing,
    }
}

/// The title of a row, then that of its `meta`; never an invented one.
pub(super) fn title_of<'a, J: Members<'a>>(board_row: J) -> Option<Cow<'a, str>> {
    string(board_row, "title").or_else(|| meta_string(board_row, "title"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_a_link_already() {
        for (meta, expected) in [
            (json!({}), true),
            (json!(null), true),
            (json!("text"), true),
            (json!({"jellyfin_public_url": null}), true),
            (json!({"jellyfin_public_url": "\u{a0}"}), true),
            (json!({"jellyfin_public_url": "x"}), false),
            (json!({"jellyfin_public_url": 5}), false),
        ] {
            assert_eq!(
                is_candidate(&json!({"status": "published", "meta": meta})),
                expected,
                "{meta}"
            );
            assert!(!is_candidate(&json!({"status": "Published", "meta": meta})));
        }
        assert!(!is_candidate(&json!({"meta": {}})));
    }

    #[test]
    fn how_items_are_found() {
        let search = |title: Option<&str>| Search {
            title: title.map(str::to_owned),
            date: "2025-09-30".into(),
        };
        let date = "2025-10-01T05:00:00+09:00";
        for (row, expected) in [
            (
                json!({"title": "A", "meta": {"premiere_date": date}}),
                Lookup::Search(search(Some("A"))),
            ),
            (
                json!({"meta": {"premiere_date": date, "title": "M"}}),
                Lookup::Search(search(Some("M"))),
            ),
            (json!({"meta": {"premiere_date": date}}), Lookup::Search(search(None))),
            (
                json!({"title": "A", "meta": {"premiere_date": date, "jellyfin_item_id": "1"}}),
                Lookup::Item {
                    id: "1".into(),
                    search: Some(search(Some("A"))),
                },
            ),
            (
                json!({"title": "A", "meta": {"premiere_date": "soon", "jellyfin_item_id": 5}}),
                Lookup::Nothing,
            ),
            (json!({"title": "A", "meta": []}), Lookup::Nothing),
        ] {
            assert_eq!(lookup(&row), expected, "{row}");
        }
        assert_eq!(search_key("STRASSE", "2025-10-01"), search_key("Straße", "2025-10-01"));
    }
}
