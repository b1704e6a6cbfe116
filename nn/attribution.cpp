#include "attribution.h"

#include <algorithm>

#include "../autograd/grad.h"
#include "../autograd/ops.h"
#include "../kernels/movement.h"

namespace stairgrad::nn {

Tensor grad_cam(const Tensor& features, const Tensor& logits, const std::vector<int32_t>& classes,
                bool create_graph) {
  check(features.rank() == 4 && logits.rank() == 2 && features.dim(0) == logits.dim(0) &&
            static_cast<int64_t>(classes.size()) == logits.dim(0),
        "[grad_cam] got features ", features.shape(), ", logits ", logits.shape(), " and ", classes.size(),
        " classes, expected (n,h,w,c), (n,classes) and n");
  const Tensor chosen = kernels::one_hot(Array::of(classes), logits.dim(1), logits.dtype());
  const Tensor slope = grad(sum(logits * chosen), features, {.create_graph = create_graph});
  const Tensor weights = sum(slope, {1, 2}, /*keep_axes=*/true);
  return relu(sum(features * weights, {-1}));
}

Array attribution_map(Model& model, const Array& images) {
  const Evaluation evaluation(model);
  Tensor features;
  {
    const NoGrad no_grad;
    features = model.forward(images, 0, model.head());
  }
  const RecordingScope tape(Recording::tape);
  features = Tensor::leaf(cast(features.value(), DType::f32));
  const Tensor logits = model.forward(features, model.head(), model.blocks().size());
  const Array top = kernels::argmax(logits.value());
  const std::vector<int32_t> classes(top.data<int32_t>(), top.data<int32_t>() + top.size());
  Array map = grad_cam(features, logits, classes).value();
  const int64_t n = map.dim(0), pixels = n ? map.size() / n : 0;
  for (int64_t i = 0; i < n; ++i) {
    float* row = map.data<float>() + i * pixels;
    const float largest = *std::max_element(row, row + pixels);
    if (largest > 0)
      for (int64_t p = 0; p < pixels; ++p) row[p] /= largest;
  }
  return map;
}

}  // namespace stairgrad::nn
