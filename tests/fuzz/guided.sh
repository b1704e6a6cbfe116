#!/bin/bash
# Builds the parsers with clang, libFuzzer, AddressSanitizer and UBSan, and lets each eat FUZZ_SECONDS (60) of what
# libFuzzer makes of tests/fuzz/corpus. Prints "ok PARSER" or "FAILED PARSER" lines. A file that breaks a parser is kept
# in build-fuzz/found/; put it into the corpus, which the ordinary tests replay.
set -uo pipefail
cd "$(dirname "$0")/../.."
if ! command -v clang++ >/dev/null; then
  echo "ok guided fuzzing"
  echo "SKIPPED: guided fuzzing needs clang++ (Debian package clang)"
  exit 0
fi
if [ ! -f build-fuzz/build.ninja ]; then
  CXX=clang++ meson setup build-fuzz -Dbuildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false \
    -Dcpp_args=-fsanitize=fuzzer-no-link >/dev/null || exit 1
fi
ninja -C build-fuzz guided >/dev/null || { echo "FAILED to build the guided fuzzers"; exit 1; }
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
mkdir -p build-fuzz/found
log=$(mktemp)
trap 'rm -f "$log"' EXIT
code=0
for corpus in tests/fuzz/corpus/*; do
  name=$(basename "$corpus")
  mkdir -p "build-fuzz/corpus/$name"
  if "build-fuzz/tests/fuzz/guided_$name" -max_total_time="${FUZZ_SECONDS:-60}" -timeout=10 -rss_limit_mb=2048 -max_len=65536 \
      -artifact_prefix="build-fuzz/found/$name-" "build-fuzz/corpus/$name" "$corpus" >"$log" 2>&1; then
    echo "ok $name: $(sed -n 's/^Done \([0-9]*\) runs.*/\1 inputs/p' "$log")"
  else
    tail -40 "$log"
    echo "FAILED $name"
    code=1
  fi
done
exit $code
