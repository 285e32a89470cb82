-- The application's tables with :lessons lessons of five media items each, and empty asset tables.
-- Nothing is analysed here; the same figures give the same rows in every run.
\set ON_ERROR_STOP on

CREATE EXTENSION media_assets;

CREATE TABLE "group" (id uuid PRIMARY KEY, organization_id uuid);
CREATE TABLE course (id uuid PRIMARY KEY, group_id uuid REFERENCES "group");
CREATE TABLE lesson (
  id         uuid PRIMARY KEY,
  course_id  uuid REFERENCES course,
  title      text NOT NULL,
  videos     jsonb,
  documents  jsonb,
  updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX lesson_course ON lesson (course_id);

-- Twenty organizations of the same size.
INSERT INTO "group" SELECT md5('group ' || n)::uuid, md5('organization ' || n % 20)::uuid FROM generate_series(1, 100) n;
INSERT INTO course SELECT md5('course ' || n)::uuid, md5('group ' || 1 + n % 100)::uuid FROM generate_series(1, 1000) n;

-- What an item shows: 80 of 100 have a medium of their own, the others one from a pool that the lessons of an
-- organization share. So about 85 of 100 items have a key that no item before them has.
CREATE FUNCTION pg_temp.number(text) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT ('x' || substr(md5($1), 1, 7))::bit(28)::int $$;

CREATE FUNCTION pg_temp.item(place bigint, lessons bigint) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE
    WHEN shape < 40 THEN jsonb_build_object('type', 'upload', 'key', 'uploads/' || word || '/Recording_' || medium || '.mp4',
           'fileName', 'Recording ' || medium || '.mp4', 'size', 1000000 + medium, 'metadata', jsonb_build_object('fileName', 'Recording ' || medium || '.mp4',
           'createdAt', '2026-03-01T10:00:00.000Z', 'duration', medium % 5400 + 0.5, 'thumbnailUrl', 'https://img.example/' || word || '.jpg'))
    WHEN shape < 55 THEN jsonb_build_object('type', 'youtube', 'link', 'https://www.youtube.com/watch?v=' || left(word, 11) || '&t=30s',
           'metadata', jsonb_build_object('title', 'Film ' || medium))
    WHEN shape < 70 THEN jsonb_build_object('type', CASE WHEN shape < 63 THEN 'generic' ELSE 'external_url' END,
           'link', 'https://Media.Example:443/watch/' || word || '.mp4?quality=high')
    WHEN shape < 90 THEN jsonb_build_object('type', 'pdf', 'name', 'Script ' || medium || '.pdf', 'key', 'documents/' || word || '.pdf', 'size', 20000 + medium % 90000)
    ELSE jsonb_build_object('type', 'docx', 'name', 'Sheet ' || medium, 'link', 'https://docs.example/sheets/' || word || '.docx')
  END
  FROM (SELECT CASE WHEN pg_temp.number('own ' || place) % 100 < 80 THEN place
                    ELSE 1000000000 + pg_temp.number('pool ' || place) % greatest(lessons / 80, 1) END AS medium) which,
       LATERAL (SELECT md5('medium ' || medium) AS word, pg_temp.number('shape ' || medium) % 100 AS shape) named
$$;

INSERT INTO lesson (id, course_id, title, videos, documents)
SELECT md5('lesson ' || n)::uuid, md5('course ' || 1 + n % 1000)::uuid, 'Lesson ' || n,
       coalesce(jsonb_agg(item ORDER BY i) FILTER (WHERE NOT is_document), '[]'), jsonb_agg(item ORDER BY i) FILTER (WHERE is_document)
FROM generate_series(1, :lessons::bigint) n,
     generate_series(0, 4) i,
     LATERAL (SELECT pg_temp.item(n * 5 + i, :lessons) AS item) made,
     LATERAL (SELECT item ? 'name' AS is_document) slot
GROUP BY n ORDER BY n;

SELECT count(*) FROM create_asset_tables();
