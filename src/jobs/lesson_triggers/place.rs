//! Where a trigger works: the relations that its arguments name, and the statements upon them, kept for the session.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use pgrx::pg_sys;

use crate::engine::relation::Relation;
use crate::engine::STEADY_PLANS;
use crate::error::{not_prepared, Result};
use crate::jobs::asset_tables::{self, Found, Tables};
use crate::jobs::lesson_assets::known::{has_size, LookUps};
use crate::jobs::lesson_assets::write::Writer;
use crate::postgres::invalidation;
use crate::postgres::settings_level::SettingsLevel;
use crate::postgres::spi::{connect_keeping_plans, Connection, Mode, Statement};
use crate::postgres::trigger::TriggerCall;
use crate::postgres::user::as_role;

/// The relations of a trigger, and what is asked of them.
pub struct Place {
    /// The owner of the lesson table, whose rights all of this has.
    owner: pg_sys::Oid,
    arguments: Vec<String>,
    epoch: u64,
    pub tables: Tables,
    pub look_ups: LookUps,
    pub writer: Writer,
    /// The organization of a course, and of some.
    pub organization: Statement,
    pub organizations_of: Statement,
    /// The organizations of all courses, while they are few.
    pub organizations: Statement,
    /// Assets of one organization with the given ids or keys.
    pub assets: Statement,
    /// All keys, while they are few.
    pub keys: Statement,
    /// Lessons as they are now.
    pub lessons: Statement,
    pub usages: Statement,
    /// Those of all lessons.
    pub all_usages: String,
    /// Planned anew for each slice: a join whose order has to fit the table's present size.
    pub delete_usages: String,
    pub delete_all_usages: Statement,
}

thread_local! {
    /// By lesson table: a partition has the arguments of its parent, and columns of its own.
    static PLACES: RefCell<HashMap<pg_sys::Oid, Rc<Place>>> = RefCell::default();
}

/// Runs `work` with the rights of the lesson table's owner, under a search_path that nobody can put operators in, with
/// plans that do not flip. A `lock_timeout` of the application's stays its own.
pub fn at_home<R>(owner: pg_sys::Oid, work: impl FnOnce(&Connection) -> R) -> R {
    as_role(owner, || {
        let settings = STEADY_PLANS.into_iter().chain([("search_path", "pg_catalog, pg_temp")]);
        let _level = SettingsLevel::with(settings.map(|(name, value)| (name, value.to_owned())));
        connect_keeping_plans(work)
    })
}

/// The relations that a trigger's arguments name, looked up as the lesson table's owner.
pub fn tables_at(connection: &Connection, lesson: &str, arguments: &[String]) -> Result<Tables> {
    let find = |name, place: usize| {
        arguments
            .get(place)
            .and_then(|sql_name| Relation::find(connection, name, Some(sql_name)))
    };
    let found = Found {
        lesson: Relation::find(connection, "lesson", Some(lesson)),
        course: find("course", 0),
        group: find("group", 1),
        assets: find("assets", 2),
        usages: find("asset_usages", 3),
        state: None,
    };
    asset_tables::checked(connection, found)
}

/// What is written belongs to the owner of the lesson table, as `attach_lesson_triggers` saw to: whoever may make a trigger
/// on that table cannot have its owner write, and so run triggers, anywhere else.
fn check_owned(connection: &Connection, owner: pg_sys::Oid, written: [&Relation; 2]) -> Result<()> {
    for relation in written {
        let rows = connection.query(
            "SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = $1::pg_catalog.oid",
            Mode::Read,
            &[i64::from(relation.oid.to_u32()).into()],
        );
        if rows.is_empty() || rows.get(0, 0) != Some(owner) {
            return Err(not_prepared(
                "55000",
                format!("{} does not belong to the owner of the lesson table", relation.sql_name),
                "The lesson triggers write with that owner's rights, and only what is his.",
                "SELECT * FROM attach_lesson_triggers();",
            ));
        }
    }
    Ok(())
}

