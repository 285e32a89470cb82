//! Transactions of a procedure: commit, and what a statement needs that the commit took away.

use pgrx::pg_sys;

use super::spi::Connection;

/// Whether the running call may commit: a CALL outside a transaction block and outside an exception block, of a
/// procedure without SET clause.
pub fn may_commit(fcinfo: pg_sys::FunctionCallInfo) -> bool {
    // SAFETY: `fcinfo` is the running call's; its context is NULL or a node, whose tag says what it is. The rest
    // reads the state of the transaction.
    unsafe {
        let context = (*fcinfo).context;
        !context.is_null()
            && (*context).type_ == pg_sys::NodeTag::T_CallContext
            && !(*context.cast::<pg_sys::CallContext>()).atomic
            && !pg_sys::IsSubTransaction()
    }
}

/// Commits, and begins the next transaction.
///
/// # Panics
/// With what the commit raises.
pub fn commit(connection: &Connection) {
    assert!(connection.may_commit);
    // SAFETY: the connection is the current one and non-atomic; no subtransaction is open and no snapshot of ours is
    // active, since both live inside `in_subtransaction` and `with_snapshot`.
    unsafe { pg_sys::SPI_commit() };
}

/// Runs `work` with a snapshot of its own: values that are stored out of line need one to be read.
pub fn with_snapshot<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: push and pop are paired; when `work` raises, the end of the (sub)transaction pops.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let result = work();
        pg_sys::PopActiveSnapshot();
        result
    }
}
