#include "chain.h"

#include <algorithm>

#include "../../autograd/ops.h"
#include "../../autograd/ops/clamp.h"
#include "../image_choice.h"

namespace stairgrad::quant::lowering {
namespace {

void scale(const Tensor& t, Chain& chain, const std::vector<double>& factor,
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

// `t` adds the bias.
void add_bias(const Tensor& t, Chain& chain, const Array& bias) {
  const auto channels = static_cast<int64_t>(chain.channels());
  if (bias.size() != channels || (channels > 1 && bias.shape().back() != channels))
    refuse(t, text("a bias must have one value for each channel; got ", bias.shape(), " for ", channels));
  for (auto& map : chain.maps)
    for (size_t c = 0; c < chain.channels(); ++c) map.offset[c] += bias.data<float>()[c];
}

void limit(Chain& chain, const Limits& limits) {
  chain.limits.low = std::max(chain.limits.low, limits.low);
  chain.limits.high = std::min(chain.limits.high, limits.high);
}

int column_of(const Tensor& t) {
  const auto* op = as<ImageOp>(t);
  return op ? op->column : -1;
}

class Parser {
 public:
  explicit Parser(const Graph& graph) : graph_(graph) {}

  Chain parse(const Tensor& t) const {
    if (is(t, "reshape")) {
      const Chain chain = parse(input_of(t));
      graph_.check_reshape(t, chain.image);
      return chain;
    }
    if (graph_.is_on_grid(t)) return start(t);
    if (is(t, "conv2d") || is(t, "linear")) {
      Chain chain = start(t);
      if (is(t, "linear") && t.node()->inputs.size() > 2) {
        const std::optional<Array> bias = graph_.constant(input_of(t, 2));
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
    if (const auto* op = as<BatchNormOp>(t)) return parse_batch_norm(t, *op);
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
    refuse(t, text("'", name_of_op(t), "' cannot be fused into the layer before it"));
  }

 private:
  static Chain start(const Tensor& layer) {
    const Shape image = image_of(unshaped(layer).shape());
    const auto channels = static_cast<size_t>(image[2]);
    return {layer, image, {{std::vector<double>(channels, 1), std::vector<double>(channels, 0)}}};
  }

  // The chain of `source`, to which `t` still applies a map of each channel.
  Chain parse_affine(const Tensor& t, const Tensor& source, const char* what) const {
    Chain chain = parse(source);
    if (chain.skip || chain.limits.any()) refuse(t, text(what, " an activation or a residual add"));
    return chain;
  }

  Chain parse_batch_norm(const Tensor& t, const BatchNormOp& op) const {
    if (op.training) refuse(t, "batch norm is in training mode; call eval() before tracing");
    Chain chain = parse_affine(t, input_of(t), "batch norm follows");
    Arrays p;  // gamma, beta, mean, variance
    for (size_t i = 1; i <= 4; ++i) {
      const std::optional<Array> given = graph_.constant(input_of(t, i));
      if (!given) refuse(t, "its parameters depend on the images");
      p.push_back(*given);
    }
    std::vector<double> factor, shift;
    for (int64_t c = 0; c < p[0].size(); ++c) {
      const double deviation = std::sqrt(static_cast<double>(p[3].data<float>()[c]) + op.eps);
      factor.push_back(p[0].data<float>()[c] / deviation);
      shift.push_back(p[1].data<float>()[c] - factor.back() * p[2].data<float>()[c]);
    }
    scale(t, chain, factor, shift);
    if (op.has_skip) chain.skip = input_of(t, 5);
    if (op.relu) limit(chain, {0, op.high});
    return chain;
  }

  Chain parse_add(const Tensor& t) const {
    const Tensor &a = input_of(t, 0), &b = input_of(t, 1);
    const bool right = graph_.is_parameter(b) || (!graph_.is_parameter(a) && !takes_skip(b)) ||
                       (graph_.is_on_grid(b) && !graph_.is_parameter(a) && takes_skip(a)) ||
                       (takes_skip(a) && !graph_.is_on_grid(a) && !graph_.is_parameter(a));
    const Tensor &layer = right ? a : b, &other = right ? b : a;
    Chain chain = parse_affine(t, layer, "an add follows");
    if (graph_.is_parameter(other))
      add_bias(t, chain, other.value());
    else
      chain.skip = other;
    return chain;
  }

  // Affine maps of which each image takes that of its candidate, which its layer's input takes, too.
  Chain parse_choice(const Tensor& t, const ImageChoiceOp& op) const {
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

  // Whether an add can be fused into the layer behind `t`: nothing else reads it, and only maps of each
  // channel lie between.
  bool takes_skip(const Tensor& t) const {
    if (graph_.is_on_grid(t)) return true;
    if (!op_of(t) || !graph_.has_one_reader(t)) return false;
    if (is(t, "conv2d") || is(t, "linear")) return true;
    if (const auto* op = as<BatchNormOp>(t)) return !op->has_skip && !op->relu && takes_skip(input_of(t));
    if (is(t, "affine") || is(t, "reshape")) return takes_skip(input_of(t));
    if (!is(t, "add")) return false;
    return (graph_.is_parameter(input_of(t, 0)) && takes_skip(input_of(t, 1))) ||
           (graph_.is_parameter(input_of(t, 1)) && takes_skip(input_of(t, 0)));
  }

  const Graph& graph_;
};

}  // namespace

std::array<int, 2> Limits::codes(const Grid& g) const {
  return {std::isfinite(low) ? grid::encode(static_cast<float>(low), g) : g.lo,
          std::isfinite(high) ? grid::encode(static_cast<float>(high), g) : g.hi};
}

std::optional<Limits> limits_of(const Tensor& t) {
  if (is(t, "relu")) return Limits{0, HUGE_VAL};
  if (const auto* clamp = as<ClampOp>(t)) return Limits{clamp->low, clamp->high};
  return {};
}

Chain chain_of(const Graph& graph, const Tensor& t) { return Parser(graph).parse(t); }

}  // namespace stairgrad::quant::lowering
