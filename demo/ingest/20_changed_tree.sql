\echo
\echo 'Then the tree changed: one file has other bytes, one was renamed, one is gone. The reason for each:'
\echo
\echo '   SELECT * FROM explain_ingest_collection(''TV Shows'', ''tree'', reconcile => true, max_removed_fraction => 0.5);'
\echo

SET client_min_messages = warning;
SET media_assets.progress = off;
SELECT set_config('demo.tree', :'tree', false) \g /dev/null

SELECT replace(replace(coalesce(locator, canonical_key), :'tree' || '/', ''), 'filesystem:', '') AS file, action, reason, next_state, clears_approval
FROM explain_ingest_collection('TV Shows', 'tree', reconcile => true, max_removed_fraction => 0.5);

SELECT assets_discovered, assets_ingested, assets_updated, assets_skipped, assets_removed, changed_content, run_id
FROM ingest_collection('TV Shows', 'tree', execute => true, reconcile => true, max_removed_fraction => 0.5);

\echo 'A changed file has lost its approval in the same statement, and what described the old bytes:'
\echo

SELECT replace(uri, :'tree' || '/', '') AS file, state, approved_for_broadcast AS approved, is_deleted, duration_ms FROM collection_assets ORDER BY canonical_key;

\echo 'The enrichers changed: every asset that is not retired has to be enriched again.'
\echo

UPDATE collections SET enrichers = '[{"enricher_id": "ffprobe", "priority": 1}, {"enricher_id": "loudness", "priority": 2}]';
SELECT action, reason, count(*) FROM explain_ingest_collection('TV Shows', 'tree') GROUP BY 1, 2 ORDER BY 1, 2;

\echo 'Undo gives back what was there, but never an approval: that takes an operator.'
\echo
\echo '   SELECT * FROM explain_undo(RUN);'
\echo

SELECT max(run_id) AS run FROM backfill_runs WHERE job = 'collection_ingest' \gset
SELECT u.outcome, u.reason, count(*) FROM explain_undo(:run) u GROUP BY 1, 2 ORDER BY 1, 2;
SELECT severity, finding, count(*) FROM verify_collection_assets() GROUP BY 1, 2;
