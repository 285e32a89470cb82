//! The first phase: scenes.

use std::collections::HashSet;
use std::rc::Rc;

use media_assets_core::jobs::s3_assets::{
    decide_scene, AssetType, Counters, EntityType, Kind, Scene, SceneWrites, Status,
};

use super::tables::{fingerprint, select_list, Tables, SCENE_INPUT, SCENE_NEW, SCENE_WRITTEN};
use super::verdict::{Decided, Verdict, Write, Writer};
use super::Scope;
use crate::engine::journal::Changes;
use crate::engine::ledger::decisions::Decision;
use crate::engine::{Job, Stale};
use crate::error::Result;
use crate::postgres::arrays;
use crate::postgres::jsonb::{Jsonb, JsonbRef};
use crate::postgres::spi::{Connection, Mode, Rows, Statement};
use crate::settings::LogDecisions;

/// A row of `scenes` as it was read. Its JSON lies in the slice's memory.
pub struct SceneRow {
    pub id: String,
    pub session_id: Option<String>,
    fingerprint: i64,
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
    /// Reads a row of [`select`].
    fn read(rows: &Rows, row: usize) -> Self {
        let jsonb = |column| rows.get::<Jsonb>(row, column).map(Jsonb::copied);
        // The ends of the range are the two infinities.
        let is_finite = |time: &i64| *time != i64::MAX && *time != i64::MIN;
        SceneRow {
            fingerprint: rows.get(row, 0).unwrap_or_default(),
            id: rows.text(row, 1).unwrap_or_default(),
            session_id: rows.text(row, 2),
            project_id: rows.text(row, 3),
            index: int4(rows, row, 4),
            status: rows.text(row, 5),
            error_message: rows.text(row, 6),
            s3_chunk_key: rows.text(row, 7),
            s3_chunk_url: rows.text(row, 8),
            s3_source_key: rows.text(row, 9),
            checksum: rows.text(row, 10),
            updated_at: rows
                .get::<pgrx::pg_sys::TimestampTz>(row, 11)
                .filter(is_finite)
                .and_then(|time| time.checked_add(EPOCH)),
            assets: [12, 13, 14, 15].map(jsonb),
            assets_status: rows.text(row, 16),
            assets_error_message: rows.text(row, 17),
            asset_version: int4(rows, row, 18),
            previous_asset_versions: jsonb(19),
        }
    }

