//! Decisions on single items, as far as `media_assets.log_decisions` wants them kept.

use std::borrow::Cow;

use super::{lock_run, Ledger};
use crate::postgres::arrays;
use crate::postgres::spi::{Connection, Mode, Parameter};
use crate::settings;

/// What became of an item and why.
#[derive(Clone, Debug)]
pub struct Decision {
    /// The id of the row that holds the item.
    pub item_key: String,
    pub slot: Option<&'static str>,
    pub position: Option<i32>,
    pub outcome: &'static str,
    pub action: Option<&'static str>,
    /// Why it was left out, or the SQLSTATE of what failed.
    pub reason: Option<Cow<'static, str>>,
}

/// The log of one run, or of the triggers (no run).
pub struct DecisionLog {
    run_id: Option<i64>,
    /// Rows that the log may still take.
    left: i64,
    /// So many of them are taken before it is counted anew what other sessions of the run have put in.
    unasked: i64,
}

/// Of what is left, each session takes so small a part without asking that this many of them keep the limit.
const SESSIONS: i64 = 8;

impl DecisionLog {
    pub fn of_run(connection: &Connection, ledger: &Ledger, run_id: i64) -> Self {
        let mut log = DecisionLog {
            run_id: Some(run_id),
            left: 0,
            unasked: 0,
        };
        log.ask(connection, ledger, run_id);
        log
    }

    fn ask(&mut self, connection: &Connection, ledger: &Ledger, run_id: i64) {
        let limit = settings::log_decisions_limit();
        let rows = ledger.run(
            connection,
            Mode::Write,
            "SELECT pg_catalog.count(*) FROM (SELECT FROM ~backfill_decisions WHERE run_id = $1 LIMIT $2) d",
            &[run_id.into(), limit.into()],
        );
        self.left = limit - rows.get(0, 0).unwrap_or(0);
        self.unasked = self.left / SESSIONS;
    }

    /// The log of the triggers. It keeps the newest: [`DecisionLog::trim`] takes the oldest away.
    pub fn of_triggers() -> Self {
        DecisionLog {
            run_id: None,
            left: i64::MAX,
            unasked: i64::MAX,
        }
    }

    /// Whether it takes nothing more.
    pub fn is_full(&self) -> bool {
        self.left <= 0
    }

    /// Writes decisions, as many as the limit leaves room for.
    pub fn write(&mut self, connection: &Connection, ledger: &Ledger, decisions: &[Decision]) {
        let wanted = decisions.len() as i64;
        if let Some(run_id) = self.run_id.filter(|_| wanted > self.unasked && self.left > 0) {
            lock_run(connection, ledger, run_id);
            self.ask(connection, ledger, run_id);
        }
        let room = usize::try_from(self.left).unwrap_or(0);
        let decisions = &decisions[..decisions.len().min(room)];
        if decisions.is_empty() {
            return;
        }
        self.left -= decisions.len() as i64;
        self.unasked = self.unasked.saturating_sub(decisions.len() as i64);
        let run_id = Parameter::int8(self.run_id);
        let parameters = [
            run_id,
            arrays::text(decisions.iter().map(|decision| Some(decision.item_key.as_str()))).into(),
            arrays::text(decisions.iter().map(|decision| decision.slot)).into(),
            arrays::int4(decisions.iter().map(|decision| decision.position)).into(),
            arrays::text(decisions.iter().map(|decision| Some(decision.outcome))).into(),
            arrays::text(decisions.iter().map(|decision| decision.action)).into(),
            arrays::text(decisions.iter().map(|decision| decision.reason.as_deref())).into(),
        ];
        ledger.write(
            connection,
            "INSERT INTO ~backfill_decisions (run_id, item_key, slot, position, outcome, action, reason)
             SELECT $1, pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5),
                    pg_catalog.unnest($6), pg_catalog.unnest($7)",
            &parameters,
        );
    }

    /// Takes away the triggers' decisions beyond the limit, the oldest first.
    pub fn trim(connection: &Connection, ledger: &Ledger) {
        ledger.write(
            connection,
            "DELETE FROM ~backfill_decisions WHERE run_id IS NULL AND decision_id <= (
                 SELECT decision_id FROM ~backfill_decisions WHERE run_id IS NULL ORDER BY decision_id DESC OFFSET $1 LIMIT 1)",
            &[settings::log_decisions_limit().into()],
        );
    }
}
