//! Taking a run back: value by value, from what the ledger says it changed.
//!
//! What somebody changed since is theirs: it is left alone and reported as a conflict.

mod assets;
mod cells;
mod ingest;
mod items;
mod keys;
mod place;
pub mod program;
mod references;
mod replaced;
mod rows;
mod subject;
mod tables;
mod usages;
mod uses;

use std::rc::Rc;

use crate::engine::journal::Changes;
use crate::engine::ledger::decisions::Decision;
use crate::engine::ledger::Ledger;
use crate::engine::{Job, Stale, Tally};
use crate::error::Result;
use crate::jobs::lesson_assets::undo_log::USAGE_CREATED;
use crate::postgres::spi::{Connection, Mode};
use crate::settings::LogDecisions;

/// One value that a run wrote.
#[derive(Clone, Debug)]
pub struct Element {
    /// Its place: the change, and the index in its arrays.
    change: i64,
    index: i32,
    pub relation: String,
    pub column: Option<String>,
    /// The text of the row's id.
    pub id: String,
    pub position: Option<i32>,
    /// The hash of where the run put a usage.
    place: Option<i32>,
    pub asset: Option<[u8; 16]>,
    /// What the value was.
    pub before: Option<String>,
    /// What the run made of it.
    pub after: Option<String>,
}

/// What becomes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It still is what the run made of it, and goes back.
    Undo,
    /// It is as it was before.
    Already,
    /// It is left alone, for this reason.
    Conflict(&'static str),
}

impl Fate {
    pub fn outcome(self) -> &'static str {
        match self {
            Fate::Undo => "undo",
            Fate::Already => "already_undone",
            Fate::Conflict(_) => "conflict",
        }
    }

    pub fn reason(self) -> Option<&'static str> {
        match self {
            Fate::Conflict(reason) => Some(reason),
            _ => None,
        }
    }
}

macro_rules! counters {
    ($($name:ident),*) => {
        /// What an undo did.
        #[derive(Clone, Default)]
        pub struct Counters { $(pub $name: i64),* }

        impl Tally for Counters {
            fn names() -> Vec<&'static str> {
                vec![$(stringify!($name)),*]
            }

            fn values(&self) -> Vec<i64> {
                vec![$(self.$name),*]
            }

            fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            fn check(&self) -> std::result::Result<(), &'static str> {
                let lessons = self.items_restored + self.usages_removed + self.assets_removed + self.keys_restored;
                let undone = lessons + self.cells_restored + self.rows_removed;
                if self.values_scanned == undone + self.already_undone + self.conflicts + self.errors {
                    Ok(())
                } else {
                    Err("values scanned <> undone + already undone + conflicts + errors")
                }
            }
        }
    };
}

counters!(
    values_scanned,
    items_restored,
    usages_removed,
    assets_removed,
    keys_restored,
    cells_restored,
    rows_removed,
    already_undone,
    conflicts,
    errors
);

/// How one kind of change is taken back.
trait Kind {
    /// The action that it takes back, as the ledger names it.
    fn action(&self) -> &'static str;
    /// The counter of what it took back.
    fn counter<'c>(&self, counters: &'c mut Counters) -> &'c mut i64;
    /// Called once before the first of them is decided.
    fn begin(&mut self, connection: &Connection, mode: Mode) -> Result<()>;
    /// What becomes of each; in a dry run as if all before them had been undone.
    fn decide(&mut self, connection: &Connection, mode: Mode, elements: &[Element]) -> Vec<Fate>;
    /// Takes back those that are to be, if they still are.
    fn write(
        &mut self,
        connection: &Connection,
        elements: &[Element],
        fates: &[Fate],
    ) -> std::result::Result<(), Stale>;
    /// Takes note of what a dry run would have undone.
    fn remember(&mut self, elements: &[Element], fates: &[Fate]) -> Result<()>;
}

/// One kind of change of one run.
pub struct Undo {
    run_id: i64,
    ledger: Rc<Ledger>,
    kind: Box<dyn Kind>,
    remembers: bool,
    begun: bool,
}

/// Values of one change, the last first.
pub struct Page {
    pub elements: Vec<Element>,
}

pub struct Decided {
    pub elements: Vec<Element>,
    pub fates: Vec<Fate>,
    counters: Counters,
}

impl Undo {
    fn new(run_id: i64, ledger: &Rc<Ledger>, kind: Box<dyn Kind>, execute: bool) -> Self {
        Undo {
            run_id,
            ledger: Rc::clone(ledger),
            kind,
            remembers: !execute,
            begun: false,
        }
    }

    fn count(&self, fates: &[Fate]) -> Counters {
        let mut counters = Counters {
            values_scanned: fates.len() as i64,
            ..Counters::default()
        };
        for fate in fates {
            match fate {
                Fate::Undo => *self.kind.counter(&mut counters) += 1,
                Fate::Already => counters.already_undone += 1,
                Fate::Conflict(_) => counters.conflicts += 1,
            }
        }
        counters
    }

