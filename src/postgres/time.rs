//! Points in time as the texts that undo reads them from.

use pgrx::pg_sys::{self, Datum};

/// The text that `to_jsonb(column) #>> '{}'` gives of a timestamp: ISO 8601, whatever DateStyle says. `type_oid` is that of
/// the column, one of the two types of timestamp; `microseconds` count from 2000, as PostgreSQL does.
pub fn json_text(microseconds: i64, type_oid: pg_sys::Oid) -> String {
    let mut buffer = [0 as std::ffi::c_char; pg_sys::MAXDATELEN as usize + 1];
    // SAFETY: the buffer is as long as the function wants it; it writes a NUL-terminated text.
    unsafe {
        pg_sys::JsonEncodeDateTime(
            buffer.as_mut_ptr(),
            Datum::from(microseconds),
            type_oid,
            std::ptr::null(),
        );
        std::ffi::CStr::from_ptr(buffer.as_ptr()).to_string_lossy().into_owned()
    }
}
