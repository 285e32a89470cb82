//! Relations found by name on the caller's search_path, with views looked through at their base table.

use std::collections::HashMap;

use pgrx::pg_sys;

use crate::error::{invalid_argument, not_prepared, Result};
use crate::postgres::spi::{reads_as, Connection, Mode};
use crate::postgres::view;

/// `value` quoted as an identifier.
pub fn quote_ident(value: &str) -> String {
    pgrx::spi::quote_identifier(value)
}

/// `value` quoted as a literal.
pub fn quote_literal(value: &str) -> String {
    pgrx::spi::quote_literal(value)
}

/// A column as statements see it.
#[derive(Clone, Debug)]
pub struct Column {
    pub type_oid: pg_sys::Oid,
    /// The type's name without length, for casts.
    pub sql_type: String,
    /// The declared length of a varchar or char, in characters.
    pub length: Option<i32>,
    pub not_null: bool,
    /// It gets a value without being named in an INSERT.
    pub has_default: bool,
    /// The column's number in the base table, where it is one of its columns.
    base_number: Option<i16>,
}

/// A table or view of the user's.
#[derive(Clone, Debug)]
pub struct Relation {
    pub oid: pg_sys::Oid,
    /// As the page calls it.
    pub name: &'static str,
    /// Schema-qualified and quoted.
    pub sql_name: String,
    pub is_view: bool,
    /// Its rows tell which transaction wrote them: it is no view and no foreign table.
    pub has_row_versions: bool,
    pub base_oid: pg_sys::Oid,
    pub base_sql_name: String,
    pub columns: HashMap<String, Column>,
    /// Row security hides rows from the current role.
    pub row_security: bool,
    /// Rows as the statistics have them; negative when never analysed.
    pub row_estimate: f32,
}

/// The table that runs of a job exclude each other on, as the second key of an advisory lock.
#[derive(Clone, Copy, Debug)]
pub struct LockTarget(pub i64);

/// A unique index that an ON CONFLICT clause or a keyset can rely on.
#[derive(Clone, Debug)]
pub struct UniqueIndex {
    /// Deferrable: checked too late to be a safety net.
    pub deferrable: bool,
    /// Has a WHERE clause.
    pub partial: bool,
    pub nulls_not_distinct: bool,
    pub has_expressions: bool,
    /// Base column numbers, in any order; 0 for an expression.
    pub numbers: Vec<i16>,
    pub name: String,
}

/// The comparison operators of an index's first column, qualified.
#[derive(Clone, Debug)]
pub struct Ordering {
    pub greater: String,
    pub not_greater: String,
}

