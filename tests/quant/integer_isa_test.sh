#!/bin/bash
# The same codes on every instruction set, by our own loops and by oneDNN, with one thread and two.
#   integer_isa_test.sh BUILD
set -uo pipefail
codes=$(cd "$1" && pwd)/tests/quant/integer_codes
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/first" "$work/other"
"$codes" "$work/first" || { echo "FAILED a run to compare with"; exit 1; }

# same NAME SETTING...: a run with these settings ends in the same bytes.
same() {
  local name=$1
  shift
  if env "$@" "$codes" "$work/other" && cmp "$work/first/run.safetensors" "$work/other/run.safetensors"; then
    echo "ok $name"
  else
    echo "FAILED $name"
  fi
}

for threads in 1 2; do
  for isa in avx512_vnni avx512 avx2 baseline; do
    same "own loops, $isa, $threads threads" OMP_NUM_THREADS=$threads STAIRGRAD_INTEGER_CONV=own STAIRGRAD_MAX_ISA=$isa
  done
  for isa in ALL AVX512_CORE_VNNI AVX512_CORE AVX2; do
    same "oneDNN, $isa, $threads threads" OMP_NUM_THREADS=$threads STAIRGRAD_INTEGER_CONV=onednn ONEDNN_MAX_CPU_ISA=$isa
  done
done
same 'plain loops' STAIRGRAD_INTEGER_CONV=reference
