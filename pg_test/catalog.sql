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
           ('dedupe_asset_usages'), ('backfill_asset_keys'), ('run_backfill'), ('resume_backfill'), ('join_backfill'),
           ('pause_backfill'), ('cancel_backfill'), ('retry_quarantined'), ('set_backfill_pace'), ('prune_backfill_runs'),
           ('undo_backfill'), ('explain_undo'), ('backfill_report'),
           ('create_media_tables'), ('backfill_i2v_thumbnails'), ('explain_i2v_thumbnails'), ('verify_i2v_thumbnails'),
           ('create_scene_tables'), ('extend_scene_tables'), ('backfill_s3_assets'), ('explain_s3_assets'), ('verify_s3_assets'),
           ('import_dynamodb_items'), ('import_convex_documents'), ('create_ingest_tables'), ('ingest_decision'), ('ingest_collection'),
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
FROM unnest(ARRAY['backfill_lesson_assets', 'backfill_asset_keys', 'prepare_asset_tables', 'dedupe_asset_usages', 'undo_backfill',
                  'pause_backfill', 'cancel_backfill', 'retry_quarantined', 'set_backfill_pace', 'prune_backfill_runs',
                  'create_media_tables', 'backfill_i2v_thumbnails', 'create_scene_tables', 'extend_scene_tables', 'backfill_s3_assets',
                  'import_dynamodb_items', 'import_convex_documents']) name;
SELECT results_eq(
  format('SELECT p.prokind::text, o.proparallel FROM pg_proc p JOIN own_function o USING (oid) WHERE p.proname = %L', name),
  $$VALUES ('p', 'u')$$,
  name || ' is one procedure, PARALLEL UNSAFE')
FROM unnest(ARRAY['run_backfill', 'resume_backfill', 'join_backfill']) name;
SELECT results_eq(
  format('SELECT DISTINCT provolatile, proparallel FROM own_function WHERE proname = %L', name),
  $$VALUES ('s', 'r')$$,
  name || ' reads only: STABLE PARALLEL RESTRICTED')
FROM unnest(ARRAY['explain_undo', 'backfill_report']) name;
-- Two calls within one statement may differ: a session may end between them.
SELECT results_eq($$SELECT provolatile, proparallel, proisstrict FROM own_function WHERE proname = 'backfill_worker_is_alive'$$,
  $$VALUES ('v', 'r', true)$$, 'backfill_worker_is_alive is VOLATILE PARALLEL RESTRICTED STRICT');
SELECT isnt((SELECT max(proparallel) FROM own_function WHERE proname = name), 's', name || ' reads tables with the caller''s session: not PARALLEL SAFE')
FROM unnest(ARRAY['explain_lesson_assets', 'verify_lesson_assets', 'check_asset_tables', 'create_asset_tables', 'explain_i2v_thumbnails',
                  'verify_i2v_thumbnails', 'explain_s3_assets', 'verify_s3_assets']) name;
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

SELECT is((SELECT arguments FROM own_function WHERE proname = 'backfill_i2v_thumbnails') LIKE
  'batch integer DEFAULT 500, execute boolean DEFAULT false, allow_private_sources boolean DEFAULT false%', true, 'backfill_i2v_thumbnails');
SELECT is((SELECT arguments FROM own_function WHERE proname = 'backfill_s3_assets') LIKE
  'batch integer DEFAULT 500, execute boolean DEFAULT false, bucket_url text DEFAULT NULL%', true, 'backfill_s3_assets');
SELECT is((SELECT arguments FROM own_function WHERE proname = 'import_dynamodb_items') LIKE
  'lines text[], first_line bigint DEFAULT 1, execute boolean DEFAULT false%', true, 'import_dynamodb_items');
SELECT is((SELECT arguments FROM own_function WHERE proname = 'import_convex_documents') LIKE
  'table_name text, lines text[], first_line bigint DEFAULT 1, execute boolean DEFAULT false%', true, 'import_convex_documents');

