//! What holds of the identity rules for every input.

use media_assets_core::identity::{
    asset_canonical_key, canonical_url, content_signature, enricher_checksum, google_drive_file_id, infer_asset_kind,
    infer_mime_type, normalize_path, parse_media_link, row_canonical_key, youtube_video_id, Address,
};
use proptest::prelude::*;

/// Pieces that the rules treat specially, put together at random.
const PIECES: [&str; 78] = [
    "https:",
    "HTTP:",
    "s3:",
    "gs:",
    "rtsp:",
    "file:",
    "javascript:",
    "//",
    "/",
    "\\",
    "\\\\",
    "?",
    "#",
    "&",
    "=",
    ":",
    "@",
    ".",
    "..",
    "%",
    "%2",
    "%41",
    "%2e",
    "%2F",
    "%2f",
    "%C3%89",
    "%FF",
    "%00",
    "%31",
    "4",
    "f",
    "é",
    "e\u{301}",
    "İ",
    "ß",
    "\u{212a}",
    "\u{345}",
    "e.test",
    "youtube.com",
    "www.youtube.com",
    "youtu.be",
    "i.ytimg.com",
    "vimeo.com",
    "drive.google.com",
    "s3.amazonaws.com",
    "b.s3.us-east-1.amazonaws.com",
    "dropbox.com",
    "dailymotion.com",
    "watch",
    "v=",
    "u=",
    "t=1m40",
    "embed",
    "attribution_link",
    "Zz0_-9yXwVu",
    "live_stream",
    "file/d/",
    "id=",
    "a.mp4",
    "X-Amz-Signature=s",
    "X%2dGoog-Date=1",
    "Signature=s",
    "Expires=1",
    "sig=s",
    "sv=1",
    "sp=r",
    "C:",
    "?\\",
    "UNC\\",
    "<iframe ",
    "src=",
    "data-src=",
    "'",
    "\"",
    ">",
    " ",
    "\t",
    "\u{feff}",
];

fn text() -> impl Strategy<Value = String> {
    let pieces = prop::collection::vec(prop::sample::select(&PIECES[..]), 0..12).prop_map(|pieces| pieces.concat());
    prop_oneof![4 => pieces, 1 => any::<String>(), 1 => "https?://[a-z.]{1,9}/\\PC{0,20}"]
}

fn signature_names(url: &str) -> Vec<String> {
    let query = url
        .split('#')
        .next()
        .and_then(|url| url.split_once('?'))
        .map_or("", |(_, query)| query);
    let names: Vec<&str> = query
        .split('&')
        .map(|piece| piece.split('=').next().unwrap_or_default())
        .collect();
    let has = |name: &str| names.contains(&name);
    names
        .iter()
        .filter(|name| {
            name.starts_with("X-Amz-")
                || name.starts_with("X-Goog-")
                || ["AWSAccessKeyId", "GoogleAccessId", "Signature"].contains(name)
                || (**name == "sig" && has("sv"))
        })
        .map(|name| name.to_string())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics(a in text(), b in text(), c in text(), size in any::<i64>(), sensitive in any::<bool>()) {
        let link = parse_media_link(&a);
        prop_assert_eq!(&link.canonical_url.is_none(), &link.provider.is_none());
        let _ = (youtube_video_id(&a), google_drive_file_id(&a), normalize_path(&a, sensitive));
        let _ = (infer_mime_type(Some(&a), Some(&b), Some(&c)), infer_asset_kind(Some(&a), &b));
        let _ = (content_signature(Some(&a), Some(size), Some(size)), asset_canonical_key(&a, &b, Some(&c)));
        for provider in ["upload", "google_drive", "youtube", "generic", "filesystem", "plex", "jellyfin", "s3"] {
            let _ = row_canonical_key(Some(provider), Some(&a), Some(&b), Some(&c));
            if let Some(key) = asset_canonical_key(provider, &a, None) {
                prop_assert!(key.len() <= 1_000 && key.starts_with(provider));
            }
        }
    }

    /// `&amp;` is un-escaped at most twice, so an address that still holds one is the one exception.
    #[test]
    fn a_canonical_url_is_its_own(link in text()) {
        if let Some(url) = canonical_url(&link) {
            prop_assume!(!url.contains("&amp;"));
            prop_assert_eq!(canonical_url(&url), Some(url.clone()));
            if !url.starts_with('/') {
                prop_assert!(signature_names(&url).is_empty(), "{}", url);
            }
        }
    }

    #[test]
    fn a_key_is_that_of_the_canonical_url(link in text()) {
        let same_key = |provider: &str, url: Option<String>| {
            let Some(url) = url.filter(|url| !url.contains("&amp;")) else { return Ok(()) };
            let key = |locator: &str| asset_canonical_key(provider, locator, Some("video"));
            prop_assert_eq!(key(&link), key(&url), "{} {}", provider, url);
            Ok(())
        };
        for provider in ["generic", "external_url", "google_drive"] {
            // A bare file id is no link.
            same_key(provider, canonical_url(&link))?;
        }
        same_key("youtube", parse_media_link(&link).canonical_url)?;
    }

    #[test]
    fn a_link_parsed_once_says_what_the_functions_say(link in text()) {
        let address = Address::of(&link);
        prop_assert_eq!(address.clone().and_then(|address| address.mime_type()), infer_mime_type(None, None, Some(&link)));
        prop_assert_eq!(address.as_ref().and_then(|address| address.key("generic", "video")), asset_canonical_key("generic", &link, Some("video")));
        prop_assert_eq!(address.map(Address::into_url), canonical_url(&link));
    }

    #[test]
    fn a_normal_path_is_its_own(path in text(), sensitive in any::<bool>()) {
        let normal = normalize_path(&path, sensitive).unwrap_or_default();
        // A name such as `C:\x` looks like a drive only after the `./` before it is gone.
        if !normal.is_empty() && !normal.contains(':') {
            prop_assert_eq!(normalize_path(&normal, sensitive), Some(normal));
        }
    }

    #[test]
    fn the_order_of_enrichers_does_not_matter(entries in prop::collection::vec(("[abé]{0,2}", -3i64..12), 1..6)) {
        let array = |entries: &[(String, i64)]| {
            entries.iter().map(|(id, priority)| serde_json::json!({"enricher_id": id, "priority": priority})).collect()
        };
        let forward: serde_json::Value = array(&entries);
        let backward: serde_json::Value = array(&entries.iter().rev().cloned().collect::<Vec<_>>());
        prop_assert_eq!(enricher_checksum(&forward), enricher_checksum(&backward));
    }
}
