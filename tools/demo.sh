#!/usr/bin/env bash
# The main job on a sample school, in three acts, in database media_assets_demo on a throw-away server: dry run, execution
# and verification (demo/*.sql); then a committing run that is watched, killed, resumed and taken back
# (demo/second_act/*.sql); at last a small media tree, made on the spot, is ingested, changed and ingested again
# (demo/ingest/*.sql).
#
#   tools/demo.sh          show it
#   tools/demo.sh clean    remove what it left
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

major=15 name=demo database=media_assets_demo

if [ "${1:-}" = clean ]; then
  tools/server.sh remove "$major" "$name"
  say "the demo's server and its database are gone"
  exit
fi

tools/setup.sh
dsn=$(tools/server.sh up "$major" "$name")
psql=$(tools/server.sh bindir "$major" "$name")/psql

"$psql" "$dsn" -Xq -v ON_ERROR_STOP=1 -c "SET client_min_messages = warning" \
  -c "DROP DATABASE IF EXISTS $database WITH (FORCE)" -c "CREATE DATABASE $database"
dsn=${dsn/dbname=postgres/dbname=$database}
export PGOPTIONS='-c timezone=UTC' PGCLIENTENCODING=UTF8 PAGER=''

# One session for the files, read from standard input: messages come without file names and line numbers.
session() { # FILE…
  cat demo/session.sql "$@" | "$psql" "$dsn" -Xq 2>&1 || die "the demo did not come to its end"
}

session demo/[0-9]*.sql demo/second_act/10_*.sql demo/second_act/20_*.sql

"$psql" "$dsn" -Xq -v ON_ERROR_STOP=1 -c "SET media_assets.batch_pause = '100ms'" \
  -c "CALL run_backfill('lesson_assets', batch => 50, execute => true)" >/dev/null 2>&1 &
run=$!
trap 'kill "$run" 2>/dev/null || true' EXIT
session demo/second_act/30_*.sql

backend=$("$psql" "$dsn" -XqAt -c "SELECT pid FROM backfill_progress WHERE workers > 0")
[ -n "$backend" ] || die "nobody works on the run"
as_server_user kill -9 "$backend"
wait "$run" || true
# The server starts anew by itself.
for _ in $(seq 100); do
  "$psql" "$dsn" -Xqc "SELECT" >/dev/null 2>&1 && break
  sleep 0.1
done
session demo/second_act/[4-9]*.sql

# Files of the server: where it, whoever it runs as, can read them.
tree=$(mktemp -d)
trap 'kill "$run" 2>/dev/null || true; rm -rf "$tree"' EXIT
chmod 755 "$tree"
mkdir -p "$tree/Show/Season 01"
for episode in 1 2 3 4; do echo "episode $episode" >"$tree/Show/Season 01/Show - S01E0$episode.mkv"; done
touch -d 2025-01-01T00:00:00Z "$tree/Show/Season 01/"*
session <(printf "\\set tree '%s'\n" "$tree") demo/ingest/10_*.sql
echo "another cut of episode 1" >"$tree/Show/Season 01/Show - S01E01.mkv"
mv "$tree/Show/Season 01/Show - S01E03.mkv" "$tree/Show/Season 01/Show - S01E03 - Title.mkv"
rm "$tree/Show/Season 01/Show - S01E04.mkv"
session <(printf "\\set tree '%s'\n" "$tree") demo/ingest/20_*.sql

cat <<END
Left behind to look around in: a private PostgreSQL $major server with database $database.
    tools/server.sh psql $major $name -- -d $database
    make demo-clean       stops it and removes it with all its files
    make clean            removes what was built for it, too
END
