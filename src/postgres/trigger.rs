//! A call of a trigger function: the row at hand, the transition tables, and a state that lives as long as the statement.

use std::cell::RefCell;
use std::ffi::{CStr, CString};

use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::pg_sys::{self, Datum};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::PgMemoryContexts;

use super::jsonb::Jsonb;
use super::transitions::Transitions;

/// The event that a trigger was fired for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Insert,
    Update,
    Delete,
    Truncate,
}

/// A column of the trigger's table.
#[derive(Clone, Copy)]
pub struct Column {
    pub(super) number: i32,
    type_oid: pg_sys::Oid,
    by_value: bool,
    /// In bytes; -1 for a varlena.
    length: i16,
    /// The type's output function.
    output: pg_sys::Oid,
}

/// The running call.
pub struct TriggerCall {
    data: *mut pg_sys::TriggerData,
    function: *mut pg_sys::FmgrInfo,
}

/// What a trigger function returns.
pub struct Returned(Datum);

impl Returned {
    /// Of a statement trigger, whose result says nothing.
    pub fn nothing() -> Self {
        Returned(Datum::from(0usize))
    }
}

impl TriggerCall {
    /// `None` when the function was not called by the trigger manager.
    pub fn of(fcinfo: pg_sys::FunctionCallInfo) -> Option<Self> {
        // SAFETY: `fcinfo` is the running call's; its context, where there is one, is a node with a tag.
        unsafe {
            let context = (*fcinfo).context;
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
                return None;
            }
            Some(TriggerCall {
                data: context.cast(),
                function: (*fcinfo).flinfo,
            })
        }
    }

    fn event_bits(&self) -> u32 {
        // SAFETY: the trigger data live as long as the call.
        unsafe { (*self.data).tg_event }
    }

    pub fn event(&self) -> Event {
        match self.event_bits() & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => Event::Insert,
            pg_sys::TRIGGER_EVENT_DELETE => Event::Delete,
            pg_sys::TRIGGER_EVENT_UPDATE => Event::Update,
            _ => Event::Truncate,
        }
    }

    /// Whether it is a BEFORE … FOR EACH ROW call for an INSERT or UPDATE.
    pub fn is_before_row(&self) -> bool {
        let bits = self.event_bits();
        bits & pg_sys::TRIGGER_EVENT_ROW != 0
            && bits & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_BEFORE
            && matches!(self.event(), Event::Insert | Event::Update)
    }

    /// Whether it is an AFTER … FOR EACH STATEMENT call that has the transition tables of its event.
    pub fn is_after_statement(&self) -> bool {
        let bits = self.event_bits();
        // SAFETY: the trigger data live as long as the call.
        let (old, new) = unsafe { (!(*self.data).tg_oldtable.is_null(), !(*self.data).tg_newtable.is_null()) };
        let has_tables = match self.event() {
            Event::Insert => new,
            Event::Update => old && new,
            Event::Delete => old,
            Event::Truncate => true,
        };
        bits & pg_sys::TRIGGER_EVENT_ROW == 0
            && bits & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_AFTER
            && has_tables
    }

    /// The trigger's table.
    pub fn relation(&self) -> pg_sys::Oid {
        // SAFETY: the relation is open while the call runs.
        unsafe { (*(*self.data).tg_relation).rd_id }
    }

    /// Its owner.
    pub fn owner(&self) -> pg_sys::Oid {
        // SAFETY: the relation is open while the call runs.
        unsafe { (*(*(*self.data).tg_relation).rd_rel).relowner }
    }

    /// The arguments that CREATE TRIGGER gave.
    pub fn arguments(&self) -> Vec<String> {
        // SAFETY: the trigger has `tgnargs` arguments, C strings that live as long as the relation's cache entry.
        unsafe {
            let trigger = (*self.data).tg_trigger;
            (0..(*trigger).tgnargs as usize)
                .map(|n| CStr::from_ptr(*(*trigger).tgargs.add(n)).to_string_lossy().into_owned())
                .collect()
        }
    }

    /// Whether the table has a trigger of that name that fires in the same sessions as this one.
    pub fn has_sibling(&self, name: &CStr) -> bool {
        // SAFETY: a table whose trigger is running has a trigger descriptor of `numtriggers` entries.
        unsafe {
            let own = (*self.data).tg_trigger;
            let triggers = (*(*self.data).tg_relation).trigdesc;
            !triggers.is_null()
                && (0..(*triggers).numtriggers as usize).any(|n| {
                    let trigger = (*triggers).triggers.add(n);
                    CStr::from_ptr((*trigger).tgname) == name && (*trigger).tgenabled == (*own).tgenabled
                })
        }
    }

    fn descriptor(&self) -> pg_sys::TupleDesc {
        // SAFETY: the relation is open while the call runs.
        unsafe { (*(*self.data).tg_relation).rd_att }
    }

    /// The column called `name`, `None` where the table has none.
    pub fn column(&self, name: &str) -> Option<Column> {
        let name = CString::new(name).ok()?;
        // SAFETY: the descriptor is the open relation's; a type that a column has is in the catalog.
        unsafe {
            let number = pg_sys::SPI_fnumber(self.descriptor(), name.as_ptr());
            if number <= 0 {
                return None;
            }
            let type_oid = pg_sys::SPI_gettypeid(self.descriptor(), number);
            let (mut length, mut by_value) = (0, false);
            pg_sys::get_typlenbyval(type_oid, &mut length, &mut by_value);
            let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
            pg_sys::getTypeOutputInfo(type_oid, &mut output, &mut is_varlena);
            Some(Column {
                number,
                type_oid,
                by_value,
                length,
                output,
            })
        }
    }

    fn value(&self, tuple: pg_sys::HeapTuple, column: &Column) -> Option<Datum> {
        let mut is_null = false;
        // SAFETY: a row trigger's tuples are of the relation's descriptor, which has the column.
        let datum = unsafe { pg_sys::heap_getattr(tuple, column.number, self.descriptor(), &mut is_null) };
        (!is_null).then_some(datum)
    }

    fn new_tuple(&self) -> pg_sys::HeapTuple {
        // SAFETY: the trigger data live as long as the call; an INSERT has its row where others have the old one.
        unsafe {
            match self.event() {
                Event::Update => (*self.data).tg_newtuple,
                _ => (*self.data).tg_trigtuple,
            }
        }
    }

    /// A value of the row that a row trigger may change.
    pub fn new_value(&self, column: &Column) -> Option<Datum> {
        self.value(self.new_tuple(), column)
    }

    /// A value of the row as it was, in an UPDATE.
    pub fn old_value(&self, column: &Column) -> Option<Datum> {
        // SAFETY: the trigger data live as long as the call.
        self.value(unsafe { (*self.data).tg_trigtuple }, column)
    }

    /// [`TriggerCall::new_value`] of a column of jsonb, detoasted into the memory of the call.
    pub fn new_jsonb(&self, column: &Column) -> Option<Jsonb> {
        jsonb(column, self.new_value(column))
    }

    /// [`TriggerCall::old_value`] of a column of jsonb, detoasted into the memory of the call.
    pub fn old_jsonb(&self, column: &Column) -> Option<Jsonb> {
        jsonb(column, self.old_value(column))
    }

    /// Whether an UPDATE leaves these columns as they were, to the byte. Values that are stored apart are not fetched.
    pub fn leaves(&self, columns: &[Column]) -> bool {
        columns
            .iter()
            .all(|column| same_datum(column, self.old_value(column), self.new_value(column)))
    }

    /// The row as it is.
    pub fn row(&self) -> Returned {
        Returned(Datum::from(self.new_tuple()))
    }

    /// The row with other values in some columns.
    pub fn row_with(&self, values: &[(Column, Datum)]) -> Returned {
        let mut numbers: Vec<i32> = values.iter().map(|(column, _)| column.number).collect();
        let mut datums: Vec<Datum> = values.iter().map(|(_, datum)| *datum).collect();
        let mut nulls = vec![false; values.len()];
        // SAFETY: the three vectors have one entry for each changed column, all of them columns of the descriptor.
        let tuple = unsafe {
            pg_sys::heap_modify_tuple_by_cols(
                self.new_tuple(),
                self.descriptor(),
                values.len() as i32,
                numbers.as_mut_ptr(),
                datums.as_mut_ptr(),
                nulls.as_mut_ptr(),
            )
        };
        Returned(Datum::from(tuple))
    }

    /// What this trigger keeps from row to row of one statement. A trigger function has one type of state.
    pub fn state<T: Default>(&self) -> &RefCell<T> {
        // SAFETY: `fn_extra` is this function's own, and the trigger manager makes the FmgrInfo anew for each statement;
        // the value lives until the memory context of that FmgrInfo goes, after the last call.
        unsafe {
            if (*self.function).fn_extra.is_null() {
                let state =
                    PgMemoryContexts::For((*self.function).fn_mcxt).leak_and_drop_on_delete(RefCell::new(T::default()));
                (*self.function).fn_extra = state.cast();
            }
            &*(*self.function).fn_extra.cast::<RefCell<T>>()
        }
    }

    /// The rows that the statement wrote, from the transition tables.
    pub fn transitions(&self) -> Transitions {
        // SAFETY: the tables live until the statement's triggers are done, and have the relation's descriptor.
        unsafe { Transitions::of((*self.data).tg_oldtable, (*self.data).tg_newtable, self.descriptor()) }
    }
}

