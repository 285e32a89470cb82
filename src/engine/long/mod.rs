//! Runs that commit after every batch: resumed anywhere, shared between sessions, paced.
//!
//! The run is cut into ranges of organizations. Cursor and counters stand with the range and are written in the
//! transaction that writes the rows, so that whatever ends a session leaves the ledger and the tables in step.

mod claim;
mod control;
mod guard;
mod pace;
mod phase;
pub mod requests;
mod retry;
mod waits;
mod worker;

use crate::error::Result;
use crate::postgres::spi::Connection;
pub use phase::{phase_of, Phase, PhaseOf};
pub use worker::work;

/// The organizations of a range: those for whose id's text the first two bytes of the SHA-256 are within it.
///
/// The hash is the same on every server and for ever, so that a run survives a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets {
    pub first: i32,
    pub last: i32,
}

impl Buckets {
    pub const ALL: Buckets = Buckets { first: 0, last: 65_535 };

    /// No organization at all.
    pub const NONE: Buckets = Buckets { first: 1, last: 0 };

    pub fn are_all(self) -> bool {
        self == Self::ALL
    }

    /// The condition that `organization`, an SQL expression, is one of them; nothing where all are.
    pub fn condition(self, organization: &str) -> Option<String> {
        if self == Self::NONE {
            return Some("false".to_owned());
        }
        (!self.are_all()).then(|| format!("{} BETWEEN {} AND {}", Self::of(organization), self.first, self.last))
    }

    /// An SQL expression: the bucket of `organization`, another one.
    pub fn of(organization: &str) -> String {
        format!(
            "(SELECT pg_catalog.get_byte(h.hash, 0) * 256 + pg_catalog.get_byte(h.hash, 1)
              FROM (SELECT pg_catalog.sha256(pg_catalog.convert_to(COALESCE({organization}::pg_catalog.text, ''), 'UTF8')) AS hash) h)"
        )
    }

    /// The two halves, where there are two: of the buckets that are in use, sorted, as many on either side, or of all
    /// where that is not known.
    fn halves(self, in_use: Option<&[i32]>) -> Option<(Self, Self)> {
        let second = match in_use {
            None => self.first + (self.last - self.first) / 2 + 1,
            Some(in_use) => {
                let mine: Vec<i32> = in_use
                    .iter()
                    .copied()
                    .filter(|bucket| (self.first..=self.last).contains(bucket))
                    .collect();
                // One organization alone is not shared.
                *mine.get(mine.len().div_ceil(2))?
            }
        };
        (self.first < second && second <= self.last).then_some((
            Buckets {
                last: second - 1,
                ..self
            },
            Buckets { first: second, ..self },
        ))
    }
}

/// What a job brings to run in committing batches: how a session opens it for one range.
pub trait Program {
    /// The job's name, by which runs of it exclude each other on a table.
    fn name(&self) -> &'static str;
    /// The table on which they do, as a number of its own.
    fn locks(&self) -> crate::engine::relation::LockTarget;
    /// Whether sessions can share it, each taking some of the organizations.
    ///
    /// # Errors
    /// 0A000 with the reason when they cannot.
    fn check_can_be_shared(&self) -> Result<()>;
    /// As [`Job::FAILURES_FILL_LIMIT`](super::Job::FAILURES_FILL_LIMIT) of the job whose rows are counted.
    fn failures_fill_limit(&self) -> bool {
        true
    }
    /// The phases of the run, in order.
    ///
    /// # Errors
    /// What the tables or the rights lack.
    fn open(&self, connection: &Connection, buckets: Buckets) -> Result<Vec<Box<dyn Phase>>>;
    /// Stop after that many rows.
    fn max_rows(&self) -> Option<i64>;
    /// The buckets of the organizations that there are, where that is cheap to know: a part that is given to another
    /// session is then half of them, and not half of nothing.
    fn buckets_in_use(&self, _: &Connection) -> Option<Vec<i32>> {
        None
    }
}

/// How a session left a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Finished,
    Paused,
    Cancelled,
    /// Another of its sessions met an error that stops all.
    Failed,
}

impl End {
    /// The state that the run has then.
    pub fn name(self) -> &'static str {
        match self {
            End::Finished => "finished",
            End::Paused => "paused",
            End::Failed => "failed",
            End::Cancelled => "cancelled",
        }
    }
}
