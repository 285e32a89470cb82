//! What the two phases have in common: rows are read by their keys, decided, and written with their references.

use std::ops::Range;

use media_assets_core::jobs::s3_assets::Counters;

use super::verdict::{Decided, Verdict};
use super::write::Writer;
use crate::engine::journal::Changes;
use crate::engine::ledger::decisions::Decision;
use crate::engine::{Job, Stale};
use crate::error::Result;
use crate::jobs::keyset::Keyset;
use crate::postgres::spi::{Connection, Mode, Rows};
use crate::settings::LogDecisions;

/// How the rows of one phase are decided. Their columns begin with the id.
pub trait Entity {
    const ROWS: &'static str;
    const ROW: &'static str;
    /// The columns of jsonb, which may be long.
    const JSON_COLUMNS: &'static [usize];

    fn decide(&self, connection: &Connection, mode: Mode, rows: &Rows, range: Range<usize>) -> Vec<Verdict>;
}

/// The phase over the rows of a run.
pub struct PhaseOver<E> {
    pub entity: E,
    pub keyset: Keyset,
    /// `None` where there is no table of references yet, which only a dry run bears.
    pub writer: Option<Writer>,
    /// About how many rows there are.
    pub estimate: Option<i64>,
    /// What was read is out of date: read the rows of the slice again.
    pub reread: bool,
}

impl<E: Entity> Job for PhaseOver<E> {
    type Page = Rows;
    type Decided = Decided;
    type Counters = Counters;

    const NAME: &'static str = super::NAME;
    const ROWS: &'static str = E::ROWS;
    const ROW: &'static str = E::ROW;

    fn estimate(&self, _: &Connection) -> Option<i64> {
        self.estimate
    }

    fn read(&mut self, connection: &Connection, mode: Mode, after: Option<&str>, limit: i64) -> Rows {
        self.keyset.page(connection, mode, after, limit)
    }

    fn read_these(&mut self, connection: &Connection, ids: &[String]) -> Rows {
        self.keyset.these(connection, ids)
    }

    fn len(page: &Rows) -> usize {
        page.len()
    }

    fn cursor(page: &Rows) -> String {
        Self::id(page, page.len() - 1)
    }

    fn weight(page: &Rows, index: usize) -> usize {
        let sizes = E::JSON_COLUMNS.iter().map(|column| page.raw_size(index, *column));
        4096 + sizes.sum::<usize>()
    }

    fn decide(&mut self, connection: &Connection, mode: Mode, page: &Rows, from: usize, to: usize) -> Result<Decided> {
        let verdicts = if std::mem::take(&mut self.reread) {
            let ids: Vec<String> = (from..to).map(|row| Self::id(page, row)).collect();
            let rows = self.keyset.these(connection, &ids);
            self.entity.decide(connection, mode, &rows, 0..rows.len())
        } else {
            self.entity.decide(connection, mode, page, from..to)
        };
        Ok(Decided::new(verdicts))
    }

    fn has_writes(decided: &Decided) -> bool {
        decided.has_writes()
    }

    fn write(
        &mut self,
        connection: &Connection,
        _: &Rows,
        _: usize,
        _: usize,
        decided: Decided,
    ) -> std::result::Result<Decided, Stale> {
        self.writer.as_ref().ok_or(Stale)?.write(connection, decided)
    }

    fn look_again(&mut self) {
        self.reread = true;
    }

    fn count(decided: &Decided) -> Counters {
        decided.count()
    }

    fn count_failed(decided: &Decided) -> Counters {
        decided.count_failed()
    }

    fn id(page: &Rows, index: usize) -> String {
        page.text(index, 0).unwrap_or_default()
    }

    fn changes(&self, decided: &Decided, changes: &mut Changes) {
        if let Some(writer) = &self.writer {
            writer.changes(decided, changes);
        }
    }

    fn decisions(decided: &Decided, level: LogDecisions, decisions: &mut Vec<Decision>) {
        decided.decisions(level, decisions);
    }
}
