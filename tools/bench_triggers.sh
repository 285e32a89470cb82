#!/usr/bin/env bash
# Measures what the lesson triggers cost in statements of many rows.
#
#   LESSONS=100000 ROUNDS=3 tools/bench_triggers.sh
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=tools/bench_lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/bench_lib.sh"
cd "$root"

mkdir -p "$target/bench"
bench_server 2GB 16GB

say "lesson triggers: ${LESSONS:-100000} lessons in one statement, ${ROUNDS:-3} rounds"
psql -d postgres -c 'DROP DATABASE IF EXISTS run_triggers' -c 'CREATE DATABASE run_triggers'
psql -d run_triggers -c 'CREATE EXTENSION media_assets'
"$bin/psql" -Xq -v ON_ERROR_STOP=1 -d run_triggers -v lessons="${LESSONS:-100000}" -v items=3 -v rounds="${ROUNDS:-3}" \
  -v script="$target/bench/triggers.rounds" -f bench/triggers.sql
psql -d postgres -c 'DROP DATABASE run_triggers'
