//! The rows of a set-returning function, collected in a tuple store that spills to disk.

use pgrx::pg_sys::{self, Datum};

use crate::error::{not_supported, Result};

/// The result set of the running call.
pub struct RowSet {
    store: *mut pg_sys::Tuplestorestate,
    descriptor: pg_sys::TupleDesc,
}

impl RowSet {
    /// Makes the call return what is [`put`](RowSet::put).
    ///
    /// # Errors
    /// 0A000 where the caller cannot take a set.
    pub fn begin(fcinfo: pg_sys::FunctionCallInfo) -> Result<Self> {
        // SAFETY: `fcinfo` is the running call's; store and descriptor are made in the query's memory context, as
        // materialize mode asks, and handed over in its ReturnSetInfo.
        unsafe {
            let info = (*fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            let allowed = !info.is_null()
                && (*info).type_ == pg_sys::NodeTag::T_ReturnSetInfo
                && (*info).allowedModes & pg_sys::SetFunctionReturnMode::SFRM_Materialize as i32 != 0;
            if !allowed {
                return Err(not_supported(
                    "a set of rows cannot be returned here",
                    "SELECT * FROM the function.",
                ));
            }
            let before = pg_sys::MemoryContextSwitchTo((*(*info).econtext).ecxt_per_query_memory);
            let mut descriptor = std::ptr::null_mut();
            pg_sys::get_call_result_type(fcinfo, std::ptr::null_mut(), &mut descriptor);
            let descriptor = pg_sys::CreateTupleDescCopy(descriptor);
            let random_access =
                (*info).allowedModes & pg_sys::SetFunctionReturnMode::SFRM_Materialize_Random as i32 != 0;
            let store = pg_sys::tuplestore_begin_heap(random_access, false, pg_sys::work_mem);
            (*info).returnMode = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
            (*info).setResult = store;
            (*info).setDesc = descriptor;
            pg_sys::MemoryContextSwitchTo(before);
            Ok(RowSet { store, descriptor })
        }
    }

    /// Adds a row; one value for each column.
    pub fn put(&self, values: &[Option<Datum>]) {
        let nulls: Vec<bool> = values.iter().map(Option::is_none).collect();
        let datums: Vec<Datum> = values
            .iter()
            .map(|value| value.unwrap_or(Datum::from(0usize)))
            .collect();
        // SAFETY: the store copies the values; their number is the descriptor's.
        unsafe {
            assert!((*self.descriptor).natts as usize == values.len());
            pg_sys::tuplestore_putvalues(
                self.store,
                self.descriptor,
                datums.as_ptr().cast_mut(),
                nulls.as_ptr().cast_mut(),
            );
        }
    }
}
