#include <stairgrad/stairgrad.h>

#include <iostream>

namespace sg = stairgrad;

int main() {
  const sg::Tensor x = sg::Tensor::leaf(sg::Array::of<float>({1, 2, 3}));
  const sg::Tensor y = sg::sum(x * x * x);
  const sg::Tensor slope = sg::grad(y, x, {.create_graph = true});  // 3 x^2, itself differentiable
  const sg::Tensor curvature = sg::grad(sg::sum(slope), x);         // 6 x
  std::cout << "y = " << y.item() << ", curvature =";
  for (const double c : curvature.value().to_vector()) std::cout << " " << c;
  std::cout << "\n";
}
