\echo
\echo '━━ 8. Second act: the run is taken back ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━'
\echo 'Each execution is in the ledger, with what was there before.'
\echo
\echo '   SELECT run_id, job, state, rows_done FROM backfill_progress;'
\echo '   SELECT * FROM undo_backfill(1, execute => true);'
\echo

SELECT run_id, job, state, rows_done FROM backfill_progress ORDER BY run_id;

SELECT items_restored, usages_removed, assets_removed, conflicts, errors FROM undo_backfill(1, execute => true);

-- All rows in which the tables differ from what they were before the first act's execution.
CREATE VIEW demo.difference AS
(TABLE lesson EXCEPT ALL TABLE demo.before) UNION ALL (TABLE demo.before EXCEPT ALL TABLE lesson);
CREATE VIEW demo.asset_difference AS
(TABLE assets EXCEPT ALL TABLE demo.assets_before) UNION ALL (TABLE demo.assets_before EXCEPT ALL TABLE assets);

\t on
SELECT demo.assert(NOT EXISTS (TABLE demo.difference) AND NOT EXISTS (TABLE demo.asset_difference)
                   AND NOT EXISTS (TABLE asset_usages), 'lessons, assets and usages are row for row as they were before');
\t off
