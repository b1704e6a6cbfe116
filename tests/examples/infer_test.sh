#!/bin/bash
# infer on pictures: a model file of ours, one of PyTorch, a published one; and clear errors for wrong inputs.
#   infer_test.sh BUILD
set -uo pipefail
pictures=$(cd "$(dirname "$0")/../data/pictures" && pwd)
data=${STAIRGRAD_DATA:-${XDG_CACHE_HOME:-$HOME/.cache}/stairgrad}
. "$(dirname "$0")/kit.sh" "$1"

infer() { "$build/examples/infer" "$@"; }

"$build/examples/train" --model resnet8 --width 0.25 --dataset synthetic --limit 200 --epochs 1 --out made >train.log 2>&1 ||
  { echo "FAILED a network to ask"; cat train.log; exit 1; }
model=made/model.safetensors

five_classes() {
  infer "$model" "$pictures/baseline.jpg" "$pictures/grey.jpg" --out said >said.log || return 1
  [ "$(grep -c '^grating [0-9] .* %$' said.log)" -eq 10 ] &&
    [ "$(find said -name '*.gradcam.png' | wc -l)" -eq 2 ] &&
    [ "$(head -c 8 said/1-baseline.gradcam.png | od -An -tx1 | tr -d ' ')" = 89504e470d0a1a0a ] &&
    python3 - <<'PYTHON'
import json
first, second = json.load(open('said/result.json'))['images']
shares = [c['probability'] for c in first['top']]
assert len(shares) == 5 and shares == sorted(shares, reverse=True) and 0.5 < sum(shares) <= 1 + 1e-6, shares
assert all(c['name'] == f"grating {c['class']}" for c in first['top'] + second['top'])
PYTHON
}
check 'five classes by name, and where the network looks' five_classes

own_labels() {
  printf 'one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten\n' >names.txt
  infer "$model" "$pictures/baseline.jpg" --labels names.txt --top 10 >said.log && grep -q '^seven .* %$' said.log
}
check 'names from a file' own_labels
check 'a description' sh -c "'$build/examples/infer' --describe $model | grep -q 'classes *10'"

# the same network in integers
"$build/examples/qat" --model resnet8 --width 0.25 --dataset synthetic --limit 200 --epochs 1 --init "$model" --quantizer lsq --wbits 8 --abits 8 --out integers >qat.log 2>&1 ||
  { echo "FAILED an integer model to ask"; cat qat.log; exit 1; }
whole=integers/integer.safetensors

in_integers() {
  infer "$whole" "$pictures/baseline.jpg" --out said >said.log && [ "$(grep -c '^grating [0-9] .* %$' said.log)" -eq 5 ] &&
    [ "$(head -c 8 said/1-baseline.gradcam.png | od -An -tx1 | tr -d ' ')" = 89504e470d0a1a0a ]
}
check 'five classes and a Grad-CAM of an integer model' in_integers

without_attribution() {
  mkdir -p every && "$build/tests/quant/integer_codes" every && infer every/model.safetensors "$pictures/baseline.jpg" --out every >said.log &&
    [ "$(grep -c '^[a-e] .* %$' said.log)" -eq 5 ] && grep -q '^no Grad-CAM: .*one pixel' said.log && python3 - <<'PYTHON'
import json
image, = json.load(open('every/result.json'))['images']
assert len(image['top']) == 5 and 'gradcam' not in image, image
PYTHON
}
check 'five classes without a Grad-CAM, of pictures that are not square, of a model whose layers after the last map are several' without_attribution

described() {
  infer --describe "$whole" --out described >described.log && grep -q '^layer1.0.conv1 *convolution *3x3 .* 8 ' described.log &&
    grep -q 'bytes of parameters' described.log && grep -q '<table' described/describe.html
}
check 'an integer model described as a table and a page' described

evaluated() {
  infer --eval synthetic --limit 200 "$whole" --out evaluated >eval.log && python3 - <<'PYTHON'
import json
assert json.load(open('evaluated/result.json'))['accuracy']['top1'] == json.load(open('integers/result.json'))['accuracy']['integer']
PYTHON
}
check 'its accuracy is what qat found' evaluated

printf 'one\ntwo\n' >few.txt
refused 'labels for another number of classes' 'got 2 names, expected 10' infer "$model" "$pictures/baseline.jpg" --labels few.txt
refused 'no picture' 'IMAGE' infer "$model"
refused 'a picture that is none' 'names.txt' infer "$model" names.txt
refused 'a recipe without a network' '--model' infer "$model" "$pictures/baseline.jpg" --import pytorch
refused 'a file of another framework' 'missing: .*unexpected: ' infer "$model" "$pictures/baseline.jpg" --import keras --model mobilenet_v1

weights=$data/weights/imagenet_mobilenet_v2_1.0_224_fp32_dequantised.safetensors
photos=$data/imagenet1000-256
if [ -f "$weights" ] && [ -f "$photos/labels.tsv" ]; then
  published() {
    infer --import tensorflow-folded --model mobilenet_v2 --labels "$photos/labels.tsv" "$weights" \
      "$photos/n01440764.jpg" >said.log && sed -n 4p said.log | grep -q '^tench .* [89].\... %$'
  }
  check 'a published network knows a tench' published
else
  echo "SKIPPED: no MobileNetV2 weights or ImageNet pictures in $data"
  echo "ok a published network knows a tench"
fi
