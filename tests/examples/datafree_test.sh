#!/bin/bash
# datafree on a small network: no data set before the end, the same bits twice, every preset, selectors of every type, and
# clear errors for wrong inputs.
#   datafree_test.sh BUILD
set -uo pipefail
. "$(dirname "$0")/kit.sh" "$1"

"$build/examples/train" --model resnet8 --dataset synthetic --limit 256 --batch 32 --seed 5 --epochs 3 --out float >train.log 2>&1
check 'a network in floats' [ -s float/model.safetensors ]
small=(--model resnet8 --init float/model.safetensors --images 48 --synthesis-batch 24 --iterations 5 --batch 16 --calibration 4)
short=("${small[@]}" --epochs 2 --steps 4)
datafree() { "$build/examples/datafree" "${short[@]}" "$@"; }
longer() { "$build/examples/datafree" "${small[@]}" "$@"; }

check 'fixed bits' datafree --wbits 4 --abits 4 --eval synthetic --limit 100 --out fixed
check 'the integer run equals the quantized evaluation' [ "$(figure fixed/result.json agreement.codes_mismatched)" = 0 ]
check 'last and best epoch' python3 - <<'PYTHON'
import json
accuracy = json.load(open("fixed/result.json"))["accuracy"]
assert len(accuracy["epochs"]) == 2 and accuracy["best_epoch"] >= accuracy["fake_quant"] == accuracy["epochs"][-1], accuracy
PYTHON
check 'pictures, labels and how they were made' sh -c '[ -s fixed/images/pictures/000047.png ] && [ -s fixed/images/pictures/labels.tsv ] && [ -s fixed/images/recipe.json ] && [ -s fixed/easy.png ] && [ -s fixed/hard.png ]'
check 'difficulty against real pictures' figure fixed/result.json difficulty.hard_to_real.gradient_ks
datafree --wbits 4 --abits 4 --no-best --out twice >twice.log 2>&1
check 'the same bits twice' cmp fixed/integer.safetensors twice/integer.safetensors
check 'also from the images on disk' datafree --wbits 4 --abits 4 --from fixed/images --out from
check 'with the same bits' cmp fixed/integer.safetensors from/integer.safetensors

# Stopped within the second epoch or later: the same command with --resume ends with the same bits, and the same curve.
for kind in fixed dynamic; do
  long=(--wbits 4 --abits 4 --from fixed/images --epochs 8 --steps 12 --eval synthetic --limit 60)
  if [ $kind = dynamic ]; then long+=(--selector --bops 0.9); fi
  check "$kind bits without a stop" longer "${long[@]}" --out whole-$kind
  "$build/examples/datafree" "${small[@]}" "${long[@]}" --out stopped-$kind >stopped.log 2>&1 &
  until grep -q '"epoch":1,' stopped-$kind/metrics.jsonl 2>/dev/null || ! kill -0 $! 2>/dev/null; do sleep 0.02; done
  kill -INT $!
  code=0
  wait $! || code=$?
  check 'Ctrl-C ends with exit code 130' [ "$code" -eq 130 ]
  check 'and a checkpoint' [ -s stopped-$kind/fine-tuning.ckpt -a ! -e stopped-$kind/integer.safetensors ]
  check 'from which it goes on' longer "${long[@]}" --resume --out stopped-$kind
  check 'with the same bits' cmp stopped-$kind/integer.safetensors whole-$kind/integer.safetensors
  check 'the same weights' cmp stopped-$kind/model.safetensors whole-$kind/model.safetensors
  check 'and the same accuracy of every epoch, each noted once' python3 - $kind <<'PYTHON'
import json, sys
def run(name):
    with open(f"{name}-{sys.argv[1]}/metrics.jsonl") as lines:
        epochs = [json.loads(line) for line in lines]
    return json.load(open(f"{name}-{sys.argv[1]}/result.json"))["accuracy"], [e for e in epochs if e["phase"] == "fine-tuning"]
whole, stopped = run("whole"), run("stopped")
assert len(whole[1]) == 8 and whole == stopped, (whole, stopped)
PYTHON
  check 'once more there is nothing left to train' longer "${long[@]}" --resume --out stopped-$kind
  check 'and the bits are those' cmp stopped-$kind/integer.safetensors whole-$kind/integer.safetensors
done
refused 'a checkpoint of other settings' 'another run.*lr 0.5' longer "${long[@]}" --lr 0.5 --resume --out stopped-dynamic
check 'a finished run may be resumed' datafree --wbits 4 --abits 4 --no-best --resume --out twice

# The data set is not there: everything is made all the same, and only the evaluation fails.
mkdir nothing
code=0
datafree --wbits 3 --abits 3 --data nothing --eval cifar10 --out blind >blind.log 2>&1 || code=$?
check 'a missing data set is missed at the very end' [ "$code" -eq 1 ]
check 'after all is saved' [ -s blind/integer.safetensors -a -s blind/model.safetensors ]
check 'and it is said when it is opened' grep -q 'only now is the data set cifar10 opened' blind.log
if command -v strace >/dev/null; then
  strace -f -e trace=openat -o trace.log "$build/examples/datafree" "${short[@]}" --wbits 3 --abits 3 --out traced >traced.log 2>&1
  check 'no file of a data set is opened without --eval' sh -c '! grep -q "cifar\|mnist\|data_batch\|test_batch" trace.log'
fi

