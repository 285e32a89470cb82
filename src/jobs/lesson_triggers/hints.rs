//! What a row trigger knows of assets without asking for every row of a statement.
//!
//! All of it is a guess that spares work: when the rows are in, the statement trigger asks the tables anew and puts right
//! what was guessed wrong. So a rolled back savepoint or another session cannot make it lie to anybody.

use std::collections::HashMap;

use media_assets_core::jobs::lesson::{self, AssetId, Found, Media};
use media_assets_core::json::Json;

use super::place::Place;
use crate::engine::key_set::{hash, Build};
use crate::postgres::arrays;
use crate::postgres::spi::{Connection, Mode, Rows};

/// Rows that are looked up one by one before all keys are read, and between two attempts to do so at most a multiple.
const FIRST_ROWS: u64 = 64;
/// Keys that are worth reading at once, for each row that the statement has had: reading one costs a small part of what
/// asking for a row costs.
const KEYS_FOR_A_ROW: i64 = 64;
/// What is remembered; about 25 MB.
const MOST: usize = 400_000;

#[derive(Default)]
pub struct Hints {
    by_key: HashMap<u128, Found, Build>,
    /// The hash of (organization, key) of assets by the hash of (organization, id); `None` for a row without key.
    by_id: HashMap<u128, Option<u128>, Build>,
    /// A key that is not in `by_key` belongs to no asset.
    knows_all_keys: bool,
    organizations: HashMap<String, Option<String>>,
    knows_all_courses: bool,
    /// The number of the row at which to try again to learn all.
    learn_at: u64,
}

impl Hints {
    /// Reads all keys and courses when the statement has had enough rows to make that worth while.
    pub fn learn(&mut self, connection: &Connection, place: &Place, rows: u64) {
        if rows < self.learn_at.max(FIRST_ROWS) {
            return;
        }
        self.learn_at = rows * 4;
        let most = (rows as i64 * KEYS_FOR_A_ROW).min(MOST as i64);
        if !self.knows_all_keys {
            let keys = connection.run(&place.keys, Mode::Write, &[(most + 1).into()]);
            if keys.len() as i64 <= most {
                for row in 0..keys.len() {
                    if let (Some(organization), Some(key)) = (keys.text(row, 0), keys.text(row, 1)) {
                        let found = Found {
                            id: keys.uuid(row, 2),
                            has_byte_size: keys.get(row, 3).unwrap_or(false),
                        };
                        self.by_key.insert(hash(&organization, key.as_bytes()), found);
                    }
                }
                self.knows_all_keys = true;
            }
        }
        if !self.knows_all_courses {
            let courses = connection.run(&place.organizations, Mode::Write, &[(most + 1).into()]);
            if courses.len() as i64 <= most {
                for row in 0..courses.len() {
                    if let Some(course) = courses.text(row, 0) {
                        self.organizations.insert(course, courses.text(row, 1));
                    }
                }
                self.knows_all_courses = true;
            }
        }
    }

    /// The organization of a course, where it is known; `None` when it has to be asked for.
    pub fn organization(&self, course: &str) -> Option<Option<String>> {
        match self.organizations.get(course) {
            Some(organization) => Some(organization.clone()),
            None => self.knows_all_courses.then_some(None),
        }
    }

    /// Asks for the organization of a course.
    pub fn ask_organization(&mut self, connection: &Connection, place: &Place, course: &str) -> Option<String> {
        let rows = connection.run(&place.organization, Mode::Write, &[course.into()]);
        let organization = if rows.is_empty() { None } else { rows.text(0, 0) };
        if self.organizations.len() >= MOST {
            self.organizations.clear();
            self.knows_all_courses = false;
        }
        self.organizations.insert(course.to_owned(), organization.clone());
        organization
    }

    /// Whether an item with this key and `assetId` can be decided without asking.
    pub fn knows<J>(&self, organization: &str, media: &Media<'_, J>) -> bool {
        let key = hash(organization, media.canonical_key.as_bytes());
        let settled_by_id = media
            .asset_id
            .is_some_and(|id| self.by_id.get(&hash(organization, &id)) == Some(&Some(key)));
        settled_by_id || self.knows_all_keys || self.by_key.contains_key(&key)
    }

    /// Asks for the assets of an organization with these ids and keys.
    pub fn ask(&mut self, connection: &Connection, place: &Place, organization: &str, ids: &[AssetId], keys: &[&str]) {
        if self.by_key.len().max(self.by_id.len()) > 2 * MOST {
            self.by_key.clear();
            self.by_id.clear();
            self.knows_all_keys = false;
        }
        let parameters = [
            organization.into(),
            arrays::uuid(ids.iter().map(|id| Some(*id))).into(),
            arrays::text(keys.iter().map(|key| Some(*key))).into(),
        ];
        let rows: Rows = connection.run(&place.assets, Mode::Write, &parameters);
        for row in 0..rows.len() {
            if let Some(id) = rows.uuid(row, 0) {
                self.note(organization, id, rows.text(row, 1), rows.get(row, 2).unwrap_or(false));
            }
        }
    }

    fn note(&mut self, organization: &str, id: AssetId, key: Option<String>, has_byte_size: bool) {
        let key = key.map(|key| hash(organization, key.as_bytes()));
        self.by_id.insert(hash(organization, &id), key);
        if let Some(key) = key {
            let found = Found {
                id: Some(id),
                has_byte_size,
            };
            self.by_key.insert(key, found);
        }
    }

    /// Forgets a key: its asset could not be made, or is somebody else's by now.
    pub fn forget(&mut self, organization: &str, canonical_key: &str) {
        self.by_key.remove(&hash(organization, canonical_key.as_bytes()));
        self.knows_all_keys = false;
    }

    pub fn of<'h>(&'h mut self, organization: &'h str) -> OfOrganization<'h> {
        OfOrganization {
            hints: self,
            organization,
            created: false,
        }
    }
}

/// The view of one organization.
pub struct OfOrganization<'h> {
    hints: &'h mut Hints,
    organization: &'h str,
    /// Whether an id was made through this view.
    pub created: bool,
}

impl lesson::Known for OfOrganization<'_> {
    fn by_id(&self, id: AssetId) -> Option<Found> {
        let known = self.hints.by_id.contains_key(&hash(self.organization, &id));
        known.then_some(Found {
            id: Some(id),
            has_byte_size: false,
        })
    }

    fn has_key(&self, id: AssetId, canonical_key: &str) -> bool {
        let own = hash(self.organization, canonical_key.as_bytes());
        self.hints.by_id.get(&hash(self.organization, &id)) == Some(&Some(own))
    }

    fn by_key(&self, canonical_key: &str) -> Option<Found> {
        let own = hash(self.organization, canonical_key.as_bytes());
        self.hints.by_key.get(&own).copied()
    }

    /// Whether it has a size is nothing that a row trigger asks.
    fn create<'a, J: Json<'a>>(&mut self, media: &Media<'a, J>) -> Found {
        let id = *uuid::Uuid::now_v7().as_bytes();
        let found = Found {
            id: Some(id),
            has_byte_size: false,
        };
        let own = hash(self.organization, media.canonical_key.as_bytes());
        self.hints.by_key.insert(own, found);
        self.created = true;
        found
    }
}
