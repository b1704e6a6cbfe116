// softmax((x + g) / T) with Gumbel noise g, a constant of the key. Hard: its one-hot maximum in the forward,
// the soft gradient in the backward (straight-through).
#include <cmath>

#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {

Tensor gumbel_softmax(const Tensor& logits, double temperature, Philox rng, bool hard) {
  check(temperature > 0, "[gumbel_softmax] got the temperature ", temperature, ", expected it above 0");
  Array noise(logits.shape(), DType::f64);
  for (int64_t i = 0; i < noise.size(); ++i)
    noise.data<double>()[i] = -std::log(-std::log(rng.uniform(static_cast<uint64_t>(i)) + 0x1p-54));
  const Tensor soft = softmax((logits + Tensor(cast(noise, logits.dtype()))) / temperature);
  if (!hard) return soft;
  return stop_grad(one_hot(argmax(soft), soft.shape().back(), soft.dtype()) - soft) + soft;
}

std::vector<Sample> gumbel_softmax_samples() {
  Sample hard{"(3,4) T 0.7 hard",
              [](const Tensors& t) { return gumbel_softmax(t[0], 0.7, Philox(6), true); },
              {sample_tensor({3, 4})}};
  hard.smooth = false;
  return {{"(3,4) T 0.7",
           [](const Tensors& t) { return gumbel_softmax(t[0], 0.7, Philox(6)); },
           {sample_tensor({3, 4})}},
          hard};
}

}  // namespace stairgrad
