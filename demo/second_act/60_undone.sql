\echo
\echo '━━ 12. And taken back ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━'
\echo 'A run that was killed and resumed is one run. Meanwhile a teacher has replaced a video.'
\echo
\echo '   SELECT * FROM undo_backfill(…);                      -- dry: what would become of each value'
\echo '   SELECT * FROM explain_undo(…) WHERE outcome = ''conflict'';'
\echo '   SELECT * FROM undo_backfill(…, execute => true);'
\echo

BEGIN;
UPDATE lesson SET videos = jsonb_set(videos, '{0,assetId}', '"mine"') WHERE title = 'Fractions';
SELECT items_restored, usages_removed, assets_removed, conflicts, errors FROM undo_backfill(:run_id);
SELECT l.title AS lesson, column_name, position, outcome, reason
FROM explain_undo(:run_id) u JOIN lesson l ON l.id::text = u.id WHERE outcome = 'conflict';
ROLLBACK;

\echo 'The teacher has thought better of it; now nothing stands in the way:'
\echo
SELECT items_restored, usages_removed, assets_removed, conflicts, errors FROM undo_backfill(:run_id, execute => true);

\t on
SELECT demo.assert(NOT EXISTS (TABLE demo.difference) AND NOT EXISTS (TABLE demo.asset_difference)
                   AND NOT EXISTS (TABLE asset_usages), 'lessons, assets and usages are row for row as they were before');
\t off

\echo
SELECT run_id AS run, job, state, rows_done AS done FROM backfill_progress ORDER BY run_id;
