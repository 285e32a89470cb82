//! What each job decides: one module for each, pure.

pub mod collection_ingest;
mod counters;
pub mod i2v_thumbnails;
pub mod jellyfin_metadata;
pub mod lesson;
pub mod s3_assets;
