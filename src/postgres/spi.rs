//! Statements through SPI: prepared once for a connection, their results freed as soon as they are dropped.
//!
//! pgrx's own client decides by itself when a statement is read-only and keeps results until it disconnects; a run
//! over millions of rows needs to say both.

use std::ffi::CString;
use std::marker::PhantomData;

use pgrx::pg_sys::{self, Datum};
use pgrx::FromDatum;

use super::arrays::{text_datum, ArrayDatum};

/// An open SPI connection.
pub struct Connection {
    /// Plans are left to their statements, which outlive the connection or its transaction.
    keeps_plans: bool,
    /// A procedure may commit.
    pub(super) may_commit: bool,
    _not_send: PhantomData<*mut ()>,
}

impl Connection {
    fn new(keeps_plans: bool, may_commit: bool) -> Self {
        Connection {
            keeps_plans,
            may_commit,
            _not_send: PhantomData,
        }
    }
}

/// Opens a connection for the length of `work`.
pub fn connect<R>(work: impl FnOnce(&Connection) -> R) -> R {
    connect_as(false, work)
}

/// Opens a connection that leaves the plans it makes to their statements, for later connections of this session.
pub fn connect_keeping_plans<R>(work: impl FnOnce(&Connection) -> R) -> R {
    connect_as(true, work)
}

fn connect_as<R>(keeps_plans: bool, work: impl FnOnce(&Connection) -> R) -> R {
    // SAFETY: connect and finish are paired; when `work` raises, the end of the (sub)transaction pops the connection,
    // so that it must not be finished here (there may be a deeper one on the stack).
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        pg_sys::SPI_connect();
        pg_sys::MemoryContextSwitchTo(context);
        let result = work(&Connection::new(keeps_plans, false));
        pg_sys::SPI_finish();
        pg_sys::MemoryContextSwitchTo(context);
        result
    }
}

/// Opens a connection in which a procedure may commit. The caller has checked that it may.
pub fn connect_committing<R>(work: impl FnOnce(&Connection) -> R) -> R {
    // SAFETY: as in `connect_as`.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        pg_sys::SPI_connect_ext(pg_sys::SPI_OPT_NONATOMIC as i32);
        pg_sys::MemoryContextSwitchTo(context);
        let result = work(&Connection::new(true, true));
        pg_sys::SPI_finish();
        pg_sys::MemoryContextSwitchTo(context);
        result
    }
}

/// Whether a statement sees the snapshot of the calling query, or what is committed when it starts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The caller's snapshot; may not write, takes no row locks, assigns no transaction id.
    Read,
    /// A snapshot of its own (READ COMMITTED); may write.
    Write,
}

/// A parameter, already in the form of a datum.
#[derive(Clone, Copy)]
pub struct Parameter {
    datum: Option<Datum>,
    type_oid: pg_sys::Oid,
}

impl From<ArrayDatum> for Parameter {
    fn from(array: ArrayDatum) -> Self {
        Parameter {
            datum: Some(array.datum),
            type_oid: array.type_oid,
        }
    }
}

impl From<Option<&str>> for Parameter {
    fn from(text: Option<&str>) -> Self {
        Parameter {
            datum: text.map(text_datum),
            type_oid: pg_sys::TEXTOID,
        }
    }
}

impl From<&str> for Parameter {
    fn from(text: &str) -> Self {
        Some(text).into()
    }
}

impl Parameter {
    pub fn interval(value: Option<Datum>) -> Self {
        Parameter {
            datum: value,
            type_oid: pg_sys::INTERVALOID,
        }
    }

    /// Microseconds since 2000, as PostgreSQL counts them.
    pub fn timestamp(microseconds: i64) -> Self {
        Parameter {
            datum: Some(Datum::from(microseconds)),
            type_oid: pg_sys::TIMESTAMPTZOID,
        }
    }

    pub(super) fn type_oid(&self) -> pg_sys::Oid {
        self.type_oid
    }

    /// The two arrays that SPI takes: values, and for each a blank or an `n` where it is NULL.
    pub(super) fn values_and_nulls(parameters: &[Parameter]) -> (Vec<Datum>, Vec<std::ffi::c_char>) {
        parameters
            .iter()
            .map(|parameter| {
                let null = if parameter.datum.is_some() { b' ' } else { b'n' };
                (parameter.datum.unwrap_or(Datum::from(0usize)), null as std::ffi::c_char)
            })
            .unzip()
    }

    pub fn null_uuid() -> Self {
        Self::null(pg_sys::UUIDOID)
    }

    /// A `uuid`.
    pub fn uuid(id: [u8; 16]) -> Self {
        Parameter {
            datum: Some(super::arrays::uuid_datum(id)),
            type_oid: pg_sys::UUIDOID,
        }
    }

