//! A memory context for a stretch of work, so that a long run stays flat.

use pgrx::pg_sys;

/// Runs `work` in a memory context of its own, which is freed afterwards. What `work` returns must not point into it.
///
/// On an error the context goes with its parent, when the transaction or subtransaction is cleaned up.
pub fn in_own_context<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: the context is a child of the current one, is current only while `work` runs, and nothing keeps a pointer
    // to it; deleting it after switching back is what PostgreSQL's own code does.
    unsafe {
        let context = pg_sys::AllocSetContextCreateExtended(
            pg_sys::CurrentMemoryContext,
            c"media_assets slice".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        let before = pg_sys::MemoryContextSwitchTo(context);
        let result = work();
        pg_sys::MemoryContextSwitchTo(before);
        pg_sys::MemoryContextDelete(context);
        result
    }
}
