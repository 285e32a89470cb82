\echo
\echo '━━ 2. The first thing to type: a dry run ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━'
\echo 'There are no asset tables yet. The dry run needs none, and may run where nothing can be written.'
\echo
\echo '   CREATE EXTENSION media_assets;'
\echo '   BEGIN READ ONLY;'
\echo '   SELECT * FROM backfill_lesson_assets();'
\echo '   COMMIT;'
\echo

CREATE EXTENSION media_assets;
SET media_assets.progress = off;

BEGIN READ ONLY;
SELECT row_to_json(counters) AS counters FROM backfill_lesson_assets() counters \gset first_
COMMIT;

\echo
SELECT key AS counter, value AS "dry run"
FROM json_each_text(:'first_counters'::json) WITH ORDINALITY AS counter (key, value, place)
WHERE value <> '0'
ORDER BY place;

\t on
SELECT demo.assert(to_regclass('assets') IS NULL AND to_regclass('asset_usages') IS NULL,
                   'nothing was written: there are still no asset tables');
\t off
