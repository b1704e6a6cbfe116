#include "steps.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../../kernels/simd/simd.h"

namespace stairgrad::quant::integer {
namespace {

struct Part {
  int64_t first, last;
};
Part part_of(const Work& w, int64_t n) { return {n * w.share / w.shares, n * (w.share + 1) / w.shares}; }

template <class T>
const T* source(const Work& w, int value) {
  return static_cast<const T*>(w.values[value]);
}
template <class T>
T* destination(const Work& w, int value) {
  return static_cast<T*>(w.values[value]);
}

// Steps that treat codes and floats alike are written once, for elements of type T.
template <class F>
auto for_type(const Value& value, F make) {
  return value.codes ? make(uint8_t{}) : make(float{});
}

class StepMaker {
 public:
  StepMaker(const Model& model, int64_t images, int shares)
      : model_(model), images_(images), shares_(shares) {}

  Step operator()(const Encode& layer) const {
    const Grid grid = at(layer.dst).grid;
    const int64_t size = at(layer.dst).shape.size();
    const float inverse = grid::inverse(grid.scale);
    return {[=](const Work& w) {
      const auto [first, last] = part_of(w, w.images * size);
      simd::table().grid.encode_u8(source<float>(w, layer.src) + first,
                                   destination<uint8_t>(w, layer.dst) + first, last - first, grid, inverse);
    }};
  }

  Step operator()(const Remap& layer) const {
    const int64_t size = at(layer.dst).shape.size(), columns = choices_of(model_);
    const int choice = at(layer.dst).choice;
    return {[=](const Work& w) {
      const auto loop = simd::integer_table().codes.remap;
      const uint8_t* from = source<uint8_t>(w, layer.src);
      uint8_t* to = destination<uint8_t>(w, layer.dst);
      if (choice < 0 || !w.choices) {
        const auto [first, last] = part_of(w, w.images * size);
        return loop(from + first, to + first, last - first, layer.tables[0].data());
      }
      const auto [first, last] = part_of(w, size);
      for (int64_t i = 0; i < w.images; ++i)
        loop(from + i * size + first, to + i * size + first, last - first,
             layer.tables[w.choices[i * columns + choice]].data());
    }};
  }

  Step operator()(const Convolution& layer) const {
    const Value &src = at(layer.src), &dst = at(layer.dst);
    kernels::IntegerConvSpec spec{.src = {images_, src.shape[0], src.shape[1], src.shape[2]},
                                  .conv = layer.options,
                                  .src_zero_point = static_cast<int>(src.grid.zero_point),
                                  .weights = layer.weights,
                                  .b = layer.b,
                                  .m = layer.m,
                                  .requantise = dst.codes,
                                  .lo = layer.lo,
                                  .hi = layer.hi,
                                  .low = layer.low,
                                  .high = layer.high,
                                  .skip = layer.skip >= 0 && at(layer.skip).codes,
                                  .skip_ratio = layer.skip_ratio,
                                  .float_skip = layer.skip >= 0 && !at(layer.skip).codes};
    if (!src.alternatives.empty()) return with_alternatives(layer, spec);
    const auto conv =
        std::make_shared<const kernels::IntegerConv>(spec, kernels::IntegerKernel::fastest, shares_);
    return {[=, src = layer.src, dst = layer.dst, skip = layer.skip](const Work& w) {
              conv->run({w.values[src], w.values[dst], skip < 0 ? nullptr : w.values[skip], w.scratch},
                        w.share, w.shares);
            },
            conv->scratch_bytes(), conv->implementation()};
  }

  Step operator()(const AveragePool& layer) const {
    return for_type(at(layer.src), [&](auto element) { return average<decltype(element)>(layer); });
  }
  Step operator()(const MaxPool& layer) const {
    return for_type(at(layer.src), [&](auto element) { return largest<decltype(element)>(layer); });
  }
  Step operator()(const Subsample& layer) const {
    return for_type(at(layer.src), [&](auto element) { return subsampled<decltype(element)>(layer); });
  }
  Step operator()(const Concat& layer) const {
    return for_type(at(layer.dst), [&](auto element) { return joined<decltype(element)>(layer); });
  }

