#!/bin/bash
# The same codes and logits on every instruction set, by our own loops, by oneDNN and by what is chosen by itself, with one thread
# and two: of a model with every layer, and of two zoo networks at batches of 1 and 32.
#   integer_isa_test.sh BUILD
set -uo pipefail
programs=$(cd "$1" && pwd)/tests/quant
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/first" "$work/other"
run() { "$programs/integer_codes" "$1" && "$programs/integer_zoo" run "$work" "$1/logits.safetensors"; }
"$programs/integer_zoo" write "$work" && run "$work/first" || { echo "FAILED a run to compare with"; exit 1; }

# same NAME SETTING...: a run with these settings ends in the same bytes.
same() {
  local name=$1
  shift
  if (export "$@" && run "$work/other") && cmp "$work/first/run.safetensors" "$work/other/run.safetensors" &&
    cmp "$work/first/logits.safetensors" "$work/other/logits.safetensors"; then
    echo "ok $name"
  else
    echo "FAILED $name"
  fi
  rm -f "$work"/other/*
}

for threads in 1 2; do
  for isa in avx512_vnni avx512 avx2 baseline; do
    same "own loops, $isa, $threads threads" OMP_NUM_THREADS=$threads STAIRGRAD_INTEGER_CONV=own STAIRGRAD_MAX_ISA=$isa
  done
  for isa in ALL AVX512_CORE_VNNI AVX512_CORE AVX2; do
    same "oneDNN, $isa, $threads threads" OMP_NUM_THREADS=$threads STAIRGRAD_INTEGER_CONV=onednn ONEDNN_MAX_CPU_ISA=$isa
    same "as it comes, $isa, $threads threads" OMP_NUM_THREADS=$threads ONEDNN_MAX_CPU_ISA=$isa
  done
done
same 'plain loops' STAIRGRAD_INTEGER_CONV=reference
