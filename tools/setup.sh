#!/usr/bin/env bash
# Installs what building and testing needs on a fresh Debian 12: PostgreSQL 15 with headers and pgTAP, libclang,
# cargo-pgrx. Does nothing where all is there. Needs a Rust toolchain, and root when a package is missing.
# shellcheck source=tools/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

packages=(
  build-essential ca-certificates pkg-config libclang-dev libssl-dev
  postgresql-15 postgresql-client-15 postgresql-server-dev-15
  postgresql-15-pgtap libtap-parser-sourcehandler-pgtap-perl
)
command -v python3 >/dev/null || packages+=(python3)
python3 -m pip --version >/dev/null 2>&1 || packages+=(python3-pip)
command -v unzip >/dev/null || packages+=(unzip)

missing_packages() {
  local package
  for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || printf '%s\n' "$package"
  done
}

# An apt-get run that was interrupted leaves dpkg half-way: repair, then try again.
install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  local attempt
  for attempt in 1 2 3; do
    # What is still missing after a repair; a list, so no quotes.
    # shellcheck disable=SC2046
    if apt-get -qq update && apt-get -qq install -y --no-install-recommends $(missing_packages); then return 0; fi
    say "apt-get failed (attempt $attempt of 3): repairing"
    dpkg --configure -a || true
    apt-get -qq install -y --fix-broken || true
    [ -n "$(missing_packages)" ] || return 0
  done
  return 1
}

# The server package would start a cluster of its own; nothing here needs one. A file that is there is left as it is.
no_system_cluster() {
  local conf=/etc/postgresql-common/createcluster.conf
  if [ ! -e "$conf" ]; then
    mkdir -p "$(dirname "$conf")"
    printf 'create_main_cluster = false\n' >"$conf"
  fi
}

if [ -n "$(missing_packages)" ]; then
  say "installing packages: $(missing_packages | tr '\n' ' ')"
  [ "$(id -u)" = 0 ] || die "packages are missing; run tools/setup.sh as root, or: apt-get install $(missing_packages | tr '\n' ' ')"
  no_system_cluster
  install_packages >&2 || die "apt-get could not install: $(missing_packages | tr '\n' ' ')"
fi

have_pgrx() { [ "$(cargo pgrx --version 2>/dev/null)" = "cargo-pgrx $pgrx_version" ]; }

if ! have_pgrx; then
  say "installing cargo-pgrx $pgrx_version (a few minutes)"
  # Another version that somebody works with stays: ours goes into the clone then.
  where=()
  if cargo pgrx --version >/dev/null 2>&1; then where=(--root "$target/tools"); fi
  cargo install cargo-pgrx --version "$pgrx_version" --locked --quiet "${where[@]}"
  have_pgrx || die "cargo pgrx --version does not say $pgrx_version"
fi
