-- A small run: dry, execute, again, and its verification.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS media_assets;
SELECT no_plan();
CREATE SCHEMA ma_run;
SET LOCAL search_path = ma_run, public;
SET LOCAL media_assets.progress = off;

SELECT throws_ok('SELECT * FROM backfill_lesson_assets()', '42P01', NULL, 'no tables');
CREATE TABLE "group" (id int PRIMARY KEY, organization_id bigint);
CREATE TABLE course (id int PRIMARY KEY, group_id int);
CREATE TABLE lesson (id bigint PRIMARY KEY, course_id int, videos jsonb, documents jsonb);
INSERT INTO "group" VALUES (1, 10), (2, NULL);
INSERT INTO course VALUES (1, 1), (2, 2);
INSERT INTO lesson VALUES
  (1, 1, '[{"type": "upload", "key": "a.mp4", "size": 5, "n": 1.50}, {"type": "youtube", "link": "https://youtu.be/dQw4w9WgXcQ"}, null]', '[{"key": "d.pdf", "name": "D"}]'),
  (2, 1, '[{"key": "a.mp4"}, {"type": "upload"}, {"type": "generic"}, {"type": "x"}, {"type": "generic", "link": "data:x"}]', '[{"name": "neither"}, []]'),
  (3, 1, NULL, 'null'),
  (4, 2, '[{"key": "a.mp4"}, 5]', '"text"'),
  (5, NULL, '[]', '[{"key": "x"}]');

SELECT results_eq(
  'SELECT * FROM backfill_lesson_assets(2)',
  $$VALUES (5::bigint, 15::bigint, 4::bigint, 3::bigint, 1::bigint, 4::bigint, 0::bigint, 4::bigint, 2::bigint, 2::bigint, 2::bigint, 1::bigint, 2::bigint, 2::bigint, 0::bigint, 4::bigint, 3::bigint, NULL::bigint, 0::bigint)$$,
  'a dry run without asset tables');
CREATE TABLE dry AS SELECT * FROM backfill_lesson_assets(2);
SELECT results_eq(
  'SELECT lesson_id::text, slot_type, position::int, outcome, reason, action, usage_action IS NOT NULL, patch FROM explain_lesson_assets() ORDER BY lesson_id::text, slot_type DESC, position',
  $$VALUES ('1', 'lesson_video', 0, 'eligible', NULL, 'create', true, true), ('1', 'lesson_video', 1, 'eligible', NULL, 'create', true, true),
           ('1', 'lesson_video', 2, 'skipped', 'malformed', NULL, false, false), ('1', 'lesson_document', 0, 'eligible', NULL, 'create', true, true),
           ('2', 'lesson_video', 0, 'eligible', NULL, 'reuse_key', true, true), ('2', 'lesson_video', 1, 'skipped', 'missing_key', NULL, false, false),
           ('2', 'lesson_video', 2, 'skipped', 'missing_link', NULL, false, false), ('2', 'lesson_video', 3, 'skipped', 'unsupported_type', NULL, false, false),
           ('2', 'lesson_video', 4, 'skipped', 'unsupported_link', NULL, false, false), ('2', 'lesson_document', 0, 'skipped', 'missing_link', NULL, false, false),
           ('2', 'lesson_document', 1, 'skipped', 'malformed', NULL, false, false), ('4', 'lesson_video', 0, 'skipped', 'missing_organization', NULL, false, false),
           ('4', 'lesson_video', 1, 'skipped', 'missing_organization', NULL, false, false), ('4', 'lesson_document', 0, 'skipped', 'missing_organization', NULL, false, false),
           ('5', 'lesson_document', 0, 'skipped', 'missing_organization', NULL, false, false)$$,
  'every item, one outcome, one reason');
