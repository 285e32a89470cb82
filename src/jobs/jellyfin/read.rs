//! Reading candidates: each row comes with all that was fetched for it, in one statement for a page.

use media_assets_core::jobs::jellyfin_metadata::{Known, Mode as JobMode, Reason, Search, StoredItem};
use media_assets_core::json::{Json, Kind, Members};

use super::tables::Tables;
use crate::engine::long::Buckets;
use crate::jobs::asset_tables::extension_schema;
use crate::postgres::arrays;
use crate::postgres::jsonb::{Jsonb, JsonbRef};
use crate::postgres::spi::{Connection, Mode, Parameter, Rows, Statement};

/// Which candidates are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Those that a run in this mode looks at: skipped ones when they are due, or row or item has changed.
    Due(JobMode),
    /// All but those that are not to be found, for good.
    Unresolved,
}

/// A candidate as it was read. What is jsonb is borrowed from the slice's memory or from the page.
#[derive(Clone, Copy)]
pub struct Candidate {
    pub id: i64,
    /// The columns that decisions read.
    pub row: Jsonb,
    items: Option<Jsonb>,
    /// What was seen, as a number: another one means that row or items have changed.
    pub seen: i64,
    /// A skip of it is remembered.
    pub was_skipped: bool,
}

impl Candidate {
    /// What was fetched for the row, to look into for as long as the slice's memory lives.
    pub fn fetched(&self) -> Fetched<'static> {
        Fetched {
            items: self.items.map(Jsonb::value_in_context),
        }
    }

    fn copied(self) -> Self {
        Candidate {
            row: self.row.copied(),
            items: self.items.map(Jsonb::copied),
            ..self
        }
    }
}

/// Rows of `jellyfin_items` that may be about one row of the board.
pub struct Fetched<'i> {
    items: Option<JsonbRef<'i>>,
}

impl<'i> Fetched<'i> {
    fn each(&self) -> impl Iterator<Item = (JsonbRef<'i>, StoredItem<JsonbRef<'i>>)> {
        self.items.into_iter().flat_map(Members::elements).filter_map(|item| {
            let status = item.get("http_status").and_then(Json::number_text);
            let stored = StoredItem {
                doc: item.get("doc").filter(|doc| doc.kind() != Kind::Null),
                http_status: status.and_then(|status| status.parse().ok()),
            };
            Some((item.get("item_id")?, stored))
        })
    }
}

impl<'i> Known<JsonbRef<'i>> for Fetched<'i> {
    fn item(&self, item_id: &str) -> Option<StoredItem<JsonbRef<'i>>> {
        self.each()
            .find(|(id, _)| id.as_str().as_deref() == Some(item_id))
            .map(|(_, stored)| stored)
    }

    fn items_like(&self, _: &Search) -> Vec<StoredItem<JsonbRef<'i>>> {
        self.each().map(|(_, stored)| stored).collect()
    }
}

/// Columns id, row, items, seen, reason of the last skip.
pub struct Page {
    rows: Rows,
}

impl Page {
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn id(&self, index: usize) -> i64 {
        self.rows.get(index, 0).unwrap_or_default()
    }

    pub fn weight(&self, index: usize) -> usize {
        self.rows.raw_size(index, 1) + self.rows.raw_size(index, 2)
    }

    pub fn candidate(&self, index: usize) -> Option<Candidate> {
        Some(Candidate {
            id: self.id(index),
            row: self.rows.get(index, 1)?,
            items: self.rows.get(index, 2),
            seen: self.rows.get(index, 3).unwrap_or_default(),
            was_skipped: self.reason(index).is_some(),
        })
    }

    /// The reason of the last skip.
    pub fn reason(&self, index: usize) -> Option<String> {
        self.rows.text(index, 4)
    }
}

/// The statements that read candidates.
pub struct Reader {
    bound: Option<i64>,
    page: Statement,
    again: Statement,
    these: Statement,
}

