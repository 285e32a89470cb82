//! What a run over scenes and sessions counts.

use crate::jobs::counters::counters;

/// Scenes and sessions have counters of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Scene,
    Session,
}

/// What became of a scene or a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Something was written for it, a reference included.
    Migrated,
    Unchanged,
    /// A scene with nothing to write and no asset.
    NoAsset,
    /// The database refused it.
    Failed,
}

impl Outcome {
    /// The reason that goes with the outcome, where there is no nearer one.
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Outcome::Migrated => None,
            Outcome::Unchanged => Some(Reason::Unchanged),
            Outcome::NoAsset => Some(Reason::NoAsset),
            Outcome::Failed => Some(Reason::Rejected),
        }
    }
}

/// Why something of a row was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Unchanged,
    NoAsset,
    /// A chunk URL that is no S3 URL, and no key beside it: no struct, whatever else was written.
    NoKeyInUrl,
    Rejected,
}

impl Reason {
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Unchanged => "unchanged",
            Reason::NoAsset => "no_asset",
            Reason::NoKeyInUrl => "no_key_in_url",
            Reason::Rejected => "rejected",
        }
    }
}

counters! {
    scenes_scanned,
    scenes_migrated,
    sessions_scanned,
    sessions_migrated,
    references_created,
    references_existing,
    skipped_unchanged,
    skipped_no_asset,
    /// Scenes and sessions that could not be written.
    errors,
    /// Scenes and sessions migrated.
    total_records_migrated,
}

impl Counters {
    /// Counts one scene or session with its references; those of a failed one are not counted.
    pub fn count(&mut self, kind: Kind, outcome: Outcome, references_created: i64, references_existing: i64) {
        let (scanned, migrated) = match kind {
            Kind::Scene => (&mut self.scenes_scanned, &mut self.scenes_migrated),
            Kind::Session => (&mut self.sessions_scanned, &mut self.sessions_migrated),
        };
        *scanned += 1;
        match outcome {
            Outcome::Migrated => {
                *migrated += 1;
                self.total_records_migrated += 1;
            }
            Outcome::Unchanged => self.skipped_unchanged += 1,
            Outcome::NoAsset => self.skipped_no_asset += 1,
            Outcome::Failed => {
                self.errors += 1;
                return;
            }
        }
        self.references_created += references_created;
        self.references_existing += references_existing;
    }

    /// The sums that must hold in every batch.
    ///
    /// # Errors
    /// The sum that does not hold, in words.
    pub fn check(&self) -> Result<(), &'static str> {
        let outcomes = self.total_records_migrated + self.skipped_unchanged + self.skipped_no_asset + self.errors;
        if self.scenes_scanned + self.sessions_scanned != outcomes {
            return Err("scenes and sessions scanned <> migrated + skipped + errors");
        }
        if self.total_records_migrated != self.scenes_migrated + self.sessions_migrated {
            return Err("total records migrated <> scenes + sessions migrated");
        }
        Ok(())
    }
}
