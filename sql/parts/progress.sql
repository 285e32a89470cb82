-- Runs as they stand, shaped like pg_stat_progress_…: each role sees its own, those of roles that it is a member of,
-- and the extension's owner sees all.
CREATE VIEW @extschema@.backfill_progress WITH (security_barrier) AS
SELECT r.run_id, r.job, g.pid,
       CASE WHEN r.state OPERATOR(pg_catalog.<>) 'running' THEN r.state
            WHEN r.mode OPERATOR(pg_catalog.=) 'procedure' AND g.workers OPERATOR(pg_catalog.=) 0 THEN 'interrupted'
            WHEN g.throttle_reason IS NOT NULL THEN 'throttled'
            ELSE 'running' END AS state,
       CASE WHEN g.phase OPERATOR(pg_catalog.<) pg_catalog.cardinality(r.phases) THEN r.phases[g.phase OPERATOR(pg_catalog.+) 1] END AS phase,
       r.rows_total, g.rows_done,
       CASE WHEN r.state OPERATOR(pg_catalog.=) 'finished' THEN 100.0
            WHEN r.rows_total OPERATOR(pg_catalog.>) 0 THEN
                 pg_catalog.round(100.0 OPERATOR(pg_catalog.*) LEAST(g.rows_done, r.rows_total) OPERATOR(pg_catalog./) r.rows_total, 1) END AS percent,
       s.rows_per_second,
       CASE WHEN r.state OPERATOR(pg_catalog.=) 'running' AND s.rows_per_second OPERATOR(pg_catalog.>) 0 AND r.rows_total IS NOT NULL THEN
                 pg_catalog.make_interval(secs => (GREATEST(r.rows_total OPERATOR(pg_catalog.-) g.rows_done, 0)
                     OPERATOR(pg_catalog./) s.rows_per_second)::pg_catalog.float8) END AS eta,
       g.batch_size, g.throttle_reason,
       (SELECT pg_catalog.count(*) FROM @extschema@.backfill_quarantine q WHERE q.run_id OPERATOR(pg_catalog.=) r.run_id) AS quarantined,
       r.error AS last_error, g.workers, r.run_by, r.started_at, r.finished_at
FROM @extschema@.backfill_runs r
CROSS JOIN LATERAL (
    SELECT COALESCE(pg_catalog.min(g.phase) FILTER (WHERE NOT g.done), pg_catalog.max(g.phase)) AS phase,
           pg_catalog.sum(g.rows_done)::pg_catalog.int8 AS rows_done, pg_catalog.max(g.batch_size) AS batch_size,
           pg_catalog.min(g.throttle_reason) FILTER (WHERE a.alive) AS throttle_reason,
           pg_catalog.min(g.pid) FILTER (WHERE a.alive) AS pid,
           pg_catalog.count(DISTINCT g.pid) FILTER (WHERE a.alive) AS workers,
           pg_catalog.max(g.updated_at) AS updated_at
    FROM @extschema@.backfill_ranges g
    CROSS JOIN LATERAL (SELECT g.pid IS NOT NULL AND r.state OPERATOR(pg_catalog.=) 'running'
                               AND @extschema@.backfill_worker_is_alive(g.pid, g.backend_start) AS alive) a
    WHERE g.run_id OPERATOR(pg_catalog.=) r.run_id) g
CROSS JOIN LATERAL (
    SELECT pg_catalog.round(g.rows_done OPERATOR(pg_catalog./) NULLIF(EXTRACT(epoch FROM
               COALESCE(r.finished_at, g.updated_at) OPERATOR(pg_catalog.-) r.started_at)::pg_catalog.numeric, 0), 1) AS rows_per_second) s
WHERE EXISTS (SELECT FROM pg_catalog.pg_roles o WHERE o.rolname OPERATOR(pg_catalog.=) r.run_by AND pg_catalog.pg_has_role(o.oid, 'MEMBER'))
   OR EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE e.extname OPERATOR(pg_catalog.=) 'media_assets' AND pg_catalog.pg_has_role(e.extowner, 'MEMBER'));
ALTER VIEW @extschema@.backfill_progress OWNER TO @extowner@;
GRANT SELECT ON @extschema@.backfill_progress TO PUBLIC;
