#!/usr/bin/env bash
# Measures the collection ingest: a first pass into an empty collection, a second one in which nothing is to do, dry runs of
# both, and one in which a hundredth of the contents changed. Prints them as ratios to the first, with the goals.
#
#   ITEMS=100000 ROUNDS=5 tools/bench_ingest.sh
#
# Every round starts in a fresh copy of the same database; medians count. Raw figures: target/bench/ingest.csv.
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=tools/bench_lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/bench_lib.sh"
cd "$root"

items=${ITEMS:-100000}
rounds=${ROUNDS:-5}
work=$target/bench
raw=$work/ingest.csv
mkdir -p "$work"
: >"$raw"

bench_server 2GB 16GB

# measure WAY ROUND CALL: seconds, bytes of WAL and processor seconds of one call of ingest_collection.
measure() {
  local result
  result=$(psql -d run_ingest <<SQL
CREATE FUNCTION pg_temp.processor() RETURNS numeric LANGUAGE sql AS \$\$
  SELECT (split_part(stat, ' ', 14)::numeric + split_part(stat, ' ', 15)::numeric) / 100 FROM pg_read_file('/proc/self/stat') stat
\$\$;
SELECT asset_key_version() \\g /dev/null
SELECT clock_timestamp() AS began, pg_current_wal_insert_lsn() AS wal, pg_temp.processor() AS processor \\gset
SELECT * FROM ingest_collection($3) \\g /dev/null
SELECT round(extract(epoch FROM clock_timestamp() - :'began'), 4) || ',' || pg_current_wal_insert_lsn() - :'wal' || ',' || pg_temp.processor() - :processor;
SQL
  )
  printf '%s,%s,%s\n' "$1" "$2" "$result" >>"$raw"
  say "  round $2  $(printf '%-12s' "$1") ${result%%,*} s"
}

say "generating $items items"
psql -d postgres -c 'DROP DATABASE IF EXISTS start_ingest' -c 'CREATE DATABASE start_ingest'
psql -d start_ingest -c 'CREATE EXTENSION media_assets'
psql -d start_ingest -v items="$items" -f bench/ingest.sql
for round in $(seq "$rounds"); do
  psql -d postgres -c 'DROP DATABASE IF EXISTS run_ingest' -c 'CREATE DATABASE run_ingest TEMPLATE start_ingest' -c CHECKPOINT
  measure dry_first "$round" "'TV', 'items'"
  measure first "$round" "'TV', 'items', execute => true"
  # What the first pass leaves to do for whoever reads its rows next is not the second one's.
  psql -d run_ingest -c VACUUM -c CHECKPOINT
  measure one_item "$round" "'One', 'one_item', execute => true"
  measure second "$round" "'TV', 'items', execute => true"
  measure dry_second "$round" "'TV', 'items'"
  psql -d run_ingest -c 'UPDATE items SET size = size + 1 WHERE episode % 100 = 0' -c CHECKPOINT
  measure changed "$round" "'TV', 'items', execute => true"
done
psql -d postgres -c 'DROP DATABASE run_ingest' -c 'DROP DATABASE start_ingest'

printf '\ncollection ingest, %s items; medians of %s rounds\n\n' "$items" "$rounds"
{
  echo 'CREATE TEMPORARY TABLE raw (way text, round int, seconds numeric, wal numeric, processor numeric);'
  echo 'COPY raw FROM STDIN CSV;'
  cat "$raw"
  echo '\.'
  cat <<'SQL'
\pset format aligned
\pset tuples_only off
\pset footer off
CREATE TEMPORARY TABLE m AS
SELECT way, percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds)::numeric AS seconds, percentile_cont(0.5) WITHIN GROUP (ORDER BY wal)::numeric AS wal,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY processor)::numeric AS processor, string_agg(round(seconds, 2)::text, ' ' ORDER BY round) AS figures
FROM raw GROUP BY way;
SELECT m.way, round(m.seconds, 2) AS "median s", round(m.seconds / f.seconds, 3) AS "of the first", round(m.processor, 2) AS "processor s",
       round(m.processor / f.processor, 3) AS "of the first's", m.wal::bigint AS "bytes of WAL", m.figures AS "each run, s"
FROM m, m f WHERE f.way = 'first' ORDER BY array_position(ARRAY['first', 'dry_first', 'second', 'dry_second', 'changed', 'one_item'], m.way);
SELECT what, round(measured, 3) AS measured, aim, CASE WHEN measured <= most THEN 'yes' ELSE 'NO' END AS reached
FROM (SELECT 'second pass / first' AS what, s.seconds / f.seconds AS measured, '<= 0.15' AS aim, 0.15 AS most FROM m s, m f WHERE s.way = 'second' AND f.way = 'first'
      UNION ALL SELECT 'the same, processor time', s.processor / f.processor, '<= 0.15', 0.15 FROM m s, m f WHERE s.way = 'second' AND f.way = 'first'
      UNION ALL SELECT 'WAL of the second pass, beyond that of a run over one item, bytes per 1,000 items',
                       greatest(s.wal - o.wal, 0) * 1000 / :items, '<= 100', 100 FROM m s, m o WHERE s.way = 'second' AND o.way = 'one_item') g;
SQL
} | psql -d postgres -v items="$items"
