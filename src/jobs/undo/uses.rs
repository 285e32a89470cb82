//! Who uses the assets that a run made, once its own uses of them are gone.

use std::collections::HashMap;

use media_assets_core::jobs::lesson::parse_asset_id;
use media_assets_core::json::{Json, Kind};

use crate::engine::key_set::{hash, within_memory, Build};
use crate::engine::ledger::Ledger;
use crate::engine::long::Buckets;
use crate::engine::relation::Relation;
use crate::error::Result;
use crate::jobs::asset_tables::Tables;
use crate::jobs::lesson_assets::{Reader, Scope};
use crate::postgres::arrays;
use crate::postgres::jsonb::Jsonb;
use crate::postgres::memory::in_own_context;
use crate::postgres::spi::{Connection, Mode, Statement};

/// Changes read at once.
const CHANGES: i64 = 20;
/// Lessons read at once.
const LESSONS: i64 = 500;

/// Counts of items and usages; what a dry run would have undone is counted off.
#[derive(Default)]
pub struct Uses {
    /// Items that hold an asset's id, by the hash of (organization, id).
    items: HashMap<u128, i64, Build>,
    usages_removed: HashMap<u128, i64, Build>,
}

impl Uses {
    /// A dry run would take the asset's id out of one item.
    ///
    /// # Errors
    /// 53400 when that is more than `media_assets.dry_run_memory` allows to remember.
    pub fn item_restored(&mut self, organization: &str, asset: [u8; 16]) -> Result<()> {
        room(&self.items)?;
        *self.items.entry(hash(organization, &asset)).or_default() -= 1;
        Ok(())
    }

    /// A dry run would delete one usage of the asset.
    ///
    /// # Errors
    /// 53400 when that is more than `media_assets.dry_run_memory` allows to remember.
    pub fn usage_removed(&mut self, asset: [u8; 16]) -> Result<()> {
        room(&self.usages_removed)?;
        *self.usages_removed.entry(hash("", &asset)).or_default() += 1;
        Ok(())
    }

    pub fn items(&self, organization: &str, asset: [u8; 16]) -> i64 {
        self.items.get(&hash(organization, &asset)).copied().unwrap_or(0)
    }

    pub fn usages_removed(&self, asset: [u8; 16]) -> i64 {
        self.usages_removed.get(&hash("", &asset)).copied().unwrap_or(0)
    }

    /// Counts the items of all lessons that hold an asset of the run's making, in one pass: a cloned lesson has the id
    /// and no usage.
    ///
    /// # Errors
    /// 53400 when the run made more assets than `media_assets.dry_run_memory` allows to remember.
    pub fn count_items(
        &mut self,
        connection: &Connection,
        mode: Mode,
        ledger: &Ledger,
        run_id: i64,
        tables: &Tables,
    ) -> Result<()> {
        let Some(assets) = &tables.assets else { return Ok(()) };
        if mode == Mode::Write {
            // Of an attempt that was rolled back.
            self.items.clear();
        }
        self.take_made(connection, mode, ledger, run_id, assets)?;
        if self.items.is_empty() {
            return Ok(());
        }
        let scope = Scope {
            organization_id: None,
            after: None,
            buckets: Buckets::ALL,
            bound: None,
            skip_settled: false,
        };
        let reader = Reader::new(connection, tables, scope, mode == Mode::Write)?;
        let mut after: Option<String> = None;
        loop {
            let page = reader.page(connection, mode, after.as_deref(), LESSONS);
            if page.len() == 0 {
                return Ok(());
            }
            crate::postgres::backend::check_for_interrupts();
            in_own_context(|| {
                for row in 0..page.len() {
                    let lesson = page.lesson(row);
                    let Some(organization) = &lesson.organization else {
                        continue;
                    };
                    for column in [lesson.videos, lesson.documents].into_iter().flatten() {
                        self.count_column(organization, &column);
                    }
                }
            });
            after = Some(page.id(page.len() - 1));
        }
    }

    fn count_column(&mut self, organization: &str, column: &Jsonb) {
        let items = column.value();
        if items.kind() != Kind::Array {
            return;
        }
        for item in (0..items.len()).filter_map(|index| items.at(index)) {
            let id = item
                .get("assetId")
                .and_then(Json::as_str)
                .and_then(|text| parse_asset_id(&text));
            if let Some(count) = id.and_then(|id| self.items.get_mut(&hash(organization, &id))) {
                *count += 1;
            }
        }
    }

    /// Makes an entry for each asset of the run's making that is still there.
    fn take_made(
        &mut self,
        connection: &Connection,
        mode: Mode,
        ledger: &Ledger,
        run_id: i64,
        assets: &Relation,
    ) -> Result<()> {
        let organizations = Statement::new(format!(
            "SELECT a.id, a.organization_id::pg_catalog.text FROM pg_catalog.unnest($1) u(id) JOIN {} a ON a.id = u.id",
            assets.sql_name
        ));
        let mut after = 0i64;
        loop {
            let rows = ledger.run(
                connection,
                Mode::Read,
                "SELECT c.change_id, c.uuids FROM ~backfill_changes c
                 WHERE c.run_id = $1 AND c.action = 'asset_created' AND c.change_id > $2 ORDER BY c.change_id LIMIT $3",
                &[run_id.into(), after.into(), CHANGES.into()],
            );
            if rows.is_empty() {
                return Ok(());
            }
            for row in 0..rows.len() {
                after = rows.get(row, 0).unwrap_or(i64::MAX);
                let ids: Vec<pgrx::Uuid> = rows.get(row, 1).unwrap_or_default();
                let ids = arrays::uuid(ids.iter().map(|id| Some(*id.as_bytes())));
                let found = connection.run(&organizations, mode, &[ids.into()]);
                for at in 0..found.len() {
                    if let (Some(id), Some(organization)) = (found.uuid(at, 0), found.text(at, 1)) {
                        room(&self.items)?;
                        self.items.entry(hash(&organization, &id)).or_default();
                    }
                }
            }
        }
    }
}

fn room(map: &HashMap<u128, i64, Build>) -> Result<()> {
    if map.len() < map.capacity() {
        return Ok(());
    }
    within_memory(map.capacity() * 2 * (size_of::<(u128, i64)>() + 1))
}
