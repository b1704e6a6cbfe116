#include "gemm.h"

#include <cblas.h>

#include <limits>

#include "threads.h"

namespace stairgrad::kernels {
namespace {

/// One product of row-major matrices: c (m, n) = op(a) * op(b), inner extent k.
struct Product {
  blasint m, n, k;
  CBLAS_TRANSPOSE transpose_a, transpose_b;

  int64_t work() const { return int64_t{m} * n * k; }
  blasint row_a() const { return std::max(transpose_a == CblasTrans ? m : k, blasint{1}); }
  blasint row_b() const { return std::max(transpose_b == CblasTrans ? k : n, blasint{1}); }

  void run(const float* a, const float* b, float* c) const {
    cblas_sgemm(CblasRowMajor, transpose_a, transpose_b, m, n, k, 1, a, row_a(), b, row_b(), 0, c, n);
  }
  void run(const double* a, const double* b, double* c) const {
    cblas_dgemm(CblasRowMajor, transpose_a, transpose_b, m, n, k, 1, a, row_a(), b, row_b(), 0, c, n);
  }
};

template <class T>
void run_batch(const Product& product, int64_t batch, const T* a, const T* b, T* c) {
  const int64_t size_a = int64_t{product.m} * product.k, size_b = int64_t{product.k} * product.n,
                size_c = int64_t{product.m} * product.n;
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) product.run(a + i * size_a, b + i * size_b, c + i * size_c);
  };
  // A product below this many multiplications runs in one thread of OpenBLAS anyway: side by side instead.
  constexpr int64_t worth_threads = 1 << 18;
  if (product.work() >= worth_threads) return run(0, batch);
  parallel_for(batch, worth_threads / std::max<int64_t>(product.work(), 1), run);
}

}  // namespace

Array matmul(const Array& a, const Array& b, bool transpose_a, bool transpose_b) {
  check(a.rank() >= 2 && b.rank() >= 2, "[matmul] got ", a.shape(), " * ", b.shape(),
        ", expected at least two axes each; use reshape to make a vector a matrix");
  check(a.dtype() == b.dtype() && is_floating(a.dtype()), "[matmul] got ", name_of(a.dtype()), " * ",
        name_of(b.dtype()), ", expected one floating type; convert with cast");
  const bool shared_b = b.rank() == 2 && a.rank() > 2;
  check(!shared_b || !transpose_a, "[matmul] got ", a.shape(), " transposed * ", b.shape(),
        ", expected equal leading axes; one b for all of them goes with a as it stands");
  check(
      shared_b || std::equal(a.shape().begin(), a.shape().end() - 2, b.shape().begin(), b.shape().end() - 2),
      "[matmul] got ", a.shape(), " * ", b.shape(), ", expected equal leading axes or b of rank 2");
  const int64_t m = a.dim(transpose_a ? -1 : -2), k = a.dim(transpose_a ? -2 : -1);
  const int64_t inner = b.dim(transpose_b ? -1 : -2), n = b.dim(transpose_b ? -2 : -1);
  check(k == inner, "[matmul] got ", a.shape(), transpose_a ? " transposed" : "", " * ", b.shape(),
        transpose_b ? " transposed" : "", ": inner extents ", k, " and ", inner, ", expected them equal");
  if (a.dtype() == DType::bf16)
    return cast(matmul(cast(a, DType::f32), cast(b, DType::f32), transpose_a, transpose_b), DType::bf16);

  Shape shape = a.shape();
  shape[-2] = m;
  shape[-1] = n;
  if (shape.size() == 0 || k == 0) return Array::zeros(shape, a.dtype());
  Array c(shape, a.dtype());
  const int64_t batch = shape.size() / (m * n), rows = shared_b ? batch * m : m;
  constexpr int64_t most = std::numeric_limits<blasint>::max();
  check(rows <= most && n <= most && k <= most, "[matmul] got ", a.shape(), " * ", b.shape(),
        ", expected extents below ", most, ", the limit of this OpenBLAS; split the batch with slice");
  const Product product{static_cast<blasint>(rows), static_cast<blasint>(n), static_cast<blasint>(k),
                        transpose_a ? CblasTrans : CblasNoTrans, transpose_b ? CblasTrans : CblasNoTrans};
  const int64_t products = shared_b ? 1 : batch;
  if (a.dtype() == DType::f64)
    run_batch(product, products, a.data<double>(), b.data<double>(), c.data<double>());
  else
    run_batch(product, products, a.data<float>(), b.data<float>(), c.data<float>());
  return c;
}

}  // namespace stairgrad::kernels
