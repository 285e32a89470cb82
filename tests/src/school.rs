//! A school of many organizations, made by SQL: the same rows each time, with everything in them that a run may meet.

use crate::application::Application;
use crate::{Row, Session};

/// How large it is.
#[derive(Clone, Copy)]
pub struct School {
    pub organizations: u32,
    pub lessons: u32,
}

impl School {
    /// Makes the tables and fills them.
    pub fn create(self, session: &mut Session) {
        Application::default().create_lesson_side(session);
        session.run("SET client_min_messages = warning; SELECT * FROM create_asset_tables()");
        self.fill(session);
    }

    /// Empties the tables and fills them anew.
    pub fn fill(self, session: &mut Session) {
        let School { organizations, lessons } = self;
        session.run(&format!(
            "BEGIN;
             TRUNCATE \"group\", course, lesson, asset_usages, assets;
             INSERT INTO \"group\" SELECT g, md5('organization ' || g)::uuid FROM generate_series(1, {organizations}) g;
             INSERT INTO \"group\" VALUES (0, NULL);
             INSERT INTO course SELECT g, g FROM generate_series(0, {organizations}) g;
             INSERT INTO lesson (id, course_id, videos, documents)
             SELECT lpad(to_hex(n), 32, '0')::uuid,
                    -- one lesson in 29 has no organization
                    CASE WHEN n % 29 = 0 THEN 0 ELSE n % {organizations} + 1 END,
                    CASE WHEN n % 19 = 0 THEN '{{\"no\": \"array\"}}' ELSE
                        jsonb_build_array(
                            -- keys that several lessons of an organization share, and all organizations have
                            jsonb_build_object('type', 'upload', 'key', 'shared/' || n % 23 || '.mp4', 'size', n % 5 * 100),
                            CASE n % 7 WHEN 0 THEN 'null' WHEN 1 THEN '{{\"type\": \"upload\"}}' WHEN 2 THEN '{{\"type\": \"generic\"}}'
                                ELSE jsonb_build_object('type', 'upload', 'key', 'own/' || n || '.mp4') END) END,
                    jsonb_build_array(jsonb_build_object('name', 'd', 'link', 'https://example.org/' || n % 31 || '.pdf'))
             FROM generate_series(1, {lessons}) n;
             -- written by an application that knows no keys, before there were triggers
             ALTER TABLE assets DISABLE TRIGGER USER;
             INSERT INTO assets (id, organization_id, kind, provider, storage_provider, storage_key, is_external, status, metadata, created_at)
             SELECT md5(g.id || '/' || k)::uuid, g.organization_id, 'video', 'upload', 's3', 'shared/' || k / 2 || '.mp4', false, 'active', '{{}}',
                    '2020-01-01'::timestamptz + k * interval '1 hour'
             FROM \"group\" g, generate_series(1, 5) k WHERE g.id > 0;
             ALTER TABLE assets ENABLE TRIGGER USER;
             COMMIT"
        ));
    }
}

/// All that a run leaves behind, with an asset's key in the place of its id.
pub fn outcome(session: &mut Session) -> Vec<Row> {
    session.rows(
        "SELECT 'lesson', l.id::text, l.course_id::text, s.slot, e.n::text, (e.item - 'assetId')::text,
                coalesce(a.organization_id || ' ' || a.canonical_key, e.item ->> 'assetId')
         FROM lesson l CROSS JOIN LATERAL (VALUES ('videos', l.videos), ('documents', l.documents)) s (slot, items)
         CROSS JOIN LATERAL (
             SELECT n, CASE jsonb_typeof(i) WHEN 'object' THEN i ELSE jsonb_build_object('other', i) END AS item
             FROM jsonb_array_elements(CASE jsonb_typeof(s.items) WHEN 'array' THEN s.items ELSE jsonb_build_array(s.items) END)
                  WITH ORDINALITY x (i, n)) e
         LEFT JOIN assets a ON a.id::text = e.item ->> 'assetId'
         UNION ALL
         SELECT 'asset', a.organization_id::text, a.canonical_key,
                (to_jsonb(a) - 'id' - 'created_at' - 'updated_at' - 'organization_id' - 'canonical_key')::text, NULL, NULL, NULL
         FROM assets a
         UNION ALL
         SELECT 'usage', u.organization_id::text, a.canonical_key,
                (to_jsonb(u) - 'id' - 'asset_id' - 'organization_id' - 'created_at')::text, NULL, NULL, NULL
         FROM asset_usages u JOIN assets a ON a.id = u.asset_id
         ORDER BY 1, 2, 3, 4, 5, 6, 7",
    )
}
