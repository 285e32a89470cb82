//! Foreign keys of the user's tables that lead to rows which an undo would delete: what they refer to stays, and what
//! ON DELETE CASCADE would take along with it.

use super::Fate;
use crate::engine::relation::{quote_ident, Relation};
use crate::error::{permission_denied, row_security, Result};
use crate::postgres::spi::{Connection, Mode, Parameter, Statement};
use crate::postgres::user;

/// The foreign keys that lead to one table.
pub struct References {
    /// One statement for each, which finds the rows among $1 that it refers to.
    statements: Vec<Statement>,
}

/// A foreign key from a table.
struct ForeignKey {
    table: String,
    /// Columns of the table, and those of the target that they refer to.
    columns: Vec<(String, String)>,
    readable: bool,
    row_security: bool,
}

impl References {
    /// Those to `target`, but for the one from a column of `counted`, whose rows are looked at in another way.
    ///
    /// # Errors
    /// 42501 when the caller cannot see all rows of a table that has one: what is hidden may use what would go.
    pub fn find(connection: &Connection, target: &Relation, counted: Option<(&Relation, &str)>) -> Result<Self> {
        Self::find_on(connection, target, "id", counted)
    }

    /// As [`References::find`], for a target whose rows are known by `column`.
    ///
    /// # Errors
    /// As [`References::find`].
    pub fn find_on(
        connection: &Connection,
        target: &Relation,
        column: &str,
        counted: Option<(&Relation, &str)>,
    ) -> Result<Self> {
        let id = target
            .base_column(connection, column)
            .unwrap_or_else(|| column.to_owned());
        let id_type = target.type_of(column);
        let counted = counted.and_then(|(relation, column)| {
            Some((
                relation.base_sql_name.as_str(),
                relation.base_column(connection, column)?,
            ))
        });
        let mut statements = Vec::new();
        for key in foreign_keys(connection, target) {
            let leads_by = |own: &str| key.columns.iter().any(|(column, of)| column == own && *of == id);
            if counted
                .as_ref()
                .is_some_and(|(table, column)| key.table == *table && leads_by(column))
            {
                continue;
            }
            key.check_visible(target)?;
            statements.push(key.statement(target, &id, id_type));
        }
        Ok(References { statements })
    }

    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// Marks the rows with the ids `ids` that are referred to.
    pub fn mark(&self, connection: &Connection, mode: Mode, ids: Parameter, fates: &mut [Fate]) {
        for statement in &self.statements {
            let rows = connection.run(statement, mode, &[ids]);
            for n in (0..rows.len()).filter_map(|row| rows.get::<i64>(row, 0)) {
                let fate = &mut fates[n as usize - 1];
                if *fate == Fate::Undo {
                    *fate = Fate::Conflict("in_use_by_reference");
                }
            }
        }
    }
}

fn foreign_keys(connection: &Connection, target: &Relation) -> Vec<ForeignKey> {
    // A constraint with a parent is the share that a partition has in another one.
    let rows = connection.query(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), pg_catalog.array_agg(own.attname::pg_catalog.text ORDER BY k.place),
                pg_catalog.array_agg(of.attname::pg_catalog.text ORDER BY k.place),
                pg_catalog.bool_and(pg_catalog.has_column_privilege(c.oid, own.attnum, 'SELECT')), pg_catalog.row_security_active(c.oid)
         FROM pg_catalog.pg_constraint f
         JOIN pg_catalog.pg_class c ON c.oid = f.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         CROSS JOIN LATERAL ROWS FROM (pg_catalog.unnest(f.conkey), pg_catalog.unnest(f.confkey)) WITH ORDINALITY k(own, other, place)
         JOIN pg_catalog.pg_attribute own ON own.attrelid = f.conrelid AND own.attnum = k.own
         JOIN pg_catalog.pg_attribute of ON of.attrelid = f.confrelid AND of.attnum = k.other
         WHERE f.contype = 'f' AND f.confrelid = $1::pg_catalog.oid AND f.conparentid = 0
         GROUP BY f.oid, n.nspname, c.relname, c.oid ORDER BY f.oid",
        Mode::Read,
        &[i64::from(target.base_oid.to_u32()).into()],
    );
    (0..rows.len())
        .filter_map(|row| {
            let names = |column| rows.get::<Vec<String>>(row, column);
            Some(ForeignKey {
                table: rows.text(row, 0)?,
                columns: names(1)?.into_iter().zip(names(2)?).collect(),
                readable: rows.get(row, 3)?,
                row_security: rows.get(row, 4)?,
            })
        })
        .collect()
}

impl ForeignKey {
    fn check_visible(&self, target: &Relation) -> Result<()> {
        if self.row_security {
            return Err(row_security(&self.table));
        }
        if self.readable {
            return Ok(());
        }
        let columns: Vec<String> = self.columns.iter().map(|(own, _)| quote_ident(own)).collect();
        let columns = columns.join(", ");
        Err(permission_denied(
            &format!("table {}", self.table),
            format!(
                "Its foreign key ({columns}) leads to {}: what it uses must stay.",
                target.base_sql_name
            ),
        )
        .set_hint(format!(
            "GRANT SELECT ({columns}) ON {} TO {};",
            self.table,
            quote_ident(&user::current_name())
        )))
    }

    fn statement(&self, target: &Relation, id: &str, id_type: &str) -> Statement {
        let unnested = format!("pg_catalog.unnest($1::{id_type}[]) WITH ORDINALITY u(id, n)");
        let only_id = self.columns.iter().all(|(_, of)| of == id);
        let (of, join) = if only_id {
            ("u.id".to_owned(), String::new())
        } else {
            let join = format!(" JOIN {} a ON a.{} = u.id", target.base_sql_name, quote_ident(id));
            (String::new(), join)
        };
        let pairs: Vec<String> = self
            .columns
            .iter()
            .map(|(own, column)| {
                let of = if only_id {
                    of.clone()
                } else {
                    format!("a.{}", quote_ident(column))
                };
                format!("r.{} = {of}", quote_ident(own))
            })
            .collect();
        Statement::new(format!(
            "SELECT u.n FROM {unnested}{join} WHERE EXISTS (SELECT FROM {} r WHERE {})",
            self.table,
            pairs.join(" AND ")
        ))
    }
}
