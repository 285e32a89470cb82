#!/usr/bin/env bash
# As cargo's RUSTC_WRAPPER: lets pgrx-pg-sys take the bindings that come with it, as its documentation build does,
# so that the code can be checked for majors of PostgreSQL whose headers are not here. Such a build is never run.
set -euo pipefail
case " $* " in
  *' --crate-name pgrx_pg_sys '*) exec "$@" --cfg docsrs ;;
  *) exec "$@" ;;
esac
