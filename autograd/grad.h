// Differentiation of what was recorded.
#pragma once

#include <functional>
#include <optional>

#include "tensor.h"

namespace stairgrad {

struct GradOptions {
  /// Record the gradients themselves, so that they can be differentiated again.
  bool create_graph = false;
  /// Keep the record for another walk; by default as create_graph.
  std::optional<bool> retain_graph = {};
  /// Cotangents of the outputs; by default ones, which needs scalar outputs.
  Tensors grad_outputs = {};
  /// Inputs that no output depends on get zeros instead of an error.
  bool allow_unused = false;
};

/// Vector-Jacobian products: the gradient of sum_k <grad_outputs[k], outputs[k]> with respect to each input,
/// which may be leaves or intermediate tensors. Values that the record saved are released as the walk uses
/// them; a second walk over a released record throws, naming op and option.
Tensors grad(const Tensors& outputs, const Tensors& inputs, const GradOptions& options = {});
inline Tensor grad(const Tensor& output, const Tensor& input, const GradOptions& options = {}) {
  return grad(Tensors{output}, Tensors{input}, options)[0];
}

using TensorFunction = std::function<Tensor(const Tensors&)>;

/// Largest difference between grad() and central differences of `function` at f64 `inputs`, relative to
/// the largest derivative of that input: both contracted with a fixed random cotangent. `order` 2 checks the
/// derivatives of the vjp, with respect to the inputs and to the cotangent.
struct GradcheckResult {
  double error = 0;
  std::string worst;  ///< "input 1, element 7: 0.25 by grad, 0.26 by differences"
};
GradcheckResult gradcheck(const TensorFunction& function, const Tensors& inputs, int order = 1,
                          double step = 0);

}  // namespace stairgrad
