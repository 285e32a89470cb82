//! Links of the smaller video and file platforms: one line of path each.

use super::canonical_url::AbsoluteLink;
use super::media_link::Recognized;
use super::text::{all_bytes, is_base64url_id, is_digits, is_hex};

/// A platform: its provider name, its hosts with all their sub-domains, the kind of media and the rule for the id.
struct Platform {
    provider: &'static str,
    hosts: &'static [&'static str],
    media_kind: &'static str,
    media_id: fn(&AbsoluteLink, &[&str]) -> Option<String>,
}

const PLATFORMS: [Platform; 7] = [
    Platform {
        provider: "dropbox",
        hosts: &["dropbox.com", "dropboxusercontent.com"],
        media_kind: "file",
        media_id: dropbox,
    },
    Platform {
        provider: "loom",
        hosts: &["loom.com"],
        media_kind: "video",
        media_id: loom,
    },
    Platform {
        provider: "wistia",
        hosts: &["wistia.com", "wistia.net"],
        media_kind: "video",
        media_id: wistia,
    },
    Platform {
        provider: "dailymotion",
        hosts: &["dailymotion.com", "dai.ly"],
        media_kind: "video",
        media_id: dailymotion,
    },
    Platform {
        provider: "twitch",
        hosts: &["twitch.tv"],
        media_kind: "video",
        media_id: twitch,
    },
    Platform {
        provider: "mux",
        hosts: &["stream.mux.com"],
        media_kind: "video",
        media_id: mux,
    },
    // Delivery addresses of Cloudinary mix the asset with transformations, so it is named and no more.
    Platform {
        provider: "cloudinary",
        hosts: &["cloudinary.com"],
        media_kind: "other",
        media_id: |_, _| None,
    },
];

pub(super) fn recognize(link: &AbsoluteLink) -> Option<Recognized> {
    let platform = PLATFORMS
        .iter()
        .find(|platform| platform.hosts.iter().any(|host| link.is_on(host)))?;
    let path = link.path();
    let segments: Vec<&str> = path.trim_end_matches('/').split('/').skip(1).collect();
    let media_id = (platform.media_id)(link, &segments);
    let mut recognized = Recognized::of(platform.provider, platform.media_kind, media_id, link);
    match platform.provider {
        // The key of a shared file is an access secret.
        "dropbox" => recognized.facets.add_parameter(link, "rlkey"),
        "cloudinary" => (),
        _ => recognized.facets.add_number(link, "loop"),
    }
    Some(recognized)
}

/// `id` where it consists of letters and digits.
fn alphanumeric(id: &str) -> Option<String> {
    all_bytes(id, |byte| byte.is_ascii_alphanumeric()).then(|| id.to_owned())
}

fn dropbox(_: &AbsoluteLink, segments: &[&str]) -> Option<String> {
    match segments {
        ["s", id, ..] | ["e", "s", id, ..] | ["scl", "fi", id, ..] | ["e", "scl", "fi", id, ..] => {
            is_base64url_id(id).then(|| (*id).to_owned())
        }
        _ => None,
    }
}

fn loom(_: &AbsoluteLink, segments: &[&str]) -> Option<String> {
    match segments {
        ["share" | "embed", id, ..] if id.len() == 32 && is_hex(id) => Some((*id).to_owned()),
        _ => None,
    }
}

fn wistia(link: &AbsoluteLink, segments: &[&str]) -> Option<String> {
    match segments {
        // The player's own files of a video are named `ID.jsonp`, `ID.m3u8`.
        ["embed", "iframe" | "medias", id, ..] | ["medias", id, ..] => alphanumeric(id.split('.').next()?),
        _ => alphanumeric(&link.parameter("wvideo")?),
    }
}

fn dailymotion(link: &AbsoluteLink, segments: &[&str]) -> Option<String> {
    // A readable title follows the id after `_`.
    let id = |segment: &str| alphanumeric(segment.split('_').next()?);
    if link.is_on("dai.ly") {
        return id(segments.first()?);
    }
    match segments {
        [.., "video", segment] => id(segment),
        [player, ..] if *player == "player" || player.starts_with("player.") => id(&link.parameter("video")?),
        _ => None,
    }
}

fn twitch(link: &AbsoluteLink, segments: &[&str]) -> Option<String> {
    let id = match segments {
        ["videos", id, ..] => (*id).to_owned(),
        _ => {
            let video = link.parameter("video")?;
            video.strip_prefix('v').unwrap_or(&video).to_owned()
        }
    };
    is_digits(&id).then_some(id)
}

fn mux(_: &AbsoluteLink, segments: &[&str]) -> Option<String> {
    match segments {
        [file] => alphanumeric(file.strip_suffix(".m3u8")?),
        _ => None,
    }
}
