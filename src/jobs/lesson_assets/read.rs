//! Reading lessons in the order of their primary key.

use crate::engine::long::Buckets;
use crate::error::Result;
use crate::jobs::asset_tables::Tables;
use crate::postgres::arrays;
use crate::postgres::jsonb::Jsonb;
use crate::postgres::spi::{Connection, Mode, Rows, Statement};

/// Which lessons a run looks at.
#[derive(Clone)]
pub struct Scope {
    pub organization_id: Option<String>,
    /// Start behind this lesson.
    pub after: Option<String>,
    /// Of these organizations only.
    pub buckets: Buckets,
    /// The last lesson, as the run's row keeps it; `None` is the greatest id there is now.
    pub bound: Option<String>,
    /// Pass over lessons that are as a finished run left them.
    pub skip_settled: bool,
}

impl Scope {
    /// Whether lessons of every organization are in it, so that the lessons of a slice are neighbours.
    pub fn is_whole(&self) -> bool {
        self.organization_id.is_none() && self.buckets.are_all()
    }
}

/// A lesson as it was read. The media are borrowed from the slice's memory.
#[derive(Default)]
pub struct Lesson {
    pub id: String,
    pub organization: Option<String>,
    pub course: Option<String>,
    pub videos: Option<Jsonb>,
    pub documents: Option<Jsonb>,
}

/// Columns id, organization, course, videos, documents.
pub struct Page {
    rows: Rows,
}

impl Page {
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn id(&self, index: usize) -> String {
        self.rows.text(index, 0).unwrap_or_default()
    }

    pub fn weight(&self, index: usize) -> usize {
        self.rows.raw_size(index, 3) + self.rows.raw_size(index, 4)
    }

    pub fn lesson(&self, index: usize) -> Lesson {
        lesson(&self.rows, index)
    }
}

fn lesson(rows: &Rows, index: usize) -> Lesson {
    Lesson {
        id: rows.text(index, 0).unwrap_or_default(),
        organization: rows.text(index, 1),
        course: rows.text(index, 2),
        videos: rows.get(index, 3),
        documents: rows.get(index, 4),
    }
}

/// The statements that read lessons.
pub struct Reader {
    scope: Scope,
    ids_are_uuids: bool,
    first: Statement,
    next: Statement,
    again: Statement,
    these: Statement,
}

