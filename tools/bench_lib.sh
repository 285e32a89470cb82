# What the benchmarks share; sourced after lib.sh.
# shellcheck shell=bash disable=SC2034

# bench_server BUFFERS WAL: a server that is durable as in production, and in which no checkpoint, vacuum or page image falls
# into one run and not into another. Sets $dsn and $bin, and what psql needs.
bench_server() {
  export MEDIA_ASSETS_SETTINGS="fsync = on
full_page_writes = off
autovacuum = off
jit = off
shared_buffers = $1
max_wal_size = $2
checkpoint_timeout = 1d"
  dsn=$(tools/server.sh up 15 bench)
  bin=$(tools/server.sh bindir 15 bench)
  local port=${dsn#*port=}
  export PGHOST=127.0.0.1 PGPORT=${port%% *} PGUSER=postgres PGOPTIONS='-c client_min_messages=warning -c media_assets.progress=off'
}

psql() { "$bin/psql" -XqAt -v ON_ERROR_STOP=1 "$@"; }
copy_database() { psql -d postgres -c "DROP DATABASE IF EXISTS $2" -c "CREATE DATABASE $2 TEMPLATE $1" -c CHECKPOINT; }
