//! The tables of a Convex export and the columns that their fields fill.

/// The tables that can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Scenes,
    VideoSessions,
    AssetReferences,
}

/// What a column takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    Text,
    /// 32 bits.
    Int,
    /// 64 bits.
    Bigint,
    Jsonb,
    Timestamptz,
}

/// A column and the field of a document that fills it.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    pub field: &'static str,
    pub column_type: ColumnType,
}

const fn column(name: &'static str, field: &'static str, column_type: ColumnType) -> Column {
    Column {
        name,
        field,
        column_type,
    }
}

const SCENES: &[Column] = {
    use ColumnType::{Int, Jsonb, Text, Timestamptz};
    &[
        column("session_id", "sessionId", Text),
        column("project_id", "projectId", Text),
        column("index", "index", Int),
        column("status", "status", Text),
        column("error_message", "errorMessage", Text),
        column("s3_chunk_key", "s3ChunkKey", Text),
        column("s3_chunk_url", "s3ChunkUrl", Text),
        column("s3_source_key", "s3SourceKey", Text),
        column("checksum", "checksum", Text),
        column("updated_at", "updatedAt", Timestamptz),
        column("video_asset", "videoAsset", Jsonb),
        column("source_code_asset", "sourceCodeAsset", Jsonb),
        column("thumbnail_asset", "thumbnailAsset", Jsonb),
        column("subtitle_asset", "subtitleAsset", Jsonb),
        column("assets_status", "assetsStatus", Text),
        column("assets_error_message", "assetsErrorMessage", Text),
        column("asset_version", "assetVersion", Int),
        column("previous_asset_versions", "previousAssetVersions", Jsonb),
    ]
};

const VIDEO_SESSIONS: &[Column] = {
    use ColumnType::{Bigint, Int, Jsonb, Text, Timestamptz};
    &[
        column("project_id", "projectId", Text),
        column("status", "status", Text),
        column("error_message", "errorMessage", Text),
        column("updated_at", "updatedAt", Timestamptz),
        column("combined_video_asset", "combinedVideoAsset", Jsonb),
        column("combined_subtitle_asset", "combinedSubtitleAsset", Jsonb),
        column("manifest_asset", "manifestAsset", Jsonb),
        column("total_asset_size", "totalAssetSize", Bigint),
        column("asset_count", "assetCount", Int),
        column("assets_status", "assetsStatus", Text),
        column("assets_error_message", "assetsErrorMessage", Text),
    ]
};

const ASSET_REFERENCES: &[Column] = {
    use ColumnType::{Bigint, Int, Jsonb, Text, Timestamptz};
    &[
        column("entity_type", "entityType", Text),
        column("entity_id", "entityId", Text),
        column("asset_type", "assetType", Text),
        column("s3_key", "s3Key", Text),
        column("s3_url", "s3Url", Text),
        column("content_type", "contentType", Text),
        column("size", "size", Bigint),
        column("checksum", "checksum", Text),
        column("version", "version", Int),
        column("created_at", "createdAt", Timestamptz),
        column("metadata", "metadata", Jsonb),
    ]
};

impl Table {
    pub const ALL: [Table; 3] = [Table::Scenes, Table::VideoSessions, Table::AssetReferences];

    /// Our name of the table.
    pub const fn name(self) -> &'static str {
        match self {
            Table::Scenes => "scenes",
            Table::VideoSessions => "video_sessions",
            Table::AssetReferences => "asset_references",
        }
    }

    const fn convex_name(self) -> &'static str {
        match self {
            Table::Scenes => "scenes",
            Table::VideoSessions => "videoSessions",
            Table::AssetReferences => "assetReferences",
        }
    }

    /// The table of this name, ours or Convex's.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|table| table.name() == name || table.convex_name() == name)
    }

    /// The columns that documents fill, besides `id`.
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Table::Scenes => SCENES,
            Table::VideoSessions => VIDEO_SESSIONS,
            Table::AssetReferences => ASSET_REFERENCES,
        }
    }
}
