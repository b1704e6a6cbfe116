#include "model.h"

#include <algorithm>
#include <cmath>

#include "../../kernels/integer_conv.h"

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

constexpr int max_choices = 1 << 16;
constexpr int64_t max_exact_pixels = (1 << 24) / 255;  // whose sum of codes is an exact f32

void check_grid(const Value& v, int bits, const Grid& g) {
  check(bits >= 1 && bits <= 8 && std::isfinite(g.scale) && g.scale > 0 && g.lo == 0 && g.hi > 0 &&
            g.hi < 1 << bits && g.zero_point >= 0 && g.zero_point <= 255 &&
            2 * g.zero_point == std::nearbyint(2 * g.zero_point),
        "[integer model] value ", v.name, ": got scale ", g.scale, ", zero point ", g.zero_point, ", codes ",
        g.lo, " .. ", g.hi, ", expected a positive scale and codes of ", bits, " bits");
}

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
    check(!v.codes || !end, "[integer model] value ", v.name, ": the images and the logits must be floats");
    check(v.alternatives.empty() == (v.choice < 0) && (v.codes || v.alternatives.empty()),
          "[integer model] value ", v.name, " has alternatives without a choice, or a choice without them");
    if (!v.codes) continue;
    check(v.alternatives.size() <= max_alternatives, "[integer model] value ", v.name, ": got ",
          v.alternatives.size(), " alternatives, expected up to ", max_alternatives);
    check_grid(v, v.bits, v.grid);
    for (const Alternative& a : v.alternatives) {
      check_grid(v, a.bits, a.grid);
      check(a.grid.zero_point == std::nearbyint(a.grid.zero_point), "[integer model] value ", v.name,
            ": got the zero point ", a.grid.zero_point, " of an alternative, expected an integer");
    }
    check(v.alternatives.empty() || (v.alternatives[0].grid == v.grid && v.alternatives[0].bits == v.bits),
          "[integer model] value ", v.name, ": its grid is not that of its first alternative");
    check(v.choice < max_choices, "[integer model] value ", v.name, ": got the choice ", v.choice,
          ", expected less than ", max_choices);
  }
}

// What is done before and after the layers: the normalisation of the images, the names of the logits.
void check_ends(const Model& model) {
  const Shape &image = model.values[static_cast<size_t>(model.input)].shape,
              &logits = model.values[static_cast<size_t>(model.output)].shape;
  const size_t count = model.mean.size();
  check(count == model.deviation.size() && (count <= 1 || static_cast<int64_t>(count) == image[2]),
        "[integer model] got ", count, " means and ", model.deviation.size(),
        " deviations, expected none, one or ", image[2], " of both, as the images ", image, " have channels");
  for (size_t i = 0; i < count; ++i)
    check(std::isfinite(model.mean[i]) && std::isfinite(model.deviation[i]) && model.deviation[i] > 0,
          "[integer model] channel ", i, ": got the mean ", model.mean[i], " and the deviation ",
          model.deviation[i], ", expected finite numbers, the deviation positive");
  check(model.class_names.empty() || static_cast<int64_t>(model.class_names.size()) == logits.size(),
        "[integer model] got ", model.class_names.size(), " class names, expected none or ", logits.size(),
        ", one for each logit");
}

// Layers but convolutions read and write values without alternatives.
void check_fixed(const Value& v) {
  check(v.alternatives.empty(), "[integer model] value ", v.name,
        " has alternatives, which only a remapping may write and only convolutions may read");
}

// Only a remapping reads codes of which none stands for zero.
void check_zero(const Value& v) {
  check(!v.codes || v.grid.zero_point == std::nearbyint(v.grid.zero_point), "[integer model] value ", v.name,
        ": got the zero point ", v.grid.zero_point, ", expected an integer, because a layer reads it");
}

