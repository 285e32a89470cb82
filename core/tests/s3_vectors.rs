//! S3 asset tracking: whole runs on a model of the three tables.

mod support;

use media_assets_core::jobs::s3_assets::{
    decide_scene, decide_session, AssetType, Counters, EntityType, Kind, Outcome, Reason, Reference, Scene, Session,
    Status, Sums,
};
use serde_json::{json, Map, Value};
use support::{check, compare, compare_counters, jsonb, microseconds, written};

const SCENE_COLUMNS: [&str; 8] = [
    "video_asset",
    "source_code_asset",
    "thumbnail_asset",
    "subtitle_asset",
    "assets_status",
    "assets_error_message",
    "asset_version",
    "previous_asset_versions",
];

const SESSION_COLUMNS: [&str; 7] = [
    "combined_video_asset",
    "combined_subtitle_asset",
    "manifest_asset",
    "total_asset_size",
    "asset_count",
    "assets_status",
    "assets_error_message",
];

/// Rows as vectors write them.
#[derive(Clone, Debug, PartialEq)]
struct Tables {
    scenes: Vec<Map<String, Value>>,
    sessions: Vec<Map<String, Value>>,
    references: Vec<Map<String, Value>>,
}

impl Tables {
    fn read(vector: &Value) -> Self {
        let rows = |name: &str| {
            let rows = vector[name].as_array().into_iter().flatten();
            let mut rows: Vec<Map<String, Value>> = rows.filter_map(|row| row.as_object().cloned()).collect();
            rows.sort_by_key(|row| row.get("id").map(Value::to_string));
            rows
        };
        Tables {
            scenes: rows("scenes"),
            sessions: rows("video_sessions"),
            references: rows("asset_references"),
        }
    }

    fn has_reference(&self, entity: EntityType, id: &str, asset_type: AssetType, version: i32) -> bool {
        self.references.iter().any(|row| {
            row["entity_type"] == entity.name()
                && row["entity_id"] == id
                && row["asset_type"] == asset_type.name()
                && row["version"] == version
        })
    }

    /// Sums over the scenes of a session, after the first phase.
    fn sums(&self, session: &str) -> Sums {
        let mut sums = Sums::default();
        let scenes: Vec<&Map<String, Value>> = self
            .scenes
            .iter()
            .filter(|scene| scene["session_id"] == session)
            .collect();
        for scene in &scenes {
            sums.add_scene(scene.get("assets_status") == Some(&json!("ready")));
        }
        for row in &self.references {
            let of_scene = row["entity_type"] == "scene" && scenes.iter().any(|scene| scene["id"] == row["entity_id"]);
            if of_scene || (row["entity_type"] == "session" && row["entity_id"] == session) {
                sums.add_reference(row["size"].as_i64());
            }
        }
        sums
    }
}

fn text<'a>(row: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    row.get(name)?.as_str()
}

fn int(row: &Map<String, Value>, name: &str) -> Option<i32> {
    i32::try_from(row.get(name)?.as_i64()?).ok()
}

fn status(row: &Map<String, Value>) -> Status<'_> {
    Status {
        status: text(row, "status"),
        error_message: text(row, "error_message"),
        assets_status: text(row, "assets_status"),
        assets_error_message: text(row, "assets_error_message"),
    }
}

fn reference_row(id: &str, reference: &Reference) -> Map<String, Value> {
    let row = json!({
        "entity_type": reference.entity_type.name(), "entity_id": id, "asset_type": reference.asset_type.name(),
        "s3_key": reference.s3_key, "s3_url": reference.s3_url, "content_type": reference.content_type,
        "size": reference.size, "checksum": reference.checksum, "version": reference.version,
        "metadata": reference.metadata,
    });
    row.as_object().cloned().expect("a row")
}

fn set(row: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        row.insert(name.to_owned(), value.into());
    }
}

