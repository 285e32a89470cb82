//! The rules of media_assets, pure: no database, no clock, no network.
#![forbid(unsafe_code)]

pub mod identity;
pub mod jobs;
pub mod json;
