//! A second job, tiny and of no use, that the tests run on the engine: what it needs of it is all that a job needs.
//!
//! Table `tiny (id bigint primary key, word text, shouted text)`: each row's word is shouted.

use crate::engine::journal::Changes;
use crate::engine::ledger::decisions::Decision;
use crate::engine::{Job, Stale, Tally};
use crate::error::Result;
use crate::postgres::arrays;
use crate::postgres::spi::{Connection, Mode, Rows, Statement};
use crate::settings::LogDecisions;

#[derive(Clone, Default)]
pub struct Counters {
    pub scanned: i64,
    pub shouted: i64,
    pub unchanged: i64,
    pub errors: i64,
}

impl Tally for Counters {
    fn names() -> Vec<&'static str> {
        vec!["scanned", "shouted", "unchanged", "errors"]
    }

    fn values(&self) -> Vec<i64> {
        vec![self.scanned, self.shouted, self.unchanged, self.errors]
    }

    fn add(&mut self, other: &Self) {
        self.scanned += other.scanned;
        self.shouted += other.shouted;
        self.unchanged += other.unchanged;
        self.errors += other.errors;
    }

    fn check(&self) -> std::result::Result<(), &'static str> {
        if self.scanned == self.shouted + self.unchanged + self.errors {
            Ok(())
        } else {
            Err("scanned <> shouted + unchanged + errors")
        }
    }
}

pub struct Tiny {
    read: Statement,
    write: Statement,
}

pub struct Decided {
    /// Id, the word as it was read, and as it is shouted.
    shouts: Vec<(i64, String, String)>,
    unchanged: i64,
}

impl Tiny {
    pub fn new() -> Self {
        Tiny {
            read: Statement::new("SELECT id, word, shouted FROM tiny WHERE id > $1 ORDER BY id LIMIT $2"),
            write: Statement::new(
                "UPDATE tiny t SET shouted = u.shouted FROM ROWS FROM (unnest($1), unnest($2), unnest($3)) u(id, word, shouted)
                 WHERE t.id = u.id AND t.word = u.word",
            ),
        }
    }
}

impl Job for Tiny {
    type Page = Rows;
    type Decided = Decided;
    type Counters = Counters;

    const NAME: &'static str = "tiny";
    const ROWS: &'static str = "words";
    const ROW: &'static str = "word";

    fn estimate(&self, _: &Connection) -> Option<i64> {
        None
    }

    fn read(&mut self, connection: &Connection, mode: Mode, after: Option<&str>, limit: i64) -> Rows {
        let after: i64 = after.and_then(|after| after.parse().ok()).unwrap_or(i64::MIN);
        connection.run(&self.read, mode, &[after.into(), limit.into()])
    }

    fn read_these(&mut self, connection: &Connection, ids: &[String]) -> Rows {
        let ids = arrays::text(ids.iter().map(|id| Some(id.as_str())));
        connection.query(
            "SELECT id, word, shouted FROM tiny WHERE id::text = ANY ($1) ORDER BY id",
            Mode::Write,
            &[ids.into()],
        )
    }

    fn len(page: &Rows) -> usize {
        page.len()
    }

    fn cursor(page: &Rows) -> String {
        Self::id(page, page.len() - 1)
    }

    fn weight(_: &Rows, _: usize) -> usize {
        1
    }

    fn decide(&mut self, _: &Connection, _: Mode, page: &Rows, from: usize, to: usize) -> Result<Decided> {
        let mut decided = Decided {
            shouts: Vec::new(),
            unchanged: 0,
        };
        for row in from..to {
            let word = page.text(row, 1).unwrap_or_default();
            let shouted = word.to_uppercase();
            if page.text(row, 2).as_deref() == Some(&shouted) {
                decided.unchanged += 1;
            } else {
                decided
                    .shouts
                    .push((page.get(row, 0).unwrap_or_default(), word, shouted));
            }
        }
        Ok(decided)
    }

    fn has_writes(decided: &Decided) -> bool {
        !decided.shouts.is_empty()
    }

    fn write(
        &mut self,
        connection: &Connection,
        _: &Rows,
        _: usize,
        _: usize,
        decided: Decided,
    ) -> std::result::Result<Decided, Stale> {
        let parameters = [
            arrays::int8(decided.shouts.iter().map(|(id, ..)| Some(*id))).into(),
            arrays::text(decided.shouts.iter().map(|(_, word, _)| Some(word.as_str()))).into(),
            arrays::text(decided.shouts.iter().map(|(.., shouted)| Some(shouted.as_str()))).into(),
        ];
        let written = connection.run(&self.write, Mode::Write, &parameters).len();
        if written == decided.shouts.len() {
            Ok(decided)
        } else {
            Err(Stale)
        }
    }

    fn count(decided: &Decided) -> Counters {
        let shouted = decided.shouts.len() as i64;
        Counters {
            scanned: shouted + decided.unchanged,
            shouted,
            unchanged: decided.unchanged,
            errors: 0,
        }
    }

    fn count_failed(_: &Decided) -> Counters {
        Counters {
            scanned: 1,
            errors: 1,
            ..Counters::default()
        }
    }

    fn id(page: &Rows, index: usize) -> String {
        page.get::<i64>(index, 0).unwrap_or_default().to_string()
    }

    fn remember(&mut self, _: &Decided) -> Result<()> {
        Ok(())
    }

    fn changes(&self, _: &Decided, _: &mut Changes) {}

    fn decisions(_: &Decided, _: LogDecisions, _: &mut Vec<Decision>) {}
}
