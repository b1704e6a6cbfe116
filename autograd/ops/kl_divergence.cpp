// Distillation: mean over rows of T^2 sum(p (log p - log q)) with p of the teacher and q of the student, both
// softened by T.
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {

Tensor kl_divergence(const Tensor& student, const Tensor& teacher, double temperature) {
  check(student.rank() == 2 && student.shape() == teacher.shape(), "[kl_divergence] got student ",
        student.shape(), " and teacher ", teacher.shape(), ", expected (n, classes) twice");
  check(temperature > 0, "[kl_divergence] got the temperature ", temperature, ", expected it above 0");
  const Tensor log_q = log_softmax(student / temperature), log_p = log_softmax(teacher / temperature);
  const double scale = temperature * temperature / static_cast<double>(student.dim(0));
  return sum(exp(log_p) * (log_p - log_q)) * scale;
}

std::vector<Sample> kl_divergence_samples() {
  const Tensors in = {sample_tensor({4, 5}, 1), sample_tensor({4, 5}, 2)};
  return {{"(4,5) T 1", [](const Tensors& t) { return kl_divergence(t[0], t[1]); }, in},
          {"(4,5) T 3", [](const Tensors& t) { return kl_divergence(t[0], t[1], 3); }, in}};
}

}  // namespace stairgrad