impl Place {
    /// What the running trigger works on; learnt once in a session, and again when one of the relations has changed.
    ///
    /// # Errors
    /// A relation, column or constraint that is not there any more; a right that the owner lacks.
    pub fn of(call: &TriggerCall) -> Result<Rc<Place>> {
        let (lesson, owner, epoch) = (call.relation(), call.owner(), invalidation::epoch());
        let arguments = call.arguments();
        let known = PLACES.with_borrow(|places| places.get(&lesson).cloned());
        if let Some(place) = known {
            if place.epoch == epoch && place.owner == owner && place.arguments == arguments {
                return Ok(place);
            }
        }
        let place = Rc::new(at_home(owner, |connection| {
            Self::learn(connection, lesson, owner, arguments)
        })?);
        let replaced = PLACES.with_borrow_mut(|places| places.insert(lesson, Rc::clone(&place)));
        drop(replaced);
        Ok(place)
    }

    /// Whether nothing has changed since it was learnt.
    pub fn is_current(&self) -> bool {
        self.epoch == invalidation::epoch()
    }

    pub fn home<R>(&self, work: impl FnOnce(&Connection) -> R) -> R {
        at_home(self.owner, work)
    }

    /// How many usages the statistics knew of when the place was learnt; negative when they knew nothing.
    pub fn estimated_usages(&self) -> f32 {
        self.tables.usages.as_ref().map_or(-1.0, |usages| usages.row_estimate)
    }

    fn learn(
        connection: &Connection,
        lesson: pg_sys::Oid,
        owner: pg_sys::Oid,
        arguments: Vec<String>,
    ) -> Result<Place> {
        // Before anything is read: what changes from now on is seen.
        invalidation::watch([lesson]);
        let epoch = invalidation::epoch();
        let sql_name = connection
            .query(
                "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1::pg_catalog.oid",
                Mode::Read,
                &[i64::from(lesson.to_u32()).into()],
            )
            .text(0, 0)
            .unwrap_or_default();
        let tables = tables_at(connection, &sql_name, &arguments)?;
        let (Some(assets), Some(usages), Some(writer)) =
            (&tables.assets, &tables.usages, Writer::new(connection, &tables))
        else {
            return Err(crate::error::counters_do_not_add_up("relations"));
        };
        check_owned(connection, owner, [assets, usages])?;
        for relation in [&tables.lesson, &tables.course, &tables.group, assets, usages] {
            invalidation::watch([relation.oid, relation.base_oid]);
        }
        let statements = Statements {
            tables: &tables,
            assets,
            usages,
        };
        Ok(Place {
            owner,
            arguments,
            epoch,
            look_ups: LookUps::new(&tables),
            writer,
            organization: statements.organization(),
            organizations_of: statements.organizations_of(),
            organizations: statements.organizations(),
            assets: statements.assets(),
            keys: statements.keys(),
            lessons: statements.lessons(),
            usages: statements.usages(),
            all_usages: statements.all_usages(),
            delete_usages: statements.delete_usages(),
            delete_all_usages: Statement::new(format!(
                "DELETE FROM {} s WHERE s.target_type = 'lesson' AND s.slot_type IN ('lesson_video', 'lesson_document')",
                usages.sql_name
            )),
            tables,
        })
    }
}

struct Statements<'t> {
    tables: &'t Tables,
    assets: &'t Relation,
    usages: &'t Relation,
}

