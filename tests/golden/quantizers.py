#!/usr/bin/env python3
"""What the quantizers give and how their gradients flow, by PyTorch's autograd: an implementation from the papers that
shares nothing with ours. affine comes a second time, by PyTorch's own fake quantization.

    tests/golden/quantizers.py > tests/golden/quantizers.json

Each case has a quantizer, a role, a number of bits and values of the learned parameters; its y is the quantized x of
that role, and its gradients are those of sum(u y), with no gradient scale. Rows are output channels or images. Where
ours deviates from a paper (zero is moved onto a level of activations, 8-bit weights have 254 intervals, sign(0) = -1),
the deviation is built in here. torch.round rounds half to even, as ours does.
"""
import json
import math
import platform

import torch

X = {'weights': [[0.31, -0.74, 0.12, -0.05, 0.58, -0.93], [0.84, -0.27, -0.61, 0.47, 0.02, -0.38]],
     'signed': [[0.53, -0.41, 1.27, -0.08, 0.02, -1.31], [0.19, 0.77, -0.66, 0.94, -0.23, 0.36]],
     'activations': [[0.53, 0.01, 1.27, 0.08, 0.02, 1.31], [0.19, 0.77, 0.03, 0.94, 0.23, 0.36]]}
X['channels'] = X['weights']
U = [[1.0, -0.5, 0.7, 0.3, -1.2, 0.9], [0.4, 1.1, -0.8, 0.6, 0.2, -0.7]]


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def is_weight(role):
    return role in ('weights', 'channels')


def straight(hard, soft):
    """The value of `hard` with the gradient of `soft`."""
    return soft + (hard - soft).detach()


def column(p):
    """A parameter along the rows it belongs to."""
    return p.reshape(-1, 1)


def intervals(role, bits):
    return 254 if is_weight(role) and bits == 8 else 2 ** bits - 1


def per_grid(x, role, statistic):
    """Of all values, or of each row."""
    return torch.stack([statistic(row) for row in x]) if role == 'channels' else statistic(x).reshape(1)


def snapped(l, u, n):
    """The range with zero on a level, moved as a constant."""
    step = (u - l).detach() / n
    shift = -torch.clamp(torch.round(-l.detach() / step), 0, n) * step - l.detach()
    return l + shift, u + shift


def ends(role, bits, l, u):
    """The range that values are rounded in: symmetric for weights and signed activations with 1 bit."""
    if is_weight(role) or (role == 'signed' and bits == 1):
        return -u, u
    return snapped(l if role == 'signed' else 0 * l, u, intervals(role, bits))


def uniform(x, l, u, n):
    """x clipped to [l, u] and rounded to n equal steps, as a constant."""
    step = (u - l) / n
    return (l + step * torch.round((torch.minimum(torch.maximum(x, l), u) - l) / step)).detach()


def dsq_curve(x, alpha, l, u, n, soft_term=False):
    """Algorithm 1 of the paper: clip, phi, sgn with a straight-through gradient, back to the range."""
    delta = (u - l) / n
    c = torch.minimum(torch.maximum(x, l), u)
    i = torch.clamp(torch.floor((c - l) / delta), max=n - 1).detach()
    k, s = torch.log(2 / alpha - 1) / delta, 1 / (1 - alpha)
    phi = s * torch.tanh(k * (c - (l + (i + 0.5) * delta)))
    if soft_term:  # the gradients of the soft function, at the values of the hard one
        return straight(uniform(x, l, u, n), l + delta * (i + (phi + 1) / 2))
    # The code of the hard grid: half to even at thresholds.
    sgn = straight(2 * (torch.round((c - l) / delta) - i) - 1, phi)
    return l + delta * (i + (sgn + 1) / 2)


def dsq(x, role, bits, p, soft_term=False):
    u = column(p['u'])
    l, u = ends(role, bits, column(p['l']) if 'l' in p else -u, u)
    return dsq_curve(x, column(p['alpha']), l, u, intervals(role, bits), soft_term)


def dsq_fixed(x, role, bits, p):
    with torch.no_grad():  # the range is a constant
        l, u = observed_range(x, role, bits)
    return dsq_curve(x, tensor([[0.4]]), l, u, intervals(role, bits))


