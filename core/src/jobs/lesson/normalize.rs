//! From one JSON item to the fields of its asset.

use std::borrow::Cow;

use super::{parse_asset_id, AssetId, Reason, Slot};
use crate::fields::{seconds, text, whole_number};
use crate::identity::{
    asset_canonical_key, canonical_url, google_drive_file_id, infer_asset_kind, infer_mime_type, youtube_video_id,
    Address,
};
use crate::json::{Json, Kind};

/// Where an asset lives, as the item says or shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Provider {
    Upload,
    YouTube,
    Generic,
    ExternalUrl,
    GoogleDrive,
}

impl Provider {
    const fn name(self) -> &'static str {
        match self {
            Provider::Upload => "upload",
            Provider::YouTube => "youtube",
            Provider::Generic => "generic",
            Provider::ExternalUrl => "external_url",
            Provider::GoogleDrive => "google_drive",
        }
    }

    fn of_type(name: &str) -> Option<Self> {
        [
            Provider::Upload,
            Provider::YouTube,
            Provider::Generic,
            Provider::ExternalUrl,
            Provider::GoogleDrive,
        ]
        .into_iter()
        .find(|provider| provider.name().eq_ignore_ascii_case(name))
    }
}

/// The fields of the asset that an eligible item stands for. Sizes in bytes, durations in seconds.
#[derive(Clone, Debug)]
pub struct Media<'a, J> {
    pub provider: &'static str,
    pub storage_provider: &'static str,
    pub storage_key: Option<Cow<'a, str>>,
    pub source_url: Option<String>,
    pub canonical_key: String,
    pub kind: &'static str,
    pub mime_type: Option<String>,
    pub byte_size: Option<i64>,
    pub title: Option<Cow<'a, str>>,
    pub description: Option<Cow<'a, str>>,
    pub thumbnail_url: Option<Cow<'a, str>>,
    pub duration_seconds: Option<i32>,
    pub aspect_ratio: Option<Cow<'a, str>>,
    pub is_external: bool,
    /// The item's own `assetId`, when it has the form of a UUID.
    pub asset_id: Option<AssetId>,
    /// The item's `metadata` when it is an object; `None` stands for `{}`.
    pub metadata: Option<J>,
}

/// What one item is, before any table is asked.
#[derive(Clone, Debug)]
pub enum Normalized<'a, J> {
    Eligible(Box<Media<'a, J>>),
    /// `asset_id` only with [`Reason::MissingKey`]: an asset that exists makes the item eligible after all.
    Skipped {
        reason: Reason,
        asset_id: Option<AssetId>,
    },
}

impl<J> Normalized<'_, J> {
    /// The item's `assetId` that plays a part in the decision.
    pub fn asset_id(&self) -> Option<AssetId> {
        match self {
            Normalized::Eligible(media) => media.asset_id,
            Normalized::Skipped { asset_id, .. } => *asset_id,
        }
    }

    const fn skipped(reason: Reason) -> Self {
        Normalized::Skipped { reason, asset_id: None }
    }
}

/// Normalises one item of a lesson's videos or documents; the rule is the specification's *normalize_lesson_media*.
///
/// `item` is `None` for an SQL NULL, which is malformed. Never fails: an odd value in one field makes that field absent.
pub fn normalize<'a, J: Json<'a>>(slot: Slot, item: Option<J>) -> Normalized<'a, J> {
    let Some(item) = item.filter(|item| item.kind() == Kind::Object) else {
        return Normalized::skipped(Reason::Malformed);
    };
    let key = text(item, "key").or_else(|| {
        if slot == Slot::Video {
            text(item, "videoKey")
        } else {
            None
        }
    });
    let link = text(item, "link");
    let provider = match (slot, &key, &link) {
        (Slot::Video, ..) => match video_provider(item, key.is_some(), link.as_deref()) {
            Some(provider) => provider,
            None => return Normalized::skipped(Reason::UnsupportedType),
        },
        (Slot::Document, Some(_), _) => Provider::Upload,
        (Slot::Document, None, Some(_)) => Provider::ExternalUrl,
        (Slot::Document, None, None) => return Normalized::skipped(Reason::MissingLink),
    };
    match (provider, key, link) {
        (Provider::Upload, Some(key), link) => upload(slot, item, key, link),
        (Provider::Upload, None, _) => Normalized::Skipped {
            reason: Reason::MissingKey,
            asset_id: asset_id_of(item),
        },
        (_, _, None) => Normalized::skipped(Reason::MissingLink),
        (provider, _, Some(link)) => external(slot, item, provider, &link),
    }
}

fn video_provider<'a, J: Json<'a>>(item: J, has_key: bool, link: Option<&str>) -> Option<Provider> {
    if let Some(provider) = text(item, "type").and_then(|name| Provider::of_type(&name)) {
        return Some(provider);
    }
    match link {
        _ if has_key => Some(Provider::Upload),
        Some(link) if youtube_video_id(link).is_some() => Some(Provider::YouTube),
        Some(_) => Some(Provider::ExternalUrl),
        None => None,
    }
}

