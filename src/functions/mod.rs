//! The SQL-callable surface, one file for each subject.

mod identity;
mod importers;
mod ingest;
mod ingest_keys;
mod ingest_rules;
mod keys;
mod lesson;
mod report;
mod runs;
mod tables;
#[cfg(feature = "tiny_job")]
mod tiny;
mod triggers;
mod undo;
mod verify;
