#!/usr/bin/env bash
# Measures the thumbnails and the S3 assets beside set-based SQL that does the same and beside clients that go row by row.
#
#   ROWS=60000 ROUNDS=3 tools/bench_jobs.sh
#
# Every measured run starts in a fresh copy of the same database; the ways take turns. Raw figures: target/bench/jobs.csv.
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=tools/bench_lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/bench_lib.sh"
cd "$root"

rows=${ROWS:-60000}
rounds=${ROUNDS:-3}
work=$target/bench
raw=$work/jobs.csv
mkdir -p "$work"
: >"$raw"

bench_server 2GB 16GB

# measure JOB WAY ROUND: seconds and processor seconds of a script of SQL.
measure() {
  local result
  copy_database start_jobs run_jobs
  result=$(psql -d run_jobs -v file="bench/jobs/$1_$2.sql" <<'SQL'
CREATE FUNCTION pg_temp.processor() RETURNS numeric LANGUAGE sql AS $$
  SELECT (split_part(stat, ' ', 14)::numeric + split_part(stat, ' ', 15)::numeric) / 100 FROM pg_read_file('/proc/self/stat') stat
$$;
SELECT asset_key_version() \g /dev/null
SELECT clock_timestamp() AS began, pg_temp.processor() AS processor \gset
\o /dev/null
\i :file
\o
SELECT round(extract(epoch FROM clock_timestamp() - :'began'), 3) || ',' || pg_temp.processor() - :processor;
SQL
  )
  printf '%s,%s,%s,%s\n' "$1" "$2" "$3" "$result" >>"$raw"
  say "  round $3  $1 $(printf '%-8s' "$2") ${result%%,*} s"
  if [ "$2" != dry_run ]; then rows_of "$1" "$2" "$3"; fi
}

# client JOB ROUND: the same by a client that waits for the answer of each statement; a tenth of the rows, multiplied.
client() {
  local seconds expected
  if [ "$2" = 1 ]; then
    copy_database start_small run_jobs
    psql -d run_jobs -f "bench/jobs/$1_set.sql"
    rows_of "$1" set "$2"
  fi
  copy_database start_small run_jobs
  seconds=$("$client" "host=127.0.0.1 port=$PGPORT user=postgres dbname=run_jobs" "$1")
  printf '%s,client,%s,%s,\n' "$1" "$2" "$(awk "BEGIN{print $seconds * 10}")" >>"$raw"
  say "  round $2  $1 client   $seconds s for a tenth"
  rows_of "$1" client "$2"
}

# rows_of JOB WAY ROUND: what the ways left has to be the same.
rows_of() {
  local rows
  if [ "$3" != 1 ]; then return; fi
  rows=$(psql -d run_jobs -c "SELECT md5(string_agg(t, '|' ORDER BY t)) FROM (
      SELECT ROW(id, thumbnail_url, thumbnail_urls)::text AS t FROM media
      UNION ALL SELECT ROW(id, video_asset, source_code_asset, assets_status, asset_version, previous_asset_versions)::text FROM scenes
      UNION ALL SELECT ROW(id, asset_count, total_asset_size, assets_status)::text FROM video_sessions
      UNION ALL SELECT ROW(entity_type, entity_id, asset_type, s3_key, s3_url, content_type, size, checksum, version, metadata)::text FROM asset_references) t")
  if [ "$2" = set ]; then expected=$rows; fi
  [ "$rows" = "$expected" ] || die "$1 $2 left other rows than set-based SQL did"
}

say "building the client"
(cd bench/client && cargo build --release --quiet --target-dir "$target/bench-client")
client=$target/bench-client/release/row-by-row

say "generating $rows videos and $rows scenes"
for start in start_jobs start_small; do
  psql -d postgres -c "DROP DATABASE IF EXISTS $start" -c "CREATE DATABASE $start"
  psql -d "$start" -v rows="$([ $start = start_small ] && echo $((rows / 10)) || echo "$rows")" -f bench/jobs/schema.sql >/dev/null
done
for round in $(seq "$rounds"); do
  for job in i2v s3; do
    for way in set engine committing dry_run loop; do measure "$job" "$way" "$round"; done
    client "$job" "$round"
  done
done
psql -d postgres -c 'DROP DATABASE run_jobs'

{
  echo 'CREATE TEMPORARY TABLE raw (job text, way text, round int, seconds numeric, processor numeric);'
  echo 'COPY raw FROM STDIN CSV;'
  cat "$raw"
  echo '\.'
  cat <<'SQL'
\pset format aligned
\pset tuples_only off
\pset footer off
WITH m AS (
  SELECT job, way, percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds)::numeric AS seconds,
         percentile_cont(0.5) WITHIN GROUP (ORDER BY processor)::numeric AS processor, string_agg(round(seconds, 2)::text, ' ' ORDER BY round) AS figures
  FROM raw GROUP BY job, way)
SELECT m.job, m.way, round(m.seconds, 2) AS "median s", round(m.seconds / s.seconds, 2) AS "of set-based", round(m.processor, 2) AS "processor s",
       round(m.processor / s.processor, 2) AS "of set-based's", m.figures AS "each run, s"
FROM m JOIN m s ON s.job = m.job AND s.way = 'set' ORDER BY m.job, array_position(ARRAY['set', 'engine', 'committing', 'dry_run', 'loop', 'client'], m.way);
SQL
} | psql -d postgres
