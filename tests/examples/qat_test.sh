#!/bin/bash
# qat and table on synthetic pictures: the same bits after a stop, a saved network measured again, a table that goes
# on after being killed, and clear errors for wrong inputs.
#   qat_test.sh BUILD
set -uo pipefail
. "$(dirname "$0")/kit.sh" "$1"

common=(--model resnet8 --dataset synthetic --limit 256 --batch 32 --seed 5)
qat() { "$build/examples/qat" "${common[@]}" "$@"; }

check 'a network in floats' "$build/examples/train" "${common[@]}" --epochs 2 --out float
start=(--init float/model.safetensors --wbits 3 --abits 3 --epochs 3 --dtype bf16 --integer-forward --distill 0.5 --dampen 1e-3
       --progressive 8,4 --stage-epochs 1 --bn-batches 4)
check 'training with every option' qat "${start[@]}" --out whole
check 'codes of the integer run are those of the quantized evaluation' [ "$(figure whole/result.json agreement.codes_mismatched)" = 0 ]
check 'trajectories of every site' python3 - <<'PYTHON'
import json
lines = [json.loads(line) for line in open("whole/metrics.jsonl")]
sites = [line for line in lines if line["phase"] == "qat" and "sites" in line]
assert [line["epoch"] for line in sites] == [3, 4, 5], sites
conv = sites[-1]["sites"]["layer1"]["0"]["conv1"]
assert 0 < conv["weight"]["alpha"] < 1 and conv["weight"]["low"] < 0 < conv["weight"]["high"]
assert abs(conv["weight"]["error"] - conv["weight"]["clipping"] - conv["weight"]["rounding"]) < 1e-9
assert 0 <= conv["weight"]["oscillating"] <= 1 and conv["input"]["low"] == 0
PYTHON
check 'and their charts' sh -c "grep -q 'Mean alpha' whole/report.html && grep -q 'Clipping error of weights' whole/report.html"

stopped_and_resumed '"epoch":3' "$build/examples/qat" "${common[@]}" "${start[@]}"
check 'with the same trajectories' cmp <(grep sites stopped/metrics.jsonl) <(grep sites whole/metrics.jsonl)

cp -r whole other
resumed=("$build/examples/qat" "${common[@]}" --resume --out other)
refused 'to go on with another normalisation' 'its normalisation is' "${resumed[@]}" "${start[@]}" --norm imagenet
refused 'to go on with another activation' 'its activation is' "${resumed[@]}" "${start[@]}" --activation hardtanh
refused 'to go on with other stages' 'its progressive is' "${resumed[@]}" "${start[@]/8,4/4}"
check 'the accuracy in floats stands beside' [ "$(figure whole/result.json accuracy.float)" = "$(figure float/result.json accuracy.float)" ]
check 'with binary activations' qat --init float/model.safetensors --wbits 1 --abits 1 --activation hardtanh --quantizer binary --epochs 1 --distill 0.5 --out binary
check 'the teacher keeps the activation that it was trained with' [ "$(figure binary/result.json accuracy.float)" = "$(figure float/result.json accuracy.float)" ]

check 'a saved network is measured again' qat --init whole/model.safetensors --epochs 0 --out again
check 'logits of planned runs are those of the quantized evaluation' [ "$(figure whole/result.json agreement.logits_differing)" = 0 ]
check 'at batches of 1, 32 and more' python3 - <<'PYTHON'
import json
a = json.load(open("whole/result.json"))["agreement"]
rest = a["images"] // 192 * 6 + a["images"] % 192 // 32
assert a["logits_total"] == 10 * (a["images"] + 32 * rest + min(64, a["images"])), a
PYTHON
explained() {
  qat --init whole/model.safetensors --epochs 0 --explain 20 --out explained >explained.log &&
    grep -q '^layer1.0.conv1 *convolution *3 .* ms ' explained.log &&
    grep -q 'Layer by layer' explained/report.html && python3 - <<'PYTHON'
import json
layers = json.load(open("explained/result.json"))["layers"]
conv = [l for l in layers if l["name"] == "layer1.0.conv1"][0]
assert conv["codes_mismatched"] == 0 and 0 < conv["sqnr_alone_db"] < 60 and conv["w_bits"] == 3, conv
PYTHON
}
check 'layer by layer as text, in the result and in the report' explained
refused 'an explanation of nothing' '--explain' "$build/examples/qat" "${common[@]}" --explain 5 --no-deploy --out no
check 'with the same accuracy' [ "$(figure whole/result.json accuracy.fake_quant)" = "$(figure again/result.json accuracy.fake_quant)" ]
check 'and lowered to the same integers' cmp again/integer.safetensors whole/integer.safetensors
check 'ends in floats train, and it is said why they are not deployed' qat --init float/model.safetensors --ends float --epochs 1 --out ends
check 'with the op named' grep -q '"deployed": "\[lower\]' ends/result.json