fn upload<'a, J: Json<'a>>(slot: Slot, item: J, key: Cow<'a, str>, link: Option<Cow<'a, str>>) -> Normalized<'a, J> {
    let metadata = metadata_of(item);
    let address = link.as_deref().and_then(Address::of);
    let mime_type = mime_type(slot, item, metadata)
        .or_else(|| address.as_ref()?.mime_type())
        .or_else(|| infer_mime_type(None, Some(&key), None));
    let kind = infer_asset_kind(mime_type.as_deref(), slot.default_kind());
    let Some(canonical_key) = asset_canonical_key(Provider::Upload.name(), &key, Some(kind)) else {
        return Normalized::skipped(Reason::MissingKey);
    };
    Normalized::Eligible(Box::new(Media {
        storage_provider: "s3",
        storage_key: Some(key),
        source_url: address.map(Address::into_url),
        canonical_key,
        kind,
        mime_type,
        is_external: false,
        ..described(slot, item, metadata, Provider::Upload)
    }))
}

fn external<'a, J: Json<'a>>(slot: Slot, item: J, provider: Provider, link: &str) -> Normalized<'a, J> {
    let found = match provider {
        Provider::YouTube => youtube(link),
        _ => addressed(slot, item, provider, link),
    };
    let Some(found) = found else {
        return Normalized::skipped(Reason::UnsupportedLink);
    };
    Normalized::Eligible(Box::new(Media {
        storage_provider: "external",
        storage_key: found.storage_key.map(Cow::Owned),
        source_url: Some(found.source_url),
        canonical_key: found.canonical_key,
        kind: found.kind,
        mime_type: found.mime_type,
        is_external: true,
        ..described(slot, item, metadata_of(item), provider)
    }))
}

/// What an external link says of its asset.
struct External {
    storage_key: Option<String>,
    source_url: String,
    canonical_key: String,
    kind: &'static str,
    mime_type: Option<String>,
}

/// A field that says YouTube is a video, whatever its link ends in; one with an id is known by its watch page.
fn youtube(link: &str) -> Option<External> {
    let kind = "video";
    let canonical_key = asset_canonical_key(Provider::YouTube.name(), link, Some(kind))?;
    let source_url = match youtube_id_of_key(&canonical_key) {
        Some(id) => format!("https://www.youtube.com/watch?v={id}"),
        None => canonical_url(link)?,
    };
    Some(External {
        storage_key: None,
        source_url,
        canonical_key,
        kind,
        mime_type: None,
    })
}

fn addressed<'a, J: Json<'a>>(slot: Slot, item: J, provider: Provider, link: &str) -> Option<External> {
    let address = Address::of(link)?;
    let mime_type = mime_type(slot, item, metadata_of(item)).or_else(|| address.mime_type());
    let kind = infer_asset_kind(mime_type.as_deref(), slot.default_kind());
    let (storage_key, canonical_key) = match provider {
        Provider::GoogleDrive => (
            google_drive_file_id(link),
            asset_canonical_key(provider.name(), link, Some(kind))?,
        ),
        _ => (None, address.key(provider.name(), kind)?),
    };
    Some(External {
        storage_key,
        source_url: address.into_url(),
        canonical_key,
        kind,
        mime_type,
    })
}

/// The id of `youtube:video:<id>`; a link of provider youtube without an id has a URL in its place.
fn youtube_id_of_key(key: &str) -> Option<&str> {
    key.strip_prefix("youtube:video:")
        .filter(|id| id.len() == 11 && !id.contains([':', '/']))
}

/// The fields that do not depend on where the asset lives; the others hold placeholders for the caller to replace.
fn described<'a, J: Json<'a>>(slot: Slot, item: J, metadata: Option<J>, provider: Provider) -> Media<'a, J> {
    let of_metadata = |name: &str| metadata.and_then(|metadata| text(metadata, name));
    let title = match slot {
        Slot::Video => text(item, "fileName")
            .or_else(|| of_metadata("fileName"))
            .or_else(|| text(item, "videoTitle"))
            .or_else(|| of_metadata("title")),
        Slot::Document => text(item, "name").or_else(|| of_metadata("title")),
    };
    let byte_size = item.get("size").and_then(whole_number).or_else(|| {
        let metadata = metadata?;
        ["byteSize", "size"]
            .into_iter()
            .find_map(|name| whole_number(metadata.get(name)?))
    });
    let duration_seconds = metadata.and_then(|metadata| {
        ["duration", "durationSeconds"]
            .into_iter()
            .find_map(|name| seconds(metadata.get(name)?))
    });
    Media {
        provider: provider.name(),
        storage_provider: "",
        storage_key: None,
        source_url: None,
        canonical_key: String::new(),
        kind: slot.default_kind(),
        mime_type: None,
        byte_size,
        title,
        description: of_metadata("description"),
        thumbnail_url: of_metadata("thumbnailUrl"),
        duration_seconds,
        aspect_ratio: of_metadata("aspectRatio"),
        is_external: false,
        asset_id: asset_id_of(item),
        metadata,
    }
}

/// What the item declares, or its file name shows.
fn mime_type<'a, J: Json<'a>>(slot: Slot, item: J, metadata: Option<J>) -> Option<String> {
    let of_metadata = |name: &str| metadata.and_then(|metadata| text(metadata, name));
    let (declared, file_name) = match slot {
        Slot::Video => (
            of_metadata("mimeType"),
            text(item, "fileName").or_else(|| of_metadata("fileName")),
        ),
        Slot::Document => (
            of_metadata("mimeType").or_else(|| text(item, "type")),
            text(item, "name"),
        ),
    };
    infer_mime_type(declared.as_deref(), file_name.as_deref(), None)
}

fn metadata_of<'a, J: Json<'a>>(item: J) -> Option<J> {
    item.get("metadata").filter(|metadata| metadata.kind() == Kind::Object)
}

fn asset_id_of<'a, J: Json<'a>>(item: J) -> Option<AssetId> {
    parse_asset_id(&item.get("assetId")?.as_str()?)
}
