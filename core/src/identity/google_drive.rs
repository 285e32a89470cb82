//! Google Drive links.

use super::canonical_url::{AbsoluteLink, Link};
use super::media_link::Recognized;
use super::text::{is_base64url_id, trim};

const PROVIDER: &str = "google_drive";

const SITES: [&str; 3] = ["drive.google.com", "docs.google.com", "drive.usercontent.google.com"];

/// The file id of `text`: a bare id (`[A-Za-z0-9_-]+`) or a Drive link that carries one; `None` for any other text.
///
/// Source: identity rules, `asset_canonical_key` and `parse_media_link`.
pub fn google_drive_file_id(text: &str) -> Option<String> {
    let text = trim(text);
    if is_base64url_id(text) {
        return Some(text.to_owned());
    }
    match Link::parse(text)? {
        Link::Absolute(absolute) => file_id(&absolute),
        Link::RootRelative(_) => None,
    }
}

/// The file id that a Drive link carries.
pub(super) fn file_id(link: &AbsoluteLink) -> Option<String> {
    if !link.is_web() || !is_drive(link) {
        return None;
    }
    let path = link.path();
    let segments: Vec<&str> = path.trim_end_matches('/').split('/').skip(1).collect();
    let id = match segments[..] {
        ["file", "d", id, ..] => id.to_owned(),
        // `d/e/…` is a published copy: `e` is no id, and all published documents would share it.
        ["document" | "presentation" | "spreadsheets", "d", id, ..] if id != "e" => id.to_owned(),
        ["open" | "uc" | "download"] => link.parameter("id")?,
        _ => return None,
    };
    is_base64url_id(&id).then_some(id)
}

pub(super) fn recognize(link: &AbsoluteLink) -> Option<Recognized> {
    if !is_drive(link) {
        return None;
    }
    let mut recognized = Recognized::of(PROVIDER, "file", file_id(link), link);
    recognized.facets.add_parameter(link, "resourcekey");
    Some(recognized)
}

fn is_drive(link: &AbsoluteLink) -> bool {
    SITES.iter().any(|domain| link.is_on(domain))
}

#[cfg(test)]
mod tests {
    use super::google_drive_file_id;

    #[test]
    fn ids_of_drive_links() {
        for link in [
            "1AbC_dEf-123",
            " 1AbC_dEf-123\n",
            "https://drive.google.com/file/d/1AbC_dEf-123",
            "https://drive.google.com/file/d/1AbC_dEf-123/edit?usp=sharing",
            "drive.google.com/uc?export=download&id=1AbC_dEf-123",
            "https://docs.google.com/presentation/d/1AbC_dEf-123/edit#slide=1",
        ] {
            assert_eq!(google_drive_file_id(link).as_deref(), Some("1AbC_dEf-123"), "{link}");
        }
        for link in [
            "",
            "https://drive.google.com/drive/folders/1AbC",
            "https://docs.google.com/document/d/e/2PACX-1/pub",
            "https://drive.google.com.evil.org/file/d/1AbC",
            "https://drive.google.com/open?id=",
            "https://drive.google.com/file/d/1Ab%2FC",
        ] {
            assert_eq!(google_drive_file_id(link), None, "{link}");
        }
    }
}
