//! The second phase: sessions, once all scenes are done.

use std::collections::HashMap;
use std::ops::Range;

use media_assets_core::jobs::s3_assets::{decide_session, AssetType, EntityType, Kind, Session, Status, Sums};

use super::existing::Existing;
use super::phase::Entity;
use super::scenes::{SceneDecider, SceneRow};
use super::tables::Tables;
use super::verdict::{New, Verdict, Write};
use crate::jobs::row_version::Version;
use crate::postgres::arrays;
use crate::postgres::jsonb::Jsonb;
use crate::postgres::memory::in_own_context;
use crate::postgres::spi::{Connection, Mode, Rows, Statement};

/// Scenes that a dry run reads at once to decide them again.
const SCENES: i64 = 1000;
/// References of a session have one version only.
const VERSION: i32 = 1;

/// A row of `video_sessions` as it was read. Its JSON lies in the slice's memory.
struct SessionRow {
    id: String,
    version: Version,
    project_id: Option<String>,
    status: Option<String>,
    error_message: Option<String>,
    assets: [Option<Jsonb>; 3],
    total_asset_size: Option<i64>,
    asset_count: Option<i64>,
    assets_status: Option<String>,
    assets_error_message: Option<String>,
}

impl SessionRow {
    fn read(rows: &Rows, row: usize) -> Self {
        let jsonb = |column| rows.get::<Jsonb>(row, column).map(Jsonb::copied);
        SessionRow {
            id: rows.text(row, 0).unwrap_or_default(),
            version: Version::read(rows, row, 1),
            project_id: rows.text(row, 3),
            status: rows.text(row, 4),
            error_message: rows.text(row, 5),
            assets: [6, 7, 8].map(jsonb),
            total_asset_size: rows.get(row, 9),
            asset_count: rows.get(row, 10),
            assets_status: rows.text(row, 11),
            assets_error_message: rows.text(row, 12),
        }
    }

    fn verdict(&self, sums: Sums, has_reference: impl Fn(AssetType) -> bool) -> Verdict {
        let session = Session {
            project_id: self.project_id.as_deref(),
            status: Status {
                status: self.status.as_deref(),
                error_message: self.error_message.as_deref(),
                assets_status: self.assets_status.as_deref(),
                assets_error_message: self.assets_error_message.as_deref(),
            },
            assets: self.assets.each_ref().map(|asset| asset.as_ref().map(Jsonb::value)),
            total_asset_size: self.total_asset_size,
            asset_count: self.asset_count.and_then(|count| i32::try_from(count).ok()),
        };
        let decision = decide_session(&session, sums, |asset_type, _| has_reference(asset_type));
        let writes = decision.writes;
        let number = |number: Option<i64>| number.map(|number| number.to_string());
        let status = writes.assets_status.map(str::to_owned);
        let message = writes.assets_error_message.map(str::to_owned);
        let count = writes.asset_count.map(i64::from);
        let writes = [
            (
                "total_asset_size",
                number(self.total_asset_size),
                writes.total_asset_size.map(New::Number),
            ),
            ("asset_count", number(self.asset_count), count.map(New::Number)),
            ("assets_status", self.assets_status.clone(), status.map(New::Text)),
            ("assets_error_message", None, message.map(New::Text)),
        ]
        .into_iter()
        .filter_map(|(column, before, after)| Some(Write::new(column, before, after?)))
        .collect();
        Verdict {
            kind: Kind::Session,
            id: self.id.clone(),
            version: self.version,
            outcome: decision.outcome,
            reason: decision.reason,
            writes,
            references: decision.references,
            references_existing: decision.references_existing,
            is_ready: false,
        }
    }
}

/// Decides the scenes of sessions again, in a dry run, where the first phase has written nothing.
struct Again {
    decider: SceneDecider,
    first: Statement,
    next: Statement,
}

impl Again {
    /// Puts what the scenes would be after the run in the place of what they are: how many are ready, and the references
    /// that they would get.
    fn correct(&self, connection: &Connection, mode: Mode, ids: &[&str], sums: &mut [Sums]) {
        let places: HashMap<&str, usize> = ids.iter().enumerate().map(|(place, id)| (*id, place)).collect();
        for sum in sums.iter_mut() {
            sum.scenes = 0;
            sum.scenes_ready = 0;
        }
        let sessions = || arrays::text(ids.iter().map(|id| Some(*id)));
        let mut after: Option<String> = None;
        loop {
            crate::postgres::backend::check_for_interrupts();
            after = in_own_context(|| {
                let rows = match &after {
                    None => connection.run(&self.first, mode, &[sessions().into(), SCENES.into()]),
                    Some(after) => {
                        let parameters = [sessions().into(), SCENES.into(), after.as_str().into()];
                        connection.run(&self.next, mode, &parameters)
                    }
                };
                let scenes: Vec<SceneRow> = (0..rows.len()).map(|row| SceneRow::read(&rows, row)).collect();
                let verdicts = self.decider.decide_scenes(connection, mode, &scenes);
                for (scene, verdict) in scenes.iter().zip(verdicts) {
                    let session = scene.session_id.as_deref().and_then(|id| places.get(id));
                    let Some(sum) = session.and_then(|place| sums.get_mut(*place)) else {
                        continue;
                    };
                    sum.add_scene(verdict.is_ready);
                    for reference in &verdict.references {
                        sum.add_reference(reference.size);
                    }
                }
                let is_last = (scenes.len() as i64) < SCENES;
                scenes
                    .into_iter()
                    .next_back()
                    .filter(|_| !is_last)
                    .map(|scene| scene.id)
            });
            if after.is_none() {
                return;
            }
        }
    }
}

