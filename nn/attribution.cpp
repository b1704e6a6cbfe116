#include "attribution.h"

#include <algorithm>

#include "../autograd/grad.h"
#include "../autograd/ops.h"
#include "../kernels/movement.h"
#include "../kernels/nearest.h"

namespace stairgrad::nn {
namespace {

// Sums over channels need more digits than bf16 has.
Tensor wide(const Tensor& x) { return x.dtype() == DType::bf16 ? cast(x, DType::f32) : x; }

}  // namespace

Tensor grad_cam(const Tensor& features, const Tensor& logits, const std::vector<int32_t>& classes,
                bool create_graph) {
  check(features.rank() == 4 && logits.rank() == 2 && features.dim(0) == logits.dim(0) &&
            static_cast<int64_t>(classes.size()) == logits.dim(0),
        "[grad_cam] got features ", features.shape(), ", logits ", logits.shape(), " and ", classes.size(),
        " classes, expected (n,h,w,c), (n,classes) and n");
  const Tensor chosen = kernels::one_hot(Array::of(classes), logits.dim(1), logits.dtype());
  const Tensor slope = grad(sum(logits * chosen), features, {.create_graph = create_graph});
  const Tensor weights = sum(wide(slope), {1, 2}, /*keep_axes=*/true);
  return relu(sum(wide(features) * weights, {-1}));
}

Tensor class_activation_map(const Tensor& features, const Tensor& weights,
                            const std::vector<int32_t>& classes) {
  check(features.rank() == 4 && weights.rank() == 2 && features.dim(3) == weights.dim(1) &&
            static_cast<int64_t>(classes.size()) == features.dim(0),
        "[class_activation_map] got features ", features.shape(), ", weights ", weights.shape(), " and ",
        classes.size(), " classes, expected (n,h,w,c), (classes,c) and n");
  const Tensor rows = index_select(weights, 0, Array::of(classes));
  return relu(sum(wide(features) * reshape(wide(rows), {features.dim(0), 1, 1, features.dim(3)}), {-1}));
}

std::vector<int32_t> top_classes(const Array& logits) {
  const Array top = kernels::argmax(logits);
  return {top.data<int32_t>(), top.data<int32_t>() + top.size()};
}

size_t blocks_until(const Model& model, const std::string& block) {
  if (block.empty()) return model.head();
  std::vector<std::string> names;
  for (size_t i = 0; i < model.head(); ++i) {
    names.push_back(model.blocks()[i].name);
    if (names.back() == block) return i + 1;
  }
  std::string known;
  for (const std::string& name : names) known += ' ' + name;
  throw argument_error(text("[attribution] no block '", block, "' gives features; did you mean '",
                            nearest(block, names), "'? There are:", known));
}

Attribution attribute(Model& model, const Tensor& images, size_t blocks, const std::vector<int32_t>& classes,
                      bool create_graph) {
  check(blocks <= model.head(), "[attribution] got ", blocks, " blocks, expected at most ", model.head(),
        ", after which the head has no feature map");
  Tensor features;
  if (create_graph) {
    features = model.forward(images, 0, blocks);
  } else {
    const NoGrad no_grad;
    features = model.forward(images, 0, blocks);
  }
  if (blocks == model.head()) features = wide(features);
  const RecordingScope tape(Recording::tape);
  if (!create_graph || !features.requires_grad()) features = Tensor::leaf(features.value());
  const Tensor logits = model.forward(features, blocks, model.blocks().size());
  Attribution result{{}, logits, classes.empty() ? top_classes(logits.value()) : classes};
  result.map = grad_cam(features, logits, result.classes, create_graph);
  if (!create_graph) {
    result.map = result.map.detach();
    result.logits = logits.detach();
  }
  return result;
}

Explainer explainer_of(Model& model) {
  return [&model](const Tensor& images, const std::string& block, const std::vector<int32_t>& classes) {
    const Evaluation evaluation(model);
    return attribute(model, images, blocks_until(model, block), classes);
  };
}

Explainer mean_of(std::vector<Explainer> explainers) {
  check(!explainers.empty(),
        "[attribution] got nothing to take the mean map of, expected at least one network");
  return [all = std::move(explainers)](const Tensor& images, const std::string& block,
                                       const std::vector<int32_t>& classes) {
    const NoGrad no_grad;
    Attribution mean = all[0](images, block, classes);
    Tensor total = scaled_to_one(mean.map.value());
    for (size_t i = 1; i < all.size(); ++i)
      total = total + Tensor(scaled_to_one(all[i](images, block, mean.classes).map.value()));
    mean.map = total / static_cast<double>(all.size());
    return mean;
  };
}

Array attribution_map(Model& model, const Array& images) {
  const Evaluation evaluation(model);
  return scaled_to_one(attribute(model, images, model.head()).map.value());
}

Array scaled_to_one(const Array& maps) {
  std::vector<double> values = maps.to_vector();
  const int64_t n = maps.dim(0), pixels = n ? maps.size() / n : 0;
  for (int64_t i = 0; i < n && pixels > 0; ++i) {
    const auto first = values.begin() + i * pixels;
    const double largest = *std::max_element(first, first + pixels);
    std::for_each(first, first + pixels, [&](double& v) { v = largest > 0 ? v / largest : 0; });
  }
  return cast(Array::of(values, maps.shape()), maps.dtype());
}

}  // namespace stairgrad::nn
