// What the library asks of oneDNN. onednn_conv.cpp and onednn_integer.cpp answer with it; without_onednn.cpp
// answers "not here" in a build without oneDNN.
#pragma once

#include "integer_conv.h"
#include "reference/conv.h"

namespace stairgrad::kernels::onednn {

/// Computes the array that `op` names from the other two; f32, or bf16 with f32 weights (and weight
/// gradients). Returns the name of oneDNN's implementation, or "" when it has none for these types and
/// sizes: then nothing was written. Thread-safe.
std::string conv2d(ConvOp op, ConvArrays arrays, const Conv2dOptions& options);

/// A convolution of u8 codes with s8 weights: primitive made, weights reordered.
class IntegerPrimitive {
 public:
  virtual ~IntegerPrimitive() = default;
  /// Thread-safe; with a skip, dst holds its codes. scratch has scratch_bytes().
  virtual void run(const void* src, void* dst, void* scratch) const = 0;
  virtual size_t scratch_bytes() const = 0;
  virtual const char* implementation() const = 0;
};

/// `spec` with padding positions of code 0, whatever its zero point. dst_type u8 and f32 follow the spec; s32
/// gives the bare sums, exact while they are at most 2^24. Null when oneDNN has no implementation.
std::unique_ptr<IntegerPrimitive> integer_primitive(const IntegerConvSpec& spec, DType dst_type);

/// True when this CPU multiplies u8 * s8 without 16-bit saturation (VNNI, AMX) in all of oneDNN's kernels.
bool products_are_exact();
/// True when oneDNN uses this CPU's matrix units for integers (AMX).
bool has_matrix_units();

}  // namespace stairgrad::kernels::onednn
