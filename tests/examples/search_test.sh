#!/bin/bash
# search on synthetic pictures: every method meets the budget and writes a policy that qat and the integer runtime take,
# a stopped search ends in the same bits, --describe says what a policy costs, and wrong inputs are named.
#   search_test.sh BUILD
set -uo pipefail
. "$(dirname "$0")/kit.sh" "$1"

common=(--model resnet8 --dataset synthetic --limit 256 --batch 32 --seed 5)
# BOPs of 3/3 bits in the six inner layers of ResNet-8.
budget=107M
search() { "$build/examples/search" "${common[@]}" --init float/model.safetensors --bops $budget --figures 64 "$@"; }
# met FILE: 97 to 100 percent of the budget, and a policy whose BOPs these are.
met() {
  python3 - "$@" <<'PYTHON'
import json, sys
result = json.load(open(sys.argv[1] + "/result.json"))
share = result["search"]["bops"] / result["search"]["budget"]
assert 0.97 <= share <= 1, share
assert result["cost"]["bops_inner"] == result["search"]["bops"]
assert -1 <= result["attribution"]["spearman"] <= 1
policy = json.load(open(sys.argv[1] + "/policy.json"))
assert policy["layers"]["conv1"]["w_bits"] == 8
quantizers = [p["quantizer"] for kind in ("layers", "tensors") for p in policy[kind].values()]
assert set(quantizers) == {"lsq:init=mse"}, quantizers
inner = [p for name, p in policy["layers"].items() if name not in ("conv1", "linear")]
assert len(inner) == 6 and all(p["w_bits"] in (2, 3, 4, 6) and p["a_bits"] in (2, 3, 4, 6) for p in inner)
def of(group, name):
    for word in name.split("."): group = group[word]
    return group
assert all(of(result["bits"]["w"], name) == p["w_bits"] and of(result["bits"]["a"], name) == p["a_bits"]
           for name, p in policy["layers"].items())
means = [sum(p[kind] for p in inner) / 6 for kind in ("w_bits", "a_bits")]
assert abs(result["search"]["activation_to_weight_bits"] - means[1] / means[0]) < 1e-9
assert "downsample" not in result["search"]  # ResNet-8 has none
PYTHON
}

check 'a network in floats' "$build/examples/train" "${common[@]}" --epochs 3 --out float
for method in gmpq r-gmpq edmips hessian random uniform; do
  check "$method searches" search --method $method --epochs 2 --dtype bf16 --probes 2 --curve-points 3 --out $method
  check "$method meets the budget" met $method
done
check 'R-GMPQ is called our reading' grep -q '"method": *"R-GMPQ, our reading"' r-gmpq/result.json
check 'the report has bits, trajectories, the trade-off and maps' \
  sh -c 'for words in "Bits of each layer" "Share of 2 bits" "Trade-off" "Quantized network" "2^30"; do grep -q "$words" gmpq/report.html || exit 1; done'
check 'a policy of every epoch' [ -s gmpq/policy-epoch1.json -a -s gmpq/policy-epoch2.json ]
# learned RUN: shares and losses at the end of a search; those of the imitation left out.
learned() {
  python3 - "$1" <<'PYTHON'
import json, sys
line = [m for m in map(json.loads, open(sys.argv[1] + "/metrics.jsonl")) if "shares" in m][-1]
print(json.dumps([line["shares"], line["losses"]["cross_entropy"]]))
PYTHON
}
check 'gmpq without weight' search --method gmpq --attribution 0 --epochs 2 --dtype bf16 --curve-points 0 --out weightless
check 'is edmips, and with it attribution changes what is learned' \
  [ "$(learned weightless)" = "$(learned edmips)" -a "$(learned gmpq)" != "$(learned edmips)" -a -n "$(learned gmpq)" ]
check 'R-GMPQ learns something else' [ "$(learned r-gmpq)" != "$(learned gmpq)" -a -n "$(learned r-gmpq)" ]
check 'other options: Gumbel noise, an inner block, top-k, classes, rules, random weights' \
  search --epochs 1 --importance gumbel --block layer2.0 --top-k 20 --explain label --exponent reciprocal --scratch \
  --keep-empty --search-ends --quantizer dsq --curve-points 0 --share 0.5 --teachers float/model.safetensors --out others
