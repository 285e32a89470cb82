-- Medians and ratios of the table raw (way, round, seconds or another value, bytes of WAL, processor seconds), which tools/bench.sh fills.

CREATE TEMPORARY TABLE m AS
SELECT way, percentile_cont(0.5) WITHIN GROUP (ORDER BY value)::numeric AS value, min(value) AS least, max(value) AS most,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY wal)::numeric AS wal,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY processor)::numeric AS processor, count(*) AS runs,
       string_agg(round(value, 2)::text, ' ' ORDER BY round) AS figures
FROM raw GROUP BY way;
CREATE FUNCTION pg_temp.median(text) RETURNS numeric LANGUAGE sql AS 'SELECT value FROM m WHERE way = $1';
CREATE FUNCTION pg_temp.processor(text) RETURNS numeric LANGUAGE sql AS 'SELECT processor FROM m WHERE way = $1';
CREATE FUNCTION pg_temp.wal(text) RETURNS numeric LANGUAGE sql AS 'SELECT wal FROM m WHERE way = $1';

\pset format aligned
\pset tuples_only off
\pset footer off
\pset linestyle ascii

SELECT way, round(value, 3) AS "median s", round(value / pg_temp.median('execute'), 3) AS "of execute",
       round(processor, 2) AS "processor s", round(processor / pg_temp.processor('execute'), 3) AS "of execute's",
       pg_size_pretty(wal::bigint) AS wal, figures AS "each run, s"
FROM m WHERE way IN ('limit', 'dry_run', 'execute', 'bare', 'committing', 'two_workers', 'rerun', 'settled', 'refused', 'unanalysed', 'small', 'row_loop', 'client')
ORDER BY array_position(ARRAY['limit', 'bare', 'execute', 'committing', 'two_workers', 'dry_run', 'rerun', 'settled', 'refused', 'unanalysed', 'small', 'row_loop', 'client'], way);

SELECT goal, what, measured, aim, CASE reached WHEN true THEN 'yes' WHEN false THEN 'NO' END AS reached
FROM (
  SELECT '1' AS goal, 'physical limit / execute' AS what, round(r, 3)::text AS measured,
         '>= ' || CASE WHEN :lessons > 100000 THEN 0.75 ELSE 0.80 END AS aim, r >= CASE WHEN :lessons > 100000 THEN 0.75 ELSE 0.80 END AS reached
  FROM (SELECT pg_temp.median('limit') / pg_temp.median('execute') AS r) x
  UNION ALL SELECT '1', 'the same, without what undo needs', round(r, 3)::text, '', NULL FROM (SELECT pg_temp.median('limit') / pg_temp.median('bare') AS r) x
  UNION ALL SELECT '1', 'client, lesson by lesson / execute', round(r, 1)::text, '>= 50', r >= 50 FROM (SELECT pg_temp.median('client') / pg_temp.median('execute') AS r) x
  UNION ALL SELECT '-', 'plpgsql row loop / execute', round(r, 2)::text, '', NULL FROM (SELECT pg_temp.median('row_loop') / pg_temp.median('execute') AS r) x
  UNION ALL SELECT '2', 'dry run / execute', round(r, 3)::text, '<= 0.15', r <= 0.15 FROM (SELECT pg_temp.median('dry_run') / pg_temp.median('execute') AS r) x
  UNION ALL SELECT '2', 'full re-run / execute', round(r, 3)::text, '<= 0.30', r <= 0.30 FROM (SELECT pg_temp.median('rerun') / pg_temp.median('execute') AS r) x
  UNION ALL SELECT '2', 'settled lessons skipped / execute', round(r, 3)::text, '<= 0.05', r <= 0.05 FROM (SELECT pg_temp.median('settled') / pg_temp.median('execute') AS r) x
  UNION ALL SELECT '2', 'WAL of skipping, less the ledger''s rows of a run', round(r)::text, '<= 100 per 1,000', r * 1000 / :lessons <= 100 FROM (SELECT greatest(pg_temp.wal('settled') - 3000, 0) AS r) x
  UNION ALL SELECT '2', 'WAL of the re-run, bytes per 1,000 lessons', round(r)::text, '<= 100', r <= 100 FROM (SELECT greatest(pg_temp.wal('rerun') - 3000, 0) * 1000 / :lessons AS r) x
  UNION ALL SELECT '3', '1 lesson in 1,000 refused / execute', round(r, 3)::text, '<= 1.2', r <= 1.2 FROM (SELECT pg_temp.median('refused') / pg_temp.median('execute') AS r) x
  UNION ALL SELECT '4', format('%s lessons / %s lessons', :lessons, :small), round(r, 2)::text, '<= 11', r <= 11 FROM (SELECT pg_temp.median('execute') / pg_temp.median('small') AS r) x
  UNION ALL SELECT '4', 'blocks of batch 100 / batch 2', round(r, 2)::text, 'about 1', r <= 1.5 FROM (SELECT pg_temp.median('batch_100') / pg_temp.median('batch_2') AS r) x
  UNION ALL SELECT '5', 'never-analysed tables / execute', round(r, 3)::text, 'about 1', r <= 1.1 FROM (SELECT pg_temp.median('unanalysed') / pg_temp.median('execute') AS r) x
  UNION ALL SELECT '6', 'memory above the start, execute, MB', round(r, 1)::text, '<= 32', r <= 32 FROM (SELECT pg_temp.median('execute_memory') / 1024 AS r) x
  UNION ALL SELECT '6', 'the same, dry run with its key set, MB', round(r, 1)::text, '', NULL FROM (SELECT pg_temp.median('dry_memory') / 1024 AS r) x
  UNION ALL SELECT '7', 'committing run, one session / two', round(r, 2)::text, '>= 1.6', r >= 1.6 FROM (SELECT pg_temp.median('committing') / pg_temp.median('two_workers') AS r) x
  UNION ALL SELECT '8', 'asset_canonical_key of an upload, million/s', round(r, 2)::text, '>= 1', r >= 1 FROM (SELECT 1 / pg_temp.median('keys_upload') AS r) x
  UNION ALL SELECT '8', '… of a YouTube link', round(r, 2)::text, '>= 1', r >= 1 FROM (SELECT 1 / pg_temp.median('keys_youtube') AS r) x
  UNION ALL SELECT '8', '… of another link', round(r, 2)::text, '>= 1', r >= 1 FROM (SELECT 1 / pg_temp.median('keys_generic') AS r) x
  UNION ALL SELECT '9', 'WAL without undo and decision log / physical limit', round(r, 3)::text, '<= 1.1', r <= 1.1 FROM (SELECT pg_temp.wal('bare') / pg_temp.wal('limit') AS r) x
  UNION ALL SELECT '9', 'WAL of all defaults / physical limit', round(r, 3)::text, '<= 1.25', r <= 1.25 FROM (SELECT pg_temp.wal('execute') / pg_temp.wal('limit') AS r) x
) goals;

SELECT way AS batch, value AS "blocks touched" FROM m WHERE way LIKE 'batch%' ORDER BY length(way), way;
