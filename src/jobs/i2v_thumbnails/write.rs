//! How the videos of a slice are given what they lack.

use super::{Decided, Tables, Verdict};
use crate::engine::journal::{short, Changes, CELL_SET};
use crate::engine::Stale;
use crate::jobs::row_version::{parameters, Version};
use crate::postgres::jsonb::Jsonb;
use crate::postgres::spi::{Connection, Mode, Rows, Statement};
use crate::postgres::time::json_text;
use crate::postgres::{arrays, write_flag};

/// The columns of a video as the table had them after the write. The map lies in the slice's memory.
pub struct After {
    thumbnail_url: Option<String>,
    thumbnail_urls: Option<Jsonb>,
    updated_at: Option<i64>,
}

impl After {
    /// Reads what the write returns, behind the place of the video.
    fn read(rows: &Rows, row: usize) -> Self {
        After {
            thumbnail_url: rows.text(row, 1),
            thumbnail_urls: rows.get(row, 2).map(Jsonb::copied),
            updated_at: rows.get::<pgrx::pg_sys::TimestampTz>(row, 3),
        }
    }
}

pub struct Writer {
    relation: String,
    /// The type of `updated_at`, with time zone or without.
    time_type: pgrx::pg_sys::Oid,
    write: Statement,
    check: Statement,
}

impl Writer {
    pub fn new(tables: &Tables) -> Self {
        let media = &tables.media.sql_name;
        let is_same = tables.versions.is_same();
        let time_type = tables.media.columns.get("updated_at");
        Writer {
            relation: media.clone(),
            time_type: time_type.map_or(pgrx::pg_sys::TIMESTAMPTZOID, |column| column.type_oid),
            // One that has changed or gone since is not among the written, so that the count says so; one that another
            // session holds is looked at again when that lets go. Rows are locked in the order of the arrays.
            write: Statement::new(format!(
                "UPDATE {media} m
                 SET thumbnail_url = COALESCE(u.url, m.thumbnail_url), thumbnail_urls = COALESCE(u.urls, m.thumbnail_urls),
                     updated_at = pg_catalog.now()
                 FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),
                                 pg_catalog.unnest($5)) WITH ORDINALITY u(id, place, fingerprint, url, urls, n)
                 WHERE {is_same}
                 RETURNING u.n, m.thumbnail_url::pg_catalog.text, m.thumbnail_urls, m.updated_at"
            )),
            check: Statement::new(format!(
                "SELECT 1 FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) u(id, place, fingerprint)
                 CROSS JOIN LATERAL (SELECT FROM {media} m WHERE {is_same} LIMIT 1) m"
            )),
        }
    }

    /// Writes what the videos are given, and what they then have into `decided`.
    ///
    /// # Errors
    /// [`Stale`] when a video, or a row that its verdict rests on, has changed since it was read.
    pub fn write(&self, connection: &Connection, decided: &mut Decided) -> Result<(), Stale> {
        // What the verdicts rest on; a video of this slice may be among it, so it is looked at before the update.
        if !decided.read.is_empty() {
            let versions = decided.read.iter().map(|(id, version)| (id.as_str(), *version));
            if connection.run(&self.check, Mode::Write, &parameters(versions)).len() != decided.read.len() {
                return Err(Stale);
            }
        }
        let given = decided.verdicts.iter_mut().filter_map(|verdict| {
            let version = verdict.before.as_ref()?.version;
            Some((verdict, version))
        });
        let mut given: Vec<(&mut Verdict, Version)> = given.collect();
        given.sort_unstable_by(|(left, _), (right, _)| left.id.cmp(&right.id));
        let versions = given.iter().map(|(verdict, version)| (verdict.id.as_str(), *version));
        let mut parameters_of_write = parameters(versions).to_vec();
        let verdicts = || given.iter().map(|(verdict, _)| verdict);
        parameters_of_write.push(arrays::text(verdicts().map(|verdict| verdict.thumbnail_url.as_deref())).into());
        parameters_of_write
            .push(arrays::jsonb(verdicts().map(|verdict| verdict.thumbnail_urls.map(Jsonb::datum))).into());
        let rows = write_flag::while_writing(|| connection.run(&self.write, Mode::Write, &parameters_of_write));
        if rows.len() != given.len() {
            return Err(Stale);
        }
        for row in 0..rows.len() {
            if let Some(n) = rows.get::<i64>(row, 0) {
                given[n as usize - 1].0.after = Some(After::read(&rows, row));
            }
        }
        Ok(())
    }

    /// What was written and what was there before, for undo.
    pub fn changes(&self, decided: &Decided, changes: &mut Changes) {
        let time = |time: Option<i64>| time.map(|time| json_text(time, self.time_type));
        let written = || {
            let verdicts = decided.verdicts.iter();
            verdicts.filter_map(|verdict| Some((verdict, verdict.before.as_ref()?, verdict.after.as_ref()?)))
        };
        let mut cell = |column, id: &str, before: Option<String>, after: Option<String>| {
            let change = changes.of(CELL_SET, &self.relation, Some(column), false);
            change.ids.push_text(id);
            change.before.push(before);
            change.after.push(after);
        };
        for (verdict, before, after) in written() {
            if verdict.thumbnail_url.is_some() {
                cell(
                    "thumbnail_url",
                    &verdict.id,
                    before.thumbnail_url.clone(),
                    after.thumbnail_url.clone(),
                );
            }
            if verdict.thumbnail_urls.is_some() {
                cell(
                    "thumbnail_urls",
                    &verdict.id,
                    before.thumbnail_urls.map(Jsonb::to_text),
                    after.thumbnail_urls.map(|urls| short(urls.to_text())),
                );
            }
        }
        // The last change is the first that goes back: a trigger that moves the time with every update comes after it.
        for (verdict, before, after) in written() {
            cell(
                "updated_at",
                &verdict.id,
                time(before.updated_at),
                time(after.updated_at),
            );
        }
    }
}