void check_convolution(const Model& model, const Convolution& c) {
  const Value &src = model.values[static_cast<size_t>(c.src)],
              &dst = model.values[static_cast<size_t>(c.dst)];
  check(c.weights.has_value() && c.weights.dtype() == DType::s8 && c.weights.rank() == 4,
        "[integer model] layer ", c.name, ": weights must be (oc,kh,kw,ic) codes of type s8");
  for (const int64_t option : {c.options.stride[0], c.options.stride[1], c.options.dilation[0],
                               c.options.dilation[1], c.options.groups})
    check(option >= 1 && option <= max_extent, "[integer model] layer ", c.name,
          ": got a stride, a dilation or groups of ", option, ", expected 1 to ", max_extent);
  for (int side = 0; side < 4; ++side) {
    const int64_t reach =
        (c.weights.dim(1 + side / 2) - 1) * c.options.dilation[static_cast<size_t>(side / 2)];
    const int64_t padding = c.options.padding[static_cast<size_t>(side)];
    check(padding <= reach && padding <= max_extent, "[integer model] layer ", c.name, ": got a padding of ",
          padding, ", more than the kernel reaches, or than ", max_extent);
  }
  const Shape image = {1, src.shape[0], src.shape[1], src.shape[2]};
  const Shape result = kernels::conv2d_shape(image, c.weights.shape(), c.options);
  check(src.codes, "[integer model] layer ", c.name, " reads floats, expected codes");
  check(Shape({result[1], result[2], result[3]}) == dst.shape, "[integer model] layer ", c.name, " gives ",
        result, ", expected ", dst.shape);
  const auto& [top, bottom, left, right] = c.options.padding;
  const Shape framed = {src.shape[0] + top + bottom, src.shape[1] + left + right, src.shape[2]};
  check(framed.size() <= max_elements, "[integer model] layer ", c.name, ": got ", src.shape,
        " with a padding to ", framed, ", expected up to ", max_elements, " elements");
  const auto alternatives = static_cast<int64_t>(src.alternatives.size());
  check(c.other_weights.empty() || static_cast<int64_t>(c.other_weights.size()) + 1 == alternatives,
        "[integer model] layer ", c.name, ": got ", c.other_weights.size(), " other weights for the ",
        alternatives, " alternatives of ", src.name, ", expected those of all but the first, or none");
  for (const Convolution::Weights& other : c.other_weights)
    check(other.codes.has_value() && other.codes.dtype() == DType::s8 &&
              other.codes.shape() == c.weights.shape(),
          "[integer model] layer ", c.name, ": the weights of all alternatives must be s8",
          c.weights.shape());
  bool fits = kernels::sums_fit(c.weights);
  for (const Convolution::Weights& other : c.other_weights) fits = fits && kernels::sums_fit(other.codes);
  check(fits, "[integer model] layer ", c.name, ": got the weights ", c.weights.shape(),
        ", whose sums may pass 2^31; give them fewer bits or split the input channels");
  const Shape expected = alternatives ? Shape{alternatives, c.weights.dim(0)} : Shape{c.weights.dim(0)};
  for (const Array* a : {&c.b, &c.m})
    check(a->has_value() && a->dtype() == DType::f32 && a->shape() == expected, "[integer model] layer ",
          c.name, ": b and m must have one f32 for each output channel, ", expected);
  for (int64_t i = 0; i < c.m.size(); ++i)
    check(std::isfinite(c.m.data<float>()[i]) && std::isfinite(c.b.data<float>()[i]),
          "[integer model] layer ", c.name, ", channel ", i,
          ": got a multiplier or offset that is not finite");
  check(0 <= c.lo && c.lo <= c.hi && c.hi <= (dst.codes ? dst.grid.hi : 255), "[integer model] layer ",
        c.name, ": got the code range ", c.lo, " .. ", c.hi);
  check(c.low <= c.high, "[integer model] layer ", c.name, ": got the range ", c.low, " .. ", c.high);
  check_fixed(dst);
  if (c.skip < 0) return;
  const Value& skip = model.values[static_cast<size_t>(c.skip)];
  check_fixed(skip);
  check(skip.shape == dst.shape && (skip.codes || !dst.codes) && std::isfinite(c.skip_ratio),
        "[integer model] layer ", c.name, ": the skip ", skip.name, skip.shape, " does not fit the result ",
        dst.shape);
}

// Layers that move elements or take the largest keep the grid.
bool same_kind(const Value& a, const Value& b) {
  return a.codes == b.codes && (!a.codes || a.grid == b.grid);
}

