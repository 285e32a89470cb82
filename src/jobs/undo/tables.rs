//! Undo of the jobs whose changes are rows inserted or replaced and values of columns set: one entry for each.

use std::rc::Rc;

use super::cells::Cell;
use super::place::Places;
use super::references::Going;
use super::replaced::ReplacedRows;
use super::rows::InsertedRows;
use super::subject::Subject;
use super::Kind;
use crate::engine::journal::{CELL_SET, ROW_INSERTED, ROW_REPLACED};
use crate::engine::ledger::runs::Run;
use crate::engine::ledger::Ledger;
use crate::engine::relation::Relation;
use crate::engine::rights;
use crate::error::{not_undoable, Result};
use crate::jobs::collection_ingest::rekeys::REKEY;
use crate::jobs::s3_assets::REFERENCE_CONTENT;
use crate::postgres::spi::{Connection, Mode};

/// What undo has to know of a job beyond what the ledger says.
pub struct TableJob {
    pub name: &'static str,
    /// Its relations as its runs name them in the ledger. The job's runs exclude each other on the first.
    pub relations: &'static [&'static str],
    /// Tables that it inserts into and records fingerprints of, with the columns that those are made of.
    pub fingerprints: &'static [(&'static str, &'static [&'static str])],
    /// Reasons of its own to leave a row or a value alone.
    pub keeps: &'static [KeepRule],
}

/// A reason to leave what a run wrote alone, though it still is as the run made it.
pub struct KeepRule {
    /// The relation, as the job's runs name it.
    pub relation: &'static str,
    /// `None` is about inserted rows, a name about the values of that column.
    pub column: Option<&'static str>,
    /// What `explain_undo` says.
    pub reason: &'static str,
    /// An SQL condition over the row `r` and, as texts, `u.before` and `u.after`.
    pub condition: &'static str,
}

/// The jobs whose changes are of these kinds.
pub const TABLE_JOBS: &[TableJob] = &[
    TableJob {
        name: "i2v_thumbnails",
        relations: &["media", "i2v_jobs"],
        fingerprints: &[],
        keeps: &[],
    },
    TableJob {
        name: "s3_assets",
        relations: &["scenes", "video_sessions", "asset_references"],
        fingerprints: &[("asset_references", &REFERENCE_CONTENT)],
        keeps: &[],
    },
    TableJob {
        name: REKEY,
        relations: &["collection_assets"],
        fingerprints: &[],
        keeps: &[],
    },
    TableJob {
        name: "jellyfin_metadata",
        relations: &["studio_board", "jellyfin_items", "jellyfin_skips", "event_outbox"],
        fingerprints: &[],
        // What the world has seen, or a relay is showing it, cannot be taken back by forgetting it.
        keeps: &[
            KeepRule {
                relation: "event_outbox",
                column: None,
                reason: "published",
                condition: "r.state = 'published'",
            },
            KeepRule {
                relation: "event_outbox",
                column: None,
                reason: "claimed",
                condition: "r.claimed_by IS NOT NULL",
            },
            // A try that failed may have arrived all the same.
            KeepRule {
                relation: "event_outbox",
                column: None,
                reason: "attempted",
                condition: "r.attempts > 0",
            },
        ],
    },
];

const PHASES: [&str; 3] = ["cells", "rows", "replaced"];

/// The reasons that a job has for one column or relation.
pub struct Keep {
    rules: Vec<&'static KeepRule>,
}

impl Keep {
    /// An expression that is the place of the first rule that holds, NULL when none does.
    pub fn sql(&self) -> String {
        if self.rules.is_empty() {
            return "NULL::pg_catalog.int4".to_owned();
        }
        let cases: Vec<String> = self
            .rules
            .iter()
            .enumerate()
            .map(|(place, rule)| format!("WHEN {} THEN {place}", rule.condition))
            .collect();
        format!("CASE {} END", cases.join(" "))
    }

    /// The reason of the rule at that place.
    pub fn reason(&self, place: Option<i32>) -> Option<&'static str> {
        let rule = self.rules.get(usize::try_from(place?).ok()?)?;
        Some(rule.reason)
    }
}

/// A relation whose rows are known by a key of one column.
#[derive(Clone)]
pub struct Keyed {
    pub relation: Relation,
    /// The column, as the relation names it.
    pub key: String,
    /// The relation's name as it stands in the changes.
    pub recorded_as: String,
}

impl Keyed {
    pub fn key_type(&self) -> &str {
        self.relation.type_of(&self.key)
    }

    pub fn ids_are_uuids(&self) -> bool {
        self.relation.is_of_type(&self.key, pgrx::pg_sys::UUIDOID)
    }
}

/// The tables of a run that is taken back, and what it did to them.
pub struct TableScope {
    job: &'static TableJob,
    /// All relations of the run that are still there, with their names in the ledger.
    relations: Vec<Relation>,
    /// The run inserted rows into these.
    inserted: Vec<Keyed>,
    /// The run changed or removed whole rows of these.
    replaced: Vec<Keyed>,
    /// The run set values of these columns.
    set: Vec<(Keyed, String)>,
    /// How many values the run wrote.
    written: i64,
}

