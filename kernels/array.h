// Array: a handle to dense, row-major memory. Cheap to copy; copies share memory.
#pragma once

#include <memory>
#include <type_traits>
#include <vector>

#include "dtype.h"
#include "shape.h"

namespace stairgrad {

/// A typed block of memory with a shape. There are no strides: reshape() and slice() of the outermost axis
/// are the only views. Values that autograd has recorded are immutable; who changes them in place (an
/// optimiser) says so with bump_version(), and autograd then refuses to use the stale record.
class Array {
 public:
  /// No value and no shape.
  Array() = default;
  /// Uninitialised memory.
  explicit Array(Shape shape, DType dtype = DType::f32);

  static Array zeros(Shape shape, DType dtype = DType::f32) { return full(shape, 0, dtype); }
  static Array full(Shape shape, double value, DType dtype = DType::f32);
  /// A copy of `values`; their number must be shape.size().
  template <class T>
  static Array of(const std::vector<T>& values, Shape shape);
  template <class T>
  static Array of(const std::vector<T>& values) {
    return of(values, Shape{static_cast<int64_t>(values.size())});
  }
  static Array scalar(double value, DType dtype = DType::f32) { return full(Shape{}, value, dtype); }

  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  int64_t dim(int axis) const { return shape_[axis]; }
  int64_t size() const { return shape_.size(); }
  size_t bytes() const { return static_cast<size_t>(size()) * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  bool has_value() const { return storage_ != nullptr; }

  /// First element. Throws argument_error when T is not the array's type or there is no value.
  template <class T>
  const T* data() const {
    return static_cast<const T*>(checked(dtype_of<T>));
  }
  template <class T>
  T* data() {
    return static_cast<T*>(checked(dtype_of<T>));
  }
  const void* raw() const { return checked(dtype_); }
  void* raw() { return checked(dtype_); }

  /// The only element, as a double. Throws when there is not exactly one.
  double item() const;
  /// All elements, converted to double.
  std::vector<double> to_vector() const;

  /// The same memory with another shape of the same size.
  Array reshape(Shape shape) const;
  /// The view [first, first + count) of the outermost axis.
  Array slice(int64_t first, int64_t count) const;
  /// Shape and type alone.
  Array without_value() const;
  Array clone() const;
  /// Overwrites this array's memory with `source` (same shape and type) and bumps the version.
  void assign(const Array& source);

  /// Counts in-place changes of the memory.
  uint64_t version() const;
  void bump_version();
  /// True if no other Array refers to the memory: who holds it may overwrite it unseen.
  bool is_unique() const { return storage_.use_count() == 1; }
  bool shares_memory_with(const Array& other) const { return storage_ && storage_ == other.storage_; }

 private:
  struct Storage;
  void* checked(DType type) const;

  std::shared_ptr<Storage> storage_;
  int64_t offset_ = 0;  // bytes
  Shape shape_;
  DType dtype_ = DType::f32;
};

using Arrays = std::vector<Array>;

/// Converts between floating types (and from integers to floating types), rounding to nearest even.
Array cast(const Array& src, DType dtype);

/// Calls `body` with a value of the C++ type of a floating `dtype`: float, bf16 or double.
template <class Body>
decltype(auto) dispatch_floating(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::f32:
      return body(float{});
    case DType::bf16:
      return body(bf16{});
    case DType::f64:
      return body(double{});
    default:
      throw argument_error(text("got an array of type ", name_of(dtype), ", expected f32, bf16 or f64"));
  }
}

/// Calls `body` with a value of the C++ type of `dtype`.
template <class Body>
decltype(auto) dispatch_any(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::u8:
      return body(uint8_t{});
    case DType::s8:
      return body(int8_t{});
    case DType::s32:
      return body(int32_t{});
    default:
      return dispatch_floating(dtype, body);
  }
}

}  // namespace stairgrad
