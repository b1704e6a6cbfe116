#!/bin/bash
# datafree on a small network: no data set before the end, the same bits twice, every preset, selectors of every type, and
# clear errors for wrong inputs.
#   datafree_test.sh BUILD
set -uo pipefail
. "$(dirname "$0")/kit.sh" "$1"

"$build/examples/train" --model resnet8 --dataset synthetic --limit 256 --batch 32 --seed 5 --epochs 3 --out float >train.log 2>&1
check 'a network in floats' [ -s float/model.safetensors ]
network=(--model resnet8 --init float/model.safetensors)
small=("${network[@]}" --images 48 --synthesis-batch 24 --iterations 5 --batch 16 --calibration 4)
short=("${small[@]}" --epochs 2 --steps 4)
datafree() { "$build/examples/datafree" "${short[@]}" "$@"; }
longer() { "$build/examples/datafree" "${small[@]}" "$@"; }
plain() { "$build/examples/datafree" "${network[@]}" "$@"; }

check 'fixed bits' datafree --wbits 4 --abits 4 --eval synthetic --limit 100 --out fixed
check 'the integer run equals the quantized evaluation' [ "$(figure fixed/result.json agreement.codes_mismatched)" = 0 ]
check 'last and best epoch' python3 - <<'PYTHON'
import json
accuracy = json.load(open("fixed/result.json"))["accuracy"]
assert len(accuracy["epochs"]) == 2 and accuracy["best_epoch"] >= accuracy["fake_quant"] == accuracy["epochs"][-1], accuracy
similarity = json.load(open("fixed/result.json"))["similarity"]
assert all(-1 <= value <= 1 for value in similarity.values()) and len(similarity) == 3, similarity
PYTHON
check 'pictures, labels and how they were made' sh -c '[ -s fixed/images/pictures/000047.png ] && [ -s fixed/images/pictures/labels.tsv ] && [ -s fixed/images/recipe.json ] && [ -s fixed/easy.png ] && [ -s fixed/hard.png ]'
check 'how long that took, also where they are taken from a folder' figure fixed/result.json images.recipe.seconds
check 'difficulty against real pictures' figure fixed/result.json difficulty.hard_to_real.gradient_ks
datafree --wbits 4 --abits 4 --no-best --out twice >twice.log 2>&1
check 'the same bits twice' cmp fixed/integer.safetensors twice/integer.safetensors
check 'also from the images on disk' datafree --wbits 4 --abits 4 --from fixed/images --out from
check 'with the same bits' cmp fixed/integer.safetensors from/integer.safetensors
check 'and the seconds of the synthesis, not of the loading' python3 - <<'PYTHON'
import json
made, taken = (json.load(open(f"{name}/result.json")) for name in ("fixed", "from"))
assert made["seconds"]["synthesis"] == taken["seconds"]["synthesis"] == made["images"]["recipe"]["seconds"] > 0
PYTHON

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
refused 'images that were made with other options' 'made by another network or with other options' datafree --wbits 4 --abits 4 --no-best --preset hast --resume --out twice
check 'a finished run may be resumed' datafree --wbits 4 --abits 4 --no-best --resume --out twice
cp -r twice begun && rm begun/fine-tuning.ckpt
"$build/examples/datafree" "${network[@]}" --images 48 --iterations 100000 --out begun >begun.log 2>&1 &
for _ in $(seq 500); do [ -e begun/images ] || break; sleep 0.02; done
kill -INT $!
wait $!
check 'a run that makes images leaves none of an earlier one behind' [ ! -e begun/images ]

# The data set is not there: everything is made all the same, and only the evaluation fails.
mkdir nothing
code=0
datafree --wbits 3 --abits 3 --data nothing --eval cifar10 --out blind >blind.log 2>&1 || code=$?
check 'a missing data set is missed at the very end' [ "$code" -eq 1 ]
check 'after all is saved' [ -s blind/integer.safetensors -a -s blind/model.safetensors ]
check 'and it is said when it is opened' grep -q 'only now are the test pictures of cifar10 opened' blind.log
# It is there: the pictures are a folder, and no file of it is opened before the integer model is saved.
if strace -o trace.log true 2>strace.log; then
  check 'a run whose files are traced' strace -f -e trace=openat,rename,renameat,renameat2 -o trace.log \
    "$build/examples/datafree" "${short[@]}" --wbits 3 --abits 3 --data fixed/images/pictures --eval folder --out traced
  check 'test pictures are opened, and not before all is made and saved' python3 - <<'PYTHON'
lines = open("trace.log").read().splitlines()
saved = [i for i, line in enumerate(lines) if "rename" in line and 'traced/integer.safetensors"' in line]
opened = [i for i, line in enumerate(lines) if "openat" in line and "fixed/images/pictures" in line]
assert len(opened) >= 48 and len(saved) == 1 and saved[0] < opened[0], (saved, opened[:1], len(opened))
PYTHON
else
  echo "SKIPPED: when test pictures are opened: $(head -n 1 strace.log)"
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
assert arms["all at 3"]["bops"] < arms["all at 4"]["bops"] < arms["all at 5"]["bops"]
for name in set(arms) - {"dynamic"}:
    assert arms[name]["only_this"] - arms[name]["only_dynamic"] == round(0.6 * (arms[name]["accuracy"] - arms["dynamic"]["accuracy"])), name
    assert 0 <= arms[name]["mcnemar_p"] <= 1 and (arms[name]["mcnemar_p"] == 1) >= (arms[name]["only_this"] == arms[name]["only_dynamic"]), name
