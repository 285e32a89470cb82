//! `media` and `i2v_jobs`, and everything that may be wrong with them.

use crate::engine::relation::{Ordering, Relation};
use crate::engine::rights;
use crate::error::Result;
use crate::jobs::asset_tables::{self, extension_schema, has_index_on};
use crate::jobs::needs::{self, ColumnType, Need};
use crate::jobs::row_version::Versions;
use crate::postgres::spi::Connection;

/// Columns of `media` that are read.
pub const MEDIA: [Need; 6] = [
    ("id", ColumnType::Text),
    ("type", ColumnType::Text),
    ("thumbnail_url", ColumnType::Text),
    ("thumbnail_urls", ColumnType::Jsonb),
    ("is_public", ColumnType::Boolean),
    ("metadata", ColumnType::Jsonb),
];
/// Columns of `media` that are written.
pub const WRITTEN: [&str; 3] = ["thumbnail_url", "thumbnail_urls", "updated_at"];
const UPDATED_AT: Need = ("updated_at", ColumnType::Time);
pub const JOBS: [Need; 4] = [
    ("job_id", ColumnType::Text),
    ("media_id", ColumnType::Text),
    ("original_media_id", ColumnType::Text),
    ("result_media_id", ColumnType::Text),
];

/// The relations of a run, ready for it.
pub struct Tables {
    pub media: Relation,
    pub jobs: Relation,
    /// The order of `media.id`.
    pub order: Ordering,
    /// Of a row `m` of media.
    pub versions: Versions,
}

impl Tables {
    /// Finds the relations by the caller's search_path, or as `stored` names them, and checks all that can be known before
    /// a run.
    ///
    /// # Errors
    /// 42P01, 42703, 42804, 55000 with everything that is missing; 42501 for row security or a missing privilege.
    pub fn load(connection: &Connection, stored: &dyn Fn(&str) -> Option<String>, execute: bool) -> Result<Self> {
        let find = |name| Relation::find(connection, name, stored(name).as_deref());
        let (media, jobs) = (find("media"), find("i2v_jobs"));
        let make = format!("SELECT * FROM {}create_media_tables();", extension_schema(connection));
        let mut problems = Vec::new();
        needs::of_relation("media", media.as_ref(), &MEDIA, &make, &mut problems);
        if execute && media.is_some() {
            needs::of_relation("media", media.as_ref(), &[UPDATED_AT], &make, &mut problems);
        }
        needs::of_relation("i2v_jobs", jobs.as_ref(), &JOBS, &make, &mut problems);
        if let Some(media) = &media {
            needs::primary_key(connection, media, "id", &mut problems);
        }
        asset_tables::raise(&problems)?;
        let (Some(media), Some(jobs)) = (media, jobs) else {
            return Err(crate::error::counters_do_not_add_up("relations"));
        };
        let Some(order) = media.primary_key_order(connection, "id") else {
            return Err(crate::error::counters_do_not_add_up("primary key"));
        };
        let read = MEDIA.iter().chain([&UPDATED_AT]).map(|(name, _)| *name);
        let tables = Tables {
            versions: Versions::of(connection, &media, "m", read),
            media,
            jobs,
            order,
        };
        tables.check_rights(connection, execute)?;
        for column in ["job_id", "result_media_id"] {
            if !has_index_on(connection, &tables.jobs, column) {
                crate::postgres::message::notice!(
                    "jobs are looked up without an index; run CREATE INDEX ON {} ({column});",
                    tables.jobs.base_sql_name
                );
            }
        }
        Ok(tables)
    }

    fn check_rights(&self, connection: &Connection, execute: bool) -> Result<()> {
        rights::check_row_security([&self.media, &self.jobs])?;
        rights::check_privilege(connection, &self.media, "SELECT", &MEDIA.map(|(name, _)| name))?;
        rights::check_privilege(connection, &self.jobs, "SELECT", &JOBS.map(|(name, _)| name))?;
        if execute {
            rights::check_privilege(connection, &self.media, "SELECT", &["updated_at"])?;
            rights::check_privilege(connection, &self.media, "UPDATE", &WRITTEN)?;
        }
        Ok(())
    }

    /// The relations by name, as a run's row in the ledger keeps them.
    pub fn names(&self) -> Vec<(&'static str, String)> {
        [&self.media, &self.jobs]
            .map(|relation| (relation.name, relation.sql_name.clone()))
            .to_vec()
    }
}