    fn null(type_oid: pg_sys::Oid) -> Self {
        Parameter { datum: None, type_oid }
    }

    /// NULL as an array of the type.
    pub fn null_texts() -> Self {
        Self::null(pg_sys::TEXTARRAYOID)
    }

    pub fn null_uuids() -> Self {
        Self::null(pg_sys::UUIDARRAYOID)
    }

    pub fn null_int4s() -> Self {
        Self::null(pg_sys::INT4ARRAYOID)
    }

    pub fn timestamp_or_null(microseconds: Option<i64>) -> Self {
        Parameter {
            datum: microseconds.map(Datum::from),
            type_oid: pg_sys::TIMESTAMPTZOID,
        }
    }

    pub fn int4(number: Option<i32>) -> Self {
        Parameter {
            datum: number.map(Datum::from),
            type_oid: pg_sys::INT4OID,
        }
    }

    pub fn int8(number: Option<i64>) -> Self {
        Parameter {
            datum: number.map(Datum::from),
            type_oid: pg_sys::INT8OID,
        }
    }
}

impl From<i64> for Parameter {
    fn from(number: i64) -> Self {
        Parameter {
            datum: Some(Datum::from(number)),
            type_oid: pg_sys::INT8OID,
        }
    }
}

impl From<i32> for Parameter {
    fn from(number: i32) -> Self {
        Parameter {
            datum: Some(Datum::from(number)),
            type_oid: pg_sys::INT4OID,
        }
    }
}

impl From<bool> for Parameter {
    fn from(value: bool) -> Self {
        Parameter {
            datum: Some(Datum::from(value)),
            type_oid: pg_sys::BOOLOID,
        }
    }
}

/// A prepared statement; the types of its parameters are fixed when it is first run.
pub struct Statement {
    sql: String,
    plan: std::cell::Cell<pg_sys::SPIPlanPtr>,
    /// The plan is ours to free.
    kept: std::cell::Cell<bool>,
}

impl Statement {
    /// A statement that will be prepared at its first use.
    pub fn new(sql: impl Into<String>) -> Self {
        Statement {
            sql: sql.into(),
            plan: std::cell::Cell::new(std::ptr::null_mut()),
            kept: std::cell::Cell::new(false),
        }
    }

    fn plan(&self, parameters: &[Parameter], keep: bool) -> pg_sys::SPIPlanPtr {
        if self.plan.get().is_null() {
            let sql = CString::new(self.sql.as_str()).unwrap_or_default();
            let mut types: Vec<pg_sys::Oid> = parameters.iter().map(|parameter| parameter.type_oid).collect();
            // SAFETY: string and type array outlive the call, which copies them.
            let plan = unsafe { pg_sys::SPI_prepare(sql.as_ptr(), types.len() as i32, types.as_mut_ptr()) };
            assert!(!plan.is_null(), "SPI_prepare failed on: {}", self.sql);
            if keep {
                // SAFETY: the plan was just made. A kept plan is told of changed tables, also between transactions.
                unsafe { pg_sys::SPI_keepplan(plan) };
                self.kept.set(true);
            }
            self.plan.set(plan);
        }
        self.plan.get()
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        // While unwinding, the plan may still be in use further up; it is left to the end of the session then.
        if self.kept.get() && !std::thread::panicking() {
            // SAFETY: a kept plan belongs to this statement alone; one that is being executed is counted by its users.
            unsafe { pg_sys::SPI_freeplan(self.plan.get()) };
        }
    }
}

/// Whether `value` is the text of a value of `sql_type`. After `false` the transaction can only be given up: an error
/// was caught without a savepoint, which a dry run may not open.
pub fn reads_as(connection: &Connection, value: &str, sql_type: &str) -> bool {
    let sql = format!("SELECT $1::{sql_type} IS NULL");
    pg_sys::PgTryBuilder::new(std::panic::AssertUnwindSafe(|| {
        connection.query(&sql, Mode::Read, &[value.into()]);
        true
    }))
    .catch_others(|caught| match &caught {
        pg_sys::panic::CaughtError::PostgresError(report)
            if matches!(
                report.sql_error_code(),
                pgrx::PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION
                    | pgrx::PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE
                    | pgrx::PgSqlErrorCode::ERRCODE_INVALID_DATETIME_FORMAT
                    | pgrx::PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW
                    | pgrx::PgSqlErrorCode::ERRCODE_CHECK_VIOLATION
                    | pgrx::PgSqlErrorCode::ERRCODE_STRING_DATA_RIGHT_TRUNCATION
            ) =>
        {
            false
        }
        _ => caught.rethrow(),
    })
    .execute()
}

impl Connection {
    /// Runs `statement`; it must have been made for this connection, or be of one that keeps its plans.
    pub fn run(&self, statement: &Statement, mode: Mode, parameters: &[Parameter]) -> Rows {
        self.run_planned(statement, self.keeps_plans, mode, parameters)
    }