for type in image offset layer; do
  check "a selector of type $type" datafree --wbits 4 --abits 4 --selector --selector-type $type --bops 0.9 --eval synthetic --limit 60 --out dynamic-$type
  check "whose integer run equals the quantized evaluation" [ "$(figure dynamic-$type/result.json agreement.codes_mismatched)" = 0 ]
done
check 'arms at the same BOPs, and what a selector costs' python3 - <<'PYTHON'
import json
result = json.load(open("dynamic-image/result.json"))
arms, selector = result["arms"], result["selector"]
assert set(arms) == {"dynamic", "all at 3", "all at 4", "all at 5", "static mixed", "random", "oracle"}, arms
assert abs(arms["random"]["bops"] / arms["dynamic"]["bops"] - 1) < 1e-9
assert arms["static mixed"]["bops"] <= arms["dynamic"]["bops"] * 1.000001 and arms["oracle"]["bops"] <= arms["dynamic"]["bops"] * 1.000001
assert arms["all at 3"]["bops"] < arms["dynamic"]["bops"] < arms["all at 5"]["bops"] or arms["dynamic"]["bops"] in (arms["all at 3"]["bops"], arms["all at 5"]["bops"])
assert selector["macs"] == 2 * 16 * 16 + 16 * 3 * len(selector["bit_entropy"]), selector
assert {"spearman", "spearman_low", "precision", "recall", "f1", "roc_auc"} <= set(selector)
for batch, names in (("batch1", ["selector", "dynamic", "fixed"]), ("batch32", ["selector", "dynamic", "fixed", "distinct_1", "distinct_8", "distinct_32"])):
    assert set(selector[batch]) == {"share_of_time"} | {name + "_ms" for name in names}, selector[batch]
    for name in names:
        time = selector[batch][name + "_ms"]
        assert 0 < time["p50"] <= time["p95"] <= time["p99"], (name, time)
    assert 0 < selector[batch]["share_of_time"] < 1 and selector[batch]["selector_ms"]["p50"] < selector[batch]["dynamic_ms"]["p99"]
PYTHON
check 'weights of other bits, too' datafree --wbits 4 --abits 4 --selector --dynamic both --bops 0.9 --eval synthetic --limit 60 --out both
check 'whose integer run equals the quantized evaluation' [ "$(figure both/result.json agreement.codes_mismatched)" = 0 ]
check 'and whose BOPs fall with the square of the bits' python3 - <<'PYTHON'
import json
both, activations = (json.load(open(f"{name}/result.json")) for name in ("both", "dynamic-image"))
ratio = lambda result: result["arms"]["all at 3"]["bops"] / result["arms"]["all at 4"]["bops"]
assert 9 / 16 <= ratio(both) < ratio(activations) < 1, (ratio(both), ratio(activations))
assert both["cost"]["bytes"] > 2 * activations["cost"]["bytes"]  # the weights of every candidate
PYTHON
check 'infer runs that, too' "$build/examples/infer" --eval synthetic --limit 60 both/integer.safetensors
check 'its own ranges for each candidate' datafree --wbits 4 --abits 4 --selector --ranges each --choosing straight-through --law distance --out each
check 'learned ones' datafree --wbits 4 --abits 4 --selector --ranges learned --candidates 2,4,6 --selector-start highest --out learned
check 'infer runs it' "$build/examples/infer" --eval synthetic --limit 60 dynamic-image/integer.safetensors
check 'and describes it' "$build/examples/infer" --describe dynamic-image/integer.safetensors
check 'batch norms folded, ends of 8 bits' datafree --wbits 4 --abits 4 --protocol folded --skip u8 --eval synthetic --limit 60 --out folded
check 'an upper bound with real pictures says so' datafree --wbits 4 --abits 4 --real synthetic --out real
check 'in its result' [ "$(figure real/result.json images.data_free)" = False ]
for preset in zeroq dsg gdfq qimera intraq hast; do
  check "preset $preset" datafree --preset $preset --wbits 4 --abits 4 --out preset-$preset
done
for tuning in intraq hast gdfq; do
  check "tuning as $tuning" datafree --from fixed/images --tuning $tuning --wbits 4 --abits 4 --out tuning-$tuning
done
check 'without its perturbation HAST ends elsewhere' datafree --from fixed/images --tuning hast --perturbation 0 --wbits 4 --abits 4 --out unperturbed
check 'as the weights show' sh -c '! cmp -s unperturbed/model.safetensors tuning-hast/model.safetensors'

refused 'no network' 'name the trained network' "$build/examples/datafree" --wbits 4 --abits 4
refused 'an unknown preset' 'preset.*zeroqq' datafree --preset zeroqq
refused 'an unknown arm' 'arm.*alike' datafree --arm alike --out no
refused 'no BOPs' '--bops many' datafree --selector --bops many --out no
refused 'a target out of reach' 'out of reach' datafree --selector --bops 0.1 --out no
refused 'wrong candidates' '--candidates 3,x' datafree --selector --candidates 3,x --out no
refused 'a target that is no candidate' 'not among the candidates' datafree --selector --candidates 2,3 --out no
refused 'dynamic weights of other bits than the target' 'they take the candidate' datafree --wbits 3 --abits 4 --selector --dynamic both --out no
refused 'two sources of images' '--from and --real' datafree --from fixed/images --real synthetic --out no
refused 'a shared skip with a selector' '--skip shared' datafree --selector --skip shared --out no
refused 'no images in a folder' 'nothing/images.safetensors' datafree --from nothing --out no
