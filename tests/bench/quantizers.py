"""LSQ and DSQ in PyTorch, as fast as its users have them: LSQ by PyTorch's own fused operator, DSQ as an autograd
function with its gradients written by hand (quant/README.md has the formulas). Both put a quantizer on the weights and
the input of every convolution but the first; skips and the ends stay in floats."""
import math

import torch
from torch import nn
from torch.nn import functional


class Lsq(nn.Module):
    def __init__(self, bits, weights):
        super().__init__()
        self.low, self.high = (-2 ** (bits - 1), 2 ** (bits - 1) - 1) if weights else (0, 2 ** bits - 1)
        self.weights = weights
        self.scale = nn.Parameter(torch.tensor([0.05]))
        self.register_buffer('zero_point', torch.zeros(1))

    def forward(self, x):
        x = x.float()
        n = x.numel() if self.weights else x[0].numel()
        return torch._fake_quantize_learnable_per_tensor_affine(x, self.scale, self.zero_point, self.low, self.high,
                                                                1 / math.sqrt(n * self.high))


class DsqFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, alpha, l, u, intervals):
        step = (u - l) / intervals
        position = torch.clamp((x - l) / step, 0, intervals)
        code = torch.round(position)
        ctx.save_for_backward(x, alpha, l, u, position, code)
        ctx.intervals = intervals
        return l + step * code

    @staticmethod
    def backward(ctx, gradient):
        x, alpha, l, u, position, code = ctx.saved_tensors
        cell = torch.clamp(torch.floor(position), max=ctx.intervals - 1)
        t = position - cell - 0.5
        kappa, s = torch.log(2 / alpha - 1), 1 / (1 - alpha)
        tanh = torch.tanh(kappa * t)
        bell = 1 - tanh * tanh
        inside = gradient * ((x > l) & (x < u))
        dx = inside * (0.5 * s * kappa * bell)
        dalpha = inside * (s * s * tanh - 2 * s * t * bell / (alpha * (2 - alpha))) * (0.5 * (u - l) / ctx.intervals)
        upper = (gradient * code - dx * position) / ctx.intervals
        lower = gradient - dx - upper
        return dx, dalpha.sum().reshape(1), lower.sum().reshape(1), upper.sum().reshape(1), None


class Dsq(nn.Module):
    def __init__(self, bits, weights):
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor([0.2]))
        self.l = nn.Parameter(torch.tensor([-1.0 if weights else 0.0]))
        self.u = nn.Parameter(torch.tensor([1.0]))
        self.intervals = 2 ** bits - 1

    def forward(self, x):
        return DsqFunction.apply(x, self.alpha, self.l, self.u, self.intervals)


class QuantizedConv(nn.Module):
    def __init__(self, conv, quantizer, bits):
        super().__init__()
        self.conv, self.of_weights, self.of_input = conv, quantizer(bits, True), quantizer(bits, False)

    def forward(self, x):
        c = self.conv
        return functional.conv2d(self.of_input(x), self.of_weights(c.weight), None, c.stride, c.padding, c.dilation, c.groups)


def quantize(network, name, bits):
    """Replaces the convolutions of a network, but for those that read pictures."""
    quantizer = {'lsq': Lsq, 'dsq': Dsq}[name]
    for key, child in list(network.named_children()):
        if isinstance(child, nn.Conv2d):
            if child.in_channels > 3:
                setattr(network, key, QuantizedConv(child, quantizer, bits))
        else:
            quantize(child, name, bits)