impl Statements<'_> {
    fn organization(&self) -> Statement {
        let (course, group) = (&self.tables.course, &self.tables.group);
        Statement::new(format!(
            "SELECT g.organization_id::pg_catalog.text FROM {} c JOIN {} g ON g.id = c.group_id WHERE c.id = $1::{} LIMIT 1",
            course.sql_name,
            group.sql_name,
            course.type_of("id"),
        ))
    }

    fn organizations_of(&self) -> Statement {
        let (course, group) = (&self.tables.course, &self.tables.group);
        Statement::new(format!(
            "SELECT u.n, o.organization_id::pg_catalog.text
             FROM pg_catalog.unnest($1::{}[]) WITH ORDINALITY u(id, n)
             CROSS JOIN LATERAL (SELECT g.organization_id FROM {} c JOIN {} g ON g.id = c.group_id WHERE c.id = u.id LIMIT 1) o",
            course.type_of("id"),
            course.sql_name,
            group.sql_name
        ))
    }

    fn organizations(&self) -> Statement {
        Statement::new(format!(
            "SELECT c.id::pg_catalog.text, g.organization_id::pg_catalog.text
             FROM (SELECT c.id, c.group_id FROM {} c LIMIT $1) c
             LEFT JOIN LATERAL (SELECT g.organization_id FROM {} g WHERE g.id = c.group_id LIMIT 1) g ON true",
            self.tables.course.sql_name, self.tables.group.sql_name
        ))
    }

    fn assets(&self) -> Statement {
        let columns = format!(
            "a.id, a.canonical_key::pg_catalog.text AS key, {} AS has_size",
            has_size(self.assets)
        );
        let table = &self.assets.sql_name;
        let own = format!("a.organization_id = $1::{}", self.assets.type_of("organization_id"));
        Statement::new(format!(
            "SELECT a.id, a.key, a.has_size FROM pg_catalog.unnest($2) u(id)
             CROSS JOIN LATERAL (SELECT {columns}, a.organization_id FROM {table} a WHERE a.id = u.id LIMIT 1) a WHERE {own}
             UNION ALL
             SELECT a.id, a.key, a.has_size FROM pg_catalog.unnest($3) u(key)
             CROSS JOIN LATERAL (SELECT {columns} FROM {table} a
                                 WHERE {own} AND a.canonical_key >= u.key AND a.canonical_key <= u.key ORDER BY a.canonical_key LIMIT 1) a"
        ))
    }

    fn keys(&self) -> Statement {
        Statement::new(format!(
            "SELECT a.organization_id::pg_catalog.text, a.canonical_key::pg_catalog.text, a.id, {} FROM {} a
             WHERE a.canonical_key IS NOT NULL AND a.organization_id IS NOT NULL LIMIT $1",
            has_size(self.assets),
            self.assets.sql_name
        ))
    }

    fn lessons(&self) -> Statement {
        let tables = self.tables;
        Statement::new(format!(
            "SELECT l.id::pg_catalog.text, o.organization_id::pg_catalog.text, l.course_id::pg_catalog.text, l.videos, l.documents
             FROM pg_catalog.unnest($1::{}[]) WITH ORDINALITY u(id, n)
             CROSS JOIN LATERAL (SELECT l.id, l.course_id, l.videos, l.documents FROM {} l WHERE l.id = u.id LIMIT 1) l
             LEFT JOIN LATERAL (SELECT g.organization_id FROM {} c JOIN {} g ON g.id = c.group_id
                                WHERE c.id = l.course_id LIMIT 1) o ON true
             ORDER BY u.n",
            tables.lesson.type_of("id"),
            tables.lesson.sql_name,
            tables.course.sql_name,
            tables.group.sql_name
        ))
    }

    fn usages(&self) -> Statement {
        Statement::new(format!(
            "SELECT s.target_id::pg_catalog.text, s.organization_id::pg_catalog.text, s.asset_id, s.slot_type::pg_catalog.text, s.slot_key::pg_catalog.text,
                    s.position::pg_catalog.int4
             FROM {} s WHERE s.target_id = ANY ($1::{}[]) AND s.target_type = 'lesson'
               AND s.slot_type IN ('lesson_video', 'lesson_document')",
            self.usages.sql_name,
            self.usages.type_of("target_id")
        ))
    }

    fn all_usages(&self) -> String {
        let organization = match self.tables.organizations_are_uuids() {
            true => "s.organization_id",
            false => "s.organization_id::pg_catalog.text",
        };
        format!(
            "SELECT {organization}, s.target_id::pg_catalog.text, s.slot_type::pg_catalog.text, s.asset_id,
                    s.position::pg_catalog.int4, s.slot_key IS NULL
             FROM {} s WHERE s.target_type = 'lesson' AND s.slot_type IN ('lesson_video', 'lesson_document')",
            self.usages.sql_name
        )
    }

    fn delete_usages(&self) -> String {
        format!(
            "DELETE FROM {table} s
             USING ROWS FROM (pg_catalog.unnest($1::{target}[]), pg_catalog.unnest($2::{organization}[]), pg_catalog.unnest($3),
                              pg_catalog.unnest($4::{slot}[]), pg_catalog.unnest($5), pg_catalog.unnest($6))
                   u(target, org, asset, slot, key, place)
             WHERE s.target_type = 'lesson' AND s.target_id = u.target AND s.organization_id = u.org AND s.asset_id = u.asset
               AND s.slot_type = u.slot AND s.slot_key IS NOT DISTINCT FROM u.key AND s.position IS NOT DISTINCT FROM u.place",
            table = self.usages.sql_name,
            target = self.usages.type_of("target_id"),
            organization = self.usages.type_of("organization_id"),
            slot = self.usages.type_of("slot_type"),
        )
    }
}
