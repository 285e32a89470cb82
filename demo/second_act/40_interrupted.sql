\echo
\echo '━━ 10. Killed ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━'
\echo 'kill -9 of its backend: the whole server has restarted, and every session was lost.'
\echo

SELECT max(run_id) AS run_id FROM backfill_progress WHERE job = 'lesson_assets' \gset
SELECT run_id AS run, state, rows_done AS done, rows_total AS total, percent FROM backfill_progress WHERE run_id = :run_id;

\t on
SELECT demo.assert(state = 'interrupted' AND rows_done BETWEEN 1 AND rows_total - 1, 'the run is interrupted, somewhere in the middle')
FROM backfill_progress WHERE run_id = :run_id
UNION ALL
SELECT demo.assert((SELECT sum(v.value) FROM backfill_runs r JOIN backfill_ranges g USING (run_id)
                    CROSS JOIN unnest(r.counter_names, g.counters) v (name, value)
                    WHERE run_id = :run_id AND v.name = 'assets_created')
                   = (SELECT count(*) FROM assets) - (SELECT count(*) FROM demo.assets_before),
                   'the ledger counts each asset that is there, and none that is not');
\t off