def observed_range(x, role, bits):
    if is_weight(role):
        def reach(w):
            low = max(w.mean() - 1.2 * w.std(unbiased=False), w.min())
            high = min(w.mean() + 1.2 * w.std(unbiased=False), w.max())
            return torch.maximum(-low, high)
        u = column(per_grid(x, role, reach))
        l = -u
    else:
        l, u = x.min(1).values.mean().reshape(1, 1), x.max(1).values.mean().reshape(1, 1)
        if role == 'signed' and bits == 1:
            u = torch.maximum(-l, u)
        l = torch.clamp(l, max=0)
    return ends(role, bits, l, u)


def lsq(x, role, bits, p):
    s = column(p['scale'])
    half = 2 ** (bits - 1)
    if bits == 1 and role != 'activations':  # -s/2, s/2
        low, high, zero = 0, 1, 0.5
    elif role == 'activations':
        low, high, zero = 0, 2 ** bits - 1, 0
    else:
        low, high, zero = -half + (bits == 8 and is_weight(role)), half - 1, 0
    v = torch.clamp(x / s + zero, low, high)
    return (straight(torch.round(v), v) - zero) * s


def affine(x, role, bits, p):
    """With the ranges of the extremes: 8-bit weights symmetric, others with an integer zero point that stays."""
    n = 2 ** bits - 1
    if is_weight(role) and bits == 8:
        step, zero, low, high = per_grid(x, role, lambda w: w.abs().max()).reshape(-1, 1) / 127, 0, -127, 127
    else:
        bottom = torch.clamp(per_grid(x, role, torch.min).reshape(-1, 1), max=0)
        step = (torch.clamp(per_grid(x, role, torch.max).reshape(-1, 1), min=0) - bottom) / n
        zero, low, high = torch.clamp(torch.round(-bottom / step), 0, n).detach(), 0, n
    if is_weight(role):
        step = step.detach()
        inside = (x / step + zero >= low - 0.5) & (x / step + zero <= high + 0.5)
        value = (torch.clamp(torch.round(x / step + zero), low, high) - zero) * step
        return value.detach() + torch.where(inside, x, x.detach()) - x.detach()
    s = column(p['scale'])
    v = torch.clamp(x / s + zero, low, high)
    return (straight(torch.round(v), v) - zero) * s


def fake_quantized(x, role, bits, p):
    """The same by PyTorch's own fake quantization, whose learned step is in f32."""
    low, high = (-127, 127) if is_weight(role) and bits == 8 else (0, 2 ** bits - 1)
    if low < 0:
        step = per_grid(x, role, lambda w: w.abs().max()).detach() / high
        zero = 0 * step
    else:
        bottom = torch.clamp(per_grid(x, role, torch.min), max=0).detach()
        step = (torch.clamp(per_grid(x, role, torch.max), min=0).detach() - bottom) / high
        zero = torch.clamp(torch.round(-bottom / step), low, high)
    if role == 'channels':
        return torch.fake_quantize_per_channel_affine(x, step.float(), zero.int(), 0, low, high)
    if role == 'weights':
        return torch.fake_quantize_per_tensor_affine(x, step.item(), int(zero), low, high)
    learned = torch._fake_quantize_learnable_per_tensor_affine
    return learned(x.float(), p['scale'].float(), zero.float(), low, high).double()


def lsq_plus(x, role, bits, p):
    if is_weight(role) or role == 'activations' or bits == 1:
        return lsq(x, role, bits, p) + (0 * p['offset'] if 'offset' in p else 0)
    s, beta, n = p['scale'], p['offset'], 2 ** bits - 1
    zero = torch.clamp(torch.round(-beta / s), 0, n)
    beta = straight(-zero * s, beta)
    v = torch.clamp((x - beta) / s, 0, n)
    return straight(torch.round(v), v) * s + beta


def dorefa(x, role, bits, p):
    n = intervals(role, bits)
    if is_weight(role):
        if bits == 1:
            level = column(per_grid(x, role, lambda w: w.abs().mean()))
            return straight(torch.where(x > 0, level, -level), x)
        t = torch.tanh(x)
        w = t / column(per_grid(t, role, lambda w: w.abs().max()))
        return straight(2 * torch.round((w / 2 + 0.5) * n) / n - 1, w)
    one = tensor([[1.0]])
    l, u = ends(role, bits, -one, one)
    return straight(uniform(x, l, u, n), torch.clamp(x, 0 if role == 'activations' else -1, 1))


