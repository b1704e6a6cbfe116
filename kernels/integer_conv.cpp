#include "integer_conv.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "dispatch.h"
#include "grid.h"
#include "integer_direct.h"
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
  check(!s.skip || std::isfinite(s.skip_ratio), "[integer_conv] skip: got the ratio ", s.skip_ratio,
        ", expected a finite one");
  check(!s.float_skip || (!s.requantise && !s.skip), "[integer_conv] float_skip: got ",
        s.skip ? "another skip" : "a result in codes", ", expected a result in f32 and no other skip");
  check(s.low <= s.high, "[integer_conv] range: got ", s.low, " to ", s.high, ", expected low <= high");
  check(sums_fit(s.weights), "[integer_conv] weights: got ", s.weights.shape(),
        ", whose sums may pass 2^31; split the input channels");
}

void check_arrays(const IntegerConvSpec& s, const Array& src, const Array& dst, const Array& skip) {
  check(src.dtype() == DType::u8 && src.shape() == s.src, "[integer_conv] src: got ", name_of(src.dtype()),
        src.shape(), ", expected u8", s.src);
  const Shape shape = conv2d_shape(s.src, s.weights.shape(), s.conv);
  const DType type = s.requantise ? DType::u8 : DType::f32;
  check(dst.dtype() == type && dst.shape() == shape, "[integer_conv] dst: got ", name_of(dst.dtype()),
        dst.shape(), ", expected ", name_of(type), shape);
  if (!s.skip && !s.float_skip) return;
  const Array& from = skip.has_value() ? skip : dst;
  const DType skip_type = s.skip ? DType::u8 : DType::f32;
  check(from.dtype() == skip_type && from.shape() == shape, "[integer_conv] skip: got ",
        name_of(from.dtype()), from.shape(), ", expected ", name_of(skip_type), shape);
}

/// f32 results from exact sums.
void to_floats(const IntegerConvSpec& s, const int32_t* acc, const void* skip, float* dst, int64_t rows,
               int64_t width) {
  const float *b = s.b.data<float>(), *m = s.m.data<float>();
  const auto* codes = static_cast<const uint8_t*>(skip);
  const auto* floats = static_cast<const float*>(skip);
  for (int64_t i = 0; i < rows * width; ++i) {
    float t = grid::affine(acc[i], b[i % width], m[i % width]);
    if (s.skip) t = grid::add_skip(t, codes[i], s.skip_ratio);
    if (s.float_skip) t = t + floats[i];
    dst[i] = t > s.low ? (t < s.high ? t : s.high) : s.low;
  }
}

/// dst from exact sums, by grid.h.
void requantise(const IntegerConvSpec& s, const int32_t* acc, int64_t size, const void* skip, void* dst) {
  const int64_t width = s.weights.dim(0), rows = size / std::max<int64_t>(width, 1);
  const float *b = s.b.data<float>(), *m = s.m.data<float>();
  auto* codes = static_cast<uint8_t*>(dst);
  if (s.requantise && s.skip && skip != dst) std::memcpy(dst, skip, static_cast<size_t>(size));
  if (!s.requantise) return to_floats(s, acc, skip, static_cast<float*>(dst), rows, width);
  const simd::GridLoops& loops = simd::table().grid;
  parallel_for(
      rows, std::max<int64_t>(1, (1 << 14) / std::max<int64_t>(width, 1)), [&](int64_t begin, int64_t end) {
        const int64_t first = begin * width, count = end - begin;
        if (s.skip)
          loops.requantise_add(acc + first, b, m, codes + first, count, width, s.lo, s.hi, s.skip_ratio);
        else
          loops.requantise(acc + first, b, m, codes + first, count, width, s.lo, s.hi);
      });
}

void add(int32_t* to, const int32_t* from, int64_t n) {
  parallel_for(n, 1 << 14, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] += from[i];
  });
}

