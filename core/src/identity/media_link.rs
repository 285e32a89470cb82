//! What a link points to.

use super::canonical_url::{AbsoluteLink, Link};
use super::facets::Facets;
use super::{google_drive, platforms, s3, vimeo, youtube};

/// What a link points to; all `None` for a text that is no link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MediaLink {
    /// The platform, `external_url` when it is none of the known ones.
    pub provider: Option<&'static str>,
    /// `video`, `file`, `object`, `image` or `other`.
    pub media_kind: Option<&'static str>,
    /// The platform's own id of what the link shows.
    pub media_id: Option<String>,
    /// The canonical URL of the link; for a YouTube video its watch page.
    pub canonical_url: Option<String>,
    /// What belongs to this use of the asset: times, playlists, access secrets.
    pub facets: Facets,
}

/// What a platform says of one of its links.
pub(super) struct Recognized {
    pub provider: &'static str,
    pub media_kind: &'static str,
    pub media_id: Option<String>,
    /// The address of what is shown, where that is not the canonical URL of the link.
    pub address: Option<String>,
    pub facets: Facets,
}

impl Recognized {
    /// A link of `provider` with an id; the times of the link go with it.
    pub(super) fn with_id(
        provider: &'static str,
        media_kind: &'static str,
        media_id: String,
        link: &AbsoluteLink,
    ) -> Self {
        let mut facets = Facets::default();
        facets.add_times(link);
        Recognized {
            provider,
            media_kind,
            media_id: Some(media_id),
            address: None,
            facets,
        }
    }

    /// A link of `provider` that shows something without an id.
    pub(super) fn without_id(provider: &'static str) -> Self {
        Recognized {
            provider,
            media_kind: "other",
            media_id: None,
            address: None,
            facets: Facets::default(),
        }
    }

    /// With an id the media of that kind, without one another page of the provider.
    pub(super) fn of(
        provider: &'static str,
        media_kind: &'static str,
        media_id: Option<String>,
        link: &AbsoluteLink,
    ) -> Self {
        match media_id {
            Some(id) => Self::with_id(provider, media_kind, id, link),
            None => Self::without_id(provider),
        }
    }
}

/// What `link` points to: the platform, the kind and id of the media there, the canonical URL and the facets.
///
/// A link that [`canonical_url`](super::canonical_url()) refuses gives `None` in every field and no facets; an unknown
/// host gives `external_url`, `other`, no id and no facets, for its query is its own.
///
/// Source: identity rules, `parse_media_link`.
pub fn parse_media_link(link: &str) -> MediaLink {
    let Some(parsed) = Link::parse(link) else {
        return MediaLink::default();
    };
    let recognized = match &parsed {
        Link::Absolute(absolute) => recognize(absolute, link),
        Link::RootRelative(_) => None,
    }
    .unwrap_or_else(|| Recognized::without_id("external_url"));
    MediaLink {
        provider: Some(recognized.provider),
        media_kind: Some(recognized.media_kind),
        media_id: recognized.media_id,
        canonical_url: Some(recognized.address.unwrap_or_else(|| parsed.canonical())),
        facets: recognized.facets,
    }
}

fn recognize(link: &AbsoluteLink, text: &str) -> Option<Recognized> {
    if link.scheme() == "s3" {
        return s3::recognize_uri(text);
    }
    if !link.is_web() {
        return None;
    }
    youtube::recognize(link)
        .or_else(|| vimeo::recognize(link))
        .or_else(|| google_drive::recognize(link))
        .or_else(|| s3::recognize(link))
        .or_else(|| platforms::recognize(link))
}
