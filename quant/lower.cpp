#include "lower.h"

#include <algorithm>
#include <map>

#include "../autograd/ops.h"
#include "../autograd/ops/concat.h"
#include "../autograd/ops/pad.h"
#include "../autograd/ops/slice.h"
#include "channel_moments.h"
#include "image_op.h"
#include "lowering/requantisation.h"
#include "quantizer.h"

namespace stairgrad::quant {
namespace {

using namespace lowering;
using integer::Model;
using integer::Remap;
using integer::Value;

class Lowering {
 public:
  explicit Lowering(const Trace& trace) : trace_(trace), graph_(trace) {
    model_.input = add_value("images", image_of(trace.inputs[0].shape()), {}, 0);
  }

  Model run() {
    model_.output = stored_float(trace_.outputs[0], "");
    model_.values[static_cast<size_t>(model_.output)].name = "logits";
    integer::validate(model_);
    return std::move(model_);
  }

 private:
  int add_value(std::string name, const Shape& image, const Grid& grid, int bits) {
    model_.values.push_back({std::move(name), image, bits > 0, bits, grid, {}});
    return static_cast<int>(model_.values.size()) - 1;
  }
  const Value& value(int index) const { return model_.values[static_cast<size_t>(index)]; }

  int reshaped(const Tensor& t, int result) const {
    graph_.check_reshape(t, value(result).shape);
    return result;
  }

  // --- tensors that lie on a grid ---

  // The value that holds the codes of `t`; lowers what makes it at the first request.
  int stored(const Tensor& t) {
    if (const auto found = stored_.find(key(t)); found != stored_.end()) return found->second;
    int result;
    if (as<QuantizeOp>(t)) {
      result = quantized(t);
    } else if (const auto* choice = as<ImageOp>(t)) {
      result = chosen_by_image(t, choice->inputs, choice->column);
    } else if (is(t, "reshape")) {
      result = reshaped(t, stored(input_of(t)));
    } else if (as<SliceOp>(t) || as<PadOp>(t)) {
      auto [layer, source] = subsampling(t);
      layer.src = stored(source);
      const Value from = value(layer.src);
      layer.dst = result =
          add_value(t.node()->scope + ".subsample", image_of(t.shape()), from.grid, from.bits);
      model_.layers.push_back(layer);
    } else if (const auto* pool = as<MaxPool2dOp>(t)) {
      const int src = stored(input_of(t));
      result =
          add_value(t.node()->scope + ".max_pool", image_of(t.shape()), value(src).grid, value(src).bits);
      model_.layers.push_back(integer::MaxPool{src, result, pool->options});
    } else if (as<ConcatOp>(t)) {
      std::vector<int> parts;
      for (const Tensor& part : t.node()->inputs) parts.push_back(stored(part));
      for (const int part : parts)
        if (!(value(part).grid == value(parts[0]).grid))
          refuse(t, "its parts lie on different grids; quantize the result, or share one grid among them");
      result = joined(t, t.node()->scope + ".concat", parts);
    } else {
      refuse(t, "it is read as codes, but no quantizer put it on a grid; give it a site (skip u8 or shared)");
    }
    return stored_[key(t)] = result;
  }

  int quantized(const Tensor& t) {
    const Grid grid = unsigned_grid(t, *as<QuantizeOp>(t));
    const Tensor source = input_of(t);
    const std::string name = t.node()->scope;
    if (graph_.is_images(source)) {
      if (!has_zero(grid)) refuse(t, "the images lie on a grid without zero, so padding is not exact");
      const int dst = add_value(name, image_of(t.shape()), grid, grid::bits(grid));
      model_.layers.push_back(integer::Encode{model_.input, dst});
      return dst;
    }
    if (has_zero(grid)) return on_grid(source, name, grid);
    return remapped(on_grid(source, name + ".even", grid), name, with_zero(grid));
  }

