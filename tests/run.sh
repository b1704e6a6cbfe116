#!/bin/bash
# Installs what is needed, builds everything, and runs all tests. The last line is "N passed, N failed[, N skipped]".
#   tests/run.sh              every test program and script
#   tests/run.sh --sanitize   the test programs in a second build with AddressSanitizer and UBSan
#   tests/run.sh --isa        and once more the kernel and integer tests with every instruction set this CPU has
#   tests/run.sh --fuzz       and the parsers with damaged files, FUZZ_SECONDS (60) long each, under the sanitizers: at random, and
#                             guided by coverage (clang's libFuzzer); integer models with FUZZ_FLIPS (1,000,000) changed bytes
set -uo pipefail
shopt -s nullglob
cd "$(dirname "$0")/.."

sanitize='' isa='' fuzz=''
for argument in "$@"; do
  case $argument in
    --sanitize) sanitize=yes ;;
    --isa) isa=yes ;;
    --fuzz) fuzz=yes ;;
    -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "error: run.sh: unknown option $argument, expected --sanitize, --isa or --fuzz" >&2; exit 1 ;;
  esac
done

passed=0 failed=0
skipped=()
log=$(mktemp)
trap 'rm -f "$log"' EXIT

finish() {
  local reason summary
  for reason in "${skipped[@]+"${skipped[@]}"}"; do echo "skipped: $reason"; done
  summary="$((passed - ${#skipped[@]})) passed, $failed failed"
  [ ${#skipped[@]} -eq 0 ] || summary+=", ${#skipped[@]} skipped"
  echo "$summary"
  [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
  exit
}

# prepare NAME COMMAND...: a step without which nothing can be tested.
prepare() {
  local name=$1 began=$SECONDS
  shift
  if ! "$@" >"$log" 2>&1 </dev/null; then
    cat "$log"
    echo "FAILED $name: $*"
    failed=$((failed + 1))
    finish
  fi
  printf '%-44s %4d s\n' "$name" $((SECONDS - began))
}

build() {  # build FOLDER TARGET [SETUP OPTION...]
  [ -f "$1/build.ninja" ] || prepare "configure $1" meson setup "$1" "${@:3}"
  prepare "build $1" ninja -C "$1" $2
}

# run NAME COMMAND...: runs a doctest program, or a script that prints "ok CASE" or "FAILED CASE" lines. Output is
# shown in full when something failed.
run() {
  local name=$1 began=$SECONDS code=0 good bad reason
  shift
  "$@" >"$log" 2>&1 </dev/null || code=$?
  if grep -q '^\[doctest\] test cases:' "$log"; then
    read -r good bad < <(sed -nE 's/^\[doctest\] test cases: .*[| ]([0-9]+) passed \| +([0-9]+) failed.*/\1 \2/p' "$log" | tail -1)
  else
    good=$(grep -c '^ok ' "$log")
    bad=$(grep -c '^FAILED ' "$log")
  fi
  # a crash, a sanitizer's finding, or nothing that was run
  if [ "$bad" -eq 0 ] && { [ "$code" -ne 0 ] || [ "$good" -eq 0 ]; }; then bad=1; fi
  passed=$((passed + good)) failed=$((failed + bad))
  while IFS= read -r reason; do skipped+=("$name: $reason"); done < <(sed -n 's/^SKIPPED: //p' "$log")
  [ "$bad" -eq 0 ] || { cat "$log"; echo "FAILED $name: exit code $code of: $*"; }
  printf '%-30s %4d passed %3d failed %4d s\n' "$name" "$good" "$bad" $((SECONDS - began))
}

run_programs() {  # run_programs BUILD_FOLDER
  local program
  for program in "$1"/tests/*/test_*; do
    if [ -f "$program" ] && [ -x "$program" ]; then run "$(basename "$program")${2:-}" "$program"; fi
  done
}

prepare install third_party/install.sh --tests ${fuzz:+--fuzz}

if [ -n "$sanitize$fuzz" ]; then
  sanitized='tests/fuzz/fuzz_formats tests/fuzz/fuzz_integer'
  [ -z "$sanitize" ] || sanitized=all
  build build-sanitize "$sanitized" -Dbuildtype=debug -Doptimization=1 -Db_sanitize=address,undefined -Db_lundef=false
  export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
fi
if [ -n "$sanitize" ]; then
  run_programs build-sanitize ' (sanitized)'
fi
if [ -n "$fuzz" ]; then
  inputs() { sed -nE 's/^.*MESSAGE: (.* damaged files, .*)/  \1/p; s/^ok (.* inputs)$/  \1/p' "$log"; }
  for program in build-sanitize/tests/fuzz/fuzz_*; do
    if [ -f "$program" ] && [ -x "$program" ]; then run "$(basename "$program")" "$program"; inputs; fi
  done
  run guided_fuzzing tests/fuzz/guided.sh
  inputs
fi
if [ -z "$sanitize$fuzz" ]; then
  build build all
  run_programs build
  for script in tests/*/*_test.{sh,py}; do run "$(basename "${script%.*}")" "$script" build; done
fi
if [ -n "$isa" ]; then
  [ -f build/build.ninja ] || build build all
  for setting in ONEDNN_MAX_CPU_ISA={AVX512_CORE_VNNI,AVX512_CORE,AVX2} STAIRGRAD_MAX_ISA={avx512,avx2,baseline}; do
    run "kernels, $setting" env "$setting" build/tests/kernels/test_kernels
    run "integer, $setting" env "$setting" build/tests/quant/test_quant -sf='*integer*,*lower*'
  done
fi
finish
