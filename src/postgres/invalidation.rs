//! When what was learnt of relations from the catalog is out of date, as the server's own caches are told.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use pgrx::pg_sys::{self, Datum};

thread_local! {
    static EPOCH: Cell<u64> = const { Cell::new(0) };
    static WATCHED: RefCell<HashSet<u32>> = RefCell::default();
}

/// Moves on whenever a watched relation may have changed.
pub fn epoch() -> u64 {
    EPOCH.get()
}

/// From now on, changes of these relations count.
pub fn watch(relations: impl IntoIterator<Item = pg_sys::Oid>) {
    WATCHED.with_borrow_mut(|watched| watched.extend(relations.into_iter().map(pg_sys::Oid::to_u32)));
}

fn move_on() {
    EPOCH.set(EPOCH.get() + 1);
}

unsafe extern "C-unwind" fn relation_changed(_: Datum, relation: pg_sys::Oid) {
    let watched = WATCHED.with(|watched| {
        let watched = watched.try_borrow();
        watched.map_or(true, |watched| watched.contains(&relation.to_u32()))
    });
    if watched || relation == pg_sys::InvalidOid {
        move_on();
    }
}

unsafe extern "C-unwind" fn schema_changed(_: Datum, _: i32, _: u32) {
    move_on();
}

/// Asks the server to tell; called once from `_PG_init`.
pub fn register() {
    // SAFETY: the callbacks live as long as the library, which is never unloaded, and touch thread-locals only.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), Datum::from(0usize));
        pg_sys::CacheRegisterSyscacheCallback(
            pg_sys::SysCacheIdentifier::NAMESPACEOID as i32,
            Some(schema_changed),
            Datum::from(0usize),
        );
    }
}
