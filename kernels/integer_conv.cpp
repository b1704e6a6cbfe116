#include "integer_conv.h"

#include <cmath>
#include <cstring>

#include "dispatch.h"
#include "onednn.h"
#include "onednn_defects.h"
#include "reference/conv.h"
#include "simd/simd.h"
#include "threads.h"

namespace stairgrad::kernels {
namespace {

constexpr int largest_code = 255;
constexpr int safe_weight = 64;  // two products of 255 * 64 fit into 16 bits
constexpr int64_t exact_in_f32 = int64_t{1} << 24;

void check_spec(const IntegerConvSpec& s) {
  conv2d_shape(s.src, s.weights.shape(), s.conv);
  const auto fits = [](const Array& a, DType type) { return a.has_value() && a.dtype() == type; };
  check(fits(s.weights, DType::s8), "[integer_conv] weights: got ", name_of(s.weights.dtype()),
        ", expected s8");
  const Shape channels{s.weights.dim(0)};
  for (const Array* a : {&s.b, &s.m}) {
    check(fits(*a, DType::f32) && a->shape() == channels, "[integer_conv] ", a == &s.b ? "b" : "m", ": got ",
          name_of(a->dtype()), a->shape(), ", expected f32", channels, ", one value per output channel");
    const float* values = a->data<float>();
    for (int64_t i = 0; i < a->size(); ++i)
      check(std::isfinite(values[i]), "[integer_conv] ", a == &s.b ? "b" : "m", ": got ", values[i],
            " in channel ", i, ", expected finite values");
  }
  check(s.src_zero_point >= 0 && s.src_zero_point <= largest_code, "[integer_conv] src_zero_point: got ",
        s.src_zero_point, ", expected 0 to 255");
  check(s.lo >= 0 && s.lo <= s.hi && s.hi <= largest_code, "[integer_conv] range: got ", s.lo, " to ", s.hi,
        ", expected 0 <= lo <= hi <= 255");
  check(!s.skip || (s.requantise && std::isfinite(s.skip_ratio)), "[integer_conv] skip: got ",
        s.requantise ? "a ratio that is not finite" : "a result in f32", ", expected requantise and a ratio");
  const int64_t taps = s.weights.dim(1) * s.weights.dim(2) * s.weights.dim(3);
  check(taps * largest_code * 128 < int64_t{1} << 31, "[integer_conv] weights: got ", s.weights.shape(),
        ", whose sums may pass 2^31; split the input channels");
}

void check_arrays(const IntegerConvSpec& s, const Array& src, const Array& dst) {
  check(src.dtype() == DType::u8 && src.shape() == s.src, "[integer_conv] src: got ", name_of(src.dtype()),
        src.shape(), ", expected u8", s.src);
  const Shape shape = conv2d_shape(s.src, s.weights.shape(), s.conv);
  const DType type = s.requantise ? DType::u8 : DType::f32;
  check(dst.dtype() == type && dst.shape() == shape, "[integer_conv] dst: got ", name_of(dst.dtype()),
        dst.shape(), ", expected ", name_of(type), shape);
}

/// dst from exact sums, by grid.h.
void requantise(const IntegerConvSpec& s, const Array& sums, Array& dst) {
  const int64_t width = s.weights.dim(0), rows = sums.size() / std::max<int64_t>(width, 1);
  const int32_t* acc = sums.data<int32_t>();
  const float *b = s.b.data<float>(), *m = s.m.data<float>();
  const simd::GridLoops& loops = simd::table().grid;
  parallel_for(rows, std::max<int64_t>(1, (1 << 14) / std::max<int64_t>(width, 1)),
               [&](int64_t begin, int64_t end) {
                 const int64_t first = begin * width, count = end - begin;
                 if (!s.requantise)
                   loops.affine(acc + first, b, m, static_cast<float*>(dst.raw()) + first, count, width);
                 else if (s.skip)
                   loops.requantise_add(acc + first, b, m, static_cast<uint8_t*>(dst.raw()) + first, count,
                                        width, s.lo, s.hi, s.skip_ratio);
                 else
                   loops.requantise(acc + first, b, m, static_cast<uint8_t*>(dst.raw()) + first, count, width,
                                    s.lo, s.hi);
               });
}

void add(Array& sums, const Array& part) {
  int32_t* to = sums.data<int32_t>();
  const int32_t* from = part.data<int32_t>();
  parallel_for(sums.size(), 1 << 14, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] += from[i];
  });
}

