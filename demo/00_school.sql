-- The application: a school platform with organizations, groups, courses and lessons. It knows nothing of
-- media_assets. Media are buried in two jsonb columns, as years of editors and importers have left them.

SET client_min_messages = notice;

CREATE SCHEMA demo;
COMMENT ON SCHEMA demo IS 'what the demo itself needs; not part of the application';

-- Stops the demo when something is not as it says.
CREATE FUNCTION demo.assert(holds boolean, claim text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  IF holds IS NOT TRUE THEN RAISE EXCEPTION 'this does not hold: %', claim; END IF;
  RETURN '✓ ' || claim;
END $$;

-- The same number for the same text, so that every demo shows the same figures.
CREATE FUNCTION demo.hash(text) RETURNS int LANGUAGE sql IMMUTABLE AS
$$ SELECT ('x' || substr(md5($1), 1, 7))::bit(28)::int $$;

CREATE TABLE organization (id uuid PRIMARY KEY, name text NOT NULL);
CREATE TABLE "group" (
  id              uuid PRIMARY KEY,
  organization_id uuid REFERENCES organization,
  name            text NOT NULL
);
CREATE TABLE course (
  id       uuid PRIMARY KEY,
  group_id uuid REFERENCES "group",
  title    text NOT NULL
);
CREATE TABLE lesson (
  id         uuid PRIMARY KEY,
  course_id  uuid REFERENCES course,
  title      text NOT NULL,
  videos     jsonb,
  documents  jsonb,
  updated_at timestamptz NOT NULL DEFAULT '2026-09-01 08:00+00'
);

-- Five schools, ten groups (the last belongs to none), a hundred courses (every 25th in no group).
INSERT INTO organization
SELECT md5('organization ' || n)::uuid, (ARRAY['Northside', 'Riverside', 'Hillcrest', 'Lakeview', 'Old Town'])[n]
FROM generate_series(1, 5) n;

INSERT INTO "group"
SELECT md5('group ' || n)::uuid, CASE WHEN n < 10 THEN md5('organization ' || (n - 1) % 5 + 1)::uuid END, 'Year ' || n
FROM generate_series(1, 10) n;

INSERT INTO course
SELECT md5('course ' || n)::uuid, CASE WHEN n % 25 <> 0 THEN md5('group ' || (n - 1) % 10 + 1)::uuid END, 'Course ' || n
FROM generate_series(1, 100) n;

-- A handful to read. All but the last two are lessons of Northside.
INSERT INTO lesson (id, course_id, title, videos, documents)
SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, md5('course ' || course)::uuid, title, videos::jsonb, documents::jsonb
FROM (VALUES
  (1, 1, 'Fractions', '[{"type": "upload", "key": "northside/fractions.mp4", "fileName": "Fractions.mp4", "size": 48211007,
                         "metadata": {"duration": 61.6, "aspectRatio": "16:9"}}]',
                      '[{"type": "pdf", "name": "Exercises.pdf", "key": "northside/exercises.pdf", "size": 90112}]'),
  (2, 1, 'Fractions again', '[{"key": "northside/fractions.mp4"}]', '[{"name": "Exercises", "key": "northside/exercises.pdf"}]'),
  (3, 1, 'Volcanoes', '[{"type": "youtube", "link": "https://youtu.be/dQw4w9WgXcQ?t=1m40"},
                        {"type": "YouTube", "link": "https://www.youtube.com/watch?v=dQw4w9WgXcQ&list=PL1"},
                        {"link": "<iframe src=\"https://www.youtube.com/embed/dQw4w9WgXcQ?rel=0&amp;start=5\"></iframe>"}]', NULL),
  (4, 1, 'Signed links', '[{"type": "external_url", "link": "https://cdn.example/film.mp4?X-Amz-Date=20260101&X-Amz-Signature=aa"},
                           {"type": "external_url", "link": "https://cdn.example/film.mp4?X-Amz-Date=20260301&X-Amz-Signature=bb"}]', '[]'),
  (5, 1, 'Streamed', '[{"type": "upload", "fileName": "stream", "assetId": "5e000000-0000-4000-8000-000000000001"}]', NULL),
  (6, 1, 'Old importer', '[{"type": "muse", "videoKey": "legacy/muse-17.webm"}, {"type": "vimeo", "link": "https://vimeo.com/76979871"},
                           {"type": "muse"}]', '[{"link": "https://docs.example/syllabus.docx"}]'),
  (7, 1, 'Broken editor', '[null, 42, "https://youtu.be/dQw4w9WgXcQ", ["key"], {"type": "upload", "fileName": "lost.mp4"},
                            {"type": "youtube", "link": " "}, {"type": "generic", "link": "javascript:alert(1)"}]', '"none"'),
  (8, 1, 'Copied from Riverside', '[{"type": "upload", "key": "shared/welcome.mp4", "assetId": "5e000000-0000-4000-8000-000000000002"},
                                    {"type": "upload", "key": "northside/intro.mp4", "assetId": "undefined"}]', NULL),
  (9, 1, 'Odd values', '[{"type": "upload", "key": "northside/odd.mov", "size": -1, "metadata": {"duration": "long", "zoom": 1.50}}]', NULL),
  (10, 25, 'Course without a group', '[{"type": "upload", "key": "orphans/a.mp4"}]', '[{"name": "b.pdf", "key": "orphans/b.pdf"}]'),
  (11, 2, 'Riverside''s welcome', '[{"type": "upload", "key": "shared/welcome.mp4", "assetId": "5e000000-0000-4000-8000-000000000002"}]', 'null')
) AS handful (n, course, title, videos, documents);

