// The inner loops of reconstruction, compiled once per instruction set like those of kernels/simd.
#pragma once

#include <cstdint>

#include "../../kernels/grid.h"

namespace stairgrad::quant {

/// Element i of a tensor is chosen if byte i of a stream of random numbers is below `keep`: with probability
/// keep / 256. Sixteen elements share one block of Philox.
struct Choice {
  uint64_t seed = 0, stream = 0;
  int keep = 256;
};

/// Positions are those in the whole tensor; `first` is a multiple of 16.
struct ReconstructionTable {
  /// y = chosen ? a : b.
  void (*mix)(const float* a, const float* b, float* y, int64_t first, int64_t n, const Choice& choice);
  /// y = chosen ? Q(x) : x.
  void (*drop)(const float* x, float* y, int64_t first, int64_t n, const Choice& choice, const Grid& grid,
               float inverse);
  /// sum (a - b)^2
  double (*squared_distance)(const float* a, const float* b, int64_t n);
  /// y = (a - b) * factor
  void (*scaled_difference)(const float* a, const float* b, float* y, int64_t n, float factor);
};

/// The loops of the instruction set that the kernels use.
const ReconstructionTable& reconstruction_table();

}  // namespace stairgrad::quant
