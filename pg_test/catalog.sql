-- What the extension declares about itself, and that it says so on every object.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS media_assets;
SELECT no_plan();

CREATE TEMP VIEW own_function AS
SELECT p.oid, p.proname::text, p.provolatile::text, p.proisstrict, p.proparallel::text, p.prosecdef, p.proconfig, p.proretset,
       pg_get_function_arguments(p.oid) AS arguments
FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND e.extname = 'media_assets';

SELECT is(trusted, true, 'the extension is trusted') FROM pg_available_extension_versions v JOIN pg_extension e ON e.extname = v.name AND e.extversion = v.version WHERE v.name = 'media_assets';
SELECT is(superuser, true, 'its script runs as the bootstrap superuser') FROM pg_available_extension_versions v JOIN pg_extension e ON e.extname = v.name AND e.extversion = v.version WHERE v.name = 'media_assets';
SELECT is(relocatable, false, 'it is not relocatable') FROM pg_available_extension_versions v JOIN pg_extension e ON e.extname = v.name AND e.extversion = v.version WHERE v.name = 'media_assets';
SELECT is(schema, NULL, 'it goes where CREATE EXTENSION says') FROM pg_available_extension_versions v JOIN pg_extension e ON e.extname = v.name AND e.extversion = v.version WHERE v.name = 'media_assets';

SELECT set_has(
  'SELECT proname FROM own_function',
  $$VALUES ('asset_canonical_key'), ('asset_key_version'), ('canonical_url'), ('parse_media_link'), ('infer_mime_type'), ('infer_asset_kind'),
           ('normalize_path'), ('enricher_checksum'), ('content_signature'), ('normalize_lesson_media'), ('backfill_lesson_assets'),
           ('explain_lesson_assets'), ('verify_lesson_assets'), ('create_asset_tables'), ('prepare_asset_tables'), ('check_asset_tables'),
           ('dedupe_asset_usages'), ('backfill_asset_keys'), ('create_ingest_tables'), ('ingest_decision'), ('ingest_collection'),
           ('explain_ingest_collection'), ('ingest_result'), ('discover_files'), ('plex_items'), ('rekey_collection'), ('verify_collection_assets')$$,
  'every function of the pages is there');

-- Pure functions. STRICT unless the page says otherwise.
SELECT results_eq(
  format('SELECT DISTINCT provolatile, proparallel, proretset FROM own_function WHERE proname = %L', name),
  $$VALUES ('i', 's', false)$$,
  name || ' is IMMUTABLE PARALLEL SAFE and no set')
FROM unnest(ARRAY['asset_canonical_key', 'asset_key_version', 'canonical_url', 'parse_media_link', 'infer_mime_type', 'infer_asset_kind',
                  'normalize_path', 'enricher_checksum', 'content_signature', 'normalize_lesson_media']) name;
SELECT is((SELECT bool_and(proisstrict) FROM own_function WHERE proname = name), true, name || ' is STRICT')
FROM unnest(ARRAY['canonical_url', 'normalize_path', 'enricher_checksum']) name;
SELECT is((SELECT bool_or(proisstrict) FROM own_function WHERE proname = name), false, name || ' is not STRICT')
FROM unnest(ARRAY['asset_canonical_key', 'parse_media_link', 'infer_mime_type', 'infer_asset_kind', 'content_signature', 'normalize_lesson_media']) name;

-- Functions that write.
SELECT results_eq(
  format('SELECT DISTINCT provolatile, proparallel, proisstrict FROM own_function WHERE proname = %L', name),
  $$VALUES ('v', 'u', false)$$,
  name || ' is VOLATILE PARALLEL UNSAFE and takes NULL as an error, not as an answer')
FROM unnest(ARRAY['backfill_lesson_assets', 'backfill_asset_keys', 'prepare_asset_tables', 'dedupe_asset_usages']) name;
SELECT isnt((SELECT max(proparallel) FROM own_function WHERE proname = name), 's', name || ' reads tables with the caller''s session: not PARALLEL SAFE')
FROM unnest(ARRAY['explain_lesson_assets', 'verify_lesson_assets', 'check_asset_tables', 'create_asset_tables']) name;
SELECT isnt((SELECT max(provolatile) FROM own_function WHERE proname = name), 'i', name || ' is not IMMUTABLE')
FROM unnest(ARRAY['explain_lesson_assets', 'verify_lesson_assets', 'check_asset_tables', 'create_asset_tables']) name;