-- And four thousand generated ones. h is a number for each item; `which` picks one of some hundred media per school.
INSERT INTO lesson (id, course_id, title, videos, documents)
SELECT md5('lesson ' || n)::uuid, md5('course ' || 1 + demo.hash('course of ' || n) % 100)::uuid, 'Lesson ' || n, videos.items, documents.items
FROM generate_series(1, 4000) n
CROSS JOIN LATERAL (
  SELECT coalesce(jsonb_agg(CASE h % 20
    WHEN 6 THEN jsonb_build_object('type', 'youtube', 'link', 'https://www.youtube.com/watch?v=' || youtube || '&t=30s')
    WHEN 7 THEN jsonb_build_object('type', 'youtube', 'link', 'https://youtu.be/' || youtube)
    WHEN 8 THEN jsonb_build_object('type', 'embed', 'link', '<iframe src="https://www.youtube.com/embed/' || youtube || '?rel=0&amp;start=5"></iframe>')
    WHEN 9 THEN jsonb_build_object('type', 'external_url', 'link', 'https://cdn.example/' || which || '.mp4?Expires=' || h || '&Signature=' || md5(h::text) || '&Key-Pair-Id=K1')
    WHEN 10 THEN jsonb_build_object('type', 'generic', 'link', 'HTTPS://Media.Example:443/watch/' || which)
    WHEN 11 THEN jsonb_build_object('type', 'muse', 'videoKey', 'legacy/' || which || '.webm')
    WHEN 12 THEN jsonb_build_object('type', 'vimeo', 'link', 'https://vimeo.com/' || 76000000 + which)
    WHEN 13 THEN jsonb_build_object('type', 'upload', 'fileName', 'lost-' || which || '.mp4')
    WHEN 14 THEN jsonb_build_object('type', 'youtube', 'link', '')
    WHEN 15 THEN (ARRAY['null', '42', '"text"', '[{}]', 'true', '{}'])[1 + h / 20 % 6]::jsonb
    WHEN 16 THEN jsonb_build_object('type', 'upload', 'key', 'uploads/' || which || '.mp4', 'assetId', 'pending')
    WHEN 17 THEN jsonb_build_object('link', 'https://drive.google.com/file/d/1' || md5(which::text) || '/view?usp=sharing', 'type', 'google_drive')
    WHEN 18 THEN jsonb_build_object('type', 'upload', 'key', 'uploads/' || which || '.mp4', 'assetId', md5('gone ' || which)::uuid)
    WHEN 19 THEN jsonb_build_object('type', 'upload', 'fileName', 'stream', 'assetId', md5('stream ' || which % 40)::uuid)
    ELSE jsonb_build_object('type', 'upload', 'key', 'uploads/' || h % 1500 || '.mp4', 'fileName', 'Recording ' || h % 1500 || '.mp4',
                            'metadata', jsonb_build_object('duration', h % 5400 / 10.0, 'byteSize', CASE WHEN h % 3 > 0 THEN 1000000 + h END))
  END ORDER BY i), '[]') AS items
  FROM (SELECT i, demo.hash(n || ' video ' || i) AS h FROM generate_series(1, demo.hash('videos ' || n) % 4) i) item,
       LATERAL (SELECT h / 20 % 700 AS which, substr(md5((h / 20 % 700)::text), 1, 11) AS youtube) media
) videos
CROSS JOIN LATERAL (
  SELECT jsonb_agg(CASE h % 10
    WHEN 6 THEN jsonb_build_object('type', 'docx', 'name', 'Handout', 'link', 'https://docs.example/' || h / 10 % 800 || '.docx')
    WHEN 7 THEN jsonb_build_object('name', 'Sheet', 'link', 'docs.example/sheets/' || h / 10 % 800 || '.xlsx')
    WHEN 8 THEN jsonb_build_object('type', 'pdf', 'name', 'Forgotten.pdf')
    WHEN 9 THEN '"see the blackboard"'
    ELSE jsonb_build_object('type', 'pdf', 'name', 'Script ' || h % 600 || '.pdf', 'key', 'documents/' || h % 600 || '.pdf', 'size', 20000 + h % 600)
  END ORDER BY i) AS items
  FROM (SELECT i, demo.hash(n || ' document ' || i) AS h FROM generate_series(1, demo.hash('documents ' || n) % 3) i) item
) documents;

ANALYZE;
