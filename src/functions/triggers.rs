//! What our own triggers ask.

use pgrx::prelude::*;

/// Whether the engine is writing, so that its own rows need no trigger. Read only: nothing in SQL can set it.
#[pg_extern(stable, parallel_restricted)]
fn engine_is_writing() -> bool {
    crate::postgres::write_flag::is_set()
}
