#include "explain.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include "../autograd/recorder.h"
#include "../kernels/grid_arrays.h"
#include "integer/reference.h"
#include "integer/session.h"
#include "sites.h"

namespace stairgrad::quant {
namespace {

using integer::Value;

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

/// Runs the network without its quantizers; what passes the taps of activations, by their names.
std::map<std::string, Array> float_values(nn::Model& model, const Array& images) {
  std::map<std::string, Array> values;
  const KeptHooks kept(model);
  for (const nn::NamedTap& t : model.taps()) {
    if (t.tap->role == nn::Tap::Role::weight)
      t.tap->hook = nullptr;
    else
      t.tap->hook = [&values, name = t.name](const Tensor& x) {
        values[name] = x.value();
        return Quantized{x, {}};
      };
  }
  const nn::Evaluation evaluation(model);
  const NoGrad no_grad;
  values["logits"] = model(images).value();
  values["images"] = images;
  return values;
}

/// As floats: decoded where they are codes.
Array floats_of(const Array& x, const Value& value) {
  return value.codes ? kernels::decode(x, value.grid) : x;
}

double saturated_share(const Array& codes, const Array& truth, const Grid& grid) {
  const float low = grid::decode(grid.lo, grid) - grid.scale / 2,
              high = grid::decode(grid.hi, grid) + grid.scale / 2;
  int64_t count = 0;
  for (int64_t i = 0; i < codes.size(); ++i) {
    const float x = truth.data<float>()[i];
    const int code = codes.data<uint8_t>()[i];
    count += (code == grid.lo && x < low) || (code == grid.hi && x > high);
  }
  return static_cast<double>(count) / static_cast<double>(std::max<int64_t>(1, codes.size()));
}

int64_t differing(const Array& a, const Array& b) {
  int64_t count = 0;
  for (int64_t i = 0; i < a.size(); ++i) count += a.data<uint8_t>()[i] != b.data<uint8_t>()[i];
  return count;
}

}  // namespace

Distance distance(const Array& x, const Array& y) {
  check(x.size() == y.size(), "[distance] got ", x.shape(), " and ", y.shape(), ", expected one size");
  double xx = 0, yy = 0, xy = 0, error = 0;
  for (int64_t i = 0; i < x.size(); ++i) {
    const double a = x.data<float>()[i], b = y.data<float>()[i];
    xx += a * a;
    yy += b * b;
    xy += a * b;
    error += (a - b) * (a - b);
  }
  return {10 * std::log10(xx / error), xx == 0 && yy == 0 ? 1 : xy / std::sqrt(xx * yy)};
}

std::vector<LayerExplanation> explain(const integer::Model& lowered, nn::Model& model, const Array& images) {
  check(integer::choices_of(lowered) == 0,
        "[explain] got a model whose images take grids of their own, expected one grid for each value");
  const std::map<std::string, Array> floats = float_values(model, images);
  const Arrays expected = integer::evaluate(lowered, images);
  integer::Session session(lowered, images.dim(0), /*keep_values=*/true);
  session.run(images);
  session.run(images);  // the first run finds cold caches

  // The float network's activations as each value of the integer model would hold them, where it has them.
  Arrays ideal(lowered.values.size());
  const auto truth_of = [&](size_t i) {
    const auto found = floats.find(lowered.values[i].name);
    return found == floats.end() || found->second.size() != expected[i].size() ? Array() : found->second;
  };
  for (size_t i = 0; i < ideal.size(); ++i) {
    const Array truth = truth_of(i);
    if (truth.has_value())
      ideal[i] = (lowered.values[i].codes ? kernels::encode(truth, lowered.values[i].grid) : truth)
                     .reshape(expected[i].shape());
  }

  std::vector<LayerExplanation> result;
  for (size_t i = 0; i < lowered.layers.size(); ++i) {
    const integer::Layer& layer = lowered.layers[i];
    const auto dst = static_cast<size_t>(integer::dst_of(layer));
    const Value& value = lowered.values[dst];
    LayerExplanation e;
    e.name = integer::name_of(lowered, layer);
    e.op = integer::op_of(layer);
    e.implementation = session.implementation(i);
    e.seconds = session.seconds(i);
    const auto* conv = std::get_if<integer::Convolution>(&layer);
    if (conv) e.w_bits = conv->weight_bits;
    bool known = true;
    for (const int src : integer::sources_of(layer)) known &= ideal[static_cast<size_t>(src)].has_value();
    const Value& first = lowered.values[static_cast<size_t>(integer::sources_of(layer)[0])];
    e.a_bits = first.codes ? first.bits : 0;
    if (value.codes) {
      e.codes = expected[dst].size();
      e.mismatched = differing(session.value(static_cast<int>(dst)), expected[dst]);
    }
    e.alone = e.cumulative = {unknown, unknown};
    e.saturated = unknown;
    if (const Array truth = truth_of(dst); truth.has_value()) {
      e.cumulative = distance(truth, floats_of(session.value(static_cast<int>(dst)), value));
      if (value.codes) e.saturated = saturated_share(session.value(static_cast<int>(dst)), truth, value.grid);
      if (known) e.alone = distance(truth, floats_of(integer::evaluate_layer(lowered, layer, ideal), value));
    }
    result.push_back(e);
  }
  return result;
}

}  // namespace stairgrad::quant
