//! Whether a statement was the only one that wrote lessons while it ran: then its rows are in the table as it left them.
//!
//! A user's trigger on lesson may write the same lesson again before the statement's own triggers run.

use std::cell::Cell;

use pgrx::pg_sys;

use crate::postgres::transaction_end;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// No statement is under way.
    Idle,
    /// One is, on this table, and no other has begun since.
    Alone(pg_sys::Oid),
    /// Several are, or were, in this transaction.
    Nested,
}

thread_local! {
    static STATE: Cell<State> = const { Cell::new(State::Idle) };
}

pub fn register() {
    transaction_end::call(|| STATE.set(State::Idle));
}

/// A statement writes its first row.
pub fn begins(table: pg_sys::Oid) {
    STATE.set(match STATE.get() {
        State::Idle => State::Alone(table),
        // A statement that failed inside a savepoint is still counted: that costs a look at the table, no more.
        _ => State::Nested,
    });
}

/// A statement on `table` has ended: whether no other wrote lessons while it ran. One that did not announce itself (it
/// deletes, which `announced` says, or its table is partitioned) counts as not alone, and as a write inside of any other.
pub fn ended_alone(table: pg_sys::Oid, announced: bool) -> bool {
    let state = STATE.get();
    let alone = announced && state == State::Alone(table);
    STATE.set(if alone || state == State::Idle {
        State::Idle
    } else {
        State::Nested
    });
    alone
}
