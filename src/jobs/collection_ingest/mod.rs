//! Collection ingest: discovered items become rows of `collection_assets`. The rules are in core; here is which rows are
//! read and written.

pub mod call;
pub mod changes;
pub mod items;
pub mod rekeys;
pub mod removals;
pub mod spool;
pub mod table_ddl;
pub mod tables;

/// Names of the two tables.
pub const COLLECTIONS: &str = "collections";
pub const ASSETS: &str = "collection_assets";

/// The job's name in the ledger.
pub const JOB: &str = "collection_ingest";

/// PostgreSQL counts from 2000-01-01, the rules from 1970-01-01.
const MICROSECONDS_1970_TO_2000: i64 = 946_684_800_000_000;

/// A time of PostgreSQL as the rules count it; an infinite one is none.
pub fn unix_time(time: i64) -> Option<i64> {
    if time == i64::MIN || time == i64::MAX {
        return None;
    }
    time.checked_add(MICROSECONDS_1970_TO_2000)
}

/// The way back.
pub fn postgres_time(unix: i64) -> Option<i64> {
    unix.checked_sub(MICROSECONDS_1970_TO_2000)
}
