-- What the lesson triggers cost, with 100,000 lessons in one statement: each pair of figures is with and without them.
--   psql -X -q -v lessons=100000 -v items=3 -v rounds=3 -v script=/tmp/rounds.sql -f bench/triggers.sql      in an empty database with the extension
-- "set-based" writes the final rows of lesson, assets and asset_usages from tables that hold them, in three statements.
\set ON_ERROR_STOP on
SET media_assets.progress = off;
SET client_min_messages = warning;
CREATE SCHEMA bench_triggers;
SET search_path = bench_triggers, public;
CREATE TABLE "group" (id int PRIMARY KEY, organization_id uuid);
CREATE TABLE course (id int PRIMARY KEY, group_id int);
CREATE TABLE lesson (id uuid PRIMARY KEY, course_id int, title text, videos jsonb, documents jsonb, updated_at timestamptz DEFAULT now());
INSERT INTO "group" SELECT n, md5('organization ' || n)::uuid FROM generate_series(1, 20) n;
INSERT INTO course SELECT n, 1 + n % 20 FROM generate_series(1, 1000) n;
SELECT count(*) FROM create_asset_tables() \g /dev/null

-- Lessons as a client writes them, with new media; and such whose media's assets exist.
CREATE TABLE fresh AS
SELECT md5('lesson ' || n)::uuid AS id, 1 + n % 1000 AS course_id, 'Lesson ' || n AS title,
       (SELECT jsonb_agg(jsonb_build_object('type', 'upload', 'key', format('uploads/2026/%s-%s.mp4', n, i), 'fileName', format('Recording %s.mp4', i),
                                            'size', 1000 * n, 'metadata', jsonb_build_object('duration', 61.5, 'mimeType', 'video/mp4')))
        FROM generate_series(1, :items - 1) i) AS videos,
       jsonb_build_array(jsonb_build_object('key', format('papers/%s.pdf', n), 'name', 'Notes', 'type', 'pdf')) AS documents
FROM generate_series(1, :lessons) n;

CREATE TABLE raw (what text, way text, seconds numeric, processor numeric);
CREATE FUNCTION processor() RETURNS numeric LANGUAGE sql AS $$
  SELECT (split_part(stat, ' ', 14)::numeric + split_part(stat, ' ', 15)::numeric) / 100 FROM pg_read_file('/proc/self/stat') stat
$$;
CREATE PROCEDURE measure(what text, way text, VARIADIC statements text[]) LANGUAGE plpgsql AS $$
DECLARE start timestamptz; used numeric; statement text;
BEGIN
  COMMIT;
  start := clock_timestamp();
  used := bench_triggers.processor();
  FOREACH statement IN ARRAY statements LOOP EXECUTE statement; END LOOP;
  COMMIT;
  INSERT INTO raw VALUES (what, way, extract(epoch FROM clock_timestamp() - start), bench_triggers.processor() - used);
  COMMIT;
END $$;

-- The final rows, once.
SELECT count(*) FROM attach_lesson_triggers(true) \g /dev/null
INSERT INTO lesson (id, course_id, title, videos, documents) SELECT * FROM fresh;
ANALYZE;
SELECT severity, finding, count(*) FROM verify_lesson_assets() GROUP BY 1, 2;
CREATE TABLE final_lesson AS SELECT id, course_id, title, videos, documents FROM lesson;
CREATE TABLE final_assets AS SELECT * FROM assets;
CREATE TABLE final_usages AS SELECT organization_id, asset_id, target_type, target_id, slot_type, slot_key, "position" FROM asset_usages;
VACUUM ANALYZE;

-- Every measured update starts from the same rows, freshly loaded.
CREATE PROCEDURE reload() LANGUAGE plpgsql AS $body$
BEGIN
  PERFORM count(*) FROM public.detach_lesson_triggers(true);
  TRUNCATE lesson;
  INSERT INTO lesson (id, course_id, title, videos, documents) SELECT * FROM final_lesson;
END $body$;

