#!/usr/bin/env bash
# The main job on a sample school, act by act (demo/*.sql), in database media_assets_demo on a throw-away server.
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
  -c "DROP DATABASE IF EXISTS $database" -c "CREATE DATABASE $database"

# One session for all acts, read from standard input: messages come without file names and line numbers.
dsn=${dsn/dbname=postgres/dbname=$database}
cat demo/[0-9]*.sql | PGOPTIONS='-c timezone=UTC' PGCLIENTENCODING=UTF8 PAGER='' "$psql" "$dsn" -Xq 2>&1 ||
  die "the demo did not come to its end"

cat <<END
Left behind to look around in: a private PostgreSQL $major server with database $database.
    tools/server.sh psql $major $name -- -d $database
    make demo-clean       stops it and removes it with all its files
    make clean            removes what was built for it, too
END
