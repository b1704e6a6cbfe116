#include "cache.h"

#include <cstring>

#include "../../kernels/threads.h"

namespace stairgrad::quant {
namespace {

Shape with_rows(int64_t images, const Shape& row) {
  std::vector<int64_t> extents = {images};
  extents.insert(extents.end(), row.begin(), row.end());
  return Shape(extents);
}

}  // namespace

FeatureCache::FeatureCache(int64_t images, const Shape& row, DType dtype)
    : rows_(with_rows(images, row), dtype) {}

void FeatureCache::set(int64_t first, const Array& features) {
  Array to = rows_.slice(first, features.dim(0));
  const Array from = cast(features, rows_.dtype());
  std::memcpy(to.raw(), from.raw(), from.bytes());
}

Array FeatureCache::run(int64_t first, int64_t count) const {
  return cast(rows_.slice(first, count), DType::f32);
}

Array FeatureCache::pick(std::span<const int64_t> indices) const {
  std::vector<int64_t> extents(rows_.shape().begin(), rows_.shape().end());
  extents[0] = static_cast<int64_t>(indices.size());
  Array picked(Shape(extents), rows_.dtype());
  const size_t row = rows_.bytes() / static_cast<size_t>(rows_.dim(0));
  auto* to = static_cast<char*>(picked.raw());
  const auto* from = static_cast<const char*>(rows_.raw());
  parallel_for(extents[0], 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::memcpy(to + static_cast<size_t>(i) * row,
                  from + static_cast<size_t>(indices[static_cast<size_t>(i)]) * row, row);
  });
  return cast(picked, DType::f32);
}

}  // namespace stairgrad::quant
