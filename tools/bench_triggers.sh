#!/usr/bin/env bash
# Measures what the lesson triggers cost in statements of many rows.
#
#   LESSONS=100000 ROUNDS=3 tools/bench_triggers.sh
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

mkdir -p "$target/bench"
export MEDIA_ASSETS_SETTINGS='fsync = on
full_page_writes = off
autovacuum = off
jit = off
shared_buffers = 2GB
max_wal_size = 16GB
checkpoint_timeout = 1d'
dsn=$(tools/server.sh up 15 bench)
bin=$(tools/server.sh bindir 15 bench)
psql() { "$bin/psql" -Xq -v ON_ERROR_STOP=1 "$@"; }
in_postgres() { psql "$dsn" "$@"; }

say "lesson triggers: ${LESSONS:-100000} lessons in one statement, ${ROUNDS:-3} rounds"
in_postgres -c 'DROP DATABASE IF EXISTS run_triggers' -c 'CREATE DATABASE run_triggers'
own=${dsn/dbname=postgres/dbname=run_triggers}
psql "$own" -c 'CREATE EXTENSION media_assets'
psql "$own" -v lessons="${LESSONS:-100000}" -v items=3 -v rounds="${ROUNDS:-3}" -v script="$target/bench/triggers.rounds" -f bench/triggers.sql
in_postgres -c 'DROP DATABASE run_triggers'
