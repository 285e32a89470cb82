//! How each job reads a page and applies its decisions: SQL over arrays.

pub mod asset_keys;
pub mod asset_tables;
pub mod collection_ingest;
pub mod i2v_thumbnails;
pub mod import;
pub mod jellyfin;
pub mod keys_program;
pub mod keyset;
pub mod lesson_assets;
pub mod lesson_triggers;
pub mod media_ddl;
pub mod needs;
pub mod row_version;
pub mod s3_assets;
pub mod scene_ddl;
pub mod table_ddl;
#[cfg(feature = "tiny_job")]
pub mod tiny;
pub mod undo;
pub mod wrong_keys;
