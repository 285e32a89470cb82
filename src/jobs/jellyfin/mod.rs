//! Jellyfin metadata: published rows get the fields they lack, and their event is queued, in one transaction.

pub mod program;
pub mod read;
pub mod tables;
mod write;

use std::collections::HashSet;

use media_assets_core::jobs::jellyfin_metadata::{decide, is_candidate, Arguments, Mode as JobMode, Outcome};

pub use media_assets_core::jobs::jellyfin_metadata::Counters;
pub use write::enriched_of;

use crate::engine::journal::{Changes, CELL_SET, ROW_INSERTED, ROW_REPLACED};
use crate::engine::ledger::decisions::Decision;
use crate::engine::{Job, Stale};
use crate::error::Result;
use crate::postgres::arrays;
use crate::postgres::jsonb::Jsonb;
use crate::postgres::spi::{Connection, Mode, Statement};
use crate::settings::LogDecisions;
use program::JellyfinOptions;
use read::{Candidate, Page, Reader};
use tables::Tables;
use write::Writer;

tally_of_core!(Counters);

/// `meta` of an enriched row, before and after, as jsonb text.
#[derive(Default)]
pub struct Written {
    before: String,
    after: String,
}

/// The skip of a row, before and after, as jsonb text; both `None` where it stayed as it was.
#[derive(Default)]
pub struct Skip {
    before: Option<String>,
    after: Option<String>,
}

/// A row and what becomes of it.
pub struct DecidedRow {
    pub candidate: Candidate,
    pub outcome: Outcome,
    /// Its event is not in the outbox yet.
    pub queued: bool,
    written: Option<Written>,
    skip: Skip,
}

/// A decided slice, in the order of the ids.
pub struct Decided {
    pub rows: Vec<DecidedRow>,
}

/// The candidates of one run, or of a range of it.
pub struct JellyfinMetadata {
    options: JellyfinOptions,
    board: String,
    skips: Option<String>,
    outbox: Option<String>,
    reader: Reader,
    writer: Option<Writer>,
    known_events: Option<Statement>,
    /// A row of the page was not as it had been read: the others are read anew too, under lock.
    look_again: bool,
}

impl JellyfinMetadata {
    pub fn new(tables: &Tables, reader: Reader, options: &JellyfinOptions) -> Self {
        let name = |relation: &Option<crate::engine::relation::Relation>| {
            relation.as_ref().map(|relation| relation.sql_name.clone())
        };
        JellyfinMetadata {
            options: options.clone(),
            board: tables.board.sql_name.clone(),
            skips: name(&tables.skips),
            outbox: name(&tables.outbox),
            reader,
            writer: Writer::new(tables),
            known_events: tables.outbox.as_ref().map(|outbox| {
                Statement::new(format!(
                    "SELECT u.id FROM pg_catalog.unnest($1) u(id) WHERE EXISTS (SELECT FROM {} o WHERE o.event_id = u.id)",
                    outbox.sql_name
                ))
            }),
            look_again: false,
        }
    }

    fn candidates(&self, connection: &Connection, page: &Page, from: usize, to: usize) -> Vec<Candidate> {
        if self.look_again {
            let ids: Vec<i64> = (from..to).map(|row| page.id(row)).collect();
            self.reader.again(connection, &ids)
        } else {
            (from..to).filter_map(|row| page.candidate(row)).collect()
        }
    }

    /// Which of these events the outbox has.
    fn known_events(&self, connection: &Connection, mode: Mode, rows: &[DecidedRow]) -> HashSet<[u8; 16]> {
        let ids: Vec<[u8; 16]> = rows
            .iter()
            .filter_map(|row| Some(enriched_of(row)?.event.as_ref()?.id))
            .collect();
        let Some(statement) = self.known_events.as_ref().filter(|_| !ids.is_empty()) else {
            return HashSet::new();
        };
        let found = connection.run(statement, mode, &[arrays::uuid(ids.into_iter().map(Some)).into()]);
        (0..found.len()).filter_map(|row| found.uuid(row, 0)).collect()
    }
}

impl Job for JellyfinMetadata {
    type Page = Page;
    type Decided = Decided;
    type Counters = Counters;

    const NAME: &'static str = "jellyfin_metadata";
    const ROWS: &'static str = "published rows without Jellyfin link";
    const ROW: &'static str = "row";
    // The next canary meets them again: its place belongs to the others.
    const FAILURES_FILL_LIMIT: bool = false;

    fn read(&mut self, connection: &Connection, mode: Mode, after: Option<&str>, limit: i64) -> Page {
        self.look_again = false;
        let after = after.and_then(|after| after.parse().ok());
        self.reader.page(connection, mode, after, limit)
    }

