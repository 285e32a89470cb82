//! Points in time, as microseconds since 1970-01-01 00:00 UTC, the unit of a PostgreSQL timestamptz.

use chrono::{DateTime, NaiveDate, NaiveDateTime};

use crate::decimal::Decimal;

/// Numbers above this are milliseconds: as seconds they would be years after 5138.
const LARGEST_SECONDS: i64 = 100_000_000_000;

/// Microseconds since the epoch of an ISO 8601 text: a date, or a date and time with or without an offset, which is UTC
/// when it is missing. Digits beyond the microsecond are cut. `None` for any other text.
pub fn parse_timestamp(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_micros());
    }
    ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"]
        .into_iter()
        .find_map(|form| NaiveDateTime::parse_from_str(text, form).ok())
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0))
        .map(|time| time.and_utc().timestamp_micros())
}

/// The UTC date (`2025-10-01`) of microseconds since the epoch; `None` outside the years that a date has.
pub fn utc_date(microseconds: i64) -> Option<String> {
    DateTime::from_timestamp_micros(microseconds).map(|time| time.format("%Y-%m-%d").to_string())
}

/// The UTC date of an ISO 8601 text.
pub fn date_of_text(text: &str) -> Option<String> {
    utc_date(parse_timestamp(text)?)
}

/// Microseconds since the epoch of a number of seconds or, above 1e11, of milliseconds. `number` is the text of a JSON
/// number; what is finer than a microsecond is rounded.
pub fn timestamp_of_number(number: &str) -> Option<i64> {
    let number = Decimal::parse(number)?;
    let limit = Decimal::parse(&LARGEST_SECONDS.to_string())?;
    let power = if number.magnitude() > limit { 3 } else { 6 };
    number.shifted(power)?.round_i64()
}

/// Seconds since the epoch of microseconds, as the exact text of a JSON number.
pub fn seconds_text(microseconds: i64) -> Option<String> {
    Some(Decimal::parse(&microseconds.to_string())?.shifted(-6)?.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso_texts() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T00:00:00.0000019Z", Some(1)),
            ("1970-01-01T00:00:01", Some(1_000_000)),
            ("1970-01-01 00:00:01.5", Some(1_500_000)),
            ("1970-01-02", Some(86_400_000_000)),
            ("2025-10-01T05:00:00+09:00", parse_timestamp("2025-09-30T20:00:00Z")),
            ("2025-10-01T00:00:00.0000000Z", parse_timestamp("2025-10-01")),
            ("1969-12-31T23:59:59.999999Z", Some(-1)),
            ("", None),
            ("soon", None),
            ("2025-13-01", None),
            ("2025-10-01T", None),
            ("20251001", None),
        ] {
            assert_eq!(parse_timestamp(text), expected, "{text}");
        }
        assert_eq!(date_of_text("2025-10-01T05:00:00+09:00").as_deref(), Some("2025-09-30"));
    }

    #[test]
    fn numbers_of_seconds_and_milliseconds() {
        for (number, expected) in [
            ("1754798400.25", Some(1_754_798_400_250_000)),
            ("1754790000000.1", Some(1_754_790_000_000_100)),
            ("0", Some(0)),
            ("-1.5", Some(-1_500_000)),
            ("-200000000000", Some(-200_000_000_000_000)),
            ("100000000000", Some(100_000_000_000_000_000)),
            ("0.0000005", Some(1)),
            ("1e300", None),
        ] {
            assert_eq!(timestamp_of_number(number), expected, "{number}");
        }
        assert_eq!(seconds_text(1_754_798_400_250_000).as_deref(), Some("1754798400.25"));
        assert_eq!(seconds_text(-1_500_000).as_deref(), Some("-1.5"));
    }
}
