#!/usr/bin/env bash
# Measures the main job against the physical limit and against other ways of doing it; prints medians and ratios.
#
#   LESSONS=30000 ROUNDS=5 tools/bench.sh
#
# Every measured run starts in a fresh copy of the same database; the ways take turns. Raw figures: target/bench/.
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=tools/bench_lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/bench_lib.sh"
cd "$root"

lessons=${LESSONS:-30000}
rounds=${ROUNDS:-$((lessons > 100000 ? 3 : 5))}
client_lessons=$((lessons > 30000 ? 3000 : lessons / 10))
small=$((lessons / 10))
work=$target/bench
raw=$work/raw.csv
mkdir -p "$work"
: >"$raw"
: >"$work/messages"

tools/setup.sh
bench_server 4GB 32GB

drop_database() { psql -d postgres -c "DROP DATABASE IF EXISTS $1"; }
record() { printf '%s,%s,%s,%s,%s\n' "$1" "$2" "$3" "${4:-}" "${5:-}" >>"$raw"; } # WAY ROUND VALUE [WAL [PROCESSOR SECONDS]]

# measure WAY ROUND DATABASE FILE [PSQL ARGUMENTS…]: seconds, bytes of WAL and processor seconds of a script of SQL.
measure() {
  local result
  result=$(psql -d "$3" -v file="$4" "${@:5}" 2>>"$work/messages" <<'SQL'
-- The kernel counts a process's time in hundredths of a second.
CREATE FUNCTION pg_temp.processor() RETURNS numeric LANGUAGE sql AS $$
  SELECT (split_part(stat, ' ', 14)::numeric + split_part(stat, ' ', 15)::numeric) / 100 FROM pg_read_file('/proc/self/stat') stat
$$;
SELECT asset_key_version() \g /dev/null
SELECT clock_timestamp() AS began, pg_current_wal_insert_lsn() AS wal, pg_temp.processor() AS processor \gset
\o /dev/null
\i :file
\o
SELECT round(extract(epoch FROM clock_timestamp() - :'began'), 4) || ',' || pg_current_wal_insert_lsn() - :'wal' || ',' || pg_temp.processor() - :processor;
SQL
  )
  printf '%s,%s,%s\n' "$1" "$2" "$result" >>"$raw"
  say "  round $2  $(printf '%-14s' "$1") ${result%%,*} s"
}

# memory WAY DATABASE FILE: how far the server process grows beyond its start, in kB (private memory, seen every 20 ms).
memory() {
  local pid_file=$work/pid pid kb start='' peak=0
  rm -f "$pid_file"
  psql -d "$2" -v file="$3" -v pid_file="$pid_file" >/dev/null <<'SQL' &
SELECT asset_key_version() \g /dev/null
SELECT pg_backend_pid() \g :pid_file
SELECT pg_sleep(0.5);
\i :file
SQL
  until [ -s "$pid_file" ]; do sleep 0.02; done
  pid=$(cat "$pid_file")
  while kb=$(awk '/^RssAnon:/{print $2}' "/proc/$pid/status" 2>/dev/null) && [ -n "$kb" ]; do
    start=${start:-$kb}
    if [ "$kb" -gt "$peak" ]; then peak=$kb; fi
    sleep 0.02
  done
  wait
  record "$1" 1 $((peak - start))
}

# workers ROUND DATABASE: seconds of a run that two sessions share from its start.
workers() {
  local began=$EPOCHREALTIME
  psql -d "$2" -f bench/committing.sql >/dev/null 2>>"$work/messages" &
  psql -d "$2" >/dev/null 2>>"$work/messages" <<'SQL'
DO $$
BEGIN
  WHILE NOT EXISTS (SELECT FROM backfill_runs) LOOP COMMIT; PERFORM pg_sleep(0.005); END LOOP;
END $$;
CALL join_backfill(1);
SQL
  wait
  record two_workers "$1" "$(awk "BEGIN{print $EPOCHREALTIME - $began}")"
  say "  round $1  two_workers    $(tail -1 "$raw" | cut -d, -f3) s"
}

# --- start states ------------------------------------------------------------------------------------------------

