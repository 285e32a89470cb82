//! What a run of one job knew, and in which order its changes are taken back.

use std::cell::RefCell;
use std::rc::Rc;

use super::assets::Assets;
use super::items::Items;
use super::keys::{Change, Keys};
use super::references::{Going, References};
use super::usages::Usages;
use super::uses::Uses;
use super::Kind;
use crate::engine::ledger::runs::Run;
use crate::engine::ledger::Ledger;
use crate::engine::relation::Relation;
use crate::engine::rights;
use crate::error::{not_undoable, Result};
use crate::jobs::asset_tables::{self, Found, Tables};
use crate::jobs::keys_program::KeysProgram;
use crate::postgres::spi::{Connection, Mode};

/// The tables of a run that is taken back.
pub trait Subject {
    /// The table on which the job's runs exclude each other.
    fn main(&self) -> &Relation;
    /// The relations by name, as a run's row in the ledger keeps them.
    fn names(&self) -> Vec<(&'static str, String)>;
    /// The names of the phases, one for each kind.
    fn phases(&self) -> &'static [&'static str];
    /// How many values the run wrote, where that is known better than by its counters.
    fn written(&self) -> Option<i64>;
    /// # Errors
    /// 42501 with what the caller may not do to the tables.
    fn check_rights(&self, connection: &Connection) -> Result<()>;
    /// How each kind of change is taken back, in that order: values go back before what they point at goes.
    ///
    /// # Errors
    /// 42501 when a table with a foreign key to what would go cannot be seen whole.
    fn kinds(&self, connection: &Connection, run_id: i64, ledger: &Rc<Ledger>) -> Result<Vec<Box<dyn Kind>>>;
    /// Called once when the undo begins.
    fn begin(&self, connection: &Connection, run_id: i64);
}

/// A run over lessons.
pub struct Lessons {
    tables: Rc<Tables>,
    assets: Relation,
    usages: Relation,
    /// The run wrote down which lessons are settled.
    marked: bool,
}

impl Lessons {
    /// # Errors
    /// 55000 when a table that the run wrote to has gone; else as `asset_tables::load`.
    pub fn of(connection: &Connection, found: Found, undone: &Run) -> Result<Self> {
        let tables = Rc::new(asset_tables::load_found(connection, found, false)?);
        let gone = |what| not_undoable(undone.run_id, what);
        let assets = tables.assets.clone();
        let usages = tables.usages.clone();
        Ok(Lessons {
            assets: assets.ok_or_else(|| gone("Its table of assets has gone."))?,
            usages: usages.ok_or_else(|| gone("Its table of usages has gone."))?,
            tables,
            marked: undone.options.contains_key("skip_settled"),
        })
    }

    fn state(&self) -> Option<&Relation> {
        self.tables.state.as_ref().filter(|_| self.marked)
    }
}

impl Subject for Lessons {
    fn main(&self) -> &Relation {
        &self.tables.lesson
    }

    fn names(&self) -> Vec<(&'static str, String)> {
        self.tables.names()
    }

    fn phases(&self) -> &'static [&'static str] {
        &["items", "usages", "assets", "keys_set"]
    }

    fn written(&self) -> Option<i64> {
        None
    }

    fn check_rights(&self, connection: &Connection) -> Result<()> {
        rights::check_privilege(connection, &self.assets, "UPDATE", &["canonical_key"])?;
        rights::check_privilege(connection, &self.tables.lesson, "UPDATE", &["videos", "documents"])?;
        if let Some(state) = self.state() {
            rights::check_privilege(connection, state, "DELETE", &[])?;
        }
        rights::check_privilege(connection, &self.assets, "DELETE", &[])?;
        rights::check_privilege(connection, &self.usages, "DELETE", &[])?;
        let none = Rc::default();
        if References::find(connection, (&self.usages, "id"), None, &none)?.is_empty() {
            return Ok(());
        }
        // They are locked before they go.
        rights::check_privilege(connection, &self.usages, "UPDATE", &["asset_id"])
    }

    fn kinds(&self, connection: &Connection, run_id: i64, ledger: &Rc<Ledger>) -> Result<Vec<Box<dyn Kind>>> {
        let uses = Rc::new(RefCell::new(Uses::default()));
        let asset_side = (&self.assets, &self.usages);
        let going = Going::of(connection, [(&self.usages, "id"), (&self.assets, "id")].into_iter());
        Ok(vec![
            Box::new(Items::new(&self.tables, &uses)),
            Box::new(Usages::new(connection, &self.usages, &uses, &going)?),
            Box::new(Assets::new(
                connection,
                run_id,
                ledger,
                &self.tables,
                asset_side,
                (&uses, &going),
            )?),
            Box::new(Keys::new(&self.assets, Change::Set, None)),
        ])
    }

    fn begin(&self, connection: &Connection, run_id: i64) {
        // What the run left is no longer as it left it.
        if let Some(state) = self.state() {
            let delete = format!("DELETE FROM {} t WHERE t.run_id = $1", state.sql_name);
            connection.query(&delete, Mode::Write, &[run_id.into()]);
        }
    }
}

/// A run that gave keys to assets.
pub struct KeysOfAssets {
    assets: Relation,
    /// The run took away keys that did not fit their row, too.
    refreshed: bool,
}

impl KeysOfAssets {
    /// # Errors
    /// 55000 when the table has gone; 42501 for row security or a missing privilege.
    pub fn of(connection: &Connection, found: Found, undone: &Run) -> Result<Self> {
        let program = KeysProgram::load(connection, found, false, false)?;
        let gone = || not_undoable(undone.run_id, "Its table of assets has gone.");
        Ok(KeysOfAssets {
            assets: program.ok_or_else(gone)?.assets,
            refreshed: undone.options.contains_key("refresh"),
        })
    }
}

impl Subject for KeysOfAssets {
    fn main(&self) -> &Relation {
        &self.assets
    }

    fn names(&self) -> Vec<(&'static str, String)> {
        vec![("assets", self.assets.sql_name.clone())]
    }

    fn phases(&self) -> &'static [&'static str] {
        &["keys_set", "keys_released"]
    }

    fn written(&self) -> Option<i64> {
        None
    }

    fn check_rights(&self, connection: &Connection) -> Result<()> {
        rights::check_privilege(connection, &self.assets, "UPDATE", &["canonical_key"])
    }

    fn kinds(&self, _: &Connection, _: i64, _: &Rc<Ledger>) -> Result<Vec<Box<dyn Kind>>> {
        let cleared = self.refreshed.then(Rc::default);
        Ok(vec![
            Box::new(Keys::new(&self.assets, Change::Set, cleared.as_ref())),
            Box::new(Keys::new(&self.assets, Change::Released, cleared.as_ref())),
        ])
    }

    fn begin(&self, _: &Connection, _: i64) {}
}
