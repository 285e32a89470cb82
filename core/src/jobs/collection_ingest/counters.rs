//! The counters of an ingest run.

use super::decision::{Action, Reason};
use super::item::{Outcome, Refusal};
use crate::jobs::counters::counters;

counters! {
    /// Items in scope.
    assets_discovered,
    assets_ingested,
    assets_updated,
    assets_skipped,
    /// Items that could not be keyed, and rows that the database rejected.
    assets_failed,
    duplicates_prevented,
    /// Rows that `reconcile` soft-deleted.
    assets_removed,
    /// Updates whose content changed; a row that reappeared is none.
    changed_content,
    changed_enrichers,
}

impl Counters {
    /// Counts what became of one item in scope.
    pub fn count(&mut self, outcome: &Outcome) {
        self.assets_discovered += 1;
        match outcome {
            Outcome::Refused(Refusal::Duplicate) => self.duplicates_prevented += 1,
            Outcome::Refused(Refusal::Unkeyable | Refusal::Rejected) => self.assets_failed += 1,
            Outcome::Decided(decision) => {
                match decision.action {
                    Action::Create => self.assets_ingested += 1,
                    Action::Update => self.assets_updated += 1,
                    Action::Skip => self.assets_skipped += 1,
                }
                let both = decision.reason == Reason::ContentAndEnrichersChanged;
                self.changed_content += i64::from(both || decision.reason == Reason::ContentChanged);
                self.changed_enrichers += i64::from(both || decision.reason == Reason::EnrichersChanged);
            }
        }
    }

    /// The sums that must hold in every batch.
    ///
    /// # Errors
    /// The sum that does not hold, in words.
    pub fn check(&self) -> Result<(), &'static str> {
        let outcomes = self.assets_ingested
            + self.assets_updated
            + self.assets_skipped
            + self.assets_failed
            + self.duplicates_prevented;
        if self.assets_discovered != outcomes {
            return Err("assets discovered <> ingested + updated + skipped + failed + duplicates prevented");
        }
        if self.changed_content > self.assets_updated || self.changed_enrichers > self.assets_updated {
            return Err("changed content or enrichers > assets updated");
        }
        Ok(())
    }
}
