\echo
\echo '━━ 5. Execute: predicted = done ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━'
\echo 'A dry run, now with the tables; the execution; and the same execution once more.'
\echo
\echo '   SELECT * FROM backfill_lesson_assets();'
\echo '   SELECT * FROM backfill_lesson_assets(execute => true);'
\echo '   SELECT * FROM backfill_lesson_assets(execute => true);'
\echo

CREATE TABLE demo.before AS SELECT * FROM lesson;
CREATE TABLE demo.assets_before AS SELECT * FROM assets;

SELECT row_to_json(counters) AS counters FROM backfill_lesson_assets() counters \gset dry_
SELECT row_to_json(counters) AS counters FROM backfill_lesson_assets(execute => true) counters \gset done_
SELECT row_to_json(counters) AS counters FROM backfill_lesson_assets(execute => true) counters \gset again_

CREATE TABLE demo.counters AS
SELECT place, key AS counter, dry.value::bigint AS dry_run, done.value::bigint AS executed, again.value::bigint AS again
FROM json_each_text(:'dry_counters'::json) WITH ORDINALITY AS dry (key, value, place)
JOIN json_each_text(:'done_counters'::json) AS done USING (key)
JOIN json_each_text(:'again_counters'::json) AS again USING (key)
WHERE key <> 'run_id';

SELECT counter, dry_run AS "dry run", executed,
       CASE WHEN dry_run IS DISTINCT FROM executed THEN 'NO' WHEN dry_run IS NOT NULL THEN '=' END AS equal,
       again AS "once more"
FROM demo.counters ORDER BY place;

\t on
SELECT demo.assert(bool_and(dry_run IS NOT DISTINCT FROM executed), 'the dry run predicted every counter to the unit')
FROM demo.counters
UNION ALL
SELECT demo.assert(sum(again) = 0, 'the second run created, used and patched nothing, and failed nowhere')
FROM demo.counters WHERE counter IN ('assets_created', 'usages_created', 'lesson_items_patched_with_asset_id', 'errors')
UNION ALL
SELECT demo.assert(max(executed) FILTER (WHERE counter = 'media_items_scanned')
                   = sum(executed) FILTER (WHERE counter = 'media_items_eligible' OR counter LIKE 'skipped%'),
                   'each item is eligible or skipped for one reason; the sums add up')
FROM demo.counters
UNION ALL
SELECT demo.assert(max(executed) FILTER (WHERE counter = 'media_items_eligible')
                   = sum(executed) FILTER (WHERE counter IN ('assets_created', 'assets_reused')),
                   'each eligible item has its asset')
FROM demo.counters;
\t off
