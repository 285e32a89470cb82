//! What becomes of one scene or session.

use media_assets_core::jobs::s3_assets::{Counters, EntityType, Kind, Outcome, Reason, Reference};

use crate::engine::ledger::decisions::Decision;
use crate::settings::LogDecisions;

/// A value to write, as text.
pub struct Write {
    pub column: &'static str,
    pub before: Option<String>,
    pub after: String,
}

pub struct Verdict {
    pub kind: Kind,
    pub id: String,
    /// Of the row as it was decided on.
    pub fingerprint: i64,
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

/// A reference that was inserted: its id and its fingerprint.
pub type Inserted = (String, Option<String>);

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
