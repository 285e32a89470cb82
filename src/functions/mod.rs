//! The SQL-callable surface, one file for each subject.

mod identity;
mod jellyfin;
mod jellyfin_runs;
mod keys;
mod lesson;
mod lesson_triggers;
mod report;
mod runs;
mod tables;
#[cfg(feature = "tiny_job")]
mod tiny;
mod triggers;
mod undo;
mod verify;