impl Relation {
    /// The relation that `name` means on the current search_path, or the one that `stored`, a qualified and quoted name
    /// that was written down before, says.
    pub fn find(connection: &Connection, name: &'static str, stored: Option<&str>) -> Option<Self> {
        let rows = connection.query(
            "SELECT c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relkind::pg_catalog.text,
                    pg_catalog.row_security_active(c.oid), c.reltuples
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.oid = pg_catalog.to_regclass(COALESCE($2, pg_catalog.quote_ident($1))) AND c.relkind IN ('r', 'p', 'v', 'f')",
            Mode::Read,
            &[name.into(), stored.into()],
        );
        if rows.is_empty() {
            return None;
        }
        let oid: pg_sys::Oid = rows.get(0, 0)?;
        let sql_name = rows.text(0, 1)?;
        let relkind = rows.text(0, 2)?;
        let is_view = relkind == "v";
        let row_security = rows.get(0, 3).unwrap_or(false);
        let mut base_oid = oid;
        let mut mapping: Option<HashMap<i16, i16>> = None;
        let mut kind_is_view = is_view;
        while kind_is_view {
            let Some((below, columns)) = view::base_of(base_oid) else {
                break;
            };
            mapping = Some(match mapping {
                None => columns,
                Some(outer) => outer
                    .into_iter()
                    .filter_map(|(top, middle)| Some((top, *columns.get(&middle)?)))
                    .collect(),
            });
            base_oid = below;
            kind_is_view = kind(connection, base_oid) == Some('v');
        }
        let base_facts = connection.query(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), c.reltuples
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1::pg_catalog.oid",
            Mode::Read,
            &[i64::from(base_oid.to_u32()).into()],
        );
        let mut relation = Relation {
            oid,
            name,
            base_sql_name: base_facts.text(0, 0).unwrap_or_else(|| sql_name.clone()),
            row_estimate: base_facts.get(0, 1).unwrap_or(-1.0),
            sql_name,
            is_view,
            has_row_versions: matches!(relkind.as_str(), "r" | "p"),
            base_oid,
            columns: HashMap::new(),
            row_security,
        };
        relation.read_columns(connection, mapping.as_ref());
        Some(relation)
    }

    fn read_columns(&mut self, connection: &Connection, mapping: Option<&HashMap<i16, i16>>) {
        let rows = connection.query(
            "SELECT a.attname::pg_catalog.text, a.attnum, pg_catalog.format_type(a.atttypid, -1),
                    CASE WHEN a.atttypid IN ('pg_catalog.varchar'::pg_catalog.regtype, 'pg_catalog.bpchar'::pg_catalog.regtype)
                          AND a.atttypmod > 4 THEN a.atttypmod - 4 END,
                    a.attnotnull, a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '', a.atttypid
             FROM pg_catalog.pg_attribute a
             WHERE a.attrelid = $1::pg_catalog.oid AND a.attnum > 0 AND NOT a.attisdropped",
            Mode::Read,
            &[i64::from(self.oid.to_u32()).into()],
        );
        // A view's columns have no defaults and constraints of their own: those of the base count.
        let base = self.is_view.then(|| {
            connection.query(
                "SELECT a.attnum, a.attnotnull, a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> ''
                 FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1::pg_catalog.oid AND a.attnum > 0 AND NOT a.attisdropped",
                Mode::Read,
                &[i64::from(self.base_oid.to_u32()).into()],
            )
        });
        let base: HashMap<i16, (bool, bool)> = base.map_or_else(HashMap::new, |rows| {
            (0..rows.len())
                .filter_map(|row| {
                    Some((
                        rows.get(row, 0)?,
                        (rows.get(row, 1).unwrap_or(false), rows.get(row, 2).unwrap_or(false)),
                    ))
                })
                .collect()
        });
        for row in 0..rows.len() {
            let (Some(name), Some(number), Some(sql_type)) =
                (rows.text(row, 0), rows.get::<i16>(row, 1), rows.text(row, 2))
            else {
                continue;
            };
            let base_number = match mapping {
                Some(mapping) => mapping.get(&number).copied(),
                None => Some(number),
            };
            let of_base = base_number.and_then(|number| base.get(&number)).copied();
            let (not_null, has_default) =
                of_base.unwrap_or((rows.get(row, 4).unwrap_or(false), rows.get(row, 5).unwrap_or(false)));
            let length = rows.get(row, 3);
            let type_oid = rows.get(row, 6).unwrap_or(pg_sys::InvalidOid);
            self.columns.insert(
                name,
                Column {
                    type_oid,
                    sql_type,
                    length,
                    not_null,
                    has_default,
                    base_number,
                },
            );
        }
    }

    /// An expression, a bigint, that tells whether a row `alias` is as it was read: another version of the row has another.
    /// Where there are no versions it is a hash of `columns`, expressions over the row. It is made of their text, since the
    /// hash of a record does not tell an empty object from NULL.
    pub fn row_version(&self, alias: &str, columns: &[String]) -> String {
        if self.has_row_versions {
            format!("{alias}.xmin::pg_catalog.text::pg_catalog.int8")
        } else {
            format!(
                "pg_catalog.hashtextextended(ROW({})::pg_catalog.text, 0)",
                columns.join(", ")
            )
        }
    }

    pub fn lock_target(&self) -> LockTarget {
        LockTarget(i64::from(self.base_oid.to_u32() as i32))
    }

    pub fn has(&self, column: &str) -> bool {
        self.columns.contains_key(column)
    }

    /// The type to cast to for `column`; `text` where there is none such (a dry run over half-made tables).
    pub fn type_of(&self, column: &str) -> &str {
        self.columns
            .get(column)
            .map_or("pg_catalog.text", |column| column.sql_type.as_str())
    }

    /// Whether a foreign key from `asset_id` of this relation's base table to `id` of `other`'s vouches at once for what it
    /// refers to.
    pub fn references(&self, connection: &Connection, other: &Relation) -> bool {
        let rows = connection.query(
            "SELECT 1 FROM pg_catalog.pg_constraint c
             CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(c.conkey), pg_catalog.unnest(c.confkey)) k(own, other)
             JOIN pg_catalog.pg_attribute o ON o.attrelid = $1::pg_catalog.oid AND o.attnum = k.own AND o.attname = 'asset_id'
             JOIN pg_catalog.pg_attribute t ON t.attrelid = $2::pg_catalog.oid AND t.attnum = k.other AND t.attname = 'id'
             WHERE c.contype = 'f' AND c.conrelid = $1::pg_catalog.oid AND c.confrelid = $2::pg_catalog.oid AND c.convalidated
               AND NOT c.condeferrable",
            Mode::Read,
            &[
                i64::from(self.base_oid.to_u32()).into(),
                i64::from(other.base_oid.to_u32()).into(),
            ],
        );
        !rows.is_empty()
    }

    /// Whether `column` is of the built-in type `oid`.
    pub fn is_of_type(&self, column: &str, oid: pg_sys::Oid) -> bool {
        self.columns.get(column).is_some_and(|column| column.type_oid == oid)
    }

    /// 22023 when `value` is no text of the type of `column`; `argument` is what the caller calls it. After an error the
    /// transaction can only be given up.
    pub fn check_value(
        &self,
        connection: &Connection,
        column: &str,
        value: Option<&str>,
        argument: &str,
    ) -> Result<()> {
        let Some(value) = value else { return Ok(()) };
        let column_type = self.type_of(column);
        if reads_as(connection, value, column_type) {
            return Ok(());
        }
        Err(invalid_argument(
            format!("{argument} is not of type {column_type}: {}", quote_literal(value)),
            format!("It takes the text of a value of {}.{column}.", self.sql_name),
        ))
    }

    /// 55000 when it is a view that PostgreSQL cannot do `command` (UPDATE or INSERT) on, or lock the rows of.
    pub fn check_takes(&self, connection: &Connection, command: &str) -> Result<()> {
        if !self.is_view {
            return Ok(());
        }
        let bit: i32 = if command == "UPDATE" { 1 << 2 } else { 1 << 3 };
        let rows = connection.query(
            "SELECT pg_catalog.pg_relation_is_updatable($1::pg_catalog.oid, false) & $2 <> 0",
            Mode::Read,
            &[i64::from(self.oid.to_u32()).into(), bit.into()],
        );
        if rows.get(0, 0) == Some(true) {
            return Ok(());
        }
        Err(not_prepared(
            "55000",
            format!("view {} cannot be written", self.name),
            format!(
                "PostgreSQL does no {command} on it: {} is not auto-updatable.",
                self.sql_name
            ),
            "A view of one table, without DISTINCT, GROUP BY, LIMIT, UNION or aggregates, passes its writes on.",
        ))
    }

    /// The name that a column has in the base table.
    pub fn base_column(&self, connection: &Connection, column: &str) -> Option<String> {
        let number = self.columns.get(column)?.base_number?;
        let rows = connection.query(
            "SELECT attname::pg_catalog.text FROM pg_catalog.pg_attribute WHERE attrelid = $1::pg_catalog.oid AND attnum = $2",
            Mode::Read,
            &[i64::from(self.base_oid.to_u32()).into(), i64::from(number).into()],
        );
        if rows.is_empty() {
            return None;
        }
        rows.text(0, 0)
    }

    fn base_numbers(&self, columns: &[&str]) -> Option<Vec<i16>> {
        columns
            .iter()
            .map(|column| self.columns.get(*column)?.base_number)
            .collect()
    }

    /// The unique indexes of the base table over exactly `columns`, in any order.
    pub fn unique_indexes(&self, connection: &Connection, columns: &[&str]) -> Vec<UniqueIndex> {
        let Some(mut wanted) = self.base_numbers(columns) else {
            return Vec::new();
        };
        wanted.sort_unstable();
        let mut found = all_unique_indexes(connection, self.base_oid);
        found.retain(|index| {
            let mut numbers = index.numbers.clone();
            numbers.sort_unstable();
            numbers == wanted
        });
        found
    }

    /// Every unique index of the base table.
    pub fn every_unique_index(&self, connection: &Connection) -> Vec<UniqueIndex> {
        all_unique_indexes(connection, self.base_oid)
    }

    /// The column that is the base table's primary key alone, as this relation names it.
    pub fn primary_key_column(&self, connection: &Connection) -> Option<String> {
        let rows = connection.query(
            "SELECT i.indkey[0] FROM pg_catalog.pg_index i
             WHERE i.indrelid = $1::pg_catalog.oid AND i.indisprimary AND i.indnkeyatts = 1",
            Mode::Read,
            &[i64::from(self.base_oid.to_u32()).into()],
        );
        let number: i16 = if rows.is_empty() { None } else { rows.get(0, 0) }?;
        let of_key = |column: &&Column| column.base_number == Some(number);
        self.columns
            .iter()
            .find(|(_, column)| of_key(column))
            .map(|(name, _)| name.clone())
    }

    /// The base table's primary key, when it is exactly `column`, with its order.
    pub fn primary_key_order(&self, connection: &Connection, column: &str) -> Option<Ordering> {
        let number = self.columns.get(column)?.base_number?;
        let rows = connection.query(
            "SELECT am.amopstrategy, pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname)
             FROM pg_catalog.pg_index i
             JOIN pg_catalog.pg_opclass oc ON oc.oid = i.indclass[0]
             JOIN pg_catalog.pg_amop am ON am.amopfamily = oc.opcfamily
                  AND am.amoplefttype = oc.opcintype AND am.amoprighttype = oc.opcintype
             JOIN pg_catalog.pg_operator o ON o.oid = am.amopopr
             JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
             WHERE i.indrelid = $1::pg_catalog.oid AND i.indisprimary AND i.indnkeyatts = 1 AND i.indkey[0] = $2
               AND am.amopstrategy IN (2, 5)
             ORDER BY am.amopstrategy",
            Mode::Read,
            &[i64::from(self.base_oid.to_u32()).into(), i64::from(number).into()],
        );
        (rows.len() == 2).then(|| Ordering {
            not_greater: rows.text(0, 1).unwrap_or_default(),
            greater: rows.text(1, 1).unwrap_or_default(),
        })
    }
}

