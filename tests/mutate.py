#!/usr/bin/env python3
"""Changes the vjp of each op, one small step at a time, and expects a failing test.

    tests/mutate.py [--build DIR] [--list] [OP ...]

Each mutant is one changed file of autograd/ops: a flipped sign, a dropped term, another operator, constant
or flag inside a vjp (or in the helpers it calls and in decompose). It is compiled by itself, linked in front
of the library and run against the room's tests. Mutants that no test notices are listed as survivors; the
exit code is their number. The build folder must be up to date (ninja -C DIR tests/autograd/test_autograd).
"""
import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OPS = os.path.join(ROOT, 'autograd', 'ops')
PROGRAM = 'tests/autograd/test_autograd'

# What is differentiated: vjps, the decompositions of fused ones, and helpers of both.
FUNCTIONS = re.compile(r'\b(?:vjp|decompose|gradient_\w+|weights_gradient|mask_by_relu|normalise)\([^;{]*\{')

RULES = [
    ('sign of the gradient', re.compile(r'v\.grad\(\)'), lambda m: '(-v.grad())'),
    ('sign', re.compile(r'(?<=[?:] )-(?=[a-z(])|(?<=[{(])-(?=[a-z(])|(?<=return )-(?=[a-z(])'), lambda m: ''),
    ('plus for minus', re.compile(r' - '), lambda m: ' + '),
    ('minus for plus', re.compile(r' \+ '), lambda m: ' - '),
    ('over for times', re.compile(r' \* '), lambda m: ' / '),
    ('times for over', re.compile(r' / '), lambda m: ' * '),
    ('dropped gradient', re.compile(r'v\.needs\(\d\) \?'), lambda m: 'false ?'),
    ('dropped gradient', re.compile(r'if \(v\.needs\(\d\)\)'), lambda m: 'if (false)'),
    ('constant', re.compile(r'(?<=[*+] )\d+(?:\.\d+)?(?=[);} ,])|(?<=\()\d+(?= [-+*/])'),
     lambda m: m.group() + '7'),
    ('flag', re.compile(r'(?<=[ (!/])(?:true|false)(?=[,)])'),
     lambda m: 'false' if m.group() == 'true' else 'true'),
    ('flag', re.compile(r'!(?=transpose_)'), lambda m: ''),
    ('exponent', re.compile(r'y \* y \* y'), lambda m: 'y * y'),
]


def bodies(source):
    """Ranges of the text inside the functions above."""
    for match in FUNCTIONS.finditer(source):
        depth, end = 1, match.end()
        while depth:
            depth += {'{': 1, '}': -1}.get(source[end], 0)
            end += 1
        yield match.end(), end - 1


def mutants(source):
    """(rule, position, mutated source) for each place where a rule applies."""
    seen = set()
    for begin, end in bodies(source):
        for name, pattern, replacement in RULES:
            for match in pattern.finditer(source, begin, end):
                line_start = source.rfind('\n', 0, match.start()) + 1
                if '//' in source[line_start:match.start()] or '[&]' in source[line_start:match.start()]:
                    continue
                mutant = source[:match.start()] + replacement(match) + source[match.end():]
                if mutant not in seen:
                    seen.add(mutant)
                    yield name, match.start(), mutant


class Bench:
    """Compiles and runs mutants with the commands of a build folder."""

    def __init__(self, build):
        self.build = build
        with open(os.path.join(build, 'compile_commands.json')) as file:
            entries = json.load(file)
        self.compile = {os.path.normpath(os.path.join(build, e['file'])): e['command'] for e in entries}
        commands = subprocess.run(['ninja', '-C', build, '-t', 'commands', PROGRAM], check=True, text=True,
                                  capture_output=True)
        self.link = shlex.split(commands.stdout.splitlines()[-1])

    def survives(self, op, path, mutant, folder):
        """None if it does not compile; else whether all tests pass."""
        changed, object_file, program = (os.path.join(folder, 'mutant' + end) for end in ('.cpp', '.o', ''))
        with open(changed, 'w') as file:
            file.write(mutant)
        command = shlex.split(self.compile[path])
        command = [part for part in command if part != 'ccache']
        command[command.index('-o') + 1] = object_file
        for flag in ('-MQ', '-MF'):
            at = command.index(flag)
            del command[at:at + 2]
        command[command.index('-c') + 1] = changed
        command = [part for part in command if part not in ('-MD', '-O3')] + ['-O0', '-w', '-iquote', OPS]
        if subprocess.run(command, cwd=self.build, capture_output=True).returncode:
            return None
        link = [part for part in self.link if part != 'ccache']
        link[link.index('-o') + 1] = program
        link.insert(1, object_file)
        subprocess.run(link, cwd=self.build, check=True, capture_output=True)
        # The laws of this op, then everything.
        for tests in ({'STAIRGRAD_OP': op}, {}):
            environment = dict(os.environ, OMP_NUM_THREADS='1', **tests)
            only = ['-tc=laws*,values*,mixed*,grad*'] if tests else []
            try:
                run = subprocess.run([program, '--abort-after=1', *only], cwd=self.build, env=environment,
                                     capture_output=True, timeout=300)
            except subprocess.TimeoutExpired:
                return False
            if run.returncode:
                return False
        return True


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('ops', nargs='*', metavar='OP',
                        help='files of autograd/ops without .cpp (default: all)')
    parser.add_argument('--build', default=os.path.join(ROOT, 'build'),
                        help='Meson build folder (default: build)')
    parser.add_argument('--list', action='store_true', help='list the mutants, run none')
    options = parser.parse_args()
    names = options.ops or sorted(name[:-4] for name in os.listdir(OPS) if name.endswith('.cpp'))
    bench = None if options.list else Bench(os.path.abspath(options.build))

    killed, refused, survivors = 0, 0, []
    with tempfile.TemporaryDirectory() as folder:
        for op in names:
            path = os.path.join(OPS, op + '.cpp')
            with open(path) as file:
                source = file.read()
            for rule, position, mutant in mutants(source):
                number = source.count('\n', 0, position) + 1
                line = mutant.splitlines()[number - 1].strip()
                description = f'{op}.cpp:{number}: {rule}: {line}'
                if options.list:
                    print(description)
                    continue
                survived = bench.survives(op, path, mutant, folder)
                verdict = {None: 'refused ', False: 'killed  ', True: 'SURVIVED'}[survived]
                print(verdict, description, flush=True)
                killed += survived is False
                refused += survived is None
                if survived:
                    survivors.append(description)
    if not options.list:
        print(f'\n{killed} killed, {refused} did not compile, {len(survivors)} survived')
        for description in survivors:
            print('  ' + description)
    return min(len(survivors), 125)


if __name__ == '__main__':
    sys.exit(main())
