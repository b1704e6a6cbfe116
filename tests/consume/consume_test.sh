#!/bin/bash
# Installs the library to a folder of its own and builds the programs of examples/embed with it in every way a user may
# choose. Prints a line a case.   usage: consume_test.sh BUILD_FOLDER
set -uo pipefail
source_root=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
expected='y = 36, curvature = 6 12 18'

# verify NAME COMMAND: builds in the copy of examples/embed/NAME and compares what ./embed says.
verify() {
  local name=$1 command=$2 said
  if said=$(cd "$work/embed/$name" && bash -ec "$command" 2>&1) && [ "$(tail -1 <<<"$said")" = "$expected" ]; then
    echo "ok examples/embed/$name builds and runs"
  else
    printf '%s\nFAILED examples/embed/%s, expected the last line "%s"\n' "$said" "$name" "$expected"
  fi
}

cp -r "$source_root/examples/embed" "$work"
if ! said=$(DESTDIR=$work/installed meson install --no-rebuild -C "$build" 2>&1); then
  printf '%s\nFAILED the library installs\n' "$said"
  exit 1
fi
echo "ok the library installs"
PKG_CONFIG_PATH=$(dirname "$(find "$work/installed" -name stairgrad.pc)")
export PKG_CONFIG_PATH
include=$(find "$work/installed" -path '*/stairgrad/stairgrad.h' -printf '%h\n')

verify pkgconfig 'make -s && ./embed'
if command -v cmake >/dev/null; then
  verify cmake "cmake -B build -Dstairgrad_DIR='${PKG_CONFIG_PATH%/pkgconfig}/cmake/stairgrad' && cmake --build build && build/embed"
else
  echo "ok examples/embed/cmake"
  echo "SKIPPED: CMake is not installed (third_party/install.sh --tests)"
fi
mkdir "$work/embed/meson/subprojects"
ln -s "$source_root" "$work/embed/meson/subprojects/stairgrad"
verify meson 'unset PKG_CONFIG_PATH; meson setup build -Doptimization=0 && ninja -C build && build/embed'

# Every public header stands alone and shows nobody else's types.
alone=$(cd "$include" && find . -name '*.h' -print0 |
  xargs -0 -P 2 -I{} "${CXX:-c++}" -std=c++20 -ffp-contract=off -Wall -Wextra -fsyntax-only -include {} -x c++ /dev/null 2>&1)
if [ -z "$alone" ]; then
  echo "ok every public header compiles alone"
else
  printf '%s\nFAILED every public header compiles alone\n' "$alone"
fi
