#!/bin/bash
# ptq on synthetic pictures: every method ends in integers with the same codes, a run that was stopped ends in the same
# bits, draws are paired with the plain method, and wrong inputs are refused in a sentence.
#   ptq_test.sh BUILD
set -uo pipefail
. "$(dirname "$0")/kit.sh" "$1"

common=(--model resnet8 --dataset synthetic --limit 256 --seed 5)
check 'a network in floats' "$build/examples/train" "${common[@]}" --epochs 2 --batch 32 --out float
ptq() { "$build/examples/ptq" "${common[@]}" --init float/model.safetensors "$@"; }
few=(--calib 64 --iterations 12)

for method in rtn adaround brecq qdrop pdquant; do
  check "$method" ptq "${few[@]}" --method $method --wbits 4 --abits 4 --correction-steps $([ $method = pdquant ] && echo 3 || echo 0) --out $method
  check "$method: codes of the integer run are those of the quantized evaluation" [ "$(figure $method/result.json agreement.codes_mismatched)" = 0 ]
  check "$method: its preset is in the result" [ -n "$(figure $method/result.json options.preset)" ]
done
check 'the time of each part and the rounding of each unit are noted' python3 - <<'PYTHON'
import json
units = [json.loads(line) for line in open("qdrop/metrics.jsonl")]
assert [u["unit"] for u in units] == ["stem", "layer1.0", "layer2.0", "layer3.0", "head"], units
assert all(u["seconds"] > 0 and u["caching_seconds"] > 0 and 0 <= u["settled"] <= 1 for u in units)
result = json.load(open("qdrop/result.json"))
assert result["memory"]["cache_bytes"] > 0 and "layer1.0.conv1.rounding" in result["trainable"]
assert 0 <= result["mcnemar"]["p"] <= 1 and result["accuracy"]["float"] > 0
assert all(len(u["losses"]) == 10 and min(u["losses"]) > 0 for u in units), units
error = sum(u["hard"] for u in units)
assert abs(result["reconstruction"]["error"] - error) < 1e-9 and result["draws"][0]["reconstruction_error"] == result["reconstruction"]["error"]
PYTHON
check 'and a report' grep -q 'Seconds of each unit' qdrop/report.html
check 'with a loss curve' grep -q 'Loss of the units' qdrop/report.html

check 'a saved network is measured by qat' "$build/examples/qat" "${common[@]}" --init qdrop/model.safetensors --epochs 0 --out again
check 'with the same accuracy' [ "$(figure qdrop/result.json accuracy.fake_quant)" = "$(figure again/result.json accuracy.fake_quant)" ]
check 'and lowered to the same integers' cmp again/integer.safetensors qdrop/integer.safetensors
check "brecq's preset skips the first block" [ "$(grep -c '"unit":"stem"' brecq/metrics.jsonl)" = 0 ]
check 'with the bits of a policy' ptq "${few[@]}" --method brecq --policy brecq/policy.json --no-deploy --out by_policy
check 'none is skipped' grep -q '"unit":"stem"' by_policy/metrics.jsonl

check 'draws are paired with the plain method' ptq "${few[@]}" --clcalib --seeds 3 --wbits 2 --abits 2 --no-deploy --out draws
check 'with an interval' python3 - <<'PYTHON'
import json
result = json.load(open("draws/result.json"))
draws = result["draws"]
assert [(d["seed"], d["host"]) for d in draws] == [(s, h) for s in (5, 6, 7) for h in (True, False)], draws
own, host = ([d["accuracy"] for d in draws if d["host"] is h] for h in (False, True))
difference = sum(own) / 3 - sum(host) / 3
assert abs(result["difference"]["mean"] - difference) < 1e-9
assert result["difference"]["low"] <= difference <= result["difference"]["high"]
assert result["accuracy"]["min"] == min(own) and abs(result["accuracy"]["fake_quant"] - sum(own) / 3) < 1e-9
PYTHON
for arm in "--critic C --bank --lambda 0.2" "--critic A --mapping gap" "--mapping linear --negatives none" "--lambda-rec 0 --negatives pred,sim:0.9 --reweight"; do
  check "arm $arm" ptq "${few[@]}" --clcalib $arm --no-deploy --out arm
done
for direct in cosine kl mse; do
  check "direct objective $direct" ptq "${few[@]}" --direct $direct --no-deploy --out arm
