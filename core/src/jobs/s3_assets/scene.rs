//! What becomes of one scene.

use serde_json::{json, Map, Value};

use super::counters::{Outcome, Reason};
use super::structs::{new_struct, reference_to, AssetType, EntityType, Reference};
use super::{given, present, Status};
use crate::identity::{canonical_url, join_key, s3_object_of_url};
use crate::json::Json;

/// A row of `scenes`.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a, J> {
    pub project_id: Option<&'a str>,
    pub index: Option<i32>,
    pub status: Status<'a>,
    pub s3_chunk_key: Option<&'a str>,
    pub s3_chunk_url: Option<&'a str>,
    pub s3_source_key: Option<&'a str>,
    pub checksum: Option<&'a str>,
    /// Microseconds since the epoch; give `None` for an infinite one.
    pub updated_at: Option<i64>,
    /// The structs in the order of [`AssetType::OF_SCENE`]; `None` is SQL NULL.
    pub assets: [Option<J>; 4],
    pub asset_version: Option<i32>,
    pub previous_asset_versions: Option<J>,
}

/// The columns of a scene that are missing and get a value; `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SceneWrites<'a> {
    pub video_asset: Option<Value>,
    pub source_code_asset: Option<Value>,
    pub assets_status: Option<&'static str>,
    pub assets_error_message: Option<&'a str>,
    pub asset_version: Option<i32>,
    pub previous_asset_versions: Option<Value>,
}

/// What is written for a scene, structs and references together or not at all.
#[derive(Clone, Debug, PartialEq)]
pub struct SceneDecision<'a> {
    pub outcome: Outcome,
    pub reason: Option<Reason>,
    pub writes: SceneWrites<'a>,
    /// References that are missing.
    pub references: Vec<Reference>,
    /// References of its structs that are there already.
    pub references_existing: i64,
    /// `assets_status` of the scene after the run.
    pub is_ready: bool,
}

/// Decides one scene.
///
/// - `bucket_url`: the address of the bucket that keys without a URL of their own are joined to
/// - `has_reference`: whether the scene has a reference of this type and version
///
/// Source: S3 assets, scenes and rulings.
pub fn decide_scene<'a, J: Json<'a>>(
    scene: &Scene<'a, J>,
    bucket_url: Option<&str>,
    has_reference: impl Fn(AssetType, i32) -> bool,
) -> SceneDecision<'a> {
    let version = scene.asset_version.unwrap_or(1);
    let [video, source_code, ..] = scene.assets.map(present);
    let chunk = Chunk::of(scene);
    let mut writes = SceneWrites::default();
    if video.is_none() {
        writes.video_asset = chunk.key.as_deref().map(|key| {
            let url = chunk
                .url
                .clone()
                .or_else(|| given(bucket_url).map(|base| join_key(base, key)));
            new_struct(key, url, "video/mp4", given(scene.checksum), scene.updated_at)
        });
    }
    if source_code.is_none() {
        writes.source_code_asset = given(scene.s3_source_key).map(|key| {
            let url = given(bucket_url)
                .map(|base| join_key(base, key))
                .or_else(|| Some(s3_object_of_url(scene.s3_chunk_url?)?.sibling_url(key)));
            new_struct(key, url, "text/plain", None, scene.updated_at)
        });
    }
    let has_video = video.is_some() || writes.video_asset.is_some();
    let status = match scene.status.assets_status {
        Some(status) => status,
        None => {
            let status = if scene.status.is_error() {
                "error"
            } else if has_video {
                "ready"
            } else {
                "pending"
            };
            writes.assets_status = Some(status);
            status
        }
    };
    writes.assets_error_message = scene.status.message(status);
    writes.asset_version = scene.asset_version.is_none().then_some(1);
    writes.previous_asset_versions = present(scene.previous_asset_versions).is_none().then(|| json!([]));

    let mut references = Vec::new();
    let mut references_existing = 0;
    for (asset_type, column) in AssetType::OF_SCENE.into_iter().zip(scene.assets) {
        let new = match asset_type {
            AssetType::VideoChunk => writes.video_asset.as_ref(),
            AssetType::SourceCode => writes.source_code_asset.as_ref(),
            _ => None,
        };
        let metadata = metadata(scene, new.is_some());
        let reference = match (new, present(column)) {
            (Some(new), _) => reference_to(new, EntityType::Scene, asset_type, version, metadata),
            (None, Some(stored)) => reference_to(stored, EntityType::Scene, asset_type, version, metadata),
            (None, None) => None,
        };
        match reference {
            Some(_) if has_reference(asset_type, version) => references_existing += 1,
            Some(reference) => references.push(reference),
            None => (),
        }
    }
    let has_asset = scene.assets.into_iter().any(|asset| present(asset).is_some());
    let outcome = if writes != SceneWrites::default() || !references.is_empty() {
        Outcome::Migrated
    } else if has_asset {
        Outcome::Unchanged
    } else {
        Outcome::NoAsset
    };
    let no_key = video.is_none() && chunk.key.is_none() && given(scene.s3_chunk_url).is_some();
    SceneDecision {
        outcome,
        reason: if no_key {
            Some(Reason::NoKeyInUrl)
        } else {
            outcome.reason()
        },
        writes,
        references,
        references_existing,
        is_ready: status == "ready",
    }
}

