-- Collection ingest: 100,000 items into an empty collection, a second pass in which nothing is to do, the dry run of it, and
-- one in which a hundredth of the contents changed. Run in a database of its own, with the extension:
--
--   tools/server.sh psql 15 bench -- -X -f bench/ingest.sql
--
-- Goals: the second pass takes at most 0.15 of the first, and next to no WAL.
\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
SET client_min_messages = warning;
SET media_assets.progress = off;
DROP DATABASE IF EXISTS media_assets_bench_ingest;
CREATE DATABASE media_assets_bench_ingest;
\connect media_assets_bench_ingest
SET client_min_messages = warning;
CREATE EXTENSION media_assets;
SELECT count(*) FROM create_ingest_tables() \g /dev/null
SET media_assets.progress = off;
INSERT INTO collections (source_type, name, sync_enabled, ingestible, enrichers)
VALUES ('filesystem', 'TV', true, true, '[{"enricher_id": "ffprobe", "priority": 1}]');
CREATE TABLE items AS
SELECT format('/srv/media/Show %s/Season %s/Show %s - S%sE%s.mkv', n % 900, n % 7, n % 900, n % 7, n) AS locator, 1000000 + n::bigint AS size,
       timestamptz '2025-01-01' + n * interval '1 second' AS mtime, 'Show ' || n % 900 AS title, n % 7 AS season, n AS episode
FROM generate_series(1, 100000) n;
VACUUM ANALYZE items;
CREATE TABLE measured (place int GENERATED ALWAYS AS IDENTITY, what text, seconds numeric, wal bigint);


SELECT clock_timestamp() AS began, pg_current_wal_insert_lsn() AS wal \gset
SELECT * FROM ingest_collection('TV', 'items') \g /dev/null
INSERT INTO measured (what, seconds, wal) SELECT 'dry run of the first', extract(epoch FROM clock_timestamp() - :'began'), pg_current_wal_insert_lsn() - :'wal';

SELECT clock_timestamp() AS began, pg_current_wal_insert_lsn() AS wal \gset
SELECT * FROM ingest_collection('TV', 'items', true) \g /dev/null
INSERT INTO measured (what, seconds, wal) SELECT 'first', extract(epoch FROM clock_timestamp() - :'began'), pg_current_wal_insert_lsn() - :'wal';

-- The ledger's own rows and full-page images are none of the second pass.
VACUUM collection_assets, collections;
CHECKPOINT;
SELECT * FROM ingest_collection('TV', 'items', true) \g /dev/null
SELECT clock_timestamp() AS began, pg_current_wal_insert_lsn() AS wal \gset
SELECT * FROM ingest_collection('TV', 'items', true) \g /dev/null
INSERT INTO measured (what, seconds, wal) SELECT 'second, nothing to do', extract(epoch FROM clock_timestamp() - :'began'), pg_current_wal_insert_lsn() - :'wal';

SELECT clock_timestamp() AS began, pg_current_wal_insert_lsn() AS wal \gset
SELECT * FROM ingest_collection('TV', 'items') \g /dev/null
INSERT INTO measured (what, seconds, wal) SELECT 'its dry run', extract(epoch FROM clock_timestamp() - :'began'), pg_current_wal_insert_lsn() - :'wal';

UPDATE items SET size = size + 1 WHERE episode % 100 = 0;
SELECT clock_timestamp() AS began, pg_current_wal_insert_lsn() AS wal \gset
SELECT * FROM ingest_collection('TV', 'items', true) \g /dev/null
INSERT INTO measured (what, seconds, wal) SELECT '1 in 100 changed', extract(epoch FROM clock_timestamp() - :'began'), pg_current_wal_insert_lsn() - :'wal';

SELECT what, round(seconds, 2) AS seconds, round(seconds / (SELECT seconds FROM measured WHERE what = 'first'), 3) AS "of the first", pg_size_pretty(wal) AS wal
FROM measured ORDER BY place;
\connect postgres
DROP DATABASE media_assets_bench_ingest;
