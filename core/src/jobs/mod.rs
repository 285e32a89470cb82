//! What each job decides: one file for each, pure.

pub mod lesson;
