//! The first phase: scenes.

use std::ops::Range;

use media_assets_core::jobs::s3_assets::{decide_scene, AssetType, EntityType, Kind, Scene, SceneWrites, Status};

use super::existing::Existing;
use super::phase::Entity;
use super::tables::Tables;
use super::verdict::{New, Verdict, Write};
use crate::jobs::row_version::Version;
use crate::postgres::jsonb::{Jsonb, JsonbRef};
use crate::postgres::spi::{Connection, Mode, Rows};

/// A row of `scenes` as it was read. Its JSON lies in the slice's memory.
pub struct SceneRow {
    pub id: String,
    pub session_id: Option<String>,
    version: Version,
    project_id: Option<String>,
    index: Option<i32>,
    status: Option<String>,
    error_message: Option<String>,
    s3_chunk_key: Option<String>,
    s3_chunk_url: Option<String>,
    s3_source_key: Option<String>,
    checksum: Option<String>,
    updated_at: Option<i64>,
    assets: [Option<Jsonb>; 4],
    assets_status: Option<String>,
    assets_error_message: Option<String>,
    asset_version: Option<i32>,
    previous_asset_versions: Option<Jsonb>,
}

/// From 2000, where PostgreSQL counts from, to 1970, in microseconds.
const EPOCH: i64 = 946_684_800_000_000;

fn int4(rows: &Rows, row: usize, column: usize) -> Option<i32> {
    i32::try_from(rows.get::<i64>(row, column)?).ok()
}

impl SceneRow {
    /// Reads a row of [`Tables::select_scenes`].
    pub fn read(rows: &Rows, row: usize) -> Self {
        let jsonb = |column| rows.get::<Jsonb>(row, column).map(Jsonb::copied);
        // The ends of the range are the two infinities.
        let is_finite = |time: &i64| *time != i64::MAX && *time != i64::MIN;
        SceneRow {
            id: rows.text(row, 0).unwrap_or_default(),
            version: Version::read(rows, row, 1),
            session_id: rows.text(row, 3),
            project_id: rows.text(row, 4),
            index: int4(rows, row, 5),
            status: rows.text(row, 6),
            error_message: rows.text(row, 7),
            s3_chunk_key: rows.text(row, 8),
            s3_chunk_url: rows.text(row, 9),
            s3_source_key: rows.text(row, 10),
            checksum: rows.text(row, 11),
            updated_at: rows
                .get::<pgrx::pg_sys::TimestampTz>(row, 12)
                .filter(is_finite)
                .and_then(|time| time.checked_add(EPOCH)),
            assets: [13, 14, 15, 16].map(jsonb),
            assets_status: rows.text(row, 17),
            assets_error_message: rows.text(row, 18),
            asset_version: int4(rows, row, 19),
            previous_asset_versions: jsonb(20),
        }
    }

    /// Of its references.
    fn asset_version(&self) -> i32 {
        self.asset_version.unwrap_or(1)
    }

    fn scene(&self) -> Scene<'_, JsonbRef<'_>> {
        Scene {
            project_id: self.project_id.as_deref(),
            index: self.index,
            status: Status {
                status: self.status.as_deref(),
                error_message: self.error_message.as_deref(),
                assets_status: self.assets_status.as_deref(),
                assets_error_message: self.assets_error_message.as_deref(),
            },
            s3_chunk_key: self.s3_chunk_key.as_deref(),
            s3_chunk_url: self.s3_chunk_url.as_deref(),
            s3_source_key: self.s3_source_key.as_deref(),
            checksum: self.checksum.as_deref(),
            updated_at: self.updated_at,
            assets: self.assets.each_ref().map(|asset| asset.as_ref().map(Jsonb::value)),
            asset_version: self.asset_version,
            previous_asset_versions: self.previous_asset_versions.as_ref().map(Jsonb::value),
        }
    }

    fn writes(&self, writes: SceneWrites<'_>) -> Vec<Write> {
        let text = |column: Option<Jsonb>| column.map(Jsonb::to_text);
        let [video, source_code, ..] = self.assets;
        let status = writes.assets_status.map(str::to_owned);
        let message = writes.assets_error_message.map(str::to_owned);
        let version = writes.asset_version.map(i64::from);
        [
            ("video_asset", text(video), writes.video_asset.map(New::Json)),
            (
                "source_code_asset",
                text(source_code),
                writes.source_code_asset.map(New::Json),
            ),
            ("assets_status", None, status.map(New::Text)),
            ("assets_error_message", None, message.map(New::Text)),
            ("asset_version", None, version.map(New::Number)),
            (
                "previous_asset_versions",
                text(self.previous_asset_versions),
                writes.previous_asset_versions.map(New::Json),
            ),
        ]
        .into_iter()
        .filter_map(|(column, before, after)| Some(Write::new(column, before, after?)))
        .collect()
    }
}

/// Decides scenes, wherever their rows come from: the first phase, and in a dry run the second.
pub struct SceneDecider {
    bucket_url: Option<String>,
    existing: Option<Existing>,
}

impl SceneDecider {
    pub fn new(tables: &Tables, bucket_url: Option<String>) -> Self {
        SceneDecider {
            bucket_url,
            existing: Existing::new(tables, EntityType::Scene, &AssetType::OF_SCENE),
        }
    }

    pub fn decide_scenes(&self, connection: &Connection, mode: Mode, rows: &[SceneRow]) -> Vec<Verdict> {
        let keys: Vec<(&str, i32)> = rows.iter().map(|row| (row.id.as_str(), row.asset_version())).collect();
        let existing = Existing::of(self.existing.as_ref(), connection, mode, &keys);
        rows.iter()
            .enumerate()
            .map(|(place, row)| {
                let scene = row.scene();
                let decision = decide_scene(&scene, self.bucket_url.as_deref(), |asset_type, _| {
                    existing.contains(&(place, asset_type))
                });
                Verdict {
                    kind: Kind::Scene,
                    id: row.id.clone(),
                    version: row.version,
                    outcome: decision.outcome,
                    reason: decision.reason,
                    references: decision.references,
                    references_existing: decision.references_existing,
                    is_ready: decision.is_ready,
                    writes: row.writes(decision.writes),
                }
            })
            .collect()
    }
}

impl Entity for SceneDecider {
    const ROWS: &'static str = "scenes";
    const ROW: &'static str = "scene";
    const JSON_COLUMNS: &'static [usize] = &[13, 14, 15, 16, 20];

    fn decide(&self, connection: &Connection, mode: Mode, rows: &Rows, range: Range<usize>) -> Vec<Verdict> {
        let scenes: Vec<SceneRow> = range.map(|row| SceneRow::read(rows, row)).collect();
        self.decide_scenes(connection, mode, &scenes)
    }
}