impl Reader {
    /// `bound` is the greatest id that is read; without one, the greatest there is now.
    pub fn new(
        connection: &Connection,
        tables: &Tables,
        wanted: Wanted,
        buckets: Buckets,
        bound: Option<i64>,
        mode: Mode,
    ) -> Self {
        let board = &tables.board.sql_name;
        let extension = extension_schema(connection);
        let board_row = tables.board_row("b");
        let items = match &tables.items {
            None => "NULL::pg_catalog.jsonb".to_owned(),
            Some(items) => {
                let item = "pg_catalog.jsonb_build_object('item_id', i.item_id, 'http_status', i.http_status, 'doc', i.doc) AS item, i.item_id";
                format!(
                    "(SELECT pg_catalog.jsonb_agg(f.item ORDER BY f.item_id) FROM (
                         SELECT {item} FROM {items} i WHERE i.item_id = k.item_id
                         UNION ALL SELECT {item} FROM {items} i WHERE i.item_id = k.search_key
                         UNION ALL SELECT {item} FROM {items} i
                         WHERE {extension}jellyfin_search_key(i.doc OPERATOR(pg_catalog.->>) 'Name', i.doc OPERATOR(pg_catalog.->>) 'PremiereDate') = k.search_key) f)",
                    items = items.sql_name
                )
            }
        };
        let skipped = match &tables.skips {
            None => "(VALUES (NULL::pg_catalog.text, NULL::pg_catalog.timestamptz, NULL::pg_catalog.int8)) s(reason, next_attempt_at, seen)".to_owned(),
            Some(skips) => format!(
                "LATERAL (SELECT s.reason, s.next_attempt_at, s.seen FROM {} s WHERE s.row_id = b.id LIMIT 1) s",
                skips.sql_name
            ),
        };
        // The time is the transaction's, as in the skip itself: a run never meets a skip of its own again.
        let filter = match wanted {
            Wanted::Due(job_mode) => {
                // Where no event is made, what is wrong with the event does not matter.
                let passed_over: Vec<String> = Reason::ALL
                    .into_iter()
                    .filter(|reason| job_mode == JobMode::MetadataOnly && reason.is_about_event())
                    .map(|reason| format!(" OR s.reason = '{}'", reason.name()))
                    .collect();
                let event_only = passed_over.concat();
                format!("(s.seen IS NULL OR s.seen <> f.seen OR s.next_attempt_at <= pg_catalog.transaction_timestamp(){event_only})")
            }
            Wanted::Unresolved => "(s.seen IS NULL OR s.seen <> f.seen OR s.next_attempt_at IS NOT NULL)".to_owned(),
        };
        // Blank texts are told from links by the rules; here none is lost.
        let link = "b.meta OPERATOR(pg_catalog.->) 'jellyfin_public_url'";
        let is_candidate = format!(
            "b.status::pg_catalog.text = 'published' AND (CASE COALESCE(pg_catalog.jsonb_typeof({link}), 'null')
                 WHEN 'null' THEN true
                 WHEN 'string' THEN ({link}) OPERATOR(pg_catalog.#>>) '{{}}' !~ '[!-~]'
                 ELSE false END)"
        );
        let select = format!(
            "SELECT b.id::pg_catalog.int8, r.board_row, w.items, f.seen, s.reason
             FROM {board} b
             CROSS JOIN LATERAL (SELECT {board_row} AS board_row OFFSET 0) r
             CROSS JOIN LATERAL {extension}jellyfin_lookup(r.board_row) k
             CROSS JOIN LATERAL (SELECT {items} AS items OFFSET 0) w
             CROSS JOIN LATERAL (SELECT pg_catalog.hashtextextended(pg_catalog.concat(r.board_row, w.items), 0) AS seen OFFSET 0) f
             LEFT JOIN {skipped} ON true
             WHERE {is_candidate}"
        );
        let of_range = buckets
            .condition("b.id")
            .map_or_else(String::new, |condition| format!(" AND {condition}"));
        let bound = bound.or_else(|| {
            let last = connection.query(
                &format!("SELECT b.id::pg_catalog.int8 FROM {board} b ORDER BY b.id DESC LIMIT 1"),
                mode,
                &[],
            );
            if last.is_empty() {
                None
            } else {
                last.get(0, 0)
            }
        });
        Reader {
            bound,
            page: Statement::new(format!(
                "{select} AND {filter}{of_range} AND b.id > $1 AND b.id <= $2 ORDER BY b.id LIMIT $3"
            )),
            // Under lock, so that the new decision is about what will be written.
            again: Statement::new(format!(
                "{select} AND b.id = ANY ($1) ORDER BY b.id FOR NO KEY UPDATE OF b"
            )),
            these: Statement::new(format!("{select} AND b.id = ANY ($1) ORDER BY b.id")),
        }
    }

    pub fn bound(&self) -> Option<i64> {
        self.bound
    }

    pub fn page(&self, connection: &Connection, mode: Mode, after: Option<i64>, limit: i64) -> Page {
        let after = after.unwrap_or(i64::MIN);
        // Without a bound there was no row when the run started.
        let parameters: [Parameter; 3] = [after.into(), self.bound.unwrap_or(i64::MIN).into(), limit.into()];
        Page {
            rows: connection.run(&self.page, mode, &parameters),
        }
    }

    /// The candidates with these ids.
    pub fn these(&self, connection: &Connection, ids: &[String]) -> Page {
        let ids = arrays::int8(ids.iter().map(|id| id.parse().ok()));
        Page {
            rows: connection.run(&self.these, Mode::Write, &[ids.into()]),
        }
    }

    /// Candidates as they are now, locked; one that is none any more is left out. They are copied into the slice's memory.
    pub fn again(&self, connection: &Connection, ids: &[i64]) -> Vec<Candidate> {
        let ids = arrays::int8(ids.iter().map(|id| Some(*id)));
        let page = Page {
            rows: connection.run(&self.again, Mode::Write, &[ids.into()]),
        };
        (0..page.len())
            .filter_map(|index| Some(page.candidate(index)?.copied()))
            .collect()
    }
}