SELECT is((SELECT arguments FROM own_function WHERE proname = 'run_backfill') LIKE
  '%job text, %batch integer DEFAULT 500, %execute boolean DEFAULT false, %options jsonb DEFAULT ''{}''::jsonb, INOUT run_id bigint DEFAULT NULL%',
  true, 'run_backfill: ' || (SELECT arguments FROM own_function WHERE proname = 'run_backfill'));
SELECT is((SELECT arguments FROM own_function WHERE proname = name) LIKE '%run_id bigint', true, name)
FROM unnest(ARRAY['resume_backfill', 'join_backfill', 'pause_backfill', 'cancel_backfill', 'retry_quarantined', 'backfill_report']) name;
SELECT is((SELECT arguments FROM own_function WHERE proname = 'set_backfill_pace') LIKE
  'run_id bigint, batch integer DEFAULT NULL%, batch_pause interval DEFAULT NULL%, target_batch_time interval DEFAULT NULL%, max_replica_lag interval DEFAULT NULL%',
  true, 'set_backfill_pace');
SELECT is((SELECT arguments FROM own_function WHERE proname = 'undo_backfill') LIKE 'run_id bigint, execute boolean DEFAULT false, OUT %',
  true, 'undo_backfill');
SELECT is((SELECT arguments FROM own_function WHERE proname = 'prune_backfill_runs'), 'older_than interval', 'prune_backfill_runs');

-- The ledger.
CREATE TEMP VIEW own_relation AS
SELECT c.oid, c.relname::text, c.relkind::text, c.relowner, c.relacl, c.relpersistence::text
FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND e.extname = 'media_assets';
SELECT set_eq(
  $$SELECT relname FROM own_relation WHERE relkind = 'r'$$,
  $$VALUES ('backfill_runs'), ('backfill_ranges'), ('backfill_requests'), ('backfill_decisions'), ('backfill_changes'),
           ('backfill_quarantine'), ('backfill_waits')$$,
  'the tables of the extension are those of the ledger');
SELECT is_empty(
  $$SELECT r.relname FROM own_relation r, pg_extension e WHERE e.extname = 'media_assets' AND r.relowner <> e.extowner$$,
  'tables, sequences and the view belong to the owner of the extension');
SELECT is_empty(
  $$SELECT r.relname, a.grantee, a.privilege_type FROM own_relation r, aclexplode(r.relacl) a
    WHERE a.grantee <> r.relowner AND (r.relname, a.grantee, a.privilege_type) <> ('backfill_progress', 0, 'SELECT')$$,
  'nobody else has a right on them, but for SELECT on the view');
SELECT is_empty(
  $$SELECT r.relname FROM own_relation r, pg_extension e
    WHERE e.extname = 'media_assets' AND r.relkind IN ('r', 'S') AND r.oid <> ALL (coalesce(e.extconfig, '{}'))$$,
  'pg_dump takes the rows of every table, and every sequence');
SELECT is_empty(
  $$SELECT c FROM pg_extension, unnest(extcondition) c WHERE extname = 'media_assets' AND c <> ''$$,
  'all of their rows');
SELECT is_empty($$SELECT relname FROM own_relation WHERE relpersistence <> 'p'$$, 'none of them is lost by a crash');
SELECT is_empty(
  $$SELECT r.relname FROM own_relation r WHERE r.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = r.oid AND i.indisprimary)$$,
  'each table has a primary key');
SELECT is_empty(
  $$SELECT r.relname FROM own_relation r JOIN pg_trigger t ON t.tgrelid = r.oid WHERE NOT t.tgisinternal$$,
  'no trigger writes the ledger or is fired by it');
SELECT columns_are('backfill_progress', ARRAY['run_id', 'job', 'pid', 'state', 'phase', 'rows_total', 'rows_done', 'percent',
  'rows_per_second', 'eta', 'batch_size', 'throttle_reason', 'quarantined', 'last_error', 'workers', 'run_by', 'started_at',
  'finished_at']);
