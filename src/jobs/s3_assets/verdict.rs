//! What becomes of one scene or session.

use media_assets_core::jobs::s3_assets::{Counters, EntityType, Kind, Outcome, Reason, Reference};

use serde_json::Value;

use crate::engine::journal::short;
use crate::engine::ledger::decisions::Decision;
use crate::jobs::row_version::Version;
use crate::postgres::jsonb::Jsonb;
use crate::settings::LogDecisions;

/// The value that a column gets.
pub enum New {
    Text(String),
    Number(i64),
    Json(Value),
}

pub struct Write {
    pub column: &'static str,
    /// What the column has, as text.
    pub before: Option<String>,
    pub after: New,
    /// `after` as jsonb, once it is written. It lies in the slice's memory.
    pub stored: Option<Jsonb>,
}

impl Write {
    pub fn new(column: &'static str, before: Option<String>, after: New) -> Self {
        Write {
            column,
            before,
            after,
            stored: None,
        }
    }

    /// `after` as text, or what stands for it in the ledger.
    pub fn after_text(&self) -> String {
        match (&self.after, self.stored) {
            (New::Text(text), _) => text.clone(),
            (New::Number(number), _) => number.to_string(),
            (New::Json(_), Some(stored)) => short(stored.to_text()),
            (New::Json(value), None) => value.to_string(),
        }
    }
}

pub struct Verdict {
    pub kind: Kind,
    pub id: String,
    /// Of the row as it was decided on.
    pub version: Version,
    pub outcome: Outcome,
    pub reason: Option<Reason>,
    pub writes: Vec<Write>,
    pub references: Vec<Reference>,
    pub references_existing: i64,
    /// `assets_status` of a scene after the run.
    pub is_ready: bool,
}

impl Verdict {
    pub fn entity(&self) -> &'static str {
        match self.kind {
            Kind::Scene => EntityType::Scene.name(),
            Kind::Session => EntityType::Session.name(),
        }
    }

    pub fn has_writes(&self) -> bool {
        !self.writes.is_empty() || !self.references.is_empty()
    }
}

/// A reference that was inserted.
pub struct Inserted {
    pub id: Id,
    pub fingerprint: Option<String>,
}

/// The id of a reference, as its column has it.
pub enum Id {
    Uuid([u8; 16]),
    Text(String),
}

/// A decided slice.
#[derive(Default)]
pub struct Decided {
    pub verdicts: Vec<Verdict>,
    pub inserted: Vec<Inserted>,
}

impl Decided {
    pub fn new(verdicts: Vec<Verdict>) -> Self {
        Decided {
            verdicts,
            inserted: Vec::new(),
        }
    }

    pub fn has_writes(&self) -> bool {
        self.verdicts.iter().any(Verdict::has_writes)
    }

    pub fn count(&self) -> Counters {
        let mut counters = Counters::default();
        for verdict in &self.verdicts {
            let created = verdict.references.len() as i64;
            counters.count(verdict.kind, verdict.outcome, created, verdict.references_existing);
        }
        counters
    }

    pub fn count_failed(&self) -> Counters {
        let mut counters = Counters::default();
        for verdict in &self.verdicts {
            counters.count(verdict.kind, Outcome::Failed, 0, 0);
        }
        counters
    }

    pub fn decisions(&self, level: LogDecisions, decisions: &mut Vec<Decision>) {
        for verdict in &self.verdicts {
            let migrated = verdict.outcome == Outcome::Migrated;
            let wanted = match verdict.outcome {
                Outcome::Migrated => level >= LogDecisions::Changed,
                Outcome::Unchanged => level >= LogDecisions::All,
                Outcome::NoAsset | Outcome::Failed => true,
            };
            if wanted || (verdict.reason == Some(Reason::NoKeyInUrl)) {
                decisions.push(Decision {
                    item_key: verdict.id.clone(),
                    slot: Some(verdict.entity()),
                    position: None,
                    outcome: if migrated { "eligible" } else { "skipped" },
                    action: migrated.then_some("migrate"),
                    reason: verdict.reason.map(|reason| reason.name().into()),
                });
            }
        }
    }
}