  // What is not a quantizer's result, on a grid.
  int on_grid(const Tensor& source, const std::string& name, const Grid& grid) {
    if (graph_.is_on_grid(source)) return remapped(stored(source), name, grid);
    if (is(source, "reshape")) return reshaped(source, on_grid(input_of(source), name, grid));
    if (is_average(source)) {
      const int dst = add_value(name, image_of(source.shape()), grid, grid::bits(grid));
      average(source, dst);
      return dst;
    }
    if (as<ChannelMomentsOp>(source)) {
      const Tensor& read = input_of(source);
      if (!graph_.is_on_grid(read))
        refuse(source, "it reads a tensor that is not stored in codes; give that a site");
      const int dst = add_value(name, {1, 1, source.dim(1)}, grid, grid::bits(grid));
      model_.layers.push_back(integer::Moments{stored(read), dst});
      return dst;
    }
    if (as<ConcatOp>(source) && graph_.has_one_reader(source)) {
      std::vector<int> parts;
      for (const Tensor& part : source.node()->inputs)
        parts.push_back(on_grid(part, text(name, ".part", parts.size()), grid));
      return joined(source, name, parts);
    }
    if (const auto* pool = as<MaxPool2dOp>(source); pool && graph_.has_one_reader(source)) {
      // Quantizers are monotone: the code of the largest is the largest code.
      const int src = on_grid(input_of(source), name + ".before_pool", grid);
      const int dst = add_value(name, image_of(source.shape()), grid, grid::bits(grid));
      model_.layers.push_back(integer::MaxPool{src, dst, pool->options});
      return dst;
    }
    if (const auto limits = limits_of(source); limits && !can_be_fused(source))
      return limited(on_grid(input_of(source), name + ".unlimited", grid), name, *limits);
    return emitted(source, name, grid);
  }

  // --- tensors whose grid differs from image to image ---

  // Several quantizers of one stored tensor, of which each image takes one: a remapping with a table for
  // each. Where they are routed to weights of their own, the convolution's alternatives have those.
  int chosen_by_image(const Tensor& t, int inputs, int column) {
    const Tensor& source = input_of(input_of(t, 1));
    for (int k = 1; k < inputs; ++k)
      if (!as<QuantizeOp>(input_of(t, static_cast<size_t>(k))) ||
          key(input_of(input_of(t, static_cast<size_t>(k)))) != key(source))
        refuse(t, "its parts are not quantizers of one tensor");
    if (!graph_.is_on_grid(source))
      refuse(t, "what it chooses grids for is not stored in codes; give it a site of 8 bits (skip u8)");
    if (inputs == 2) return stored(input_of(t, 1));  // there is nothing to choose
    const int src = stored(source);
    select(input_of(t, 0), column);
    std::vector<integer::Alternative> alternatives;
    Remap remap{src, 0, {}};
    for (int k = 1; k < inputs; ++k) {
      const Tensor& part = input_of(t, static_cast<size_t>(k));
      const Grid grid = unsigned_grid(part, *as<QuantizeOp>(part));
      if (!has_zero(grid)) refuse(part, "zero is not one of its levels");
      alternatives.push_back({grid::bits(grid), grid});
      remap.tables.push_back(table(value(src).grid, grid));
    }
    remap.dst =
        add_value(t.node()->scope, Shape(value(src).shape), alternatives[0].grid, alternatives[0].bits);
    model_.values.back().alternatives = alternatives;
    model_.values.back().choice = column;
    model_.layers.push_back(remap);
    return remap.dst;
  }

  // What decides: one_hot(argmax(logits as (n, sites, candidates))), of which `gates` is the part of one
  // site. Gates that are constants are choices that come with the images.
  void select(const Tensor& gates, int column) {
    Tensor t = gates;
    int site = 0;
    while (is(t, "reshape") || as<SliceOp>(t)) {
      if (const auto* op = as<SliceOp>(t)) site = static_cast<int>(op->ranges[1].start);
      t = Tensor(input_of(t));
    }
    if (!op_of(t)) return;
    if (!is(t, "one_hot") || !is(input_of(t), "argmax"))
      refuse(gates, "a selector chooses by one_hot(argmax(logits)) in evaluation mode");
    if (stored_.count(key(t))) return;
    const Tensor logits = unshaped(input_of(input_of(t)));
    const int src = stored_float(logits, "the selector compares them");
    const int candidates = static_cast<int>(t.shape().back());
    const auto sites = logits.shape().back() / candidates;
    int bits = 1;
    while ((1 << bits) < candidates) ++bits;
    const int dst = add_value(t.node()->scope + ".choices", {1, 1, sites}, {1, 0, 0, candidates - 1}, bits);
    model_.layers.push_back(integer::Select{src, dst, column - site});
    stored_[key(t)] = dst;
  }