void check_layer(const Model& model, const Layer& layer) {
  const auto at = [&](int i) -> const Value& { return model.values[static_cast<size_t>(i)]; };
  const Value& dst = at(dst_of(layer));
  const auto fits = [&](bool holds, const char* what, const Value& src) {
    check(holds, "[integer model] the ", what, " of ", src.name, src.shape, " does not fit ", dst.name,
          dst.shape);
  };
  const auto pooled = [](const Shape& s, const Pool2dOptions& options) {
    const Shape result = kernels::pool2d_shape({1, s[0], s[1], s[2]}, options);
    return Shape{result[1], result[2], result[3]};
  };
  if (!std::holds_alternative<Remap>(layer))
    for (const int src : sources_of(layer)) check_zero(at(src));
  if (const auto* c = std::get_if<Convolution>(&layer)) return check_convolution(model, *c);
  for (const int src : sources_of(layer)) check_fixed(at(src));
  if (const auto* r = std::get_if<Remap>(&layer)) {
    const Value& src = at(r->src);
    fits(src.codes && dst.codes && src.shape == dst.shape, "remapping", src);
    check(r->tables.size() == std::max<size_t>(1, dst.alternatives.size()),
          "[integer model] the remapping of ", src.name, " has ", r->tables.size(),
          " tables, expected one for each alternative of ", dst.name);
    for (size_t i = 0; i < r->tables.size(); ++i) {
      const Grid& grid = dst.alternatives.empty() ? dst.grid : dst.alternatives[i].grid;
      fits(*std::max_element(r->tables[i].begin(), r->tables[i].end()) <= grid.hi, "remapping", src);
    }
    return;
  }
  check_fixed(dst);
  std::visit(
      Overloaded{
          [](const Convolution&) {}, [](const Remap&) {},
          [&](const Encode& e) {
            fits(!at(e.src).codes && dst.codes && at(e.src).shape == dst.shape, "encoding", at(e.src));
          },
          [&](const AveragePool& p) {
            fits(at(p.src).shape.size() > 0 && dst.shape == pooled(at(p.src).shape, p.options) &&
                     std::isfinite(p.b) && std::isfinite(p.m) &&
                     p.options.kernel[0] * p.options.kernel[1] <= max_exact_pixels,
                 "pooling", at(p.src));
          },
          [&](const MaxPool& p) {
            fits(same_kind(at(p.src), dst) && dst.shape == pooled(at(p.src).shape, p.options), "pooling",
                 at(p.src));
          },
          [&](const Subsample& s) {
            const Value& src = at(s.src);
            check(s.stride[0] > 0 && s.stride[1] > 0 && s.before >= 0 && s.after >= 0,
                  "[integer model] the subsampling of ", src.name, " has a stride or padding out of range");
            const Shape to = {(src.shape[0] + s.stride[0] - 1) / s.stride[0],
                              (src.shape[1] + s.stride[1] - 1) / s.stride[1],
                              src.shape[2] + s.before + s.after};
            fits(same_kind(src, dst) && dst.shape == to, "subsampling", src);
          },
          [&](const Concat& c) {
            check(!c.srcs.empty(), "[integer model] nothing is joined to ", dst.name);
            int64_t channels = 0;
            for (const int src : c.srcs) {
              channels += at(src).shape[2];
              fits(same_kind(at(src), dst) && at(src).shape[0] == dst.shape[0] &&
                       at(src).shape[1] == dst.shape[1],
                   "joining", at(src));
            }
            fits(channels == dst.shape[2], "joining", at(c.srcs[0]));
          },
          [&](const Moments& m) {
            const Value& src = at(m.src);
            fits(src.codes && dst.codes && dst.shape == Shape({1, 1, 2 * src.shape[2]}), "moments", src);
          },
          [&](const Select& s) {
            const Value& src = at(s.src);
            const int64_t columns = dst.shape[2];
            fits(!src.codes && dst.codes && src.shape[0] * src.shape[1] * dst.shape[0] * dst.shape[1] == 1 &&
                     src.shape[2] % columns == 0 && src.shape[2] / columns == dst.grid.hi + 1 &&
                     s.first >= 0 && s.first <= max_choices - columns,
                 "selection", src);
            for (const Value& v : model.values)
              if (v.choice >= s.first && v.choice < s.first + columns)
                fits(static_cast<int>(v.alternatives.size()) == dst.grid.hi + 1, "selection", v);
          }},
      layer);
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
                 [](const Concat& c) { return c.srcs; },
                 [](const auto& l) { return std::vector<int>{l.src}; }},
      layer);
}

Convolution alternative_of(const Convolution& layer, int64_t k) {
  Convolution own = layer;
  const Shape channels{layer.weights.dim(0)};
  own.b = layer.b.slice(k, 1).reshape(channels);
  own.m = layer.m.slice(k, 1).reshape(channels);
  own.other_weights.clear();
  if (k == 0 || layer.other_weights.empty()) return own;
  const Convolution::Weights& weights = layer.other_weights[static_cast<size_t>(k) - 1];
  own.weights = weights.codes;
  own.weight_bits = weights.bits;
  return own;
}