refused 'a quantized network to train' 'holds a quantized network' "$build/examples/qat" "${common[@]}" --init whole/model.safetensors --epochs 1 --out no
refused 'an unknown quantizer' 'quantizer.*dsqq' "$build/examples/qat" "${common[@]}" --quantizer dsqq --epochs 1 --out no
refused 'an unknown setting' 'alhpa' "$build/examples/qat" "${common[@]}" --quantizer dsq:alhpa=1 --epochs 1 --out no
refused '9 bits' '9' "$build/examples/qat" "${common[@]}" --wbits 9 --epochs 1 --out no
refused 'stages that are no bits' '--progressive 8,x' "$build/examples/qat" "${common[@]}" --progressive 8,x --epochs 1 --out no
refused 'distillation from nothing' '--distill' "$build/examples/qat" "${common[@]}" --distill 1 --epochs 1 --out no

cat >few.json <<'JSON'
{"title": "Few", "program": "qat",
 "options": {"model": "resnet8", "dataset": "synthetic", "limit": 256, "batch": 32, "epochs": 1, "no-deploy": true},
 "figures": [{"name": "accuracy", "field": "accuracy.fake_quant"}, {"name": "least", "field": "accuracy.fake_quant", "least": true}],
 "rows": [{"name": "4/4 lsq", "options": {"quantizer": "lsq"}, "seeds": [0, 1]},
          {"name": "4/4 dsq", "options": {"quantizer": "dsq"}, "seeds": [0, 1]}],
 "differences": [{"of": "4/4 dsq", "minus": "4/4 lsq"}]}
JSON
table() { "$build/examples/table" few.json --out work "$@"; }
check 'a list of what is missing' [ "$(table --list | grep -c '^missing')" = 4 ]
"$build/examples/table" few.json --out work >killed.log 2>&1 &
until [ -s few/4-4_lsq-seed0.json ] || ! kill -0 $! 2>/dev/null; do sleep 0.02; done
kill -KILL $!
wait $! 2>/dev/null
check 'a table that was killed goes on' table --jobs 2
check 'and has all rows' [ "$(table --list | grep -c '^done')" = 4 ]
check 'with means, deviations and a paired interval' python3 - <<'PYTHON'
import json, statistics
a = [json.load(open(f"few/4-4_{q}-seed{s}.json"))["accuracy"]["fake_quant"] for q in ("lsq", "dsq") for s in (0, 1)]
md = open("few.md").read()
assert f"| 4/4 lsq | 2 of 2 | {statistics.mean(a[:2]):.2f} ± {statistics.stdev(a[:2]):.2f} | {min(a[:2]):.2f} |" in md, md
d = [a[2] - a[0], a[3] - a[1]]
half = 12.7062 * statistics.stdev(d) / 2 ** 0.5
interval = [line.split("|")[4:6] for line in md.splitlines() if line.startswith("| 4/4 dsq − 4/4 lsq")][0]
got = [float(interval[0])] + [float(word) for word in interval[1].split(" to ")]
want = [statistics.mean(d), statistics.mean(d) - half, statistics.mean(d) + half]
assert all(abs(a - b) < 0.006 for a, b in zip(got, want)), (got, want)
assert "`build/examples/qat " in md and "--model resnet8" in md, md
PYTHON
check 'results name no folder of this machine' sh -c '! grep -q "$PWD\|work/few" few/*.json'
cp few/4-4_lsq-seed0.json kept.json
rm few/4-4_lsq-seed0.json work/few/4-4_lsq-seed0.log
check 'a result that was deleted is made again' table
check 'from the beginning' grep -q 'epoch 1' work/few/4-4_lsq-seed0.log
check 'and is the same' python3 -c "
import json
a, b = (json.load(open(f)) for f in ('kept.json', 'few/4-4_lsq-seed0.json'))
assert a['accuracy'] == b['accuracy'], (a['accuracy'], b['accuracy'])"
sed -i 's/"no-deploy": true/"no-deploy": true, "lr": 0.05/' few.json
refused 'a result that other options made' 'made with ' "$build/examples/table" few.json
rm few/4-4_lsq-seed*.json few/4-4_dsq-seed*.json
check 'other options start anew' table --jobs 2
check 'with these' grep -q '"lr": 0.05' few/4-4_lsq-seed0.json
sed -i 's/, "lr": 0.05//' few.json
refused 'a result that an option made which is no longer asked for' 'made with ' "$build/examples/table" few.json
echo '{"title": "x", "program": "qat", "rows": [], "figure": []}' >wrong.json
refused 'a table without figures' 'figures' "$build/examples/table" wrong.json
