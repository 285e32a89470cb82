//! The kind of an asset.

use super::mime_type::essence;

/// The kind of media that `mime_type` stands for: `video`, `audio`, `image` or `document`; `fallback` where the type is
/// unknown (`None`, `application/octet-stream`, no valid type, another top-level type).
///
/// Streaming manifests are `video` whatever their top-level type says. Parameters and case play no part.
///
/// Source: identity rules, `infer_asset_kind`.
pub fn infer_asset_kind<'a>(mime_type: Option<&str>, fallback: &'a str) -> &'a str {
    const MANIFESTS: [&str; 5] = [
        "application/vnd.apple.mpegurl",
        "application/x-mpegurl",
        "audio/mpegurl",
        "audio/x-mpegurl",
        "application/dash+xml",
    ];
    let Some(essence) = mime_type.and_then(essence) else {
        return fallback;
    };
    let is = |name: &str| essence.eq_ignore_ascii_case(name);
    if MANIFESTS.iter().any(|manifest| is(manifest)) {
        return "video";
    }
    if is("application/octet-stream") {
        return fallback;
    }
    if is("application/ogg") {
        return "audio";
    }
    let top_level = essence.split('/').next().unwrap_or_default();
    let top = |name: &str| top_level.eq_ignore_ascii_case(name);
    match ["video", "audio", "image"].into_iter().find(|kind| top(kind)) {
        Some(kind) => kind,
        None if ["application", "text", "font", "model"].into_iter().any(top) => "document",
        None => fallback,
    }
}