def pact(x, role, bits, p):
    if is_weight(role):
        return dorefa(x, role, bits, p)
    alpha = p['alpha'].reshape(1, 1)
    l, u = ends(role, bits, -alpha, alpha)
    return straight(uniform(x, l, u, intervals(role, bits)), torch.minimum(torch.maximum(x, l), u))


def sawb(x, role, bits, p):
    c1, c2 = {1: (0, -1), 2: (3.12, 2.064), 4: (12.68, 12.80), 8: (31.76, 35.04)}[bits]
    u = column(per_grid(x, role, lambda w: torch.maximum(c1 * w.square().mean().sqrt() - c2 * w.abs().mean(),
                                                         w.abs().mean())))
    return straight(uniform(x, -u, u, intervals(role, bits)), x)


def ste(x, role, bits, p):
    if is_weight(role):
        u = column(per_grid(x, role, lambda w: w.abs().max()))
        l = -u
    else:
        l, u = torch.clamp(x.min(), max=0).reshape(1, 1), x.max().reshape(1, 1)
        if bits == 1 and role == 'signed':
            u = torch.maximum(-l, u)
    l, u = ends(role, bits, l, u)
    step = (u - l) / intervals(role, bits)
    inside = (x >= l - step / 2) & (x <= u + step / 2)
    return straight(uniform(x, l, u, intervals(role, bits)), torch.where(inside, x, x.detach()))


def apot(x, role, bits, p):
    if is_weight(role):
        mean = column(per_grid(x, role, torch.mean)).detach()
        deviation = column(per_grid(x, role, torch.std)).detach()
        x = (x - mean) / deviation
    terms = {0: [], 1: [[0, 1]], 2: [[0, 1, 1 / 2, 1 / 4]], 3: [[0, 1, 1 / 2, 1 / 8], [0, 1 / 4]],
             4: [[0, 1, 1 / 4, 1 / 16], [0, 1 / 2, 1 / 8, 1 / 32]]}[bits - (role != 'activations')]
    levels = [0.0]
    for term in terms:
        levels = [a + b for a in levels for b in term]
    levels = sorted(level / max(max(levels), 1e-9) for level in levels)
    if role != 'activations':
        levels = [-1.0, 1.0] if bits == 1 else sorted({-level for level in levels} | set(levels))
    alpha = column(p['alpha'])
    v = torch.clamp(x / alpha, 0 if role == 'activations' else -1, 1)
    grid = tensor(levels)
    nearest = grid[(v.unsqueeze(-1) - grid).abs().argmin(-1)]
    return straight(nearest, v) * alpha


def sign(x, role, level):
    return torch.where(x > 0.5, 1.0, 0.0) if role == 'activations' else torch.where(x > 0, level, -level)


def binary(x, role, bits, p):
    one = tensor([[1.0]])
    if not is_weight(role):
        l, u = (0 * one, one) if role == 'activations' else (-one, one)
        return straight(sign(x, role, one), dsq_curve(x, tensor([[0.2]]), l, u, 1))
    level = column(per_grid(x, role, lambda w: w.abs().mean()))
    u = column(per_grid(x, role, lambda w: 3 * w.std(unbiased=False))).detach()
    return straight(sign(x, role, level), dsq_curve(x, tensor([[0.2]]), -u, u, 1))


def binary_hardtanh(x, role, bits, p):
    l = 0 if role == 'activations' else -1
    return straight(sign(x, role, tensor([[1.0]])), torch.where((x >= l) & (x <= 1), x, x.detach()))


def ir_net(x, role, bits, p):
    """At the start of the training: t = 0.1, k = 10."""
    level = tensor([[1.0]])
    if is_weight(role):
        x = torch.stack([(row - row.mean()) / row.std() for row in x])
        level = column(per_grid(x, role, lambda w: 2 ** torch.round(torch.log2(w.abs().mean())))).detach()
    middle = 0.5 if role == 'activations' else 0
    return straight(sign(x, role, level), 10 * torch.tanh(0.1 * (x - middle)))


def ternary(x, role, bits, p):
    threshold = column(per_grid(x, role, lambda w: 0.7 * w.abs().mean()))
    kept = x.abs() > threshold
    rows = [(kept[i], x[i]) for i in range(2)] if role == 'channels' else [(kept, x)]
    level = column(torch.stack([w[k].abs().mean() for k, w in rows]))
    return straight(torch.where(kept, torch.sign(x) * level, 0 * x), x)


