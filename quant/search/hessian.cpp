#include "hessian.h"

#include <algorithm>
#include <set>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../quantizer.h"
#include "../sites.h"

namespace stairgrad::quant {
namespace {

// While it lives, keeps what passes weights and inputs of the layers of a space. On the tape inputs become
// points of their own, to differentiate by.
class Watch {
 public:
  Watch(nn::Model& model, const SearchSpace& space) : model_(model) {
    detach_sites(model);
    std::set<std::string> layers;
    for (const SearchLayer& layer : space.layers()) layers.insert(layer.name);
    for (const nn::NamedTap& t : model.taps())
      if (t.tap->role != nn::Tap::Role::tensor && layers.count(t.owner()))
        t.tap->hook = [this, name = t.name, weight = t.tap->role == nn::Tap::Role::weight](const Tensor& x) {
          const Tensor kept = weight ? x : x * 1.0;
          passed[name] = kept;
          return Quantized{kept, {}};
        };
  }
  ~Watch() { detach_sites(model_); }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  std::map<std::string, Tensor> passed;

 private:
  nn::Model& model_;
};

Array signs(const Shape& shape, uint64_t seed, const std::string& name) {
  Array v = random_uniform(shape, Philox(seed, stream_of(name)), -1, 1);
  for (int64_t i = 0; i < v.size(); ++i) v.data<float>()[i] = v.data<float>()[i] < 0 ? -1.f : 1.f;
  return v;
}

}  // namespace

std::map<std::string, double> hessian_traces(nn::Model& model, const SearchSpace& space, const Array& images,
                                             const Array& labels, const HessianOptions& options) {
  const nn::Evaluation evaluation(model);
  const RecordingScope tape(Recording::tape);
  Watch watch(model, space);
  const Tensor loss = cross_entropy(model(images), labels);
  std::vector<std::string> names;
  Tensors points;
  for (const auto& [name, tensor] : watch.passed) {
    names.push_back(name);
    points.push_back(tensor);
  }
  const Tensors slopes = grad({loss}, points, {.create_graph = true});
  std::map<std::string, double> traces;
  for (int probe = 0; probe < options.probes; ++probe) {
    Tensor product;
    Tensors vectors;
    for (size_t i = 0; i < points.size(); ++i) {
      vectors.push_back(signs(points[i].shape(), options.seed, text(names[i], " probe ", probe)));
      const Tensor own = sum(slopes[i] * vectors[i]);
      product = product.defined() ? product + own : own;
    }
    // The loss is a mean, so the curvature by one image's input is a batch-th of that image's own.
    const Tensors curved = grad({product}, points, {.retain_graph = true});
    const NoGrad no_grad;
    for (size_t i = 0; i < points.size(); ++i) {
      const double images_of_mean = names[i].ends_with(".input") ? static_cast<double>(images.dim(0)) : 1;
      traces[names[i]] += sum(curved[i] * vectors[i]).item() * images_of_mean /
                          static_cast<double>(points[i].size()) / options.probes;
    }
  }
  return traces;
}

SearchSpace::Merit hessian_merit(nn::Model& model, const SearchSpace& space,
                                 const std::map<std::string, double>& traces, const Array& images,
                                 const HessianOptions& options) {
  const nn::Evaluation evaluation(model);
  const NoGrad no_grad;
  Watch watch(model, space);
  model(images);
  std::map<std::pair<std::string, int>, double> costs;
  for (const auto& [name, tensor] : watch.passed) {
    const bool weight = name.ends_with(".weight"), each = weight && options.granularity == "channel";
    for (const int bits : weight ? space.w_bits() : space.a_bits()) {
      const auto quantizer = make_quantizer(
          options.quantizer, {.bits = bits, .weight = weight, .per_channel = each}, tensor.dim(0));
      const Tensor error = (*quantizer)(tensor).value - tensor;
      const double parts = weight ? 1 : static_cast<double>(images.dim(0));
      costs[{name, bits}] = std::max(0.0, traces.at(name)) * sum(square(error)).item() / parts;
    }
  }
  std::vector<std::string> layers;
  for (const SearchLayer& layer : space.layers()) layers.push_back(layer.name);
  return [costs, layers](size_t layer, LayerBits bits) {
    return -costs.at({layers[layer] + ".weight", bits.w}) - costs.at({layers[layer] + ".input", bits.a});
  };
}

}  // namespace stairgrad::quant