/// Copies src into a frame of pixels that hold `code`.
void frame_in(const uint8_t* from, const Shape& src, const std::array<int64_t, 4>& padding, int code,
              uint8_t* to) {
  const int64_t h = src[1], c = src[3], row = src[2] * c;
  const auto [top, bottom, left, right] = padding;
  const int64_t rows = top + h + bottom, wide = (left + src[2] + right) * c;
  const auto before = static_cast<size_t>(left * c), after = static_cast<size_t>(right * c);
  parallel_for(src[0] * rows, std::max<int64_t>(1, (1 << 15) / std::max<int64_t>(wide, 1)),
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

/// Whether oneDNN's kernels for matrix units (AMX) beat our own loops: on 3x3 layers and on wide 1x1 ones.
/// Narrow and depthwise layers are bound by memory.
bool suits_matrix_units(const IntegerConvSpec& s) {
  const int64_t ic = s.weights.dim(3), oc = s.weights.dim(0);
  const bool wide = s.weights.dim(1) * s.weights.dim(2) > 1 ? ic >= 32 && oc >= 32 : ic >= 128 && oc >= 64;
  return s.conv.groups == 1 && wide && onednn::has_matrix_units();
}

/// STAIRGRAD_INTEGER_CONV={own,onednn,reference}: what takes the place of `fastest`, to compare them.
IntegerKernel asked_for() {
  static const IntegerKernel kernel = [] {
    const char* name = std::getenv("STAIRGRAD_INTEGER_CONV");
    const std::string_view wanted = name ? name : "fastest";
    check(wanted == "fastest" || wanted == "own" || wanted == "onednn" || wanted == "reference",
          "[integer_conv] got STAIRGRAD_INTEGER_CONV=", wanted, ", expected own, onednn or reference");
    return wanted == "own"         ? IntegerKernel::own
           : wanted == "onednn"    ? IntegerKernel::onednn
           : wanted == "reference" ? IntegerKernel::reference
                                   : IntegerKernel::fastest;
  }();
  return kernel;
}

void run_reference(const IntegerConvSpec& spec, const IntegerConvOperands& o) {
  const Shape shape = conv2d_shape(spec.src, spec.weights.shape(), spec.conv);
  Array src(spec.src, DType::u8);
  if (src.size() > 0) std::memcpy(src.raw(), o.src, src.bytes());
  const Array sums(shape, DType::s32);
  reference::conv2d_codes({src, spec.weights, sums}, spec.conv, spec.src_zero_point);
  requantise(spec, sums.data<int32_t>(), sums.size(), o.skip, o.dst);
}

constexpr size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

struct IntegerConv::Impl {
  Impl(const IntegerConvSpec& given, IntegerKernel kernel, int shares, const Impl* like = nullptr)
      : spec(given), asked(kernel), run_shares(shares) {
    check_spec(spec);
    dst_shape = conv2d_shape(spec.src, spec.weights.shape(), spec.conv);
    const char* reason = like && like->own ? take_weights_of(*like->own) : prepare(kernel);
    if (whole && spec.src[0] == 1 && shares > 1 && dst_shape[1] >= shares) cut(shares);
    const onednn::IntegerPrimitive* first = whole ? whole.get() : parts.empty() ? nullptr : parts[0].get();
    name = own ? text("own:", own->name()) : first ? text("onednn:", first->implementation()) : "reference";
    if (parts.size() > 1) name += text(" x ", parts.size());
    if (dispatch_is_verbose())
      report_dispatch(
          text("integer_conv ", spec.src, '*', spec.weights.shape(), " stride ", spec.conv.stride[0],
               " padding ", spec.conv.padding[0], " groups ", spec.conv.groups, spec.skip ? " skip" : ""),
          name, reason);
  }

  /// Makes what runs, nothing where the reference shall run, and says why.
  const char* prepare(IntegerKernel kernel) {
    if (spec.src.size() == 0 || spec.weights.size() == 0) return "an array is empty";
    if (kernel == IntegerKernel::fastest) kernel = asked_for();
    if (kernel == IntegerKernel::reference) return "asked for";
    const bool fastest = kernel == IntegerKernel::fastest;
    if (kernel == IntegerKernel::onednn || (fastest && suits_matrix_units(spec))) {
      const char* reason = prepare_onednn();
      if (whole || !fastest) return reason;
      parts.clear();
    }
    if (!DirectConv::available()) return fastest ? prepare_onednn() : "no loops for this machine";
    own = std::make_unique<const DirectConv>(spec);
    return "sums stay in registers";
  }

  const char* take_weights_of(const DirectConv& like) {
    own = std::make_unique<const DirectConv>(like, spec);
    return "shares weights";
  }

  const char* prepare_onednn() {
    if (!spec.requantise &&
        (spec.skip || spec.float_skip || std::isfinite(spec.low) || std::isfinite(spec.high)))
      return "the result is not codes";
    // oneDNN pads with code 0 (its zero points crashed with AMX), and not where a result sees nothing else.
    const auto& p = spec.conv.padding;
    frame = p != std::array<int64_t, 4>{} && (spec.src_zero_point != 0 || !is_sound(spec));
    IntegerConvSpec inner = spec;
    if (frame) {
      inner.conv.padding = {};
      inner.src[1] += p[0] + p[1];
      inner.src[2] += p[2] + p[3];
      frame_bytes = aligned(static_cast<size_t>(inner.src.size()));
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

  /// A convolution for each band of rows of the result; none if one of them is not oneDNN's.
  void cut(int shares) {
    const int64_t height = spec.src[1], step = spec.conv.stride[0];
    const int64_t reach = (spec.weights.dim(1) - 1) * spec.conv.dilation[0] + 1;
    for (int share = 0; share < shares; ++share) {
      const int64_t first = dst_shape[1] * share / shares, last = dst_shape[1] * (share + 1) / shares;
      // Rows of src, in the padding where they are negative or beyond the height.
      const int64_t top = first * step - spec.conv.padding[0],
                    bottom = (last - 1) * step - spec.conv.padding[0] + reach;
      Band band;
      band.src = std::clamp<int64_t>(top, 0, height);
      band.dst = first;
      IntegerConvSpec part = spec;
      part.src[1] = std::clamp<int64_t>(bottom, 0, height) - band.src;
      part.conv.padding[0] = std::max<int64_t>(0, -top);
      part.conv.padding[1] = std::max<int64_t>(0, bottom - height);
      if (part.src[1] <= 0) return bands.clear();
      band.conv = std::make_unique<const Impl>(part, IntegerKernel::onednn, 1);
      if (!band.conv->whole || band.conv->dst_shape[1] != last - first) return bands.clear();
      bands.push_back(std::move(band));
    }
  }

  void split(IntegerConvSpec inner) {
    Array rest = spec.weights.clone();
    do {
      inner.weights = peel(rest);
      parts.push_back(onednn::integer_primitive(inner, DType::s32));
      if (!parts.back()) return parts.clear();
    } while (largest_magnitude(rest) > 0);
  }

  size_t dst_bytes() const { return static_cast<size_t>(dst_shape.size()); }
  size_t sums_bytes() const { return aligned(4 * dst_bytes()); }

  /// Frame, oneDNN's own scratch, then two arrays of sums.
  size_t scratch_bytes() const {
    if (own) return own->scratch_bytes();
    size_t of_band = 0;
    for (const Band& band : bands) of_band = std::max(of_band, band.conv->scratch_bytes());
    if (!bands.empty()) return std::max(of_band, frame_bytes + whole->scratch_bytes());
    if (whole) return frame_bytes + whole->scratch_bytes();
    size_t bytes = 0;
    for (const auto& part : parts) bytes = std::max(bytes, part->scratch_bytes());
    return parts.empty() ? 0 : frame_bytes + aligned(bytes) + 2 * sums_bytes();
  }

  void run(const IntegerConvOperands& o, int share, int shares) const {
    if (own) return own->run(o, share, shares);
    if (shares > 1 && static_cast<size_t>(shares) == bands.size()) {
      const Band& band = bands[static_cast<size_t>(share)];
      const int64_t from = band.src * spec.src[2] * spec.src[3], to = band.dst * dst_shape[2] * dst_shape[3];
      const int64_t element = spec.requantise ? 1 : sizeof(float);
      return band.conv->run(
          {static_cast<const uint8_t*>(o.src) + from, static_cast<uint8_t*>(o.dst) + to * element,
           o.skip ? static_cast<const uint8_t*>(o.skip) + to : nullptr, o.scratch},
          0, 1);
    }
    if (share > 0) return;
    if (!whole && parts.empty()) return run_reference(spec, o);
    auto* scratch = static_cast<uint8_t*>(o.scratch);
    const void* src = o.src;
    if (frame) {
      frame_in(static_cast<const uint8_t*>(src), spec.src, spec.conv.padding, spec.src_zero_point, scratch);
      src = scratch;
    }
    if (whole) {
      if (spec.skip && o.skip != o.dst) std::memcpy(o.dst, o.skip, dst_bytes());
      return whole->run(src, o.dst, scratch + frame_bytes);
    }
    auto* sums = reinterpret_cast<int32_t*>(scratch + scratch_bytes() - 2 * sums_bytes());
    auto* more = reinterpret_cast<int32_t*>(scratch + scratch_bytes() - sums_bytes());
    parts[0]->run(src, sums, scratch + frame_bytes);
    for (size_t i = 1; i < parts.size(); ++i) {
      parts[i]->run(src, more, scratch + frame_bytes);
      add(sums, more, dst_shape.size());
    }
    requantise(spec, sums, dst_shape.size(), o.skip, o.dst);
  }

  /// All of it, with the threads of parallel_for where the kernel has none of its own.
  void run(const IntegerConvOperands& o) const {
    if (!own) {
      const Array scratch({static_cast<int64_t>(scratch_bytes())}, DType::u8);
      return run({o.src, o.dst, o.skip, const_cast<void*>(scratch.raw())}, 0, 1);
    }
    const auto shares = static_cast<int>(std::clamp<int64_t>(
        dst_shape.size() * spec.weights.size() / dst_shape[3] / work_of_a_share, 1, threads()));
    const auto bytes = static_cast<int64_t>(aligned(scratch_bytes()));
    Array scratch({shares * bytes}, DType::u8);
    auto* begin = scratch.data<uint8_t>();
    parallel_for(shares, 1, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i)
        own->run({o.src, o.dst, o.skip, begin + i * bytes}, static_cast<int>(i), shares);
    });
  }

  static constexpr int64_t work_of_a_share = 1 << 20;  // products: less takes no longer than to wake a thread

  IntegerConvSpec spec;
  IntegerKernel asked;
  int run_shares;  ///< in how many parts run() is called
  Shape dst_shape;
  std::unique_ptr<const DirectConv> own;
  bool frame = false;
  size_t frame_bytes = 0;
  using Primitive = std::unique_ptr<onednn::IntegerPrimitive>;
  Primitive whole;  ///< convolves and requantises
  struct Band {
    int64_t src, dst;  ///< first rows
    std::unique_ptr<const Impl> conv;
  };
  std::vector<Band> bands;       ///< `whole` in parts
  std::vector<Primitive> parts;  ///< otherwise: sums that are added up, then requantised
  std::string name;
};

IntegerConv::IntegerConv(const IntegerConvSpec& spec, IntegerKernel kernel, int shares)
    : impl_(std::make_unique<Impl>(spec, kernel, shares)) {}
IntegerConv::IntegerConv(const IntegerConv& like, const Array& b, const Array& m, int src_zero_point) {
  IntegerConvSpec spec = like.impl_->spec;
  spec.b = b;
  spec.m = m;
  spec.src_zero_point = src_zero_point;
  impl_ = std::make_unique<Impl>(spec, like.impl_->asked, like.impl_->run_shares, like.impl_.get());
}
IntegerConv::~IntegerConv() = default;
IntegerConv::IntegerConv(IntegerConv&&) noexcept = default;

void IntegerConv::run(const Array& src, Array& dst, const Array& skip) const {
  check_arrays(impl_->spec, src, dst, skip);
  if (dst.size() > 0) impl_->run({src.raw(), dst.raw(), skip.has_value() ? skip.raw() : dst.raw(), nullptr});
}
void IntegerConv::run(const IntegerConvOperands& operands, int share, int shares) const {
  impl_->run(operands, share, shares);
}
size_t IntegerConv::scratch_bytes() const { return impl_->scratch_bytes(); }
const char* IntegerConv::implementation() const { return impl_->name.c_str(); }

void integer_conv_reference(const IntegerConvSpec& spec, const Array& src, Array& dst, const Array& skip) {
  check_spec(spec);
  check_arrays(spec, src, dst, skip);
  run_reference(spec, {src.raw(), dst.raw(), skip.has_value() ? skip.raw() : dst.raw(), nullptr});
}

bool sums_fit(const Array& weights, int64_t limit) {
  const int64_t channels = weights.dim(0), taps = channels > 0 ? weights.size() / channels : 0;
  if (taps * largest_code * 128 < limit) return true;
  const int8_t* w = weights.data<int8_t>();
  for (int64_t c = 0; c < channels; ++c, w += taps) {
    int64_t sum = 0;
    for (int64_t i = 0; i < taps; ++i) sum += std::abs(int{w[i]});
    if (sum * largest_code >= limit) return false;
  }
  return true;
}

bool integer_self_check() {
  const auto is_exact = [](const Shape& src_shape, const Shape& weights_shape) {
    IntegerConvSpec spec;
    spec.src = src_shape;
    spec.weights = Array::full(weights_shape, 127, DType::s8);
    const auto primitive = onednn::integer_primitive(spec, DType::s32);
    if (!primitive) return true;
    Array sums(conv2d_shape(src_shape, weights_shape, {}), DType::s32),
        scratch({static_cast<int64_t>(primitive->scratch_bytes())}, DType::u8);
    primitive->run(Array::full(src_shape, largest_code, DType::u8).raw(), sums.raw(), scratch.raw());
    const int expected = static_cast<int>(spec.weights.size() / weights_shape[0]) * 127 * largest_code;
    const int32_t* values = sums.data<int32_t>();
    return std::all_of(values, values + sums.size(), [=](int32_t v) { return v == expected; });
  };
  return is_exact({1, 4, 4, 16}, {16, 3, 3, 16}) && is_exact({1, 4, 4, 64}, {16, 1, 1, 64});
}

}  // namespace stairgrad::kernels