    fn version(&self) -> i32 {
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
        let text = |column: Option<&Jsonb>| column.map(|column| column.value().to_text());
        let [video, source_code, ..] = self.assets.each_ref().map(Option::as_ref);
        let previous = self.previous_asset_versions.as_ref();
        let write = |column, before, after: Option<String>| after.map(|after| Write { column, before, after });
        [
            write(
                "video_asset",
                text(video),
                writes.video_asset.map(|asset| asset.to_string()),
            ),
            write(
                "source_code_asset",
                text(source_code),
                writes.source_code_asset.map(|asset| asset.to_string()),
            ),
            write("assets_status", None, writes.assets_status.map(str::to_owned)),
            write(
                "assets_error_message",
                None,
                writes.assets_error_message.map(str::to_owned),
            ),
            write(
                "asset_version",
                None,
                writes.asset_version.map(|version| version.to_string()),
            ),
            write(
                "previous_asset_versions",
                text(previous),
                writes.previous_asset_versions.map(|versions| versions.to_string()),
            ),
        ]
        .into_iter()
        .flatten()
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

    pub fn decide(&self, connection: &Connection, mode: Mode, rows: &[SceneRow]) -> Vec<Verdict> {
        let keys: Vec<(&str, i32)> = rows.iter().map(|row| (row.id.as_str(), row.version())).collect();
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
                    fingerprint: row.fingerprint,
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

/// The look-up of references that exist.
pub struct Existing {
    asset_types: &'static [AssetType],
    statement: Statement,
}

impl Existing {
    /// `None` where there are no references yet.
    pub fn new(tables: &Tables, entity: EntityType, asset_types: &'static [AssetType]) -> Option<Self> {
        let references = tables.references.as_ref()?;
        let names: Vec<String> = asset_types.iter().map(|asset| format!("'{}'", asset.name())).collect();
        Some(Existing {
            asset_types,
            // LATERAL with LIMIT keeps the plan a nested loop over the unique index, whatever the statistics say.
            statement: Statement::new(format!(
                "SELECT u.n, r.asset_type::pg_catalog.text
                 FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) WITH ORDINALITY u(id, version, n)
                 CROSS JOIN LATERAL (SELECT r.asset_type FROM {} r
                                     WHERE r.entity_type = '{}' AND r.entity_id = u.id AND r.version = u.version
                                       AND r.asset_type IN ({}) LIMIT {}) r",
                references.sql_name,
                entity.name(),
                names.join(", "),
                names.len()
            )),
        })
    }

    /// The references of entities with these ids and versions, by place and type.
    pub fn of(
        existing: Option<&Self>,
        connection: &Connection,
        mode: Mode,
        keys: &[(&str, i32)],
    ) -> HashSet<(usize, AssetType)> {
        let Some(existing) = existing.filter(|_| !keys.is_empty()) else {
            return HashSet::new();
        };
        let parameters = [
            arrays::text(keys.iter().map(|(id, _)| Some(*id))).into(),
            arrays::int4(keys.iter().map(|(_, version)| Some(*version))).into(),
        ];
        let rows = connection.run(&existing.statement, mode, &parameters);
        (0..rows.len())
            .filter_map(|row| {
                let (place, name) = (rows.get::<i64>(row, 0)?, rows.text(row, 1)?);
                let asset = existing.asset_types.iter().find(|asset| asset.name() == name)?;
                Some((place as usize - 1, *asset))
            })
            .collect()
    }
}

/// The columns of a scene that are read, behind the fingerprint, in the order of [`SceneRow::read`].
pub fn select(tables: &Tables) -> String {
    let columns: [&[_]; 2] = [&SCENE_INPUT, &SCENE_NEW];
    format!(
        "SELECT {}, {} FROM {} s",
        fingerprint(&tables.scenes, &columns),
        select_list(&tables.scenes, &columns),
        tables.scenes.sql_name
    )
}

/// All rows of a result of [`select`].
pub fn read_all(rows: &Rows) -> Vec<SceneRow> {
    (0..rows.len()).map(|row| SceneRow::read(rows, row)).collect()
}

/// The phase over the scenes of a run.
pub struct Scenes {
    scope: Scope,
    decider: SceneDecider,
    writer: Option<Writer>,
    first: Statement,
    next: Statement,
    these: Statement,
    /// What was read is out of date: read the rows of the slice again.
    reread: bool,
}

/// Columns as [`select`] names them.
pub struct Page {
    rows: Rows,
}

impl Scenes {
    pub fn new(tables: &Rc<Tables>, bucket_url: Option<String>, scope: Scope) -> Self {
        let select = select(tables);
        let (greater, not_greater) = (&tables.scene_order.greater, &tables.scene_order.not_greater);
        let in_range = scope.condition("s.id");
        let columns: [&[_]; 2] = [&SCENE_INPUT, &SCENE_NEW];
        Scenes {
            decider: SceneDecider::new(tables, bucket_url),
            writer: Writer::new(
                tables,
                &tables.scenes,
                &SCENE_WRITTEN,
                &fingerprint(&tables.scenes, &columns),
            ),
            first: Statement::new(format!(
                "{select} WHERE s.id {not_greater} $2{in_range} ORDER BY s.id LIMIT $1"
            )),
            next: Statement::new(format!(
                "{select} WHERE s.id {not_greater} $2{in_range} AND s.id {greater} $3 ORDER BY s.id LIMIT $1"
            )),
            these: Statement::new(format!("{select} WHERE s.id = ANY ($1) ORDER BY s.id")),
            scope,
            reread: false,
        }
    }

    fn these(&self, connection: &Connection, ids: impl Iterator<Item = String>) -> Rows {
        let ids: Vec<String> = ids.collect();
        let ids = arrays::text(ids.iter().map(|id| Some(id.as_str())));
        connection.run(&self.these, Mode::Write, &[ids.into()])
    }
}

impl Job for Scenes {
    type Page = Page;
    type Decided = Decided;
    type Counters = Counters;

    const NAME: &'static str = "s3_assets";
    const ROWS: &'static str = "scenes";
    const ROW: &'static str = "scene";

    fn estimate(&self, _: &Connection) -> Option<i64> {
        self.scope.estimate
    }

    fn read(&mut self, connection: &Connection, mode: Mode, after: Option<&str>, limit: i64) -> Page {
        let bound = self.scope.bound.as_deref();
        let rows = match after {
            None => connection.run(&self.first, mode, &[limit.into(), bound.into()]),
            Some(after) => connection.run(&self.next, mode, &[limit.into(), bound.into(), after.into()]),
        };
        Page { rows }
    }

    fn read_these(&mut self, connection: &Connection, ids: &[String]) -> Page {
        Page {
            rows: self.these(connection, ids.iter().cloned()),
        }
    }

    fn len(page: &Page) -> usize {
        page.rows.len()
    }

    fn cursor(page: &Page) -> String {
        Self::id(page, page.rows.len() - 1)
    }

    fn weight(page: &Page, index: usize) -> usize {
        let jsonb: usize = [12, 13, 14, 15, 19]
            .into_iter()
            .map(|column| page.rows.raw_size(index, column))
            .sum();
        4096 + jsonb
    }

    fn decide(&mut self, connection: &Connection, mode: Mode, page: &Page, from: usize, to: usize) -> Result<Decided> {
        let rows = if std::mem::take(&mut self.reread) {
            read_all(&self.these(connection, (from..to).map(|row| Self::id(page, row))))
        } else {
            (from..to).map(|row| SceneRow::read(&page.rows, row)).collect()
        };
        Ok(Decided::new(self.decider.decide(connection, mode, &rows)))
    }

    fn has_writes(decided: &Decided) -> bool {
        decided.has_writes()
    }

    fn write(
        &mut self,
        connection: &Connection,
        _: &Page,
        _: usize,
        _: usize,
        decided: Decided,
    ) -> std::result::Result<Decided, Stale> {
        // Whatever goes wrong from here on, the next decision must not rest on the present reading.
        self.reread = true;
        let written = self.writer.as_ref().ok_or(Stale)?.write(connection, decided)?;
        self.reread = false;
        Ok(written)
    }

    fn count(decided: &Decided) -> Counters {
        decided.count()
    }

    fn count_failed(decided: &Decided) -> Counters {
        decided.count_failed()
    }

    fn id(page: &Page, index: usize) -> String {
        page.rows.text(index, 1).unwrap_or_default()
    }

    fn remember(&mut self, _: &Decided) -> Result<()> {
        // The sessions' phase decides the scenes again where nothing was written.
        Ok(())
    }

    fn changes(&self, decided: &Decided, changes: &mut Changes) {
        if let Some(writer) = &self.writer {
            writer.changes(decided, changes);
        }
    }

    fn decisions(decided: &Decided, level: LogDecisions, decisions: &mut Vec<Decision>) {
        decided.decisions(level, decisions);
    }
}
