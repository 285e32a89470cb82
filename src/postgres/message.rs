//! Messages to the client and the server's log.
//!
//! A cancel that is pending is raised when a message has been sent. pgrx sends messages outside its guard, so that such an
//! error would jump over the Rust frames between it and PostgreSQL, and over whatever they have to put in order.

use std::ffi::{c_char, c_int, CString};

use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::PgLogLevel;

// They are not among the bindings. PostgreSQL formats the text by "%s", so that nothing in it is a format.
unsafe extern "C-unwind" {
    fn errstart(level: c_int, domain: *const c_char) -> bool;
    fn errmsg(format: *const c_char, ...) -> c_int;
    fn errfinish(file: *const c_char, line: c_int, function: *const c_char);
}

/// Sends a message of a level below ERROR. An error that comes of it (a cancel) is raised as from any other call.
pub fn send(level: PgLogLevel, text: &str) {
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    // SAFETY: the calls are those that ereport() expands to; the strings are NUL-terminated and outlive them. The
    // boundary turns a longjmp out of them into a panic, which unwinds.
    unsafe {
        pg_guard_ffi_boundary(|| {
            if errstart(level as c_int, std::ptr::null()) {
                errmsg(c"%s".as_ptr(), text.as_ptr());
                errfinish(c"media_assets".as_ptr(), 0, c"message".as_ptr());
            }
        });
    }
}

macro_rules! levels {
    ($d:tt $($name:ident $level:ident)*) => {
        $(
            macro_rules! $name {
                ($d($d text:tt)*) => {
                    $crate::postgres::message::send(pgrx::PgLogLevel::$level, &format!($d($d text)*))
                };
            }
            pub(crate) use $name;
        )*
    };
}

levels! { $ info INFO notice NOTICE warning WARNING log LOG }
