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

/// What an eligible item says of where its asset is, and so of which asset it is.
#[derive(Clone, Debug)]
pub struct Media<'a, J> {
    pub provider: &'static str,
    pub storage_provider: &'static str,
    pub storage_key: Option<Cow<'a, str>>,
    pub source_url: Option<String>,
    pub canonical_key: String,
    pub kind: &'static str,
    pub mime_type: Option<String>,
    pub is_external: bool,
    /// The item's own `assetId`, when it has the form of a UUID.
    pub asset_id: Option<AssetId>,
    /// The item's `metadata` when it is an object; `None` stands for `{}`.
    pub metadata: Option<J>,
    slot: Slot,
    item: J,
}

/// What an item says of its asset besides: read only where an asset is made or shown, since most items have theirs.
#[derive(Clone, Debug)]
pub struct Description<'a> {
    pub title: Option<Cow<'a, str>>,
    pub description: Option<Cow<'a, str>>,
    pub thumbnail_url: Option<Cow<'a, str>>,
    /// In seconds.
    pub duration_seconds: Option<i32>,
    pub aspect_ratio: Option<Cow<'a, str>>,
}

impl<'a, J: Json<'a>> Media<'a, J> {
    /// The size in bytes, when the item knows it.
    pub fn byte_size(&self) -> Option<i64> {
        self.item.get("size").and_then(whole_number).or_else(|| {
            let metadata = self.metadata?;
            ["byteSize", "size"]
                .into_iter()
                .find_map(|name| whole_number(metadata.get(name)?))
        })
    }

    pub fn describe(&self) -> Description<'a> {
        let of_metadata = |name: &str| text(self.metadata?, name);
        let title = match self.slot {
            Slot::Video => text(self.item, "fileName")
                .or_else(|| of_metadata("fileName"))
                .or_else(|| text(self.item, "videoTitle"))
                .or_else(|| of_metadata("title")),
            Slot::Document => text(self.item, "name").or_else(|| of_metadata("title")),
        };
        let duration_seconds = self.metadata.and_then(|metadata| {
            ["duration", "durationSeconds"]
                .into_iter()
                .find_map(|name| seconds(metadata.get(name)?))
        });
        Description {
            title,
            description: of_metadata("description"),
            thumbnail_url: of_metadata("thumbnailUrl"),
            duration_seconds,
            aspect_ratio: of_metadata("aspectRatio"),
        }
    }
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

/// Whether both elements are uploads of the same file, as their members that say where it is show: the key of an upload
/// depends on nothing else. Cheaper than [`normalize`], and no judge of other media: false says nothing.
pub fn are_same_upload<'a, J: Json<'a>>(slot: Slot, one: J, other: J) -> bool {
    let same = |name: &str| match (one.get(name), other.get(name)) {
        (None, None) => true,
        (Some(one), Some(other)) => one.as_str().is_some_and(|text| other.as_str() == Some(text)),
        _ => false,
    };
    ["key", "videoKey", "link", "type"].into_iter().all(same) && is_upload(slot, one)
}

/// Whether an element is an upload with a key.
pub fn is_upload<'a, J: Json<'a>>(slot: Slot, item: J) -> bool {
    let key = text(item, "key").or_else(|| text(item, "videoKey").filter(|_| slot == Slot::Video));
    key.is_some() && (slot == Slot::Document || video_provider(item, true, None) == Some(Provider::Upload))
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
        provider: Provider::Upload.name(),
        storage_provider: "s3",
        storage_key: Some(key),
        source_url: address.map(Address::into_url),
        canonical_key,
        kind,
        mime_type,
        is_external: false,
        asset_id: asset_id_of(item),
        metadata,
        slot,
        item,
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
        provider: provider.name(),
        storage_provider: "external",
        storage_key: found.storage_key.map(Cow::Owned),
        source_url: Some(found.source_url),
        canonical_key: found.canonical_key,
        kind: found.kind,
        mime_type: found.mime_type,
        is_external: true,
        asset_id: asset_id_of(item),
        metadata: metadata_of(item),
        slot,
        item,
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

/// The `assetId` of an item, when it has the form of a UUID.
pub fn asset_id_of<'a, J: Json<'a>>(item: J) -> Option<AssetId> {
    parse_asset_id(&item.get("assetId")?.as_str()?)
}
