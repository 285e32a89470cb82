//! How each job reads a page and applies its decisions: SQL over arrays.

/// The counters that core's rules of a job count, as the engine takes them.
macro_rules! tally_of_core {
    ($counters:ty) => {
        impl crate::engine::Tally for $counters {
            fn names() -> Vec<&'static str> {
                <$counters>::default().columns().map(|(name, _)| name).collect()
            }

            fn values(&self) -> Vec<i64> {
                self.columns().map(|(_, value)| value).collect()
            }

            fn add(&mut self, other: &Self) {
                <$counters>::add(self, other);
            }

            fn check(&self) -> std::result::Result<(), &'static str> {
                <$counters>::check(self)
            }
        }
    };
}

pub mod asset_keys;
pub mod asset_tables;
pub mod collection_ingest;
pub mod i2v_thumbnails;
pub mod import;
pub mod jellyfin;
pub mod keys_bound;
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
