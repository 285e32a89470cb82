//! A query that runs once and is read in pieces, forwards and, where it was opened so, from its start again.

use std::ffi::CString;

use pgrx::pg_sys;

use super::spi::{Connection, Mode, Parameter, Rows};

/// An open portal. What it sorts spills to disk beyond `work_mem`, so that it holds any number of rows.
pub struct Cursor {
    portal: pg_sys::Portal,
}

impl Cursor {
    /// Opens `sql`; nothing is read yet.
    pub fn open(connection: &Connection, sql: &str, mode: Mode, parameters: &[Parameter]) -> Self {
        Self::open_as(pg_sys::CURSOR_OPT_NO_SCROLL, connection, sql, mode, parameters)
    }

    /// As [`Cursor::open`], for one that is to go back: it keeps all of its rows, so that a sort writes them twice.
    pub fn open_to_rewind(connection: &Connection, sql: &str, mode: Mode, parameters: &[Parameter]) -> Self {
        Self::open_as(pg_sys::CURSOR_OPT_SCROLL, connection, sql, mode, parameters)
    }

    fn open_as(options: u32, _: &Connection, sql: &str, mode: Mode, parameters: &[Parameter]) -> Self {
        let text = CString::new(sql).unwrap_or_default();
        let mut types: Vec<pg_sys::Oid> = parameters.iter().map(Parameter::type_oid).collect();
        let (mut values, nulls) = Parameter::values_and_nulls(parameters);
        // SAFETY: strings and arrays outlive the calls, which copy them; a plan that is not kept is copied into the
        // portal. SPI leaves its own memory context current, so the caller's is put back.
        unsafe {
            let context = pg_sys::CurrentMemoryContext;
            let plan =
                pg_sys::SPI_prepare_cursor(text.as_ptr(), types.len() as i32, types.as_mut_ptr(), options as i32);
            assert!(!plan.is_null(), "SPI_prepare_cursor failed on: {sql}");
            let portal = pg_sys::SPI_cursor_open(
                std::ptr::null(),
                plan,
                values.as_mut_ptr(),
                nulls.as_ptr(),
                mode == Mode::Read,
            );
            pg_sys::SPI_freeplan(plan);
            pg_sys::MemoryContextSwitchTo(context);
            Cursor { portal }
        }
    }

    /// The next rows, at most `limit`.
    pub fn fetch(&mut self, _: &Connection, limit: i64) -> Rows {
        // SAFETY: the portal is open (it is closed by `drop` only) and belongs to this transaction.
        unsafe {
            let context = pg_sys::CurrentMemoryContext;
            pg_sys::SPI_cursor_fetch(self.portal, true, limit as _);
            pg_sys::MemoryContextSwitchTo(context);
            Rows::take()
        }
    }

    /// Goes back to before the first row.
    pub fn rewind(&mut self, _: &Connection) {
        // SAFETY: as in `fetch`; of a portal that cannot go back PostgreSQL raises an error.
        unsafe {
            let context = pg_sys::CurrentMemoryContext;
            pg_sys::SPI_scroll_cursor_move(self.portal, pg_sys::FetchDirection::FETCH_ABSOLUTE, 0);
            pg_sys::MemoryContextSwitchTo(context);
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        // While unwinding, the end of the transaction closes it.
        if !std::thread::panicking() {
            // SAFETY: open until here, and closed once.
            unsafe { pg_sys::SPI_cursor_close(self.portal) };
        }
    }
}
