#!/usr/bin/env python3
"""Golden logits of the zoo, by PyTorch: an implementation that shares nothing with ours.

    tests/golden/zoo.py > tests/golden/zoo.json

Parameters and pictures are functions of their name and index alone (value(), below), which the test computes
as well, so no weights are kept. The networks are torchvision's where it has them and defined here elsewhere.
Logits are computed in double; parameters and multiply-accumulates are counted by PyTorch at the usual size.
"""
import json
import math
import platform

import numpy
import torch
import torchvision
from torch import nn
from torchvision.models.mnasnet import MNASNet
from torchvision.models.regnet import BlockParams, RegNet


# --- numbers that anybody can compute: splitmix64, seeded by the FNV-1a hash of a name ---

def uniform(name, count):
    """Multiples of 2^-24 in [0, 1), exact in single precision."""
    seed = 0xcbf29ce484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001b3 & 0xffffffffffffffff
    with numpy.errstate(over='ignore'):
        z = numpy.uint64(seed) + numpy.arange(1, count + 1, dtype=numpy.uint64) * numpy.uint64(0x9e3779b97f4a7c15)
        z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xbf58476d1ce4e5b9)
        z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94d049bb133111eb)
        z = z ^ (z >> numpy.uint64(31))
    return (z >> numpy.uint64(40)).astype(numpy.float64) * 2.0**-24


def value(name, shape, normalises):
    """A parameter: weights of variance 2 / fan_in; scales and variances in [0.5, 1.5)."""
    u = uniform(name, math.prod(shape))
    kind = name.rsplit('.', 1)[-1]
    if kind == 'running_var' or (kind == 'weight' and normalises):
        v = 0.5 + u
    elif kind == 'weight':
        v = (2 * u - 1) * math.sqrt(6 / math.prod(shape[1:]))
    else:
        v = u - 0.5
    return torch.from_numpy(v.astype(numpy.float32).reshape(shape))


def fill(network):
    state = network.state_dict()
    for name, tensor in state.items():
        if name.endswith('num_batches_tracked'):
            continue
        normalises = name.rsplit('.', 1)[0] + '.running_mean' in state
        tensor.copy_(value(name, tuple(tensor.shape), normalises))


def pictures(n, size):
    u = uniform('pictures', n * size * size * 3).reshape(n, size, size, 3)
    return torch.from_numpy((4 * u - 2).astype(numpy.float32)).permute(0, 3, 1, 2).double()


# --- networks that torchvision does not have ---

class CifarBlock(nn.Module):
    """akamaster/pytorch_resnet_cifar10, whose shortcut B is called shortcut."""

    def __init__(self, cin, cout, stride, option):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.shortcut = nn.Identity()
        self.widen = 0
        if stride != 1 and option == 'A':
            self.widen = cout // 4
        elif stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.widen:
            x = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.widen, self.widen))
        return torch.relu(y + self.shortcut(x))


