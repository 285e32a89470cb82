//! media_assets: media references of application tables become canonical, de-duplicated assets, inside the database.
//!
//! Arrows point one way: functions → jobs → engine → postgres; all of them → media_assets_core, which knows no database.

mod engine;
mod error;
mod functions;
mod jobs;
mod postgres;
mod settings;

#[cfg(not(panic = "unwind"))]
compile_error!("build with panic = \"unwind\": PostgreSQL's errors travel through Rust frames as panics");

pgrx::pg_module_magic!(name, version);

pgrx::extension_sql_file!("../sql/parts/key_triggers.sql", name = "key_triggers");
pgrx::extension_sql_file!("../sql/parts/ledger.sql", name = "ledger");
pgrx::extension_sql_file!("../sql/parts/ingest_lifecycle.sql", name = "ingest_lifecycle");
pgrx::extension_sql_file!(
    "../sql/parts/progress.sql",
    name = "progress",
    requires = ["ledger", functions::runs::backfill_worker_is_alive]
);
pgrx::extension_sql_file!("../sql/parts/comments.sql", name = "comments", finalize);

/// Called once when the library is loaded.
#[allow(non_snake_case)]
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    settings::register();
    postgres::write_flag::register();
    postgres::transaction_end::register();
    postgres::transaction::register();
    postgres::invalidation::register();
    jobs::lesson_triggers::register();
}
