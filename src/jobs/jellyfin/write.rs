//! Writing a decided slice: markers, events and skips together, a handful of statements over arrays.

use std::collections::HashMap;

use media_assets_core::jobs::jellyfin_metadata::{Enriched, Event, Outcome, Reason};

use super::tables::Tables;
use super::{DecidedRow, Written};
use crate::engine::Stale;
use crate::postgres::arrays;
use crate::postgres::jsonb::Jsonb;
use crate::postgres::spi::{Connection, Mode, Parameter, Rows, Statement};

/// The statements that write.
pub struct Writer {
    lock: Statement,
    insert_events: Statement,
    update: Statement,
    lock_skips: Statement,
    skip: Statement,
    forget: Statement,
}

impl Writer {
    /// `None` in a dry run that has no tables to write to.
    pub fn new(tables: &Tables) -> Option<Self> {
        let (skips, outbox) = (tables.skips.as_ref()?, tables.outbox.as_ref()?);
        let board = &tables.board.sql_name;
        Some(Writer {
            lock: Statement::new(format!(
                "SELECT {}, b.meta::pg_catalog.text FROM pg_catalog.unnest($1) WITH ORDINALITY u(id, n)
                 JOIN {board} b ON b.id = u.id ORDER BY u.n FOR NO KEY UPDATE OF b",
                tables.board_row("b")
            )),
            insert_events: Statement::new(format!(
                "INSERT INTO {} (event_id, topic, payload, source, subject_id, created_at, attempts, next_attempt_at, state)
                 SELECT u.event_id, u.topic, u.payload::pg_catalog.jsonb, u.source, u.subject_id,
                        pg_catalog.transaction_timestamp(), 0, pg_catalog.transaction_timestamp(), 'queued'
                 FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5))
                      u(event_id, topic, payload, source, subject_id)
                 ON CONFLICT (event_id) DO NOTHING RETURNING event_id",
                outbox.sql_name
            )),
            update: Statement::new(format!(
                "UPDATE {board} b SET meta = b.meta OPERATOR(pg_catalog.||) u.patch::pg_catalog.jsonb OPERATOR(pg_catalog.||)
                     CASE WHEN u.sets_sent_at THEN pg_catalog.jsonb_build_object('publish_event_sent_at',
                         pg_catalog.to_char(pg_catalog.timezone('UTC', pg_catalog.transaction_timestamp()), 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'))
                     ELSE '{{}}' END
                 FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) u(id, patch, sets_sent_at)
                 WHERE b.id = u.id RETURNING b.id::pg_catalog.int8, b.meta::pg_catalog.text"
            )),
            lock_skips: Statement::new(format!(
                "SELECT s.row_id::pg_catalog.int8, pg_catalog.to_jsonb(s)::pg_catalog.text
                 FROM pg_catalog.unnest($1) WITH ORDINALITY u(row_id, n) JOIN {skips} s ON s.row_id = u.row_id
                 ORDER BY u.n FOR UPDATE OF s",
                skips = skips.sql_name
            )),
            skip: Statement::new(format!(
                "INSERT INTO {} AS s (row_id, reason, next_attempt_at, seen, skipped_at)
                 SELECT u.row_id, u.reason, pg_catalog.transaction_timestamp() + pg_catalog.make_interval(hours => u.hours), u.seen,
                        pg_catalog.transaction_timestamp()
                 FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4))
                      u(row_id, reason, hours, seen)
                 ON CONFLICT (row_id) DO UPDATE
                 SET reason = excluded.reason, next_attempt_at = excluded.next_attempt_at, seen = excluded.seen,
                     skipped_at = excluded.skipped_at
                 WHERE (s.reason, s.next_attempt_at, s.seen) IS DISTINCT FROM (excluded.reason, excluded.next_attempt_at, excluded.seen)
                 RETURNING s.row_id::pg_catalog.int8, pg_catalog.to_jsonb(s)::pg_catalog.text",
                skips.sql_name
            )),
            forget: Statement::new(format!(
                "DELETE FROM {} s USING pg_catalog.unnest($1) u(row_id) WHERE s.row_id = u.row_id
                 RETURNING s.row_id::pg_catalog.int8, pg_catalog.to_jsonb(s)::pg_catalog.text",
                skips.sql_name
            )),
        })
    }

    /// Writes what was decided for the slice; its rows are in the order of their ids.
    ///
    /// # Errors
    /// [`Stale`] when a row changed since it was read, or another session queued its event first.
    pub fn write(&self, connection: &Connection, rows: &mut [DecidedRow]) -> Result<(), Stale> {
        self.enrich(connection, rows)?;
        self.skip(connection, rows);
        Ok(())
    }

    /// Remembers skips, and what was remembered before.
    fn skip(&self, connection: &Connection, rows: &mut [DecidedRow]) {
        let (mut skipped, reasons): (Vec<&mut DecidedRow>, Vec<Reason>) = rows
            .iter_mut()
            .filter_map(|row| match row.outcome {
                Outcome::Skipped(reason) => Some((row, reason)),
                _ => None,
            })
            .unzip();
        if skipped.is_empty() {
            return;
        }
        let ids: Parameter = arrays::int8(skipped.iter().map(|row| Some(row.candidate.id))).into();
        if skipped.iter().any(|row| row.candidate.was_skipped) {
            let mut before = images(&connection.run(&self.lock_skips, Mode::Write, &[ids]));
            for row in &mut skipped {
                row.skip.before = before.remove(&row.candidate.id);
            }
        }
        let parameters = [
            ids,
            arrays::text(reasons.iter().map(|reason| Some(reason.name()))).into(),
            arrays::int4(reasons.iter().map(|reason| reason.hours_until_next_attempt())).into(),
            arrays::int8(skipped.iter().map(|row| Some(row.candidate.seen))).into(),
        ];
        let mut after = images(&connection.run(&self.skip, Mode::Write, &parameters));
        for row in skipped {
            row.skip.after = after.remove(&row.candidate.id);
            if row.skip.after.is_none() {
                // It was remembered so already.
                row.skip.before = None;
            }
        }
    }

    fn enrich(&self, connection: &Connection, rows: &mut [DecidedRow]) -> Result<(), Stale> {
        let mut enriched: Vec<&mut DecidedRow> = rows
            .iter_mut()
            .filter(|row| matches!(row.outcome, Outcome::Enriched(_)))
            .collect();
        if enriched.is_empty() {
            return Ok(());
        }
        let ids: Parameter = arrays::int8(enriched.iter().map(|row| Some(row.candidate.id))).into();
        let locked = connection.run(&self.lock, Mode::Write, &[ids]);
        if locked.len() != enriched.len() {
            return Err(Stale);
        }
        for (index, row) in enriched.iter_mut().enumerate() {
            let now: Option<Jsonb> = locked.get(index, 0);
            if !now.is_some_and(|now| now.same_bytes(row.candidate.row)) {
                return Err(Stale);
            }
            row.written = locked.text(index, 1).map(|before| Written {
                before,
                after: String::new(),
            });
        }
        drop(locked);
        self.queue(connection, &enriched)?;
        let decided: Vec<&Enriched> = enriched.iter().filter_map(|row| enriched_of(row)).collect();
        let patches: Vec<String> = decided.iter().map(|enriched| enriched.patch.to_string()).collect();
        let sets_sent_at = enriched
            .iter()
            .zip(&decided)
            .map(|(row, enriched)| Some(enriched.sets_sent_at && row.queued));
        let parameters = [
            ids,
            arrays::text(patches.iter().map(|patch| Some(patch.as_str()))).into(),
            arrays::boolean(sets_sent_at).into(),
        ];
        let updated = connection.run(&self.update, Mode::Write, &parameters);
        let mut after = images(&updated);
        for row in &mut enriched {
            let (Some(written), Some(after)) = (&mut row.written, after.remove(&row.candidate.id)) else {
                return Err(Stale);
            };
            written.after = after;
        }
        let mut forgotten = images(&connection.run(&self.forget, Mode::Write, &[ids]));
        for row in enriched {
            row.skip.before = forgotten.remove(&row.candidate.id);
        }
        Ok(())
    }

    /// Queues the events that are not in the outbox yet, in the order of their ids.
    fn queue(&self, connection: &Connection, enriched: &[&mut DecidedRow]) -> Result<(), Stale> {
        let mut events: Vec<&Event> = enriched
            .iter()
            .filter(|row| row.queued)
            .filter_map(|row| enriched_of(row)?.event.as_ref())
            .collect();
        if events.is_empty() {
            return Ok(());
        }
        events.sort_unstable_by_key(|event| event.id);
        let payloads: Vec<String> = events.iter().map(|event| event.payload.to_string()).collect();
        let parameters = [
            arrays::uuid(events.iter().map(|event| Some(event.id))).into(),
            arrays::text(events.iter().map(|event| Some(event.topic))).into(),
            arrays::text(payloads.iter().map(|payload| Some(payload.as_str()))).into(),
            arrays::text(events.iter().map(|event| Some(event.source))).into(),
            arrays::text(events.iter().map(|event| Some(event.subject_id.as_str()))).into(),
        ];
        if connection.run(&self.insert_events, Mode::Write, &parameters).len() == events.len() {
            Ok(())
        } else {
            Err(Stale)
        }
    }
}

/// Ids and texts of a statement's rows.
fn images(rows: &Rows) -> HashMap<i64, String> {
    (0..rows.len())
        .filter_map(|row| Some((rows.get(row, 0)?, rows.text(row, 1)?)))
        .collect()
}

pub fn enriched_of(row: &DecidedRow) -> Option<&Enriched> {
    match &row.outcome {
        Outcome::Enriched(enriched) => Some(enriched),
        _ => None,
    }
}
