#include "gemm.h"

#include <cblas.h>

#include <algorithm>
#include <limits>

#include "threads.h"

namespace stairgrad::kernels {
namespace {

/// One product of row-major matrices: c (m, n) = op(a) * op(b), inner extent k; rows begin every lda, ldb and
/// ldc elements.
struct Product {
  blasint m, n, k;
  CBLAS_TRANSPOSE transpose_a, transpose_b;
  blasint lda, ldb, ldc;

  int64_t work() const { return int64_t{m} * n * k; }

  void run(const float* a, const float* b, float* c) const {
    cblas_sgemm(CblasRowMajor, transpose_a, transpose_b, m, n, k, 1, a, lda, b, ldb, 0, c, ldc);
  }
  void run(const double* a, const double* b, double* c) const {
    cblas_dgemm(CblasRowMajor, transpose_a, transpose_b, m, n, k, 1, a, lda, b, ldb, 0, c, ldc);
  }
};

// OpenBLAS uses one thread below this many multiplications.
constexpr int64_t worth_threads = 1 << 18;

/// A product worth several threads, in pieces of rows or columns that depend on its extents alone. How
/// OpenBLAS would split it, and on some CPUs the last bits with it, depends on the number of threads; called
/// from inside a parallel region it uses one.
template <class T>
void run_large(const Product& whole, const T* a, const T* b, T* c) {
  const bool by_rows = whole.m >= whole.n;
  const int64_t extent = by_rows ? whole.m : whole.n;
  const int64_t pieces = std::min(extent, std::clamp<int64_t>(extent / 256, 2, 64));
  const auto first = [&](int64_t piece) { return piece * extent / pieces; };
  parallel_for(pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t at = first(piece);
      Product part = whole;
      (by_rows ? part.m : part.n) = static_cast<blasint>(first(piece + 1) - at);
      if (by_rows)
        part.run(a + (whole.transpose_a == CblasTrans ? at : at * whole.lda), b, c + at * whole.ldc);
      else
        part.run(a, b + (whole.transpose_b == CblasTrans ? at * whole.ldb : at), c + at);
    }
  });
}

template <class T>
void run_batch(const Product& product, int64_t batch, const T* a, const T* b, T* c) {
  const int64_t size_a = int64_t{product.m} * product.k, size_b = int64_t{product.k} * product.n,
                size_c = int64_t{product.m} * product.n;
  if (product.work() >= worth_threads) {
    for (int64_t i = 0; i < batch; ++i) run_large(product, a + i * size_a, b + i * size_b, c + i * size_c);
    return;
  }
  parallel_for(batch, worth_threads / std::max<int64_t>(product.work(), 1), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) product.run(a + i * size_a, b + i * size_b, c + i * size_c);
  });
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
  const auto leading = [](int64_t extent) { return static_cast<blasint>(std::max<int64_t>(extent, 1)); };
  const Product product{static_cast<blasint>(rows),
                        static_cast<blasint>(n),
                        static_cast<blasint>(k),
                        transpose_a ? CblasTrans : CblasNoTrans,
                        transpose_b ? CblasTrans : CblasNoTrans,
                        leading(transpose_a ? rows : k),
                        leading(transpose_b ? k : n),
                        leading(n)};
  const int64_t products = shared_b ? 1 : batch;
  if (a.dtype() == DType::f64)
    run_batch(product, products, a.data<double>(), b.data<double>(), c.data<double>());
  else
    run_batch(product, products, a.data<float>(), b.data<float>(), c.data<float>());
  return c;
}

}  // namespace stairgrad::kernels
