// The explicit table of ops. Static initialisers would vanish from a static library, so every op has its line
// here.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "grad.h"

namespace stairgrad {

/// One application of an op, for the laws that run over the table.
struct Sample {
  std::string label;        ///< shapes and attributes: what a failure prints
  TensorFunction function;  ///< applies the op to floating-point inputs; indices and attributes are captured
  Tensors inputs;           ///< f64, away from kinks
  double f32_tolerance = 1e-5;   ///< largest difference to f64, relative to the largest value
  double bf16_tolerance = 2e-2;  ///< the same in bf16; 0 where the op does not take bf16
  bool smooth = true;            ///< false for straight-through ops: no finite differences
};

struct OpEntry {
  std::string_view name;
  std::vector<Sample> (*samples)();
};

/// All ops of the library.
const std::vector<OpEntry>& op_table();

/// f64 sample values: normal, of the given shape; the same for the same stream.
Tensor sample_tensor(Shape shape, uint64_t stream = 0, double scale = 1);
/// The same, positive: between 0.5 and 2.
Tensor sample_positive(Shape shape, uint64_t stream = 0);
/// Distinct values at least 0.01 apart and away from 0: for ops with ties and kinks.
Tensor sample_distinct(Shape shape, uint64_t stream = 0);

}  // namespace stairgrad