# Weights have 4 bits and inputs one bit more or less, so mean bits say the BOPs where they are the same in all layers.
step = arms["all at 5"]["bops"] - arms["all at 4"]["bops"]
assert abs(arms["all at 4"]["bops"] - arms["all at 3"]["bops"] - step) < 1
assert selector["macs"] == 2 * 16 * 16 + 16 * 3 * len(selector["bit_entropy"]), selector
assert {"spearman", "spearman_low", "precision", "recall", "f1", "roc_auc"} <= set(selector)
for batch, names in (("batch1", ["selector", "dynamic", "fixed"]), ("batch32", ["selector", "dynamic", "fixed", "distinct_1", "distinct_8", "distinct_32"])):
    assert set(selector[batch]) == {"share_of_time"} | {name + "_ms" for name in names}, selector[batch]
    for name in names:
        time = selector[batch][name + "_ms"]
        assert 0 < time["p50"] <= time["p95"] <= time["p99"], (name, time)
    assert 0 < selector[batch]["share_of_time"] < 1 and selector[batch]["selector_ms"]["p50"] < selector[batch]["dynamic_ms"]["p99"]
PYTHON
# Where the selector has not learned yet its first choice is known, and so are the BOPs.
longer --wbits 4 --abits 3 --candidates 3,4,5 --selector --epochs 0 --bops 1 --eval synthetic --limit 60 --out low >low.log 2>&1
longer --wbits 4 --abits 3 --candidates 3,4,5 --selector --selector-start highest --epochs 0 --bops 1 --eval synthetic --limit 60 --out high >high.log 2>&1
pulled=(--wbits 4 --abits 4 --selector --selector-lr 0.05 --budget 100 --law distance --bops 0.85 --choosing straight-through
        --warm-up 0 --epochs 3 --steps 20 --from fixed/images --eval synthetic --limit 60)
longer "${pulled[@]}" --no-shift --out pulled >pulled.log 2>&1
longer "${pulled[@]}" --out shifted >shifted.log 2>&1
check 'the first choice is the target, or the highest; a budget pulls it down; what has failed is said by name' python3 - <<'PYTHON'
import json
low, high, pulled, shifted = (json.load(open(f"{name}/result.json")) for name in ("low", "high", "pulled", "shifted"))
names = lambda result: sorted({sentence.split(":")[0] for sentence in result["warnings"]} - {"foreign maxima"})
assert low["arms"]["dynamic"]["bops"] == low["arms"]["all at 3"]["bops"] == low["cost"]["bops"], low["arms"]
assert high["arms"]["dynamic"]["bops"] == high["arms"]["all at 5"]["bops"], high["arms"]
assert names(low) == ["collapsed selector"], low["warnings"]  # once for the made images, once for the test pictures
assert len([s for s in low["warnings"] if s.startswith("collapsed")]) == 2
assert names(high) == ["collapsed selector", "target missed"], high["warnings"]
assert pulled["arms"]["all at 3"]["bops"] <= pulled["arms"]["dynamic"]["bops"] < pulled["arms"]["all at 4"]["bops"], pulled["arms"]
lines = [json.loads(line) for line in open("pulled/metrics.jsonl")]
deployed = [line["deployed_cost"] for line in lines if line["phase"] == "fine-tuning"]
assert abs(deployed[-1] - pulled["selector"]["cost_on_made"]) < 1e-6 and deployed[-1] < 0.99, deployed
# The shift only moves what training left: at least as near, and the same where that was on target.
miss = lambda result: abs(result["selector"]["cost_on_made"] - 0.85)
# Each epoch is measured as it would be deployed: the last one is the network that was measured.
assert shifted["accuracy"]["epochs"][-1] == shifted["accuracy"]["fake_quant"], shifted["accuracy"]
# What fixed bits without a selector cost, less what is spent.
target = shifted["arms"]["all at 4"]["bops"] - shifted["selector"]["bops"]
assert abs(target - shifted["arms"]["dynamic"]["bops"] - shifted["selector"]["bops_saved"]) < 1, shifted
assert abs(shifted["selector"]["cost_on_test"] / (shifted["arms"]["dynamic"]["bops"] / shifted["arms"]["all at 4"]["bops"]) - 1) < 1e-6
assert miss(shifted) <= miss(pulled) and shifted["selector"]["shift"] != 0, (shifted["selector"], pulled["selector"])
PYTHON
check 'a collapse is told without any data' longer --wbits 4 --abits 4 --selector --epochs 0 --bops 3 --out beyond
check 'and a target above the highest bits' python3 - <<'PYTHON'
import json
warnings = json.load(open("beyond/result.json"))["warnings"]
for name in ("target out of reach", "target missed", "collapsed selector"):
    assert any(sentence.startswith(name + ":") for sentence in warnings), (name, warnings)
