#include "array.h"

#include <cstring>

#include "allocator.h"
#include "simd/simd.h"
#include "threads.h"

namespace stairgrad {

struct Array::Storage {
  explicit Storage(size_t bytes) : block(allocate(bytes)), bytes(bytes) {}
  ~Storage() { deallocate(block, bytes); }
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* block;
  size_t bytes;
  uint64_t version = 0;
};

Array::Array(Shape shape, DType dtype)
    : storage_(std::make_shared<Storage>(static_cast<size_t>(shape.size()) * size_of(dtype))),
      shape_(shape),
      dtype_(dtype) {}

Array Array::full(Shape shape, double value, DType dtype) {
  Array result(shape, dtype);
  dispatch_any(dtype, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (std::is_same_v<T, bf16>)
      std::fill_n(result.data<T>(), result.size(), bf16(static_cast<float>(value)));
    else
      std::fill_n(result.data<T>(), result.size(), static_cast<T>(value));
  });
  return result;
}

template <class T>
Array Array::of(const std::vector<T>& values, Shape shape) {
  check(static_cast<int64_t>(values.size()) == shape.size(), "[array] got ", values.size(),
        " values for the shape ", shape, ", expected ", shape.size());
  Array result(shape, dtype_of<T>);
  if (!values.empty()) std::memcpy(result.raw(), values.data(), result.bytes());
  return result;
}
template Array Array::of(const std::vector<float>&, Shape);
template Array Array::of(const std::vector<double>&, Shape);
template Array Array::of(const std::vector<uint8_t>&, Shape);
template Array Array::of(const std::vector<int8_t>&, Shape);
template Array Array::of(const std::vector<int32_t>&, Shape);

void* Array::checked(DType type) const {
  check(type == dtype_, "[array] got a request for ", name_of(type), " data of an array of type ",
        name_of(dtype_), "; convert it with cast");
  check(has_value(), "[array] got a request for the data of an array of shape ", shape_,
        " whose value was not kept");
  return static_cast<char*>(storage_->block) + offset_;
}

double Array::item() const {
  check(size() == 1, "[item] got the shape ", shape_, ", expected exactly one element");
  return to_vector()[0];
}

std::vector<double> Array::to_vector() const {
  std::vector<double> values(static_cast<size_t>(size()));
  dispatch_any(dtype_, [&](auto zero) {
    const auto* from = data<decltype(zero)>();
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(from[i]);
  });
  return values;
}

Array Array::reshape(Shape shape) const {
  check(shape.size() == size(), "[reshape] got the new shape ", shape, " for ", shape_, ", which has ",
        size(), " elements");
  Array view = *this;
  view.shape_ = shape;
  return view;
}

Array Array::slice(int64_t first, int64_t count) const {
  check(rank() > 0 && first >= 0 && count >= 0 && first + count <= dim(0), "[slice] got the range [", first,
        ",", first + count, ") of the outermost axis of ", shape_);
  Array view = *this;
  view.shape_[0] = count;
  const int64_t row = dim(0) ? static_cast<int64_t>(bytes()) / dim(0) : 0;
  view.offset_ += first * row;
  return view;
}

Array Array::without_value() const {
  Array structure = *this;
  structure.storage_ = nullptr;
  return structure;
}

Array Array::clone() const {
  Array copy(shape_, dtype_);
  std::memcpy(copy.raw(), raw(), bytes());
  return copy;
}

void Array::assign(const Array& source) {
  check(source.shape_ == shape_ && source.dtype_ == dtype_, "[assign] got ", name_of(source.dtype_),
        source.shape_, ", expected ", name_of(dtype_), shape_);
  if (raw() != source.raw()) std::memcpy(raw(), source.raw(), bytes());
  bump_version();
}

uint64_t Array::version() const { return storage_ ? storage_->version : 0; }
void Array::bump_version() {
  if (storage_) ++storage_->version;
}

namespace {

template <class From, class To>
void convert(const From* from, To* to, int64_t n) {
  if constexpr (std::is_same_v<From, bf16> && std::is_same_v<To, float>) {
    simd::loops<bf16>().widen(from, to, n);
  } else if constexpr (std::is_same_v<From, float> && std::is_same_v<To, bf16>) {
    simd::loops<bf16>().narrow(from, to, n);
  } else {
    for (int64_t i = 0; i < n; ++i) {
      if constexpr (std::is_same_v<To, bf16>)
        to[i] = bf16(static_cast<float>(from[i]));
      else
        to[i] = static_cast<To>(from[i]);
    }
  }
}

}  // namespace

Array cast(const Array& src, DType dtype) {
  if (src.dtype() == dtype) return src;
  Array dst(src.shape(), dtype);
  dispatch_any(src.dtype(), [&](auto from_zero) {
    using From = decltype(from_zero);
    dispatch_floating(dtype, [&](auto to_zero) {
      using To = decltype(to_zero);
      const From* from = src.data<From>();
      To* to = dst.data<To>();
      parallel_for(src.size(), 1 << 15,
                   [=](int64_t begin, int64_t end) { convert(from + begin, to + begin, end - begin); });
    });
  });
  return dst;
}

}  // namespace stairgrad
