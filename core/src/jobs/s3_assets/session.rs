//! What becomes of one session, once all scenes are done.

use serde_json::{Map, Value};

use super::counters::{Outcome, Reason};
use super::structs::{reference_to, AssetType, EntityType, Reference};
use super::{present, Status};
use crate::json::Json;

/// References of a session have one version only.
const VERSION: i32 = 1;

/// A row of `video_sessions`.
#[derive(Clone, Copy, Debug)]
pub struct Session<'a, J> {
    pub project_id: Option<&'a str>,
    pub status: Status<'a>,
    /// The structs in the order of [`AssetType::OF_SESSION`]; `None` is SQL NULL.
    pub assets: [Option<J>; 3],
    pub total_asset_size: Option<i64>,
    pub asset_count: Option<i32>,
}

/// What is counted over the scenes of a session and over all references of theirs and its own, every version of them.
/// In a dry run those that the run would create count too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub scenes: i64,
    pub scenes_ready: i64,
    pub references: i64,
    /// Bytes of the references whose size is known.
    pub size: i64,
}

impl Sums {
    /// Counts a scene as it is after the run.
    pub fn add_scene(&mut self, is_ready: bool) {
        self.scenes += 1;
        self.scenes_ready += i64::from(is_ready);
    }

    /// Counts a reference; `size` in bytes.
    pub fn add_reference(&mut self, size: Option<i64>) {
        self.references += 1;
        self.size = self.size.saturating_add(size.unwrap_or(0));
    }
}

/// The columns of a session that get another value; `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionWrites<'a> {
    pub total_asset_size: Option<i64>,
    pub asset_count: Option<i32>,
    pub assets_status: Option<&'static str>,
    pub assets_error_message: Option<&'a str>,
}

/// What is written for a session.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionDecision<'a> {
    pub outcome: Outcome,
    pub reason: Option<Reason>,
    pub writes: SessionWrites<'a>,
    /// References to its structs that are missing.
    pub references: Vec<Reference>,
    pub references_existing: i64,
}

/// Decides one session. `sums` are those before the run touched the session; its own new references are added here.
/// `has_reference` says whether the session has a reference of this type and version.
///
/// Source: S3 assets, sessions and rulings.
pub fn decide_session<'a, J: Json<'a>>(
    session: &Session<'a, J>,
    mut sums: Sums,
    has_reference: impl Fn(AssetType, i32) -> bool,
) -> SessionDecision<'a> {
    let mut references = Vec::new();
    let mut references_existing = 0;
    for (asset_type, column) in AssetType::OF_SESSION.into_iter().zip(session.assets) {
        let reference = present(column)
            .and_then(|asset| reference_to(asset, EntityType::Session, asset_type, VERSION, metadata(session)));
        match reference {
            Some(_) if has_reference(asset_type, VERSION) => references_existing += 1,
            Some(reference) => {
                sums.add_reference(reference.size);
                references.push(reference);
            }
            None => (),
        }
    }
    let status = if session.status.is_error() {
        "error"
    } else if sums.scenes > 0 && sums.scenes_ready == sums.scenes {
        "ready"
    } else {
        "pending"
    };
    let count = i32::try_from(sums.references).unwrap_or(i32::MAX);
    let writes = SessionWrites {
        total_asset_size: Some(sums.size).filter(|_| session.total_asset_size != Some(sums.size)),
        asset_count: Some(count).filter(|_| session.asset_count != Some(count)),
        assets_status: Some(status).filter(|_| session.status.assets_status != Some(status)),
        assets_error_message: session.status.message(status),
    };
    let outcome = if writes != SessionWrites::default() || !references.is_empty() {
        Outcome::Migrated
    } else {
        Outcome::Unchanged
    };
    SessionDecision {
        outcome,
        reason: outcome.reason(),
        writes,
        references,
        references_existing,
    }
}

fn metadata<J>(session: &Session<'_, J>) -> Value {
    let project = session
        .project_id
        .map(|project| ("projectId".to_owned(), project.into()));
    Value::Object(project.into_iter().collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn session(asset: Option<&'static Value>) -> Session<'static, &'static Value> {
        Session {
            project_id: Some("p"),
            status: Status::default(),
            assets: [asset, None, None],
            total_asset_size: Some(0),
            asset_count: Some(0),
        }
    }

    #[test]
    fn its_own_structs_count_too() {
        let combined: &'static Value = Box::leak(Box::new(json!({"s3Key": "c.mp4", "size": 7.0})));
        let sums = Sums {
            scenes: 2,
            scenes_ready: 2,
            references: 3,
            size: 10,
        };
        let decision = decide_session(&session(Some(combined)), sums, |_, _| false);
        assert_eq!(
            decision.writes,
            SessionWrites {
                total_asset_size: Some(17),
                asset_count: Some(4),
                assets_status: Some("ready"),
                assets_error_message: None,
            }
        );
        assert_eq!(decision.references[0].metadata, json!({"projectId": "p"}));
        let again = decide_session(&session(Some(combined)), sums, |_, _| true);
        assert_eq!((again.references.len(), again.references_existing), (0, 1));
    }

    #[test]
    fn only_a_session_with_scenes_is_ready() {
        let decision = decide_session(&session(None), Sums::default(), |_, _| false);
        assert_eq!(
            decision.writes,
            SessionWrites {
                assets_status: Some("pending"),
                ..SessionWrites::default()
            }
        );
    }
}
