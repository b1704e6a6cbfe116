#include "lower.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>

#include "../autograd/ops.h"
#include "../autograd/ops/clamp.h"
#include "../autograd/ops/concat.h"
#include "../autograd/ops/pad.h"
#include "../autograd/ops/slice.h"
#include "channel_moments.h"
#include "image_choice.h"
#include "image_route.h"
#include "quantizer.h"

namespace stairgrad::quant {
namespace {

using integer::Model;
using integer::Remap;
using integer::Value;

const Op* op_of(const Tensor& t) { return t.node() ? t.node()->op.get() : nullptr; }
template <class O>
const O* as(const Tensor& t) {
  return dynamic_cast<const O*>(op_of(t));
}
bool is(const Tensor& t, std::string_view name) { return op_of(t) && op_of(t)->name() == name; }
const Tensor& input_of(const Tensor& t, size_t i = 0) { return t.node()->inputs[i]; }

std::string where(const Tensor& t) {
  if (!t.node()) return "a constant";
  const std::string& scope = t.node()->scope;
  return text(op_of(t) ? op_of(t)->name() : "input", scope.empty() ? "" : " of " + scope);
}

[[noreturn]] void refuse(const Tensor& t, const std::string& why) {
  throw argument_error(text("[lower] ", where(t), ' ', t.shape(), " has no integer form: ", why));
}

// What an activation limits values to.
struct Limits {
  double low = -HUGE_VAL, high = HUGE_VAL;

  bool any() const { return std::isfinite(low) || std::isfinite(high); }
  bool operator==(const Limits&) const = default;
  // Rounding is monotone and zero is a level, so limits become limits of codes.
  std::array<int, 2> codes(const Grid& g) const {
    return {std::isfinite(low) ? grid::encode(static_cast<float>(low), g) : g.lo,
            std::isfinite(high) ? grid::encode(static_cast<float>(high), g) : g.hi};
  }
};

std::optional<Limits> limits_of(const Tensor& t) {
  if (is(t, "relu")) return Limits{0, HUGE_VAL};
  if (const auto* clamp = as<ClampOp>(t)) return Limits{clamp->low, clamp->high};
  return {};
}

// Per channel.
struct AffineMap {
  std::vector<double> gain, offset;
};

// A convolution or fully connected layer with what follows it, as y = act(gain * sum(x w) + offset + skip).
// What follows a tensor that is stored as codes follows a layer of weights one.
struct Chain {
  Tensor layer;                 // the conv2d or linear, or the stored tensor
  Shape image;                  // (h, w, c) of y, flattened or not
  std::vector<AffineMap> maps;  // one, or one for each candidate of the input, in the units of y
  std::optional<Tensor> skip = {};
  Limits limits = {};

  size_t channels() const { return maps[0].gain.size(); }
};

class Lowering {
 public:
  explicit Lowering(const Trace& trace) : trace_(trace) {
    count_readers();
    model_.input = add_value("images", image_of(trace.inputs[0].shape()), {}, 0);
  }

  Model run() {
    model_.output = stored_float(trace_.outputs[0], "");
    model_.values[static_cast<size_t>(model_.output)].name = "logits";
    integer::validate(model_);
    return std::move(model_);
  }

 private:
  using Key = std::pair<const Node*, int>;
  static Key key(const Tensor& t) { return {t.node().get(), t.output_index()}; }

  bool is_parameter(const Tensor& t) const {
    return !op_of(t) && t.value().has_value() && key(t) != key(trace_.inputs[0]);
  }

  // The value of a tensor that is made of parameters alone, such as weights that their quantizer transforms.
  std::optional<Array> constant(const Tensor& t) const {
    if (is_parameter(t)) return t.value();
    if (!op_of(t) || as<QuantizeOp>(t)) return {};
    Arrays inputs;
    for (const Tensor& input : t.node()->inputs) {
      const std::optional<Array> value = constant(input);
      if (!value) return {};
      inputs.push_back(*value);
    }
    return op_of(t)->forward(inputs)[static_cast<size_t>(t.output_index())];
  }

  // What reads a reshape reads what the reshape reads.
  void count_readers() {
    for (const auto& node : trace_.nodes)
      for (const Tensor& input : node->inputs)
        if (input.node() && node->op->name() != "reshape") ++readers_[key(unshaped(input))];
  }