/// One run; a dry one writes to its copy, as the shell decides a session's scenes again.
fn run(tables: &mut Tables, vector: &Value, execute: bool) -> (Counters, Map<String, Value>) {
    let bucket_url = vector["args"]["bucket_url"].as_str();
    let reject = &vector["reject"];
    let rejects = |table: &str, row: &Map<String, Value>| {
        execute
            && reject["table"] == table
            && reject["column"]
                .as_str()
                .is_some_and(|column| row.get(column) == Some(&reject["value"]))
    };
    let mut counters = Counters::default();
    let mut reasons = Map::new();
    for at in 0..tables.scenes.len() {
        let row = tables.scenes[at].clone();
        let id = text(&row, "id").expect("id");
        let assets = AssetType::OF_SCENE.map(|asset| jsonb(row.get(asset.column())));
        let previous = jsonb(row.get("previous_asset_versions"));
        let scene = Scene {
            project_id: text(&row, "project_id"),
            index: int(&row, "index"),
            status: status(&row),
            s3_chunk_key: text(&row, "s3_chunk_key"),
            s3_chunk_url: text(&row, "s3_chunk_url"),
            s3_source_key: text(&row, "s3_source_key"),
            checksum: text(&row, "checksum"),
            updated_at: row.get("updated_at").and_then(microseconds),
            assets: assets.each_ref().map(Option::as_ref),
            asset_version: int(&row, "asset_version"),
            previous_asset_versions: previous.as_ref(),
        };
        let decision = decide_scene(&scene, bucket_url, |asset, version| {
            tables.has_reference(EntityType::Scene, id, asset, version)
        });
        let mut new = row.clone();
        set(&mut new, "video_asset", decision.writes.video_asset);
        set(&mut new, "source_code_asset", decision.writes.source_code_asset);
        set(&mut new, "assets_status", decision.writes.assets_status);
        set(&mut new, "assets_error_message", decision.writes.assets_error_message);
        set(&mut new, "asset_version", decision.writes.asset_version);
        set(
            &mut new,
            "previous_asset_versions",
            decision.writes.previous_asset_versions,
        );
        let references: Vec<_> = decision
            .references
            .iter()
            .map(|reference| reference_row(id, reference))
            .collect();
        let refused = (new != row && rejects("scenes", &new))
            || references
                .iter()
                .any(|reference| rejects("asset_references", reference));
        let (outcome, reason) = if refused {
            (Outcome::Failed, Some(Reason::Rejected))
        } else {
            (decision.outcome, decision.reason)
        };
        set(&mut reasons, id, reason.map(Reason::name));
        counters.count(
            Kind::Scene,
            outcome,
            references.len() as i64,
            decision.references_existing,
        );
        if !refused {
            assert_eq!(decision.is_ready, new.get("assets_status") == Some(&json!("ready")));
            tables.scenes[at] = new;
            tables.references.extend(references);
        }
    }
    for at in 0..tables.sessions.len() {
        let row = tables.sessions[at].clone();
        let id = text(&row, "id").expect("id");
        let assets = AssetType::OF_SESSION.map(|asset| jsonb(row.get(asset.column())));
        let session = Session {
            project_id: text(&row, "project_id"),
            status: status(&row),
            assets: assets.each_ref().map(Option::as_ref),
            total_asset_size: row.get("total_asset_size").and_then(Value::as_i64),
            asset_count: int(&row, "asset_count"),
        };
        let decision = decide_session(&session, tables.sums(id), |asset, version| {
            tables.has_reference(EntityType::Session, id, asset, version)
        });
        set(&mut reasons, id, decision.reason.map(Reason::name));
        let references: Vec<_> = decision
            .references
            .iter()
            .map(|reference| reference_row(id, reference))
            .collect();
        counters.count(
            Kind::Session,
            decision.outcome,
            references.len() as i64,
            decision.references_existing,
        );
        let new = &mut tables.sessions[at];
        set(new, "total_asset_size", decision.writes.total_asset_size);
        set(new, "asset_count", decision.writes.asset_count);
        set(new, "assets_status", decision.writes.assets_status);
        set(new, "assets_error_message", decision.writes.assets_error_message);
        tables.references.extend(references);
    }
    counters.check().expect("the sums hold");
    (counters, reasons)
}

fn compare_rows(differences: &mut Vec<String>, expected: &Value, rows: &[Map<String, Value>], columns: &[&str]) {
    let expected = expected.as_array().expect("rows");
    assert_eq!(expected.len(), rows.len(), "as many rows");
    for (wanted, row) in expected.iter().zip(rows) {
        assert_eq!(wanted["id"], row["id"], "in the order of the ids");
        for column in columns {
            let got = match wanted.get(column) {
                None => continue,
                Some(value) if value == "json null" => written(row.get(*column)),
                Some(_) => row.get(*column).cloned().unwrap_or_default(),
            };
            compare(differences, &format!("{} {column}", row["id"]), &wanted[column], &got);
        }
    }
}

fn compare_references(differences: &mut Vec<String>, expected: &Value, rows: &[Map<String, Value>]) {
    let expected = expected.as_array().expect("references");
    if expected.len() != rows.len() {
        differences.push(format!("{} references, expected {}", rows.len(), expected.len()));
    }
    for wanted in expected {
        let wanted = wanted.as_object().expect("a row");
        let fits = |row: &&Map<String, Value>| {
            wanted
                .iter()
                .all(|(column, value)| support::same(value, row.get(column).unwrap_or(&Value::Null)))
        };
        if !rows.iter().any(|row| fits(&row)) {
            differences.push(format!("no reference {wanted:?} in {rows:?}"));
        }
    }
}

#[test]
fn s3_scenarios() {
    check("s3_scenarios", |vector| {
        let expect = &vector["expect"];
        let mut differences = Vec::new();
        let before = Tables::read(vector);
        let (dry, _) = run(&mut before.clone(), vector, false);
        let mut after = before.clone();
        let (counters, reasons) = run(&mut after, vector, true);
        let dry_expected = expect.get("dry_counters").unwrap_or(&expect["counters"]);
        compare_counters(&mut differences, "dry", dry_expected, dry.columns());
        compare_counters(&mut differences, "execute", &expect["counters"], counters.columns());
        compare_rows(&mut differences, &expect["scenes"], &after.scenes, &SCENE_COLUMNS);
        compare_rows(
            &mut differences,
            &expect["video_sessions"],
            &after.sessions,
            &SESSION_COLUMNS,
        );
        compare_references(&mut differences, &expect["asset_references"], &after.references);
        compare(&mut differences, "reasons", &expect["reasons"], &Value::Object(reasons));
        let settled = after.clone();
        let (second, _) = run(&mut after, vector, true);
        compare_counters(&mut differences, "second", &expect["second"], second.columns());
        if after != settled {
            differences.push("the second run changed rows".into());
        }
        differences
    });
}
