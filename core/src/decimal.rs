//! Exact decimal numbers, read from the text of a JSON number.

use std::cmp::Ordering;

/// Most digits of a whole number, as many as a PostgreSQL numeric holds. A JSON text may name a power of ten that no
/// memory holds.
const MOST_DIGITS: i64 = 131_072;

/// An exact decimal number: equal numbers are equal values, however they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decimal {
    negative: bool,
    /// Digits before the point without leading zeros, empty for 0.
    whole: String,
    /// Digits after the point without trailing zeros.
    fraction: String,
}

impl Decimal {
    /// Reads a JSON number; `None` when its power of ten is out of all bounds.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent: i64 = exponent.parse().ok()?;
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
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

    /// This number times ten to the power of `power`.
    pub(crate) fn shifted(&self, power: i64) -> Option<Self> {
        let sign = if self.negative { "-" } else { "" };
        Decimal::parse(&format!("{sign}0{}.{}e{power}", self.whole, self.fraction))
    }

    /// The number without its sign.
    pub(crate) fn magnitude(&self) -> Self {
        Decimal {
            negative: false,
            ..self.clone()
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.fraction.is_empty()
    }

    /// The number of digits without outer zeros.
    pub(crate) fn digits(&self) -> usize {
        if self.fraction.is_empty() {
            return self.whole.trim_end_matches('0').len();
        }
        if self.whole.is_empty() {
            return self.fraction.trim_start_matches('0').len();
        }
        self.whole.len() + self.fraction.len()
    }

    /// The whole number; `None` with a fraction or beyond 64 bits.
    pub(crate) fn to_i64(&self) -> Option<i64> {
        self.is_whole().then(|| self.text().parse().ok()).flatten()
    }

    /// The nearest whole number, halves away from zero; `None` beyond 64 bits.
    pub(crate) fn round_i64(&self) -> Option<i64> {
        let whole = Decimal {
            negative: false,
            whole: self.whole.clone(),
            fraction: String::new(),
        }
        .to_i64()?;
        let up = self.fraction.starts_with(['5', '6', '7', '8', '9']);
        let rounded = whole.checked_add(i64::from(up))?;
        Some(if self.negative { -rounded } else { rounded })
    }

    /// The number without an exponent: `1.5`, `100`, `-0.005`.
    pub(crate) fn text(&self) -> String {
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
    use super::Decimal;

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
        assert_eq!(Decimal::parse("."), None);
        let ordered = ["-10", "-2", "-1.5", "0", "0.005", "0.1", "9", "9.1", "10"];
        let numbers: Vec<Decimal> = ordered.iter().filter_map(|number| Decimal::parse(number)).collect();
        assert_eq!(numbers.len(), ordered.len());
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn shifting_and_rounding_are_exact() {
        let number = |text: &str| Decimal::parse(text).expect("a number");
        let shifted = |text: &str, power| number(text).shifted(power).map(|decimal| decimal.text());
        assert_eq!(shifted("12345678901", -7).as_deref(), Some("1234.5678901"));
        assert_eq!(shifted("-0.5", 3).as_deref(), Some("-500"));
        assert_eq!(shifted("0", 3).as_deref(), Some("0"));
        assert_eq!(number("2.5").round_i64(), Some(3));
        assert_eq!(number("-2.5").round_i64(), Some(-3));
        assert_eq!(number("9223372036854775807.4").round_i64(), Some(i64::MAX));
        assert_eq!(number("9223372036854775807.5").round_i64(), None);
        assert_eq!(number("3.0").to_i64(), Some(3));
        assert_eq!(number("0.5").to_i64(), None);
        assert_eq!(
            (
                number("1200").digits(),
                number("0.0120").digits(),
                number("10.01").digits()
            ),
            (2, 2, 4)
        );
    }
}
