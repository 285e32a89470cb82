#!/usr/bin/env bash
# Every proof of the project, one part after the other; a part that fails does not stop the next.
# The last line is "N passed, N failed"; the exit status is 0 only when something ran and nothing failed.
#
#   tools/test.sh            all parts
#   tools/test.sh PART…      some: setup lint core build sql client
#
# MEDIA_ASSETS_TEST_MAJORS="15 16": only these majors. The output of each step is in target/test/.
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

server_name=test
read -r -a test_majors <<<"${MEDIA_ASSETS_TEST_MAJORS:-${majors[*]}}"
logs=$target/test
mkdir -p "$logs"

passed=0
failed=0
broken=()

count() { # STEP PASSED FAILED SECONDS
  passed=$((passed + $2))
  failed=$((failed + $3))
  [ "$3" = 0 ] || broken+=("$1")
  printf -- '--- %-28s %5d passed %3d failed  %4ds\n' "$1" "$2" "$3" "$4"
}

# run STEP COUNTER COMMAND…: runs it, shows its output, and counts by the function COUNTER, which reads the log and
# prints "passed failed". A command that fails without a failure counted is one failure.
run() {
  local step=$1 counter=$2 log status=0 began=$SECONDS good bad
  log=$logs/${step//[^a-z0-9]/-}.log
  shift 2
  printf '=== %s\n' "$step"
  "$@" 2>&1 | tee "$log" | filter_"$counter" || status=${PIPESTATUS[0]}
  read -r good bad < <(count_"$counter" "$log" "$status")
  if [ "$status" != 0 ] && [ "$bad" = 0 ]; then bad=1; fi
  count "$step" "$good" "$bad" $((SECONDS - began))
  return "$status"
}

# One thing that holds or not: a lint, a build.
filter_whole() { cat; }
count_whole() { if [ "$2" = 0 ]; then echo 1 0; else echo 0 1; fi; }

filter_cargo() { cat; }
count_cargo() {
  awk '/^test result: /{for (i = 2; i <= NF; i++) {if ($i == "passed;") p += $(i-1); if ($i == "failed;") f += $(i-1)}}
       END{print p + 0, f + 0}' "$1"
}

# pg_prove -v prints every assertion: the log has them, the screen gets what did not hold and the summary.
filter_tap() { grep -Ev '^( *ok |1\.\.[0-9])' || true; }
count_tap() {
  # A file that ends in the middle has no "not ok": it counts as one failure.
  awk '/^ok [0-9]/{p++} /^not ok [0-9]/{if ($0 ~ /# TODO/) p++; else f++}
       /\(Wstat: [1-9].*Failed: 0\)/{f++} END{print p + 0, f + 0}' "$1"
}

# --- the parts -----------------------------------------------------------------------------------------------------

part_setup() { run setup whole tools/setup.sh; }

clippy_major() { # MAJOR
  cargo clippy --quiet -p media_assets --all-targets --no-default-features --features "pg$1" -- -D warnings
}

# No headers of these majors here: the bindings that pgrx brings do for a check.
check_major() { # MAJOR
  DOCS_RS=1 RUSTC_WRAPPER=$root/tools/rustc-bundled-bindings.sh CARGO_TARGET_DIR=$target/check \
    cargo check --quiet -p media_assets --no-default-features --features "pg$1"
}

part_lint() {
  local major
  tools/server.sh env >/dev/null || true
  run 'format' whole cargo fmt --all -- --check || true
  run 'clippy core' whole cargo clippy --quiet -p media-assets-core --all-targets -- -D warnings || true
  run 'clippy tests' whole cargo clippy --quiet -p media-assets-tests --all-targets -- -D warnings || true
  run 'clippy client' whole cargo clippy --quiet -p media-assets -p media-assets-scanner --all-targets -- -D warnings || true
  run 'clippy extension' whole clippy_major 15 || true
  for major in 13 14 17; do run "compiles for $major" whole check_major "$major" || true; done
}

part_core() { run 'core' cargo cargo test --quiet -p media-assets-core -p media-assets-scanner || true; }

up() { # MAJOR: the server that the SQL and client parts use
  # The tiny job proves that the engine knows no lessons; releases do not have it.
  if grep -q '^tiny_job' Cargo.toml; then export MEDIA_ASSETS_FEATURES=tiny_job; fi
  tools/server.sh up "$1" "$server_name"
}

built=
part_build() {
  local major
  for major in "${test_majors[@]}"; do run "server $major" whole up "$major" || true; done
  built=yes
}

# Steps run where bash ignores `set -e`: each command that must not fail says so.
pg_prove_on() { # MAJOR
  local database=media_assets_sql bin dsn port
  bin=$(tools/server.sh bindir "$1" "$server_name") || return
  dsn=$(tools/server.sh dsn "$1" "$server_name") || return
  port=${dsn#*port=}
  "$bin/psql" "$dsn" -Xq -v ON_ERROR_STOP=1 -c 'SET client_min_messages = warning' \
    -c "DROP DATABASE IF EXISTS $database" -c "CREATE DATABASE $database" || return
  "$bin/psql" "$dsn dbname=$database" -Xq -v ON_ERROR_STOP=1 -c 'CREATE EXTENSION pgtap' -c 'CREATE EXTENSION media_assets' || return
  pg_prove --verbose --ext .sql --recurse --psql-bin "$bin/psql" \
    --host 127.0.0.1 --port "${port%% *}" --username postgres --dbname "$database" pg_test
}

part_sql() {
  local major
  [ -n "$built" ] || part_build
  for major in "${test_majors[@]}"; do run "sql on $major" tap pg_prove_on "$major" || true; done
}

client_tests() {
  local major dsn bin
  for major in "${test_majors[@]}"; do
    dsn=$(tools/server.sh dsn "$major" "$server_name") || return
    bin=$(tools/server.sh bindir "$major" "$server_name") || return
    export "MEDIA_ASSETS_PG${major}_DSN=$dsn" "MEDIA_ASSETS_PG${major}_BINDIR=$bin"
  done
  cargo test --quiet --no-fail-fast -p media-assets-tests -p media-assets
}

part_client() {
  [ -n "$built" ] || part_build
  run 'client' cargo client_tests || true
}

stop_servers() {
  local major
  for major in "${test_majors[@]}"; do tools/server.sh down "$major" "$server_name" >/dev/null 2>&1 || true; done
}

parts=("$@")
if [ ${#parts[@]} = 0 ]; then parts=(setup lint core build sql client); fi
trap stop_servers EXIT
for part in "${parts[@]}"; do
  declare -F "part_$part" >/dev/null || die "no such part: $part"
done
for part in "${parts[@]}"; do part_"$part" || true; done

echo
if [ ${#broken[@]} != 0 ]; then printf 'failed: %s\n' "${broken[@]}"; fi
printf 'took %d min %02d s\n' $((SECONDS / 60)) $((SECONDS % 60))
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
