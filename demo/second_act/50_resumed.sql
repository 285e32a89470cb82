\echo
\echo '━━ 11. Resumed, reported, verified ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━'
\echo 'It goes on from its last batch; the rest of the way without a rest.'
\echo
\echo '   SELECT set_backfill_pace(…, batch => 500, batch_pause => ''0'');'
\echo '   CALL resume_backfill(…);'
\echo '   SELECT backfill_report(…);'
\echo '   SELECT * FROM verify_lesson_assets();'
\echo

SET media_assets.progress = off;
SELECT set_backfill_pace(:run_id, batch => 500, batch_pause => '0') \g /dev/null
SET client_min_messages = error;
CALL resume_backfill(:run_id);
RESET client_min_messages;

\pset format unaligned
\t on
SELECT line FROM regexp_split_to_table(backfill_report(:run_id), '\n') line
WHERE line !~ '^(role|started|finished|application|rows/s) |^  .* 0$';
\pset format aligned

SELECT demo.assert(bool_and(v.value = c.dry_run), 'killed and resumed, it has counted what the dry run of the first act predicted')
FROM demo.counters c
JOIN (SELECT v.name, sum(v.value) AS value FROM backfill_runs r JOIN backfill_ranges g USING (run_id)
      CROSS JOIN unnest(r.counter_names, g.counters) v (name, value) WHERE run_id = :run_id GROUP BY v.name) v ON v.name = c.counter
UNION ALL
SELECT demo.assert(NOT EXISTS (SELECT FROM verify_lesson_assets() WHERE severity = 'error'), 'verified: no errors');
\t off
