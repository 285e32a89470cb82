#!/usr/bin/env bash
# The tests that break runs off at random moments, or let sessions meet by chance, for as many rounds as asked.
#
#   tools/soak.sh [TEST…]      resume, workers, quarantine and jellyfin_client, or some of them
#
# MEDIA_ASSETS_SOAK: rounds of each, 200 by default. MEDIA_ASSETS_SOAK_JELLYFIN: rows to publish through a server with faults,
# 10000 by default; MEDIA_ASSETS_SOAK_SEED: other faults. MAJOR: PostgreSQL 15 (default), 16 or 18.
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

major=${MAJOR:-15}
server=soak
export MEDIA_ASSETS_SOAK=${MEDIA_ASSETS_SOAK:-200} MEDIA_ASSETS_SOAK_JELLYFIN=${MEDIA_ASSETS_SOAK_JELLYFIN:-10000}
tests=("$@")
if [ ${#tests[@]} = 0 ]; then tests=(resume workers quarantine jellyfin_client); fi

cd "$root"
trap 'tools/server.sh down "$major" "$server" >/dev/null 2>&1 || true' EXIT
dsn=$(tools/server.sh up "$major" "$server")
bin=$(tools/server.sh bindir "$major" "$server")
export "MEDIA_ASSETS_PG${major}_DSN=$dsn" "MEDIA_ASSETS_PG${major}_BINDIR=$bin"
# One after the other: a test that another one slows down strikes at other moments than it means to.
cargo test --quiet -p media-assets-tests "${tests[@]/#/--test=}" -- --nocapture --test-threads 1
