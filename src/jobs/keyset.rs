//! Rows read page by page, in the order of a primary key and up to a bound.

use crate::engine::long::Buckets;
use crate::engine::relation::{Ordering, Relation};
use crate::postgres::arrays;
use crate::postgres::spi::{Connection, Mode, Rows, Statement};

/// Which rows a phase looks at.
#[derive(Clone)]
pub struct Scope {
    /// The last id; `None` means that there was no row when the run started.
    pub bound: Option<String>,
    pub buckets: Buckets,
}

/// The statements that read them.
pub struct Keyset {
    bound: Option<String>,
    first: Statement,
    next: Statement,
    these: Statement,
}

impl Keyset {
    /// `select` is a SELECT without WHERE, `id` the column of the primary key in it, `wanted` a condition on its rows.
    pub fn new(select: &str, id: &str, order: &Ordering, scope: Scope, wanted: Option<&str>) -> Self {
        let (greater, not_greater) = (&order.greater, &order.not_greater);
        let wanted = wanted.map_or_else(String::new, |wanted| format!(" AND {wanted}"));
        let in_range = scope.buckets.condition(id);
        let in_range = in_range.map_or_else(String::new, |condition| format!(" AND {condition}"));
        let bounded = format!("{select} WHERE {id} {not_greater} $2{wanted}{in_range}");
        Keyset {
            bound: scope.bound,
            first: Statement::new(format!("{bounded} ORDER BY {id} LIMIT $1")),
            next: Statement::new(format!("{bounded} AND {id} {greater} $3 ORDER BY {id} LIMIT $1")),
            these: Statement::new(format!("{select} WHERE {id} = ANY ($1){wanted} ORDER BY {id}")),
        }
    }

    /// At most `limit` rows behind `after`.
    pub fn page(&self, connection: &Connection, mode: Mode, after: Option<&str>, limit: i64) -> Rows {
        let bound = self.bound.as_deref();
        match after {
            None => connection.run(&self.first, mode, &[limit.into(), bound.into()]),
            Some(after) => connection.run(&self.next, mode, &[limit.into(), bound.into(), after.into()]),
        }
    }

    /// Those that have these ids and are still there, as they are now.
    pub fn these(&self, connection: &Connection, ids: &[String]) -> Rows {
        let ids = arrays::text(ids.iter().map(|id| Some(id.as_str())));
        connection.run(&self.these, Mode::Write, &[ids.into()])
    }
}

/// The greatest id there is now, where a run ends that starts now, so that it ends under live inserts.
pub fn last_id(connection: &Connection, mode: Mode, relation: &Relation) -> Option<String> {
    let last = format!(
        "SELECT r.id::pg_catalog.text FROM {} r ORDER BY r.id DESC LIMIT 1",
        relation.sql_name
    );
    let rows = connection.query(&last, mode, &[]);
    if rows.is_empty() {
        None
    } else {
        rows.text(0, 0)
    }
}

/// About how many rows there are; `None` when that was never counted.
pub fn estimate(relation: &Relation) -> Option<i64> {
    (relation.row_estimate >= 0.0).then_some(relation.row_estimate as i64)
}