  // (h, w, c) of one image; (n, c) is a 1x1 image.
  static Shape image_of(const Shape& shape) {
    if (shape.rank() == 4) return {shape[1], shape[2], shape[3]};
    return {1, 1, shape.back()};
  }
  int add_value(std::string name, const Shape& image, const Grid& grid, int bits) {
    model_.values.push_back({std::move(name), image, bits > 0, bits, grid, {}});
    return static_cast<int>(model_.values.size()) - 1;
  }
  const Value& value(int index) const { return model_.values[static_cast<size_t>(index)]; }

  // Values keep their images, so a reshape may flatten them, or undo that.
  void check_reshape(const Tensor& t, const Shape& image) const {
    if (t.dim(0) != trace_.inputs[0].dim(0) || (t.rank() != 2 && image_of(t.shape()) != image))
      refuse(t, text("it makes other images of ", image, "; only flattening is possible"));
  }
  int reshaped(const Tensor& t, int result) const {
    check_reshape(t, value(result).shape);
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

  // Codes of activations run from 0.
  static void check_uniform(const Tensor& t, const QuantizeOp& op) {
    if (op.grids.empty()) refuse(t, "its levels are not equally spaced; train with another quantizer");
  }

  static Grid unsigned_grid(const Tensor& t, const QuantizeOp& op) {
    check_uniform(t, op);
    if (op.grids.size() != 1) refuse(t, "activations have one grid for each channel; use one for the tensor");
    Grid g = op.grids[0];
    g.zero_point -= static_cast<float>(g.lo);
    g.hi -= g.lo;
    g.lo = 0;
    return g;
  }
  static bool has_zero(const Grid& g) { return g.zero_point == std::nearbyint(g.zero_point); }
  // The grid that a layer reads: one with zero, which is what it pads with. An even grid (binary activations)
  // gets levels between its own.
  static Grid with_zero(const Grid& g) {
    return has_zero(g) ? g : Grid{g.scale / 2, 2 * g.zero_point, 0, 2 * g.hi};
  }

  int quantized(const Tensor& t) {
    const Grid grid = unsigned_grid(t, *as<QuantizeOp>(t));
    const Tensor source = input_of(t);
    const std::string name = t.node()->scope;
    if (key(source) == key(trace_.inputs[0])) {
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
    if (is_on_grid(source)) return remapped(stored(source), name, grid);
    if (is(source, "reshape")) return reshaped(source, on_grid(input_of(source), name, grid));
    if (is_average(source)) {
      const int dst = add_value(name, image_of(source.shape()), grid, grid::bits(grid));
      average(source, dst);
      return dst;
    }
    if (as<ChannelMomentsOp>(source)) {
      const Tensor& read = input_of(source);
      if (!is_on_grid(read))
        refuse(source, "it reads a tensor that is not stored in codes; give that a site");
      const int dst = add_value(name, {1, 1, source.dim(1)}, grid, grid::bits(grid));
      model_.layers.push_back(integer::Moments{stored(read), dst});
      return dst;
    }
    if (as<ConcatOp>(source) && has_one_reader(source)) {
      std::vector<int> parts;
      for (const Tensor& part : source.node()->inputs)
        parts.push_back(on_grid(part, text(name, ".part", parts.size()), grid));
      return joined(source, name, parts);
    }
    if (const auto* pool = as<MaxPool2dOp>(source); pool && has_one_reader(source)) {
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
    if (!is_on_grid(source))
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

  bool has_one_reader(const Tensor& t) const {
    const auto found = readers_.find(key(unshaped(t)));
    return found == readers_.end() || found->second <= 1;
  }

  // The result of a layer and what is fused into it, on a grid.
  int emitted(const Tensor& source, const std::string& name, const Grid& grid) {
    if (!has_one_reader(source))
      return encoded(stored_float(source, "several layers read it before it is quantized"), name, grid);
    if (!can_be_fused(source)) return encoded(stored_float(source, why_float(source)), name, grid);
    const Chain chain = parse(source);
    if (chain.skip && !is_on_grid(*chain.skip))
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

  static std::string why_float(const Tensor& t) {
    return text("no quantizer follows '", op_of(t) ? op_of(t)->name() : "input", "'");
  }
  // Whether the op can be the last one of a chain; limits can if what they limit can.
  bool can_be_fused(const Tensor& t) const {
    if (is(t, "reshape") || limits_of(t)) return can_be_fused(input_of(t));
    return is_on_grid(t) ||
           !(as<MaxPool2dOp>(t) || as<SliceOp>(t) || as<PadOp>(t) || as<ConcatOp>(t) || is_average(t));
  }

  // The value that holds `t` in floats, for the reason that `note` gives.
  int stored_float(const Tensor& t, const std::string& note) {
    if (const auto found = floats_.find(key(t)); found != floats_.end()) return found->second;
    if (key(t) == key(trace_.inputs[0])) refuse(t, "a layer reads the images before they are quantized");
    int dst;
    const Shape image = image_of(t.shape());
    const std::string name = text(t.node()->scope, t.node()->scope.empty() ? "" : ".", op_of(t)->name());
    const auto moved = [&](auto layer, const Tensor& source) {
      layer.src = stored_float(source, note);
      layer.dst = dst = add_float(name, image, note);
      model_.layers.push_back(layer);
    };
    if (is(t, "reshape") && !is_on_grid(t)) {
      dst = reshaped(t, stored_float(input_of(t), note));
    } else if (const auto* pool = as<MaxPool2dOp>(t)) {
      moved(integer::MaxPool{0, 0, pool->options}, input_of(t));
    } else if (as<SliceOp>(t) || as<PadOp>(t)) {
      const auto [layer, source] = subsampling(t);
      moved(layer, source);
    } else if (as<ConcatOp>(t) && !is_on_grid(t)) {
      std::vector<int> parts;
      for (const Tensor& part : t.node()->inputs) parts.push_back(stored_float(part, note));
      dst = joined(t, name, parts);
    } else if (is_average(t)) {
      dst = add_float(name, image, note);
      average(t, dst);
    } else {
      const Chain chain = parse(t);
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
    const int src =
        is_on_grid(source) ? stored(source) : stored_float(source, "it is averaged before it is quantized");
    const Grid from = value(src).codes ? value(src).grid : Grid{};
    const Grid to = value(dst).codes ? value(dst).grid : Grid{};
    const auto pixels = static_cast<double>(options.kernel[0] * options.kernel[1]);
    const auto m =
        static_cast<float>(static_cast<double>(from.scale) / (pixels * static_cast<double>(to.scale)));
    const auto b = static_cast<float>(-pixels * from.zero_point + to.zero_point / static_cast<double>(m));
    model_.layers.push_back(integer::AveragePool{src, dst, options, b, m});
  }

  static Tensor unshaped(Tensor t) {
    while (is(t, "reshape")) t = Tensor(input_of(t));
    return t;
  }

  bool is_on_grid(const Tensor& t) const {
    if (as<QuantizeOp>(t)) return !constant(input_of(t));
    if (as<ConcatOp>(t)) {
      const auto& parts = t.node()->inputs;
      return std::all_of(parts.begin(), parts.end(),
                         [this](const Tensor& part) { return is_on_grid(part); }) &&
             std::all_of(parts.begin(), parts.end(),
                         [&](const Tensor& part) { return grid_of(part) == grid_of(parts[0]); });
    }
    const bool moves = is(t, "reshape") || as<SliceOp>(t) || as<PadOp>(t) || as<MaxPool2dOp>(t);
    return moves && is_on_grid(input_of(t));
  }
  // Of a tensor that is on one.
  Grid grid_of(const Tensor& t) const {
    if (const auto* op = as<QuantizeOp>(t)) return with_zero(unsigned_grid(t, *op));
    return grid_of(input_of(t));
  }

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
      const bool both = as<SliceOp>(inner) && has_one_reader(inner);
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

  static void scale(const Tensor& t, Chain& chain, const std::vector<double>& factor,
                    const std::vector<double>& shift) {
    if (factor.size() != chain.channels())
      refuse(t, text("it has parameters for ", factor.size(), " channels, but the map it follows has ",
                     chain.channels(), "; put it before what flattens the map"));
    for (auto& [gain, offset] : chain.maps)
      for (size_t c = 0; c < factor.size(); ++c) {
        gain[c] *= factor[c];
        offset[c] = offset[c] * factor[c] + shift[c];
      }
  }

  void apply_batch_norm(Chain& chain, const Tensor& t) const {
    Arrays p;  // gamma, beta, mean, variance
    for (size_t i = 1; i <= 4; ++i) {
      const std::optional<Array> given = constant(input_of(t, i));
      if (!given) refuse(t, "its parameters depend on the images");
      p.push_back(*given);
    }
    const double eps = as<BatchNormOp>(t)->eps;
    std::vector<double> factor, shift;
    for (int64_t c = 0; c < p[0].size(); ++c) {
      const double deviation = std::sqrt(static_cast<double>(p[3].data<float>()[c]) + eps);
      factor.push_back(p[0].data<float>()[c] / deviation);
      shift.push_back(p[1].data<float>()[c] - factor.back() * p[2].data<float>()[c]);
    }
    scale(t, chain, factor, shift);
  }

  static void limit(Chain& chain, const Limits& limits) {
    chain.limits.low = std::max(chain.limits.low, limits.low);
    chain.limits.high = std::min(chain.limits.high, limits.high);
  }

  Chain chain_of(const Tensor& layer) {
    const Shape image = is_on_grid(layer) ? value(stored(layer)).shape : image_of(layer.shape());
    const auto channels = static_cast<size_t>(image[2]);
    return {layer, image, {{std::vector<double>(channels, 1), std::vector<double>(channels, 0)}}};
  }

  // Reads the ops between a layer and its quantizer, outermost first: limits, then the skip, then per-channel
  // affine maps, then the layer itself.
  Chain parse(const Tensor& t) {
    if (is(t, "reshape")) {
      const Chain chain = parse(input_of(t));
      check_reshape(t, chain.image);
      return chain;
    }
    if (is_on_grid(t)) return chain_of(t);
    if (is(t, "conv2d") || is(t, "linear")) {
      Chain chain = chain_of(t);
      if (is(t, "linear") && t.node()->inputs.size() > 2) {
        const std::optional<Array> bias = constant(input_of(t, 2));
        if (!bias) refuse(t, "its bias is not made of parameters");
        add_bias(t, chain, *bias);
      }
      return chain;
    }
    if (const auto limits = limits_of(t)) {
      Chain chain = parse(input_of(t));
      limit(chain, *limits);
      return chain;
    }
    if (const auto* op = as<BatchNormOp>(t)) {
      if (op->training) refuse(t, "batch norm is in training mode; call eval() before tracing");
      Chain chain = parse_affine(t, input_of(t), "batch norm follows");
      apply_batch_norm(chain, t);
      if (op->has_skip) chain.skip = input_of(t, 5);
      if (op->relu) limit(chain, {0, op->high});
      return chain;
    }
    if (is(t, "affine")) {
      // What it does to 0 and 1 tells its constants.
      const Array ends = op_of(t)->forward({Array::of<double>({0, 1})})[0];
      const double shift = ends.data<double>()[0], factor = ends.data<double>()[1] - shift;
      Chain chain = parse_affine(t, input_of(t), "an affine map follows");
      scale(t, chain, std::vector<double>(chain.channels(), factor),
            std::vector<double>(chain.channels(), shift));
      return chain;
    }
    if (is(t, "add")) return parse_add(t);
    if (const auto* choice = as<ImageChoiceOp>(t)) return parse_choice(t, *choice);
    refuse(t, text("'", op_of(t) ? op_of(t)->name() : "input", "' cannot be fused into the layer before it"));
  }

  // The chain of `source`, to which `t` still applies a map of each channel.
  Chain parse_affine(const Tensor& t, const Tensor& source, const char* what) {
    Chain chain = parse(source);
    if (chain.skip || chain.limits.any()) refuse(t, text(what, " an activation or a residual add"));
    return chain;
  }

  Chain parse_add(const Tensor& t) {
    const Tensor &a = input_of(t, 0), &b = input_of(t, 1);
    const bool right = is_parameter(b) || (!is_parameter(a) && !takes_skip(b)) ||
                       (is_on_grid(b) && !is_parameter(a) && takes_skip(a)) ||
                       (takes_skip(a) && !is_on_grid(a) && !is_parameter(a));
    const Tensor &layer = right ? a : b, &other = right ? b : a;
    Chain chain = parse_affine(t, layer, "an add follows");
    if (is_parameter(other))
      add_bias(t, chain, other.value());
    else
      chain.skip = other;
    return chain;
  }

  // Affine maps of which each image takes that of its candidate, which its layer's input takes, too.
  Chain parse_choice(const Tensor& t, const ImageChoiceOp& op) {
    Chain chain = parse(input_of(t, 1));
    const bool chosen = op.inputs == 2 || column_of(input_of(chain.layer)) == op.column;
    if (!chosen) refuse(t, "its layer reads what is not chosen by the same gates");
    for (size_t k = 2; k < t.node()->inputs.size(); ++k) {
      const Chain other = parse(input_of(t, k));
      const bool same_skip = other.skip.has_value() == chain.skip.has_value() &&
                             (!chain.skip || key(*other.skip) == key(*chain.skip));
      if (key(other.layer) != key(chain.layer) || !same_skip || !(other.limits == chain.limits))
        refuse(t, "its parts differ in more than an affine map behind one layer");
      if (other.maps.size() > 1 || chain.maps.size() != k - 1) refuse(t, "its parts are choices themselves");
      chain.maps.push_back(other.maps[0]);
    }
    return chain;
  }
  static int column_of(const Tensor& t) {
    const auto* op = as<ImageOp>(t);
    return op ? op->column : -1;
  }

  // Whether an add can be fused into the layer behind `t`: nothing else reads it, and only maps of each
  // channel lie between.
  bool takes_skip(const Tensor& t) const {
    if (is_on_grid(t)) return true;
    if (!op_of(t) || !has_one_reader(t)) return false;
    if (is(t, "conv2d") || is(t, "linear")) return true;
    if (const auto* op = as<BatchNormOp>(t)) return !op->has_skip && !op->relu && takes_skip(input_of(t));
    if (is(t, "affine") || is(t, "reshape")) return takes_skip(input_of(t));
    if (!is(t, "add")) return false;
    return (is_parameter(input_of(t, 0)) && takes_skip(input_of(t, 1))) ||
           (is_parameter(input_of(t, 1)) && takes_skip(input_of(t, 0)));
  }

  // `t` adds the bias.
  static void add_bias(const Tensor& t, Chain& chain, const Array& bias) {
    const auto channels = static_cast<int64_t>(chain.channels());
    if (bias.size() != channels || (channels > 1 && bias.shape().back() != channels))
      refuse(t, text("a bias must have one value for each channel; got ", bias.shape(), " for ", channels));
    for (auto& map : chain.maps)
      for (size_t c = 0; c < chain.channels(); ++c) map.offset[c] += bias.data<float>()[c];
  }

  struct Weights {
    Array integers;            // (oc, kh, kw, ic), s8
    std::vector<double> unit;  // per output channel
    int bits = 8;
  };

  // Ones, which leave each channel as it is.
  static Weights identity(int64_t channels) {
    return {Array::full({channels, 1, 1, 1}, 1, DType::s8),
            std::vector<double>(static_cast<size_t>(channels), 1), 1};
  }

  // One, or one for each candidate where they stand side by side.
  std::vector<Weights> weights_of(const Chain& chain, const Shape& image) const {
    const Tensor& w = input_of(chain.layer, 1);
    if (!as<ConcatOp>(w)) return {weights_of(chain, w, image)};
    const bool routed = as<ImageRouteOp>(input_of(chain.layer, 0));
    if (!routed || w.node()->inputs.size() + 1 != input_of(chain.layer, 0).node()->inputs.size())
      refuse(chain.layer, "its weights are joined of parts, which its input is not routed to");
    std::vector<Weights> all;
    for (const Tensor& part : w.node()->inputs) all.push_back(weights_of(chain, part, image));
    return all;
  }

  Weights weights_of(const Chain& chain, const Tensor& w, const Shape& image) const {
    const auto* op = as<QuantizeOp>(w);
    const std::optional<Array> values = op ? constant(input_of(w)) : std::nullopt;
    if (!values) refuse(chain.layer, "its weights are not quantized; give the layer w_bits of 8 or less");
    check_uniform(w, *op);
    const Quantized q{fake_quantize(*values, op->grids), op->grids};
    Weights result;
    result.bits = op->bits();
    const Array integers = q.integers(), unit = q.unit();
    const int64_t channels = integers.dim(0);
    for (int64_t c = 0; c < channels; ++c)
      result.unit.push_back(unit.data<float>()[unit.size() == 1 ? 0 : c]);
    std::vector<int8_t> codes;
    for (int64_t i = 0; i < integers.size(); ++i) {
      const float code = integers.data<float>()[i];
      if (std::abs(code) > 127 || code != std::nearbyint(code))
        refuse(w, text("the weight code ", code, " does not fit 8 bits"));
      codes.push_back(static_cast<int8_t>(code));
    }
    // A map that is flattened stays a map: a fully connected layer is a convolution over all of it. One that
    // is not flattened has a fully connected layer for each pixel.
    Shape shape = integers.shape();
    if (shape.rank() == 2)
      shape = input_of(chain.layer).rank() == 2 ? Shape{channels, image[0], image[1], image[2]}
                                                : Shape{channels, 1, 1, shape[1]};
    result.integers = Array::of(codes, shape);
    return result;
  }

  // m and b of the requantisation: t = (acc + b) * m, with acc over raw codes.
  void emit(const Chain& chain, int dst) {
    const bool is_stored = is_on_grid(chain.layer);
    const int src = stored(is_stored ? chain.layer : input_of(chain.layer, 0));
    const Value from = value(src);
    const std::vector<Weights> weights =
        is_stored ? std::vector{identity(from.shape[2])} : weights_of(chain, from.shape);
    const Value to = value(dst);
    const double dst_scale = to.codes ? to.grid.scale : 1, dst_zero = to.codes ? to.grid.zero_point : 0;

    if (chain.maps.size() != 1 && chain.maps.size() != from.alternatives.size())
      refuse(chain.layer,
             text("each image takes one of ", chain.maps.size(), " affine maps behind it, but its input has ",
                  from.alternatives.size(), " alternatives"));

    integer::Convolution conv;
    conv.name = chain.layer.node()->scope;
    conv.src = src;
    conv.dst = dst;
    if (const auto* op = as<Conv2dOp>(chain.layer)) conv.options = op->options;
    if (is_stored) conv.options.groups = from.shape[2];
    conv.weights = weights[0].integers;
    conv.weight_bits = weights[0].bits;
    for (size_t k = 1; k < weights.size(); ++k)
      conv.other_weights.push_back({weights[k].integers, weights[k].bits});
    double skip_offset = 0;
    if (chain.skip && !is_on_grid(*chain.skip)) {
      conv.skip = stored_float(*chain.skip, "a residual add reads it");
    } else if (chain.skip) {
      conv.skip = stored(*chain.skip);
      const Grid& skip = value(conv.skip).grid;
      conv.skip_ratio = static_cast<float>(static_cast<double>(skip.scale) / dst_scale);
      skip_offset = -static_cast<double>(skip.zero_point) * conv.skip_ratio;
    }
    if (chain.skip && value(conv.skip).shape != chain.image)
      refuse(chain.layer, text("its result ", chain.image, " and the skip that is added, ",
                               value(conv.skip).shape, ", have other shapes"));
    const int64_t channels = conv.weights.dim(0), per_channel = conv.weights.size() / channels;
    const auto alternatives = static_cast<int64_t>(from.alternatives.size());
    conv.b = Array(alternatives ? Shape{alternatives, channels} : Shape{channels});
    conv.m = Array(conv.b.shape());
    for (int64_t row = 0; row < conv.b.size(); ++row) {
      const int64_t c = row % channels;
      const auto i = static_cast<size_t>(c);
      const auto k = static_cast<size_t>(row / channels);  // the candidate
      const Weights& own = weights[weights.size() == 1 ? 0 : k];
      const auto& [gain, offset] = chain.maps[chain.maps.size() == 1 ? 0 : k];
      const Grid& grid = alternatives ? from.alternatives[k].grid : from.grid;
      double m = static_cast<double>(grid.scale) * own.unit[i] * gain[i] / dst_scale;
      // A dead channel (gamma = 0) keeps a tiny multiplier, so that the offset can be written as b * m.
      if (std::abs(m) < 0x1p-40) m = std::copysign(0x1p-40, m);
      const auto rounded = static_cast<float>(m);
      double sum = 0;
      for (int64_t j = 0; j < per_channel; ++j) sum += own.integers.data<int8_t>()[c * per_channel + j];
      const double shift = offset[i] / dst_scale + dst_zero + skip_offset;
      conv.m.data<float>()[row] = rounded;
      conv.b.data<float>()[row] =
          static_cast<float>(-grid.zero_point * sum + shift / static_cast<double>(rounded));
    }
    if (chain.limits.low > chain.limits.high)
      refuse(chain.layer, "the limits of its activations exclude each other");
    if (to.codes) {
      const auto [lo, hi] = chain.limits.codes(to.grid);
      conv.lo = lo;
      conv.hi = hi;
    } else {
      conv.low = static_cast<float>(chain.limits.low);
      conv.high = static_cast<float>(chain.limits.high);
    }
    model_.layers.push_back(std::move(conv));
  }

  const Trace& trace_;
  Model model_;
  std::map<Key, int> stored_, floats_;
  std::map<Key, int> readers_;
};

}  // namespace

integer::Model lower(const Trace& trace) {
  check(trace.inputs.size() == 1 && trace.outputs.size() == 1, "[lower] got ", trace.inputs.size(),
        " inputs and ", trace.outputs.size(), " outputs, expected one of each");
  return Lowering(trace).run();
}

}  // namespace stairgrad::quant
