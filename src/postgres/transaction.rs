//! Transactions of a procedure: commit, and what a statement needs that the commit took away.

use std::cell::RefCell;

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

/// What is told of a piece of work, once it is known whether it stays.
struct Ending {
    /// The (sub)transaction that holds the work; one that commits hands it to the one around it.
    held_by: pg_sys::SubTransactionId,
    committed: Box<dyn FnOnce()>,
    rolled_back: Box<dyn FnOnce()>,
}

thread_local! {
    static ENDINGS: RefCell<Vec<Ending>> = const { RefCell::new(Vec::new()) };
}

/// Does one thing when what this transaction does now has committed, another when it was rolled back, be it with the
/// savepoint around it only. Neither may raise.
pub fn at_end(committed: impl FnOnce() + 'static, rolled_back: impl FnOnce() + 'static) {
    // SAFETY: reads a number of the running transaction.
    let held_by = unsafe { pg_sys::GetCurrentSubTransactionId() };
    ENDINGS.with_borrow_mut(|endings| {
        endings.push(Ending {
            held_by,
            committed: Box::new(committed),
            rolled_back: Box::new(rolled_back),
        });
    });
}

unsafe extern "C-unwind" fn at_subtransaction_end(
    event: pg_sys::SubXactEvent::Type,
    ended: pg_sys::SubTransactionId,
    around: pg_sys::SubTransactionId,
    _: *mut std::ffi::c_void,
) {
    match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => ENDINGS.with_borrow_mut(|endings| {
            for ending in endings.iter_mut().filter(|ending| ending.held_by == ended) {
                ending.held_by = around;
            }
        }),
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => {
            let gone: Vec<Ending> = ENDINGS.with_borrow_mut(|endings| {
                let all = std::mem::take(endings).into_iter();
                let (gone, left) = all.partition(|ending| ending.held_by == ended);
                *endings = left;
                gone
            });
            gone.into_iter().for_each(|ending| (ending.rolled_back)());
        }
        _ => {}
    }
}

unsafe extern "C-unwind" fn at_transaction_end(event: pg_sys::XactEvent::Type, _: *mut std::ffi::c_void) {
    let committed = match event {
        pg_sys::XactEvent::XACT_EVENT_COMMIT => true,
        pg_sys::XactEvent::XACT_EVENT_ABORT => false,
        // Of a prepared transaction this session does not learn the end.
        pg_sys::XactEvent::XACT_EVENT_PREPARE => return ENDINGS.with_borrow_mut(Vec::clear),
        _ => return,
    };
    for ending in ENDINGS.with_borrow_mut(std::mem::take) {
        if committed {
            (ending.committed)();
        } else {
            (ending.rolled_back)();
        }
    }
}

/// Called once from `_PG_init`.
pub fn register() {
    // SAFETY: the callbacks live as long as the library, which is never unloaded, and touch one thread-local.
    unsafe {
        pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_subtransaction_end), std::ptr::null_mut());
    }
}
