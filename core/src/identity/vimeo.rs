//! Vimeo links.

use super::canonical_url::AbsoluteLink;
use super::media_link::Recognized;
use super::text::{all_bytes, is_digits, is_hex};

const PROVIDER: &str = "vimeo";

pub(super) fn recognize(link: &AbsoluteLink) -> Option<Recognized> {
    let path = link.path();
    let segments: Vec<&str> = path.trim_end_matches('/').split('/').skip(1).collect();
    let (id, hash) = if link.is_on("vimeo.com") {
        in_vimeo(link, &segments)
    } else if link.is_on("vimeopro.com") {
        (after_video(&segments), None)
    } else {
        return None;
    };
    let mut recognized = Recognized::of(PROVIDER, "video", id, link);
    recognized.facets.add_number(link, "loop");
    // The hash of an unlisted video is an access secret: without it the link is dead.
    recognized.facets.add_text("h", hash.or_else(|| link.parameter("h")));
    Some(recognized)
}

/// The id in a path of vimeo.com and the hash after it.
fn in_vimeo(link: &AbsoluteLink, segments: &[&str]) -> (Option<String>, Option<String>) {
    let (id, hash) = match segments {
        ["moogaloop.swf"] => return (link.parameter("clip_id").filter(|id| is_digits(id)), None),
        [id] | ["video", id] | ["channels" | "groups" | "album" | "showcase", _, .., id] => (id, None),
        [id, hash] | ["video", id, hash] => (id, Some(hash).filter(|hash| is_hash(hash))),
        _ => return (None, None),
    };
    if !is_digits(id) {
        return (None, None);
    }
    (Some((*id).to_owned()), hash.map(|hash| (*hash).to_owned()))
}

/// The id of `…/video/ID`.
fn after_video(segments: &[&str]) -> Option<String> {
    match segments {
        [.., "video", id] if is_digits(id) => Some((*id).to_owned()),
        _ => None,
    }
}

/// Letters and digits; a mere word (`likes`, `settings`) is a page of the video.
fn is_hash(text: &str) -> bool {
    all_bytes(text, |byte| byte.is_ascii_alphanumeric())
        && (is_hex(text) || text.bytes().any(|byte| byte.is_ascii_digit()))
}
