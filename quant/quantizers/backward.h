// Backward passes of the quantizers over whole arrays: one pass over memory, one range for the array or one
// for each slice of the outermost axis. Results do not depend on the number of threads.
#pragma once

#include "../../autograd/quantized.h"

namespace stairgrad::quant {

struct DsqGradients {
  Array x, alpha, l, u;
};
/// Of sum(gradient * Q(x)) for DSQ with `intervals` between l and u (spec: the closed forms of DSQ's
/// gradients). alpha, l and u hold one value for each range; `soft` takes the direct term of dl and du from
/// phi instead of the code.
DsqGradients dsq_backward(const Array& gradient, const Array& x, const Array& alpha, const Array& l,
                          const Array& u, int intervals, bool soft);

struct LsqGradients {
  Array x, scale;
};
/// Of sum(gradient * Q(x)) for LSQ on the codes and the zero point of `codes`, with one scale for each range.
LsqGradients lsq_backward(const Array& gradient, const Array& x, const Array& scale, const Grid& codes);

/// gradient where x is rounded, not saturated: at most half a step outside the levels of its grid; else 0.
Array pass_on_grid(const Array& gradient, const Array& x, const Grids& grids);

}  // namespace stairgrad::quant
