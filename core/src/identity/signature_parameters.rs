//! Signature parameters: credentials that expire, so they are no part of an address.

use std::borrow::Cow;

use super::text::percent_decode;

/// Parameters that belong to a signature only where `Signature` stands beside them (S3 version 2, CloudFront).
const BESIDE_SIGNATURE: [&str; 4] = ["Expires", "Policy", "Key-Pair-Id", "Hash-Algorithm"];

/// A shared access signature of Azure; such short names are somebody else's unless both `sig` and `sv` are there.
const AZURE: [&str; 9] = ["sv", "ss", "st", "se", "sr", "sp", "sip", "spr", "sig"];

/// Parameters that are a signature wherever they stand.
fn always(name: &str) -> bool {
    name.starts_with("X-Amz-")
        || name.starts_with("X-Goog-")
        || matches!(name, "AWSAccessKeyId" | "GoogleAccessId" | "Signature")
}

/// `query` without its signature parameters, all others in their order and form.
///
/// Names are compared exactly after percent-decoding. `None` when the query lost its last parameter so; a query that
/// was empty before stays the empty query that it is.
pub(super) fn without_signature(query: Cow<'_, str>) -> Option<Cow<'_, str>> {
    if !may_be_signed(&query) {
        return Some(query);
    }
    let names: Vec<Option<Cow<'_, str>>> = query.split('&').map(parameter_name).collect();
    let has = |wanted: &str| names.iter().any(|name| name.as_deref() == Some(wanted));
    let signed = has("Signature");
    let azure = has("sig") && has("sv");
    let goes = |name: &Option<Cow<'_, str>>| {
        name.as_deref().is_some_and(|name| {
            always(name) || (signed && BESIDE_SIGNATURE.contains(&name)) || (azure && AZURE.contains(&name))
        })
    };
    if !names.iter().any(goes) {
        return Some(query);
    }
    let kept: Vec<&str> = query
        .split('&')
        .zip(&names)
        .filter(|(_, name)| !goes(name))
        .map(|(piece, _)| piece)
        .collect();
    if kept.iter().all(|piece| piece.is_empty()) {
        return None;
    }
    Some(Cow::Owned(kept.join("&")))
}

fn parameter_name(piece: &str) -> Option<Cow<'_, str>> {
    percent_decode(piece.split_once('=').map_or(piece, |(name, _)| name))
}

/// A cheap look that spares most queries the list of their names. Letters, digits and `-` are never left encoded by
/// the normalisation that comes before, but after a stray `%` they are, so such a query takes the long way.
fn may_be_signed(query: &str) -> bool {
    query.contains('%')
        || query.split('&').any(|piece| {
            let name = piece.split_once('=').map_or(piece, |(name, _)| name);
            name == "sig" || always(name)
        })
}

#[cfg(test)]
mod tests {
    use super::without_signature;

    fn kept(query: &str) -> Option<String> {
        without_signature(query.into()).map(|query| query.into_owned())
    }

    #[test]
    fn only_signatures_go() {
        assert_eq!(kept("a=1&X-Amz-Date=2&&b"), Some("a=1&&b".into()));
        assert_eq!(kept("x-amz-date=2&X-Amz=1"), Some("x-amz-date=2&X-Amz=1".into()));
        assert_eq!(kept("X%2DAmz-Date=2"), None);
        assert_eq!(kept("Expires=1&Signature=2&Key-Pair-Id=3"), None);
        assert_eq!(kept("Expires=1&Key-Pair-Id=3"), Some("Expires=1&Key-Pair-Id=3".into()));
        assert_eq!(kept("sig=1&se=2"), Some("sig=1&se=2".into()));
        assert_eq!(kept("sv=1&se=2"), Some("sv=1&se=2".into()));
        assert_eq!(kept("sv=1&se=2&k=3&sig=4"), Some("k=3".into()));
        assert_eq!(kept(""), Some(String::new()));
        assert_eq!(kept("&Signature=1&"), None);
    }
}
