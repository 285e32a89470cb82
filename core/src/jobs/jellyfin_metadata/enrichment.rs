//! What a Jellyfin item says of a row: links, thumbnail, duration.

use std::borrow::Cow;

use serde_json::{Map, Number, Value};

use super::private::ServerPath;
use super::{meta_of, meta_string, string};
use crate::decimal::Decimal;
use crate::identity::{percent_encode, trim};
use crate::json::{Json, Kind, Members};

/// Ticks of Jellyfin are ten to the power of minus seven seconds.
const TICKS: i64 = -7;

/// The fields that a row gets; what is not known is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Enrichment {
    pub jellyfin_item_id: Option<String>,
    pub jellyfin_public_url: Option<String>,
    pub thumbnail_url: Option<String>,
    /// Seconds, exact.
    pub duration: Option<Number>,
}

impl Enrichment {
    /// The members that are known, under the names that `meta` and the payload share.
    pub(super) fn members(&self) -> Map<String, Value> {
        let text = |value: &Option<String>| value.clone().map(Value::from);
        [
            ("jellyfin_item_id", text(&self.jellyfin_item_id)),
            ("jellyfin_public_url", text(&self.jellyfin_public_url)),
            ("thumbnail_url", text(&self.thumbnail_url)),
            ("duration", self.duration.clone().map(Value::Number)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
    }
}

/// Reads an item for a row.
///
/// - `board_row`: the row as a JSON object of its columns
/// - `item`: what Jellyfin answered; anything but an object says nothing
/// - `public_base`: the address under which the world sees Jellyfin; its path is kept
///
/// Source: Jellyfin metadata, `content_published_payload`.
pub fn enrich<'a, J: Members<'a>>(board_row: J, item: Option<J>, public_base: Option<&str>) -> Enrichment {
    let item = item.filter(|item| item.kind() == Kind::Object);
    let base = public_base
        .map(|base| trim(base).trim_end_matches('/'))
        .filter(|base| !base.is_empty());
    // The item's own id: the row may have an old one.
    let id = item
        .and_then(|item| string(item, "Id"))
        .or_else(|| meta_string(board_row, "jellyfin_item_id"));
    let address = base.zip(id.as_deref().map(|id| percent_encode(id, b"")));
    let image = item
        .and_then(|item| string(item.get("ImageTags")?, "Primary"))
        .zip(address.as_ref())
        .map(|(tag, (base, id))| format!("{base}/Items/{id}/Images/Primary?tag={}", percent_encode(&tag, b"")));
    let path = ServerPath::of(item);
    let open = |text: Option<Cow<'a, str>>| text.filter(|text| !path.is_told_by(text));
    let existing =
        || open(meta_string(board_row, "thumbnail_url")).or_else(|| open(string(board_row, "thumbnail_url")));
    Enrichment {
        jellyfin_public_url: address
            .as_ref()
            .map(|(base, id)| format!("{base}/web/index.html#!/details?id={id}"))
            .or_else(|| open(meta_string(board_row, "jellyfin_public_url")).map(Cow::into_owned)),
        thumbnail_url: image.or_else(|| {
            open(meta_string(board_row, "thumbnail_uri"))
                .or_else(existing)
                .map(Cow::into_owned)
        }),
        duration: item
            .and_then(|item| ticks(item.get("RunTimeTicks")?))
            .or_else(|| known_duration(meta_of(board_row)?.get("duration")?)),
        jellyfin_item_id: id.map(Cow::into_owned),
    }
}

/// Seconds of a number of ticks, or of a string of digits; a negative one is none.
fn ticks<'a, J: Json<'a>>(value: J) -> Option<Number> {
    let text = match value.kind() {
        Kind::String => value
            .as_str()
            .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())),
        _ => value.number_text(),
    }?;
    let seconds = Decimal::parse(&text)?.shifted(TICKS)?;
    plausible(&seconds).then(|| seconds.text().parse().ok()).flatten()
}

/// The duration that a row has already, as it is written.
fn known_duration<'a, J: Json<'a>>(value: J) -> Option<Number> {
    let text = value.number_text()?;
    plausible(&Decimal::parse(&text)?).then(|| text.parse().ok()).flatten()
}

/// Not negative, and of a size that any reader takes.
fn plausible(seconds: &Decimal) -> bool {
    *seconds >= Decimal::default() && seconds.round_i64().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn duration(item: Value, meta: Value) -> Option<String> {
        let row = json!({"meta": meta});
        enrich(&row, Some(&item), None)
            .duration
            .map(|number| number.to_string())
    }

    #[test]
    fn durations() {
        for (ticks, expected) in [
            (json!("12345678901"), Some("1234.5678901")),
            (json!(12_345_678_901_i64), Some("1234.5678901")),
            (json!(0), Some("0")),
            (json!(-1), Some("9.50")),
            (json!("1e3"), Some("9.50")),
            (json!(null), Some("9.50")),
            (serde_json::from_str("1e300").expect("a number"), Some("9.50")),
        ] {
            let kept: Value = serde_json::from_str("9.50").expect("a number");
            let got = duration(json!({"RunTimeTicks": ticks}), json!({"duration": kept}));
            assert_eq!(got.as_deref(), expected, "{ticks}");
        }
        for absent in [json!(-1), json!("5"), json!(null)] {
            assert_eq!(duration(json!({}), json!({"duration": absent})), None);
        }
    }

    #[test]
    fn links_are_built_on_the_public_base_only() {
        let row = json!({"thumbnail_url": "row", "meta": {"jellyfin_item_id": "a b"}});
        let item = json!({"ImageTags": {"Primary": "t"}});
        let with = enrich(&row, Some(&item), Some("https://j.test/x//"));
        assert_eq!(
            with.thumbnail_url.as_deref(),
            Some("https://j.test/x/Items/a%20b/Images/Primary?tag=t")
        );
        let without = enrich(&row, Some(&item), Some(" "));
        assert_eq!(
            (without.jellyfin_public_url, without.thumbnail_url.as_deref()),
            (None, Some("row"))
        );
        let nothing = enrich(&json!(5), Some(&json!([])), Some("https://j.test"));
        assert_eq!(nothing, Enrichment::default());
    }
}
