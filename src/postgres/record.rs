//! One row as the result of a function with OUT columns.

use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::pg_sys;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};

/// A composite value, ready to be returned. Functions that return it write their SQL by hand.
pub struct Record(pg_sys::Datum);

/// Makes the row that `fcinfo`'s function is declared to return; one value for each OUT column, in their order.
pub fn form(fcinfo: pg_sys::FunctionCallInfo, values: &[Option<pg_sys::Datum>]) -> Record {
    let mut nulls: Vec<bool> = values.iter().map(Option::is_none).collect();
    let mut datums: Vec<pg_sys::Datum> = values
        .iter()
        .map(|value| value.unwrap_or(pg_sys::Datum::from(0usize)))
        .collect();
    // SAFETY: `fcinfo` is the running call's; the descriptor is that of its declared result, and the caller gives one
    // value for each of its columns, which is checked.
    unsafe {
        let mut descriptor = std::ptr::null_mut();
        pg_sys::get_call_result_type(fcinfo, std::ptr::null_mut(), &mut descriptor);
        assert!(!descriptor.is_null() && (*descriptor).natts as usize == values.len());
        let descriptor = pg_sys::BlessTupleDesc(descriptor);
        let tuple = pg_sys::heap_form_tuple(descriptor, datums.as_mut_ptr(), nulls.as_mut_ptr());
        Record(pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data))
    }
}

// SAFETY: the datum is a composite made for this call's own result type.
unsafe impl BoxRet for Record {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: as above.
        unsafe { fcinfo.return_raw_datum(self.0) }
    }
}

// SAFETY: never an argument; as a result it is a record, whose columns the hand-written SQL declares.
unsafe impl SqlTranslatable for Record {
    const TYPE_IDENT: &'static str = "media_assets::postgres::record::Record";
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Err(ArgumentError::NotValidAsArgument("Record"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("record")));
}
