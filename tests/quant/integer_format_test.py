#!/usr/bin/env python3
"""Runs an integer model from its file, by quant/integer/FORMAT.md alone, and compares every code with the C++ run.

    integer_format_test.py BUILD
"""

import json
import math
import pathlib
import struct
import subprocess
import sys
import tempfile
import zlib
from fractions import Fraction


# --- container ---

def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    length = struct.unpack('<Q', data[:8])[0]
    header = json.loads(data[8:8 + length])
    metadata = header.pop('__metadata__', {})
    letters = {'U8': 'B', 'F32': 'f'}
    tensors = {}
    crc = 0
    for name, entry in sorted(header.items()):
        begin, end = entry['data_offsets']
        count = math.prod(entry['shape'])
        body = data[8 + length + begin:8 + length + end]
        tensors[name] = list(struct.unpack(f'<{count}{letters[entry["dtype"]]}', body))
        extents = ','.join(str(extent) for extent in entry['shape'])
        crc = zlib.crc32(body, zlib.crc32(f'{name} {entry["dtype"].lower()}({extents})\n'.encode(), crc))
    graph = metadata.get('stairgrad.integer_model')
    assert graph is None or f'{zlib.crc32(graph.encode(), crc):08x}' == metadata['stairgrad.checksum'], 'another checksum'
    return metadata, tensors


# --- arithmetic ---

def f32(x):
    """Rounds a double; right for sums and products of two f32, because f64 has more than twice their digits."""
    return struct.unpack('<f', struct.pack('<f', x))[0]


def fma(a, b, c):
    """a * b + c with one rounding to f32: the nearest of the three f32 around the double nearest to it."""
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    near = f32(float(exact))
    bits = struct.unpack('<i', struct.pack('<f', near))[0]
    candidates = [struct.unpack('<f', struct.pack('<i', bits + step))[0] for step in (-1, 0, 1) if bits not in (0, -2**31) or step == 0]
    return min(candidates, key=lambda x: (abs(Fraction(x) - exact), struct.unpack('<i', struct.pack('<f', x))[0] & 1))


def limit(t, low, high):
    return (t if t < high else high) if t > low else low


def round_saturate(t, low, high):
    return round(limit(t, low, high))  # Python rounds half to even


# --- layers: a value is a flat list in the order (h, w, c) ---

