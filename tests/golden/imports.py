#!/usr/bin/env python3
"""What the imported ImageNet networks say, by PyTorch: an implementation that shares nothing with ours.

    tests/golden/imports.py WEIGHTS CIFAR IMAGENET > tests/golden/imports.json

WEIGHTS, CIFAR and IMAGENET are the folders with the safetensors files, with CIFAR-10's test_batch.bin, and with 1,000
JPEGs and labels.tsv. Logits are those of the first 16 pictures of CIFAR-10's test set, each pixel repeated 7 x 7 times:
pictures that need no decoder, so that both programs see the same 224 x 224 pixels. Every 40th logit is kept, and the
largest. `right` counts every fifth JPEG (Pillow's decoder, the middle 224 x 224 pixels) whose class is found.
"""
import csv
import json
import platform
import struct
import sys

import numpy
import PIL
import PIL.Image
import torch
from torch.nn import functional as F


def load(path):
    with open(path, 'rb') as file:
        header = json.loads(file.read(struct.unpack('<Q', file.read(8))[0]))
        body = file.read()
    tensors = {}
    for name, entry in header.items():
        if name != '__metadata__':
            begin, end = entry['data_offsets']
            array = numpy.frombuffer(body[begin:end], dtype='<f4').reshape(entry['shape'])
            tensors[name] = torch.from_numpy(array.astype(numpy.float64))
    return tensors


def conv(x, weight, stride=1, groups=1, bias=None):
    """TensorFlow's "same" padding."""
    kernel = weight.shape[-1]
    total = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:]]
    x = F.pad(x, (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2))
    return F.conv2d(x, weight, bias, stride, groups=groups)


def mobilenet_v2(w, x):
    def layer(x, name, stride=1, groups=1):
        return conv(x, w[name + '.weight'], stride, groups, w[name + '.bias'])

    x = F.relu6(layer(x, 'features.0.0', 2))
    index = 1
    for expansion, channels, blocks, stride in [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
                                                (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]:
        for i in range(blocks):
            name = f'features.{index}.conv.'
            y = x if expansion == 1 else F.relu6(layer(x, name + '0.0'))
            depthwise = name + ('0.0' if expansion == 1 else '1.0')
            y = F.relu6(layer(y, depthwise, stride if i == 0 else 1, y.shape[1]))
            y = layer(y, name + ('1' if expansion == 1 else '2'))
            x = x + y if i > 0 else y
            index += 1
    x = F.relu6(layer(x, 'features.18.0')).mean((2, 3))
    return x @ w['classifier.1.weight'].T + w['classifier.1.bias']


def mobilenet_v1(w, x):
    def norm(x, name):
        p = {k: w[f'{name}/{k}:0'] for k in ('gamma', 'beta', 'moving_mean', 'moving_variance')}
        return F.relu6(F.batch_norm(x, p['moving_mean'], p['moving_variance'], p['gamma'], p['beta'], eps=1e-3))

    x = norm(conv(x, w['conv1/kernel:0'].permute(3, 2, 0, 1), 2), 'conv1_bn')
    for i in range(1, 14):
        stride = 2 if i in (2, 4, 6, 12) else 1
        x = conv(x, w[f'conv_dw_{i}/depthwise_kernel:0'].permute(2, 3, 0, 1), stride, x.shape[1])
        x = norm(x, f'conv_dw_{i}_bn')
        x = norm(conv(x, w[f'conv_pw_{i}/kernel:0'].permute(3, 2, 0, 1)), f'conv_pw_{i}_bn')
    x = x.mean((2, 3), keepdim=True)
    return F.conv2d(x, w['conv_preds/kernel:0'].permute(3, 2, 0, 1), w['conv_preds/bias:0']).flatten(1)


def enlarged_cifar(folder, count):
    records = numpy.fromfile(f'{folder}/test_batch.bin', dtype=numpy.uint8, count=3073 * count).reshape(count, 3073)
    pixels = records[:, 1:].reshape(count, 3, 32, 32).repeat(7, 2).repeat(7, 3)
    return torch.from_numpy(pixels.astype(numpy.float64)) / 127.5 - 1


def every_fifth(folder):
    with open(f'{folder}/labels.tsv') as table:
        rows = list(csv.DictReader(table, delimiter='\t'))[::5]
    pictures = []
    for row in rows:
        image = PIL.Image.open(f'{folder}/{row["file"]}').convert('RGB')
        left, top = round((image.width - 224) / 2), round((image.height - 224) / 2)
        pixels = numpy.asarray(image.crop((left, top, left + 224, top + 224)))
        pictures.append(torch.from_numpy(pixels.transpose(2, 0, 1).astype(numpy.float64)) / 127.5 - 1)
    return torch.stack(pictures), torch.tensor([int(row['class']) for row in rows])


def main():
    weights, cifar, imagenet = sys.argv[1:]
    torch.set_grad_enabled(False)
    pictures, (photos, classes) = enlarged_cifar(cifar, 16), every_fifth(imagenet)
    golden = {'made_by': 'tests/golden/imports.py',
              'versions': {'python': platform.python_version(), 'torch': torch.__version__, 'numpy': numpy.__version__,
                           'pillow': PIL.__version__}}
    for network, file in [(mobilenet_v2, 'imagenet_mobilenet_v2_1.0_224_fp32_dequantised'),
                          (mobilenet_v1, 'imagenet_mobilenet_v1_0.25_224_fp32')]:
        w = load(f'{weights}/{file}.safetensors')
        logits = network(w, pictures)
        right = sum(int((network(w, photos[i:i + 20]).argmax(1) == classes[i:i + 20]).sum())
                    for i in range(0, len(photos), 20))
        golden[network.__name__] = {
            'file': file + '.safetensors', 'photos': len(photos), 'right': right,
            'largest': [float(f'{x:.9g}') for x in logits.abs().amax(1).tolist()],
            'every_40th': [[float(f'{x:.9g}') for x in row] for row in logits[:, ::40].tolist()]}
    print(json.dumps(golden).replace('], [', '],\n  ['))


if __name__ == '__main__':
    main()