done
check 'equalisation, bias correction and a search of the scales' ptq "${few[@]}" --method rtn --equalise --bias-correction --evolve 1 --explain 10 --out extras
check 'explained layer by layer' python3 -c 'import json; assert any(l["name"] == "layer1.0.conv1" and l["seconds"] > 0 for l in json.load(open("extras/result.json"))["layers"])'
check 'run in integers' [ "$(figure extras/result.json agreement.codes_mismatched)" = 0 ]
corrected() { ptq "${few[@]}" --method pdquant --correction-steps ${steps:-2} --correction-cache cache --no-deploy --out arm "$@" >corrected.log 2>&1; }
used() { grep -c '^corrected inputs of' corrected.log; }
check 'corrected features are kept' corrected
check 'made for these pictures' [ "$(used)" = 0 ]
check 'and with other bits' corrected --wbits 2
check 'used again' [ "$(used)" -gt 0 ]
check 'with other pictures' corrected --calib-from-test
check 'made anew' [ "$(used)" = 0 ]
check 'with the same pictures' corrected
steps=3 check 'and another number of steps' corrected
check 'made anew, too' [ "$(used)" = 0 ]
check 'a border that is learned, and the host without one' ptq "${few[@]}" --border --seeds 2 --wbits 2 --abits 2 --no-deploy --out border
check 'on the same pictures end in other losses' python3 - <<'PYTHON'
import json
units = [json.loads(line) for line in open("border/metrics.jsonl")]
losses = {host: [u["hard"] for u in units if u["host"] is host] for host in (True, False)}
assert len(losses[True]) == len(losses[False]) and losses[True] != losses[False], losses
PYTHON
check 'calibration pictures of the test set are not measured' ptq "${few[@]}" --calib-from-test --out held_out
check 'only the others' python3 -c "
import json
result = json.load(open('held_out/result.json'))
assert result['agreement']['images'] == 256 - result['options']['calib'], result['agreement']"
check 'and floats are measured on the same' ptq --calib 200 --calib-from-test --method rtn --seeds 3 --no-deploy --out floats
check 'for each draw, and in a run that goes on' ptq --calib 200 --calib-from-test --method rtn --seeds 4 --resume --no-deploy --out floats
check 'with their mean' python3 - <<'PYTHON'
import json
result = json.load(open("floats/result.json"))
floats = [d["float"] for d in result["draws"]]
assert len(floats) == 4 and len(set(floats)) > 1, floats
assert all(abs(f * 56 / 100 - round(f * 56 / 100)) < 1e-9 for f in floats), floats
assert abs(result["accuracy"]["float"] - sum(floats) / 4) < 1e-9 and result["options"]["seeds"] == 4, result
PYTHON

slow=(--calib 64 --wbits 3 --abits 3 --iterations 150)
check 'a run in one piece' ptq "${slow[@]}" --out whole
stopped_and_resumed layer1.0 "$build/examples/ptq" "${common[@]}" --init float/model.safetensors "${slow[@]}"
check 'its report has all units' python3 - <<'PYTHON'
import re
names = [re.findall(r"<td[^>]*>(layer\d\.\d|stem|head)</td>", open(run + "/report.html").read()) for run in ("stopped", "whole")]
assert names[0] == names[1] and len(names[0]) >= 5, names
PYTHON
refused 'other options for --resume' 'other options' ptq "${slow[@]}" --warmup 0.3 --resume --out stopped

# A draw that was stopped goes on before all others, though more draws are asked for, and the host's would be first.
again=(--calib 64 --wbits 3 --abits 3 --iterations 60 --clcalib --no-deploy)
check 'two draws and their hosts in one piece' ptq "${again[@]}" --seeds 2 --out all_draws
"$build/examples/ptq" "${common[@]}" --init float/model.safetensors "${again[@]}" --out begun >begun.log 2>&1 &
until grep -q layer1.0 begun/metrics.jsonl 2>/dev/null || ! kill -0 $! 2>/dev/null; do sleep 0.02; done
kill -INT $!
wait $!
check 'a draw that was begun, and more of them' ptq "${again[@]}" --seeds 2 --resume --out begun
check 'end in the same losses' python3 - <<'PYTHON'
import json
def losses(run):
    units = [json.loads(line) for line in open(run + "/metrics.jsonl")]
    return sorted((u["seed"], u["host"], u["unit"], u["hard"]) for u in units)
assert len(losses("begun")) == 20 and losses("begun") == losses("all_draws"), (losses("begun"), losses("all_draws"))
PYTHON

check 'the first draw makes the corrected features, the second finds them' ptq --calib 64 --iterations 2 --method pdquant --clcalib --correction-steps 60 --correction-cache shared --seeds 2 --no-deploy --out shared_cache
check 'and neither counts their seconds' python3 - <<'PYTHON'
import json
made = {False: 0, True: 0}
for line in open("shared_cache/metrics.jsonl"):
    unit = json.loads(line)
    made[unit["host"]] += unit["correction_seconds"]
draws = json.load(open("shared_cache/result.json"))["draws"]
assert made[True] > 5 * made[False], made
assert sum(d["seconds"] for d in draws if d["host"]) < made[True], (draws, made)
PYTHON

check 'fewer pictures than the batch' ptq --calib 3 --iterations 12 --no-deploy --out few
check 'one picture' ptq --calib 1 --iterations 12 --clcalib --no-deploy --out one
refused 'a method that does not exist' 'method' ptq --method qdorp --out no
refused 'objectives without blocks' 'they need the method' ptq --method adaround --prediction 10 --out no
refused 'a path that drops anyway' 'cl-no-drop' ptq --method pdquant --clcalib --cl-no-drop --out no
refused 'and with a direct objective' 'cl-no-drop' ptq --clcalib --cl-no-drop --direct kl --out no
refused 'two differences of predictions' '--prediction 0' ptq --method pdquant --direct kl --out no
refused 'the same, by name' '--prediction 0' ptq --prediction 5 --direct kl --out no
refused 'a weight of no objective' '--direct-weight' ptq --direct-weight 2 --out no
refused 'borders without steps' '--border' ptq --method adaround --border --out no
for option in '--critic C' '--tau 0.2' '--lambda 2' '--mapping gap' '--negatives none' --bank --centre --reweight --cl-no-drop; do
  refused "$option without contrast" 'add --clcalib' ptq $option --out no
done
refused 'a cosine that is none' 'from -1 to 1' ptq --clcalib --negatives sim:abc --out no
refused 'contrast without blocks' 'reconstructs blocks' ptq --method adaround --clcalib --out no
refused 'negatives that do not exist' 'negatives.*same' ptq --clcalib --negatives same --out no
refused '9 bits' '9' ptq --wbits 9 --out no
