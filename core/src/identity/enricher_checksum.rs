//! The checksum of a collection's enrichers.

use std::cmp::Ordering;
use std::fmt::Write;

use super::text::{is_digits, sha256_hex};
use crate::json::{Json, Kind};

/// Most digits of a whole priority, as many as a PostgreSQL numeric holds. A JSON text may name a power of ten that no
/// memory holds.
const MOST_DIGITS: i64 = 131_072;

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

/// An exact decimal number: equal numbers are equal values, however they were written.
#[derive(Default, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    /// Digits before the point without leading zeros, empty for 0.
    whole: String,
    /// Digits after the point without trailing zeros.
    fraction: String,
}

impl Decimal {
    /// Reads a JSON number; `None` when its power of ten is out of all bounds.
    fn parse(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent: i64 = exponent.parse().ok()?;
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        if !is_digits(&digits) {
            return None;
        }
        if digits.bytes().all(|digit| digit == b'0') {
            return Some(Decimal::default());
        }
        // Where the point stands, counted from the first digit.
        let point = i64::try_from(whole.len()).ok()?.checked_add(exponent)?;
        if point.abs() > MOST_DIGITS {
            return None;
        }
        let at = usize::try_from(point.max(0)).ok()?;
        let (whole, fraction) = if at >= digits.len() {
            (format!("{digits}{}", "0".repeat(at - digits.len())), String::new())
        } else {
            let zeros = usize::try_from((-point).max(0)).ok()?;
            (
                digits[..at].to_owned(),
                format!("{}{}", "0".repeat(zeros), &digits[at..]),
            )
        };
        Some(Decimal {
            negative,
            whole: whole.trim_start_matches('0').to_owned(),
            fraction: fraction.trim_end_matches('0').to_owned(),
        })
    }

    fn text(&self) -> String {
        let sign = if self.negative { "-" } else { "" };
        let whole = if self.whole.is_empty() { "0" } else { &self.whole };
        let point = if self.fraction.is_empty() { "" } else { "." };
        format!("{sign}{whole}{point}{}", self.fraction)
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let size = |number: &Self| (number.whole.len(), number.whole.clone(), number.fraction.clone());
        match (self.negative, other.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => size(self).cmp(&size(other)),
            (true, true) => size(other).cmp(&size(self)),
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_form_and_their_order() {
        let text = |number: &str| Decimal::parse(number).map(|decimal| decimal.text());
        for (number, expected) in [
            ("1.50", "1.5"),
            ("-0", "0"),
            ("1e2", "100"),
            ("12.5E-1", "1.25"),
            ("5e-3", "0.005"),
            ("007", "7"),
            ("12345678901234567890", "12345678901234567890"),
        ] {
            assert_eq!(text(number).as_deref(), Some(expected), "{number}");
        }
        assert_eq!(text("1e999999999"), None);
        assert_eq!(text("1e99999999999999999999"), None);
        let ordered = ["-10", "-2", "-1.5", "0", "0.005", "0.1", "9", "9.1", "10"];
        let numbers: Vec<Decimal> = ordered.iter().filter_map(|number| Decimal::parse(number)).collect();
        assert_eq!(numbers.len(), ordered.len());
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
    }

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
