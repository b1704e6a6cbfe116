#include "sort.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "threads.h"

namespace stairgrad::kernels {

Array argsort(const Array& x, bool descending) {
  const int64_t columns = x.shape().back(), rows = columns ? x.size() / columns : 0;
  Array order(x.shape(), DType::s32);
  dispatch_floating(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* from = x.data<T>();
    int32_t* to = order.data<int32_t>();
    parallel_for(rows, 1 + (1 << 12) / std::max<int64_t>(1, columns), [=](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const T* value = from + row * columns;
        int32_t* index = to + row * columns;
        std::iota(index, index + columns, 0);
        std::stable_sort(index, index + columns, [=](int32_t a, int32_t b) {
          if (std::isnan(static_cast<double>(value[a]))) return false;
          if (std::isnan(static_cast<double>(value[b]))) return true;
          return descending ? value[a] > value[b] : value[a] < value[b];
        });
      }
    });
  });
  return order;
}

}  // namespace stairgrad::kernels
