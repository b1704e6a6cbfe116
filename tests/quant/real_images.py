#!/usr/bin/env python3
"""Quantizes networks with real weights and compares their integer run with the quantized evaluation, on real images.

    tests/quant/real_images.py BUILD [--images 1000] [--only resnet20] [--out FOLDER]

Every network at 8/8, at 4/4 and with a mixed policy, in each skip mode. One line a run, as a Markdown table; ends with exit code 1 if
a code or logit differs anywhere. ResNets train for one epoch of so many images with their quantizers; MobileNets get ranges of least error.
Data and weights: $STAIRGRAD_DATA, then the cache (data/README.md).
"""
import argparse
import itertools
import json
import os
import pathlib
import subprocess
import sys

CIFAR = ["--dataset", "cifar10"]
IMAGENET = ["--dataset", "folder", "--size", "224", "--epochs", "0", "--quantizer", "ste:range=mse", "--granularity", "channel"]
QAT = ["--quantizer", "lsq", "--epochs", "1", "--lr", "0.01", "--dtype", "bf16", "--integer-forward"]
BITS = ["8/8", "4/4", "mixed"]
SKIPS = ["u8", "shared", "float"]
INNER_BITS = [(8, 8), (4, 4), (2, 3), (6, 5), (3, 8)]


def data_folder():
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(os.environ.get("STAIRGRAD_DATA") or pathlib.Path(cache) / "stairgrad")


def networks(data):
    """Name -> options of qat."""
    weights = data / "weights"
    imagenet = IMAGENET + ["--data", str(data / "imagenet1000-256")]
    return {
        "resnet20": ["--model", "resnet20", "--import", "pytorch", "--init", str(weights / "akamaster_resnet20-12fca82f.th")] + CIFAR + QAT,
        "resnet18_cifar": ["--model", "resnet18_cifar"] + CIFAR + QAT,
        "mobilenet_v1": ["--model", "mobilenet_v1", "--width", "0.25", "--import", "keras",
                         "--init", str(weights / "imagenet_mobilenet_v1_0.25_224_fp32.safetensors")] + imagenet,
        "mobilenet_v2": ["--model", "mobilenet_v2", "--import", "tensorflow-folded",
                         "--init", str(weights / "imagenet_mobilenet_v2_1.0_224_fp32_dequantised.safetensors")] + imagenet,
    }


class Runs:
    def __init__(self, build, out, images):
        self.programs, self.out, self.images = pathlib.Path(build) / "examples", pathlib.Path(out), images

    def run(self, program, name, options):
        """The result of a run; one that has ended is not repeated."""
        folder = self.out / name
        if not (folder / "result.json").exists():
            command = [str(self.programs / program), "--out", str(folder), *options]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return json.loads((folder / "result.json").read_text())

    def mixed(self, name, options, skip):
        """A policy file: other bits for each layer that has 4 in the uniform one. What reads a shared skip keeps the skip's bits."""
        uniform = json.loads((self.out / f"{name}-4-4-{skip}" / "policy.json").read_text())
        inner = [layer for layer in uniform["layers"].values() if layer["w_bits"] == 4]
        for layer, (w_bits, a_bits) in zip(inner, itertools.cycle(INNER_BITS)):
            layer["w_bits"] = w_bits
            if skip != "shared":
                layer["a_bits"] = a_bits
        path = self.out / f"{name}-mixed-{skip}.json"
        path.write_text(json.dumps(uniform, indent=1))
        return ["--policy", str(path)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--only", default="", help="networks whose name has this in it")
    parser.add_argument("--out", default="real_images", help="folder of the runs")
    asked = parser.parse_args()
    data, runs = data_folder(), Runs(asked.build, asked.out, asked.images)
    runs.out.mkdir(parents=True, exist_ok=True)
    print("| network | bits | skip | images | accuracy, % | codes that differ | of | top-1 as quantized evaluation | top-1 as f32 fake quantization | codes off from that, % |")
    print("|---|---|---|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    different = 0
    for name, options in networks(data).items():
        if asked.only not in name:
            continue
        limit = ["--limit", str(asked.images)]
        if "--init" not in options:
            float_run = ["--epochs", "3", "--limit", "10000", "--dtype", "bf16", *options[:options.index("--quantizer")]]
            runs.run("train", name, float_run)
            options = [*options, "--init", str(runs.out / name / "model.safetensors")]
        for bits, skip in itertools.product(BITS, SKIPS):
            precision = runs.mixed(name, options, skip) if bits == "mixed" else ["--wbits", bits[0], "--abits", bits[2], "--skip", skip]
            result = runs.run("qat", f"{name}-{bits.replace('/', '-')}-{skip}", [*options, *limit, *precision])
            a = result["agreement"]
            different += a["codes_mismatched"] + a["logits_differing"]
            print(f"| {name} | {bits} | {skip} | {a['images']:,} | {result['accuracy']['integer']:.1f} | {a['codes_mismatched']} | {a['codes_total']:,} "
                  f"| {a['top1']:,} | {a['fake_quant_top1']:,} | {a['fake_quant_codes_differing_percent']:.4f} |", flush=True)
    sys.exit(different > 0)


main()
