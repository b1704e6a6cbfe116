#include "batch_norm_statistics.h"

#include "../autograd/recorder.h"
#include "layers.h"

namespace stairgrad::nn {

void reestimate_batch_norms(Model& model, const std::function<Array()>& next) {
  struct Norm {
    BatchNorm2d* layer;
    double momentum;
  };
  std::vector<Norm> norms;
  const Evaluation restored(model);  // dropout and quantizers stay as in evaluation
  for (const NamedModule& m : model.modules())
    if (auto* norm = dynamic_cast<BatchNorm2d*>(m.module)) {
      norms.push_back({norm, norm->momentum});
      norm->train();
    }
  const NoGrad no_grad;
  int64_t batches = 0;
  for (Array images = next(); images.has_value() && images.size() > 0; images = next()) {
    ++batches;
    for (const Norm& norm : norms) norm.layer->momentum = 1 / static_cast<double>(batches);
    model(images);
  }
  for (const Norm& norm : norms) norm.layer->momentum = norm.momentum;
}

}  // namespace stairgrad::nn
