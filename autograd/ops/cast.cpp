// y = x in another floating type. vjp: u in the type of x.
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

struct Cast final : Op {
  DType dtype;

  explicit Cast(DType dtype) : dtype(dtype) {}
  std::string_view name() const override { return "cast"; }
  Arrays forward(const Arrays& in) const override { return {stairgrad::cast(in[0], dtype)}; }
  Tensors vjp(const Vjp& v) const override { return {cast(v.grad(), v.input_dtype(0))}; }
};

}  // namespace

Tensor cast(const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  return apply_op(Cast{dtype}, {x});
}

std::vector<Sample> cast_samples() {
  // Differences need f64, so each sample ends in the type it came in; the tests look at cast by itself too.
  return {{"(3,4) to f64",
           [](const Tensors& t) { return cast(square(cast(t[0], DType::f64)), t[0].dtype()); },
           {sample_tensor({3, 4})}}};
}

}  // namespace stairgrad
