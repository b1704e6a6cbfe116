// Backward passes of the quantizers over whole arrays: one pass over memory, one range for the array or one
// for each slice of the outermost axis. Results do not depend on the number of threads.
#pragma once

#include "../../autograd/quantized.h"
#include "../observers.h"

namespace stairgrad::quant {

struct DsqGradients {
  Array x, alpha, l, u;
};
/// Of sum(gradient * Q(x)) for DSQ with `intervals` between l and u (spec: the closed forms of DSQ's
/// gradients). alpha, l and u hold one value for each range; `soft` takes the direct term of dl and du from
/// phi instead of the code.
DsqGradients dsq_backward(const Array& gradient, const Array& x, const Array& alpha, const Array& l,
                          const Array& u, int intervals, bool soft);

/// The gradient for x, and the sums for parameters that rounded.h describes.
struct RoundedSums {
  Array x, rounding, below, above;
};
/// Of sum(gradient * y) for y on the codes and the zero point of `codes`, with one scale for each range. With
/// `dropped`, a result of which some elements are x as it was, those count as not quantized.
RoundedSums rounded_sums(const Array& gradient, const Array& x, const Array& scale, const Grid& codes,
                         const Array& dropped = {});

/// About sum_i counts[i] |values[i] - its level|^power, to 1e-5 of it; once that is beyond `bound`, any
/// number beyond it.
double rounding_error(const std::vector<float>& values, const std::vector<float>& counts, const Grid& g,
                      double power, double bound);

/// gradient where x lies in its range, else 0.
Array pass_within(const Array& gradient, const Array& x, const Ranges& ranges);

/// Levels that are not equally spaced, for alpha = 1, ascending: `alpha` times the nearest one to x / alpha
/// (the lower one of two; of NaN the lowest), with one alpha for each range. Which one it is, is decided
/// in f32.
Array on_levels(const Array& x, const Array& alpha, const std::vector<double>& levels);
/// Of sum(gradient * y) for that y: x's where x / alpha lies between the ends, else 0; alpha's with the level
/// as a constant inside.
struct LevelGradients {
  Array x, alpha;
};
LevelGradients levels_backward(const Array& gradient, const Array& x, const Array& alpha,
                               const std::vector<double>& levels);

/// gradient * k t (1 - tanh^2(t (x - middle))); NaN counts as 0.
Array tanh_slope(const Array& gradient, const Array& x, double k, double t, double middle);

/// sum_j shares[j] * value_j(x) on uniform grids, in one pass; f32, bf16 (rounded at the end) or f64.
Array mix_on_grids(const Array& x, const Array& shares, const Grids& grids);

/// Of sum(gradient * y) for that y: the gradient for x, passed on by each grid between its first and last
/// code, and by grid the sums of gradient * value_j(x) and those of rounded.h.
struct MixedGradients {
  Array x, values, rounding, below, above;
};
MixedGradients mixed_backward(const Array& gradient, const Array& x, const Array& shares, const Grids& grids);

}  // namespace stairgrad::quant
