#include "session.h"

#include <cstring>
#include <functional>
#include <map>

#include "../../kernels/integer_conv.h"
#include "../../kernels/threads.h"

namespace stairgrad::quant::integer {
namespace {

using Step = std::function<void()>;

void encode(const Array& images, Array& codes, const Grid& to) {
  const float* from = images.data<float>();
  uint8_t* out = codes.data<uint8_t>();
  const float inverse = grid::inverse(to.scale);
  parallel_for(images.size(), 1 << 14, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = static_cast<uint8_t>(grid::encode(from[i], to, inverse));
  });
}

void remap(const Array& src, Array& dst, const std::array<uint8_t, 256>& table) {
  const uint8_t* from = src.data<uint8_t>();
  uint8_t* to = dst.data<uint8_t>();
  parallel_for(src.size(), 1 << 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] = table[from[i]];
  });
}

void average_pool(const Array& src, Array& dst, const AveragePool& layer, const Grid& to) {
  const int64_t images = src.dim(0), pixels = src.dim(1) * src.dim(2), channels = src.dim(3);
  parallel_for(
      images, std::max<int64_t>(1, (1 << 15) / (pixels * channels)), [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n)
          for (int64_t c = 0; c < channels; ++c) {
            const uint8_t* code = src.data<uint8_t>() + n * pixels * channels + c;
            int32_t sum = 0;
            for (int64_t p = 0; p < pixels; ++p) sum += code[p * channels];
            dst.data<uint8_t>()[n * channels + c] =
                static_cast<uint8_t>(grid::round_saturate(grid::affine(sum, layer.b, layer.m), to.lo, to.hi));
          }
      });
}

void max_pool(const Array& src, Array& dst, const Pool2dOptions& o) {
  const int64_t height = src.dim(1), width = src.dim(2), channels = src.dim(3);
  parallel_for(dst.dim(0) * dst.dim(1), 4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t n = row / dst.dim(1), top = row % dst.dim(1) * o.stride[0] - o.padding[0];
      for (int64_t x = 0; x < dst.dim(2); ++x) {
        uint8_t* out = dst.data<uint8_t>() + (row * dst.dim(2) + x) * channels;
        std::memset(out, 0, static_cast<size_t>(channels));
        for (int64_t y = std::max<int64_t>(0, top); y < std::min(height, top + o.kernel[0]); ++y)
          for (int64_t k = 0; k < o.kernel[1]; ++k) {
            const int64_t column = x * o.stride[1] - o.padding[1] + k;
            if (column < 0 || column >= width) continue;
            const uint8_t* from = src.data<uint8_t>() + ((n * height + y) * width + column) * channels;
            for (int64_t c = 0; c < channels; ++c) out[c] = std::max(out[c], from[c]);
          }
      }
    }
  });
}

void subsample(const Array& src, Array& dst, const Subsample& layer, const Grid& grid) {
  const int64_t channels = src.dim(3), wide = dst.dim(3);
  const int zero = static_cast<int>(grid.zero_point);
  parallel_for(dst.dim(0) * dst.dim(1), 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t n = row / dst.dim(1), y = row % dst.dim(1) * layer.stride[0];
      for (int64_t x = 0; x < dst.dim(2); ++x) {
        uint8_t* to = dst.data<uint8_t>() + (row * dst.dim(2) + x) * wide;
        const uint8_t* from =
            src.data<uint8_t>() + ((n * src.dim(1) + y) * src.dim(2) + x * layer.stride[1]) * channels;
        std::memset(to, zero, static_cast<size_t>(layer.before));
        std::memcpy(to + layer.before, from, static_cast<size_t>(channels));
        std::memset(to + layer.before + channels, zero, static_cast<size_t>(layer.after));
      }
    }
  });
}

}  // namespace

struct Session::Impl {
  Model model;
  int64_t batch;
  bool keep_values;
  Arrays values;            // by value index; several may share a buffer
  std::vector<Step> steps;  // by layer
  Array logits;
  int64_t bytes = 0;

  Impl(const Model& source, int64_t batch, bool keep_values)
      : model(source), batch(batch), keep_values(keep_values) {
    validate(model);
    check(batch > 0, "[session] got the batch size ", batch, ", expected at least 1");
    plan();
    for (const Layer& layer : model.layers)
      steps.push_back(std::visit([&](const auto& l) { return prepare(l); }, layer));
    const Shape& out = at(model.output).shape();
    logits = at(model.output).reshape({batch, out.size() / batch});
  }

  Array& at(int index) { return values[static_cast<size_t>(index)]; }
  const Value& info(int index) const { return model.values[static_cast<size_t>(index)]; }