  // The result of a layer and what is fused into it, on a grid.
  int emitted(const Tensor& source, const std::string& name, const Grid& grid) {
    if (!graph_.has_one_reader(source))
      return encoded(stored_float(source, "several layers read it before it is quantized"), name, grid);
    if (!can_be_fused(source)) return encoded(stored_float(source, why_float(source)), name, grid);
    const Chain chain = chain_of(graph_, source);
    if (chain.skip && !graph_.is_on_grid(*chain.skip))
      return encoded(stored_float(source, "its skip is not quantized"), name, grid);
    const int dst = add_value(name, chain.image, grid, grid::bits(grid));
    emit(chain, dst);
    return dst;
  }

  int encoded(int src, const std::string& name, const Grid& grid) {
    const int dst = add_value(name, Shape(value(src).shape), grid, grid::bits(grid));
    model_.layers.push_back(integer::Encode{src, dst});
    return dst;
  }

  int joined(const Tensor& t, const std::string& name, const std::vector<int>& parts) {
    const auto* op = as<ConcatOp>(t);
    if (op->axis + 1 != t.rank() || (t.rank() != 4 && t.rank() != 2))
      refuse(t, "only channels can be joined");
    const Shape image = image_of(t.shape());
    for (const int part : parts)
      if (value(part).shape[0] != image[0] || value(part).shape[1] != image[1])
        refuse(t, "it joins flattened maps; join the maps, then flatten them");
    const int dst = value(parts[0]).codes ? add_value(name, image, value(parts[0]).grid, value(parts[0]).bits)
                                          : add_float(name, image, "its parts are floats");
    model_.layers.push_back(integer::Concat{parts, dst});
    return dst;
  }

  // --- tensors that stay floats: logits, and what no quantizer put on a grid ---

  int add_float(std::string name, const Shape& image, const std::string& note) {
    model_.values.push_back({std::move(name), image, false, 0, {}, note});
    return static_cast<int>(model_.values.size()) - 1;
  }

  static std::string why_float(const Tensor& t) { return text("no quantizer follows '", name_of_op(t), "'"); }
  // Whether the op can be the last one of a chain; limits can if what they limit can.
  bool can_be_fused(const Tensor& t) const {
    if (is(t, "reshape") || limits_of(t)) return can_be_fused(input_of(t));
    return graph_.is_on_grid(t) ||
           !(as<MaxPool2dOp>(t) || as<SliceOp>(t) || as<PadOp>(t) || as<ConcatOp>(t) || is_average(t));
  }

  // The value that holds `t` in floats, for the reason that `note` gives.
  int stored_float(const Tensor& t, const std::string& note) {
    if (const auto found = floats_.find(key(t)); found != floats_.end()) return found->second;
    if (graph_.is_images(t)) refuse(t, "a layer reads the images before they are quantized");
    int dst;
    const Shape image = image_of(t.shape());
    const std::string name = text(t.node()->scope, t.node()->scope.empty() ? "" : ".", op_of(t)->name());
    const auto moved = [&](auto layer, const Tensor& source) {
      layer.src = stored_float(source, note);
      layer.dst = dst = add_float(name, image, note);
      model_.layers.push_back(layer);
    };
    if (is(t, "reshape") && !graph_.is_on_grid(t)) {
      dst = reshaped(t, stored_float(input_of(t), note));
    } else if (const auto* pool = as<MaxPool2dOp>(t)) {
      moved(integer::MaxPool{0, 0, pool->options}, input_of(t));
    } else if (as<SliceOp>(t) || as<PadOp>(t)) {
      const auto [layer, source] = subsampling(t);
      moved(layer, source);
    } else if (as<ConcatOp>(t) && !graph_.is_on_grid(t)) {
      std::vector<int> parts;
      for (const Tensor& part : t.node()->inputs) parts.push_back(stored_float(part, note));
      dst = joined(t, name, parts);
    } else if (is_average(t)) {
      dst = add_float(name, image, note);
      average(t, dst);
    } else {
      const Chain chain = chain_of(graph_, t);
      dst = add_float(name, chain.image, note);
      emit(chain, dst);
    }
    return floats_[key(t)] = dst;
  }

  // --- averages ---

  static bool is_average(const Tensor& t) { return is(t, "global_avg_pool") || as<AvgPool2dOp>(t); }

