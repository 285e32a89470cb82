-- The asset tables: made, checked, kept keyed.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS media_assets;
SELECT no_plan();
CREATE SCHEMA ma_tables;
SET LOCAL search_path = ma_tables, public;
SET LOCAL media_assets.progress = off;

SELECT isnt_empty('SELECT * FROM check_asset_tables()', 'what is missing is reported, not raised');
SELECT throws_ok('SELECT * FROM backfill_asset_keys(execute => true)', '42P01', NULL, 'no assets, no keys');
SELECT isnt_empty('SELECT * FROM create_asset_tables()', 'create tells what it did');
SELECT lives_ok('SELECT * FROM create_asset_tables()', 'and is repeatable');
SELECT has_table('ma_tables'::name, 'assets'::name);
SELECT has_table('ma_tables'::name, 'asset_usages'::name);
SELECT is_empty('SELECT relation, problem FROM check_asset_tables() WHERE relation::text LIKE ''%asset%''', 'nothing left to prepare');
SELECT columns_are('ma_tables'::name, 'asset_usages'::name, ARRAY(
  SELECT a.attname FROM pg_attribute a WHERE a.attrelid = 'ma_tables.asset_usages'::regclass AND attnum > 0 AND NOT attisdropped), 'columns');
SELECT has_column('ma_tables'::name, 'assets'::name, column_name::name, 'assets.' || column_name)
FROM unnest(ARRAY['id', 'organization_id', 'kind', 'provider', 'storage_provider', 'storage_key', 'source_url', 'mime_type', 'byte_size', 'title', 'description',
  'thumbnail_url', 'duration_seconds', 'aspect_ratio', 'is_external', 'status', 'metadata', 'canonical_key', 'created_at', 'updated_at']) column_name;
SELECT has_column('ma_tables'::name, 'asset_usages'::name, column_name::name, 'asset_usages.' || column_name)
FROM unnest(ARRAY['id', 'organization_id', 'asset_id', 'target_type', 'target_id', 'slot_type', 'slot_key', 'position']) column_name;
SELECT is_empty($$SELECT objid::regclass FROM pg_depend WHERE classid = 'pg_class'::regclass AND deptype = 'e' AND objid IN ('ma_tables.assets'::regclass, 'ma_tables.asset_usages'::regclass)$$,
  'the tables are the user''s, never members of the extension');

PREPARE add_asset (uuid, text) AS
INSERT INTO assets (id, organization_id, kind, provider, storage_provider, storage_key, is_external, status, metadata)
VALUES ($1, '0a000000-0000-4000-8000-000000000001', 'video', 'upload', 's3', $2, false, 'active', '{}');
EXECUTE add_asset('a0000000-0000-4000-8000-000000000001', 'a');
EXECUTE add_asset('a0000000-0000-4000-8000-000000000002', 'a');
EXECUTE add_asset('a0000000-0000-4000-8000-000000000003', 'b');
SELECT results_eq('SELECT canonical_key FROM assets ORDER BY id', $$VALUES ('upload:a'::text), (NULL), ('upload:b')$$, 'keyed at once, a twin without failing');
UPDATE assets SET storage_key = 'c' WHERE id = 'a0000000-0000-4000-8000-000000000001';
SELECT results_eq('SELECT canonical_key FROM assets ORDER BY id', $$VALUES ('upload:c'::text), (NULL), ('upload:b')$$, 'the key follows its fields');
SELECT is((SELECT keyed FROM backfill_asset_keys(execute => true)), 1::bigint, 'the twin gets the key that is free now');
SELECT results_eq('SELECT canonical_key FROM assets ORDER BY id', $$VALUES ('upload:c'::text), ('upload:a'), ('upload:b')$$, 'all keyed');
UPDATE assets SET storage_key = 'a' WHERE id = 'a0000000-0000-4000-8000-000000000003';
SELECT results_eq('SELECT canonical_key FROM assets ORDER BY id', $$VALUES ('upload:c'::text), ('upload:a'), (NULL)$$, 'on a collision the key becomes NULL');

SELECT throws_ok('SELECT * FROM backfill_asset_keys(0)', '22023', NULL, 'batch 0');
SELECT throws_ok('SELECT * FROM backfill_asset_keys(NULL)', '22023', NULL, 'batch NULL');
SELECT throws_ok('SELECT * FROM prepare_asset_tables(NULL)', '22023', NULL, 'execute NULL');
SELECT throws_ok('SELECT * FROM dedupe_asset_usages(NULL)', '22023', NULL, 'execute NULL');
SELECT lives_ok('SELECT * FROM prepare_asset_tables(true)', 'prepare finds nothing to do');
SELECT lives_ok('SELECT * FROM dedupe_asset_usages(true)', 'nor does dedupe');

SELECT * FROM finish();
ROLLBACK;