-- Nothing runs as somebody else, nothing has a search_path of its own: users' triggers need the caller's.
SELECT is_empty('SELECT proname FROM own_function WHERE prosecdef', 'no function is SECURITY DEFINER');
SELECT is_empty('SELECT proname FROM own_function WHERE proconfig IS NOT NULL', 'no function changes settings');
SELECT is_empty(
  $$SELECT proname FROM own_function WHERE coalesce(obj_description(oid, 'pg_proc'), '') = ''$$,
  'every function has a comment');
SELECT is_empty(
  $$SELECT c.relname FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
    JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'media_assets' WHERE coalesce(obj_description(c.oid, 'pg_class'), '') = ''$$,
  'every relation of the extension has a comment');
SELECT isnt(obj_description(oid, 'pg_extension'), NULL, 'the extension has a comment') FROM pg_extension WHERE extname = 'media_assets';

-- Arguments, with names and defaults as the pages have them.
SELECT is((SELECT arguments FROM own_function WHERE proname = 'backfill_lesson_assets') LIKE
  'batch integer DEFAULT 500, execute boolean DEFAULT false, organization_id text DEFAULT NULL%, after text DEFAULT NULL%, max_lessons bigint DEFAULT NULL%, skip_settled boolean DEFAULT false%',
  true, 'backfill_lesson_assets: ' || (SELECT arguments FROM own_function WHERE proname = 'backfill_lesson_assets'));
SELECT is((SELECT arguments FROM own_function WHERE proname = 'backfill_asset_keys') LIKE
  'batch integer DEFAULT 500, execute boolean DEFAULT false, refresh boolean DEFAULT false%',
  true, 'backfill_asset_keys: ' || (SELECT arguments FROM own_function WHERE proname = 'backfill_asset_keys'));
SELECT is((SELECT arguments FROM own_function WHERE proname = 'asset_canonical_key'),
  'provider text, locator text, kind text DEFAULT NULL::text', 'asset_canonical_key');
SELECT is((SELECT arguments FROM own_function WHERE proname = 'infer_mime_type') LIKE 'declared text%, filename text%, link text%', true, 'infer_mime_type');
SELECT is((SELECT arguments FROM own_function WHERE proname = 'infer_asset_kind') LIKE 'mime_type text, fallback text DEFAULT ''other''%', true, 'infer_asset_kind');
SELECT is((SELECT arguments FROM own_function WHERE proname = 'normalize_path') LIKE 'path text, case_sensitive boolean DEFAULT true', true, 'normalize_path');
SELECT is((SELECT arguments FROM own_function WHERE proname = 'content_signature'), 'hash text, size bigint, mtime timestamp with time zone', 'content_signature');
SELECT is((SELECT arguments FROM own_function WHERE proname = 'parse_media_link'),
  'link text, OUT provider text, OUT media_kind text, OUT media_id text, OUT canonical_url text, OUT facets jsonb', 'parse_media_link');
SELECT is((SELECT arguments FROM own_function WHERE proname = 'normalize_lesson_media'),
  'slot_type text, item jsonb, OUT outcome text, OUT reason text, OUT provider text, OUT storage_provider text, OUT storage_key text, OUT source_url text, '
  'OUT canonical_key text, OUT kind text, OUT mime_type text, OUT byte_size bigint, OUT title text, OUT description text, OUT thumbnail_url text, '
  'OUT duration_seconds integer, OUT aspect_ratio text, OUT is_external boolean, OUT asset_id uuid, OUT metadata jsonb', 'normalize_lesson_media');
SELECT is((SELECT count(*)::int FROM own_function WHERE proname = 'prepare_asset_tables' AND arguments LIKE 'execute boolean DEFAULT false%'), 1, 'prepare_asset_tables');
SELECT is((SELECT count(*)::int FROM own_function WHERE proname = 'dedupe_asset_usages' AND arguments LIKE 'execute boolean DEFAULT false%'), 1, 'dedupe_asset_usages');

-- Settings. They are there once the library is loaded, which the first call of a function does.
SELECT is(asset_key_version(), 1, 'loaded');
SELECT is(current_setting('media_assets.lock_timeout'), '500ms', 'media_assets.lock_timeout');
SELECT is(current_setting('media_assets.max_failures'), '1000', 'media_assets.max_failures');
SELECT isnt(current_setting('media_assets.progress', true), NULL, 'media_assets.progress');
SELECT isnt(current_setting('media_assets.dry_run_memory', true), NULL, 'media_assets.dry_run_memory');
SELECT is_empty(
  $$SELECT name FROM pg_settings WHERE name LIKE 'media\_assets.%' AND coalesce(short_desc, '') = ''$$,
  'every setting says what it is for');

SELECT * FROM finish();
ROLLBACK;