make_start() { # LESSONS SUFFIX
  say "generating $1 lessons"
  drop_database "raw$2"
  psql -d postgres -c "CREATE DATABASE raw$2"
  psql -d "raw$2" -v lessons="$1" -f bench/schema.sql >/dev/null
  # Reading once sets the hint bits, which is all that analysing would change besides statistics.
  psql -d "raw$2" -c 'SELECT count(*) FROM lesson' >/dev/null
  copy_database "raw$2" "start$2"
  psql -d "start$2" -c 'VACUUM ANALYZE'
}

make_start "$lessons" ''
make_start "$small" _small
copy_database start start_refused
psql -d start_refused -f bench/refuse_lessons.sql
copy_database start start_final
psql -d start_final -f bench/execute.sql -f bench/final_rows.sql >"$work/rows"
# The lessons of the limit are a copy of the same start, not what an execution left.
drop_database start_limit
copy_database start start_limit
"$bin/pg_dump" -d start_final -n final | psql -d start_limit >/dev/null
psql -d start_limit -c 'ANALYZE'
drop_database start_final

say "building the client"
(cd bench/client && cargo build --release --quiet --target-dir "$target/bench-client")
client=$target/bench-client/release/lesson-by-lesson

# --- the ways, in turns -------------------------------------------------------------------------------------------

for round in $(seq "$rounds"); do
  copy_database start_limit run
  measure limit "$round" run bench/physical_limit.sql

  copy_database start run
  measure dry_run "$round" run bench/dry_run.sql
  measure execute "$round" run bench/execute.sql
  psql -d run -c VACUUM -c CHECKPOINT
  measure rerun "$round" run bench/execute.sql
  # The first run that skips settled lessons writes down how each is left, the second passes over all.
  psql -d run -f bench/settled.sql >/dev/null
  psql -d run -c VACUUM -c CHECKPOINT
  measure settled "$round" run bench/settled.sql

  copy_database start run
  measure bare "$round" run bench/execute_bare.sql

  copy_database start run
  measure committing "$round" run bench/committing.sql

  copy_database start run
  workers "$round" run

  copy_database start_refused run
  measure refused "$round" run bench/execute.sql

  copy_database raw run
  measure unanalysed "$round" run bench/execute.sql

  copy_database start_small run
  measure small "$round" run bench/execute.sql

  # Both take minutes, and neither is near a goal's edge: three turns do, and one of the row loop where it is long.
  if [ "$round" = 1 ] || { [ "$round" -le 3 ] && [ "$lessons" -le 30000 ]; }; then
    copy_database start run
    measure row_loop "$round" run bench/row_loop.sql
  fi
  if [ "$round" -le 3 ]; then
    copy_database start run
    seconds=$("$client" "host=127.0.0.1 port=$PGPORT user=postgres dbname=run" "$client_lessons")
    record client "$round" "$(awk "BEGIN{print $seconds * $lessons / $client_lessons}")"
    say "  round $round  client         $seconds s for $client_lessons lessons"
  fi
done

# --- once ---------------------------------------------------------------------------------------------------------

say "memory, buffers, keys"
copy_database start run
memory dry_memory run bench/dry_run.sql
memory execute_memory run bench/execute.sql

# A hundred batches, one after the other: the blocks that the first, the tenth and the last touched.
copy_database start run
psql -d run -v batch=$((lessons / 100)) -f bench/batch_buffers.sql | while IFS='|' read -r number buffers; do
  record "batch_$number" 1 "$buffers"
done

psql -d run -f bench/key_arguments.sql
for round in $(seq "$rounds"); do
  for form in upload youtube generic; do measure "keys_$form" "$round" run bench/keys.sql -v form="$form"; done
done
drop_database run

# --- medians and ratios ---------------------------------------------------------------------------------------------

printf '\n%s lessons, %s; medians of %s rounds\n\n' "$lessons" "$(cat "$work/rows" | tr '|' ' ' | awk '{print $1 " assets, " $2 " usages, " $3 " errors"}')" "$rounds"
{
  echo 'CREATE TEMPORARY TABLE raw (way text, round int, value numeric, wal numeric, processor numeric);'
  echo 'COPY raw FROM STDIN CSV;'
  cat "$raw"
  echo '\.'
  cat bench/report.sql
} | psql -d postgres -v lessons="$lessons" -v small="$small"