SELECT format($$
SELECT count(*) FROM detach_lesson_triggers(true);
TRUNCATE lesson, assets, asset_usages; CHECKPOINT;
CALL measure('new media', 'set-based', 'INSERT INTO assets SELECT * FROM final_assets',
  'INSERT INTO asset_usages (organization_id, asset_id, target_type, target_id, slot_type, slot_key, "position") SELECT * FROM final_usages',
  'INSERT INTO lesson (id, course_id, title, videos, documents) SELECT * FROM final_lesson');
TRUNCATE lesson, assets, asset_usages; CHECKPOINT;
SELECT count(*) FROM attach_lesson_triggers(true);
CALL measure('new media', 'triggers', 'INSERT INTO lesson (id, course_id, title, videos, documents) SELECT * FROM fresh');
TRUNCATE lesson, assets, asset_usages; INSERT INTO assets SELECT * FROM final_assets; VACUUM ANALYZE assets; CHECKPOINT;
CALL measure('insert, assets exist', 'triggers', 'INSERT INTO lesson (id, course_id, title, videos, documents) SELECT * FROM fresh');
SELECT count(*) FROM detach_lesson_triggers(true);
TRUNCATE lesson; CHECKPOINT;
CALL measure('insert, assets exist', 'none', 'INSERT INTO lesson (id, course_id, title, videos, documents) SELECT * FROM fresh');
TRUNCATE lesson, asset_usages; CHECKPOINT;
CALL measure('insert, assets exist', 'set-based',
  'INSERT INTO asset_usages (organization_id, asset_id, target_type, target_id, slot_type, slot_key, "position") SELECT * FROM final_usages',
  'INSERT INTO lesson (id, course_id, title, videos, documents) SELECT * FROM final_lesson');
VACUUM ANALYZE asset_usages;
CALL reload(); VACUUM ANALYZE lesson; CHECKPOINT;
CALL measure('title only', 'none', 'UPDATE lesson SET title = title || ''.''');
CALL reload(); SELECT count(*) FROM attach_lesson_triggers(true); VACUUM ANALYZE lesson; CHECKPOINT;
CALL measure('title only', 'triggers', 'UPDATE lesson SET title = title || ''.''');
CALL reload(); VACUUM ANALYZE lesson; CHECKPOINT;
CALL measure('media touched, assets exist', 'none', 'UPDATE lesson SET videos = jsonb_set(videos, ''{0,fileName}'', ''"Renamed.mp4"'')');
CALL reload(); SELECT count(*) FROM attach_lesson_triggers(true); VACUUM ANALYZE lesson; CHECKPOINT;
CALL measure('media touched, assets exist', 'triggers', 'UPDATE lesson SET videos = jsonb_set(videos, ''{0,fileName}'', ''"Renamed.mp4"'')');
CALL reload(); VACUUM ANALYZE lesson; CHECKPOINT;
CALL measure('course_id of another course', 'none', 'UPDATE lesson SET course_id = 1 + (course_id + 19) %% 1000');
CALL reload(); SELECT count(*) FROM attach_lesson_triggers(true); VACUUM ANALYZE lesson; CHECKPOINT;
CALL measure('course_id of another course', 'triggers', 'UPDATE lesson SET course_id = 1 + (course_id + 19) %% 1000');
VACUUM ANALYZE lesson; CHECKPOINT;
CALL measure('delete', 'triggers', 'DELETE FROM lesson');
$$, n) FROM generate_series(1, :rounds) n \g (format=unaligned tuples_only=on) :script
\o /dev/null
\i :script
\o
SELECT what, way, round(percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds)::numeric, 2) AS "median s",
       round(percentile_cont(0.5) WITHIN GROUP (ORDER BY processor)::numeric, 2) AS "processor s", string_agg(round(seconds, 2)::text, ' ') AS runs
FROM raw GROUP BY what, way ORDER BY 1, 2;
-- An insert whose assets exist has their usages to write: no way of doing that comes near an insert that writes none.
WITH medians AS (SELECT what, way, percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) AS s, percentile_cont(0.5) WITHIN GROUP (ORDER BY processor) AS p
                 FROM raw GROUP BY what, way)
SELECT goals.what || ': triggers of ' || goals.beside AS ratio, '<= ' || goals.goal AS wanted, round((own.s / beside.s)::numeric, 2) AS seconds,
       round((own.p / beside.p)::numeric, 2) AS processor
FROM (VALUES ('title only', 'none', '2'), ('media touched, assets exist', 'none', '2'), ('new media', 'set-based', '1.5'),
             ('insert, assets exist', 'set-based', '1.5'), ('insert, assets exist', 'none', '2 (set-based itself: '
              || (SELECT round((a.s / b.s)::numeric, 1) FROM medians a, medians b
                  WHERE a.what = 'insert, assets exist' AND b.what = a.what AND a.way = 'set-based' AND b.way = 'none') || ')')) goals (what, beside, goal)
JOIN medians own ON own.what = goals.what AND own.way = 'triggers'
JOIN medians beside ON beside.what = goals.what AND beside.way = goals.beside;
