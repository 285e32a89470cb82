\echo
\echo '━━ Third act: a collection of files ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━'
\echo 'A small media tree was made on the spot. The tables of an ingest, a collection, and the tree as items:'
\echo
\echo '   SELECT * FROM create_ingest_tables();'
\echo '   CREATE VIEW tree AS SELECT * FROM discover_files(DIRECTORY);'
\echo

SET client_min_messages = warning;
SET media_assets.progress = off;
SELECT set_config('demo.tree', :'tree', false) \g /dev/null
SELECT count(*) FROM create_ingest_tables() \g /dev/null
INSERT INTO collections (source_type, external_id, name, sync_enabled, ingestible, enrichers)
VALUES ('filesystem', 'lib-1', 'TV Shows', true, true, '[{"enricher_id": "ffprobe", "priority": 1}]');
CREATE VIEW tree AS SELECT * FROM discover_files(current_setting('demo.tree'));

SELECT replace(locator, :'tree' || '/', '') AS file, size, title, season, episode FROM tree;

\echo 'What an ingest would do, and why; then the ingest itself:'
\echo
\echo '   SELECT * FROM explain_ingest_collection(''TV Shows'', ''tree'');'
\echo '   SELECT * FROM ingest_collection(''TV Shows'', ''tree'', execute => true);'
\echo

SELECT replace(locator, :'tree' || '/', '') AS file, action, reason, next_state FROM explain_ingest_collection('TV Shows', 'tree');
SELECT status, scope, assets_discovered, assets_ingested, assets_skipped, run_id FROM ingest_collection('TV Shows', 'tree', execute => true);

\echo 'Enrichment makes the assets ready, and an operator approves two of them. Nobody can approve what is not ready:'
\echo

UPDATE collection_assets SET state = 'enriching';
UPDATE collection_assets SET state = 'ready', duration_ms = 1320000, video_codec = 'h264';
UPDATE collection_assets SET approved_for_broadcast = true WHERE episode IN (1, 2);
\set ON_ERROR_STOP off
\set SHOW_CONTEXT never
INSERT INTO collection_assets (collection_uuid, canonical_key, state, approved_for_broadcast) SELECT uuid, 'filesystem:/by/hand.mkv', 'ready', true FROM collections;
\set ON_ERROR_STOP on
