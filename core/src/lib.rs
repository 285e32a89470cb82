//! The rules of media_assets, pure: no database, no clock, no network.
#![forbid(unsafe_code)]

mod decimal;
mod fields;
pub mod identity;
pub mod import;
pub mod jobs;
pub mod json;
pub mod time;
