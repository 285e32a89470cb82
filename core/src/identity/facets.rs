//! Facets: what belongs to the use of a link, not to the asset that it points to.

use super::canonical_url::AbsoluteLink;
use super::text::{first_parameter, is_digits};

/// The value of a facet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FacetValue {
    /// Seconds, a position in a list, a switch.
    Integer(i64),
    /// An identifier or an access secret, as it stands in the link, percent-decoded.
    Text(String),
}

/// A few named values, in the order they were found; each name at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facets(Vec<(&'static str, FacetValue)>);

impl Facets {
    /// The names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &FacetValue)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }

    /// The value called `name`.
    pub fn get(&self, name: &str) -> Option<&FacetValue> {
        self.iter().find_map(|(found, value)| (found == name).then_some(value))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The facets as the text of a JSON object, `{}` when there are none.
    pub fn to_json_text(&self) -> String {
        let members: Vec<String> = self
            .iter()
            .map(|(name, value)| match value {
                FacetValue::Integer(number) => format!("\"{name}\": {number}"),
                FacetValue::Text(text) => {
                    format!("\"{name}\": {}", serde_json::Value::from(text.as_str()))
                }
            })
            .collect();
        format!("{{{}}}", members.join(", "))
    }

    pub(super) fn add_text(&mut self, name: &'static str, value: Option<String>) {
        if let Some(text) = value {
            self.0.push((name, FacetValue::Text(text)));
        }
    }

    fn add_integer(&mut self, name: &'static str, value: Option<i64>) {
        if let Some(number) = value {
            self.0.push((name, FacetValue::Integer(number)));
        }
    }

    /// The query parameter `name` as text.
    pub(super) fn add_parameter(&mut self, link: &AbsoluteLink, name: &'static str) {
        self.add_text(name, link.parameter(name));
    }

    /// The query parameter `name` where it is a whole number.
    pub(super) fn add_number(&mut self, link: &AbsoluteLink, name: &'static str) {
        let number = link
            .parameter(name)
            .filter(|digits| is_digits(digits))
            .and_then(|digits| digits.parse().ok());
        self.add_integer(name, number);
    }

    /// `start` and `end` in seconds, from `t`, `start` and `end` of the query, else of the fragment.
    pub(super) fn add_times(&mut self, link: &AbsoluteLink) {
        let time = |name: &str| {
            [link.query(), link.fragment()]
                .iter()
                .flatten()
                .find_map(|part| seconds(&first_parameter(part, name)?))
        };
        self.add_integer("start", time("t").or_else(|| time("start")));
        self.add_integer("end", time("end"));
    }
}

/// Seconds of `90`, `30s`, `1m40`, `1h2m3s`; `None` for any other text.
fn seconds(text: &str) -> Option<i64> {
    let mut total: i64 = 0;
    let mut rest = text;
    let mut unit_below = i64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: i64 = rest[..digits].parse().ok()?;
        let (unit, after) = match rest[digits..].chars().next() {
            Some('h' | 'H') => (3600, &rest[digits + 1..]),
            Some('m' | 'M') => (60, &rest[digits + 1..]),
            Some('s' | 'S') => (1, &rest[digits + 1..]),
            None => (1, ""),
            Some(_) => return None,
        };
        if unit >= unit_below {
            return None;
        }
        unit_below = unit;
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = after;
    }
    (unit_below != i64::MAX).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_forms() {
        for (text, expected) in [
            ("90", Some(90)),
            ("0", Some(0)),
            ("30s", Some(30)),
            ("1m40", Some(100)),
            ("1h2m3s", Some(3723)),
            ("2h", Some(7200)),
            ("", None),
            ("s", None),
            ("1m2h", None),
            ("1s2", None),
            ("-5", None),
            ("1.5", None),
            ("99999999999999999999", None),
            ("9999999999999999h", None),
        ] {
            assert_eq!(seconds(text), expected, "{text:?}");
        }
    }

    #[test]
    fn json_text_is_escaped() {
        let facets = Facets(vec![
            ("start", FacetValue::Integer(3)),
            ("list", FacetValue::Text("a\"b".into())),
        ]);
        assert_eq!(facets.to_json_text(), r#"{"start": 3, "list": "a\"b"}"#);
        assert_eq!(Facets::default().to_json_text(), "{}");
    }
}
