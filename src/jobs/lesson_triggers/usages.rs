//! The usages that lessons have, beside those that their items are to have.

use std::collections::{HashMap, HashSet};

use media_assets_core::jobs::lesson::AssetId;

use super::place::Place;
use crate::jobs::lesson_assets::read::Lesson;
use crate::jobs::lesson_assets::Item;
use crate::postgres::arrays;
use crate::postgres::spi::{Connection, Mode};

/// A usage that is there.
pub struct Usage {
    pub target: String,
    pub organization: String,
    pub asset: Option<AssetId>,
    pub slot: String,
    pub key: Option<String>,
    pub position: Option<i32>,
}

/// The usages that lessons with some ids have.
pub fn usages_of<'s>(connection: &Connection, place: &Place, ids: impl Iterator<Item = &'s String>) -> Vec<Usage> {
    let ids: Vec<&str> = ids.map(String::as_str).collect();
    if ids.is_empty() {
        return Vec::new();
    }
    let targets = arrays::text(ids.into_iter().map(Some));
    let rows = connection.run(&place.usages, Mode::Write, &[targets.into()]);
    (0..rows.len())
        .map(|row| Usage {
            target: rows.text(row, 0).unwrap_or_default(),
            organization: rows.text(row, 1).unwrap_or_default(),
            asset: rows.uuid(row, 2),
            slot: rows.text(row, 3).unwrap_or_default(),
            key: rows.text(row, 4),
            position: rows.get(row, 5),
        })
        .collect()
}

/// Marks the items whose usage is there, and gives the usages that belong to no item.
pub fn compare_usages(usages: Vec<Usage>, lessons: &[Lesson], items: &mut [Item]) -> Vec<Usage> {
    if usages.is_empty() {
        return Vec::new();
    }
    let mut wanted: HashMap<(&str, &str, i32), usize> = HashMap::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        wanted.insert((&lessons[item.lesson].id, item.slot.name(), item.position), index);
    }
    let mut there: HashSet<usize> = HashSet::new();
    let mut superfluous = Vec::new();
    for usage in usages {
        let own = usage
            .position
            .filter(|_| usage.key.is_none())
            .and_then(|position| wanted.get(&(usage.target.as_str(), usage.slot.as_str(), position)))
            .copied()
            .filter(|index| {
                let item = &items[*index];
                lessons[item.lesson].organization.as_deref() == Some(&usage.organization)
                    && item.outcome.existing_asset().is_some_and(|id| Some(id) == usage.asset)
            });
        match own {
            Some(index) => drop(there.insert(index)),
            None => superfluous.push(usage),
        }
    }
    for index in there {
        items[index].usage_exists = true;
    }
    superfluous
}

pub fn delete(connection: &Connection, place: &Place, usages: &[Usage]) {
    if usages.is_empty() {
        return;
    }
    let text = |of: fn(&Usage) -> Option<&str>| arrays::text(usages.iter().map(of)).into();
    let parameters = [
        text(|usage| Some(&usage.target)),
        arrays::ids(
            place.tables.organizations_are_uuids(),
            usages.iter().map(|usage| Some(usage.organization.as_str())),
        )
        .into(),
        arrays::uuid(usages.iter().map(|usage| usage.asset)).into(),
        text(|usage| Some(&usage.slot)),
        text(|usage| usage.key.as_deref()),
        arrays::int4(usages.iter().map(|usage| usage.position)).into(),
    ];
    connection.query(&place.delete_usages, Mode::Write, &parameters);
}
