//! What the triggers write down: decisions without a run.

use std::borrow::Cow;

use media_assets_core::jobs::lesson::{Action, Outcome};

use super::guarded;
use crate::engine::ledger::decisions::{Decision, DecisionLog};
use crate::engine::ledger::Ledger;
use crate::error::raise;
use crate::jobs::lesson_assets::{Decided, Item};
use crate::postgres::spi;
use crate::settings::{self, LogDecisions};

/// That a lesson was left as it is.
pub fn failed(id: &str, state: &str) -> Decision {
    Decision {
        item_key: id.to_owned(),
        slot: None,
        position: None,
        outcome: "failed",
        action: None,
        reason: Some(Cow::Owned(state.to_owned())),
    }
}

/// The decisions that `media_assets.log_decisions` wants kept.
pub fn decisions_of(decided: &Decided) -> Vec<Decision> {
    let level = settings::log_decisions();
    let wanted = |item: &&Item| match item.outcome {
        Outcome::Skipped(_) => level >= LogDecisions::Skipped,
        Outcome::Eligible { .. } => {
            level >= LogDecisions::All || (level >= LogDecisions::Changed && (item.has_writes() || is_new(item)))
        }
    };
    let decision = |item: &Item| Decision {
        item_key: decided.lessons[item.lesson].id.clone(),
        slot: Some(item.slot.name()),
        position: Some(item.position),
        outcome: match item.outcome {
            Outcome::Skipped(_) => "skipped",
            Outcome::Eligible { .. } => "eligible",
        },
        action: match item.outcome {
            Outcome::Skipped(_) => None,
            Outcome::Eligible { action, .. } => Some(action.name()),
        },
        reason: match item.outcome {
            Outcome::Skipped(reason) => Some(Cow::Borrowed(reason.name())),
            Outcome::Eligible { .. } => None,
        },
    };
    decided.items.iter().filter(wanted).map(decision).collect()
}

fn is_new(item: &Item) -> bool {
    matches!(
        item.outcome,
        Outcome::Eligible {
            action: Action::Create,
            ..
        }
    )
}

/// Writes decisions to the ledger; a failure of that is nobody's.
pub fn record(decisions: Vec<Decision>) {
    thread_local! {
        /// Written by this session since it last cut the log to its limit.
        static SINCE_CUT: std::cell::Cell<i64> = const { std::cell::Cell::new(0) };
    }
    if decisions.is_empty() || settings::log_decisions() == LogDecisions::None {
        return;
    }
    let limit = settings::log_decisions_limit();
    let _ = guarded(|| {
        spi::connect(|connection| {
            let ledger = Ledger::open(connection).unwrap_or_else(|report| raise(report));
            DecisionLog::of_triggers().write(connection, &ledger, &decisions);
            // One cut for each hundredth of the limit: it reads the whole log.
            SINCE_CUT.set(SINCE_CUT.get() + decisions.len() as i64);
            if SINCE_CUT.get() > limit / 100 {
                DecisionLog::trim(connection, &ledger);
                SINCE_CUT.set(0);
            }
        });
    });
}