  Step operator()(const Moments& layer) const {
    const Value &src = at(layer.src), &dst = at(layer.dst);
    const int64_t channels = src.shape[2], pixels = src.shape[0] * src.shape[1],
                  zero = std::llround(src.grid.zero_point);
    return {[=, &src, &dst](const Work& w) {
              auto* sum = static_cast<int64_t*>(w.scratch);
              const auto [first, last] = part_of(w, w.images);
              for (int64_t i = first; i < last; ++i) {
                add_moments(source<uint8_t>(w, layer.src) + i * pixels * channels, pixels, channels, sum);
                uint8_t* to = destination<uint8_t>(w, layer.dst) + i * 2 * channels;
                for (int64_t c = 0; c < channels; ++c) {
                  // Of x - zero.
                  const int64_t s = sum[c] - pixels * zero,
                                r = sum[channels + c] - 2 * zero * sum[c] + pixels * zero * zero;
                  const double mean = static_cast<double>(s) / static_cast<double>(pixels);
                  const double var = static_cast<double>(r) / static_cast<double>(pixels) - mean * mean;
                  const auto code = [&](double x) {
                    return static_cast<uint8_t>(
                        grid::encode(static_cast<float>(static_cast<double>(src.grid.scale) * x), dst.grid));
                  };
                  to[c] = code(mean);
                  to[channels + c] = code(std::sqrt(std::max(0.0, var)));
                }
              }
            },
            static_cast<size_t>(2 * channels) * (sizeof(int64_t) + sizeof(int32_t))};
  }

  Step operator()(const Select& layer) const {
    const int64_t sites = at(layer.dst).shape[2], k = at(layer.src).shape[2] / sites,
                  columns = choices_of(model_);
    return {[=](const Work& w) {
      const auto [first, last] = part_of(w, w.images);
      for (int64_t i = first; i < last; ++i) {
        const float* logits = source<float>(w, layer.src) + i * sites * k;
        uint8_t* to = destination<uint8_t>(w, layer.dst) + i * sites;
        for (int64_t s = 0; s < sites; ++s, logits += k)
          to[s] = static_cast<uint8_t>(std::max_element(logits, logits + k) - logits);
        if (w.own_choices) std::copy_n(to, sites, w.own_choices + i * columns + layer.first);
      }
    }};
  }

 private:
  const Value& at(int value) const { return model_.values[static_cast<size_t>(value)]; }

  // Sums and squares of codes by channel, (2, channels), before as many 32-bit ones, which are what
  // vectorises.
  static void add_moments(const uint8_t* from, int64_t pixels, int64_t channels, int64_t* sum) {
    constexpr int64_t most = 1 << 15;  // 255^2 * 2^15 < 2^31
    auto* part = reinterpret_cast<int32_t*>(sum + 2 * channels);
    std::fill_n(sum, 2 * channels, int64_t{0});
    for (int64_t begin = 0; begin < pixels; begin += most) {
      simd::integer_table().codes.moments(from + begin * channels, std::min(most, pixels - begin), channels,
                                          part, part + channels);
      for (int64_t c = 0; c < 2 * channels; ++c) sum[c] += part[c];
    }
  }