pub(super) fn jsonb(column: &Column, value: Option<Datum>) -> Option<Jsonb> {
    // SAFETY: the column is of that type (checked), and what is read of a row ends with its call.
    value
        .filter(|_| column.type_oid == pg_sys::JSONBOID)
        .map(|value| unsafe { Jsonb::from_raw(value) })
}

/// Whether two values of a column are the same to the byte.
pub(super) fn same_datum(column: &Column, left: Option<Datum>, right: Option<Datum>) -> bool {
    let (left, right) = match (left, right) {
        (None, None) => return true,
        (Some(left), Some(right)) => (left, right),
        _ => return false,
    };
    if column.by_value {
        return left.value() == right.value();
    }
    // SAFETY: values by reference are varlenas, or have the length of their type; another toast pointer is another value.
    let bytes = |datum: Datum| unsafe {
        let pointer = datum.cast_mut_ptr::<u8>();
        let length = match column.length {
            -1 => pgrx::varsize_any(pointer.cast()),
            length => usize::try_from(length).unwrap_or(0),
        };
        std::slice::from_raw_parts(pointer, length)
    };
    column.length != -2 && bytes(left) == bytes(right)
}

/// The text of a value of a column.
pub fn text_of(column: &Column, value: Datum) -> String {
    // SAFETY: the output function is that of the column's type; its result is a fresh C string that is copied here.
    unsafe {
        let text = pg_sys::OidOutputFunctionCall(column.output, value);
        let mut owned = CStr::from_ptr(text).to_string_lossy().into_owned();
        pg_sys::pfree(text.cast());
        if column.type_oid == pg_sys::BPCHAROID {
            // As its cast to text has it.
            owned.truncate(owned.trim_end_matches(' ').len());
        }
        owned
    }
}

// SAFETY: a heap tuple of the trigger's relation, or nothing, as the trigger manager expects it; never SQL's NULL.
unsafe impl BoxRet for Returned {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: as above.
        unsafe { fcinfo.return_raw_datum(self.0) }
    }
}

// SAFETY: never an argument; as a result it is what the hand-written SQL declares, a trigger's.
unsafe impl SqlTranslatable for Returned {
    const TYPE_IDENT: &'static str = "media_assets::postgres::trigger::Returned";
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Err(ArgumentError::NotValidAsArgument("Returned"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("trigger")));
}
