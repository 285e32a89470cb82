//! The SQL-callable surface, one file for each subject.

mod identity;
mod import;
mod importers;
mod ingest;
mod ingest_keys;
mod ingest_rules;
mod jellyfin;
mod jellyfin_runs;
mod keys;
mod lesson;
mod lesson_triggers;
mod outcome;
mod report;
mod runs;
mod s3_assets;
mod tables;
mod thumbnails;
#[cfg(feature = "tiny_job")]
mod tiny;
mod triggers;
mod undo;
mod verify;
