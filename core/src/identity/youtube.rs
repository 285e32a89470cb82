//! YouTube links.

use super::canonical_url::{AbsoluteLink, Link};
use super::facets::Facets;
use super::media_link::Recognized;
use super::text::{first_parameter, is_base64url_id};

const PROVIDER: &str = "youtube";

/// Hosts of videos, sub-domains included.
const SITES: [&str; 6] = [
    "youtube.com",
    "youtube-nocookie.com",
    "youtubekids.com",
    "youtu.be",
    "y2u.be",
    "youtube.googleapis.com",
];

/// Hosts whose whole path is a video id.
const SHORT_SITES: [&str; 2] = ["youtu.be", "y2u.be"];

/// Hosts of thumbnails, never videos.
const PICTURES: [&str; 2] = ["img.youtube.com", "i.ytimg.com"];

/// Paths on which `?v=` and `?vi=` name a video.
const WATCH_PATHS: [&str; 6] = ["/", "/watch", "/watch/", "/watch_popup", "/details", "/ytscreeningroom"];

/// First path segments after which a video id stands.
const PATH_FORMS: [&str; 7] = ["watch", "embed", "v", "vi", "e", "shorts", "live"];

/// Names of players that have the form of an id.
const NO_IDS: [&str; 2] = ["live_stream", "videoseries"];

/// Whether `text` is a video id: `[A-Za-z0-9_-]{11}`, but not the name of a player.
pub(super) fn is_video_id(text: &str) -> bool {
    text.len() == 11 && is_base64url_id(text) && !NO_IDS.contains(&text)
}

/// The page of a video, the one address that all its links share.
pub(super) fn watch_url(id: &str) -> String {
    format!("https://www.youtube.com/watch?v={id}")
}

/// The video id that a YouTube link carries; `None` for a playlist, a channel, another host and a bare id.
///
/// Source: identity rules, `parse_media_link`.
pub fn youtube_video_id(link: &str) -> Option<String> {
    if let Some(id) = plain_video_id(link) {
        return Some(id.to_owned());
    }
    match Link::parse(link)? {
        Link::Absolute(absolute) if absolute.is_web() => recognize(&absolute)?.media_id,
        _ => None,
    }
}

/// The id of a link in one of the two forms that most links have, found without parsing the whole URL; `None` says
/// nothing. Only what cannot be read otherwise is accepted here.
pub(super) fn plain_video_id(link: &str) -> Option<&str> {
    let link = super::text::trim(link);
    let rest = link.strip_prefix("https://").or_else(|| link.strip_prefix("http://"))?;
    let (id_and_rest, ends) = if let Some(rest) = rest.strip_prefix("youtu.be/") {
        (rest, ['?', '#'])
    } else {
        let rest = rest.strip_prefix("www.").unwrap_or(rest);
        (rest.strip_prefix("youtube.com/watch?v=")?, ['&', '#'])
    };
    let id = id_and_rest.get(..11)?;
    let after = &id_and_rest[11..];
    (is_video_id(id) && (after.is_empty() || after.starts_with(ends))).then_some(id)
}

pub(super) fn recognize(link: &AbsoluteLink) -> Option<Recognized> {
    if is_picture(link) {
        return Some(Recognized {
            media_kind: "image",
            ..Recognized::without_id(PROVIDER)
        });
    }
    if !is_site(link) {
        return None;
    }
    if link.path() != "/attribution_link" {
        return Some(describe(link));
    }
    let Some(target) = link.parameter("u") else {
        return Some(describe(link));
    };
    // Unwrapped once; a target elsewhere is none of YouTube's.
    Some(
        match attribution_target(&target).filter(|inner| is_site(inner) && !is_picture(inner)) {
            Some(inner) => describe(&inner),
            None => Recognized::without_id(PROVIDER),
        },
    )
}

fn is_picture(link: &AbsoluteLink) -> bool {
    PICTURES.iter().any(|domain| link.is_on(domain))
}

fn is_site(link: &AbsoluteLink) -> bool {
    SITES.iter().any(|domain| link.is_on(domain))
}

/// The link inside an attribution link, where a path is one of YouTube's.
fn attribution_target(target: &str) -> Option<AbsoluteLink> {
    match Link::parse(target)? {
        Link::RootRelative(path) => AbsoluteLink::parse(&format!("https://www.youtube.com{path}")),
        Link::Absolute(absolute) => Some(absolute).filter(AbsoluteLink::is_web),
    }
}

