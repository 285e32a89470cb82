//! Rows and the time of a collection that an ingest wrote.
//!
//! A row goes back as a whole. What was `ready` or approved never comes back so: somebody has to look at it again, and
//! the row stays as the run left it.

use media_assets_core::json::Json;

use std::rc::Rc;

use super::references::{Going, References};
use super::subject::Subject;
use super::{Counters, Element, Fate, Kind};
use crate::engine::ledger::runs::Run;
use crate::engine::ledger::Ledger;
use crate::engine::relation::Relation;
use crate::engine::{rights, Stale};
use crate::error::Result;
use crate::jobs::collection_ingest::changes::{self, RESTORED};
use crate::jobs::collection_ingest::tables::Tables;
use crate::postgres::jsonb::from_text;
use crate::postgres::spi::{Connection, Mode, Parameter, Statement};
use crate::postgres::{arrays, write_flag};

/// The phases of the undo of an ingest.
const PHASES: [&str; 5] = ["removed", "updated", "filled", "inserted", "time"];

/// A run over a collection.
pub struct Collection {
    tables: Tables,
}

impl Collection {
    /// # Errors
    /// 42P01 or 42703 when a table or column of the run has gone.
    pub fn of(connection: &Connection, undone: &Run) -> Result<Self> {
        let tables = Tables::load(connection, &|name| undone.relation(name).map(str::to_owned), false)?;
        Ok(Collection { tables })
    }
}

impl Subject for Collection {
    fn main(&self) -> &Relation {
        &self.tables.assets
    }

    fn names(&self) -> Vec<(&'static str, String)> {
        self.tables.names()
    }

    fn phases(&self) -> &'static [&'static str] {
        &PHASES
    }

    fn written(&self) -> Option<i64> {
        None
    }

    fn check_rights(&self, connection: &Connection) -> Result<()> {
        let Tables {
            collections, assets, ..
        } = &self.tables;
        rights::check_privilege(connection, collections, "UPDATE", &["last_ingest_time"])?;
        rights::check_privilege(connection, assets, "UPDATE", &RESTORED)?;
        rights::check_privilege(connection, assets, "DELETE", &[])
    }

    fn kinds(&self, connection: &Connection, _: i64, _: &Rc<Ledger>) -> Result<Vec<Box<dyn Kind>>> {
        let tables = &self.tables;
        Ok(vec![
            Box::new(Rows::restoring(tables, changes::REMOVED)),
            Box::new(Rows::restoring(tables, changes::UPDATED)),
            Box::new(Rows::restoring(tables, changes::FILLED)),
            Box::new(Rows::deleting(connection, tables)?),
            Box::new(Time::new(tables)),
        ])
    }

    fn begin(&self, _: &Connection, _: i64) {}
}

/// Rows of one kind of change.
struct Rows {
    action: &'static str,
    /// `None` where rows get back what they were; else they go, unless something refers to them.
    references: Option<References>,
    read: Statement,
    lock: Statement,
    write: Statement,
}

fn id_of(element: &Element) -> Option<[u8; 16]> {
    uuid::Uuid::parse_str(&element.id).ok().map(uuid::Uuid::into_bytes)
}

fn ids<'e>(elements: impl Iterator<Item = &'e Element>) -> Parameter {
    arrays::uuid(elements.map(id_of)).into()
}

fn undone<'e>(elements: &'e [Element], fates: &[Fate]) -> Vec<&'e Element> {
    let pairs = elements.iter().zip(fates);
    pairs
        .filter(|(_, fate)| **fate == Fate::Undo)
        .map(|(element, _)| element)
        .collect()
}

impl Rows {
    fn new(tables: &Tables, action: &'static str, references: Option<References>, write: String) -> Self {
        let table = &tables.assets.sql_name;
        let image = changes::image(&tables.assets);
        let lock = if references.is_some() {
            "UPDATE"
        } else {
            "NO KEY UPDATE"
        };
        Rows {
            action,
            references,
            read: Statement::new(format!(
                "SELECT u.n, ({image})::pg_catalog.text, {} FROM pg_catalog.unnest($1) WITH ORDINALITY u(id, n) JOIN {table} a ON a.uuid = u.id",
                changes::fingerprint(&image)
            )),
            lock: Statement::new(format!(
                "SELECT 1 FROM pg_catalog.unnest($1) WITH ORDINALITY u(id, n) JOIN {table} a ON a.uuid = u.id ORDER BY a.uuid FOR {lock} OF a"
            )),
            write: Statement::new(write),
        }
    }

    fn restoring(tables: &Tables, action: &'static str) -> Self {
        let values: Vec<String> = RESTORED
            .iter()
            .filter(|column| **column != "canonical_key")
            .map(|column| format!("{column} = {}", changes::value_of(&tables.assets, "u.image", column)))
            .collect();
        let write = format!(
            "UPDATE {} a SET {} FROM (SELECT r.id, r.before::pg_catalog.jsonb AS image
                 FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) r(id, before)) u
             WHERE a.uuid = u.id",
            tables.assets.sql_name,
            values.join(", ")
        );
        Self::new(tables, action, None, write)
    }

    fn deleting(connection: &Connection, tables: &Tables) -> Result<Self> {
        let going = Going::of(connection, std::iter::once((&tables.assets, "uuid")));
        let references = References::find(connection, (&tables.assets, "uuid"), None, &going)?;
        let write = format!(
            "DELETE FROM {} a USING ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) u(id, before) WHERE a.uuid = u.id",
            tables.assets.sql_name
        );
        Ok(Self::new(tables, changes::INSERTED, Some(references), write))
    }

    /// What becomes of a row that is there.
    fn fate(&self, element: &Element, image: Option<String>, fingerprint: Option<&str>) -> Fate {
        if fingerprint.is_some() && fingerprint == element.after.as_deref() {
            let needs_approval = element.before.as_deref().is_some_and(was_ready);
            return if needs_approval {
                Fate::Conflict("needs_approval")
            } else {
                Fate::Undo
            };
        }
        if image.is_some() && image == element.before {
            return Fate::Already;
        }
        Fate::Conflict("row_changed")
    }
}

