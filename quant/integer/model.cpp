#include "model.h"

#include <algorithm>
#include <cmath>

namespace stairgrad::quant::integer {
namespace {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

void check_value(const Model& model, int index) {
  check(index >= 0 && index < static_cast<int>(model.values.size()), "[integer model] got value ", index,
        " of ", model.values.size());
}

constexpr int64_t max_elements = int64_t{1} << 28;     // of all values of one image
constexpr int64_t max_exact_pixels = (1 << 24) / 255;  // whose sum of codes is an exact f32

// What the values promise, apart from the layers.
void check_values(const Model& model) {
  check_value(model, model.input);
  check_value(model, model.output);
  check(model.input != model.output, "[integer model] input and output are the same value");
  int64_t elements = 0;
  for (size_t i = 0; i < model.values.size(); ++i) {
    const Value& v = model.values[i];
    check(v.shape.rank() == 3 && v.shape.size() > 0, "[integer model] value ", v.name, ": got the shape ",
          v.shape, ", expected (h,w,c) without zeros");
    check((elements += v.shape.size()) <= max_elements,
          "[integer model] the values of one image have more than ", max_elements, " elements");
    const bool end = static_cast<int>(i) == model.input || static_cast<int>(i) == model.output;
    check(v.codes != end, "[integer model] value ", v.name,
          ": the images and the logits must be floats, all others codes");
    if (!v.codes) continue;
    const Grid& g = v.grid;
    check(v.bits >= 1 && v.bits <= 8 && std::isfinite(g.scale) && g.scale > 0 && g.lo == 0 && g.hi > 0 &&
              g.hi < 1 << v.bits && g.zero_point >= 0 && g.zero_point <= 255 &&
              g.zero_point == std::nearbyint(g.zero_point),
          "[integer model] value ", v.name, ": got scale ", g.scale, ", zero point ", g.zero_point,
          ", codes ", g.lo, " .. ", g.hi, ", expected a positive scale and codes of ", v.bits, " bits");
  }
}

void check_convolution(const Model& model, const Convolution& c) {
  const Value &src = model.values[static_cast<size_t>(c.src)],
              &dst = model.values[static_cast<size_t>(c.dst)];
  check(c.weights.has_value() && c.weights.dtype() == DType::s8 && c.weights.rank() == 4,
        "[integer model] layer ", c.name, ": weights must be (oc,kh,kw,ic) codes of type s8");
  for (int side = 0; side < 4; ++side) {
    const int64_t reach =
        (c.weights.dim(1 + side / 2) - 1) * c.options.dilation[static_cast<size_t>(side / 2)];
    const int64_t padding = c.options.padding[static_cast<size_t>(side)];
    check(padding <= reach, "[integer model] layer ", c.name, ": got a padding of ", padding,
          ", more than the kernel reaches");
  }
  const Shape image = {1, src.shape[0], src.shape[1], src.shape[2]};
  const Shape result = kernels::conv2d_shape(image, c.weights.shape(), c.options);
  check(src.codes, "[integer model] layer ", c.name, " reads floats, expected codes");
  check(Shape({result[1], result[2], result[3]}) == dst.shape, "[integer model] layer ", c.name, " gives ",
        result, ", expected ", dst.shape);
  for (const Array* a : {&c.b, &c.m})
    check(a->has_value() && a->dtype() == DType::f32 && a->shape() == Shape{c.weights.dim(0)},
          "[integer model] layer ", c.name, ": b and m must have one f32 for each output channel");
  for (int64_t i = 0; i < c.m.size(); ++i)
    check(std::isfinite(c.m.data<float>()[i]) && std::isfinite(c.b.data<float>()[i]),
          "[integer model] layer ", c.name, ", channel ", i,
          ": got a multiplier or offset that is not finite");
  check(0 <= c.lo && c.lo <= c.hi && c.hi <= (dst.codes ? dst.grid.hi : 255), "[integer model] layer ",
        c.name, ": got the code range ", c.lo, " .. ", c.hi);
  if (c.skip < 0) return;
  const Value& skip = model.values[static_cast<size_t>(c.skip)];
  check(skip.codes && skip.shape == dst.shape && dst.codes && std::isfinite(c.skip_ratio),
        "[integer model] layer ", c.name, ": the skip ", skip.name, skip.shape, " does not fit the result ",
        dst.shape);
}

}  // namespace

int dst_of(const Layer& layer) {
  return std::visit([](const auto& l) { return l.dst; }, layer);
}

std::vector<int> sources_of(const Layer& layer) {
  return std::visit(
      Overloaded{[](const Convolution& c) {
                   return c.skip < 0 ? std::vector<int>{c.src} : std::vector<int>{c.src, c.skip};
                 },
                 [](const auto& l) { return std::vector<int>{l.src}; }},
      layer);
}

int64_t parameter_bytes(const Model& model) {
  int64_t bytes = 0;
  for (const Layer& layer : model.layers)
    if (const auto* c = std::get_if<Convolution>(&layer))
      bytes += (c->weights.size() * c->weight_bits + 7) / 8 + 8 * c->m.size();
  return bytes;
}

void validate(const Model& model) {
  check_values(model);
  std::vector<bool> written(model.values.size(), false);
  written[static_cast<size_t>(model.input)] = true;
  for (const Layer& layer : model.layers) {
    for (const int src : sources_of(layer)) {
      check_value(model, src);
      check(written[static_cast<size_t>(src)], "[integer model] value ",
            model.values[static_cast<size_t>(src)].name, " is read before it is written");
    }
    const int dst = dst_of(layer);
    check_value(model, dst);
    check(!written[static_cast<size_t>(dst)], "[integer model] value ",
          model.values[static_cast<size_t>(dst)].name, " is written twice");
    written[static_cast<size_t>(dst)] = true;
    const auto at = [&](int i) -> const Value& { return model.values[static_cast<size_t>(i)]; };
    std::visit(
        Overloaded{
            [&](const Convolution& c) { check_convolution(model, c); },
            [&](const Encode& e) {
              check(!at(e.src).codes && at(e.dst).codes && at(e.src).shape == at(e.dst).shape,
                    "[integer model] the encoding of ", at(e.src).name, " does not fit ", at(e.dst).name);
            },
            [&](const Remap& r) {
              const int top = *std::max_element(r.table.begin(), r.table.end());
              check(at(r.src).codes && at(r.dst).codes && at(r.src).shape == at(r.dst).shape &&
                        top <= at(r.dst).grid.hi,
                    "[integer model] the remapping of ", at(r.src).name, " does not fit ", at(r.dst).name);
            },
            [&](const AveragePool& p) {
              check(at(p.src).codes && at(p.dst).codes &&
                        at(p.dst).shape == Shape({1, 1, at(p.src).shape[2]}) && std::isfinite(p.b) &&
                        std::isfinite(p.m) && at(p.src).shape[0] * at(p.src).shape[1] <= max_exact_pixels,
                    "[integer model] the pooling of ", at(p.src).name, " does not fit ", at(p.dst).name);
            },
            [&](const MaxPool& p) {
              const Shape& s = at(p.src).shape;
              const Shape pooled = kernels::pool2d_shape({1, s[0], s[1], s[2]}, p.options);
              check(at(p.src).codes && at(p.dst).codes &&
                        at(p.dst).shape == Shape({pooled[1], pooled[2], pooled[3]}),
                    "[integer model] the pooling of ", at(p.src).name, " does not fit ", at(p.dst).name);
            },
            [&](const Subsample& s) {
              check(s.stride[0] > 0 && s.stride[1] > 0 && s.before >= 0 && s.after >= 0,
                    "[integer model] the subsampling of ", at(s.src).name,
                    " has a stride or padding out of range");
              const Shape& from = at(s.src).shape;
              const Shape to = {(from[0] + s.stride[0] - 1) / s.stride[0],
                                (from[1] + s.stride[1] - 1) / s.stride[1], from[2] + s.before + s.after};
              check(at(s.src).codes && at(s.dst).codes && at(s.dst).shape == to,
                    "[integer model] the subsampling of ", at(s.src).name, " does not fit ", at(s.dst).name);
            }},
        layer);
  }
  check(written[static_cast<size_t>(model.output)], "[integer model] nothing writes the output");
}

}  // namespace stairgrad::quant::integer
