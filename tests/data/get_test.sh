#!/bin/bash
# data/get.sh on CIFAR-100 that is there already: its files are known by their sizes. Nothing is fetched.
#   get_test.sh PATH_OF_get.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/cifar-100-binary"

# expect WHETHER TRAIN_BYTES TEST_BYTES
expect() {
  local got=refused
  truncate -s "$2" "$folder/cifar-100-binary/train.bin"
  truncate -s "$3" "$folder/cifar-100-binary/test.bin"
  "$get" cifar100 "$folder" >"$folder/log" 2>&1 && got=taken
  if [ "$got" = refused ]; then grep -q 'does not hold the expected files' "$folder/log" || got='another error'; fi
  if [ "$got" != "$1" ]; then echo "FAILED: files of $2 and $3 bytes: $got, expected $1"; cat "$folder/log"; exit 1; fi
}

get=$1
expect taken 153700000 30740000
expect refused 0 0
expect refused 153700000 0
expect refused 153699999 30740000
expect refused 30740000 153700000
echo 'ok get.sh'