int64_t parameter_bytes(const Convolution& layer) {
  int64_t bytes = (layer.weights.size() * layer.weight_bits + 7) / 8 + 8 * layer.m.size();
  for (const Convolution::Weights& other : layer.other_weights)
    bytes += (other.codes.size() * other.bits + 7) / 8;
  return bytes;
}

int64_t parameter_bytes(const Model& model) {
  int64_t bytes = 0;
  for (const Layer& layer : model.layers)
    if (const auto* c = std::get_if<Convolution>(&layer)) bytes += parameter_bytes(*c);
  return bytes;
}

int choices_of(const Model& model) {
  int choices = 0;
  for (const Value& v : model.values) choices = std::max(choices, v.choice + 1);
  return choices;
}

bool selects(const Model& model) {
  return std::ranges::any_of(model.layers,
                             [](const Layer& layer) { return std::holds_alternative<Select>(layer); });
}

int64_t bops(const Model& model, const std::vector<int>& choices) {
  const int expected = choices_of(model);
  check(choices.empty() || static_cast<int>(choices.size()) == expected, "[integer model] got ",
        choices.size(), " choices, expected ", expected);
  int64_t sum = 0;
  for (const Layer& layer : model.layers) {
    const auto* c = std::get_if<Convolution>(&layer);
    if (!c) continue;
    const Value &src = model.values[static_cast<size_t>(c->src)],
                &dst = model.values[static_cast<size_t>(c->dst)];
    const int chosen = src.choice < 0 || choices.empty() ? 0 : choices[static_cast<size_t>(src.choice)];
    check(chosen == 0 || (chosen > 0 && chosen < static_cast<int>(src.alternatives.size())),
          "[integer model] got the choice ", chosen, " for ", src.name, ", which has ",
          src.alternatives.size(), " alternatives");
    const bool fixed = src.alternatives.empty();
    const int bits = fixed ? src.bits : src.alternatives[static_cast<size_t>(chosen)].bits;
    const int weight_bits = fixed ? c->weight_bits : alternative_of(*c, chosen).weight_bits;
    sum += dst.shape.size() * (c->weights.size() / c->weights.dim(0)) * weight_bits * bits;
  }
  return sum;
}

const char* op_of(const Layer& layer) {
  constexpr const char* names[] = {"encode",    "convolution", "remap",   "average_pool", "max_pool",
                                   "subsample", "concat",      "moments", "select"};
  return names[layer.index()];
}

std::string name_of(const Model& model, const Layer& layer) {
  if (const auto* c = std::get_if<Convolution>(&layer)) return c->name;
  return model.values[static_cast<size_t>(dst_of(layer))].name;
}

void validate(const Model& model) {
  check_values(model);
  check_ends(model);
  std::vector<bool> written(model.values.size(), false);
  std::vector<bool> chosen(static_cast<size_t>(choices_of(model)), !selects(model));
  written[static_cast<size_t>(model.input)] = true;
  for (const Layer& layer : model.layers) {
    for (const int src : sources_of(layer)) {
      check_value(model, src);
      check(written[static_cast<size_t>(src)], "[integer model] value ",
            model.values[static_cast<size_t>(src)].name, " is read before it is written");
      check(src != model.input || std::holds_alternative<Encode>(layer),
            "[integer model] the images are read by a layer that does not encode them");
    }
    const int dst = dst_of(layer);
    check_value(model, dst);
    check(!written[static_cast<size_t>(dst)], "[integer model] value ",
          model.values[static_cast<size_t>(dst)].name, " is written twice");
    written[static_cast<size_t>(dst)] = true;
    check_layer(model, layer);
    const Value& value = model.values[static_cast<size_t>(dst)];
    check(value.choice < 0 || chosen[static_cast<size_t>(value.choice)], "[integer model] value ", value.name,
          " takes a choice that no layer before it has made");
    if (const auto* s = std::get_if<Select>(&layer))
      for (int64_t column = s->first; column < s->first + value.shape[2]; ++column) {
        check(column < static_cast<int64_t>(chosen.size()) && !chosen[static_cast<size_t>(column)],
              "[integer model] the selection ", value.name, " makes the choice ", column,
              ", which nobody takes or another one makes");
        chosen[static_cast<size_t>(column)] = true;
      }
  }
  check(written[static_cast<size_t>(model.output)], "[integer model] nothing writes the output");
}

}  // namespace stairgrad::quant::integer