class CifarResNet(nn.Module):
    def __init__(self, depth, option):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        channels = 16
        for stage in range(3):
            blocks = []
            for i in range((depth - 2) // 6):
                blocks.append(CifarBlock(channels, 16 << stage, 2 if stage > 0 and i == 0 else 1, option))
                channels = 16 << stage
            setattr(self, f'layer{stage + 1}', nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        y = self.layer3(self.layer2(self.layer1(torch.relu(self.bn1(self.conv1(x))))))
        return self.linear(y.mean((2, 3)))


class VggSmall(nn.Module):
    """LQ-Nets' network with the names of htqin/IR-Net."""

    def __init__(self):
        super().__init__()
        channels = 3
        for i, wider in enumerate([128, 128, 256, 256, 512, 512]):
            setattr(self, f'conv{i}', nn.Conv2d(channels, wider, 3, 1, 1, bias=False))
            setattr(self, f'bn{i}', nn.BatchNorm2d(wider))
            channels = wider
        self.fc = nn.Linear(512 * 4 * 4, 10)

    def forward(self, x):
        for i in range(6):
            x = torch.relu(getattr(self, f'bn{i}')(getattr(self, f'conv{i}')(x)))
            if i % 2:
                x = nn.functional.max_pool2d(x, 2)
        return self.fc(x.flatten(1))


class MobileNetV1(nn.Module):
    """The paper's table 1 with ReLU6 and the names of marvis/pytorch-mobilenet."""

    def __init__(self, classes, width=1):
        super().__init__()

        def conv(cin, cout, kernel, stride, groups=1):
            return [nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False),
                    nn.BatchNorm2d(cout), nn.ReLU6()]

        channels = int(32 * width)
        layers = [nn.Sequential(*conv(3, channels, 3, 2))]
        for wider, stride in [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5,
                              (1024, 2), (1024, 1)]:
            wider = int(wider * width)
            layers.append(nn.Sequential(*conv(channels, channels, 3, stride, channels), *conv(channels, wider, 1, 1)))
            channels = wider
        self.model = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        return self.fc(self.model(x).mean((2, 3)))


def cifar_stem(network):
    network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    network.maxpool = nn.Identity()
    return network


def mobilenet_v2_cifar(classes):
    stages = [[1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2], [6, 320, 1, 1]]
    network = torchvision.models.mobilenet_v2(num_classes=classes, inverted_residual_setting=stages)
    network.features[0][0].stride = (1, 1)
    return network


def regnet(classes, **plan):
    return RegNet(BlockParams.from_init_params(**plan), num_classes=classes)


# name in our zoo, width, size of the golden pictures, usual size, usual classes, network of a number of classes
models = torchvision.models
NETWORKS = [
    *[(f'resnet{depth}{"" if option == "A" else "b"}', 1, 32, 32, 10, lambda c, d=depth, o=option: CifarResNet(d, o))
      for depth in (8, 14, 20, 32, 44, 56, 110) for option in 'AB'],
    *[(name, 1, 64, 224, 1000, lambda c, n=name: getattr(models, n)(num_classes=c))
      for name in ('resnet18', 'resnet34', 'resnet50')],
    *[(name + '_cifar', 1, 32, 32, 10, lambda c, n=name: cifar_stem(getattr(models, n)(num_classes=c)))
      for name in ('resnet18', 'resnet34', 'resnet50')],
    ('vgg_small', 1, 32, 32, 10, lambda c: VggSmall()),
    ('mobilenet_v1', 1, 64, 224, 1000, MobileNetV1),
    ('mobilenet_v1', 0.25, 64, 224, 1000, lambda c: MobileNetV1(c, 0.25)),
    ('mobilenet_v2', 1, 64, 224, 1000, lambda c: models.mobilenet_v2(num_classes=c)),
    ('mobilenet_v2', 0.35, 64, 224, 1000, lambda c: models.mobilenet_v2(num_classes=c, width_mult=0.35)),
    ('mobilenet_v2', 1.4, 64, 224, 1000, lambda c: models.mobilenet_v2(num_classes=c, width_mult=1.4)),
    ('mobilenet_v2_cifar', 1, 32, 32, 10, mobilenet_v2_cifar),
    ('regnetx_600mf', 1, 64, 224, 1000, lambda c: regnet(c, depth=16, w_0=48, w_a=36.97, w_m=2.24, group_width=24)),
    ('regnetx_3_2gf', 1, 64, 224, 1000, lambda c: models.regnet_x_3_2gf(num_classes=c)),
    ('mnasnet1_0', 1, 64, 224, 1000, lambda c: models.mnasnet1_0(num_classes=c)),
    ('mnasnet1_0', 0.5, 64, 224, 1000, lambda c: models.mnasnet0_5(num_classes=c)),
    ('mnasnet2_0', 1, 64, 224, 1000, lambda c: MNASNet(2.0, num_classes=c)),
]


def count_macs(network, size):
    total = 0

    def hook(layer, inputs, output):
        nonlocal total
        total += output[0].numel() * layer.weight[0].numel()

    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(hook)
    network(torch.zeros(1, 3, size, size))
    return total


def main():
    golden = {'made_by': 'tests/golden/zoo.py',
              'versions': {'python': platform.python_version(), 'torch': torch.__version__,
                           'torchvision': torchvision.__version__, 'numpy': numpy.__version__},
              'networks': []}
    torch.set_grad_enabled(False)
    for name, width, size, usual_size, usual_classes, make in NETWORKS:
        usual = make(usual_classes).eval()
        entry = {'model': name, 'width': width, 'parameters': sum(p.numel() for p in usual.parameters()),
                 'macs': count_macs(usual, usual_size), 'size': size}
        network = make(10).eval()
        fill(network)
        entry['logits'] = [[float(f'{x:.9g}') for x in row] for row in network.double()(pictures(2, size)).tolist()]
        golden['networks'].append(entry)
    lines = ',\n  '.join(json.dumps(entry) for entry in golden.pop('networks'))
    print(json.dumps(golden)[:-1] + ',\n "networks": [\n  ' + lines + '\n ]}')


if __name__ == '__main__':
    main()