/// Whether the image is of a row that was ready or approved.
fn was_ready(image: &str) -> bool {
    let image = from_text(image);
    let image = image.value();
    let state = image.get("state").and_then(Json::as_str);
    state.as_deref() == Some("ready")
        || image
            .get("approved_for_broadcast")
            .is_some_and(|value| value.to_text() == "true")
}

impl Kind for Rows {
    fn action(&self) -> &'static str {
        self.action
    }

    fn counter<'c>(&self, counters: &'c mut Counters) -> &'c mut i64 {
        match self.references {
            Some(_) => &mut counters.assets_removed,
            None => &mut counters.items_restored,
        }
    }

    fn begin(&mut self, _: &Connection, _: Mode) -> Result<()> {
        Ok(())
    }

    fn decide(&mut self, connection: &Connection, mode: Mode, elements: &[Element]) -> Vec<Fate> {
        let gone = match self.references {
            Some(_) => Fate::Already,
            None => Fate::Conflict("asset_gone"),
        };
        let mut fates = vec![gone; elements.len()];
        let rows = connection.run(&self.read, mode, &[ids(elements.iter())]);
        for row in 0..rows.len() {
            let Some(n) = rows.get::<i64>(row, 0) else { continue };
            let index = n as usize - 1;
            fates[index] = self.fate(&elements[index], rows.text(row, 1), rows.text(row, 2).as_deref());
        }
        drop(rows);
        if let Some(references) = &self.references {
            let all: Vec<&Element> = elements.iter().collect();
            references.mark(connection, mode, ids(elements.iter()), &all, &mut fates);
        }
        fates
    }

    fn write(
        &mut self,
        connection: &Connection,
        elements: &[Element],
        fates: &[Fate],
    ) -> std::result::Result<(), Stale> {
        let list = undone(elements, fates);
        connection.run(&self.lock, Mode::Write, &[ids(list.iter().copied())]);
        if self.decide(connection, Mode::Write, elements) != fates {
            return Err(Stale);
        }
        let parameters = [
            ids(list.iter().copied()),
            arrays::text(list.iter().map(|element| element.before.as_deref())).into(),
        ];
        let written = write_flag::while_writing(|| connection.run(&self.write, Mode::Write, &parameters)).len();
        if written == list.len() {
            Ok(())
        } else {
            Err(Stale)
        }
    }

    fn remember(&mut self, elements: &[Element], fates: &[Fate]) -> Result<()> {
        match &self.references {
            Some(references) => references.remember(&elements.iter().collect::<Vec<_>>(), fates),
            None => Ok(()),
        }
    }
}

/// `last_ingest_time`: it goes back unless another run has moved it since.
struct Time {
    read: Statement,
    write: Statement,
}

impl Time {
    fn new(tables: &Tables) -> Self {
        let table = &tables.collections.sql_name;
        let now = "pg_catalog.to_jsonb(c.last_ingest_time::pg_catalog.timestamptz AT TIME ZONE 'UTC') #>> '{}'";
        Time {
            read: Statement::new(format!(
                "SELECT u.n, {now} FROM pg_catalog.unnest($1) WITH ORDINALITY u(id, n) JOIN {table} c ON c.uuid = u.id"
            )),
            write: Statement::new(format!(
                "UPDATE {table} c SET last_ingest_time = u.before::pg_catalog.timestamp AT TIME ZONE 'UTC'
                 FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) u(id, before, after)
                 WHERE c.uuid = u.id AND {now} IS NOT DISTINCT FROM u.after"
            )),
        }
    }
}

impl Kind for Time {
    fn action(&self) -> &'static str {
        changes::TIME
    }

    fn counter<'c>(&self, counters: &'c mut Counters) -> &'c mut i64 {
        &mut counters.items_restored
    }

    fn begin(&mut self, _: &Connection, _: Mode) -> Result<()> {
        Ok(())
    }

    fn decide(&mut self, connection: &Connection, mode: Mode, elements: &[Element]) -> Vec<Fate> {
        let mut fates = vec![Fate::Conflict("collection_gone"); elements.len()];
        let rows = connection.run(&self.read, mode, &[ids(elements.iter())]);
        for row in 0..rows.len() {
            let Some(n) = rows.get::<i64>(row, 0) else { continue };
            let element = &elements[n as usize - 1];
            let now = rows.text(row, 1);
            fates[n as usize - 1] = if now == element.after {
                Fate::Undo
            } else if now == element.before {
                Fate::Already
            } else {
                Fate::Conflict("ingested_since")
            };
        }
        fates
    }

    fn write(
        &mut self,
        connection: &Connection,
        elements: &[Element],
        fates: &[Fate],
    ) -> std::result::Result<(), Stale> {
        let list = undone(elements, fates);
        let parameters = [
            ids(list.iter().copied()),
            arrays::text(list.iter().map(|element| element.before.as_deref())).into(),
            arrays::text(list.iter().map(|element| element.after.as_deref())).into(),
        ];
        let written = connection.run(&self.write, Mode::Write, &parameters).len();
        if written == list.len() {
            Ok(())
        } else {
            Err(Stale)
        }
    }

    fn remember(&mut self, _: &[Element], _: &[Fate]) -> Result<()> {
        Ok(())
    }
}