SELECT throws_ok('SELECT * FROM backfill_lesson_assets(execute => true)', '42P01', NULL, 'an execute needs them');
SELECT lives_ok('SELECT * FROM create_asset_tables()', 'made');
CREATE TEMP TABLE done AS SELECT * FROM backfill_lesson_assets(2, true);
SELECT is(to_jsonb(done) - 'run_id', to_jsonb(dry) - 'run_id', 'predicted = executed') FROM done, dry;
SELECT is((SELECT run_id FROM dry), NULL, 'a dry run is no run');
SELECT row_eq('SELECT r.job, r.mode, r.state FROM backfill_runs r JOIN done USING (run_id)', ROW('lesson_assets'::text, 'function'::text, 'finished'::text),
  'an execution has its row in the ledger');
SELECT results_eq('SELECT canonical_key FROM assets ORDER BY 1', $$VALUES ('upload:a.mp4'::text), ('upload:d.pdf'), ('youtube:video:dQw4w9WgXcQ')$$, 'the assets');
SELECT is(count(*)::int, 4, 'the usages') FROM asset_usages;
SELECT is((videos #- '{0,assetId}' #- '{1,assetId}')::text,
  '[{"n": 1.50, "key": "a.mp4", "size": 5, "type": "upload"}, {"link": "https://youtu.be/dQw4w9WgXcQ", "type": "youtube"}, null]', 'the rest as it was') FROM lesson WHERE id = 1;
SELECT is(videos #>> '{0,assetId}', (SELECT id::text FROM assets WHERE canonical_key = 'upload:a.mp4'), 'patched') FROM lesson WHERE id = 2;
SELECT row_eq('SELECT assets_created, assets_reused, usages_created, usages_reused, lesson_items_patched_with_asset_id, errors FROM backfill_lesson_assets(2, true)',
  ROW(0::bigint, 4::bigint, 0::bigint, 4::bigint, 0::bigint, 0::bigint), 'the second run finds everything done');
SELECT is_empty($$SELECT * FROM verify_lesson_assets() WHERE severity = 'error'$$, 'verified');

-- What verification finds. Each damage is taken back.
SAVEPOINT whole;
DELETE FROM asset_usages WHERE target_id = '2';
SELECT isnt_empty($$SELECT * FROM verify_lesson_assets() WHERE severity = 'error' AND lesson_id::text = '2'$$, 'an eligible item without a usage');
ROLLBACK TO whole;
UPDATE lesson SET videos = jsonb_set(videos, '{0,assetId}', '"a0000000-0000-4000-8000-00000000ffff"') WHERE id = 2;
SELECT isnt_empty($$SELECT * FROM verify_lesson_assets() WHERE severity = 'error' AND lesson_id::text = '2'$$, 'an assetId that points nowhere');
ROLLBACK TO whole;
UPDATE lesson SET videos = '[]' WHERE id = 1;
SELECT isnt_empty($$SELECT * FROM verify_lesson_assets() WHERE severity = 'warning' AND lesson_id::text = '1'$$, 'a usage whose item is gone');
SELECT is_empty($$SELECT * FROM verify_lesson_assets() WHERE severity = 'error'$$, 'which is known and left');
ROLLBACK TO whole;
ALTER TABLE assets DISABLE TRIGGER USER;
UPDATE assets SET canonical_key = 'upload:other' WHERE canonical_key = 'upload:d.pdf';
SELECT isnt_empty($$SELECT * FROM verify_lesson_assets() WHERE asset_id IS NOT NULL$$, 'an asset whose key is not that of its fields');
ROLLBACK TO whole;

SELECT throws_ok(format('SELECT * FROM backfill_lesson_assets(%s)', arguments), state, NULL, arguments)
FROM (VALUES ('0', '22023'), ('-1', '22023'), ('NULL', '22023'), ('100001', '22023'), ('execute => NULL', '22023'), ('after => ''x''', '22023'),
             ('organization_id => ''x''', '22023'), ('skip_settled => NULL', '22023')) AS bad (arguments, state);
SELECT throws_ok($$SELECT * FROM normalize_lesson_media('other', '{}')$$, '22023', NULL, 'another slot');
SELECT row_eq($$SELECT outcome, reason FROM normalize_lesson_media('lesson_video', NULL)$$, ROW('skipped'::text, 'malformed'::text), 'an SQL NULL item is malformed');

SELECT * FROM finish();
ROLLBACK;
