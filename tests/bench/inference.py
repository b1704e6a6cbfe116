#!/usr/bin/env python3
"""Measures inference in 8 bits of stairgrad, PyTorch and ONNX Runtime in turns and writes the table of this folder's README.

    tests/bench/inference.py --onnx FOLDER [--rows WORD] [--rounds 3] [--threads 2] [--python python3]

Nothing else may run meanwhile. Every round runs each program once; a row shows the median over the rounds of their medians and the
smallest and largest of them. FOLDER holds what onnx_int8.py wrote; NODE_PATH must name the folder with onnxruntime-node. --python
names the interpreter, also one in another root: "chroot ROOT python3" (give --script the path of pytorch_int8.py there).
"""
import argparse
import pathlib
import shlex
import statistics
import tempfile

from compare import HERE, KEEP_MEMORY, run

NETWORKS = [('ResNet-18 at 224', 'resnet18', 224, 1000), ('ResNet-50 at 224', 'resnet50', 224, 1000),
            ('MobileNetV2 at 224', 'mobilenet_v2', 224, 1000), ('ResNet-20 at 32', 'resnet20', 32, 10)]


def programs(o, model, size, classes, batch, models):
    """Name -> command and environment."""
    common = ['--model', model, '--size', str(size), '--classes', str(classes), '--batch', str(batch), '--threads', str(o.threads),
              '--seconds', str(o.seconds)]
    pytorch = [*shlex.split(o.python), o.script, *common, '--engine']
    memory = {'OMP_NUM_THREADS': str(o.threads), **KEEP_MEMORY}
    return {
        'ONNX Runtime': (['node', str(HERE / 'onnxruntime.js'), str(pathlib.Path(o.onnx) / f'{model}_b{batch}.onnx'), str(batch), str(size),
                          str(o.threads), str(o.seconds)], {}),
        'PyTorch onednn': ([*pytorch, 'onednn'], memory),
        'PyTorch inductor': ([*pytorch, 'inductor'], memory),
        'stairgrad': ([o.build + '/examples/bench', 'infer', *common, '--dtype', 'int8', '--skip', o.skip, '--file', f'{models}/{model}.integer',
                       '--json'], {}),
    }


def summary(results, field):
    values = [r[field]['median'] for r in results]
    return statistics.median(values), min(values), max(values)


def shown(numbers, digits):
    middle, low, high = (f'{x:,.{digits}f}' for x in numbers)
    return f'{middle} ({low} - {high})'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--onnx', required=True)
    parser.add_argument('--rows', default='', help='only rows with this word in their name')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--seconds', type=float, default=2, help='of each measurement')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--skip', default='u8', help='what residual adds read: u8, shared or float')
    parser.add_argument('--python', default='python3')
    parser.add_argument('--script', default=str(HERE / 'pytorch_int8.py'))
    parser.add_argument('--build', default=str(HERE.parent.parent / 'build'))
    o = parser.parse_args()
    versions = {}
    with tempfile.TemporaryDirectory() as models:
        print('| network | ' + ' | '.join(programs(o, 'resnet20', 32, 10, 1, models)) + ' | ratio to the best | resident MB | first answer, ms |')
        print('|---|--:|--:|--:|--:|--:|--:|--:|')
        for batch in (32, 1):
            for name, model, size, classes in NETWORKS:
                row = f'{name}, batch {batch}'
                if o.rows not in row:
                    continue
                commands = programs(o, model, size, classes, batch, models)
                run(commands['stairgrad'][0])  # writes the model file
                results = {program: [] for program in commands}
                for _ in range(o.rounds):
                    for program, (command, environment) in commands.items():
                        results[program].append(run(command, **environment))
                        versions.update(results[program][-1]['versions'])
                field, digits = ('images_per_second', 0) if batch > 1 else ('latency_ms', 3)
                found = {program: summary(r, field) for program, r in results.items()}
                own = found['stairgrad'][0]
                peers = [numbers[0] for program, numbers in found.items() if program != 'stairgrad']
                ratio = own / max(peers) if batch > 1 else min(peers) / own
                middle = {p: [statistics.median(r[key] for r in all_of) for key in ('peak_bytes', 'first_answer_ms')]
                          for p, all_of in results.items()}
                print(f'| {row}{", images/s" if batch > 1 else ", ms"} | ' + ' | '.join(shown(found[p], digits) for p in commands) +
                      f' | {ratio:.2f} | ' + ' / '.join(f'{m[0] / 1e6:.0f}' for m in middle.values()) + ' | ' +
                      ' / '.join(f'{m[1]:,.0f}' for m in middle.values()) + ' |', flush=True)
    print(f'\n{versions}; {o.threads} threads, {o.rounds} rounds in turns, skip {o.skip}.')


if __name__ == '__main__':
    main()
