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
# stopped_and_resumed SIGN COMMAND...: COMMAND gets Ctrl-C when SIGN is in its metrics, goes on, and ends as the run in whole/ did.
stopped_and_resumed() {
  local sign=$1
  shift
  "$@" --out stopped >stopped.log 2>&1 &
  until grep -q "$sign" stopped/metrics.jsonl 2>/dev/null || ! kill -0 $! 2>/dev/null; do sleep 0.02; done
  kill -INT $!
  wait $!
  check 'Ctrl-C stops with code 130 or after the end' [ $? -eq 130 -o -s stopped/result.json ]
  check '--resume goes on' "$@" --resume --out stopped
  check 'and ends in the same bits' cmp stopped/model.safetensors whole/model.safetensors
  check 'and the same integer model' cmp stopped/integer.safetensors whole/integer.safetensors
}
# figure FILE KEY: a field of a result.
figure() { python3 -c 'import json, sys, functools; print(functools.reduce(lambda a, k: a[k], sys.argv[2].split("."), json.load(open(sys.argv[1]))))' "$@"; }
