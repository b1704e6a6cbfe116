// Convolution of codes with requantisation: u8 activations, s8 weights, exact s32 sums (design: one integer
// grid).
#pragma once

#include <limits>
#include <memory>

#include "conv.h"

namespace stairgrad::kernels {

/// dst = saturate(round(clamp((conv(src, weights) + b) * m [+ skip_ratio * skip], lo, hi))) with b and m per
/// output channel. Without `requantise` the result is f32: (sum + b) * m [+ skip], limited to low .. high.
/// Rounding is half to even; see grid.h.
struct IntegerConvSpec {
  Shape src;           ///< (n, h, w, ic) of u8 codes
  Conv2dOptions conv;  ///< padding positions hold `src_zero_point`
  int src_zero_point = 0;
  Array weights;  ///< (oc, kh, kw, ic / groups), s8
  Array b, m;     ///< (oc), f32
  bool requantise = true;
  int lo = 0, hi = 255;                                              ///< code range of dst, ReLU included
  float low = -std::numeric_limits<float>::infinity(), high = -low;  ///< of f32 results
  bool skip = false;                                                 ///< the skip has codes: u8
  float skip_ratio = 0;
  bool float_skip = false;  ///< the skip is f32, and so is the result
};

/// Memory of a run. The skip may be dst itself; scratch has scratch_bytes().
struct IntegerConvOperands {
  const void* src;
  void* dst;
  const void* skip = nullptr;
  void* scratch = nullptr;
};

/// What computes a convolution. `fastest` chooses by shape and CPU, unless STAIRGRAD_INTEGER_CONV names
/// another; the others are for tests.
enum class IntegerKernel { fastest, own, onednn, reference };

/// A prepared convolution: weights are packed and the kernel is chosen once. run() is const and thread-safe.
class IntegerConv {
 public:
  /// Throws argument_error for a spec that does not hang together. A kernel that does not have it is replaced
  /// by the reference. `shares` says in how many parts run() will be called: oneDNN's kernels for one image
  /// are made for bands of its rows then.
  explicit IntegerConv(const IntegerConvSpec& spec, IntegerKernel kernel = IntegerKernel::fastest,
                       int shares = 1);
  /// `like` with other constants: b, m and src_zero_point of an input on another grid. Our own loops share
  /// its packed weights; oneDNN keeps them once more.
  IntegerConv(const IntegerConv& like, const Array& b, const Array& m, int src_zero_point);
  ~IntegerConv();
  IntegerConv(IntegerConv&&) noexcept;

  /// src: u8, spec.src; dst: u8 (requantise) or f32, allocated by the caller. The skip is in dst or given.
  void run(const Array& src, Array& dst, const Array& skip = {}) const;

  /// The share-th part of `shares` of the results, on the calling thread and without checks: for a program
  /// that has its threads and memory already. Each share has its own scratch.
  void run(const IntegerConvOperands& operands, int share, int shares) const;
  size_t scratch_bytes() const;

  /// What runs: "own:<loops>", "onednn:<implementation>" or "reference".
  const char* implementation() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The same by plain loops, for any CPU: the oracle.
void integer_conv_reference(const IntegerConvSpec& spec, const Array& src, Array& dst,
                            const Array& skip = {});

/// Whether the sums of all output channels, over any codes and in any order, stay below `limit`: 255 times
/// the sum of |weights|.
bool sums_fit(const Array& weights, int64_t limit = int64_t{1} << 31);

/// Compares two tiny convolutions with exact sums; false on a CPU whose u8 * s8 pairs saturate in oneDNN.
bool integer_self_check();

}  // namespace stairgrad::kernels
