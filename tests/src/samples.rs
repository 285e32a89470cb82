//! Tables of the jobs over ordinary tables, as they are before a run.

use crate::{Database, Server, Session};

/// An image `i`, and a chain of videos in which each is made from the one before: `v001` from `i`, `v002` from `v001` …
pub fn with_chain(server: &Server, length: u32) -> (Database, Session) {
    let database = server.database();
    let mut session = database.session();
    session.run(&format!(
        "SELECT * FROM create_media_tables();
         INSERT INTO media (id, type, thumbnail_url, thumbnail_urls, updated_at) VALUES ('i', 'image', '/s', '{{\"small\": \"/s\"}}', '2020-01-01');
         INSERT INTO media (id, type, updated_at) SELECT 'v' || lpad(n::text, 3, '0'), 'video', '2020-01-01' FROM generate_series(1, {length}) n;
         INSERT INTO i2v_jobs (job_id, media_id, mode)
         SELECT 'v' || lpad(n::text, 3, '0'), CASE n WHEN 1 THEN 'i' ELSE 'v' || lpad((n - 1)::text, 3, '0') END, 'video-extension'
         FROM generate_series(1, {length}) n"
    ));
    (database, session)
}

/// Sessions `a01` … with ten scenes each, as they were before there were assets.
pub fn with_scenes(server: &Server, sessions: u32) -> (Database, Session) {
    let database = server.database();
    let mut session = database.session();
    session.run(&format!(
        "SELECT * FROM create_scene_tables();
         INSERT INTO video_sessions (id, project_id, status) SELECT 'a' || lpad(n::text, 2, '0'), 'p', 'ready' FROM generate_series(1, {sessions}) n;
         INSERT INTO scenes (id, session_id, project_id, index, status, s3_chunk_key, s3_source_key, s3_chunk_url, updated_at)
         SELECT v.id || '-' || i, v.id, 'p', i, 'ready', v.id || '/' || i || '.mp4', v.id || '/' || i || '.py',
                'https://b.s3.amazonaws.com/' || v.id || '/' || i || '.mp4?X-Amz-Signature=x', '2025-01-01'
         FROM video_sessions v, generate_series(0, 9) i"
    ));
    (database, session)
}