check 'with the ends searched, the budget is that of all layers' python3 - <<'PYTHON'
import json
result = json.load(open("others/result.json"))
assert result["search"]["bops"] == result["cost"]["bops"] > result["cost"]["bops_inner"]
PYTHON
# At 8 bits without training a policy looks where --init does; where that is also the reference, both errors are one.
search8() {
  "$build/examples/search" "${common[@]}" --init float/model.safetensors --bops 755M --w-candidates 8 --a-candidates 8 \
    --method uniform --figures 64 --references float/model.safetensors "$@"
}
check 'the rank error against references' search8 --out eight_bits
check 'and of pictures that a reference sees in its own normalisation' search8 --norm imagenet --out eight_bits_other
check 'is that against --init where these are one, and not where pictures differ' python3 - <<'PYTHON'
import json
same, other = (json.load(open(f"{run}/result.json"))["attribution"] for run in ("eight_bits", "eight_bits_other"))
assert same["references"]["rank_error"] == same["rank_error"], same
assert other["references"]["rank_error"] > other["rank_error"] + 0.01, other
PYTHON
check 'a quantizer for ends and skips of 8 bits' \
  search --method uniform --quantizer dorefa --eight-bit-quantizer lsq --out eight
check 'goes to them alone' python3 - <<'PYTHON'
import json
policy = json.load(open("eight/policy.json"))
used = {name: layer["quantizer"] for name, layer in policy["layers"].items()}
assert all((used[name] == "lsq") == (name in ("conv1", "linear")) for name in used), used
assert all(tensor["quantizer"] == "lsq" for tensor in policy["tensors"].values())
PYTHON

check 'a second search ends in the same bits' search --method gmpq --epochs 2 --dtype bf16 --curve-points 3 --out again
check 'the same policy' cmp gmpq/policy.json again/policy.json
"$build/examples/search" "${common[@]}" --init float/model.safetensors --bops $budget --figures 64 --epochs 2 --dtype bf16 --curve-points 3 --out stopped >stopped.log 2>&1 &
until grep -q '"epoch":1,' stopped/metrics.jsonl 2>/dev/null || ! kill -0 $! 2>/dev/null; do sleep 0.02; done
kill -INT $!
wait $!
check 'Ctrl-C stops with code 130 or after the end' [ $? -eq 130 -o -s stopped/result.json ]
check '--resume goes on' search --method gmpq --epochs 2 --dtype bf16 --curve-points 3 --resume --out stopped
check 'and ends in the same bits' cmp stopped/search.ckpt again/search.ckpt
check 'and counts the time of both processes' python3 - <<'PYTHON'
import json
epochs = [m["seconds"] for m in map(json.loads, open("stopped/metrics.jsonl")) if "seconds" in m]
result = json.load(open("stopped/result.json"))
assert len(epochs) == 2 and abs(result["seconds"]["search"] - sum(epochs)) < 1e-6
assert abs(result["search"]["minutes"] - sum(epochs) / 60) < 1e-6
PYTHON
refused 'a resumed search on pictures of another normalisation' 'normalisation' \
  search --method gmpq --epochs 2 --dtype bf16 --curve-points 3 --norm imagenet --resume --out stopped

check 'qat trains the policy and deploys it' "$build/examples/qat" "${common[@]}" --init float/model.safetensors \
  --policy gmpq/policy.json --epochs 1 --dtype bf16 --integer-forward --attribution 64 --out qat
check 'with every code equal, and where it looks' python3 - <<'PYTHON'
import json
result = json.load(open("qat/result.json"))
assert result["agreement"]["codes_mismatched"] == 0
assert -1 <= result["attribution"]["spearman"] <= 1
policies = [json.load(open(f"{run}/policy.json")) for run in ("gmpq", "qat")]
assert policies[0] == policies[1]
searched = json.load(open("gmpq/result.json"))["cost"]
assert all(result["cost"][name] == searched[name] for name in ("bops", "bops_inner"))
PYTHON
check 'ptq takes the policy and deploys it' "$build/examples/ptq" --model resnet8 --dataset synthetic --limit 256 \
  --init float/model.safetensors --method rtn --policy gmpq/policy.json --calib 64 --out ptq
check 'with the same bits and every code equal' python3 - <<'PYTHON'
import json
ptq, gmpq = (json.load(open(f"{run}/policy.json"))["layers"] for run in ("ptq", "gmpq"))
assert {l: (p["w_bits"], p["a_bits"]) for l, p in ptq.items()} == {l: (p["w_bits"], p["a_bits"]) for l, p in gmpq.items()}
assert all(p["quantizer"].startswith("affine") for p in ptq.values()), ptq
assert json.load(open("ptq/result.json"))["agreement"]["codes_mismatched"] == 0
PYTHON
check '--describe prints what a policy costs' sh -c "'$build/examples/search' --model resnet8 --describe gmpq/policy.json >described.txt"
check 'in both units, with layers and latency' \
  sh -c 'for words in "32 x 32 x 3" "2^30" "layer2.0.conv1" "first and last layer" "^weights: " " ms for one image"; do grep -q "$words" described.txt || exit 1; done'