/// Decides sessions, by what their scenes and references are after the first phase.
pub struct SessionDecider {
    existing: Option<Existing>,
    sums: Statement,
    /// In a dry run.
    again: Option<Again>,
}

impl SessionDecider {
    pub fn new(tables: &Tables, bucket_url: Option<String>, execute: bool) -> Self {
        let select_scenes = tables.select_scenes();
        let after = &tables.scene_order.greater;
        SessionDecider {
            existing: Existing::new(tables, EntityType::Session, &AssetType::OF_SESSION),
            sums: Statement::new(sums(tables)),
            again: (!execute).then(|| Again {
                decider: SceneDecider::new(tables, bucket_url),
                first: Statement::new(format!(
                    "{select_scenes} WHERE s.session_id = ANY ($1) ORDER BY s.id LIMIT $2"
                )),
                next: Statement::new(format!(
                    "{select_scenes} WHERE s.session_id = ANY ($1) AND s.id {after} $3 ORDER BY s.id LIMIT $2"
                )),
            }),
        }
    }

    fn sums(&self, connection: &Connection, mode: Mode, ids: &[&str]) -> Vec<Sums> {
        let mut sums = vec![Sums::default(); ids.len()];
        let parameters = [arrays::text(ids.iter().map(|id| Some(*id))).into()];
        let rows = connection.run(&self.sums, mode, &parameters);
        for row in 0..rows.len() {
            let number = |column| rows.get::<i64>(row, column).unwrap_or(0);
            if let Some(sum) = sums.get_mut(number(0) as usize - 1) {
                *sum = Sums {
                    scenes: number(1),
                    scenes_ready: number(2),
                    references: number(3),
                    size: number(4),
                };
            }
        }
        drop(rows);
        if let Some(again) = &self.again {
            again.correct(connection, mode, ids, &mut sums);
        }
        sums
    }
}

impl Entity for SessionDecider {
    const ROWS: &'static str = "sessions";
    const ROW: &'static str = "session";
    const JSON_COLUMNS: &'static [usize] = &[6, 7, 8];

    fn decide(&self, connection: &Connection, mode: Mode, rows: &Rows, range: Range<usize>) -> Vec<Verdict> {
        let sessions: Vec<SessionRow> = range.map(|row| SessionRow::read(rows, row)).collect();
        let ids: Vec<&str> = sessions.iter().map(|session| session.id.as_str()).collect();
        let keys: Vec<(&str, i32)> = ids.iter().map(|id| (*id, VERSION)).collect();
        let existing = Existing::of(self.existing.as_ref(), connection, mode, &keys);
        let sums = self.sums(connection, mode, &ids);
        let verdicts = sessions.iter().zip(sums).enumerate().map(|(place, (session, sums))| {
            session.verdict(sums, |asset_type| existing.contains(&(place, asset_type)))
        });
        verdicts.collect()
    }
}

/// The statement that sums over what is there: place, scenes, ready ones, references, their known sizes.
fn sums(tables: &Tables) -> String {
    let ready = match tables.scenes.has("assets_status") {
        true => "pg_catalog.count(*) FILTER (WHERE c.assets_status = 'ready')",
        false => "0::pg_catalog.int8",
    };
    let of = |entity: EntityType, id: &str| match &tables.references {
        None => "SELECT 0::pg_catalog.int8 AS references, NULL::pg_catalog.numeric AS size".to_owned(),
        Some(references) => format!(
            "SELECT pg_catalog.count(*) AS references, pg_catalog.sum(r.size) AS size FROM {} r
             WHERE r.entity_type = '{}' AND r.entity_id = {id}",
            references.sql_name,
            entity.name()
        ),
    };
    format!(
        "SELECT u.n, c.scenes, c.ready, (c.references + o.references)::pg_catalog.int8,
                LEAST(COALESCE(c.size, 0) + COALESCE(o.size, 0), 9223372036854775807)::pg_catalog.int8
         FROM pg_catalog.unnest($1) WITH ORDINALITY u(id, n)
         CROSS JOIN LATERAL (SELECT pg_catalog.count(*) AS scenes, {ready} AS ready, COALESCE(pg_catalog.sum(x.references), 0) AS references,
                                    pg_catalog.sum(x.size) AS size
                             FROM {scenes} c CROSS JOIN LATERAL ({of_scene}) x WHERE c.session_id = u.id) c
         CROSS JOIN LATERAL ({of_session}) o",
        scenes = tables.scenes.sql_name,
        of_scene = of(EntityType::Scene, "c.id"),
        of_session = of(EntityType::Session, "u.id"),
    )
}
