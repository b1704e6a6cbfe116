// y = op(a) op(b), op transposing or not. vjp: for y = a b it is (u b^T, a^T u); a transposed factor's
// gradient is transposed, which changes the order of its product. Where b is one matrix for a batch, its
// gradient is the product over all rows.
#include "../../kernels/gemm.h"
#include "../op_table.h"
#include "../ops.h"

namespace stairgrad {
namespace {

Tensor as_matrix(const Tensor& x) {
  return reshape(x, {x.size() / std::max<int64_t>(1, x.shape().back()), x.shape().back()});
}

struct Matmul final : Op {
  bool transpose_a, transpose_b;

  Matmul(bool transpose_a, bool transpose_b) : transpose_a(transpose_a), transpose_b(transpose_b) {}
  std::string_view name() const override { return "matmul"; }
  Arrays forward(const Arrays& in) const override {
    return {kernels::matmul(in[0], in[1], transpose_a, transpose_b)};
  }
  Tensors vjp(const Vjp& v) const override {
    const Tensor u = v.grad(), &a = v.input(0), &b = v.input(1);
    return {v.needs(0) ? gradient_a(u, b) : Tensor(), v.needs(1) ? gradient_b(u, a, b.rank()) : Tensor()};
  }
  Saved saved() const override { return {.inputs = {0, 1}}; }

 private:
  Tensor gradient_a(const Tensor& u, const Tensor& b) const {
    return transpose_a ? matmul(b, u, transpose_b, true) : matmul(u, b, false, !transpose_b);
  }
  Tensor gradient_b(const Tensor& u, const Tensor& a, int rank_b) const {
    if (rank_b == 2 && a.rank() > 2) {
      const Tensor rows = as_matrix(a), u_rows = as_matrix(u);
      return transpose_b ? matmul(u_rows, rows, true, false) : matmul(rows, u_rows, true, false);
    }
    return transpose_b ? matmul(u, a, true, transpose_a) : matmul(a, u, !transpose_a, false);
  }
};

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b, bool transpose_a, bool transpose_b) {
  const auto fits = [&] {
    if (a.rank() < 2 || b.rank() < 2) return false;
    if (b.rank() == 2 ? a.rank() > 2 && transpose_a : a.rank() != b.rank()) return false;
    for (int i = 0; b.rank() > 2 && i < b.rank() - 2; ++i)
      if (a.dim(i) != b.dim(i)) return false;
    return a.dim(transpose_a ? -2 : -1) == b.dim(transpose_b ? -1 : -2);
  };
  check(
      fits(), "[matmul] got ", a.shape(), transpose_a ? " transposed" : "", " times ", b.shape(),
      transpose_b ? " transposed" : "",
      "; the inner extents must agree, and the leading ones too unless b has rank 2 and a is not transposed");
  return apply_op(Matmul{transpose_a, transpose_b}, {a, b});
}

std::vector<Sample> matmul_samples() {
  std::vector<Sample> samples;
  for (const bool ta : {false, true})
    for (const bool tb : {false, true}) {
      const auto f = [ta, tb](const Tensors& t) { return matmul(t[0], t[1], ta, tb); };
      const Shape a = ta ? Shape{4, 3} : Shape{3, 4}, b = tb ? Shape{5, 4} : Shape{4, 5};
      const Shape batch_a{2, a[0], a[1]}, batch_b{2, b[0], b[1]};
      samples.push_back(
          {text(a, ta ? "^T " : " ", b, tb ? "^T" : ""), f, {sample_tensor(a, 1), sample_tensor(b, 2)}});
      samples.push_back({text(batch_a, ta ? "^T " : " ", batch_b, tb ? "^T" : ""),
                         f,
                         {sample_tensor(batch_a, 1), sample_tensor(batch_b, 2)}});
      if (!ta)
        samples.push_back(
            {text(batch_a, " ", b, tb ? "^T" : ""), f, {sample_tensor(batch_a, 1), sample_tensor(b, 2)}});
    }
  const auto f = [](const Tensors& t) { return matmul(t[0], t[1]); };
  samples.push_back({"(1,1) (1,1)", f, {sample_tensor({1, 1}, 1), sample_tensor({1, 1}, 2)}});
  samples.push_back({"(0,3) (3,2)", f, {sample_tensor({0, 3}, 1), sample_tensor({3, 2}, 2)}});
  return samples;
}

}  // namespace stairgrad