class Model:
    def __init__(self, path):
        metadata, self.tensors = read_safetensors(path)
        graph = json.loads(metadata['stairgrad.integer_model'])
        assert graph['version'] == 3  # one layer has other weights
        self.values, self.layers = graph['values'], graph['layers']
        self.input, self.output = graph['input'], graph['output']

    def run(self, image, choices):
        self.x = {self.input: image}
        for number, layer in enumerate(self.layers):
            self.x[layer['dst']] = getattr(self, layer['op'])(layer, number, choices)
        return self.x

    def grid(self, index, choices):
        value = self.values[index]
        return value['alternatives'][choices[value['choice']]] if 'alternatives' in value else value

    def shape(self, index):
        return self.values[index]['shape']

    def encode(self, layer, number, choices):
        grid = self.values[layer['dst']]
        inverse = f32(1.0 / grid['scale'])
        return [round_saturate(f32(f32(x * inverse) + grid['zero_point']), 0, grid['hi']) for x in self.x[layer['src']]]

    def remap(self, layer, number, choices):
        value = self.values[layer['dst']]
        table = layer['tables'][choices[value['choice']] if 'choice' in value else 0]
        return [table[code] for code in self.x[layer['src']]]

    def moments(self, layer, number, choices):
        h, w, c = self.shape(layer['src'])
        src, dst = self.values[layer['src']], self.values[layer['dst']]
        means, deviations = [], []
        for channel in range(c):
            codes = [int(x - src['zero_point']) for x in self.x[layer['src']][channel::c]]
            mean = sum(codes) / (h * w)
            means.append(mean)
            deviations.append(math.sqrt(max(0.0, sum(x * x for x in codes) / (h * w) - mean * mean)))
        inverse = f32(1.0 / dst['scale'])
        return [round_saturate(f32(f32(f32(src['scale'] * x) * inverse) + dst['zero_point']), 0, dst['hi']) for x in means + deviations]

    def select(self, layer, number, choices):
        logits, sites = self.x[layer['src']], self.shape(layer['dst'])[2]
        k = len(logits) // sites
        for site in range(sites):
            group = logits[site * k:(site + 1) * k]
            choices[layer['first'] + site] = group.index(max(group))
        return choices[layer['first']:layer['first'] + sites]

    def concat(self, layer, number, choices):
        h, w, _ = self.shape(layer['dst'])
        result = []
        for pixel in range(h * w):
            for src in layer['srcs']:
                c = self.shape(src)[2]
                result += self.x[src][pixel * c:(pixel + 1) * c]
        return result

    def subsample(self, layer, number, choices):
        h, w, c = self.shape(layer['src'])
        value = self.values[layer['dst']]
        zero = value['zero_point'] if value['codes'] else 0
        result = []
        for y in range(0, h, layer['stride'][0]):
            for x in range(0, w, layer['stride'][1]):
                at = (y * w + x) * c
                result += [zero] * layer['before'] + self.x[layer['src']][at:at + c] + [zero] * layer['after']
        return result

    def max_pool(self, layer, number, choices):
        return [max(x for x in window if x is not None) for window in self.windows(layer)]

    def average_pool(self, layer, number, choices):
        src, dst = self.values[layer['src']], self.values[layer['dst']]
        outside = src['zero_point'] if src['codes'] else 0
        result = []
        for window in self.windows(layer):
            total = 0.0
            for x in window:
                total += outside if x is None else x
            t = f32(f32(f32(total) + layer['b']) * layer['m'])
            result.append(round_saturate(t, 0, dst['hi']) if dst['codes'] else t)
        return result

    def windows(self, layer):
        """Of each result: the elements from the top left on, None for padding."""
        h, w, c = self.shape(layer['src'])
        oh, ow, _ = self.shape(layer['dst'])
        source = self.x[layer['src']]
        for y in range(oh):
            for x in range(ow):
                for channel in range(c):
                    window = []
                    for ky in range(layer['kernel'][0]):
                        for kx in range(layer['kernel'][1]):
                            sy = y * layer['stride'][0] - layer['padding'][0] + ky
                            sx = x * layer['stride'][1] - layer['padding'][1] + kx
                            inside = 0 <= sy < h and 0 <= sx < w
                            window.append(source[(sy * w + sx) * c + channel] if inside else None)
                    yield window

    def weights(self, layer, number, alternative):
        own = alternative if 'other_weights' in layer else 0
        packing = layer['other_weights'][own - 1] if own else layer
        packed, bits = self.tensors[f'layers.{number}.weights' + (f'.{own}' if own else '')], packing['weight_bits']
        string = int.from_bytes(bytes(packed), 'little')
        count = math.prod(layer['weights'])
        offsets = packing['weight_offset'] if isinstance(packing['weight_offset'], list) else [packing['weight_offset']]
        size = count // layer['weights'][0]
        return [offsets[i // size if len(offsets) > 1 else 0] + packing['weight_step'] * (string >> i * bits & (1 << bits) - 1)
                for i in range(count)]

    def convolution(self, layer, number, choices):
        h, w, ic = self.shape(layer['src'])
        oh, ow, oc = self.shape(layer['dst'])
        _, kh, kw, depth = layer['weights']
        zero = self.grid(layer['src'], choices)['zero_point']
        value = self.values[layer['src']]
        row = choices[value['choice']] if 'choice' in value else 0
        source, weights = self.x[layer['src']], self.weights(layer, number, row)
        b, m = (self.tensors[f'layers.{number}.{name}'][row * oc:(row + 1) * oc] for name in 'bm')
        top, _, left, _ = layer['padding']
        result = []
        for y in range(oh):
            for x in range(ow):
                for o in range(oc):
                    first = o // (oc // layer['groups']) * depth
                    acc = 0
                    for ky in range(kh):
                        for kx in range(kw):
                            sy = y * layer['stride'][0] - top + ky * layer['dilation'][0]
                            sx = x * layer['stride'][1] - left + kx * layer['dilation'][1]
                            inside = 0 <= sy < h and 0 <= sx < w
                            for c in range(depth):
                                code = source[(sy * w + sx) * ic + first + c] if inside else zero
                                acc += int(code) * weights[((o * kh + ky) * kw + kx) * depth + c]
                    t = f32(f32(f32(acc) + b[o]) * m[o])
                    result.append(self.finished(layer, t, len(result)))
        return result

    def finished(self, layer, t, at):
        if layer['skip'] >= 0:
            skip = self.x[layer['skip']][at]
            t = fma(skip, layer['skip_ratio'], t) if self.values[layer['skip']]['codes'] else f32(t + skip)
        if self.values[layer['dst']]['codes']:
            return round_saturate(t, layer['lo'], layer['hi'])
        return limit(t, layer.get('low', -math.inf), layer.get('high', math.inf))


def main():
    program = pathlib.Path(sys.argv[1]).resolve() / 'tests/quant/integer_codes'
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program, folder], check=True)
        model = Model(f'{folder}/model.safetensors')
        _, run = read_safetensors(f'{folder}/run.safetensors')
    sizes = [math.prod(value['shape']) for value in model.values]
    images = len(run['values.0']) // sizes[0]
    columns = len(run['choices']) // images
    wrong = [0] * len(sizes)
    spread = [set() for _ in sizes]
    for i in range(images):
        image = run[f'values.{model.input}'][i * sizes[model.input]:(i + 1) * sizes[model.input]]
        choices = [0] * columns
        values = model.run(image, choices)
        wrong[0] += choices != run['choices'][i * columns:(i + 1) * columns]
        for index, size in enumerate(sizes):
            expected = run[f'values.{index}'][i * size:(i + 1) * size]
            wrong[index] += sum(a != b for a, b in zip(expected, values[index], strict=True))
            spread[index] |= set(expected)
    for index, value in enumerate(model.values):
        ok = wrong[index] == 0 and len(spread[index]) > min(2, value.get('hi', 255))
        print('ok' if ok else 'FAILED', f'{value["name"]}: {wrong[index]} of {images * sizes[index]} elements differ, {len(spread[index])} levels')
    return any(wrong)


if __name__ == '__main__':
    sys.exit(main())