  // Each image runs through the convolution of its alternative. Unless each has weights of its own, they
  // share them, packed once; what differs is the padding, b and m. Images of one alternative need not be
  // brought together: a convolution of codes takes as long whatever their bits are, and reads the same
  // weights.
  Step with_alternatives(const Convolution& layer, kernels::IntegerConvSpec spec) const {
    const Value& src = at(layer.src);
    const int64_t columns = choices_of(model_);
    spec.src[0] = 1;
    std::vector<std::shared_ptr<const kernels::IntegerConv>> convs;
    for (size_t i = 0; i < src.alternatives.size(); ++i) {
      const Convolution own = alternative_of(layer, static_cast<int64_t>(i));
      spec.weights = own.weights;
      spec.b = own.b;
      spec.m = own.m;
      spec.src_zero_point = static_cast<int>(src.alternatives[i].grid.zero_point);
      using Conv = const kernels::IntegerConv;
      convs.push_back(i == 0 || !layer.other_weights.empty()
                          ? std::make_shared<Conv>(spec, kernels::IntegerKernel::fastest, shares_)
                          : std::make_shared<Conv>(*convs[0], spec.b, spec.m, spec.src_zero_point));
    }
    const auto bytes = [this](int value) {
      return value < 0 ? 0
                       : at(value).shape.size() * static_cast<int64_t>(at(value).codes ? 1 : sizeof(float));
    };
    const int64_t src_bytes = src.shape.size(), dst_bytes = bytes(layer.dst), skip_bytes = bytes(layer.skip);
    size_t scratch = 0;
    for (const auto& conv : convs) scratch = std::max(scratch, conv->scratch_bytes());
    return {[=, choice = src.choice, src = layer.src, dst = layer.dst, skip = layer.skip](const Work& w) {
              for (int64_t i = 0; i < w.images; ++i) {
                const size_t chosen = w.choices ? w.choices[i * columns + choice] : 0;
                convs[chosen]->run(
                    {source<uint8_t>(w, src) + i * src_bytes, destination<uint8_t>(w, dst) + i * dst_bytes,
                     skip < 0 ? nullptr : source<uint8_t>(w, skip) + i * skip_bytes, w.scratch},
                    w.share, w.shares);
              }
            },
            scratch, convs[0]->implementation()};
  }

  // Calls body(image, y, x, rows and columns of src under the window) for the part's windows, row by row.
  template <class Body>
  static void for_windows(const Work& w, const Shape& src, const Shape& dst, const Pool2dOptions& o,
                          const Body& body) {
    const auto [first, last] = part_of(w, w.images * dst[0]);
    for (int64_t row = first; row < last; ++row) {
      const int64_t top = row % dst[0] * o.stride[0] - o.padding[0];
      const Part rows{std::max<int64_t>(0, top), std::min(src[0], top + o.kernel[0])};
      for (int64_t x = 0; x < dst[1]; ++x) {
        const int64_t left = x * o.stride[1] - o.padding[1];
        body(row / dst[0], row * dst[1] + x, rows,
             Part{std::max<int64_t>(0, left), std::min(src[1], left + o.kernel[1])});
      }
    }
  }

  template <class T>
  Step average(const AveragePool& layer) const {
    const Value &src = at(layer.src), &dst = at(layer.dst);
    const int64_t channels = src.shape[2];
    using Sum = std::conditional_t<std::is_same_v<T, float>, double, int32_t>;
    return {[=, &src, &dst](const Work& w) {
              const T* from = source<T>(w, layer.src);
              Sum* sums = static_cast<Sum*>(w.scratch);
              for_windows(
                  w, src.shape, dst.shape, layer.options,
                  [&](int64_t image, int64_t result, Part rows, Part columns) {
                    const int64_t inside = (rows.last - rows.first) * (columns.last - columns.first);
                    const int64_t outside = layer.options.kernel[0] * layer.options.kernel[1] - inside;
                    std::fill_n(sums, channels,
                                static_cast<Sum>(outside) * static_cast<Sum>(src.grid.zero_point));
                    for (int64_t y = rows.first; y < rows.last; ++y)
                      for (int64_t x = columns.first; x < columns.last; ++x) {
                        const T* pixel = from + ((image * src.shape[0] + y) * src.shape[1] + x) * channels;
                        if constexpr (std::is_same_v<T, float>)
                          for (int64_t c = 0; c < channels; ++c) sums[c] += static_cast<double>(pixel[c]);
                        else
                          simd::integer_table().codes.add(pixel, sums, channels);
                      }
                    for (int64_t c = 0; c < channels; ++c) {
                      const float t = (static_cast<float>(sums[c]) + layer.b) * layer.m;
                      if (dst.codes)
                        destination<uint8_t>(w, layer.dst)[result * channels + c] =
                            static_cast<uint8_t>(grid::round_saturate(t, dst.grid.lo, dst.grid.hi));
                      else
                        destination<float>(w, layer.dst)[result * channels + c] = t;
                    }
                  });
            },
            static_cast<size_t>(channels) * sizeof(Sum)};
  }