fn kind(connection: &Connection, oid: pg_sys::Oid) -> Option<char> {
    let rows = connection.query(
        "SELECT relkind::pg_catalog.text FROM pg_catalog.pg_class WHERE oid = $1::pg_catalog.oid",
        Mode::Read,
        &[i64::from(oid.to_u32()).into()],
    );
    if rows.is_empty() {
        return None;
    }
    rows.text(0, 0)?.chars().next()
}

fn all_unique_indexes(connection: &Connection, table: pg_sys::Oid) -> Vec<UniqueIndex> {
    // The column came with PostgreSQL 15.
    let nulls_not_distinct = if cfg!(any(feature = "pg13", feature = "pg14")) {
        "false"
    } else {
        "i.indnullsnotdistinct"
    };
    let rows = connection.query(
        &format!(
            "SELECT NOT i.indimmediate, i.indpred IS NOT NULL, {nulls_not_distinct},
                    i.indexprs IS NOT NULL, pg_catalog.array_to_string(i.indkey::pg_catalog.int2[], ','),
                    c.relname::pg_catalog.text, i.indnkeyatts
             FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
             WHERE i.indrelid = $1::pg_catalog.oid AND i.indisunique AND i.indisvalid AND i.indislive
             ORDER BY i.indexrelid"
        ),
        Mode::Read,
        &[i64::from(table.to_u32()).into()],
    );
    (0..rows.len())
        .map(|row| {
            let keys = usize::try_from(rows.get::<i16>(row, 6).unwrap_or(0)).unwrap_or(0);
            let numbers = rows.text(row, 4).unwrap_or_default();
            UniqueIndex {
                deferrable: rows.get(row, 0).unwrap_or(false),
                partial: rows.get(row, 1).unwrap_or(false),
                nulls_not_distinct: rows.get(row, 2).unwrap_or(false),
                has_expressions: rows.get(row, 3).unwrap_or(false),
                numbers: numbers
                    .split(',')
                    .filter_map(|number| number.parse().ok())
                    .take(keys)
                    .collect(),
                name: rows.text(row, 5).unwrap_or_default(),
            }
        })
        .collect()
}
