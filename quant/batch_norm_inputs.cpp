#include "batch_norm_inputs.h"

namespace stairgrad::quant {

BatchNormInputs::BatchNormInputs(nn::Model& model) {
  for (const nn::NamedModule& m : model.modules())
    if (auto* norm = dynamic_cast<nn::BatchNorm2d*>(m.module)) {
      norms_.push_back(norm);
      norm->watch = [this, norm](const Tensor& x) { seen_.push_back({norm, x}); };
    }
}

BatchNormInputs::~BatchNormInputs() {
  for (nn::BatchNorm2d* norm : norms_) norm->watch = nullptr;
}

}  // namespace stairgrad::quant
