// Convolution of codes with requantisation: u8 activations, s8 weights, exact s32 sums (design: one integer
// grid).
#pragma once

#include <memory>

#include "conv.h"

namespace stairgrad::kernels {

/// dst = saturate(round(clamp((conv(src, weights) + b) * m [+ skip_ratio * skip], lo, hi))) with b and m per
/// output channel. Without `requantise` the result is f32: (sum + b) * m. Rounding is half to even; see
/// grid.h.
struct IntegerConvSpec {
  Shape src;           ///< (n, h, w, ic) of u8 codes
  Conv2dOptions conv;  ///< padding positions hold `src_zero_point`
  int src_zero_point = 0;
  Array weights;  ///< (oc, kh, kw, ic / groups), s8
  Array b, m;     ///< (oc), f32
  bool requantise = true;
  int lo = 0, hi = 255;  ///< code range of dst, ReLU included
  bool skip = false;     ///< dst holds the skip's codes when run() is called
  float skip_ratio = 0;
};

/// A prepared convolution: primitive and reordered weights are made once. run() is const and thread-safe.
class IntegerConv {
 public:
  explicit IntegerConv(const IntegerConvSpec& spec);
  ~IntegerConv();
  IntegerConv(IntegerConv&&) noexcept;

  /// src: u8, spec.src; dst: u8 (requantise) or f32, allocated by the caller.
  void run(const Array& src, Array& dst) const;
  /// What runs: "onednn:<implementation>" or "reference".
  const char* implementation() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The same by plain loops, for any CPU: the oracle.
void integer_conv_reference(const IntegerConvSpec& spec, const Array& src, Array& dst);

/// Compares two tiny convolutions with exact sums; false on a CPU whose u8 * s8 pairs saturate.
bool integer_self_check();

}  // namespace stairgrad::kernels
