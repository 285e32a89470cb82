//! How scenes and sessions are written: the columns of each and its references together, or not at all.

use media_assets_core::jobs::s3_assets::Reference;

use super::tables::{Tables, REFERENCE_KEY};
use super::verdict::{Decided, Inserted, Verdict};
use crate::engine::journal::{row_fingerprint, Changes, CELL_SET, ROW_INSERTED};
use crate::engine::relation::{quote_ident, Relation};
use crate::engine::Stale;
use crate::jobs::needs::Need;
use crate::postgres::spi::{Connection, Mode, Parameter, Statement};
use crate::postgres::{arrays, write_flag};

/// Columns of a reference that its fingerprint is made of: texts and numbers, which read the same in every session.
pub const REFERENCE_CONTENT: [&str; 10] = [
    "entity_type",
    "entity_id",
    "asset_type",
    "s3_key",
    "s3_url",
    "content_type",
    "size",
    "checksum",
    "version",
    "metadata",
];

/// Writes verdicts about the rows of one relation.
pub struct Writer {
    relation: String,
    columns: Vec<Need>,
    references_name: String,
    makes_ids: bool,
    ids_are_uuids: bool,
    update: Statement,
    lock: Statement,
    insert: Statement,
}

impl Writer {
    /// `None` where there is no table of references yet, which only a dry run bears. `fingerprint` is an expression over a
    /// row `s`.
    pub fn new(tables: &Tables, relation: &Relation, columns: &[Need], fingerprint: &str) -> Option<Self> {
        let references = tables.references.as_ref()?;
        let name = &relation.sql_name;
        let places: Vec<usize> = (0..columns.len()).collect();
        let unnested: Vec<String> = places
            .iter()
            .map(|place| format!(", pg_catalog.unnest(${})", place + 3))
            .collect();
        let values: Vec<String> = places.iter().map(|place| format!(", new_{place}")).collect();
        let taken: Vec<String> = places.iter().map(|place| format!(", u.new_{place}")).collect();
        let sets: Vec<String> = columns
            .iter()
            .zip(&places)
            .map(|((column, _), place)| {
                let (sql_type, column) = (relation.type_of(column), quote_ident(column));
                format!("{column} = COALESCE(l.new_{place}::{sql_type}, s.{column})")
            })
            .collect();
        let ids_are_uuids = references.is_of_type("id", pgrx::pg_sys::UUIDOID);
        let (id_column, id_value) = if ids_are_uuids { ("id, ", "u.id, ") } else { ("", "") };
        Some(Writer {
            relation: name.clone(),
            columns: columns.to_vec(),
            references_name: references.sql_name.clone(),
            makes_ids: ids_are_uuids,
            ids_are_uuids,
            // One that has changed or gone since is not among the locked, so that the count says so.
            update: Statement::new(format!(
                "WITH locked AS MATERIALIZED (
                     SELECT s.id AS key{} FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2){}) WITH ORDINALITY u(id, fingerprint{}, n)
                     JOIN {name} s ON s.id = u.id WHERE {fingerprint} = u.fingerprint ORDER BY u.n FOR NO KEY UPDATE OF s)
                 UPDATE {name} s SET {} FROM locked l WHERE s.id = l.key",
                taken.concat(),
                unnested.concat(),
                values.concat(),
                sets.join(", ")
            )),
            lock: Statement::new(format!(
                "SELECT 1 FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) WITH ORDINALITY u(id, fingerprint, n)
                 JOIN {name} s ON s.id = u.id WHERE {fingerprint} = u.fingerprint ORDER BY u.n FOR NO KEY UPDATE OF s"
            )),
            insert: Statement::new(format!(
                "INSERT INTO {table} AS r ({id_column}entity_type, entity_id, asset_type, s3_key, s3_url, content_type, size, checksum, version,
                                           created_at, metadata)
                 SELECT {id_value}u.entity_type, u.entity_id, u.asset_type, u.s3_key, u.s3_url, u.content_type, u.size, u.checksum, u.version,
                        pg_catalog.now(), u.metadata::pg_catalog.jsonb
                 FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5),
                                 pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8), pg_catalog.unnest($9), pg_catalog.unnest($10),
                                 pg_catalog.unnest($11))
                      u(id, entity_type, entity_id, asset_type, s3_key, s3_url, content_type, size, checksum, version, metadata)
                 ON CONFLICT ({key}) DO NOTHING
                 RETURNING r.id::pg_catalog.text, {content}",
                table = references.sql_name,
                key = REFERENCE_KEY.join(", "),
                content = row_fingerprint("r", &REFERENCE_CONTENT),
            )),
        })
    }

    /// Writes what was decided for the slice.
    ///
    /// # Errors
    /// [`Stale`] when a row changed since it was read, or another session made one of the references.
    pub fn write(&self, connection: &Connection, mut decided: Decided) -> Result<Decided, Stale> {
        write_flag::while_writing(|| {
            let mut changing: Vec<&Verdict> = decided.verdicts.iter().filter(|verdict| verdict.has_writes()).collect();
            // In one order everywhere, so that sessions do not wait for each other in a circle.
            changing.sort_unstable_by(|left, right| left.id.cmp(&right.id));
            let (updated, only_references): (Vec<&Verdict>, Vec<&Verdict>) =
                changing.iter().partition(|verdict| !verdict.writes.is_empty());
            if !only_references.is_empty() {
                let parameters = keys(&only_references);
                expect(
                    connection.run(&self.lock, Mode::Write, &parameters).len(),
                    only_references.len(),
                )?;
            }
            if !updated.is_empty() {
                let mut parameters = keys(&updated).to_vec();
                parameters.extend(self.columns.iter().map(|(column, _)| {
                    let of = |verdict: &'_ &Verdict| -> Option<String> {
                        let write = verdict.writes.iter().find(|write| write.column == *column)?;
                        Some(write.after.clone())
                    };
                    let values: Vec<Option<String>> = updated.iter().map(of).collect();
                    Parameter::from(arrays::text(values.iter().map(Option::as_deref)))
                }));
                expect(
                    connection.run(&self.update, Mode::Write, &parameters).len(),
                    updated.len(),
                )?;
            }
            let references: Vec<(&str, &Reference)> = changing
                .iter()
                .flat_map(|verdict| {
                    verdict
                        .references
                        .iter()
                        .map(|reference| (verdict.id.as_str(), reference))
                })
                .collect();
            let inserted = self.insert(connection, &references)?;
            decided.inserted = inserted;
            Ok(())
        })?;
        Ok(decided)
    }

    fn insert(&self, connection: &Connection, references: &[(&str, &Reference)]) -> Result<Vec<Inserted>, Stale> {
        if references.is_empty() {
            return Ok(Vec::new());
        }
        let text = |of: &dyn Fn(&Reference) -> Option<&str>| -> Parameter {
            arrays::text(references.iter().map(|(_, reference)| of(reference))).into()
        };
        let metadata: Vec<String> = references
            .iter()
            .map(|(_, reference)| reference.metadata.to_string())
            .collect();
        let parameters = [
            arrays::uuid(
                references
                    .iter()
                    .map(|_| self.makes_ids.then(|| *uuid::Uuid::now_v7().as_bytes())),
            )
            .into(),
            text(&|reference| Some(reference.entity_type.name())),
            arrays::text(references.iter().map(|(id, _)| Some(*id))).into(),
            text(&|reference| Some(reference.asset_type.name())),
            text(&|reference| reference.s3_key.as_deref()),
            text(&|reference| reference.s3_url.as_deref()),
            text(&|reference| reference.content_type.as_deref()),
            arrays::int8(references.iter().map(|(_, reference)| reference.size)).into(),
            text(&|reference| reference.checksum.as_deref()),
            arrays::int4(references.iter().map(|(_, reference)| Some(reference.version))).into(),
            arrays::text(metadata.iter().map(|metadata| Some(metadata.as_str()))).into(),
        ];
        let rows = connection.run(&self.insert, Mode::Write, &parameters);
        expect(rows.len(), references.len())?;
        Ok((0..rows.len())
            .filter_map(|row| Some((rows.text(row, 0)?, rows.text(row, 1))))
            .collect())
    }

    /// What was written and what was there before, for undo.
    pub fn changes(&self, decided: &Decided, changes: &mut Changes) {
        let rows = changes.of(ROW_INSERTED, &self.references_name, Some("id"), self.ids_are_uuids);
        for (id, content) in &decided.inserted {
            rows.ids.push_text(id);
            rows.after.push(content.clone());
        }
        for verdict in &decided.verdicts {
            for write in &verdict.writes {
                let cells = changes.of(CELL_SET, &self.relation, Some(write.column), false);
                cells.ids.push_text(&verdict.id);
                cells.before.push(write.before.clone());
                cells.after.push(Some(write.after.clone()));
            }
        }
    }
}

fn keys(verdicts: &[&Verdict]) -> [Parameter; 2] {
    [
        arrays::text(verdicts.iter().map(|verdict| Some(verdict.id.as_str()))).into(),
        arrays::int8(verdicts.iter().map(|verdict| Some(verdict.fingerprint))).into(),
    ]
}

fn expect(rows: usize, wanted: usize) -> Result<(), Stale> {
    if rows == wanted {
        Ok(())
    } else {
        Err(Stale)
    }
}
