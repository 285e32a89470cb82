//! What holds of S3 asset tracking for every row: present values stay, and a second run writes nothing.

use media_assets_core::jobs::s3_assets::{
    decide_scene, decide_session, AssetType, Outcome, Scene, SceneWrites, Session, SessionWrites, Status, Sums,
};
use proptest::prelude::*;
use serde_json::{json, Value};

fn text() -> impl Strategy<Value = Option<String>> {
    let known = prop::sample::select(vec![
        None,
        Some(""),
        Some(" "),
        Some("error"),
        Some("ready"),
        Some("a/v 1.mp4"),
        Some("/a//é.zzz"),
        Some("https://b.s3.amazonaws.com/k%20.webm?X-Amz-Signature=1"),
        Some("https://s3.eu-west-1.amazonaws.com/b/k"),
        Some("s3://b/k v.mov"),
        Some("https://cdn.example.com/k.mp4"),
        Some("javascript:x"),
        Some("/root/k.mp4"),
    ]);
    prop_oneof![6 => known.prop_map(|text| text.map(str::to_owned)), 1 => any::<String>().prop_map(Some)]
}

fn asset() -> impl Strategy<Value = Option<Value>> {
    prop::sample::select(vec![
        None,
        None,
        Some(json!(null)),
        Some(json!({})),
        Some(json!({"s3Key": "k", "size": 5, "checksum": "c"})),
        Some(json!({"s3Key": 5, "size": 0, "checksum": ""})),
        Some(json!("text")),
        Some(json!([1])),
    ])
}

#[derive(Clone, Debug)]
struct Row {
    texts: Vec<Option<String>>,
    assets: Vec<Option<Value>>,
    numbers: (Option<i32>, Option<i32>, Option<i64>),
}

fn row() -> impl Strategy<Value = Row> {
    let numbers = (
        prop::option::of(any::<i32>()),
        prop::option::of(1..3),
        prop::option::of(any::<i64>()),
    );
    (
        prop::collection::vec(text(), 9),
        prop::collection::vec(asset(), 5),
        numbers,
    )
        .prop_map(|(texts, assets, numbers)| Row { texts, assets, numbers })
}

impl Row {
    fn status(&self) -> Status<'_> {
        Status {
            status: self.texts[0].as_deref(),
            error_message: self.texts[1].as_deref(),
            assets_status: self.texts[2].as_deref(),
            assets_error_message: self.texts[3].as_deref(),
        }
    }

    fn scene(&self) -> Scene<'_, &Value> {
        Scene {
            project_id: self.texts[8].as_deref(),
            index: self.numbers.0,
            status: self.status(),
            s3_chunk_key: self.texts[4].as_deref(),
            s3_chunk_url: self.texts[5].as_deref(),
            s3_source_key: self.texts[6].as_deref(),
            checksum: self.texts[7].as_deref(),
            updated_at: self.numbers.2,
            assets: [0, 1, 2, 3].map(|at| self.assets[at].as_ref()),
            asset_version: self.numbers.1,
            previous_asset_versions: self.assets[4].as_ref(),
        }
    }

    fn session(&self) -> Session<'_, &Value> {
        Session {
            project_id: self.texts[8].as_deref(),
            status: self.status(),
            assets: [0, 1, 2].map(|at| self.assets[at].as_ref()),
            total_asset_size: self.numbers.2,
            asset_count: self.numbers.0,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_scene_settles(before in row(), bucket in text(), existing in prop::collection::hash_set(0usize..4, 0..4)) {
        let name = |at: &usize| AssetType::OF_SCENE[*at].name();
        let known: Vec<&str> = existing.iter().map(name).collect();
        let decision = decide_scene(&before.scene(), bucket.as_deref(), |asset, _| known.contains(&asset.name()));
        let mut after = before.clone();
        let writes = decision.writes;
        for (at, new) in [(0, writes.video_asset), (1, writes.source_code_asset), (4, writes.previous_asset_versions)] {
            if new.is_some() {
                prop_assert!(before.assets[at].as_ref().is_none_or(Value::is_null));
                after.assets[at] = new;
            }
        }
        for (at, new) in [(2, writes.assets_status), (3, writes.assets_error_message)] {
            if new.is_some() {
                prop_assert!(before.texts[at].is_none());
                after.texts[at] = new.map(str::to_owned);
            }
        }
        after.numbers.1 = after.numbers.1.or(writes.asset_version);
        for reference in &decision.references {
            prop_assert_eq!(Some(reference.version), after.numbers.1);
            prop_assert!(reference.size != Some(0) && reference.checksum.as_deref() != Some(""));
        }
        let created: Vec<&str> = decision.references.iter().map(|reference| reference.asset_type.name()).collect();
        let second = decide_scene(&after.scene(), bucket.as_deref(), |asset, _| {
            known.contains(&asset.name()) || created.contains(&asset.name())
        });
        prop_assert_eq!(second.writes, SceneWrites::default());
        prop_assert!(second.references.is_empty() && second.outcome != Outcome::Migrated);
        prop_assert_eq!(second.references_existing, decision.references_existing + created.len() as i64);
        prop_assert_eq!(second.is_ready, decision.is_ready);
    }

    #[test]
    fn a_session_settles(before in row(), scenes in 0i64..3, ready in 0i64..3, size in any::<i64>()) {
        let mut sums = Sums { scenes, scenes_ready: ready.min(scenes), references: 0, size };
        let decision = decide_session(&before.session(), sums, |_, _| false);
        for reference in &decision.references {
            sums.add_reference(reference.size);
        }
        let mut after = before.clone();
        after.numbers.2 = decision.writes.total_asset_size.or(after.numbers.2);
        after.numbers.0 = decision.writes.asset_count.or(after.numbers.0);
        after.texts[2] = decision.writes.assets_status.map(str::to_owned).or(after.texts[2].take());
        after.texts[3] = decision.writes.assets_error_message.map(str::to_owned).or(after.texts[3].take());
        let second = decide_session(&after.session(), sums, |_, _| true);
        prop_assert_eq!(second.writes, SessionWrites::default());
        prop_assert_eq!(second.outcome, Outcome::Unchanged);
    }
}