/// src within a frame of pixels that hold `code`.
Array framed(const Array& src, const std::array<int64_t, 4>& padding, int code) {
  const int64_t h = src.dim(1), c = src.dim(3), row = src.dim(2) * c;
  const auto [top, bottom, left, right] = padding;
  Array result({src.dim(0), top + h + bottom, left + src.dim(2) + right, c}, DType::u8);
  const int64_t rows = result.dim(1), wide = result.dim(2) * c;
  const uint8_t* from = src.data<uint8_t>();
  uint8_t* to = result.data<uint8_t>();
  const auto before = static_cast<size_t>(left * c), after = static_cast<size_t>(right * c);
  parallel_for(src.dim(0) * rows, std::max<int64_t>(1, (1 << 15) / std::max<int64_t>(wide, 1)),
               [&, top = top](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i) {
                   const int64_t n = i / rows, y = i % rows - top;
                   uint8_t* line = to + i * wide;
                   if (y < 0 || y >= h) {
                     std::memset(line, code, static_cast<size_t>(wide));
                     continue;
                   }
                   std::memset(line, code, before);
                   std::memcpy(line + before, from + (n * h + y) * row, static_cast<size_t>(row));
                   std::memset(line + before + row, code, after);
                 }
               });
  return result;
}

int largest_magnitude(const Array& weights) {
  const int8_t* w = weights.data<int8_t>();
  int largest = 0;
  for (int64_t i = 0; i < weights.size(); ++i) largest = std::max(largest, std::abs(int{w[i]}));
  return largest;
}

/// Moves from `rest` what one exact part can hold: |w| <= 64 and sums of products up to 2^24, so that neither
/// saturating 16-bit pairs nor a pass through f32 can change them.
Array peel(Array& rest) {
  Array part = Array::zeros(rest.shape(), DType::s8);
  int8_t *from = rest.data<int8_t>(), *to = part.data<int8_t>();
  const int64_t channels = rest.dim(0), taps = rest.size() / channels;
  for (int64_t c = 0; c < channels; ++c, from += taps, to += taps) {
    int room = exact_in_f32 / largest_code;
    for (int64_t i = 0; i < taps; ++i) {
      const int limit = std::min(safe_weight, room);
      to[i] = static_cast<int8_t>(std::clamp<int>(from[i], -limit, limit));
      from[i] = static_cast<int8_t>(from[i] - to[i]);
      room -= std::abs(to[i]);
    }
  }
  return part;
}

/// True when u8 * s8 products of any size are exact here: what the CPU promises, and one look whether it
/// holds.
bool any_weight_is_exact() {
  static const bool exact = onednn::products_are_exact() && integer_self_check();
  return exact;
}

bool is_sound(const IntegerConvSpec& s) {
  return onednn::is_sound(ConvOp::forward, DType::u8, s.src, s.weights.shape(), s.conv);
}

}  // namespace

struct IntegerConv::Impl {
  explicit Impl(const IntegerConvSpec& given) : spec(given) {
    check_spec(spec);
    const char* reason = prepare();
    const onednn::IntegerPrimitive* first = whole ? whole.get() : parts.empty() ? nullptr : parts[0].get();
    name = first ? text("onednn:", first->implementation()) : "reference";
    if (parts.size() > 1) name += text(" x ", parts.size());
    if (dispatch_is_verbose())
      report_dispatch(
          text("integer_conv ", spec.src, '*', spec.weights.shape(), " stride ", spec.conv.stride[0],
               " padding ", spec.conv.padding[0], " groups ", spec.conv.groups, spec.skip ? " skip" : ""),
          name, reason);
  }

