//! The ledger: tables of the extension, written as their owner. Nothing that SQL can call writes what it is told.

pub mod decisions;
pub mod record;
pub mod runs;

use std::cell::RefCell;
use std::collections::HashMap;

use pgrx::pg_sys;

use crate::engine::relation::quote_ident;
use crate::error::Result;
use crate::postgres::settings_level::SettingsLevel;
use crate::postgres::spi::{Connection, Mode, Parameter, Rows, Statement};
use crate::postgres::user::as_role;

/// Counts of a run that is shared are exact from here to the end of the transaction: sessions that come this far wait for
/// each other.
fn lock_run(connection: &Connection, ledger: &Ledger, run_id: i64) {
    ledger.write(
        connection,
        "SELECT FROM ~backfill_runs WHERE run_id = $1 FOR NO KEY UPDATE",
        &[run_id.into()],
    );
}

/// The extension as this database has it, and the statements that a connection has prepared on its tables.
pub struct Ledger {
    owner: pg_sys::Oid,
    /// Quoted, with a dot behind it.
    schema: String,
    statements: RefCell<HashMap<&'static str, Statement>>,
}

impl Ledger {
    /// # Errors
    /// 42704 when the extension is not installed in this database.
    pub fn open(connection: &Connection) -> Result<Self> {
        let rows = connection.query(
            "SELECT e.extowner, n.nspname::pg_catalog.text FROM pg_catalog.pg_extension e
             JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace
             WHERE e.extname OPERATOR(pg_catalog.=) 'media_assets'",
            Mode::Read,
            &[],
        );
        if rows.is_empty() {
            return Err(crate::error::not_installed());
        }
        let (Some(owner), Some(schema)) = (rows.get(0, 0), rows.text(0, 1)) else {
            return Err(crate::error::not_installed());
        };
        Ok(Ledger {
            owner,
            schema: format!("{}.", quote_ident(&schema)),
            statements: RefCell::default(),
        })
    }

    pub fn owner(&self) -> pg_sys::Oid {
        self.owner
    }

    /// Runs `sql` with the rights of the extension's owner, under a search_path that nobody else can put operators in.
    /// `~` stands for the schema of the extension. The statement is prepared once.
    pub fn run(&self, connection: &Connection, mode: Mode, sql: &'static str, parameters: &[Parameter]) -> Rows {
        let mut statements = self.statements.borrow_mut();
        let statement = statements
            .entry(sql)
            .or_insert_with(|| Statement::new(sql.replace('~', &self.schema)));
        let _path = SettingsLevel::with([("search_path", "pg_catalog, pg_temp".to_owned())]);
        as_role(self.owner, || connection.run(statement, mode, parameters))
    }

    /// [`Ledger::run`], for writing.
    pub fn write(&self, connection: &Connection, sql: &'static str, parameters: &[Parameter]) -> Rows {
        self.run(connection, Mode::Write, sql, parameters)
    }
}
