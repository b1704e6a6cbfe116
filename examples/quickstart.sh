#!/bin/bash
# From a fresh clone to a quantized network: installs what is needed, builds, and runs the quickstart.
# All options go to the program; --help shows them.
#   examples/quickstart.sh [--out DIR] [--wbits 4] [--abits 4] ...
set -euo pipefail
cd "$(dirname "$0")/.."
here=$OLDPWD

phase() {  # phase NAME COMMAND...: runs it quietly; shows its output if it fails
  local name=$1 log began=$SECONDS
  shift
  log=$(mktemp)
  printf '%-10s' "$name"
  if ! "$@" >"$log" 2>&1 </dev/null; then
    echo "failed: $*"
    cat "$log" >&2
    rm -f "$log"
    exit 1
  fi
  rm -f "$log"
  echo "done, $((SECONDS - began)) s"
}

phase install third_party/install.sh
[ -f build/build.ninja ] || phase configure meson setup build
phase build ninja -C build examples/quickstart
root=$PWD
cd "$here"
exec "$root/build/examples/quickstart" "$@"
