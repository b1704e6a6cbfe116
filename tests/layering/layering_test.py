#!/usr/bin/env python3
"""Reads the #include lines and fails on an arrow that points the wrong way. Prints a line a case."""

import os
import pathlib
import re
import sys
import tempfile

# What each room may include, itself aside. The innermost folder that is named counts.
ALLOWED = {
    'kernels': '',
    'autograd': 'kernels',
    'data/formats': 'kernels',
    'data': 'kernels data/formats',
    'nn': 'kernels autograd data/formats',
    'quant/integer': 'kernels data/formats',
    'quant': 'kernels autograd nn data/formats quant/integer',
    'examples': 'kernels autograd nn quant quant/integer data data/formats',
}
THIRD_PARTY = re.compile(r'(oneapi/|dnnl|cblas|openblas|stb|nlohmann/|zlib|zconf|CLI/|doctest/|omp\.h)')


def room_of(path):
    parts = path.split('/')
    inner = '/'.join(parts[:2])
    return inner if inner in ALLOWED else parts[0]


def includes(root, path):
    """(line number, quote or bracket, what is included); quoted paths from the root."""
    for number, line in enumerate((root / path).read_text().splitlines(), 1):
        if match := re.match(r'\s*#\s*include\s*(["<])([^">]+)', line):
            kind, target = match.groups()
            yield number, kind, os.path.normpath(f'{os.path.dirname(path)}/{target}') if kind == '"' else target


def problems(root):
    """{case: [problem]} for a source tree."""
    sources = [p.relative_to(root).as_posix() for room in ('kernels', 'autograd', 'nn', 'quant', 'data', 'examples')
               for p in sorted((root / room).rglob('*')) if p.suffix in ('.h', '.cpp')]
    sources = [s for s in sources if not s.startswith('examples/embed/')]
    found = {}
    for room, allowed in ALLOWED.items():
        case = found[f'{room} includes {("itself and " + allowed) if allowed else "only itself"}'] = []
        for source in (s for s in sources if room_of(s) == room):
            for line, kind, target in includes(root, source):
                if kind == '"' and room_of(target) not in [room, *allowed.split()]:
                    case.append(f'{source}:{line} includes {target}, which {room} must not know')
                if kind == '<' and target.startswith('stairgrad/'):
                    case.append(f'{source}:{line} includes <{target}>, expected a relative path in quotes')

    block = re.search(r"^public_headers = \[(.*?)^\]", (root / 'meson.build').read_text(), re.S | re.M)
    public = re.findall(r"'([^']+\.h)'", block.group(1)) if block else []
    foreign = found['public headers show no third party\'s types'] = [] if public else ['meson.build has no public_headers']
    closed = found['public headers include only public headers'] = []
    for header in public:
        for line, kind, target in includes(root, header):
            if kind == '<' and THIRD_PARTY.match(target):
                foreign.append(f'{header}:{line} includes <{target}>')
            if kind == '"' and target not in public:
                closed.append(f'{header}:{line} includes {target}, which meson.build does not install')
    return found


def planted(folder):
    """A tree with one wrong arrow of each kind."""
    root = pathlib.Path(folder)
    files = {
        'kernels/bad.h': '#include "../autograd/tensor.h"\n#include <dnnl.hpp>\n',
        'autograd/tensor.h': '  #  include "../nn/module.h"\n',
        'data/formats/idx.cpp': '#include "../../autograd/tensor.h"\n',
        'data/loader.h': '#include "../nn/module.h"\n',
        'nn/module.h': '#include "../quant/quantizer.h"\n',
        'quant/integer/run.cpp': '#include "../quantizer.h"\n',
        'quant/quantizer.h': '#include "../examples/common/table.h"\n',
        'examples/x.cpp': '#include <stairgrad/stairgrad.h>\n',
        'meson.build': "public_headers = [\n  'kernels/bad.h',\n]\n",
    }
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    return root


with tempfile.TemporaryDirectory() as folder:
    cases = {'a planted wrong arrow of each kind is found':
             [f'missed: {case}' for case, wrong in problems(planted(folder)).items() if not wrong]}
cases |= problems(pathlib.Path(__file__).resolve().parents[2])
for case, wrong in cases.items():
    print(*wrong, f'FAILED {case}' if wrong else f'ok {case}', sep='\n')
sys.exit(any(cases.values()))