impl Reader {
    pub fn new(connection: &Connection, tables: &Tables, scope: Scope, execute: bool) -> Result<Self> {
        let lesson = &tables.lesson;
        let id_type = lesson.type_of("id");
        let organization_type = tables.group.type_of("organization_id");
        lesson.check_value(connection, "id", scope.after.as_deref(), "after")?;
        let organization = scope.organization_id.as_deref();
        tables
            .group
            .check_value(connection, "organization_id", organization, "organization_id")?;
        let greater = &tables.lesson_order.greater;
        let not_greater = &tables.lesson_order.not_greater;
        let select = format!(
            "SELECT l.id::pg_catalog.text, o.organization_id::pg_catalog.text, l.course_id::pg_catalog.text, l.videos, l.documents
             FROM {} l
             LEFT JOIN LATERAL (SELECT g.organization_id FROM {} c JOIN {} g ON g.id = c.group_id
                                WHERE c.id = l.course_id LIMIT 1) o ON true",
            lesson.sql_name, tables.course.sql_name, tables.group.sql_name
        );
        let of_organization = if scope.organization_id.is_some() {
            format!("o.organization_id = $3::{organization_type}")
        } else {
            "$3::pg_catalog.text IS NULL".to_owned()
        };
        let again_scope = of_organization.replace("$3", "$2");
        let in_range = match scope.buckets.condition("o.organization_id") {
            Some(condition) => format!("{of_organization} AND {condition}"),
            None => of_organization,
        };
        let bounded = format!("{in_range} AND l.id {not_greater} $2::{id_type}");
        let mut reader = Reader {
            first: Statement::new(format!("{select} WHERE {bounded} ORDER BY l.id LIMIT $1")),
            next: Statement::new(format!(
                "{select} WHERE {bounded} AND l.id {greater} $4::{id_type} ORDER BY l.id LIMIT $1"
            )),
            // Under lock, so that the new decision is about what will be written.
            again: Statement::new(format!(
                "WITH locked AS MATERIALIZED (
                     SELECT l.id, l.course_id, l.videos, l.documents, u.n
                     FROM pg_catalog.unnest($1::{id_type}[]) WITH ORDINALITY u(id, n) JOIN {} l ON l.id = u.id
                     ORDER BY u.n FOR NO KEY UPDATE OF l)
                 SELECT l.id::pg_catalog.text, o.organization_id::pg_catalog.text, l.course_id::pg_catalog.text, l.videos, l.documents
                 FROM locked l
                 LEFT JOIN LATERAL (SELECT g.organization_id FROM {} c JOIN {} g ON g.id = c.group_id
                                    WHERE c.id = l.course_id LIMIT 1) o ON true
                 WHERE {again_scope} ORDER BY l.n",
                lesson.sql_name, tables.course.sql_name, tables.group.sql_name
            )),
            these: Statement::new(format!(
                "{select} WHERE l.id = ANY ($1::{id_type}[]) AND {again_scope} ORDER BY l.id"
            )),
            scope,
            ids_are_uuids: tables.lesson_ids_are_uuids(),
        };
        if reader.scope.bound.is_some() {
            return Ok(reader);
        }
        let mode = if execute { Mode::Write } else { Mode::Read };
        let last = connection.query(
            &format!(
                "SELECT l.id::pg_catalog.text FROM {} l ORDER BY l.id DESC LIMIT 1",
                lesson.sql_name
            ),
            mode,
            &[],
        );
        // Fixed when the run starts, so that it ends under live inserts.
        reader.scope.bound = if last.is_empty() { None } else { last.text(0, 0) };
        Ok(reader)
    }

    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    pub fn bound(&self) -> Option<&str> {
        self.scope.bound.as_deref()
    }

    pub fn organization(&self) -> Option<&str> {
        self.scope.organization_id.as_deref()
    }

    /// Whether the run looks at a part of the lessons.
    pub fn is_narrowed(&self) -> bool {
        self.scope.organization_id.is_some() || self.scope.after.is_some()
    }

    pub fn page(&self, connection: &Connection, mode: Mode, after: Option<&str>, limit: i64) -> Page {
        let bound = self.scope.bound.as_deref();
        let organization = self.scope.organization_id.as_deref();
        let rows = match after.or(self.scope.after.as_deref()) {
            None => connection.run(&self.first, mode, &[limit.into(), bound.into(), organization.into()]),
            Some(after) => connection.run(
                &self.next,
                mode,
                &[limit.into(), bound.into(), organization.into(), after.into()],
            ),
        };
        Page { rows }
    }

    /// The lessons with these ids that are in the scope.
    pub fn these(&self, connection: &Connection, ids: &[String]) -> Page {
        let ids = arrays::ids(self.ids_are_uuids, ids.iter().map(|id| Some(id.as_str())));
        let organization = self.scope.organization_id.as_deref();
        Page {
            rows: connection.run(&self.these, Mode::Write, &[ids.into(), organization.into()]),
        }
    }

    /// The rows `from..to` of a page as they are now, locked. One that has gone, or left the scope, is left out.
    pub fn again(&self, connection: &Connection, page: &Page, from: usize, to: usize) -> Vec<Lesson> {
        let ids: Vec<String> = (from..to).map(|row| page.id(row)).collect();
        let rows = connection.run(
            &self.again,
            Mode::Write,
            &[
                arrays::ids(self.ids_are_uuids, ids.iter().map(|id| Some(id.as_str()))).into(),
                self.scope.organization_id.as_deref().into(),
            ],
        );
        let lessons = (0..rows.len()).map(|row| lesson(&rows, row).owned()).collect();
        drop(rows);
        lessons
    }
}

impl Lesson {
    /// Media copied into the current memory context, so that they outlive the rows they were read from.
    fn owned(self) -> Self {
        Lesson {
            videos: self.videos.map(Jsonb::copied),
            documents: self.documents.map(Jsonb::copied),
            ..self
        }
    }
}