fn describe(link: &AbsoluteLink) -> Recognized {
    let mut facets = Facets::default();
    facets.add_parameter(link, "list");
    facets.add_number(link, "index");
    facets.add_number(link, "loop");
    match video_id(link) {
        Some(id) => {
            facets.add_times(link);
            let address = Some(watch_url(&id));
            Recognized {
                provider: PROVIDER,
                media_kind: "video",
                media_id: Some(id),
                address,
                facets,
            }
        }
        None => Recognized {
            facets,
            ..Recognized::without_id(PROVIDER)
        },
    }
}

fn video_id(link: &AbsoluteLink) -> Option<String> {
    let path = link.path();
    let id = if WATCH_PATHS.contains(&&*path) {
        let query = link.query()?;
        let named = |name: &str| first_parameter(&query, name).filter(|id| is_video_id(id));
        named("v").or_else(|| named("vi"))?.into_owned()
    } else {
        path_id(&path, SHORT_SITES.iter().any(|domain| link.is_on(domain)))?.to_owned()
    };
    Some(id)
}

/// The id in a path, which ends at `&`, for people forget the question mark. A longer path names something else, such
/// as a thumbnail of the video.
fn path_id(path: &str, short: bool) -> Option<&str> {
    let path = path.split('&').next().unwrap_or_default();
    let mut segments = path.trim_end_matches('/').split('/').skip(1);
    let id = match (segments.next()?, segments.next()) {
        (first, None) if short => first,
        (first, Some(second)) if PATH_FORMS.contains(&first) => second,
        _ => return None,
    };
    (is_video_id(id) && segments.next().is_none()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::youtube_video_id;

    const ID: &str = "Zz0_-9yXwVu";

    #[test]
    fn the_plain_way_answers_as_the_long_way() {
        for link in [
            "https://www.youtube.com/watch?v=Zz0_-9yXwVu",
            "http://youtube.com/watch?v=Zz0_-9yXwVu&amp;t=3#x",
            "https://youtu.be/Zz0_-9yXwVu?si=1",
            "https://youtu.be/Zz0_-9yXwVu&t=1",
            " https://youtu.be/Zz0_-9yXwVu#t=3",
        ] {
            assert_eq!(youtube_video_id(link).as_deref(), Some(ID), "{link}");
            let long_way = link.replace("http", "HTTP");
            assert_eq!(youtube_video_id(&long_way).as_deref(), Some(ID), "{long_way}");
        }
    }

    #[test]
    fn links_that_carry_an_id() {
        for link in [
            "youtu.be/Zz0_-9yXwVu",
            "https://YOUTU.BE./Zz0_-9yXwVu/",
            "https://y2u.be/Zz0_-9yXwVu",
            "https://www.youtu.be/watch?v=Zz0_-9yXwVu",
            "https://youtube.com./watch/Zz0_-9yXwVu",
            "https://youtube.com/watch/?a&v=Zz0_-9yXwVu&v=AAAAAAAAAAA",
            "https://youtube.com/v/Zz0_-9yXwVu&hl=en/x",
            "https://youtu.be/Zz0_-9yXwVu&u=a/b",
            "https://youtube.com/shorts/Zz0_-9yXwVu&feature=share",
            "https://www.youtube.com/attribution_link?u=https%3A%2F%2Fyoutu.be%2FZz0_-9yXwVu",
        ] {
            assert_eq!(youtube_video_id(link).as_deref(), Some(ID), "{link}");
        }
    }

    #[test]
    fn links_that_carry_none() {
        for link in [
            ID,
            "https://youtube.com../watch?v=Zz0_-9yXwVu",
            "https://youtube.com.evil.org/watch?v=Zz0_-9yXwVu",
            "https://www.youtube.com/watch?v=Zz0_-9yXwV&v=Zz0_-9yXwVu",
            "https://www.youtube.com/watch?V=Zz0_-9yXwVu",
            "https://www.youtube.com/embed/videoseries?v=Zz0_-9yXwVu",
            "https://www.youtube.com/c/Zz0_-9yXwVu",
            "https://www.youtube.com/@Zz0_-9yXwV",
            "https://www.youtube.com/user/Zz0_-9yXwVu",
            "https://www.youtube.com/Zz0_-9yXwVu",
            "https://youtu.be/Zz0_-9yXwVuu",
            "https://youtu.be/videoseries",
            "https://i.ytimg.com/vi/Zz0_-9yXwVu/0.jpg",
            "https://img.youtube.com/watch?v=Zz0_-9yXwVu",
            "https://www.youtube.com/attribution_link?u=%2Fattribution_link%3Fu%3D%252Fwatch%253Fv%253DZz0_-9yXwVu",
            "rtsp://www.youtube.com/watch?v=Zz0_-9yXwVu",
        ] {
            assert_eq!(youtube_video_id(link), None, "{link}");
        }
    }
}
