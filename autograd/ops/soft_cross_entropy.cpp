// Cross-entropy with target distributions: mean over rows of -sum(t log softmax(x)).
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {

Tensor soft_cross_entropy(const Tensor& logits, const Tensor& targets) {
  check(logits.rank() == 2 && logits.shape() == targets.shape(), "[soft_cross_entropy] got logits ",
        logits.shape(), " and targets ", targets.shape(), ", expected (n, classes) twice");
  return sum(targets * log_softmax(logits)) * (-1 / static_cast<double>(logits.dim(0)));
}

std::vector<Sample> soft_cross_entropy_samples() {
  return {{"(4,5)",
           [](const Tensors& t) { return soft_cross_entropy(t[0], t[1]); },
           {sample_tensor({4, 5}, 1), sample_positive({4, 5}, 2)}}};
}

}  // namespace stairgrad