  /// Makes the primitives, none where the reference shall run, and says why.
  const char* prepare() {
    if (spec.src.size() == 0 || spec.weights.size() == 0) return "an array is empty";
    // oneDNN pads with code 0 (its zero points crashed with AMX), and not where a result sees nothing else.
    const auto& p = spec.conv.padding;
    frame = p != std::array<int64_t, 4>{} && (spec.src_zero_point != 0 || !is_sound(spec));
    IntegerConvSpec inner = spec;
    if (frame) {
      inner.conv.padding = {};
      inner.src[1] += p[0] + p[1];
      inner.src[2] += p[2] + p[3];
    }
    if (!is_sound(inner)) return "oneDNN gets it wrong";
    const bool exact = any_weight_is_exact();
    if (exact || largest_magnitude(spec.weights) <= safe_weight) {
      whole = onednn::integer_primitive(inner, spec.requantise ? DType::u8 : DType::f32);
      if (whole) return exact ? "products are exact on this CPU" : "weights up to 64 do not saturate";
    } else {
      split(inner);
      if (!parts.empty()) return "products would saturate: exact sums of parts of the weights";
    }
    return "oneDNN does not have it";
  }

  void split(IntegerConvSpec inner) {
    Array rest = spec.weights.clone();
    do {
      inner.weights = peel(rest);
      parts.push_back(onednn::integer_primitive(inner, DType::s32));
      if (!parts.back()) return parts.clear();
    } while (largest_magnitude(rest) > 0);
  }

  void run(const Array& src, Array& dst) const {
    check_arrays(spec, src, dst);
    if (!whole && parts.empty()) return integer_conv_reference(spec, src, dst);
    const Array padded = frame ? framed(src, spec.conv.padding, spec.src_zero_point) : src;
    if (whole) return whole->run(padded, dst);
    Array sums(dst.shape(), DType::s32), more;
    parts[0]->run(padded, sums);
    for (size_t i = 1; i < parts.size(); ++i) {
      if (!more.has_value()) more = Array(dst.shape(), DType::s32);
      parts[i]->run(padded, more);
      add(sums, more);
    }
    requantise(spec, sums, dst);
  }

  IntegerConvSpec spec;
  bool frame = false;
  using Primitive = std::unique_ptr<onednn::IntegerPrimitive>;
  Primitive whole;               ///< convolves and requantises
  std::vector<Primitive> parts;  ///< otherwise: sums that are added up, then requantised
  std::string name;
};

IntegerConv::IntegerConv(const IntegerConvSpec& spec) : impl_(std::make_unique<Impl>(spec)) {}
IntegerConv::~IntegerConv() = default;
IntegerConv::IntegerConv(IntegerConv&&) noexcept = default;
void IntegerConv::run(const Array& src, Array& dst) const { impl_->run(src, dst); }
const char* IntegerConv::implementation() const { return impl_->name.c_str(); }

void integer_conv_reference(const IntegerConvSpec& spec, const Array& src, Array& dst) {
  check_spec(spec);
  check_arrays(spec, src, dst);
  const Array sums(dst.shape(), DType::s32);
  reference::conv2d_codes({src, spec.weights, sums}, spec.conv, spec.src_zero_point);
  requantise(spec, sums, dst);
}

bool integer_self_check() {
  const auto is_exact = [](const Shape& src_shape, const Shape& weights_shape) {
    IntegerConvSpec spec;
    spec.src = src_shape;
    spec.weights = Array::full(weights_shape, 127, DType::s8);
    const auto primitive = onednn::integer_primitive(spec, DType::s32);
    if (!primitive) return true;
    Array sums(conv2d_shape(src_shape, weights_shape, {}), DType::s32);
    primitive->run(Array::full(src_shape, largest_code, DType::u8), sums);
    const int expected = static_cast<int>(spec.weights.size() / weights_shape[0]) * 127 * largest_code;
    const int32_t* values = sums.data<int32_t>();
    return std::all_of(values, values + sums.size(), [=](int32_t v) { return v == expected; });
  };
  return is_exact({1, 4, 4, 16}, {16, 3, 3, 16}) && is_exact({1, 4, 4, 64}, {16, 1, 1, 64});
}

}  // namespace stairgrad::kernels
