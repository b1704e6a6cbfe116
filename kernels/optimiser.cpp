#include "optimiser.h"

#include <cmath>

#include "simd/simd.h"
#include "threads.h"

namespace stairgrad::kernels {
namespace {

constexpr int64_t grain = 1 << 15;  // elements of a piece of parallel work

void check_like(const char* what, const char* name, const Array& array, const Array& w) {
  check(array.shape() == w.shape() && array.dtype() == DType::f32, "[", what, "] ", name, ": got ",
        name_of(array.dtype()), array.shape(), ", expected f32", w.shape(), " because that is w");
}

}  // namespace

void sgd_step(Array& w, Array& v, const Array& gradient, double lr, double momentum, double weight_decay,
              bool nesterov) {
  check_like("sgd_step", "w", w, w);
  check_like("sgd_step", "v", v, w);
  check_like("sgd_step", "gradient", gradient, w);
  float *pw = w.data<float>(), *pv = v.data<float>();
  const float* pg = gradient.data<float>();
  parallel_for(w.size(), grain, [=](int64_t begin, int64_t end) {
    simd::table().optimiser.sgd(pw + begin, pv + begin, pg + begin, end - begin, static_cast<float>(lr),
                                static_cast<float>(momentum), static_cast<float>(weight_decay), nesterov);
  });
  w.bump_version();
  v.bump_version();
}

void adamw_step(Array& w, Array& m, Array& v, const Array& gradient, double lr, double beta1, double beta2,
                double eps, double weight_decay, int64_t step) {
  check_like("adamw_step", "w", w, w);
  check_like("adamw_step", "m", m, w);
  check_like("adamw_step", "v", v, w);
  check_like("adamw_step", "gradient", gradient, w);
  check(step >= 1, "[adamw_step] got step ", step, "; steps count from 1");
  const auto steps = static_cast<double>(step);
  const simd::AdamW options = {.beta1 = static_cast<float>(beta1),
                               .rate1 = static_cast<float>(1 - beta1),
                               .beta2 = static_cast<float>(beta2),
                               .rate2 = static_cast<float>(1 - beta2),
                               .scale = static_cast<float>(1 / (1 - std::pow(beta2, steps))),
                               .eps = static_cast<float>(eps),
                               .step = static_cast<float>(lr / (1 - std::pow(beta1, steps))),
                               .decay = static_cast<float>(1 - lr * weight_decay)};
  float *pw = w.data<float>(), *pm = m.data<float>(), *pv = v.data<float>();
  const float* pg = gradient.data<float>();
  parallel_for(w.size(), grain, [=](int64_t begin, int64_t end) {
    simd::table().optimiser.adamw(pw + begin, pm + begin, pv + begin, pg + begin, end - begin, options);
  });
  w.bump_version();
  m.bump_version();
  v.bump_version();
}

}  // namespace stairgrad::kernels
