//! By what a write finds a row again, and sees whether it has changed since it was read.

use crate::engine::relation::Relation;
use crate::postgres::arrays;
use crate::postgres::spi::{Connection, Mode, Parameter, Rows};

/// A row as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Version {
    /// Where it lies, in a plain table.
    place: Option<[u8; 6]>,
    /// Another version of the row has another.
    fingerprint: i64,
}

/// How the rows of a relation, known by a column `id`, tell their versions.
pub struct Versions {
    alias: &'static str,
    /// The rows lie in one table, where their place leads to them without an index.
    have_places: bool,
    fingerprint: String,
}

impl Versions {
    /// `alias` is what statements call the row, `columns` what is read of it.
    pub fn of<'c>(
        connection: &Connection,
        relation: &Relation,
        alias: &'static str,
        columns: impl Iterator<Item = &'c str>,
    ) -> Self {
        let columns: Vec<String> = columns
            .filter(|column| relation.has(column))
            .map(|column| format!("{alias}.{}", crate::engine::relation::quote_ident(column)))
            .collect();
        let rows = connection.query(
            "SELECT c.relkind = 'r' AND NOT c.relhassubclass FROM pg_catalog.pg_class c WHERE c.oid = $1::pg_catalog.oid",
            Mode::Read,
            &[i64::from(relation.oid.to_u32()).into()],
        );
        Versions {
            alias,
            have_places: !rows.is_empty() && rows.get(0, 0) == Some(true),
            fingerprint: relation.row_version(alias, &columns),
        }
    }

    /// The two columns that [`Version::read`] takes.
    pub fn columns(&self) -> String {
        let place = match self.have_places {
            true => format!("{}.ctid", self.alias),
            false => "NULL::pg_catalog.tid".to_owned(),
        };
        format!("{place} AS place, {} AS fingerprint", self.fingerprint)
    }

    /// The condition that the row is the one that `u(id, place, fingerprint)` names, and still in that version. Another
    /// version lies at another place.
    pub fn is_same(&self) -> String {
        let alias = self.alias;
        let place = match self.have_places {
            true => format!("{alias}.ctid = u.place AND "),
            false => String::new(),
        };
        format!("{place}{alias}.id = u.id AND {} = u.fingerprint", self.fingerprint)
    }
}

impl Version {
    /// Reads [`Versions::columns`], which begin at `column`.
    pub fn read(rows: &Rows, row: usize, column: usize) -> Self {
        Version {
            place: rows.tid(row, column),
            fingerprint: rows.get(row, column + 1).unwrap_or_default(),
        }
    }
}

/// The arrays `id`, `place`, `fingerprint` of rows.
pub fn parameters<'r>(rows: impl Iterator<Item = (&'r str, Version)> + Clone) -> [Parameter; 3] {
    [
        arrays::text(rows.clone().map(|(id, _)| Some(id))).into(),
        arrays::tid(rows.clone().map(|(_, version)| version.place)).into(),
        arrays::int8(rows.map(|(_, version)| Some(version.fingerprint))).into(),
    ]
}
