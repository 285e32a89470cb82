//! Work to be done when a transaction ends, one way or the other.

use std::cell::RefCell;

use pgrx::pg_sys;

thread_local! {
    static WORK: RefCell<Vec<fn()>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` at every end of a transaction of this session; it must not raise. Called from `_PG_init`.
pub fn call(work: fn()) {
    WORK.with_borrow_mut(|all| all.push(work));
}

unsafe extern "C-unwind" fn at_transaction_end(_: pg_sys::XactEvent::Type, _: *mut std::ffi::c_void) {
    WORK.with(|all| {
        if let Ok(all) = all.try_borrow() {
            all.iter().for_each(|work| work());
        }
    });
}

/// Called once from `_PG_init`.
pub fn register() {
    // SAFETY: the callback lives as long as the library, which is never unloaded.
    unsafe { pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut()) };
}