check 'for other pictures, too' sh -c "
  '$build/examples/search' --model resnet8 --describe gmpq/policy.json --dataset synthetic --size 16 >small.txt &&
  grep -q '16 x 16 x 3' small.txt && ! diff -q described.txt small.txt"
check 'ResNet-18: 6.782 G of 7.256 G at 2/2' sh -c "
  python3 -c '
import json
layers = [\"conv1\", \"fc\"] + [f\"layer{s}.{b}.conv{c}\" for s in (1, 2, 3, 4) for b in (0, 1) for c in (1, 2)]
layers += [f\"layer{s}.0.downsample.0\" for s in (2, 3, 4)]
tensors = [\"stem\"] + [f\"layer{s}.{b}.output\" for s in (1, 2, 3, 4) for b in (0, 1)] + [f\"layer{s}.0.skip\" for s in (2, 3, 4)]
json.dump({\"version\": 1, \"ends\": \"same\", \"layers\": {l: {\"w_bits\": 2, \"a_bits\": 2, \"quantizer\": \"lsq\"} for l in layers},
           \"tensors\": {t: {\"bits\": 8, \"quantizer\": \"lsq\"} for t in tensors}}, open(\"r18.json\", \"w\"), indent=1)'
  '$build/examples/search' --model resnet18 --describe r18.json >r18.txt && grep -q '6.782 G' r18.txt && grep -q '7.256 G' r18.txt && grep -q 1853.4G r18.txt"
check 'the total of papers is that of the published network alone' sh -c "
  '$build/examples/search' --model resnet18 --width 0.25 --size 64 --describe r18.json >narrow.txt && ! grep -q 1853.4G narrow.txt"
check 'bytes without an integer form' sh -c "
  sed 's/\"w_bits\": [0-9]*/\"w_bits\": 32/' gmpq/policy.json >floats.json &&
  '$build/examples/search' --model resnet8 --describe floats.json >floats.txt && grep -q 'no integer form' floats.txt && grep -q '^weights: ' floats.txt"

cat >few.json <<JSON
{"title": "Few", "program": "search", "keep": ["policy.json"],
 "options": {"model": "resnet8", "dataset": "synthetic", "limit": 256, "init": "float/model.safetensors", "bops": "$budget", "figures": 32},
 "figures": [{"name": "GBOPs", "field": "search.gbops"}],
 "rows": [{"name": "r, at random", "options": {"method": "random"}, "seeds": [3]}]}
JSON
check 'a table of searches' "$build/examples/table" few.json --out work
check 'keeps the policies' cmp few/r_at_random-seed3.policy.json work/few/r_at_random-seed3/policy.json

wrong() { sed "$1" gmpq/policy.json >wrong.json; }
wrong 's/layer2.0.conv1/layer2.0.conv7/'
refused 'a policy with an unknown layer' "line [0-9]*: .*layer2.0.conv7.*did you mean 'layer2.0.conv" "$build/examples/search" --model resnet8 --describe wrong.json
wrong '0,/"w_bits": [2346]/s//"w_bits": 33/'
refused 'a policy with 33 bits' 'line [0-9]*: .*33 bits' "$build/examples/qat" "${common[@]}" --policy wrong.json --epochs 1 --out no
refused 'a policy of another network' 'line 3: ' "$build/examples/search" --model resnet14 --describe gmpq/policy.json
refused 'no budget' 'no --bops' "$build/examples/search" "${common[@]}" --out no
refused 'a budget that is no number' '365M' "$build/examples/search" "${common[@]}" --init float/model.safetensors --bops 7.4X --out no
refused 'a budget out of reach' 'expected one from' "$build/examples/search" "${common[@]}" --init float/model.safetensors --bops 1K --out no
for method in gmpq r-gmpq edmips hessian random uniform; do
  refused "$method without a float network" 'no --init' \
    "$build/examples/search" "${common[@]}" --method $method --teachers float/model.safetensors --bops $budget --out no
done
refused 'skips on the grids of layers' '--skip shared: .*expected u8 or float' search --skip shared --out no
refused 'codes, of which a search has none' '--integer-forward: .*give it to qat' search --integer-forward --out no
refused 'an unknown quantizer for 8 bits' 'did you mean' search --eight-bit-quantizer lqs --out no
refused 'a block that is none' "did you mean 'layer2.0'" "$build/examples/search" "${common[@]}" --init float/model.safetensors --bops $budget --block layer2.9 --epochs 1 --out no
refused 'candidates that are none' 'bits from 1 to 8' "$build/examples/search" "${common[@]}" --init float/model.safetensors --bops $budget --w-candidates 2,16 --out no
refused 'an unknown quantizer' 'did you mean' "$build/examples/search" "${common[@]}" --init float/model.safetensors --bops $budget --quantizer lqs --out no
