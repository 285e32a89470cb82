//! `resolve_jellyfin_item`: the one item of that name and date.

use crate::identity::{fold_case, trim};
use crate::json::Members;
use crate::time::{date_of_text, parse_timestamp, utc_date};

use super::string;

/// Why there is no one item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unresolved {
    NotFound,
    Ambiguous,
}

impl Unresolved {
    pub const fn name(self) -> &'static str {
        match self {
            Unresolved::NotFound => "not_found",
            Unresolved::Ambiguous => "ambiguous",
        }
    }
}

/// The id of the one item whose `Name` equals `title` after NFC and full case folding and whose `PremiereDate` is on the
/// same UTC date. Never the first of several; the same id twice is one hit.
///
/// - `premiere_date`: `2025-10-01`, or a time of that UTC date
/// - `items`: what Jellyfin answered; entries that are no objects are passed over
///
/// # Errors
/// `NotFound`, also without title or date; `Ambiguous` for several ids.
///
/// Source: Jellyfin metadata, `resolve_jellyfin_item`.
pub fn resolve_jellyfin_item<'a, J: Members<'a>>(
    title: Option<&str>,
    premiere_date: Option<&str>,
    items: impl IntoIterator<Item = J>,
) -> Result<String, Unresolved> {
    let title = title.filter(|title| !trim(title).is_empty()).map(fold_case);
    let date = premiere_date.and_then(date_of_text);
    let (Some(title), Some(date)) = (title, date) else {
        return Err(Unresolved::NotFound);
    };
    let mut hit: Option<String> = None;
    for item in items {
        let is_same = string(item, "Name").is_some_and(|name| fold_case(&name) == title)
            && premiere_date_of(item).as_ref() == Some(&date);
        let Some(id) = string(item, "Id").filter(|_| is_same) else {
            continue;
        };
        match &hit {
            Some(known) if *known != *id => return Err(Unresolved::Ambiguous),
            _ => hit = Some(id.into_owned()),
        }
    }
    hit.ok_or(Unresolved::NotFound)
}

/// The UTC date of an item.
fn premiere_date_of<'a, J: Members<'a>>(item: J) -> Option<String> {
    utc_date(parse_timestamp(&string(item, "PremiereDate")?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_id_or_none() {
        let item = |id: &str| json!({"Id": id, "Name": "A", "PremiereDate": "2025-10-01"});
        let resolve = |items: &[serde_json::Value]| resolve_jellyfin_item(Some("a"), Some("2025-10-01"), items);
        assert_eq!(resolve(&[item("1"), item("1")]), Ok("1".into()));
        assert_eq!(resolve(&[item("1"), item("2"), item("1")]), Err(Unresolved::Ambiguous));
        assert_eq!(resolve(&[item("")]), Err(Unresolved::NotFound));
        let items = [item("1")];
        for (title, date) in [(None, Some("2025-10-01")), (Some("a"), None), (Some("a"), Some("soon"))] {
            assert_eq!(resolve_jellyfin_item(title, date, &items), Err(Unresolved::NotFound));
        }
    }
}
