// A network that another one learns from, by its logits (distillation) or by where it looks.
#pragma once

#include <memory>
#include <string>

#include "../../autograd/tensor.h"
#include "../../data/transforms.h"
#include "../../nn/attribution.h"
#include "../../nn/model.h"

namespace stairgrad::examples {

/// A trained network that says what it makes of the student's pictures, in evaluation mode.
class Teacher {
 public:
  /// It was trained on pictures normalised as `own`; it will get those of a student, normalised as
  /// `students`.
  Teacher(std::unique_ptr<nn::Model> network, const data::Normalisation& own,
          const data::Normalisation& students);
  /// Of a model file, which notes its normalisation; without the note it is the student's.
  static Teacher load(const std::string& path, const data::Normalisation& students);

  /// Its logits (n, classes), f32, for the student's images (n, h, w, c). Records nothing.
  Tensor operator()(const Tensor& images) const;
  /// Where it looks on these images: an nn::Explainer.
  nn::Attribution explain(const Tensor& images, const std::string& block,
                          const std::vector<int32_t>& classes) const;

 private:
  // The student's images as it knows pictures.
  Tensor own(const Tensor& images) const;

  std::unique_ptr<nn::Model> network_;
  bool converts_;
  Tensor factor_, offset_;  // of each channel, from the student's normalisation to its own
};

/// (1 - share) loss + share T^2 KL(softmax(teacher / T) || softmax(student / T)), the mean over the batch
/// (Hinton et al., 2015): T^2 keeps the gradient's size whatever T is. Logits (n, classes), f32.
Tensor distilled(const Tensor& loss, const Tensor& student, const Tensor& teacher, double share,
                 double temperature);

}  // namespace stairgrad::examples
