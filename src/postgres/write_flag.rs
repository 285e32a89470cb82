//! The backend's mark "the engine is writing", by which our own triggers know to stay quiet.
//!
//! It is a variable of the backend and not a setting, so that no user can reach it, and an abort resets it.

use std::cell::Cell;

use pgrx::pg_sys;

thread_local! {
    static WRITING: Cell<bool> = const { Cell::new(false) };
}

/// Whether the engine is writing at this moment.
pub fn is_set() -> bool {
    WRITING.get()
}

/// Runs `work` with the mark set. An error that leaves `work` clears it.
pub fn while_writing<R>(work: impl FnOnce() -> R) -> R {
    struct Clear(bool);
    impl Drop for Clear {
        fn drop(&mut self) {
            WRITING.set(self.0);
        }
    }
    let _clear = Clear(WRITING.replace(true));
    work()
}

unsafe extern "C-unwind" fn at_transaction_end(_: pg_sys::XactEvent::Type, _: *mut std::ffi::c_void) {
    WRITING.set(false);
}

/// Makes every end of a transaction clear the mark; called once from `_PG_init`.
pub fn register() {
    // SAFETY: the callback lives as long as the library, which is never unloaded, and touches one thread-local.
    unsafe { pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut()) };
}
