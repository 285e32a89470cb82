//! Reading single fields of a JSON item: an odd value makes its field absent, never the item.

use std::borrow::Cow;

use crate::identity::trim;
use crate::json::{Json, Kind};

/// The trimmed text of member `name`, when it is a string with something left after trimming.
pub(crate) fn text<'a, J: Json<'a>>(object: J, name: &str) -> Option<Cow<'a, str>> {
    let trimmed = match object.get(name)?.as_str()? {
        Cow::Borrowed(text) => Cow::Borrowed(trim(text)),
        Cow::Owned(text) => Cow::Owned(trim(&text).to_owned()),
    };
    (!trimmed.is_empty()).then_some(trimmed)
}

/// A decimal number: `digits` times ten to the power of `exponent`.
struct Decimal<'t> {
    negative: bool,
    integer: &'t str,
    fraction: &'t str,
    exponent: i64,
}

impl<'t> Decimal<'t> {
    /// Reads the text of a JSON number.
    fn parse(text: &'t str) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match rest.find(['e', 'E']) {
            // An exponent that does not fit is as good as the largest: the value is far out of every range, or zero.
            Some(at) => (&rest[..at], rest[at + 1..].parse().unwrap_or(i64::MAX / 2)),
            None => (rest, 0),
        };
        let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        (digits(integer) && digits(fraction) && !(integer.is_empty() && fraction.is_empty())).then_some(Decimal {
            negative,
            integer,
            fraction,
            exponent,
        })
    }

    fn is_zero(&self) -> bool {
        self.integer
            .bytes()
            .chain(self.fraction.bytes())
            .all(|digit| digit == b'0')
    }

    /// The digits before the decimal point as a number, the digit behind it, and whether any other digit follows;
    /// `None` when it is beyond 2^63−1.
    fn split(&self) -> Option<(i64, u8, bool)> {
        if self.is_zero() {
            return Some((0, 0, false));
        }
        let point = i64::try_from(self.integer.len()).ok()?.saturating_add(self.exponent);
        let mut whole: i64 = 0;
        let mut tenths = 0;
        let mut more = false;
        let mut place = 0i64;
        for digit in self.integer.bytes().chain(self.fraction.bytes()) {
            let value = digit - b'0';
            if place < point {
                whole = whole.checked_mul(10)?.checked_add(i64::from(value))?;
            } else if place == point {
                tenths = value;
            } else {
                more |= value != 0;
            }
            place += 1;
        }
        // Zeros that only the exponent writes; a value above zero overflows after nineteen of them.
        while place < point && whole > 0 {
            whole = whole.checked_mul(10)?;
            place += 1;
        }
        if point < 0 {
            more |= tenths != 0;
            tenths = 0;
        }
        Some((whole, tenths, more))
    }
}

/// A whole number in 0…2^63−1 from a JSON number or a string of digits.
pub(crate) fn whole_number<'a, J: Json<'a>>(value: J) -> Option<i64> {
    match value.kind() {
        Kind::Number => {
            let text = value.number_text()?;
            let decimal = Decimal::parse(&text)?;
            let (whole, tenths, more) = decimal.split()?;
            let fits = tenths == 0 && !more && (!decimal.negative || decimal.is_zero());
            fits.then_some(whole)
        }
        Kind::String => {
            let text = value.as_str()?;
            let digits = trim(&text);
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten()
        }
        _ => None,
    }
}

/// Seconds from a JSON number or a plain decimal string, ≥ 0, rounded half up in decimal, within int4.
pub(crate) fn seconds<'a, J: Json<'a>>(value: J) -> Option<i32> {
    let text = match value.kind() {
        Kind::Number => value.number_text()?,
        Kind::String => {
            let text = value.as_str()?;
            let plain = trim(&text);
            let (integer, fraction) = plain.split_once('.').unwrap_or((plain, "0"));
            let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            if !digits(integer) || !digits(fraction) {
                return None;
            }
            Cow::Owned(plain.to_owned())
        }
        _ => return None,
    };
    let decimal = Decimal::parse(&text)?;
    if decimal.negative && !decimal.is_zero() {
        return None;
    }
    let (whole, tenths, _) = decimal.split()?;
    i32::try_from(whole.checked_add(i64::from(tenths >= 5))?).ok()
}

#[cfg(test)]
mod tests {
    use super::{seconds, whole_number};

    fn json(text: &str) -> serde_json::Value {
        serde_json::from_str(text).expect("test JSON")
    }

    #[test]
    fn sizes_are_whole_numbers_of_int8() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("10.0", Some(10)),
            ("10.5", None),
            ("-5", None),
            ("1e3", Some(1000)),
            ("1.5e1", Some(15)),
            ("1.55e1", None),
            ("15e-1", None),
            ("150e-1", Some(15)),
            ("1e400", None),
            ("1e-400", None),
            ("0e999999999999999999999", Some(0)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("\"77\"", Some(77)),
            ("\" 77 \"", Some(77)),
            ("\"1e3\"", None),
            ("\"+7\"", None),
            ("\"٣\"", None),
            ("\"9223372036854775808\"", None),
            ("true", None),
            ("[1]", None),
        ] {
            assert_eq!(whole_number(&json(text)), expected, "{text}");
        }
    }

    #[test]
    fn durations_are_rounded_half_up_in_decimal() {
        for (text, expected) in [
            ("61.6", Some(62)),
            ("1.5", Some(2)),
            ("1.4999999999999999", Some(1)),
            ("0.05", Some(0)),
            ("5e-1", Some(1)),
            ("49e-2", Some(0)),
            ("5e-2", Some(0)),
            ("2147483647.4", Some(i32::MAX)),
            ("2147483647.5", None),
            ("-0.4", None),
            ("1e400", None),
            ("\"12.5\"", Some(13)),
            ("\"12.\"", None),
            ("\".5\"", None),
            ("\"-1\"", None),
            ("\"1e1\"", None),
            ("null", None),
        ] {
            assert_eq!(seconds(&json(text)), expected, "{text}");
        }
    }
}
