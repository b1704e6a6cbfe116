#!/bin/bash
# data/get.sh on CIFAR-100 that is there already: its files are known by their sizes. Nothing is fetched.
#   get_test.sh BUILD
set -uo pipefail
get=$(cd "$(dirname "$0")/../.." && pwd)/data/get.sh
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/cifar-100-binary"

# check NAME EXIT_CODE WORDS TRAIN_BYTES TEST_BYTES
check() {
  local code=0
  truncate -s "$4" "$folder/cifar-100-binary/train.bin"
  truncate -s "$5" "$folder/cifar-100-binary/test.bin"
  "$get" cifar100 "$folder" >"$folder/log" 2>&1 || code=$?
  if [ "$code" -eq "$2" ] && grep -q "$3" "$folder/log"; then
    echo "ok $1"
  else
    echo "FAILED $1: exit code $code"
    cat "$folder/log"
  fi
}

check 'whole files are taken' 0 'is there already, verified' 153700000 30740000
check 'empty files are refused' 1 'does not hold the expected files' 0 0
check 'an empty test set is refused' 1 'does not hold the expected files' 153700000 0
check 'a file that is cut short is refused' 1 'does not hold the expected files' 153699999 30740000
