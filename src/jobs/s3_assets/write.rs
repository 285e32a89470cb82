//! How scenes and sessions are written: the columns of each and its references together, or not at all.

use media_assets_core::jobs::s3_assets::Reference;

use super::tables::{Tables, REFERENCE_KEY};
use super::verdict::{Decided, Id, Inserted, New, Verdict};
use crate::engine::journal::{fingerprint, row_text, Changes, CELL_SET, ROW_INSERTED};
use crate::engine::relation::{quote_ident, Relation};
use crate::engine::Stale;
use crate::jobs::needs::{ColumnType, Need};
use crate::jobs::row_version::{parameters, Versions};
use crate::postgres::jsonb::Jsonb;
use crate::postgres::jsonb_build::from_json;
use crate::postgres::spi::{Connection, Mode, Parameter, Rows, Statement};
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
    ids_are_uuids: bool,
    update: Statement,
    lock: Statement,
    insert: Statement,
}

impl Writer {
    /// `None` where there is no table of references yet, which only a dry run bears. `versions` are those of a row `s`.
    pub fn new(tables: &Tables, relation: &Relation, columns: &[Need], versions: &Versions) -> Option<Self> {
        let references = tables.references.as_ref()?;
        let name = &relation.sql_name;
        let is_same = versions.is_same();
        let places = || 0..columns.len();
        let unnested: Vec<String> = places()
            .map(|place| format!(", pg_catalog.unnest(${})", place + 4))
            .collect();
        let values: Vec<String> = places().map(|place| format!(", new_{place}")).collect();
        let sets: Vec<String> = columns
            .iter()
            .zip(places())
            .map(|((column, _), place)| {
                let (sql_type, column) = (relation.type_of(column), quote_ident(column));
                format!("{column} = COALESCE(u.new_{place}::{sql_type}, s.{column})")
            })
            .collect();
        let ids_are_uuids = references.is_of_type("id", pgrx::pg_sys::UUIDOID);
        let (id_column, id_value) = if ids_are_uuids { ("id, ", "u.id, ") } else { ("", "") };
        let id = if ids_are_uuids { "r.id" } else { "r.id::pg_catalog.text" };
        Some(Writer {
            relation: name.clone(),
            columns: columns.to_vec(),
            references_name: references.sql_name.clone(),
            ids_are_uuids,
            // One that has changed or gone since is not among the written, so that the count says so; one that another
            // session holds is looked at again when that lets go. Rows are locked in the order of the arrays.
            update: Statement::new(format!(
                "UPDATE {name} s SET {}
                 FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3){})
                      u(id, place, fingerprint{})
                 WHERE {is_same}",
                sets.join(", "),
                unnested.concat(),
                values.concat()
            )),
            lock: Statement::new(format!(
                "SELECT 1 FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3))
                               WITH ORDINALITY u(id, place, fingerprint, n)
                 JOIN {name} s ON {is_same} ORDER BY u.n FOR NO KEY UPDATE OF s"
            )),
            insert: Statement::new(format!(
                "INSERT INTO {table} AS r ({id_column}entity_type, entity_id, asset_type, s3_key, s3_url, content_type, size, checksum, version,
                                           created_at, metadata)
                 SELECT {id_value}u.entity_type, u.entity_id, u.asset_type, u.s3_key, u.s3_url, u.content_type, u.size, u.checksum, u.version,
                        pg_catalog.now(), u.metadata
                 FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5),
                                 pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8), pg_catalog.unnest($9), pg_catalog.unnest($10),
                                 pg_catalog.unnest($11))
                      u(id, entity_type, entity_id, asset_type, s3_key, s3_url, content_type, size, checksum, version, metadata)
                 ON CONFLICT ({key}) DO NOTHING
                 RETURNING {id}, {content}",
                table = references.sql_name,
                key = REFERENCE_KEY.join(", "),
                content = row_text("r", &REFERENCE_CONTENT),
            )),
        })
    }

    /// Writes what was decided for the slice.
    ///
    /// # Errors
    /// [`Stale`] when a row changed since it was read, or another session made one of the references.
    pub fn write(&self, connection: &Connection, mut decided: Decided) -> Result<Decided, Stale> {
        // In one order everywhere, so that sessions do not wait for each other in a circle.
        decided.verdicts.sort_unstable_by(|left, right| left.id.cmp(&right.id));
        for write in decided.verdicts.iter_mut().flat_map(|verdict| &mut verdict.writes) {
            if let New::Json(value) = &write.after {
                write.stored = Some(from_json(value));
            }
        }
        let changing = decided.verdicts.iter().filter(|verdict| verdict.has_writes());
        let (updated, only_references): (Vec<&Verdict>, Vec<&Verdict>) =
            changing.clone().partition(|verdict| !verdict.writes.is_empty());
        let references: Vec<(&str, &Reference)> = changing
            .flat_map(|verdict| {
                verdict
                    .references
                    .iter()
                    .map(|reference| (verdict.id.as_str(), reference))
            })
            .collect();
        let inserted = write_flag::while_writing(|| {
            if !only_references.is_empty() {
                let locked = connection.run(&self.lock, Mode::Write, &versions(&only_references));
                expect(&locked, only_references.len())?;
            }
            if !updated.is_empty() {
                let mut parameters = versions(&updated).to_vec();
                parameters.extend(self.columns.iter().map(|column| values(column, &updated)));
                expect(&connection.run(&self.update, Mode::Write, &parameters), updated.len())?;
            }
            self.insert(connection, &references)
        })?;
        decided.inserted = inserted;
        Ok(decided)
    }

    fn insert(&self, connection: &Connection, references: &[(&str, &Reference)]) -> Result<Vec<Inserted>, Stale> {
        if references.is_empty() {
            return Ok(Vec::new());
        }
        let text = |of: &dyn Fn(&Reference) -> Option<&str>| -> Parameter {
            arrays::text(references.iter().map(|(_, reference)| of(reference))).into()
        };
        let ids = references
            .iter()
            .map(|_| self.ids_are_uuids.then(|| *uuid::Uuid::now_v7().as_bytes()));
        let metadata = references
            .iter()
            .map(|(_, reference)| Some(from_json(&reference.metadata).datum()));
        let parameters = [
            arrays::uuid(ids).into(),
            text(&|reference| Some(reference.entity_type.name())),
            arrays::text(references.iter().map(|(id, _)| Some(*id))).into(),
            text(&|reference| Some(reference.asset_type.name())),
            text(&|reference| reference.s3_key.as_deref()),
            text(&|reference| reference.s3_url.as_deref()),
            text(&|reference| reference.content_type.as_deref()),
            arrays::int8(references.iter().map(|(_, reference)| reference.size)).into(),
            text(&|reference| reference.checksum.as_deref()),
            arrays::int4(references.iter().map(|(_, reference)| Some(reference.version))).into(),
            arrays::jsonb(metadata).into(),
        ];
        let rows = connection.run(&self.insert, Mode::Write, &parameters);
        expect(&rows, references.len())?;
        let inserted = |row| {
            let id = match self.ids_are_uuids {
                true => Id::Uuid(rows.uuid(row, 0)?),
                false => Id::Text(rows.text(row, 0)?),
            };
            let fingerprint = rows.text(row, 1).map(|text| fingerprint(&text));
            Some(Inserted { id, fingerprint })
        };
        Ok((0..rows.len()).filter_map(inserted).collect())
    }

    /// What was written and what was there before, for undo.
    pub fn changes(&self, decided: &Decided, changes: &mut Changes) {
        let rows = changes.of(ROW_INSERTED, &self.references_name, Some("id"), self.ids_are_uuids);
        for inserted in &decided.inserted {
            match &inserted.id {
                Id::Uuid(id) => rows.ids.push_uuid(*id),
                Id::Text(id) => rows.ids.push_text(id),
            }
            rows.after.push(inserted.fingerprint.clone());
        }
        for verdict in &decided.verdicts {
            for write in &verdict.writes {
                let cells = changes.of(CELL_SET, &self.relation, Some(write.column), false);
                cells.ids.push_text(&verdict.id);
                cells.before.push(write.before.clone());
                cells.after.push(Some(write.after_text()));
            }
        }
    }
}

fn versions(verdicts: &[&Verdict]) -> [Parameter; 3] {
    parameters(verdicts.iter().map(|verdict| (verdict.id.as_str(), verdict.version)))
}

/// What each row gets in a column; NULL where it stays as it is.
fn values((column, column_type): &Need, verdicts: &[&Verdict]) -> Parameter {
    let writes = verdicts
        .iter()
        .map(|verdict| verdict.writes.iter().find(|write| write.column == *column));
    match column_type {
        ColumnType::Jsonb => arrays::jsonb(writes.map(|write| write?.stored.map(Jsonb::datum))),
        ColumnType::Integer | ColumnType::Bigint => arrays::int8(writes.map(|write| match &write?.after {
            New::Number(number) => Some(*number),
            _ => None,
        })),
        _ => arrays::text(writes.map(|write| match &write?.after {
            New::Text(text) => Some(text.as_str()),
            _ => None,
        })),
    }
    .into()
}

fn expect(rows: &Rows, wanted: usize) -> Result<(), Stale> {
    if rows.len() == wanted {
        Ok(())
    } else {
        Err(Stale)
    }
}
