#!/bin/bash
# The quickstart on few pictures: its files and figures, the same bits twice, and clear errors for wrong inputs.
#   quickstart_test.sh BUILD
set -uo pipefail
quickstart=$(cd "$1" && pwd)/examples/quickstart
fashion=/usr/share/datasets/fashion-mnist
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work" || exit 1
unset STAIRGRAD_DATA

# check NAME COMMAND...
check() {
  local name=$1
  shift
  if "$@" >check.log 2>&1; then echo "ok $name"; else echo "FAILED $name"; cat check.log; fi
}

# refused NAME WORDS OPTION...: exit code 1, a message with these words, and no result in the output folder.
out=refused
refused() {
  local name=$1 words=$2 code=0
  shift 2
  "$quickstart" --out "$out" "$@" >refused.log 2>&1 || code=$?
  if [ "$code" -eq 1 ] && grep -q "^error: .*$words" refused.log && [ -z "$(find . -name '*.safetensors' -path './refused/*' -o -name result.json -path './refused/*')" ]; then
    echo "ok $name"
  else
    echo "FAILED $name: exit code $code"
    cat refused.log
  fi
}

# damaged NAME WORDS FILE COMMAND: the data with one file changed by the command, which reads it and writes the new one.
damaged() {
  rm -rf data && mkdir data && cp "$fashion"/*.gz data/
  eval "$4" <"$fashion/$3" >"data/$3"
  refused "$1" "$2" --data data
}

refused 'an unknown option' 'unknown option --epoch.*--epochs' --epoch 3
refused 'zero bits' '--wbits' --wbits 0
refused '33 bits' '--wbits' --wbits 33
refused 'an unknown quantizer' '--quantizer' --quantizer dqs
out=/proc/nowhere refused 'an unwritable output folder' '/proc/nowhere'
refused 'a missing data folder' 'get.sh\|dataset-fashion-mnist' --data nowhere

if [ -f "$fashion/train-images-idx3-ubyte.gz" ]; then
  damaged 'a truncated gzip file' 'train-images' train-images-idx3-ubyte.gz 'head -c 100000'
  damaged 'a damaged gzip file' 'train-images' train-images-idx3-ubyte.gz "python3 -c 'import sys; b = bytearray(sys.stdin.buffer.read()); b[5000] ^= 255; sys.stdout.buffer.write(b)'"
  damaged 'a truncated IDX file' 'train-labels' train-labels-idx1-ubyte.gz 'gunzip | head -c 30000 | gzip'
  damaged 'fewer labels than pictures' '50,\?000' train-labels-idx1-ubyte.gz \
    "gunzip | python3 -c 'import sys; b = sys.stdin.buffer.read(); sys.stdout.buffer.write(b[:4] + (50000).to_bytes(4, \"big\") + b[8:50008])' | gzip"
  damaged 'a label out of range' 'label.*10' train-labels-idx1-ubyte.gz \
    "gunzip | python3 -c 'import sys; b = bytearray(sys.stdin.buffer.read()); b[500] = 10; sys.stdout.buffer.write(b)' | gzip"

  few=(--limit 512 --epochs 1 --qat-epochs 1 --seed 7)
  check 'the whole job on 512 pictures' "$quickstart" "${few[@]}" --out first
  check 'and once more, with two workers for the data' "$quickstart" "${few[@]}" --workers 2 --out second
  check 'two runs with one seed end in the same bits' cmp first/model.safetensors second/model.safetensors
  check 'and in the same integer model' cmp first/integer.safetensors second/integer.safetensors
  few=(--limit 512 --epochs 3 --qat-epochs 1 --seed 7)
  "$quickstart" "${few[@]}" --out resumed >resumed.log 2>&1 &
  until [ -s resumed/metrics.jsonl ] || ! kill -0 $! 2>/dev/null; do sleep 0.05; done
  kill -INT $!
  wait $!
  check 'Ctrl-C stops with code 130 or after the end' [ $? -eq 130 -o -s resumed/result.json ]
  check 'and --resume goes on' "$quickstart" "${few[@]}" --resume --out resumed
  check 'three epochs without a stop' "$quickstart" "${few[@]}" --out unbroken
  check 'end in the same bits' cmp resumed/model.safetensors unbroken/model.safetensors
  check 'also the quantized ones' cmp resumed/integer.safetensors unbroken/integer.safetensors
  "$quickstart" "${few[@]}" --out killed >killed.log 2>&1 &
  until [ -s killed/metrics.jsonl ] || ! kill -0 $! 2>/dev/null; do sleep 0.05; done
  kill -KILL $!
  wait $! 2>/dev/null
  check 'a run killed at once goes on with --resume' "$quickstart" "${few[@]}" --resume --out killed
  check 'and ends in the same bits' cmp killed/model.safetensors unbroken/model.safetensors
  check 'also the quantized ones' cmp killed/integer.safetensors unbroken/integer.safetensors
  check 'a finished run can be resumed' "$quickstart" "${few[@]}" --resume --out resumed
  check 'and gives the same' cmp resumed/integer.safetensors unbroken/integer.safetensors
  check 'result.json has the keys that scripts rely on' python3 - <<'PYTHON'
import json
r = json.load(open("first/result.json"))
for path in ("options", "versions", "cpu", "seed", "accuracy.float", "accuracy.fake_quant", "accuracy.integer", "agreement.top1",
             "agreement.codes_total", "agreement.codes_mismatched", "cost.params", "cost.macs", "cost.bops", "cost.bytes", "speed", "seconds"):
    at = r
    for key in path.split("."):
        at = at[key]
assert r["agreement"]["codes_total"] > 1e6 and r["agreement"]["codes_mismatched"] == 0, r["agreement"]
assert r["agreement"]["top1"] == 512 and r["seed"] == 7
PYTHON
  check 'the report is one page with charts and pictures' \
    sh -c 'grep -q "<svg" first/report.html && grep -q "data:image/png;base64" first/report.html && ! grep -qE "(src|href)=.https?:" first/report.html'
  check 'pictures are written' test -s first/gradcam.png
else
  echo 'ok the whole job'
  echo "SKIPPED: Fashion-MNIST is not installed (package dataset-fashion-mnist)"
fi