PYTHON
# A class whose row is long is what all classes are most similar to.
python3 - <<'PYTHON'
import json, struct
data = bytearray(open("float/model.safetensors", "rb").read())
(size,) = struct.unpack("<Q", data[:8])
header, data = json.loads(data[8 : 8 + size]), data[8 + size :]
del header["__metadata__"]["stairgrad.checksum"]  # that of the weights as they were
rows, columns = header["linear.weight"]["shape"]
start = header["linear.weight"]["data_offsets"][0]
weights = [list(struct.unpack_from(f"<{columns}f", data, start + 4 * columns * r)) for r in range(rows)]
weights[0] = [10 * sum(w[k] for w in weights[1:]) for k in range(columns)]
struct.pack_into(f"<{columns}f", data, start, *weights[0])
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
open("foreign.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + data)
PYTHON
refused 'images of another network' 'made by another network' "$build/examples/datafree" --model resnet8 --init foreign.safetensors "${small[@]:4}" --wbits 4 --abits 4 --no-best --resume --out twice
check 'a row of large norm' "$build/examples/datafree" --model resnet8 --init foreign.safetensors --images 16 --iterations 2 --epochs 0 --out foreign
check 'is told' python3 -c 'import json; assert any(s.startswith("foreign maxima: ") for s in json.load(open("foreign/result.json"))["warnings"])'
check 'options of what the paper leaves open' datafree --wbits 4 --abits 4 --selector --similar-min 0.1 --smoothing 0.2 --focal 1 --synthesis-augment 0.5 --mixup-alpha 0.2 --gumbel-start 2 --gumbel-end 0.2 --selector-width 8 --bops 0.95 --out open
check 'of which the selector has its width' python3 -c 'import json; r = json.load(open("open/result.json")); assert r["images"]["recipe"]["augment"] == 0.5 and r["images"]["recipe"]["focal"] == 1 and r["images"]["recipe"]["labels"]["least_similarity"] == 0.1 and r["selector"]["macs"] * 2 == json.load(open("dynamic-image/result.json"))["selector"]["macs"]'
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
check 'labels that were drawn or answered, and no figure of images that are not there' python3 - <<'PYTHON'
import json
for preset in ("zeroq", "dsg", "gdfq", "qimera", "intraq", "hast"):
    result = json.load(open(f"preset-{preset}/result.json"))
    assert result["images"]["recipe"]["labels"]["from"] == ("teacher" if preset in ("zeroq", "dsg") else "drawn"), preset
    assert ("hard" in result["difficulty"]) == (preset == "qimera"), preset
    assert None not in [value for part in result["difficulty"].values() for value in part.values()], preset
PYTHON
for tuning in intraq hast gdfq; do
  check "tuning as $tuning" datafree --from fixed/images --tuning $tuning --wbits 4 --abits 4 --out tuning-$tuning
done
check 'without its perturbation HAST ends elsewhere' datafree --from fixed/images --tuning hast --perturbation 0 --wbits 4 --abits 4 --out unperturbed
check 'as the weights show' sh -c '! cmp -s unperturbed/model.safetensors tuning-hast/model.safetensors'

refused 'no network' 'name the trained network' "$build/examples/datafree" --wbits 4 --abits 4
refused 'an unknown preset' 'preset.*zeroqq' datafree --preset zeroqq
refused 'an unknown arm' 'arm.*alike' datafree --arm alike --out no
refused 'no BOPs' '--bops many' datafree --selector --bops many --out no
refused 'a target out of reach' 'out of reach' datafree --selector --bops 0.1 --out unreached
check 'before images are made' [ ! -e unreached/images ]
refused 'nothing to choose from' '--candidates 4: got one candidate' datafree --selector --candidates 4 --abits 4 --out no
refused 'no class in a group' '--group: got 0' plain --group 0 --out no
refused 'no images of a step' '--batch: got 0' plain --batch 0 --out no
refused 'iterations below 0' '--iterations: got -5' plain --iterations -5 --out no
refused 'a learning rate below 0' '--lr: got -1' plain --lr -1 --out no
refused 'a temperature of 0' 'the temperature 0' plain --temperature 0 --out no
refused 'nothing to learn' 'nothing to learn' plain --kd 0 --ce 0 --out no
refused 'wrong candidates' '--candidates 3,x' datafree --selector --candidates 3,x --out no
refused 'a target that is no candidate' 'not among the candidates' datafree --selector --candidates 2,3 --out no
refused 'dynamic weights of other bits than the target' 'they take the candidate' datafree --wbits 3 --abits 4 --selector --dynamic both --out no
refused 'two sources of images' '--from and --real' datafree --from fixed/images --real synthetic --out no
refused 'a shared skip with a selector' '--skip shared' datafree --selector --skip shared --out no
refused 'no images in a folder' 'nothing/images.safetensors' datafree --from nothing --out no