impl TableScope {
    /// `None` for a job that is not of [`TABLE_JOBS`].
    ///
    /// # Errors
    /// 55000 when a table that the run wrote to has gone or has no primary key of one column; 42501 for row security.
    pub fn of(connection: &Connection, ledger: &Ledger, undone: &Run) -> Result<Option<Self>> {
        let Some(job) = TABLE_JOBS.iter().find(|job| job.name == undone.job) else {
            return Ok(None);
        };
        let relations: Vec<Relation> = job
            .relations
            .iter()
            .filter_map(|name| Relation::find(connection, name, Some(undone.relation(name)?)))
            .collect();
        let mut scope = TableScope {
            job,
            relations,
            inserted: Vec::new(),
            replaced: Vec::new(),
            set: Vec::new(),
            written: 0,
        };
        if scope
            .relations
            .first()
            .is_none_or(|relation| relation.name != job.relations[0])
        {
            return Err(not_undoable(
                undone.run_id,
                &format!("Its table {} has gone.", job.relations[0]),
            ));
        }
        let rows = ledger.run(
            connection,
            Mode::Read,
            "SELECT action, relation, column_name, sum(cardinality(coalesce(ids, uuids::text[])))::bigint
             FROM ~backfill_changes WHERE run_id = $1 AND action IN ('row_inserted', 'row_replaced', 'cell_set')
             GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
            &[undone.run_id.into()],
        );
        for row in 0..rows.len() {
            let (Some(action), Some(recorded_as), Some(column)) =
                (rows.text(row, 0), rows.text(row, 1), rows.text(row, 2))
            else {
                continue;
            };
            scope.written += rows.get::<i64>(row, 3).unwrap_or(0);
            let table = scope.keyed(connection, undone, recorded_as)?;
            match action.as_str() {
                ROW_INSERTED => scope.inserted.push(table),
                ROW_REPLACED => scope.replaced.push(table),
                CELL_SET if table.relation.has(&column) => scope.set.push((table, column)),
                _ => {}
            }
        }
        rights::check_row_security(&scope.relations)?;
        Ok(Some(scope))
    }

    fn keyed(&self, connection: &Connection, undone: &Run, recorded_as: String) -> Result<Keyed> {
        let found = self.relations.iter().find(|relation| relation.sql_name == recorded_as);
        let Some(relation) = found else {
            return Err(not_undoable(
                undone.run_id,
                &format!("Its table {recorded_as} has gone."),
            ));
        };
        let Some(key) = relation.primary_key_column(connection) else {
            return Err(not_undoable(
                undone.run_id,
                &format!("{recorded_as} has no primary key of one column."),
            ));
        };
        Ok(Keyed {
            relation: relation.clone(),
            key,
            recorded_as,
        })
    }

    fn keep(&self, relation: &Relation, column: Option<&str>) -> Keep {
        let rules = self.job.keeps.iter();
        Keep {
            rules: rules
                .filter(|rule| rule.relation == relation.name && rule.column == column)
                .collect(),
        }
    }
}

impl Subject for TableScope {
    fn main(&self) -> &Relation {
        &self.relations[0]
    }

    fn names(&self) -> Vec<(&'static str, String)> {
        let names = self.relations.iter();
        names
            .map(|relation| (relation.name, relation.sql_name.clone()))
            .collect()
    }

    fn phases(&self) -> &'static [&'static str] {
        &PHASES
    }

    fn written(&self) -> Option<i64> {
        Some(self.written)
    }

    fn check_rights(&self, connection: &Connection) -> Result<()> {
        for table in &self.inserted {
            rights::check_privilege(connection, &table.relation, "DELETE", &[])?;
            // They are locked before they go.
            rights::check_privilege(connection, &table.relation, "UPDATE", &[&table.key])?;
        }
        for table in &self.replaced {
            let columns: Vec<&str> = table.relation.columns.keys().map(String::as_str).collect();
            rights::check_privilege(connection, &table.relation, "INSERT", &columns)?;
            rights::check_privilege(connection, &table.relation, "UPDATE", &columns)?;
        }
        for (table, column) in &self.set {
            rights::check_privilege(connection, &table.relation, "UPDATE", &[column])?;
        }
        Ok(())
    }

    fn kinds(&self, connection: &Connection, _: i64, _: &Rc<Ledger>) -> Result<Vec<Box<dyn Kind>>> {
        let cells = self.set.iter().map(|(table, column)| {
            let keep = self.keep(&table.relation, Some(column));
            let place = (table.recorded_as.clone(), Some(column.clone()));
            (place, Cell::new(table, column, keep))
        });
        let tables = self.inserted.iter();
        let going = Going::of(connection, tables.clone().map(|table| (&table.relation, &*table.key)));
        let inserted: Result<Vec<_>> = tables
            .map(|table| {
                let of_table = |(name, _): &&(&str, &'static [&'static str])| *name == table.relation.name;
                let content = self.job.fingerprints.iter().find(of_table).map(|(_, columns)| *columns);
                let keep = self.keep(&table.relation, None);
                let place = (table.recorded_as.clone(), None);
                Ok((place, InsertedRows::new(connection, table, content, keep, &going)?))
            })
            .collect();
        let replaced = self.replaced.iter();
        let replaced = replaced.map(|table| ((table.recorded_as.clone(), None), ReplacedRows::new(table)));
        Ok(vec![
            Box::new(Places::new(cells)),
            Box::new(Places::new(inserted?)),
            Box::new(Places::new(replaced)),
        ])
    }

    fn begin(&self, _: &Connection, _: i64) {}
}