/// What is known of the chunk of a scene.
struct Chunk {
    key: Option<String>,
    /// The canonical URL, without signature parameters.
    url: Option<String>,
}

impl Chunk {
    fn of<J>(scene: &Scene<'_, J>) -> Self {
        let key = given(scene.s3_chunk_key)
            .map(str::to_owned)
            .or_else(|| Some(s3_object_of_url(scene.s3_chunk_url?)?.key));
        Chunk {
            key,
            url: scene.s3_chunk_url.and_then(canonical_url),
        }
    }
}

/// The metadata of a reference; an unknown index or project is absent.
fn metadata<J>(scene: &Scene<'_, J>, is_migrated: bool) -> Value {
    let mut members = Map::new();
    if is_migrated {
        members.insert("migratedFromLegacy".into(), true.into());
    }
    if let Some(index) = scene.index {
        members.insert("sceneIndex".into(), index.into());
    }
    if let Some(project) = scene.project_id {
        members.insert("projectId".into(), project.into());
    }
    Value::Object(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "a/v 1.mp4";

    fn scene() -> Scene<'static, &'static Value> {
        Scene {
            project_id: None,
            index: None,
            status: Status::default(),
            s3_chunk_key: None,
            s3_chunk_url: None,
            s3_source_key: None,
            checksum: None,
            updated_at: None,
            assets: [None; 4],
            asset_version: Some(1),
            previous_asset_versions: None,
        }
    }

    fn decide(scene: &Scene<'static, &'static Value>, bucket_url: Option<&str>) -> SceneDecision<'static> {
        decide_scene(scene, bucket_url, |_, _| false)
    }

    #[test]
    fn a_key_without_url_takes_the_bucket_or_none() {
        let scene = Scene {
            s3_chunk_key: Some(KEY),
            checksum: Some(" "),
            ..scene()
        };
        let video = |bucket| decide(&scene, bucket).writes.video_asset;
        assert_eq!(video(None), Some(json!({"s3Key": KEY, "contentType": "video/mp4"})));
        assert_eq!(
            video(Some("https://b.test/x/")),
            Some(json!({"s3Key": KEY, "s3Url": "https://b.test/x/a/v%201.mp4", "contentType": "video/mp4"}))
        );
    }

    #[test]
    fn a_presigned_url_loses_its_signature() {
        let scene = Scene {
            s3_chunk_url: Some("https://b.s3.amazonaws.com/a%20b.webm?X-Amz-Signature=s&versionId=3"),
            s3_source_key: Some("/p/v 1.zzz"),
            ..scene()
        };
        let writes = decide(&scene, None).writes;
        assert_eq!(
            writes.video_asset,
            Some(
                json!({"s3Key": "a b.webm", "s3Url": "https://b.s3.amazonaws.com/a%20b.webm?versionId=3",
                        "contentType": "video/webm"})
            )
        );
        assert_eq!(
            writes.source_code_asset,
            Some(
                json!({"s3Key": "/p/v 1.zzz", "s3Url": "https://b.s3.amazonaws.com/p/v%201.zzz",
                        "contentType": "text/plain"})
            )
        );
    }

    #[test]
    fn present_values_stay_and_json_null_is_missing() {
        static NULL: Value = Value::Null;
        let stored: &'static Value = Box::leak(Box::new(json!({"s3Key": "old", "size": 0, "checksum": ""})));
        let odd: &'static Value = Box::leak(Box::new(json!("text")));
        let scene = Scene {
            s3_chunk_key: Some(KEY),
            assets: [Some(stored), Some(&NULL), Some(odd), None],
            s3_source_key: Some("s.py"),
            previous_asset_versions: Some(&NULL),
            status: Status {
                status: Some("error"),
                error_message: Some("m"),
                assets_status: Some("pending"),
                assets_error_message: None,
            },
            ..scene()
        };
        let decision = decide(&scene, None);
        assert_eq!(decision.writes.video_asset, None);
        assert!(decision.writes.source_code_asset.is_some());
        assert_eq!(decision.writes.previous_asset_versions, Some(json!([])));
        assert_eq!(
            (decision.writes.assets_status, decision.writes.assets_error_message),
            (None, None)
        );
        assert!(!decision.is_ready);
        let [video, source] = &decision.references[..] else {
            panic!("two references: {:?}", decision.references)
        };
        assert_eq!((video.size, video.checksum.as_deref()), (None, None));
        assert_eq!(video.metadata, json!({}));
        assert_eq!(source.metadata, json!({"migratedFromLegacy": true}));
    }
}
