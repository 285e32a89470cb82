//! Lesson media → assets: how one item of `lesson.videos` or `lesson.documents` is normalised, and how it is decided.

mod decide;
mod normalize;

pub use decide::{decide, Action, Counters, Found, Known, Outcome};
pub use normalize::{are_same_upload, asset_id_of, is_upload, normalize, Description, Media, Normalized};

/// The version of what this module and the identity rules make of an item: when it grows, no lesson is settled any more.
pub const RULE_VERSION: i32 = 1;

/// The two columns of a lesson that hold media.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    Video,
    Document,
}

impl Slot {
    /// The `slot_type` of a usage.
    pub const fn name(self) -> &'static str {
        match self {
            Slot::Video => "lesson_video",
            Slot::Document => "lesson_document",
        }
    }

    /// The slot called `name`, `None` for any other word.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "lesson_video" => Some(Slot::Video),
            "lesson_document" => Some(Slot::Document),
            _ => None,
        }
    }

    const fn default_kind(self) -> &'static str {
        match self {
            Slot::Video => "video",
            Slot::Document => "document",
        }
    }
}

/// Why an item is passed over; each has one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not a JSON object.
    Malformed,
    /// Provider `upload` without a storage key.
    MissingKey,
    /// An external provider without a link, or a document with neither key nor link.
    MissingLink,
    /// No known type, no key and no link.
    UnsupportedType,
    /// An external link that `canonical_url` refuses.
    UnsupportedLink,
    /// No path from the lesson to an organization.
    MissingOrganization,
}

impl Reason {
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::MissingKey => "missing_key",
            Reason::MissingLink => "missing_link",
            Reason::UnsupportedType => "unsupported_type",
            Reason::UnsupportedLink => "unsupported_link",
            Reason::MissingOrganization => "missing_organization",
        }
    }
}

/// A UUID as its sixteen bytes.
pub type AssetId = [u8; 16];

/// The UUID of a text of the form 8-4-4-4-12, any case; anything else, white space included, is none.
pub fn parse_asset_id(text: &str) -> Option<AssetId> {
    // The other forms that the library reads have other lengths.
    let id = Some(text).filter(|text| text.len() == 36);
    id.and_then(|id| uuid::Uuid::try_parse(id).ok())
        .map(uuid::Uuid::into_bytes)
}

#[cfg(test)]
mod tests {
    use super::parse_asset_id;

    #[test]
    fn an_asset_id_has_the_dashed_form_in_any_case() {
        let id = parse_asset_id("A0000000-0000-4000-8000-00000000000f").expect("dashed form");
        assert_eq!(id[0], 0xa0);
        assert_eq!(id[15], 0x0f);
        for stale in [
            "",
            "not-a-uuid",
            "a00000000000400080000000000000000f",
            "{0000000-0000-4000-8000-00000000000f",
            " 0000000-0000-4000-8000-00000000000f",
            "g0000000-0000-4000-8000-00000000000f",
            "a0000000+0000-4000-8000-00000000000f",
            "é0000000-0000-4000-8000-0000000000f",
        ] {
            assert_eq!(parse_asset_id(stale), None, "{stale}");
        }
    }
}
