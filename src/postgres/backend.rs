//! What the backend says of the present transaction and its rights.

use std::ffi::CString;

use pgrx::pg_sys;

/// Raises the server's own error for a writing command in a READ ONLY transaction or during recovery (25006).
pub fn prevent_if_read_only(command: &str) {
    if let Ok(command) = CString::new(command) {
        // SAFETY: the string outlives the calls, which read it for their message only.
        unsafe {
            pg_sys::PreventCommandIfReadOnly(command.as_ptr());
            pg_sys::PreventCommandDuringRecovery(command.as_ptr());
        }
    }
}

/// Whether the transaction runs at READ COMMITTED (or below, which is the same).
pub fn is_read_committed() -> bool {
    // SAFETY: reads a plain variable of the backend.
    unsafe { pg_sys::XactIsoLevel < pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// Lets a cancel request or a shutdown through between statements.
pub fn check_for_interrupts() {
    pgrx::check_for_interrupts!();
}
