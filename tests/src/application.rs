//! Tables as an application would have them: lesson → course → "group", and the assets beside them.

use crate::{literal, Database, Server, Session};

/// Organizations, groups, courses and lessons with ids that tests can name by number.
///
/// Group, course and organization of one number belong together.
#[derive(Clone)]
pub struct Application {
    /// SQL type of `lesson.id`.
    pub lesson_id: String,
    /// SQL type of `"group".organization_id`.
    pub organization_id: String,
}

impl Default for Application {
    fn default() -> Self {
        Application {
            lesson_id: "uuid".into(),
            organization_id: "uuid".into(),
        }
    }
}

impl Application {
    /// Lesson side and asset tables, with two organizations (1, 2) and a group without one (3).
    pub fn create(session: &mut Session) -> Self {
        let application = Application::default();
        application.create_lesson_side(session);
        session.run("SELECT * FROM create_asset_tables()");
        application
    }

    /// The lesson side only, in the current schema.
    pub fn create_lesson_side(&self, session: &mut Session) {
        let Application {
            lesson_id,
            organization_id,
        } = self;
        session.run(&format!(
            "CREATE TABLE \"group\" (id int PRIMARY KEY, organization_id {organization_id});
             CREATE TABLE course (id int PRIMARY KEY, group_id int);
             CREATE TABLE lesson (id {lesson_id} PRIMARY KEY, course_id int, title text DEFAULT 'a lesson',
                                  videos jsonb, documents jsonb, updated_at timestamptz DEFAULT '2020-01-01');
             INSERT INTO \"group\" VALUES (1, {}), (2, {}), (3, NULL);
             INSERT INTO course VALUES (1, 1), (2, 2), (3, 3), (4, NULL)",
            literal(&self.organization(1)),
            literal(&self.organization(2)),
        ));
    }

    /// Text form of an organization's id.
    pub fn organization(&self, number: u32) -> String {
        id_of_type(&self.organization_id, 0x0a, number)
    }

    /// Text form of a lesson's id; higher numbers sort later whatever the type.
    pub fn lesson(&self, number: u32) -> String {
        id_of_type(&self.lesson_id, 0x10, number)
    }

    /// Text form of an asset's id.
    pub fn asset(&self, number: u32) -> String {
        id_of_type("uuid", 0xa0, number)
    }

    /// Inserts a lesson of organization 1 with these videos (JSON text).
    pub fn add_lesson(&self, session: &mut Session, number: u32, videos: &str) {
        self.add_lesson_of(session, number, 1, videos, "[]");
    }

    /// Inserts a lesson of a course.
    pub fn add_lesson_of(&self, session: &mut Session, number: u32, course: u32, videos: &str, documents: &str) {
        session.run(&format!(
            "INSERT INTO lesson (id, course_id, videos, documents) VALUES ({}, {course}, {}, {})",
            literal(&self.lesson(number)),
            literal(videos),
            literal(documents)
        ));
    }

