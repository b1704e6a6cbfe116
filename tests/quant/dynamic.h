// Networks as after a training, with bits by image or without, and sets of images for them.
#pragma once

#include <cmath>
#include <memory>
#include <string>

#include "../../autograd/recorder.h"
#include "../../kernels/elementwise.h"
#include "../../kernels/same_bytes.h"
#include "../../quant/datafree/fine_tuning.h"
#include "../../quant/lower.h"
#include "batch_norms.h"

namespace stairgrad::quant::datafree {

// A network as after a training, small enough for tests.
inline std::unique_ptr<nn::Model> network(const std::string& name = "resnet8", int64_t size = 12,
                                          double width = 0.5) {
  auto model = nn::make_model(name, {.image_size = size, .classes = 10, .width = width});
  nn::initialise(*model, 3);
  settle_batch_norms(*model, /*scales=*/false);
  model->eval();
  return model;
}

inline ImageSet random_set(int64_t n, int64_t size = 12) {
  ImageSet set;
  set.images = random_normal({n, size, size, 3}, Philox(21));
  set.labels = draw_labels(n, class_similarity(random_normal({10, 4}, Philox(2)), Similarity::dot), {}, 5);
  return set;
}

// Images from grey to gaudy.
inline Array gaudy(const Array& images) {
  Array result = images.clone();
  const int64_t size = images.size() / images.dim(0);
  for (int64_t i = 0; i < result.size(); ++i)
    result.data<float>()[i] *= 0.3f * static_cast<float>(i / size % 9);
  return result;
}

// Mean absolute difference, relative to the mean size of `a`.
inline double distance(const Array& a, const Array& b) {
  double off = 0, size = 0;
  for (int64_t i = 0; i < a.size(); ++i) {
    off += std::abs(a.data<float>()[i] - b.data<float>()[i]);
    size += std::abs(a.data<float>()[i]);
  }
  return off / size;
}

struct Dynamic {
  std::unique_ptr<nn::Model> model;
  std::shared_ptr<Sites> sites;
  std::shared_ptr<DynamicBits> bits;
};

inline Dynamic dynamic(const DynamicOptions& options, const std::string& name = "resnet8", int w_bits = 4) {
  Dynamic d{network(name), {}, {}};
  const Policy fixed = protocol_policy(*d.model, Protocol::family, w_bits, options.target, "ste", Skip::u8);
  d.sites = attach_sites(*d.model, dynamic_policy(*d.model, fixed, options));
  d.bits = attach_dynamic_bits(*d.model, *d.sites, options);
  // Weights that make images differ in their choices.
  const NoGrad no_grad;
  const Array images = gaudy(random_set(32).images);
  for (uint64_t stream = 8; stream < 40; ++stream) {
    for (const nn::NamedTensor& p : d.bits->selector_parameters()) {
      Array w = p.tensor.value();
      if (p.name.ends_with("choose.weight")) w.assign(random_normal(w.shape(), Philox(stream), 3));
    }
    d.bits->forward(images);
    const Array choices = d.bits->last_choices();
    for (int64_t i = 1; i < 32; ++i)
      if (!same_bytes(choices.slice(i, 1), choices.slice(0, 1))) return d;
  }
  return d;
}

// Batch norms of the candidates, all unlike.
inline void spread_norms(Dynamic& d) {
  uint64_t stream = 50;
  for (const nn::NamedModule& m : d.model->modules())
    if (const auto* norm = dynamic_cast<const nn::BatchNorm2d*>(m.module);
        norm && m.name.starts_with("dynamic."))
      for (Array p : {norm->weight.value(), norm->bias.value(), norm->running_mean})
        p.assign(kernels::binary(kernels::Binary::add, p, random_normal(p.shape(), Philox(++stream), 0.3)));
}

inline integer::Model lowered(Dynamic& d) {
  return lower(trace([&](const Tensors& in) { return d.bits->forward(in[0]); },
                     {Array::zeros(d.model->input_shape())}));
}

}  // namespace stairgrad::quant::datafree
