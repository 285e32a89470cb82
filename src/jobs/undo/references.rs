//! Foreign keys of the user's tables that lead to rows which an undo would delete: what they refer to stays, and what
//! ON DELETE CASCADE would take along with it.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use super::{Element, Fate};
use crate::engine::key_set::KeySet;
use crate::engine::relation::{quote_ident, Relation};
use crate::error::{permission_denied, row_security, Result};
use crate::postgres::spi::{Connection, Mode, Parameter, Statement};
use crate::postgres::user;

/// The tables that an undo deletes from. A row of theirs that refers to another is in nobody's way once it has gone.
#[derive(Default)]
pub struct Going {
    /// Base tables, each with the column of its base by which the undo knows its rows.
    tables: Vec<(String, String)>,
    /// Those of which somebody has to know which rows have gone.
    asked: RefCell<HashSet<String>>,
    /// Rows of these that a dry run would have deleted.
    gone: RefCell<KeySet>,
}

impl Going {
    /// Relations, each with the column by which its rows are known.
    pub fn of<'r>(connection: &Connection, tables: impl Iterator<Item = (&'r Relation, &'r str)>) -> Rc<Self> {
        let base = |(relation, column): (&Relation, &str)| {
            let key = relation.base_column(connection, column);
            (relation.base_sql_name.clone(), key.unwrap_or_else(|| column.to_owned()))
        };
        Rc::new(Going {
            tables: tables.map(base).collect(),
            ..Going::default()
        })
    }

    fn has_gone(&self, table: &str, id: &str) -> bool {
        self.gone.borrow().get(table, id).is_some()
    }
}

/// The foreign keys that lead to one table.
pub struct References {
    /// The base table that they lead to.
    table: String,
    /// One statement for each, which finds the rows among $1 that it refers to.
    statements: Vec<Statement>,
    /// From tables that the undo deletes from: each statement gives the referring row, too.
    from_going: Vec<(String, Statement)>,
    going: Rc<Going>,
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
    /// Those to `target`, whose rows are known by `column`, but for the one from a column of `counted`, whose rows are
    /// looked at in another way.
    ///
    /// # Errors
    /// 42501 when the caller cannot see all rows of a table that has one: what is hidden may use what would go.
    pub fn find(
        connection: &Connection,
        (target, column): (&Relation, &str),
        counted: Option<(&Relation, &str)>,
        going: &Rc<Going>,
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
        let mut references = References {
            table: target.base_sql_name.clone(),
            statements: Vec::new(),
            from_going: Vec::new(),
            going: Rc::clone(going),
        };
        for key in foreign_keys(connection, target) {
            let leads_by = |own: &str| key.columns.iter().any(|(column, of)| column == own && *of == id);
            if counted
                .as_ref()
                .is_some_and(|(table, column)| key.table == *table && leads_by(column))
            {
                continue;
            }
            key.check_visible(target)?;
            let from_going = going.tables.iter().find(|(table, _)| *table == key.table);
            match from_going {
                Some((table, known_by)) => {
                    going.asked.borrow_mut().insert(table.clone());
                    let statement = key.statement(target, &id, id_type, Some(known_by));
                    references.from_going.push((table.clone(), statement));
                }
                None => references.statements.push(key.statement(target, &id, id_type, None)),
            }
        }
        Ok(references)
    }

    pub fn is_empty(&self) -> bool {
        self.statements.is_empty() && self.from_going.is_empty()
    }

    /// Takes note of the rows that a dry run would have deleted.
    ///
    /// # Errors
    /// 53400 when there are more of them than `media_assets.dry_run_memory` allows.
    pub fn remember(&self, elements: &[&Element], fates: &[Fate]) -> Result<()> {
        if !self.going.asked.borrow().contains(&self.table) {
            return Ok(());
        }
        let mut gone = self.going.gone.borrow_mut();
        let mut pairs = elements.iter().zip(fates).filter(|(_, fate)| **fate == Fate::Undo);
        pairs.try_for_each(|(element, _)| gone.insert(&self.table, &element.id, false))
    }

    /// Marks the rows that are referred to, of those that would go: `ids` are those of all elements. What refers to one
    /// from the same table and goes with it is in nobody's way, nor is what has gone before.
    pub fn mark(&self, connection: &Connection, mode: Mode, ids: Parameter, elements: &[&Element], fates: &mut [Fate]) {
        let mark = |fate: &mut Fate| {
            if *fate == Fate::Undo {
                *fate = Fate::Conflict("in_use_by_reference");
            }
        };
        for statement in &self.statements {
            let rows = connection.run(statement, mode, &[ids]);
            for n in (0..rows.len()).filter_map(|row| rows.get::<i64>(row, 0)) {
                mark(&mut fates[n as usize - 1]);
            }
        }
        let mut within = Vec::new();
        for (table, statement) in &self.from_going {
            let rows = connection.run(statement, mode, &[ids]);
            for row in 0..rows.len() {
                let (Some(n), Some(id)) = (rows.get::<i64>(row, 0), rows.text(row, 1)) else {
                    continue;
                };
                let place = n as usize - 1;
                if self.going.has_gone(table, &id) {
                    continue;
                }
                if *table == self.table {
                    within.push((place, id));
                } else {
                    mark(&mut fates[place]);
                }
            }
        }
        // One that stays keeps what it refers to, and so on.
        loop {
            let with_fates = elements.iter().zip(&*fates);
            let going: HashSet<&str> = with_fates
                .filter(|(_, fate)| **fate == Fate::Undo)
                .map(|(element, _)| element.id.as_str())
                .collect();
            let before = going.len();
            for (place, id) in &within {
                if !going.contains(id.as_str()) {
                    mark(&mut fates[*place]);
                }
            }
            if fates.iter().filter(|fate| **fate == Fate::Undo).count() == before {
                return;
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

    /// With `known_by`, a column of the table, it gives each row that refers to one of $1, else only whether there is one.
    fn statement(&self, target: &Relation, id: &str, id_type: &str, known_by: Option<&String>) -> Statement {
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
        let (table, pairs) = (&self.table, pairs.join(" AND "));
        Statement::new(match known_by {
            Some(known_by) => format!(
                "SELECT u.n, r.{}::pg_catalog.text FROM {unnested}{join} JOIN {table} r ON {pairs}",
                quote_ident(known_by)
            ),
            None => format!("SELECT u.n FROM {unnested}{join} WHERE EXISTS (SELECT FROM {table} r WHERE {pairs})"),
        })
    }
}
