//! What each job decides: one module for each, pure.

mod counters;
pub mod lesson;