  void average(const Tensor& t, int dst) {
    const Tensor& source = input_of(t);
    Pool2dOptions options{{source.dim(1), source.dim(2)}, {source.dim(1), source.dim(2)}};
    if (const auto* op = as<AvgPool2dOp>(t)) options = op->options;
    if (!options.count_padding && options.padding != std::array<int64_t, 2>{})
      refuse(t, "it averages over other numbers of pixels at the border; use count_padding");
    const int src = graph_.is_on_grid(source) ? stored(source)
                                              : stored_float(source, "it is averaged before it is quantized");
    const Grid from = value(src).codes ? value(src).grid : Grid{};
    const Grid to = value(dst).codes ? value(dst).grid : Grid{};
    const auto pixels = static_cast<double>(options.kernel[0] * options.kernel[1]);
    const auto m =
        static_cast<float>(static_cast<double>(from.scale) / (pixels * static_cast<double>(to.scale)));
    const auto b = static_cast<float>(-pixels * from.zero_point + to.zero_point / static_cast<double>(m));
    model_.layers.push_back(integer::AveragePool{src, dst, options, b, m});
  }

  // --- other codes of a value, and other places ---

  int remapped(int src, const std::string& name, const Grid& grid) {
    return remapped(src, name, grid, table(value(src).grid, grid));
  }
  int remapped(int src, const std::string& name, const Grid& grid, const Remap::Table& table) {
    const int dst = add_value(name, Shape(value(src).shape), grid, grid::bits(grid));
    model_.layers.push_back(Remap{src, dst, {table}});
    return dst;
  }
  int limited(int src, const std::string& name, const Limits& limits) {
    const Grid grid = value(src).grid;
    const auto [lo, hi] = limits.codes(grid);
    Remap::Table codes;
    for (int code = 0; code < 256; ++code)
      codes[static_cast<size_t>(code)] = static_cast<uint8_t>(std::clamp(code, lo, hi));
    return remapped(src, name, grid, codes);
  }
  static Remap::Table table(const Grid& from, const Grid& to) {
    Remap::Table codes;
    for (int code = 0; code < 256; ++code)
      codes[static_cast<size_t>(code)] =
          static_cast<uint8_t>(grid::encode(grid::decode(std::min(code, from.hi), from), to));
    return codes;
  }

  // The parameter-free shortcut: a slice of every second pixel, then channels of zeros; or one of the two.
  // Gives the layer and the tensor that it reads.
  std::pair<integer::Subsample, Tensor> subsampling(const Tensor& t) const {
    if (const auto* pad = as<PadOp>(t)) {
      for (size_t axis = 0; axis + 1 < pad->before.size(); ++axis)
        if (pad->before[axis] != 0 || pad->after[axis] != 0) refuse(t, "only channels can be padded");
      if (pad->value != 0) refuse(t, "only zeros can be padded");
      const Tensor& inner = input_of(t);
      const bool both = as<SliceOp>(inner) && graph_.has_one_reader(inner);
      auto [layer, source] = both ? subsampling(inner) : std::pair{integer::Subsample{}, Tensor(inner)};
      layer.before = pad->before.back();
      layer.after = pad->after.back();
      return {layer, source};
    }
    const SliceOp& op = *as<SliceOp>(t);
    const Shape& shape = input_of(t).shape();
    const bool images = shape.rank() == 4 && op.ranges[0] == Range{0, shape[0], 1} &&
                        op.ranges[3] == Range{0, shape[3], 1} && op.ranges[1].start == 0 &&
                        op.ranges[2].start == 0 && op.ranges[1].stop == shape[1] &&
                        op.ranges[2].stop == shape[2];
    if (!images) refuse(t, "only slices of every k-th row and column of images can be lowered");
    return {{0, 0, {op.ranges[1].step, op.ranges[2].step}, 0, 0}, input_of(t)};
  }

  // --- convolutions and what is fused into them ---

  void emit(const Chain& chain, int dst) {
    const int src = stored(graph_.is_on_grid(chain.layer) ? chain.layer : input_of(chain.layer, 0));
    int skip = -1;
    if (chain.skip)
      skip = graph_.is_on_grid(*chain.skip) ? stored(*chain.skip)
                                            : stored_float(*chain.skip, "a residual add reads it");
    integer::Convolution conv =
        convolution(graph_, chain, value(src), value(dst), skip < 0 ? nullptr : &value(skip));
    conv.src = src;
    conv.dst = dst;
    conv.skip = skip;
    model_.layers.push_back(std::move(conv));
  }

  const Trace& trace_;
  const Graph graph_;
  Model model_;
  std::map<Key, int> stored_, floats_;  // the values that hold tensors
};

}  // namespace

integer::Model lower(const Trace& trace) {
  check(trace.inputs.size() == 1 && trace.outputs.size() == 1, "[lower] got ", trace.inputs.size(),
        " inputs and ", trace.outputs.size(), " outputs, expected one of each");
  return Lowering(trace).run();
}

}  // namespace stairgrad::quant
