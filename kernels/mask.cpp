#include "mask.h"

#include "simd/simd.h"
#include "threads.h"

namespace stairgrad::kernels {

Array pass_inside(const Array& u, const Array& x, double low, double high, bool closed) {
  check(u.shape() == x.shape() && u.dtype() == x.dtype(), "[pass_inside] got ", name_of(u.dtype()), u.shape(),
        " and ", name_of(x.dtype()), x.shape(), ", expected equal ones");
  Array y(u.shape(), u.dtype());
  dispatch_floating(u.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T *from = u.data<T>(), *at = x.data<T>();
    T* to = y.data<T>();
    const auto l = static_cast<simd::Real<T>>(low), h = static_cast<simd::Real<T>>(high);
    parallel_for(u.size(), 1 << 15, [=](int64_t begin, int64_t end) {
      simd::loops<T>().pass_inside[closed](from + begin, at + begin, to + begin, end - begin, l, h);
    });
  });
  return y;
}

Array random_mask(const Shape& shape, const Philox& rng, double keep, DType dtype) {
  check(keep > 0 && keep <= 1, "[random_mask] got the probability ", keep,
        " to keep an element, expected (0, 1]");
  Array mask(shape, dtype);
  const uint64_t threshold = static_cast<uint64_t>(keep * 0x1p32);
  dispatch_floating(dtype, [&](auto zero) {
    using T = decltype(zero);
    const T kept =
        static_cast<T>(static_cast<std::conditional_t<std::is_same_v<T, double>, double, float>>(1 / keep));
    T* to = mask.data<T>();
    const int64_t size = mask.size();
    // One counter gives four elements.
    parallel_for((size + 3) / 4, 1 << 11, [=](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const auto words = rng.words(static_cast<uint64_t>(block));
        for (int64_t i = 4 * block; i < std::min(size, 4 * block + 4); ++i)
          to[i] = words[static_cast<size_t>(i % 4)] < threshold ? kept : T{};
      }
    });
  });
  return mask;
}

}  // namespace stairgrad::kernels
