#!/usr/bin/env python3
"""Inference in 8 bits in PyTorch, measured like `bench infer --dtype int8`: the same networks and keys of the result.

    tests/bench/pytorch_int8.py --model resnet18 --size 224 --classes 1000 --batch 32 --engine onednn

--engine: onednn (FX graph mode, per-channel weights, traced and frozen), inductor (PT2E with the x86 quantizer, compiled),
or f32 (batch norms folded, channels last). Ranges come from one random batch: for measuring time, not accuracy.
"""
import time

BEGAN = time.perf_counter()  # before the imports, which are part of the wait for the first answer

import argparse
import json
import os
import pathlib
import resource
import sys
import warnings

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / 'golden'))


def with_onednn(network, images):
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
    torch.backends.quantized.engine = 'onednn'
    prepared = prepare_fx(network, get_default_qconfig_mapping('onednn'), (images,))
    prepared(images)
    return torch.jit.freeze(torch.jit.trace(convert_fx(prepared), images))


def with_inductor(network, images):
    import torch._inductor.config
    from torch.ao.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torch.ao.quantization.quantizer import x86_inductor_quantizer as x86
    torch._inductor.config.freezing = True
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(torch.export.export_for_training(network, (images,)).module(), quantizer)
    prepared(images)
    return torch.compile(convert_pt2e(prepared))


def in_floats(network, images):
    from torch.fx.experimental.optimization import fuse
    return torch.jit.freeze(torch.jit.trace(fuse(network).to(memory_format=torch.channels_last), images))


ENGINES = {'onednn': with_onednn, 'inductor': with_inductor, 'f32': in_floats}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', required=True)
    parser.add_argument('--batch', type=int, default=32)
    parser.add_argument('--size', type=int, default=32)
    parser.add_argument('--classes', type=int, default=10)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--seconds', type=float, default=3)
    parser.add_argument('--engine', choices=ENGINES, default='onednn')
    o = parser.parse_args()
    import zoo
    warnings.filterwarnings('ignore')
    torch.set_num_threads(o.threads)
    torch.manual_seed(0)
    network = next(make for name, width, _, _, _, make in zoo.NETWORKS if name == o.model and width == 1)(o.classes).eval()
    images = torch.randn(o.batch, 3, o.size, o.size)
    times = []
    with torch.no_grad():
        run = ENGINES[o.engine](network, images)
        images = images.contiguous(memory_format=torch.channels_last)
        run(images)
        first = time.perf_counter() - BEGAN
        run(images), run(images)
        start = time.perf_counter()
        while len(times) < 9 or time.perf_counter() - start < o.seconds:
            began = time.perf_counter()
            run(images)
            times.append(time.perf_counter() - began)
    times.sort()
    middle = times[len(times) // 2]
    print(json.dumps({
        'images_per_second': {'median': o.batch / middle, 'min': o.batch / times[-1], 'max': o.batch / times[0]},
        'latency_ms': {'median': 1e3 * middle}, 'first_answer_ms': 1e3 * first,
        'peak_bytes': 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        'versions': {'PyTorch': torch.__version__}}), flush=True)
    os._exit(0)  # PyTorch's own exit takes seconds


if __name__ == '__main__':
    main()
