// Convolution of codes on loops of our own (simd/integer_conv.cpp): NHWC, exact sums in registers,
// requantised in place. Private to integer_conv.cpp.
#pragma once

#include <vector>

#include "integer_conv.h"
#include "simd/simd.h"

namespace stairgrad::kernels {

/// A prepared convolution: weights packed for the vectors of this CPU. run() is const and thread-safe.
class DirectConv {
 public:
  /// Whether this build has loops for this machine.
  static bool available() { return simd::integer_table().conv.dense != nullptr; }

  explicit DirectConv(const IntegerConvSpec& spec);
  /// `like` with the b, m and src_zero_point of `spec`, which is its own but for them. Shares the packed
  /// weights.
  DirectConv(const DirectConv& like, const IntegerConvSpec& spec);

  /// Of the memory that run() needs for itself.
  size_t scratch_bytes() const { return frame_ ? static_cast<size_t>(strip_ * pitch()) + slack : 0; }

  /// The share-th of `shares` parts of the results; the parts are disjoint and need a scratch each.
  void run(const IntegerConvOperands& o, int share, int shares) const;

  const char* name() const { return depthwise_ ? "depthwise" : "dense"; }

 private:
  /// Output channels of one group that are computed together.
  struct Block {
    int64_t src, weights, constants;  // offsets in codes of a pixel, in weights_, and in b_ and m_
    int64_t channel, channels, vectors;
  };
  static constexpr size_t slack = 64;  // the last quad may reach beyond the frame

  /// Results that lie on rows of src that are at hand together.
  struct Strip {
    const uint8_t* src;   // under result 0
    int64_t first, last;  // results
    int64_t origin;       // of result 0 in dst
  };

  int64_t pitch() const { return width_ * channels_; }
  int64_t image_bytes() const { return height_ * pitch(); }
  int64_t reach() const { return (kernel_height_ - 1) * conv_.dilation[0] + 1; }

  void pack_dense(const IntegerConvSpec& spec);
  void pack_depthwise(const IntegerConvSpec& spec);
  void pack_constants(const IntegerConvSpec& spec);
  void run_dense(const IntegerConvOperands& o, int share, int shares) const;
  void run_depthwise(const IntegerConvOperands& o, int share, int shares) const;
  template <class Body>
  void for_strips(const IntegerConvOperands& o, int64_t first_row, int64_t last_row, const Body& body) const;
  void frame_rows(const uint8_t* image, int64_t top, int64_t bottom, uint8_t* to) const;
  simd::IntegerResult result_of(const IntegerConvOperands& o, const Block& block, int64_t first) const;

  const simd::IntegerConvLoops& loops_ = simd::integer_table().conv;
  Conv2dOptions conv_;
  int64_t images_, src_height_, src_width_, channels_;  // of src
  int64_t height_, width_;                              // with the frame
  int64_t rows_, columns_, results_;                    // of dst; results_ = output channels
  int64_t kernel_height_;
  int zero_point_;
  simd::IntegerResult range_;  // limits and the skip's ratio
  bool requantise_, skip_, float_skip_;
  bool depthwise_ = false, frame_ = false;
  int64_t strip_;  // rows with their frame that scratch holds

  std::vector<Block> blocks_;
  std::vector<int64_t> runs_;
  int64_t quads_ = 0, packed_channels_ = 0;
  Array weights_, b_, m_;
};

}  // namespace stairgrad::kernels