def parameters(names, role, bits):
    """Learned values for a quantizer's parameters, of one grid or two."""
    n = 2 if role == 'channels' else 1
    steps = 2 ** bits - 1 if role == 'activations' else max(1, 2 ** (bits - 1) - 1)
    values = {'alpha': [0.2, 0.35][:n], 'l': [-0.85] if role == 'signed' else [0.0], 'u': [0.83, 0.67][:n],
              'scale': [0.9 / steps, 0.7 / steps][:n], 'offset': [-0.62] if role == 'signed' else [0.0]}
    return {name: values[name] for name in names}


def alpha_of(value, weights):
    """A clip `alpha` of activations and, if they have one, of weights."""
    def of(role, bits):
        if is_weight(role) and not weights:
            return {}
        return {'alpha': [value, 0.8 * value][:2 if role == 'channels' else 1]}
    return of


def clear_of_ends(role, bits):
    """A scale with no value in the half steps beyond the ends, where PyTorch's learned step has the gradient of
    rounding and LSQ's that of clipping."""
    if is_weight(role):
        return {}
    return {'scale': [0.21 / (2 ** (bits - 1) - 1) if role == 'signed' else 0.55 / (2 ** bits - 1)]}


def of(*names):
    def parameters_of(role, bits):
        kept = [name for name in names if not is_weight(role) or name not in ('l', 'offset')]
        return parameters(kept, role, bits)
    return parameters_of


EVERY = [(role, bits) for role in ('weights', 'channels', 'signed', 'activations') for bits in (1, 2, 4)]
ONE_BIT = [case for case in EVERY if case[1] == 1]
WEIGHTS = [case for case in EVERY if is_weight(case[0])]
EIGHT = [('weights', 8), ('signed', 8)]
CASES = [
    ('dsq', dsq, of('alpha', 'l', 'u'), EVERY + EIGHT),
    ('dsq:direct=soft', lambda *a: dsq(*a, soft_term=True), of('alpha', 'l', 'u'), EVERY),
    ('dsq_fixed:sigmas=1.2', dsq_fixed, of(), EVERY + EIGHT),
    ('affine:range=minmax', affine, lambda role, bits: {} if is_weight(role) else parameters(['scale'], role, bits),
     [case for case in EVERY if case[1] > 1] + EIGHT),
    ('affine:range=minmax', fake_quantized, clear_of_ends, [case for case in EVERY if case[1] > 1] + EIGHT),
    ('lsq', lsq, of('scale'), EVERY + EIGHT),
    ('lsq_plus', lsq_plus, of('scale', 'offset'), EVERY + EIGHT),
    ('pact', pact, alpha_of(0.9, False), EVERY + EIGHT),
    ('pact:weights=sawb', sawb, of(), WEIGHTS + [('weights', 8)]),
    ('dorefa', dorefa, of(), EVERY + EIGHT),
    ('ste', ste, of(), EVERY + EIGHT),
    ('apot', apot, alpha_of(1.1, True), EVERY),
    ('binary', binary, of(), ONE_BIT),
    ('binary:slope=hardtanh,levels=one', binary_hardtanh, of(), ONE_BIT),
    ('binary:slope=tanh,levels=shift,standardise=yes', ir_net, of(), ONE_BIT),
    ('ternary', ternary, of(), [case for case in WEIGHTS if case[1] == 2]),
]


def rounded(values):
    return [float(f'{value:.8g}') for value in values.flatten().tolist()]


def main():
    golden = {'made_by': 'tests/golden/quantizers.py',
              'versions': {'python': platform.python_version(), 'torch': torch.__version__}, 'x': X, 'u': U}
    lines = []
    for spec, function, values, settings in CASES:
        for role, bits in settings:
            x = tensor(X[role]).requires_grad_()
            p = {name: tensor(value).requires_grad_() for name, value in values(role, bits).items()}
            y = function(x, role, bits, p)
            (tensor(U) * y).sum().backward()
            gradients = {name: rounded(q.grad) if q.grad is not None else [0.0] for name, q in p.items()}
            lines.append(json.dumps({'spec': spec, 'role': role, 'bits': bits,
                                     'parameters': {name: q.tolist() for name, q in p.items()},
                                     'y': rounded(y), 'dx': rounded(x.grad), 'gradients': gradients}))
    print(json.dumps(golden)[:-1] + ',\n "cases": [\n  ' + ',\n  '.join(lines) + '\n ]}')


if __name__ == '__main__':
    main()
