//! Asset structs and the references to them.

use serde_json::{Map, Number, Value};

use crate::fields::whole_number;
use crate::identity::infer_mime_type;
use crate::json::{Json, Kind};
use crate::time::seconds_text;

/// What an asset belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntityType {
    Scene,
    Session,
}

impl EntityType {
    pub const fn name(self) -> &'static str {
        match self {
            EntityType::Scene => "scene",
            EntityType::Session => "session",
        }
    }
}

/// The kinds of asset; each has one struct column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AssetType {
    VideoChunk,
    SourceCode,
    Thumbnail,
    Subtitle,
    CombinedVideo,
    CombinedSubtitle,
    Manifest,
}

impl AssetType {
    pub const OF_SCENE: [AssetType; 4] = [
        AssetType::VideoChunk,
        AssetType::SourceCode,
        AssetType::Thumbnail,
        AssetType::Subtitle,
    ];
    pub const OF_SESSION: [AssetType; 3] = [
        AssetType::CombinedVideo,
        AssetType::CombinedSubtitle,
        AssetType::Manifest,
    ];

    /// `asset_type` of the reference.
    pub const fn name(self) -> &'static str {
        match self {
            AssetType::VideoChunk => "video_chunk",
            AssetType::SourceCode => "source_code",
            AssetType::Thumbnail => "thumbnail",
            AssetType::Subtitle => "subtitle",
            AssetType::CombinedVideo => "combined_video",
            AssetType::CombinedSubtitle => "combined_subtitle",
            AssetType::Manifest => "manifest",
        }
    }

    /// The column of the struct.
    pub const fn column(self) -> &'static str {
        match self {
            AssetType::VideoChunk => "video_asset",
            AssetType::SourceCode => "source_code_asset",
            AssetType::Thumbnail => "thumbnail_asset",
            AssetType::Subtitle => "subtitle_asset",
            AssetType::CombinedVideo => "combined_video_asset",
            AssetType::CombinedSubtitle => "combined_subtitle_asset",
            AssetType::Manifest => "manifest_asset",
        }
    }
}

/// A row of `asset_references` that is missing. `entity_id` is the id of the row that was decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    pub entity_type: EntityType,
    pub asset_type: AssetType,
    pub version: i32,
    pub s3_key: Option<String>,
    pub s3_url: Option<String>,
    pub content_type: Option<String>,
    /// Bytes.
    pub size: Option<i64>,
    pub checksum: Option<String>,
    pub metadata: Value,
}

/// The struct of an object that the legacy columns name: `{s3Key, s3Url, contentType, checksum, uploadedAt}`. What is
/// unknown is absent, never 0 or `""`; the size is never known.
pub(super) fn new_struct(
    key: &str,
    url: Option<String>,
    default_type: &str,
    checksum: Option<&str>,
    updated_at: Option<i64>,
) -> Value {
    let content_type = infer_mime_type(None, Some(key), None).unwrap_or_else(|| default_type.to_owned());
    let mut members = Map::new();
    members.insert("s3Key".into(), key.into());
    if let Some(url) = url {
        members.insert("s3Url".into(), url.into());
    }
    members.insert("contentType".into(), content_type.into());
    if let Some(checksum) = checksum {
        members.insert("checksum".into(), checksum.into());
    }
    if let Some(seconds) = updated_at.and_then(|time| seconds_text(time)?.parse::<Number>().ok()) {
        members.insert("uploadedAt".into(), Value::Number(seconds));
    }
    Value::Object(members)
}

/// The reference to a struct; `None` for a struct that is no object. The size 0 and the checksum `""` of old structs were
/// written for "unknown", and so are read.
pub(super) fn reference_to<'a, J: Json<'a>>(
    asset: J,
    entity_type: EntityType,
    asset_type: AssetType,
    version: i32,
    metadata: Value,
) -> Option<Reference> {
    if asset.kind() != Kind::Object {
        return None;
    }
    let text = |name: &str| {
        let text = asset.get(name)?.as_str()?;
        super::given(Some(&text)).map(str::to_owned)
    };
    Some(Reference {
        entity_type,
        asset_type,
        version,
        s3_key: text("s3Key"),
        s3_url: text("s3Url"),
        content_type: text("contentType"),
        size: size_of(asset),
        checksum: text("checksum"),
        metadata,
    })
}

fn size_of<'a, J: Json<'a>>(asset: J) -> Option<i64> {
    whole_number(asset.get("size")?).filter(|size| *size > 0)
}
