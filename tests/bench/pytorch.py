#!/usr/bin/env python3
"""A training step in PyTorch, measured like `bench train`: the same networks, options and keys of the result.

    tests/bench/pytorch.py --model resnet20 --batch 128 --dtype bf16

Channels last, bf16 by autocast, SGD with momentum: PyTorch's best on a CPU (torch.compile was slower). compare.py
sets the environment that keeps its memory; without it the page faults of every step cost up to a factor of two.
"""
import time

BEGAN = time.perf_counter()  # before the imports, which are part of the wait for the first step

import argparse
import json
import os
import pathlib
import resource
import sys

import torch
from torch.nn import functional

import quantizers

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'golden'))


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument('--model', required=True)
    parser.add_argument('--batch', type=int, default=128)
    parser.add_argument('--size', type=int, default=32)
    parser.add_argument('--classes', type=int, default=10)
    parser.add_argument('--dtype', choices=['f32', 'bf16'], default='f32')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--seconds', type=float, default=10)
    parser.add_argument('--attribution', default='', help='a loss on the Grad-CAM after this stage, such as layer3')
    parser.add_argument('--quantizer', choices=['', 'lsq', 'dsq'], default='', help='trains with quantizers of --bits')
    parser.add_argument('--bits', type=int, default=4)
    return parser.parse_args()


def main():
    o = options()
    import zoo
    torch.set_num_threads(o.threads)
    torch.manual_seed(0)
    network = next(make for name, width, _, _, _, make in zoo.NETWORKS if name == o.model and width == 1)(o.classes)
    if o.quantizer:
        quantizers.quantize(network, o.quantizer, o.bits)
    network = network.train().to(memory_format=torch.channels_last)
    images = torch.randn(o.batch, 3, o.size, o.size).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(o.batch) % o.classes
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4, nesterov=True)
    features = []
    if o.attribution:
        getattr(network, o.attribution).register_forward_hook(lambda module, inputs, output: features.append(output))
    target = None

    def loss():
        nonlocal target
        logits = network(images)
        total = functional.cross_entropy(logits, labels)
        if features:
            feature = features.pop()
            chosen = logits[:, 0].sum()
            slope, = torch.autograd.grad(chosen, feature, create_graph=True)
            cam = functional.relu((slope.sum((2, 3), keepdim=True) * feature).sum(1))
            cam = functional.normalize(cam.flatten(1))
            if target is None:
                target = torch.rand_like(cam).detach()
            total = total + functional.mse_loss(cam, target)
        return total

    def step():
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=o.dtype == 'bf16'):
            value = loss()
        value.backward()
        optimiser.step()
        return value.item()

    step()
    first = time.perf_counter() - BEGAN
    step(), step()
    times = []
    start = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - start < o.seconds:
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    times.sort()
    print(json.dumps({
        'images_per_second': {'median': o.batch / times[len(times) // 2], 'min': o.batch / times[-1],
                              'max': o.batch / times[0]},
        'steps': len(times), 'first_step_ms': 1e3 * first, 'threads': o.threads,
        'resident_bytes': 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        'versions': {'torch': torch.__version__}}), flush=True)
    os._exit(0)  # PyTorch's own exit takes seconds


if __name__ == '__main__':
    main()
