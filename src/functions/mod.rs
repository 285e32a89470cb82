//! The SQL-callable surface, one file for each subject.

mod identity;
mod keys;
mod lesson;
mod tables;
mod triggers;
mod verify;
