# What the scripts of this room share. Sourced with BUILD as $1: names the build folder, and works in a folder that is gone at the end.
build=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

# check NAME COMMAND...
check() {
  local name=$1
  shift
  if "$@" >check.log 2>&1; then echo "ok $name"; else echo "FAILED $name"; cat check.log; fi
}
# refused NAME WORDS COMMAND...: exit code 1 and a message with these words.
refused() {
  local name=$1 words=$2 code=0
  shift 2
  "$@" >refused.log 2>&1 || code=$?
  if [ "$code" -eq 1 ] && grep -q "^error: .*$words" refused.log; then
    echo "ok $name"
  else
    echo "FAILED $name: exit code $code"
    cat refused.log
  fi
}
# figure FILE KEY: a field of a result.
figure() { python3 -c 'import json, sys, functools; print(functools.reduce(lambda a, k: a[k], sys.argv[2].split("."), json.load(open(sys.argv[1]))))' "$@"; }