    fn read_these(&mut self, connection: &Connection, ids: &[String]) -> Page {
        self.look_again = false;
        self.reader.these(connection, ids)
    }

    fn len(page: &Page) -> usize {
        page.len()
    }

    fn cursor(page: &Page) -> String {
        page.id(page.len() - 1).to_string()
    }

    fn weight(page: &Page, index: usize) -> usize {
        page.weight(index)
    }

    fn decide(&mut self, connection: &Connection, mode: Mode, page: &Page, from: usize, to: usize) -> Result<Decided> {
        let arguments = Arguments {
            mode: self.options.mode,
            backfill_version: &self.options.backfill_version,
            public_base: &self.options.public_base,
            default_namespace: self.options.default_namespace.as_deref(),
        };
        let mut rows: Vec<DecidedRow> = self
            .candidates(connection, page, from, to)
            .into_iter()
            .filter(|candidate| is_candidate(candidate.row.value()))
            .map(|candidate| DecidedRow {
                outcome: decide(
                    candidate.id,
                    Jsonb::value_in_context(candidate.row),
                    &candidate.fetched(),
                    &arguments,
                ),
                candidate,
                queued: false,
                written: None,
                skip: Skip::default(),
            })
            .collect();
        let known = self.known_events(connection, mode, &rows);
        for row in &mut rows {
            let event = enriched_of(row).and_then(|enriched| enriched.event.as_ref());
            row.queued = event.is_some_and(|event| !known.contains(&event.id));
        }
        Ok(Decided { rows })
    }

    fn has_writes(decided: &Decided) -> bool {
        !decided.rows.is_empty()
    }

    fn write(
        &mut self,
        connection: &Connection,
        _: &Page,
        _: usize,
        _: usize,
        mut decided: Decided,
    ) -> std::result::Result<Decided, Stale> {
        let Some(writer) = &self.writer else {
            return Err(Stale);
        };
        match writer.write(connection, &mut decided.rows) {
            Ok(()) => Ok(decided),
            Err(Stale) => {
                self.look_again = true;
                Err(Stale)
            }
        }
    }

    fn count(decided: &Decided) -> Counters {
        let mut counters = Counters::default();
        for row in &decided.rows {
            counters.count(&row.outcome, row.queued);
        }
        counters
    }

    fn count_failed(_: &Decided) -> Counters {
        let mut counters = Counters::default();
        counters.count(&Outcome::Failed, false);
        counters
    }

    fn id(page: &Page, index: usize) -> String {
        page.id(index).to_string()
    }

    fn changes(&self, decided: &Decided, changes: &mut Changes) {
        for row in &decided.rows {
            let id = row.candidate.id.to_string();
            if let Some(written) = &row.written {
                let meta = changes.of(CELL_SET, &self.board, Some("meta"), false);
                meta.ids.push_text(&id);
                meta.before.push(Some(written.before.clone()));
                meta.after.push(Some(written.after.clone()));
            }
            let event = enriched_of(row).and_then(|enriched| enriched.event.as_ref());
            if let (Some(event), Some(outbox), true) = (event, &self.outbox, row.queued) {
                changes
                    .of(ROW_INSERTED, outbox, Some("event_id"), true)
                    .ids
                    .push_uuid(event.id);
            }
            let Some(skips) = &self.skips else { continue };
            match (&row.skip.before, &row.skip.after) {
                (None, None) => {}
                (None, Some(_)) => {
                    let inserted = changes.of(ROW_INSERTED, skips, Some("row_id"), false);
                    inserted.ids.push_text(&id);
                }
                (before, after) => {
                    let replaced = changes.of(ROW_REPLACED, skips, Some("row_id"), false);
                    replaced.ids.push_text(&id);
                    replaced.before.push(before.clone());
                    replaced.after.push(after.clone());
                }
            }
        }
    }

    fn decisions(decided: &Decided, level: LogDecisions, decisions: &mut Vec<Decision>) {
        for row in &decided.rows {
            let (outcome, action, reason) = match &row.outcome {
                Outcome::Enriched(_) if level < LogDecisions::Changed => continue,
                Outcome::Enriched(_) if row.queued => ("eligible", Some("enrich_and_queue"), None),
                Outcome::Enriched(_) => ("eligible", Some("enrich"), None),
                Outcome::Skipped(reason) => ("skipped", None, Some(reason.name().into())),
                Outcome::Failed => continue,
            };
            decisions.push(Decision {
                item_key: row.candidate.id.to_string(),
                slot: None,
                position: None,
                outcome,
                action,
                reason,
            });
        }
    }
}

/// The name of a mode, as a caller gives it.
pub fn mode_name(mode: JobMode) -> &'static str {
    match mode {
        JobMode::Republish => "republish",
        JobMode::MetadataOnly => "metadata_only",
    }
}
