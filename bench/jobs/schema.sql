-- :rows videos in chains of up to four behind an image each, and :rows scenes in sessions of ten, as they are before a run.
\set ON_ERROR_STOP on
CREATE EXTENSION media_assets;
SELECT count(*) FROM create_media_tables();
SELECT count(*) FROM create_scene_tables();

-- Of four videos the first is made from an image, the next from the one before.
INSERT INTO media (id, type, thumbnail_url, thumbnail_urls, is_public, metadata, updated_at)
SELECT 'image-' || md5(n::text), 'image', '/generated/' || n || '/small.webp',
       jsonb_build_object('small', '/generated/' || n || '/small.webp', 'cover', '/generated/' || n || '/cover.webp', 'originalSize', '/generated/' || n || '.webp'),
       true, jsonb_build_object('prompt', repeat('a picture ', 10)), '2025-01-01'
FROM generate_series(1, :rows / 4) n;
INSERT INTO media (id, type, is_public, metadata, updated_at)
SELECT 'video-' || md5(n::text), 'video', true, jsonb_build_object('prompt', repeat('a video ', 10)), '2025-01-01' FROM generate_series(0, :rows - 1) n;
INSERT INTO i2v_jobs (job_id, media_id, mode, status)
SELECT 'video-' || md5(n::text), CASE n % 4 WHEN 0 THEN 'image-' || md5((n / 4 + 1)::text) ELSE 'video-' || md5((n - 1)::text) END,
       CASE n % 4 WHEN 0 THEN 'image-to-video' ELSE 'video-extension' END, 'COMPLETED'
FROM generate_series(0, :rows - 1) n;

INSERT INTO video_sessions (id, project_id, status) SELECT 'session-' || md5(n::text), 'p', 'ready' FROM generate_series(1, :rows / 10) n;
INSERT INTO scenes (id, session_id, project_id, index, status, s3_chunk_key, s3_chunk_url, s3_source_key, checksum, updated_at)
SELECT 'scene-' || md5(n::text), 'session-' || md5((n / 10 + 1)::text), 'p', n % 10, 'ready', 'p/' || n || '/v1.mp4',
       'https://films.s3.eu-central-1.amazonaws.com/p/' || n || '/v1.mp4?X-Amz-Date=20250810T040000Z&X-Amz-Signature=' || md5(n::text),
       'p/' || n || '/scene.py', 'sha256:' || md5(n::text), '2025-08-10 04:00:00.25+00'
FROM generate_series(0, :rows - 1) n;
VACUUM ANALYZE;