  static void take_larger(const uint8_t* from, uint8_t* to, int64_t n) {
    simd::integer_table().codes.larger(from, to, n);
  }
  static void take_larger(const float* from, float* to, int64_t n) {
    for (int64_t i = 0; i < n; ++i) to[i] = from[i] > to[i] ? from[i] : to[i];
  }

  // The largest of each column first, of whole rows at once.
  template <class T>
  Step largest(const MaxPool& layer) const {
    const Shape src = at(layer.src).shape, dst = at(layer.dst).shape;
    const int64_t channels = src[2], line = src[1] * channels;
    return {[=](const Work& w) {
              T* of_columns = static_cast<T*>(w.scratch);
              int64_t done = -1;  // the row that of_columns is for
              for_windows(w, src, dst, layer.options,
                          [&](int64_t image, int64_t result, Part rows, Part columns) {
                            if (result / dst[1] != done) {
                              done = result / dst[1];
                              const T* from = source<T>(w, layer.src) + image * src[0] * line;
                              std::copy_n(from + rows.first * line, line, of_columns);
                              for (int64_t y = rows.first + 1; y < rows.last; ++y)
                                take_larger(from + y * line, of_columns, line);
                            }
                            T* to = destination<T>(w, layer.dst) + result * channels;
                            std::copy_n(of_columns + columns.first * channels, channels, to);
                            for (int64_t x = columns.first + 1; x < columns.last; ++x)
                              take_larger(of_columns + x * channels, to, channels);
                          });
            },
            static_cast<size_t>(line) * sizeof(T)};
  }

  template <class T>
  Step subsampled(const Subsample& layer) const {
    const Shape &src = at(layer.src).shape, &dst = at(layer.dst).shape;
    const T zero = at(layer.dst).codes ? static_cast<T>(at(layer.dst).grid.zero_point) : T{};
    return {[=, &src, &dst](const Work& w) {
      const T* from = source<T>(w, layer.src);
      T* to = destination<T>(w, layer.dst);
      const auto [first, last] = part_of(w, w.images * dst[0]);
      for (int64_t row = first; row < last; ++row) {
        const int64_t image = row / dst[0], y = row % dst[0] * layer.stride[0];
        for (int64_t x = 0; x < dst[1]; ++x) {
          T* pixel = to + (row * dst[1] + x) * dst[2];
          std::fill_n(pixel, layer.before, zero);
          std::copy_n(from + ((image * src[0] + y) * src[1] + x * layer.stride[1]) * src[2], src[2],
                      pixel + layer.before);
          std::fill_n(pixel + layer.before + src[2], layer.after, zero);
        }
      }
    }};
  }

  template <class T>
  Step joined(const Concat& layer) const {
    const Shape dst = at(layer.dst).shape;
    return {[=, &model = model_](const Work& w) {
      const auto [first, last] = part_of(w, w.images * dst[0] * dst[1]);
      int64_t channel = 0;
      for (const int src : layer.srcs) {
        const int64_t channels = model.values[static_cast<size_t>(src)].shape[2];
        const T* from = source<T>(w, src);
        T* to = destination<T>(w, layer.dst) + channel;
        for (int64_t pixel = first; pixel < last; ++pixel)
          std::copy_n(from + pixel * channels, channels, to + pixel * dst[2]);
        channel += channels;
      }
    }};
  }

  const Model& model_;
  int64_t images_;
  int shares_;
};

}  // namespace

Step make_step(const Model& model, const Layer& layer, int64_t images, int shares) {
  Step step = std::visit(StepMaker(model, images, shares), layer);
  if (step.implementation.empty()) step.implementation = op_of(layer);
  return step;
}

}  // namespace stairgrad::quant::integer
