#include "kernels/optimiser.h"

#include "kernel_test.h"

using namespace stairgrad;

TEST_CASE("SGD with momentum, weight decay and Nesterov's step") {
  for_every_isa([] {
    for (const int64_t n : {0, 1, 15, 16, 100003}) {
      for (const bool nesterov : {false, true}) {
        Array w = sample({n}, DType::f32, 1), v = sample({n}, DType::f32, 2);
        const Array g = sample({n}, DType::f32, 3);
        std::vector<double> weights = w.to_vector(), velocity = v.to_vector();
        const std::vector<double> gradient = g.to_vector();
        for (size_t i = 0; i < weights.size(); ++i) {
          const double d = gradient[i] + 0.01 * weights[i];
          velocity[i] = 0.9 * velocity[i] + d;
          weights[i] -= 0.1 * (nesterov ? d + 0.9 * velocity[i] : velocity[i]);
        }
        kernels::sgd_step(w, v, g, 0.1, 0.9, 0.01, nesterov);
        check_close(w, weights, 4, 1);
        check_close(v, velocity, 4, 1);
      }
    }
  });
}

TEST_CASE("AdamW over several steps") {
  for_every_isa([] {
    Array w = sample({1001}, DType::f32, 1), m = Array::zeros({1001}), v = Array::zeros({1001});
    std::vector<double> weights = w.to_vector(), first(weights.size()), second(weights.size());
    for (int step = 1; step <= 5; ++step) {
      const Array g = sample({1001}, DType::f32, 10 + static_cast<uint64_t>(step));
      const std::vector<double> gradient = g.to_vector();
      for (size_t i = 0; i < weights.size(); ++i) {
        first[i] = 0.9 * first[i] + 0.1 * gradient[i];
        second[i] = 0.999 * second[i] + 0.001 * gradient[i] * gradient[i];
        const double mean = first[i] / (1 - std::pow(0.9, step)),
                     var = second[i] / (1 - std::pow(0.999, step));
        weights[i] -= 0.01 * (mean / (std::sqrt(var) + 1e-8) + 0.1 * weights[i]);
      }
      kernels::adamw_step(w, m, v, g, 0.01, 0.9, 0.999, 1e-8, 0.1, step);
    }
    check_close(w, weights, 8, 1);
    check_close(m, first, 8, 1);
    check_close(v, second, 64, 1e-3);
  });
}

TEST_CASE("an optimiser step marks what it changed") {
  Array w = sample({3}), v = sample({3}), m = sample({3});
  kernels::sgd_step(w, v, sample({3}), 0.1, 0.9, 0, false);
  CHECK(w.version() == 1);
  CHECK(v.version() == 1);
  kernels::adamw_step(w, m, v, sample({3}), 0.1, 0.9, 0.99, 1e-8, 0, 1);
  CHECK(w.version() == 2);
  CHECK(m.version() == 1);
}

TEST_CASE("optimisers refuse what does not fit") {
  Array w = sample({3}), v = sample({3}), m = sample({3}), wide = sample({3}, DType::f64);
  CHECK_THROWS_AS(kernels::sgd_step(w, v, sample({4}), 0.1, 0, 0, false), argument_error);
  CHECK_THROWS_AS(kernels::sgd_step(w, v, sample({3}, DType::bf16), 0.1, 0, 0, false), argument_error);
  CHECK_THROWS_AS(kernels::sgd_step(wide, v, sample({3}), 0.1, 0, 0, false), argument_error);
  CHECK_THROWS_AS(kernels::adamw_step(w, m, v, sample({3}), 0.1, 0.9, 0.99, 1e-8, 0, 0), argument_error);
}
