//! Text helpers shared by the identity rules: trimming, percent-encoding, digests.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

/// `text` without the blanks on both ends: Unicode `White_Space` and U+FEFF.
///
/// U+FEFF is no white space to Unicode, but byte order marks are what copied links and keys begin with.
pub fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

/// The value of two hexadecimal digits, `None` unless both are.
fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// The byte that the triplet `%xx` at `at` stands for, `None` where there is no whole triplet.
fn triplet(bytes: &[u8], at: usize) -> Option<u8> {
    match *bytes.get(at..at + 3)? {
        [b'%', high, low] => hex_pair(high, low),
        _ => None,
    }
}

/// The unreserved characters of RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Percent-encoding normalised after RFC 3986 §6.2.2: `%xx` in upper case, unreserved characters decoded, a stray `%`
/// left alone.
///
/// A hexadecimal digit right after a stray `%` stays encoded: decoding it would make a triplet that was not there, and
/// the next normalisation would read another address.
pub(super) fn normalize_percent(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out: Vec<u8> = Vec::with_capacity(bytes.len());
    // Where the last stray `%` of `out` stands.
    let mut stray: Option<usize> = None;
    let mut at = 0;
    while at < bytes.len() {
        match triplet(bytes, at) {
            Some(byte) => {
                let touches_stray = stray.is_some_and(|position| {
                    out.len() - position <= 2 && out[position + 1..].iter().all(u8::is_ascii_hexdigit)
                });
                if is_unreserved(byte) && !(touches_stray && byte.is_ascii_hexdigit()) {
                    out.push(byte);
                } else {
                    out.extend(bytes[at..at + 3].iter().map(u8::to_ascii_uppercase));
                }
                at += 3;
            }
            None => {
                if bytes[at] == b'%' {
                    stray = Some(out.len());
                }
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    // Only ASCII bytes were taken out and put in, so the text is still UTF-8.
    match String::from_utf8(out) {
        Ok(normalized) => Cow::Owned(normalized),
        Err(_) => Cow::Borrowed(text),
    }
}

/// `text` percent-decoded once; `None` when that is not UTF-8 or holds a NUL, which no PostgreSQL text can.
pub(super) fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return (!text.contains('\0')).then_some(Cow::Borrowed(text));
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match triplet(bytes, at) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    if out.contains(&0) {
        return None;
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

/// `text` percent-decoded once; as it is where that gives no text.
pub fn percent_decode_once(text: &str) -> String {
    percent_decode(text).map_or_else(|| text.to_owned(), Cow::into_owned)
}

/// `text` with every byte but the unreserved characters of RFC 3986 §2.3 and those in `keep` (ASCII) percent-encoded.
pub fn percent_encode(text: &str, keep: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_unreserved(byte) || keep.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(UPPER_HEX[usize::from(byte >> 4)]));
            encoded.push(char::from(UPPER_HEX[usize::from(byte & 15)]));
        }
    }
    encoded
}

const UPPER_HEX: &[u8; 16] = b"0123456789ABCDEF";

/// The value of the first query parameter called `name` (compared after percent-decoding), percent-decoded.
/// `None` when there is none or its value is no text. A parameter without `=` has an empty value.
pub(super) fn first_parameter<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    query
        .split('&')
        .map(|piece| piece.split_once('=').unwrap_or((piece, "")))
        .find(|(found, _)| percent_decode(found).as_deref() == Some(name))
        .and_then(|(_, value)| percent_decode(value))
}

/// The scheme of `text` (RFC 3986 §3.1) without its colon.
pub(super) fn scheme_of(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let bytes = scheme.as_bytes();
    let starts_well = bytes.first().is_some_and(u8::is_ascii_alphabetic);
    let goes_on_well = bytes
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    (starts_well && goes_on_well).then_some(scheme)
}

/// What follows `prefix` in `text`, compared without regard to ASCII case.
pub(super) fn strip_prefix_ignore_case<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

/// Whether `text` is not empty and every byte of it is as asked.
pub(super) fn all_bytes(text: &str, accept: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(accept)
}

/// `[A-Za-z0-9_-]+`, the alphabet of YouTube, Drive and Dropbox ids.
pub(super) fn is_base64url_id(text: &str) -> bool {
    all_bytes(text, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

pub(super) fn is_digits(text: &str) -> bool {
    all_bytes(text, |byte| byte.is_ascii_digit())
}

pub(super) fn is_hex(text: &str) -> bool {
    all_bytes(text, |byte| byte.is_ascii_hexdigit())
}

/// SHA-256 of `bytes` as 64 lower-case hexadecimal digits.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        hex.push(char::from(DIGITS[usize::from(byte >> 4)]));
        hex.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trims_unicode_blanks_and_byte_order_marks() {
        assert_eq!(trim("\u{feff}\u{2003} a \u{85}b\u{a0}\n"), "a \u{85}b");
        assert_eq!(trim(" \u{a0}\u{2003}\u{feff}"), "");
    }

    #[test]
    fn decoding_never_makes_a_new_triplet() {
        assert_eq!(normalize_percent("%%34%31"), "%%341");
        assert_eq!(normalize_percent("%2%65"), "%2%65");
        assert_eq!(normalize_percent("%4%311"), "%4%311");
        assert_eq!(normalize_percent("%7e%41%2f%zz%"), "~A%2F%zz%");
        assert_eq!(normalize_percent("%x%41"), "%xA");
    }

    #[test]
    fn encoding_is_undone_by_decoding() {
        assert_eq!(percent_encode("a b/é&~", b"/"), "a%20b/%C3%A9%26~");
        assert_eq!(percent_encode("a/b", b""), "a%2Fb");
        assert_eq!(percent_decode_once("a%20b/%C3%A9%26~"), "a b/é&~");
        assert_eq!(percent_decode_once("%FF"), "%FF");
    }

    #[test]
    fn first_parameter_is_found_by_its_decoded_name() {
        assert_eq!(first_parameter("a=1&%76=x%20y&v=z", "v").as_deref(), Some("x y"));
        assert_eq!(first_parameter("v", "v").as_deref(), Some(""));
        assert_eq!(first_parameter("v=%00", "v"), None);
    }
}
