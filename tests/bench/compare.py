#!/usr/bin/env python3
"""Measures training steps of stairgrad and PyTorch in turns and writes the table of this folder's README.

    tests/bench/compare.py [--rows WORD] [--rounds 3] [--python python3] [--busy]

Nothing else may run meanwhile. Every round runs both programs once; a row shows the median over the rounds of their
medians and the smallest and largest of them. --python names the interpreter, also one in another root:
"chroot ROOT python3" (give --script the path of pytorch.py there). --busy adds a process that spins on one core.
"""
import argparse
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent

# name, options of both programs, of stairgrad's, of PyTorch's
ROWS = [
    ('ResNet-20, 32x32, batch 128, f32', '--model resnet20 --batch 128 --dtype f32', '', ''),
    ('ResNet-20, 32x32, batch 128, bf16', '--model resnet20 --batch 128 --dtype bf16', '', ''),
    ('ResNet-18 (CIFAR stem), batch 128, f32', '--model resnet18_cifar --batch 128 --dtype f32', '', ''),
    ('ResNet-18 (CIFAR stem), batch 128, bf16', '--model resnet18_cifar --batch 128 --dtype bf16', '', ''),
    ('MobileNetV2 (CIFAR stem), batch 128, f32', '--model mobilenet_v2_cifar --batch 128 --dtype f32', '', ''),
    ('MobileNetV2 (CIFAR stem), batch 128, bf16', '--model mobilenet_v2_cifar --batch 128 --dtype bf16', '', ''),
    ('ResNet-18 at 224, batch 16, bf16', '--model resnet18 --size 224 --classes 1000 --batch 16 --dtype bf16', '', ''),
    ('MobileNetV2 at 224, batch 16, f32', '--model mobilenet_v2 --size 224 --classes 1000 --batch 16 --dtype f32', '', ''),
    ('MobileNetV2 at 224, batch 16, bf16', '--model mobilenet_v2 --size 224 --classes 1000 --batch 16 --dtype bf16',
     '', ''),
    ('Grad-CAM loss at layer3, ResNet-18 (CIFAR stem), batch 128, f32',
     '--model resnet18_cifar --batch 128 --dtype f32', '--attribution layer3.1', '--attribution layer3'),
    ('Grad-CAM loss at layer3, ResNet-18 (CIFAR stem), batch 128, bf16',
     '--model resnet18_cifar --batch 128 --dtype bf16', '--attribution layer3.1', '--attribution layer3'),
    ('ResNet-20, 4/4 LSQ, batch 128, f32', '--model resnet20 --batch 128 --dtype f32 --quantizer lsq',
     '--wbits 4 --abits 4', '--bits 4'),
    ('ResNet-20, 4/4 LSQ, batch 128, bf16', '--model resnet20 --batch 128 --dtype bf16 --quantizer lsq',
     '--wbits 4 --abits 4 --integer-forward', '--bits 4'),
    ('ResNet-20, 4/4 DSQ, batch 128, f32', '--model resnet20 --batch 128 --dtype f32 --quantizer dsq',
     '--wbits 4 --abits 4', '--bits 4'),
    ('ResNet-20, 4/4 DSQ, batch 128, bf16', '--model resnet20 --batch 128 --dtype bf16 --quantizer dsq',
     '--wbits 4 --abits 4 --integer-forward', '--bits 4'),
]

# PyTorch gives memory back to the system at every step; this keeps it.
KEEP_MEMORY = {'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': str(1 << 34), 'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1'}


def run(command, **environment):
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    lines = [line for line in done.stdout.splitlines() if line.startswith('{')]
    if not lines:
        sys.exit(f'{shlex.join(command)} gave no result:\n{done.stdout}{done.stderr}')
    return json.loads(lines[-1])


def summary(results):
    rates = [r['images_per_second']['median'] for r in results]
    middle = statistics.median(rates)
    text = f'{middle:,.0f} ({min(rates):,.0f} - {max(rates):,.0f})' if middle >= 100 else \
        f'{middle:.1f} ({min(rates):.1f} - {max(rates):.1f})'
    return {'rate': middle, 'text': text, 'memory': statistics.median(r['resident_bytes'] for r in results) / 1e6,
            'first': statistics.median(r['first_step_ms'] for r in results)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rows', default='', help='only rows with this word in their name')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--seconds', type=float, default=5, help='of each measurement')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--python', default='python3')
    parser.add_argument('--script', default=str(HERE / 'pytorch.py'))
    parser.add_argument('--build', default=str(HERE.parent.parent / 'build'))
    parser.add_argument('--busy', action='store_true', help='while another process keeps one core busy')
    o = parser.parse_args()
    common = ['--threads', str(o.threads), '--seconds', str(o.seconds)]
    busy = subprocess.Popen([sys.executable, '-c', 'while True: pass']) if o.busy else None
    try:
        print('| training step | PyTorch | stairgrad | ratio | resident MB | first step, ms |')
        print('|---|---|---|---|---|---|')
        for name, both, own, other in ROWS:
            if o.rows not in name:
                continue
            ours, theirs = [], []
            for _ in range(o.rounds):
                theirs.append(run([*shlex.split(o.python), o.script, *both.split(), *other.split(), *common],
                                  OMP_NUM_THREADS=str(o.threads), **KEEP_MEMORY))
                ours.append(run([o.build + '/examples/bench', 'qat' if '--quantizer' in both else 'train', *both.split(), *own.split(), *common, '--json']))
            a, b = summary(theirs), summary(ours)
            print(f'| {name} | {a["text"]} | {b["text"]} | {b["rate"] / a["rate"]:.2f} | '
                  f'{a["memory"]:.0f} / {b["memory"]:.0f} | {a["first"]:.0f} / {b["first"]:.0f} |', flush=True)
    finally:
        if busy:
            busy.kill()
    print(f'\nPyTorch {theirs[-1]["versions"]["torch"]}; stairgrad with {ours[-1]["versions"]}; {ours[-1]["cpu"]}; '
          f'{o.threads} threads, {o.rounds} rounds in turns.')


if __name__ == '__main__':
    main()
