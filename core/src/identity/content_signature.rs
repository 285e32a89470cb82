//! The signature of an asset's bytes.

use super::text::{is_hex, strip_prefix_ignore_case};

/// The strongest statement about some bytes that can be made: `sha256:<hex>` of a strong hash, else
/// `stat:<size>:<mtime>`, else `size:<size>`, else `None`.
///
/// `hash` counts when it is 64 hexadecimal digits of any case, with or without `sha256:` before them. `size` is in bytes
/// (a negative one is unknown), `mtime_microseconds` is since 1970-01-01 UTC; without a size it says nothing.
///
/// Source: identity rules, `content_signature`.
pub fn content_signature(hash: Option<&str>, size: Option<i64>, mtime_microseconds: Option<i64>) -> Option<String> {
    if let Some(digits) = hash.and_then(sha256_digits) {
        return Some(format!("sha256:{}", digits.to_ascii_lowercase()));
    }
    let size = size.filter(|size| *size >= 0)?;
    Some(match mtime_microseconds {
        Some(mtime) => format!("stat:{size}:{mtime}"),
        None => format!("size:{size}"),
    })
}

fn sha256_digits(hash: &str) -> Option<&str> {
    let digits = strip_prefix_ignore_case(hash, "sha256:").unwrap_or(hash);
    (digits.len() == 64 && is_hex(digits)).then_some(digits)
}
