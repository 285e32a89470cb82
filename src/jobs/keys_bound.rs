//! Where a pass over assets without key goes on, and where it ends: places in the order of creation time and id.

use crate::engine::relation::{quote_literal, Relation};
use crate::postgres::spi::{Connection, Mode};

/// A row's place. Rows without a creation time come last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub created_at: Option<String>,
    pub id: String,
}

impl Place {
    /// The id, and behind a blank the time, where there is one.
    pub fn parse(text: &str) -> Self {
        match text.split_once(' ') {
            Some((id, time)) => Place {
                created_at: Some(time.to_owned()),
                id: id.to_owned(),
            },
            None => Place {
                created_at: None,
                id: text.to_owned(),
            },
        }
    }

    pub fn to_text(&self) -> String {
        match &self.created_at {
            Some(time) => format!("{} {time}", self.id),
            None => self.id.clone(),
        }
    }
}

/// The creation time of the row `a` as a text that every session reads alike, whatever its DateStyle.
pub fn time_of(assets: &Relation) -> &'static str {
    if assets.has("created_at") {
        "(pg_catalog.to_jsonb(a.created_at) #>> '{}')"
    } else {
        "NULL::pg_catalog.text"
    }
}

/// The last rows when a run started, so that it ends under live inserts: of those with a creation time, and of those
/// without.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    timed: Option<Place>,
    timeless: Option<Place>,
}

impl Bound {
    /// As the rows are now: those without key, or all of them where a run takes wrong keys away first.
    pub fn now(connection: &Connection, mode: Mode, assets: &Relation, all: bool) -> Self {
        let unkeyed = match assets.has("canonical_key") && !all {
            true => "a.canonical_key IS NULL",
            false => "true",
        };
        let last = |condition: &str, order: &str| {
            let rows = connection.query(
                &format!(
                    "SELECT a.id::pg_catalog.text, {} FROM {} a WHERE {unkeyed} AND {condition} ORDER BY {order} LIMIT 1",
                    time_of(assets),
                    assets.sql_name
                ),
                mode,
                &[],
            );
            (!rows.is_empty()).then(|| Place {
                id: rows.text(0, 0).unwrap_or_default(),
                created_at: rows.text(0, 1),
            })
        };
        if assets.has("created_at") {
            Bound {
                timed: last("a.created_at IS NOT NULL", "a.created_at DESC, a.id DESC"),
                timeless: last("a.created_at IS NULL", "a.created_at DESC, a.id DESC"),
            }
        } else {
            Bound {
                timed: None,
                timeless: last("true", "a.id DESC"),
            }
        }
    }

    /// Both places, with a semicolon between.
    pub fn to_text(&self) -> String {
        let text = |place: &Option<Place>| place.as_ref().map(Place::to_text).unwrap_or_default();
        format!("{};{}", text(&self.timed), text(&self.timeless))
    }

    pub fn parse(text: &str) -> Self {
        let (timed, timeless) = text.split_once(';').unwrap_or((text, ""));
        let place = |text: &str| (!text.is_empty()).then(|| Place::parse(text));
        Bound {
            timed: place(timed),
            timeless: place(timeless),
        }
    }

    /// The condition that the row `a` is not behind it.
    pub fn condition(&self, assets: &Relation) -> String {
        let id = |place: &Place| format!("{}::pg_catalog.uuid", quote_literal(&place.id));
        let timed = self.timed.as_ref().map(|place| {
            let time = quote_literal(place.created_at.as_deref().unwrap_or_default());
            format!(
                "(a.created_at, a.id) <= ({time}::{}, {})",
                assets.type_of("created_at"),
                id(place)
            )
        });
        let timeless = self.timeless.as_ref().map(|place| match assets.has("created_at") {
            true => format!("(a.created_at IS NULL AND a.id <= {})", id(place)),
            false => format!("a.id <= {}", id(place)),
        });
        match (timed, timeless) {
            (Some(timed), Some(timeless)) => format!("({timed} OR {timeless})"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => "false".to_owned(),
        }
    }
}
