// What reaches a block for every calibration image.
#pragma once

#include <span>

#include "../../kernels/array.h"

namespace stairgrad::quant {

/// Rows (images) that are read in any order. f32, or bf16 to halve the memory.
class FeatureCache {
 public:
  FeatureCache() = default;
  /// `row`: the shape of one image's features.
  FeatureCache(int64_t images, const Shape& row, DType dtype = DType::f32);
  /// A cache of f32 or bf16 rows that shares the memory of `features`.
  explicit FeatureCache(const Array& features) : rows_(features) {}

  int64_t images() const { return rows_.has_value() ? rows_.dim(0) : 0; }
  size_t bytes() const { return rows_.has_value() ? rows_.bytes() : 0; }
  /// All of it, as it is kept; copies of a cache share it.
  const Array& rows() const { return rows_; }

  void set(int64_t first, const Array& features);
  /// f32 (count, ...): a run of rows, and chosen rows in their order.
  Array run(int64_t first, int64_t count) const;
  Array pick(std::span<const int64_t> indices) const;

 private:
  Array rows_;
};

}  // namespace stairgrad::quant