SELECT is(c.reloptions::text LIKE '%security_barrier%', true, 'a cheap function of a stranger does not see rows of the view that are not his')
FROM pg_class c JOIN own_relation r USING (oid) WHERE r.relname = 'backfill_progress';
SELECT is_empty(
  $$SELECT proname FROM own_function, aclexplode((SELECT proacl FROM pg_proc WHERE pg_proc.oid = own_function.oid)) a WHERE a.grantee <> 0
      AND a.grantee <> (SELECT extowner FROM pg_extension WHERE extname = 'media_assets')$$,
  'EXECUTE is as PostgreSQL grants it');

-- Settings. They are there once the library is loaded, which the first call of a function does.
SELECT is(asset_key_version(), 1, 'loaded');
SELECT is(current_setting('media_assets.lock_timeout'), '500ms', 'media_assets.lock_timeout');
SELECT is(current_setting('media_assets.max_failures'), '1000', 'media_assets.max_failures');
SELECT isnt(current_setting('media_assets.progress', true), NULL, 'media_assets.progress');
SELECT isnt(current_setting('media_assets.dry_run_memory', true), NULL, 'media_assets.dry_run_memory');
SELECT results_eq(
  $$SELECT name, setting, context FROM pg_settings WHERE name IN ('media_assets.log_changes', 'media_assets.log_decisions',
      'media_assets.log_decisions_limit', 'media_assets.batch_pause', 'media_assets.target_batch_time', 'media_assets.max_replica_lag')
    ORDER BY name COLLATE "C"$$,
  $$VALUES ('media_assets.batch_pause', '0', 'user'), ('media_assets.log_changes', 'on', 'user'), ('media_assets.log_decisions', 'skipped', 'user'),
           ('media_assets.log_decisions_limit', '10000', 'user'), ('media_assets.max_replica_lag', '0', 'user'),
           ('media_assets.target_batch_time', '0', 'user')$$,
  'settings of runs, with the defaults of the pages');
SELECT is_empty(
  $$SELECT name FROM pg_settings WHERE name LIKE 'media\_assets.%' AND coalesce(short_desc, '') = ''$$,
  'every setting says what it is for');

-- Jellyfin metadata.
SELECT results_eq(
  format('SELECT DISTINCT provolatile, proparallel, proisstrict FROM own_function WHERE proname = %L', name), expected, name || ' declares what it is')
FROM (VALUES
  ('resolve_jellyfin_item', $$VALUES ('i', 's', false)$$), ('jellyfin_lookup', $$VALUES ('i', 's', false)$$),
  ('jellyfin_search_key', $$VALUES ('i', 's', true)$$), ('content_published_event_id', $$VALUES ('i', 's', true)$$),
  ('content_published_payload', $$VALUES ('s', 's', false)$$), ('jellyfin_candidates', $$VALUES ('s', 'r', false)$$),
  ('explain_jellyfin_metadata', $$VALUES ('s', 'r', false)$$), ('verify_jellyfin_metadata', $$VALUES ('s', 'r', false)$$),
  ('create_jellyfin_tables', $$VALUES ('v', 'u', false)$$), ('backfill_jellyfin_metadata', $$VALUES ('v', 'u', false)$$),
  ('reopen_jellyfin_skips', $$VALUES ('v', 'u', false)$$)) v (name, expected);
SELECT is((SELECT arguments FROM own_function WHERE proname = 'backfill_jellyfin_metadata') LIKE
  'batch integer DEFAULT 500, execute boolean DEFAULT false, mode text DEFAULT ''republish''%, backfill_version text DEFAULT NULL%, public_base text DEFAULT NULL%, max_rows bigint DEFAULT NULL%',
  true, 'backfill_jellyfin_metadata: ' || (SELECT arguments FROM own_function WHERE proname = 'backfill_jellyfin_metadata'));
SELECT is(current_setting('media_assets.default_namespace'), 'pmoves', 'media_assets.default_namespace');
SELECT isnt(current_setting('media_assets.backfill_version', true), NULL, 'media_assets.backfill_version');
SELECT isnt(current_setting('media_assets.jellyfin_public_base', true), NULL, 'media_assets.jellyfin_public_base');

SELECT * FROM finish();
ROLLBACK;
