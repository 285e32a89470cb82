//! The counters of a run, by name and in the order of the columns.

use std::fmt;

use postgres::SimpleQueryMessage;

/// Columns of `backfill_lesson_assets`, in their order.
pub const LESSON_COUNTERS: [&str; 19] = [
    "lessons_scanned",
    "media_items_scanned",
    "media_items_eligible",
    "assets_created",
    "assets_reused",
    "usages_created",
    "usages_reused",
    "lesson_items_patched_with_asset_id",
    "assets_with_byte_size",
    "assets_missing_byte_size",
    "skipped_malformed",
    "skipped_missing_key",
    "skipped_missing_link",
    "skipped_unsupported_type",
    "errors",
    "skipped_missing_organization",
    "batches",
    "run_id",
    "lessons_settled",
];

/// What counts work that a run does; zero in a run that finds everything done.
const WORK: [&str; 3] = ["assets_created", "usages_created", "lesson_items_patched_with_asset_id"];

/// One row of counters; NULL is None. Two of them are equal when the same was done, in whichever run.
#[derive(Clone)]
pub struct Counters(pub Vec<(String, Option<i64>)>);

impl PartialEq for Counters {
    fn eq(&self, other: &Self) -> bool {
        let done = |counters: &Self| -> Vec<(String, Option<i64>)> {
            let mut done = counters.0.clone();
            done.retain(|(name, _)| name != "run_id");
            done
        };
        done(self) == done(other)
    }
}

impl Eq for Counters {}

impl Counters {
    pub(crate) fn from_messages(messages: &[SimpleQueryMessage], sql: &str) -> Self {
        let rows: Vec<_> = messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            })
            .collect();
        assert_eq!(rows.len(), 1, "one row of counters expected: {sql}");
        let row = rows[0];
        Counters(
            row.columns()
                .iter()
                .enumerate()
                .map(|(i, column)| {
                    (
                        column.name().to_owned(),
                        row.get(i).map(|v| v.parse().expect("a bigint")),
                    )
                })
                .collect(),
        )
    }

    /// A counter that is not NULL.
    pub fn get(&self, name: &str) -> i64 {
        self.0
            .iter()
            .find(|(column, _)| column == name)
            .unwrap_or_else(|| panic!("no column {name} in {self:?}"))
            .1
            .unwrap_or_else(|| panic!("{name} is NULL"))
    }

    /// Asserts the values of some counters, all at once, so that a failure shows the whole row.
    pub fn expect(&self, expected: &[(&str, i64)]) {
        let wrong: Vec<_> = expected
            .iter()
            .filter(|(name, value)| self.get(name) != *value)
            .collect();
        assert!(wrong.is_empty(), "expected {wrong:?} of {self:?}");
    }

    /// Asserts that the run found nothing to do and met no error.
    pub fn expect_no_work(&self) {
        for name in WORK.into_iter().chain(["errors"]) {
            assert_eq!(self.get(name), 0, "{name} of {self:?}");
        }
    }

    /// Asserts the sums that hold in every run without failed lessons.
    pub fn expect_sums(&self) {
        let eligible = self.get("media_items_eligible");
        let skipped: i64 = self
            .0
            .iter()
            .filter(|(name, _)| name.starts_with("skipped_"))
            .filter_map(|(_, v)| *v)
            .sum();
        if self.get("errors") == 0 {
            assert_eq!(
                self.get("media_items_scanned"),
                eligible + skipped,
                "scanned = eligible + skipped: {self:?}"
            );
        }
        assert!(
            self.get("media_items_scanned") >= eligible + skipped,
            "scanned ≥ eligible + skipped: {self:?}"
        );
        assert_eq!(
            eligible,
            self.get("assets_created") + self.get("assets_reused"),
            "assets: {self:?}"
        );
        assert_eq!(
            eligible,
            self.get("usages_created") + self.get("usages_reused"),
            "usages: {self:?}"
        );
        let sized = self.get("assets_with_byte_size") + self.get("assets_missing_byte_size");
        assert_eq!(eligible, sized, "byte sizes: {self:?}");
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.0.iter().filter(|(_, value)| *value != Some(0)) {
            match value {
                Some(value) => write!(f, "{name}={value} ")?,
                None => write!(f, "{name}=NULL ")?,
            }
        }
        Ok(())
    }
}