  Shape batched(const Shape& s) const { return {batch, s[0], s[1], s[2]}; }

  // The static memory plan: a buffer is free again after the last layer that reads its value. A convolution
  // whose skip is read for the last time writes over it.
  void plan() {
    std::map<int, size_t> last_read;
    for (size_t i = 0; i < model.layers.size(); ++i)
      for (const int src : sources_of(model.layers[i])) last_read[src] = i;
    last_read[model.output] = model.layers.size();

    std::multimap<size_t, Array> free;  // by bytes
    values.resize(model.values.size());
    for (size_t i = 0; i < model.layers.size(); ++i) {
      const int dst = dst_of(model.layers[i]);
      const auto* conv = std::get_if<Convolution>(&model.layers[i]);
      const DType type = info(dst).codes ? DType::u8 : DType::f32;
      const Shape shape = batched(info(dst).shape);
      const bool over_skip =
          !keep_values && conv && conv->skip >= 0 && conv->skip != conv->src && last_read[conv->skip] == i;
      const auto spare = type == DType::u8 && !keep_values
                             ? free.lower_bound(static_cast<size_t>(shape.size()))
                             : free.end();
      if (over_skip) {
        at(dst) = at(conv->skip);
      } else if (spare != free.end()) {
        at(dst) = spare->second.slice(0, shape.size()).reshape(shape);
        free.erase(spare);
      } else {
        at(dst) = Array(shape, type);
        bytes += static_cast<int64_t>(at(dst).bytes());
      }
      for (const int src : sources_of(model.layers[i])) {
        if (src == model.input || last_read[src] != i || (over_skip && src == conv->skip)) continue;
        free.emplace(at(src).bytes(), at(src).reshape({at(src).size()}));
        last_read[src] = model.layers.size() + 1;  // a value that is read twice by one layer is freed once
      }
    }
  }

  Step prepare(const Encode& layer) {
    return [this, layer] { encode(at(layer.src), at(layer.dst), info(layer.dst).grid); };
  }
  Step prepare(const Remap& layer) {
    return [this, layer] { remap(at(layer.src), at(layer.dst), layer.table); };
  }
  Step prepare(const AveragePool& layer) {
    return [this, layer] { average_pool(at(layer.src), at(layer.dst), layer, info(layer.dst).grid); };
  }
  Step prepare(const MaxPool& layer) {
    return [this, layer] { max_pool(at(layer.src), at(layer.dst), layer.options); };
  }
  Step prepare(const Subsample& layer) {
    return [this, layer] { subsample(at(layer.src), at(layer.dst), layer, info(layer.dst).grid); };
  }
  Step prepare(const Convolution& layer) {
    const kernels::IntegerConvSpec spec{.src = batched(info(layer.src).shape),
                                        .conv = layer.options,
                                        .src_zero_point = static_cast<int>(info(layer.src).grid.zero_point),
                                        .weights = layer.weights,
                                        .b = layer.b,
                                        .m = layer.m,
                                        .requantise = info(layer.dst).codes,
                                        .lo = layer.lo,
                                        .hi = layer.hi,
                                        .skip = layer.skip >= 0,
                                        .skip_ratio = layer.skip_ratio};
    const auto conv = std::make_shared<const kernels::IntegerConv>(spec);
    const int src = layer.src, dst = layer.dst, skip = layer.skip;
    return [this, conv, src, dst, skip] {
      if (skip >= 0 && at(skip).raw() != at(dst).raw())
        std::memcpy(at(dst).raw(), at(skip).raw(), at(dst).bytes());
      conv->run(at(src), at(dst));
    };
  }
};

Session::Session(const Model& model, int64_t batch, bool keep_values)
    : impl_(std::make_unique<Impl>(model, batch, keep_values)) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;

int64_t Session::batch() const { return impl_->batch; }
int64_t Session::buffer_bytes() const { return impl_->bytes; }

const Array& Session::run(const Array& images) {
  const Shape expected = impl_->batched(impl_->info(impl_->model.input).shape);
  check(images.shape() == expected && images.dtype() == DType::f32, "[session] images: got ",
        name_of(images.dtype()), images.shape(), ", expected f32", expected);
  impl_->at(impl_->model.input) = images;
  for (const Step& step : impl_->steps) step();
  return impl_->logits;
}

const Array& Session::value(int index) const {
  check(impl_->keep_values, "[session] values are not kept; make the session with keep_values");
  check(index >= 0 && index < static_cast<int>(impl_->values.size()), "[session] got value ", index, " of ",
        impl_->values.size());
  return impl_->values[static_cast<size_t>(index)];
}

}  // namespace stairgrad::quant::integer