    /// The values of the last change of this kind that ends at or before `change`, of its first `index` values at most
    /// `limit`.
    fn values(&self, connection: &Connection, change: i64, index: i32, limit: i64) -> Vec<Element> {
        let rows = self.ledger.run(
            connection,
            Mode::Read,
            "SELECT w.change_id, v.place, w.relation, w.column_name, v.id, v.position, v.asset, v.before, v.after
             FROM (SELECT c.*, least(coalesce(cardinality(c.ids), cardinality(c.uuids)), CASE WHEN c.change_id = $3 THEN $4 END) AS top
                   FROM ~backfill_changes c
                   WHERE c.run_id = $1 AND c.action = $2 AND (c.change_id < $3 OR (c.change_id = $3 AND $4 > 0))
                   ORDER BY c.change_id DESC LIMIT 1) w
             CROSS JOIN LATERAL (SELECT greatest(w.top - $5 + 1, 1) AS low) b
             CROSS JOIN LATERAL (
                 SELECT b.low + u.n::integer - 1 AS place, u.*
                 FROM ROWS FROM (unnest(coalesce(w.ids[b.low:w.top], w.uuids[b.low:w.top]::text[])), unnest(w.positions[b.low:w.top]),
                                 unnest(w.assets[b.low:w.top]), unnest(w.before[b.low:w.top]), unnest(w.after[b.low:w.top]))
                      WITH ORDINALITY u(id, position, asset, before, after, n)) v
             ORDER BY v.place DESC",
            &[
                self.run_id.into(),
                self.kind.action().into(),
                change.into(),
                index.into(),
                (i32::try_from(limit).unwrap_or(i32::MAX)).into(),
            ],
        );
        let of_usages = self.kind.action() == USAGE_CREATED;
        (0..rows.len())
            .map(|row| Element {
                change: rows.get(row, 0).unwrap_or(0),
                index: rows.get(row, 1).unwrap_or(0),
                relation: rows.text(row, 2).unwrap_or_default(),
                column: rows.text(row, 3),
                id: rows.text(row, 4).unwrap_or_default(),
                position: rows.get(row, 5).filter(|_| !of_usages),
                place: rows.get(row, 5).filter(|_| of_usages),
                asset: rows.uuid(row, 6),
                before: rows.text(row, 7),
                after: rows.text(row, 8),
            })
            .collect()
    }
}

/// A value's place as text: change and index.
fn place(element: &Element) -> String {
    format!("{} {}", element.change, element.index)
}

fn parse_place(text: &str) -> (i64, i32) {
    let (change, index) = text.split_once(' ').unwrap_or((text, "0"));
    (change.parse().unwrap_or(0), index.parse().unwrap_or(0))
}

impl Job for Undo {
    type Page = Page;
    type Decided = Decided;
    type Counters = Counters;

    const NAME: &'static str = "undo";
    const ROWS: &'static str = "values";
    const ROW: &'static str = "value";

    fn estimate(&self, _: &Connection) -> Option<i64> {
        None
    }

    fn read(&mut self, connection: &Connection, _: Mode, after: Option<&str>, limit: i64) -> Page {
        // The index counts from 1: what is left of a change are the values before it.
        let (change, index) = after.map_or((i64::MAX, 0), |after| {
            let (change, index) = parse_place(after);
            (change, index - 1)
        });
        Page {
            elements: self.values(connection, change, index, limit),
        }
    }

    fn read_these(&mut self, connection: &Connection, ids: &[String]) -> Page {
        let elements = ids.iter().flat_map(|id| {
            let (change, index) = parse_place(id);
            self.values(connection, change, index, 1)
        });
        Page {
            elements: elements.filter(|element| ids.contains(&place(element))).collect(),
        }
    }

    fn len(page: &Page) -> usize {
        page.elements.len()
    }

    fn cursor(page: &Page) -> String {
        page.elements.last().map_or_else(String::new, place)
    }

    fn weight(_: &Page, _: usize) -> usize {
        // The lessons that are read for it are not known yet.
        16 * 1024
    }

    fn decide(&mut self, connection: &Connection, mode: Mode, page: &Page, from: usize, to: usize) -> Result<Decided> {
        if !self.begun {
            self.kind.begin(connection, mode)?;
            self.begun = true;
        }
        let elements = page.elements[from..to].to_vec();
        let fates = self.kind.decide(connection, mode, &elements);
        Ok(Decided {
            counters: self.count(&fates),
            elements,
            fates,
        })
    }

    fn has_writes(decided: &Decided) -> bool {
        decided.fates.contains(&Fate::Undo)
    }

    fn write(
        &mut self,
        connection: &Connection,
        _: &Page,
        _: usize,
        _: usize,
        decided: Decided,
    ) -> std::result::Result<Decided, Stale> {
        self.kind.write(connection, &decided.elements, &decided.fates)?;
        Ok(decided)
    }

    fn count(decided: &Decided) -> Counters {
        decided.counters.clone()
    }

    fn count_failed(decided: &Decided) -> Counters {
        let values = decided.elements.len() as i64;
        Counters {
            values_scanned: values,
            errors: values,
            ..Counters::default()
        }
    }

    fn id(page: &Page, index: usize) -> String {
        place(&page.elements[index])
    }

    fn remember(&mut self, decided: &Decided) -> Result<()> {
        if self.remembers {
            self.kind.remember(&decided.elements, &decided.fates)?;
        }
        Ok(())
    }

    fn changes(&self, _: &Decided, _: &mut Changes) {}

    fn decisions(decided: &Decided, level: LogDecisions, decisions: &mut Vec<Decision>) {
        for (element, fate) in decided.elements.iter().zip(&decided.fates) {
            let (outcome, action) = match fate {
                Fate::Undo if level >= LogDecisions::Changed => ("eligible", Some("undo")),
                Fate::Already if level == LogDecisions::All => ("eligible", Some("already_undone")),
                Fate::Conflict(_) => ("skipped", Some("conflict")),
                _ => continue,
            };
            let slot = match element.column.as_deref() {
                Some("videos") => Some("lesson_video"),
                Some("documents") => Some("lesson_document"),
                _ => None,
            };
            decisions.push(Decision {
                item_key: element.id.clone(),
                slot,
                position: element.position,
                outcome,
                action,
                reason: fate.reason().map(Into::into),
            });
        }
    }
}