    /// Inserts lessons `first..=last` of organization 1, each with one upload of its own key `k<number>`.
    pub fn add_uploads(&self, session: &mut Session, first: u32, last: u32) {
        for number in first..=last {
            self.add_lesson(
                session,
                number,
                &format!(r#"[{{"type": "upload", "key": "k{number}"}}]"#),
            );
        }
    }

    /// Inserts an upload asset of an organization, as an application would.
    pub fn add_asset(&self, session: &mut Session, number: u32, organization: u32, key: &str) {
        session.run(&insert_asset(
            &self.asset(number),
            &self.organization(organization),
            key,
        ));
    }
}

/// The statement by which an application inserts an upload without thinking of keys.
pub fn insert_asset(id: &str, organization: &str, key: &str) -> String {
    format!(
        "INSERT INTO assets (id, organization_id, kind, provider, storage_provider, storage_key, is_external, status, metadata)
         VALUES ({}, {}, 'video', 'upload', 's3', {}, false, 'active', '{{}}')",
        literal(id),
        literal(organization),
        literal(key)
    )
}

fn id_of_type(sql_type: &str, prefix: u32, number: u32) -> String {
    match sql_type {
        "uuid" => format!("{prefix:02x}000000-0000-4000-8000-{number:012}"),
        "text" => format!("{prefix:02x} 'quoted' {number:08}"),
        _ => (u64::from(prefix) * 1_000_000 + u64::from(number)).to_string(),
    }
}

/// Asserts with SQL of its own, not the product's verification, that each eligible item of the lessons ends
/// at an asset of its organization with its key, has its usage, and that no key is there twice.
pub fn assert_items_are_settled(session: &mut Session) {
    const ITEMS: &str = "
        WITH items AS (
            SELECT l.id::text AS lesson_id, s.slot_type, e.item, e.n - 1 AS position, g.organization_id
            FROM lesson l JOIN course c ON c.id = l.course_id JOIN \"group\" g ON g.id = c.group_id
            CROSS JOIN LATERAL (VALUES ('lesson_video', l.videos), ('lesson_document', l.documents)) s (slot_type, slot_items)
            CROSS JOIN LATERAL jsonb_array_elements(
                CASE jsonb_typeof(s.slot_items) WHEN 'array' THEN s.slot_items ELSE '[]' END) WITH ORDINALITY e (item, n)
            WHERE g.organization_id IS NOT NULL
        ), eligible AS (
            SELECT i.*, n.canonical_key AS item_key FROM items i, normalize_lesson_media(i.slot_type, i.item) n
            WHERE n.outcome = 'eligible')";
    let lost = session.rows(&format!(
        "{ITEMS} SELECT i.lesson_id, i.slot_type, i.position, i.item::text, a.canonical_key FROM eligible i
         LEFT JOIN assets a ON a.id::text = lower(i.item ->> 'assetId') AND a.organization_id = i.organization_id
         WHERE a.id IS NULL OR a.canonical_key IS DISTINCT FROM i.item_key
            OR NOT EXISTS (SELECT FROM asset_usages u
                           WHERE u.asset_id = a.id AND u.organization_id = i.organization_id AND u.target_type = 'lesson'
                             AND u.target_id = i.lesson_id AND u.slot_type = i.slot_type AND u.slot_key IS NULL
                             AND u.position = i.position)
         LIMIT 5"
    ));
    assert!(lost.is_empty(), "eligible items without their asset or usage: {lost:?}");
    let twice = session.rows(
        "SELECT organization_id, canonical_key, count(*) FROM assets WHERE canonical_key IS NOT NULL
         GROUP BY 1, 2 HAVING count(*) > 1",
    );
    assert!(twice.is_empty(), "keys that are there twice: {twice:?}");
    let twice = session.rows(
        "SELECT organization_id, asset_id, target_type, target_id, slot_type, slot_key, position FROM asset_usages
         GROUP BY 1, 2, 3, 4, 5, 6, 7 HAVING count(*) > 1",
    );
    assert!(twice.is_empty(), "usages that are there twice: {twice:?}");
}

/// Asserts that the product's verification finds no error.
pub fn assert_verified(session: &mut Session) {
    let found = session.rows("SELECT v::text FROM verify_lesson_assets() v WHERE severity = 'error' LIMIT 5");
    assert!(found.is_empty(), "verify_lesson_assets reports errors: {found:?}");
}

/// All rows of the tables that a run may touch, as text, to compare before and after.
pub fn contents(session: &mut Session) -> Vec<crate::Row> {
    session.rows(
        "SELECT 'lesson', l::text FROM lesson l UNION ALL SELECT 'assets', a::text FROM assets a
         UNION ALL SELECT 'asset_usages', u::text FROM asset_usages u ORDER BY 1, 2",
    )
}

/// The query that groups the rows of explain into the counters of a dry run.
pub fn explained_counters(filters: &str) -> String {
    format!(
        "SELECT count(*) AS media_items_scanned,
                count(*) FILTER (WHERE outcome = 'eligible') AS media_items_eligible,
                count(*) FILTER (WHERE action = 'create') AS assets_created,
                count(*) FILTER (WHERE action IN ('reuse_asset_id', 'reuse_key')) AS assets_reused,
                count(*) FILTER (WHERE usage_action = 'create') AS usages_created,
                count(*) FILTER (WHERE usage_action LIKE 'reuse%') AS usages_reused,
                count(*) FILTER (WHERE patch) AS lesson_items_patched_with_asset_id,
                count(*) FILTER (WHERE reason = 'malformed') AS skipped_malformed,
                count(*) FILTER (WHERE reason = 'missing_key') AS skipped_missing_key,
                count(*) FILTER (WHERE reason = 'missing_link') AS skipped_missing_link,
                count(*) FILTER (WHERE reason IN ('unsupported_type', 'unsupported_link')) AS skipped_unsupported_type,
                count(*) FILTER (WHERE reason = 'missing_organization') AS skipped_missing_organization
         FROM explain_lesson_assets({filters})"
    )
}

/// The call that makes the lesson triggers.
pub const ATTACH: &str = "SELECT * FROM attach_lesson_triggers(true)";

/// An application whose lesson table has the triggers.
pub fn attached(server: &Server) -> (Database, Session, Application) {
    let database = server.database();
    let mut session = database.session();
    let application = Application::create(&mut session);
    session.run(ATTACH);
    (database, session, application)
}

/// Whether assets, usages and items agree, with no usage too many.
pub fn assert_consistent(session: &mut Session) {
    // the verification's joins want to know how large the tables are
    session.run("ANALYZE");
    assert_items_are_settled(session);
    assert_verified(session);
    let found =
        session.rows("SELECT v::text FROM verify_lesson_assets() v WHERE finding = 'usage_without_item' LIMIT 5");
    assert!(found.is_empty(), "superfluous usages: {found:?}");
}