    fn run_planned(&self, statement: &Statement, keep: bool, mode: Mode, parameters: &[Parameter]) -> Rows {
        let (mut values, nulls) = Parameter::values_and_nulls(parameters);
        // SAFETY: the plan belongs to the open connection; values and nulls have one entry for each parameter. SPI
        // leaves its own memory context current, so the caller's is put back.
        unsafe {
            let context = pg_sys::CurrentMemoryContext;
            let plan = statement.plan(parameters, keep);
            pg_sys::MemoryContextSwitchTo(context);
            let code = pg_sys::SPI_execute_plan(plan, values.as_mut_ptr(), nulls.as_ptr(), mode == Mode::Read, 0);
            pg_sys::MemoryContextSwitchTo(context);
            assert!(code >= 0, "SPI_execute_plan gave {code} for: {}", statement.sql);
            Rows::take()
        }
    }

    /// Runs a utility statement, which no plan is kept for.
    pub fn execute_ddl(&self, sql: &str) {
        self.query(sql, Mode::Write, &[]);
    }

    /// Prepares and runs `sql` once.
    pub fn query(&self, sql: &str, mode: Mode, parameters: &[Parameter]) -> Rows {
        let statement = Statement::new(sql);
        let rows = self.run_planned(&statement, false, mode, parameters);
        // SAFETY: nothing else refers to the plan.
        unsafe { pg_sys::SPI_freeplan(statement.plan.get()) };
        rows
    }
}

/// The rows that a statement gave, freed when dropped.
pub struct Rows {
    table: *mut pg_sys::SPITupleTable,
    processed: usize,
}

impl Rows {
    /// What the last call of SPI left, which is this value's to free.
    ///
    /// # Safety
    /// The last call was one that gives rows, on the current connection.
    pub(super) unsafe fn take() -> Self {
        // SAFETY: reads and clears SPI's own variables.
        unsafe {
            let rows = Rows {
                table: pg_sys::SPI_tuptable,
                processed: pg_sys::SPI_processed as usize,
            };
            pg_sys::SPI_tuptable = std::ptr::null_mut();
            rows
        }
    }

    /// Rows returned, or affected where the statement returns none.
    pub fn len(&self) -> usize {
        self.processed
    }

    pub fn is_empty(&self) -> bool {
        self.processed == 0
    }

    /// The raw value at `row` and `column` (both from 0). Valid while `self` lives.
    pub fn datum(&self, row: usize, column: usize) -> Option<Datum> {
        assert!(!self.table.is_null() && row < self.processed);
        let mut is_null = false;
        // SAFETY: the row exists (checked), and SPI_getbinval checks the column against the descriptor.
        let datum = unsafe {
            let tuple = *(*self.table).vals.add(row);
            pg_sys::SPI_getbinval(tuple, (*self.table).tupdesc, column as i32 + 1, &mut is_null)
        };
        (!is_null).then_some(datum)
    }

    /// The value at `row` and `column` (both from 0) as a Rust value; `T` has to fit the column's type.
    pub fn get<T: FromDatum>(&self, row: usize, column: usize) -> Option<T> {
        // SAFETY: statements are written beside the code that reads them, with casts to the types it asks for.
        unsafe { T::from_datum(self.datum(row, column)?, false) }
    }

    pub fn text(&self, row: usize, column: usize) -> Option<String> {
        self.get(row, column)
    }

    /// A text, borrowed from the row (or from the current memory context, into which it was detoasted).
    pub fn str(&self, row: usize, column: usize) -> Option<&str> {
        self.get(row, column)
    }

    pub fn uuid(&self, row: usize, column: usize) -> Option<[u8; 16]> {
        self.get::<pgrx::Uuid>(row, column).map(|id| *id.as_bytes())
    }

    /// The place of a row: a value of a column of type tid.
    pub fn tid(&self, row: usize, column: usize) -> Option<[u8; 6]> {
        // SAFETY: asked only of columns of type tid, whose values are six bytes.
        self.datum(row, column)
            .map(|datum| unsafe { *datum.cast_mut_ptr::<[u8; 6]>() })
    }

    /// Bytes that a value of variable length takes when it is detoasted; 0 for NULL.
    pub fn raw_size(&self, row: usize, column: usize) -> usize {
        // SAFETY: asked only of columns of a varlena type; toast pointers are not followed.
        self.datum(row, column)
            .map_or(0, |datum| unsafe { pg_sys::toast_raw_datum_size(datum) })
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        // While unwinding, a deeper SPI connection may still be on the stack; the (sub)transaction's end frees the rows.
        if !self.table.is_null() && !std::thread::panicking() {
            // SAFETY: the table came from this connection and is freed once.
            unsafe { pg_sys::SPI_freetuptable(self.table) };
        }
    }
}
