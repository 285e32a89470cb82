//! The checksum of a collection's enrichers.

use std::fmt::Write;

use super::text::{is_digits, sha256_hex};
use crate::decimal::Decimal;
use crate::json::{Json, Kind};

/// SHA-256 (64 hexadecimal digits) of the enrichers, `None` when there are none: `[]`, no array, or no entry with an
/// `enricher_id`.
///
/// Hashed is `[{"enricher_id": …, "priority": n}, …]` in order of priority and id, the form that existing checksums were
/// made of, so neither the order of the array nor other keys matter. Repeats are kept. A priority that is neither a
/// number nor a string of digits is 0.
///
/// Source: identity rules, `enricher_checksum`.
pub fn enricher_checksum<'a, J: Json<'a>>(enrichers: J) -> Option<String> {
    if enrichers.kind() != Kind::Array {
        return None;
    }
    let mut entries: Vec<(Decimal, Id)> = (0..enrichers.len())
        .filter_map(|index| {
            let entry = enrichers.at(index)?;
            let id = Id::of(entry.get("enricher_id")?)?;
            Some((entry.get("priority").and_then(priority).unwrap_or_default(), id))
        })
        .collect();
    if entries.is_empty() {
        return None;
    }
    entries.sort();
    let parts: Vec<String> = entries
        .iter()
        .map(|(priority, id)| format!("{{\"enricher_id\": {}, \"priority\": {}}}", id.json(), priority.text()))
        .collect();
    Some(sha256_hex(format!("[{}]", parts.join(", ")).as_bytes()))
}

/// An enricher id. A number stays a number: ignored, a change of enrichers would go unseen.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Id {
    text: String,
    quoted: bool,
}

impl Id {
    fn of<'a, J: Json<'a>>(value: J) -> Option<Self> {
        match value.kind() {
            Kind::String => Some(Id {
                text: value.as_str()?.into_owned(),
                quoted: true,
            }),
            Kind::Number => Some(Id {
                text: value.number_text()?.into_owned(),
                quoted: false,
            }),
            _ => None,
        }
    }

    fn json(&self) -> String {
        if self.quoted {
            ascii_json_string(&self.text)
        } else {
            self.text.clone()
        }
    }
}

fn priority<'a, J: Json<'a>>(value: J) -> Option<Decimal> {
    match value.kind() {
        Kind::Number => Decimal::parse(&value.number_text()?),
        Kind::String => value
            .as_str()
            .filter(|text| is_digits(text))
            .and_then(|text| Decimal::parse(&text)),
        _ => None,
    }
}

/// A JSON string in ASCII, as Python's `json.dumps` writes it.
fn ascii_json_string(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for unit in text.encode_utf16() {
        match u8::try_from(unit).map(char::from) {
            Ok('"') => json.push_str("\\\""),
            Ok('\\') => json.push_str("\\\\"),
            Ok('\n') => json.push_str("\\n"),
            Ok('\r') => json.push_str("\\r"),
            Ok('\t') => json.push_str("\\t"),
            Ok('\u{8}') => json.push_str("\\b"),
            Ok('\u{c}') => json.push_str("\\f"),
            Ok(printable @ ' '..='~') => json.push(printable),
            _ => {
                // Writing to a String does not fail.
                let _ = write!(json, "\\u{unit:04x}");
            }
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_ascii() {
        assert_eq!(
            ascii_json_string("a/é\u{7f}😀\n\"\u{1}"),
            r#""a/\u00e9\u007f\ud83d\ude00\n\"\u0001""#
        );
    }

    #[test]
    fn odd_priorities_are_zero() {
        let sum = |priority: serde_json::Value| {
            enricher_checksum(&serde_json::json!([{"enricher_id": "a", "priority": priority}]))
        };
        let zero = sum(0.into());
        for odd in [
            serde_json::json!(null),
            "".into(),
            " 5".into(),
            "-3".into(),
            "x".into(),
            true.into(),
            serde_json::json!([1]),
        ] {
            assert_eq!(sum(odd.clone()), zero, "{odd}");
        }
        assert_eq!(sum("012".into()), sum(12.into()));
        assert_ne!(sum("12".into()), zero);
    }

    #[test]
    fn no_enrichers() {
        for none in [
            serde_json::json!([]),
            serde_json::json!(null),
            serde_json::json!({"enricher_id": "a"}),
            serde_json::json!("a"),
            serde_json::json!([{"priority": 1}, {"enricher_id": null}, 7]),
        ] {
            assert_eq!(enricher_checksum(&none), None, "{none}");
        }
    }
}
