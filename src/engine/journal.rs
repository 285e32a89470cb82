//! What a batch did, gathered slice by slice, on its way to the ledger.

use super::ledger::decisions::Decision;
use super::relation::quote_ident;
use super::Job;
use crate::settings::{self, LogDecisions};

/// A row that the run inserted: `column_name` is its primary key, the ids are values of that. `after`, where it is given, is
/// the [`fingerprint`] of [`row_text`] of the row as it was inserted, over the columns that the job's entry in undo names:
/// undo then leaves a row alone that somebody changed since.
pub const ROW_INSERTED: &str = "row_inserted";
/// A value that the run set: ids are primary keys, `before` and `after` its texts: of a jsonb column the jsonb text, so
/// that SQL NULL and JSON null differ, of any other type `to_jsonb(column) #>> '{}'`. `after` of a jsonb column may be
/// [`short`], since undo only asks whether the value still is the same.
pub const CELL_SET: &str = "cell_set";

/// A row that the run changed or removed as a whole: `before` and `after` are it as jsonb text, `after` NULL where it went.
pub const ROW_REPLACED: &str = "row_replaced";

/// An expression over the row `alias` by which one sees whether these columns are as they were. Their texts must not depend
/// on settings of the session.
pub fn row_text(alias: &str, columns: &[&str]) -> String {
    let list: Vec<String> = columns
        .iter()
        .map(|column| format!("{alias}.{}", quote_ident(column)))
        .collect();
    format!("ROW({})::pg_catalog.text", list.join(", "))
}

/// What a fingerprint begins with. No JSON text does.
pub const FINGERPRINT: &str = "xxh3:";

/// Stands for a long text: the same on every server, so that a run can be taken back after a restore.
pub fn fingerprint(text: &str) -> String {
    format!("{FINGERPRINT}{:016x}", xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
}

/// The text of a jsonb value, or its fingerprint where that is shorter.
pub fn short(json: String) -> String {
    if json.len() > FINGERPRINT.len() + 16 {
        fingerprint(&json)
    } else {
        json
    }
}

/// A row that could not be written.
#[derive(Clone, Debug)]
pub struct RowFailure {
    pub id: String,
    pub sqlstate: String,
    pub message: String,
    /// What it adds to the run's counters as a failure.
    pub counters: Vec<i64>,
}

/// Ids of changed rows, in the type of their column.
#[derive(Clone, Debug)]
pub enum Ids {
    Uuids(Vec<[u8; 16]>),
    Texts(Vec<String>),
}

impl Ids {
    pub fn push_uuid(&mut self, id: [u8; 16]) {
        match self {
            Ids::Uuids(ids) => ids.push(id),
            Ids::Texts(ids) => ids.push(uuid::Uuid::from_bytes(id).to_string()),
        }
    }

    /// `id` in its text form.
    pub fn push_text(&mut self, id: &str) {
        match self {
            Ids::Uuids(ids) => ids.extend(media_assets_core::jobs::lesson::parse_asset_id(id)),
            Ids::Texts(ids) => ids.push(id.to_owned()),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Ids::Uuids(ids) => ids.len(),
            Ids::Texts(ids) => ids.len(),
        }
    }
}

/// One kind of change to one column or relation: arrays that run side by side. Those that the action does not use are
/// empty.
#[derive(Clone, Debug)]
pub struct Change {
    pub action: &'static str,
    /// Schema-qualified and quoted.
    pub relation: String,
    pub column: Option<&'static str>,
    pub ids: Ids,
    pub positions: Vec<i32>,
    pub assets: Vec<[u8; 16]>,
    pub before: Vec<Option<String>>,
    pub after: Vec<Option<String>>,
}

/// The changes of a batch, in the order in which they were made.
#[derive(Default)]
pub struct Changes {
    list: Vec<Change>,
}

impl Changes {
    /// Where changes of that kind are gathered.
    pub fn of(
        &mut self,
        action: &'static str,
        relation: &str,
        column: Option<&'static str>,
        ids_are_uuids: bool,
    ) -> &mut Change {
        let place = self
            .list
            .iter()
            .position(|change| change.action == action && change.relation == relation && change.column == column);
        let place = place.unwrap_or_else(|| {
            self.list.push(Change {
                action,
                relation: relation.to_owned(),
                column,
                ids: if ids_are_uuids {
                    Ids::Uuids(Vec::new())
                } else {
                    Ids::Texts(Vec::new())
                },
                positions: Vec::new(),
                assets: Vec::new(),
                before: Vec::new(),
                after: Vec::new(),
            });
            self.list.len() - 1
        });
        &mut self.list[place]
    }

    /// Those gathered so far, which are forgotten here.
    pub fn drain(&mut self) -> impl Iterator<Item = Change> + '_ {
        self.list.drain(..).filter(|change| change.ids.len() > 0)
    }
}

/// What is gathered of a batch.
pub struct Journal {
    keeps_changes: bool,
    level: LogDecisions,
    pub changes: Changes,
    pub decisions: Vec<Decision>,
    pub failures: Vec<RowFailure>,
    /// Something was written since [`Journal::start_batch`].
    pub wrote: bool,
}

impl Journal {
    /// For runs without a row in the ledger: keeps failures only.
    pub fn closed() -> Self {
        Journal {
            keeps_changes: false,
            level: LogDecisions::None,
            changes: Changes::default(),
            decisions: Vec::new(),
            failures: Vec::new(),
            wrote: false,
        }
    }

    /// As `media_assets.log_changes` and `media_assets.log_decisions` say.
    pub fn by_settings() -> Self {
        Journal {
            keeps_changes: settings::log_changes(),
            level: settings::log_decisions(),
            ..Journal::closed()
        }
    }

    /// Forgets what a batch that was rolled back had put in.
    pub fn start_batch(&mut self) {
        *self = Journal {
            keeps_changes: self.keeps_changes,
            level: self.level,
            ..Journal::closed()
        };
    }

    /// Takes note of a settled slice.
    pub fn take<J: Job>(&mut self, job: &J, decided: &J::Decided, written: bool) {
        self.wrote |= written;
        if written && self.keeps_changes {
            job.changes(decided, &mut self.changes);
        }
        if self.level != LogDecisions::None {
            J::decisions(decided, self.level, &mut self.decisions);
        }
    }
}
