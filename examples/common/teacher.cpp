#include "teacher.h"

#include <algorithm>

#include "../../autograd/ops.h"
#include "../../autograd/recorder.h"
#include "../../nn/checkpoint.h"

namespace stairgrad::examples {

Teacher::Teacher(std::unique_ptr<nn::Model> network, const data::Normalisation& own,
                 const data::Normalisation& students)
    : network_(std::move(network)), converts_(own.mean != students.mean || own.std != students.std) {
  network_->eval();
  const auto of = [](const std::vector<double>& values, size_t c) {
    return values[values.size() == 1 ? 0 : c];
  };
  std::vector<float> factor, offset;
  const size_t channels =
      std::max({own.mean.size(), own.std.size(), students.mean.size(), students.std.size()});
  for (size_t c = 0; c < channels; ++c) {
    factor.push_back(static_cast<float>(of(students.std, c) / of(own.std, c)));
    offset.push_back(static_cast<float>((of(students.mean, c) - of(own.mean, c)) / of(own.std, c)));
  }
  factor_ = Array::of(factor);
  offset_ = Array::of(offset);
}

Teacher Teacher::load(const std::string& path, const data::Normalisation& students) {
  const nn::ModelInfo info = nn::read_model_info(path);
  const auto noted = info.notes.find("normalisation");
  return {nn::load_model(path),
          noted == info.notes.end() ? students : data::Normalisation::named(noted->second), students};
}

Tensor Teacher::own(const Tensor& images) const {
  if (!converts_) return images;
  const NoGrad no_grad;
  return cast(cast(images, DType::f32) * factor_ + offset_, images.dtype());
}

Tensor Teacher::operator()(const Tensor& images) const {
  const NoGrad no_grad;
  return cast((*network_)(own(images)), DType::f32);
}

nn::Attribution Teacher::explain(const Tensor& images, const std::string& block,
                                 const std::vector<int32_t>& classes) const {
  return nn::explainer_of(*network_)(own(images), block, classes);
}

Tensor distilled(const Tensor& loss, const Tensor& student, const Tensor& teacher, double share,
                 double temperature) {
  return loss * (1 - share) + kl_divergence(student, teacher, temperature) * share;  // which has T^2 in it
}

}  // namespace stairgrad::examples
