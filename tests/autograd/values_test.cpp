// Values that are known from elsewhere: the laws tie gradients to values, these tie values to their formulas.
#include <doctest/doctest.h>

#include <functional>

#include "../../autograd/ops.h"
#include "common.h"

using namespace stairgrad;

namespace {

using Values = std::vector<double>;

void check_values(const Tensor& got, const Shape& shape, const Values& expected) {
  CHECK(got.shape() == shape);
  const Values values = got.value().to_vector();
  REQUIRE(values.size() == expected.size());
  for (size_t i = 0; i < values.size(); ++i) CHECK(values[i] == doctest::Approx(expected[i]).epsilon(1e-12));
}

Tensor of(const Values& values, const Shape& shape) { return Array::of(values, shape); }
Tensor of(const Values& values) { return Array::of(values); }

}  // namespace

TEST_CASE("values: elementwise functions") {
  const Values at = {-7, -3, -1.3, -0.5, 0, 0.25, 0.5, 1.5, 2.5, 3, 6, 8};
  const auto check = [&](Tensor (*op)(const Tensor&), double (*expected)(double)) {
    Values values;
    for (const double v : at) values.push_back(expected(v));
    check_values(op(of(at)), {static_cast<int64_t>(at.size())}, values);
  };
  check(neg, [](double v) { return -v; });
  check(stairgrad::exp, [](double v) { return std::exp(v); });
  check(square, [](double v) { return v * v; });
  check(stairgrad::abs, [](double v) { return std::abs(v); });
  check(sign, [](double v) { return v > 0 ? 1.0 : v < 0 ? -1.0 : 0.0; });
  check(stairgrad::tanh, [](double v) { return std::tanh(v); });
  check(sigmoid, [](double v) { return 1 / (1 + std::exp(-v)); });
  check(softplus, [](double v) { return std::log1p(std::exp(v)); });
  check(relu, [](double v) { return v > 0 ? v : 0; });
  check(relu6, [](double v) { return v < 0 ? 0 : v > 6 ? 6 : v; });
  check(silu, [](double v) { return v / (1 + std::exp(-v)); });
  check(hardswish, [](double v) { return v <= -3 ? 0 : v >= 3 ? v : v * (v + 3) / 6; });
  check(stairgrad::floor, [](double v) { return std::floor(v); });
  check(stairgrad::round, [](double v) { return std::nearbyint(v); });
  check(round_ste, [](double v) { return std::nearbyint(v); });
  check(floor_ste, [](double v) { return std::floor(v); });
  const Tensor x = of({-2, -0.5, 0.5, 4});
  check_values(leaky_relu(x, 0.1), {4}, {-0.2, -0.05, 0.5, 4});
  check_values(hardtanh(x), {4}, {-1, -0.5, 0.5, 1});
  check_values(clamp(x, -1, 3), {4}, {-1, -0.5, 0.5, 3});
  check_values(affine(x, 2, 1), {4}, {-3, 0, 2, 9});
  check_values(pow(x, 2.0), {4}, {4, 0.25, 0.25, 16});
  check_values(rsqrt(of({4, 0.25})), {2}, {0.5, 2});
  check_values(sqrt(of({4, 0.25})), {2}, {2, 0.5});
  check_values(log(of({1, std::exp(2.0)})), {2}, {0, 2});
  check_values(pow(of({2, 4}), of({3, -0.5})), {2}, {8, 0.5});
}

TEST_CASE("values: reductions") {
  const Tensor x = of({1, 2, 3, 4, 5, 9}, {2, 3});
  check_values(sum(x), {}, {24});
  check_values(mean(x, {0}), {3}, {2.5, 3.5, 6});
  check_values(mean(x, {1}, true), {2, 1}, {2, 6});
  check_values(var(x, {1}), {2}, {2.0 / 3, 14.0 / 3});
  check_values(var(x, {-1}, true, 1), {2, 1}, {1, 7});
  check_values(max(x, {0}), {3}, {4, 5, 9});
  check_values(min(x, {0, 1}, true), {1, 1}, {1});
  check_values(argmax(x, 0), {3}, {1, 1, 1});
  check_values(logsumexp(of({1000, 1000})), {}, {1000 + std::log(2.0)});
  check_values(softmax(of({0, std::log(3.0)})), {2}, {0.25, 0.75});
  check_values(softmax(of({0, 1, std::log(3.0), 1}, {2, 2}), {0}), {2, 2}, {0.25, 0.5, 0.75, 0.5});
  check_values(log_softmax(of({0, std::log(3.0)})), {2}, {std::log(0.25), std::log(0.75)});
  check_values(softmax(of({-1e4, 1e4})), {2}, {0, 1});
}

TEST_CASE("values: movement") {
  const Tensor x = of({1, 2, 3, 4, 5, 6}, {2, 3});
  check_values(transpose(x, {1, 0}), {3, 2}, {1, 4, 2, 5, 3, 6});
  check_values(concat({x, of({7, 8}, {2, 1})}, 1), {2, 4}, {1, 2, 3, 7, 4, 5, 6, 8});
  check_values(slice(x, {{1, 2, 1}, {0, 3, 2}}), {1, 2}, {4, 6});
  check_values(pad(x, {1, 0}, {0, 1}, 9), {3, 4}, {9, 9, 9, 9, 1, 2, 3, 9, 4, 5, 6, 9});
  check_values(gather(x, Array::of<int32_t>({2, 0}, {2, 1})), {2, 1}, {3, 4});
  check_values(scatter_add(of({1, 2}, {1, 2}), Array::of<int32_t>({1, 1}, {1, 2}), 3), {1, 3}, {0, 3, 0});
  check_values(index_select(x, 1, Array::of<int32_t>({2, 2})), {2, 2}, {3, 3, 6, 6});
  check_values(index_add(x, 0, Array::of<int32_t>({1, 1}), 2), {2, 3}, {0, 0, 0, 5, 7, 9});
  check_values(one_hot(Array::of<int32_t>({1, 0}), 3), {2, 3}, {0, 1, 0, 1, 0, 0});
  check_values(sort(of({3, 1, 2}), true).values, {3}, {3, 2, 1});
  check_values(sort(of({3, 1, 2})).index, {3}, {1, 2, 0});
  check_values(top_k(of({3, 1, 2}), 2).values, {2}, {3, 2});
  check_values(broadcast_to(of({1, 2}, {2, 1}), {2, 2}), {2, 2}, {1, 1, 2, 2});
  check_values(where(of({1, 0, -2}), of({5}), of({1, 2, 3})), {3}, {5, 2, 5});
  check_values(minimum(of({1, 5}), of({3})), {2}, {1, 3});
  check_values(maximum(of({1, 5}), of({3})), {2}, {3, 5});
  CHECK(reshape(x, {6}).value().shares_memory_with(x.value()));
}

TEST_CASE("values: products") {
  const Tensor a = of({1, 2, 3, 4}, {2, 2}), b = of({5, 6, 7, 8}, {2, 2});
  check_values(matmul(a, b), {2, 2}, {19, 22, 43, 50});
  check_values(matmul(a, b, true), {2, 2}, {26, 30, 38, 44});
  check_values(matmul(a, b, false, true), {2, 2}, {17, 23, 39, 53});
  check_values(matmul(a, b, true, true), {2, 2}, {23, 31, 34, 46});
  check_values(linear(a, b, of({100, 200})), {2, 2}, {117, 223, 139, 253});
}

TEST_CASE("values: pooling and resizing") {
  const Tensor x = of({1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 3, 3, 1});
  check_values(max_pool2d(x, Pool2dOptions::with(2, 1)), {1, 2, 2, 1}, {5, 6, 8, 9});
  check_values(avg_pool2d(x, Pool2dOptions::with(2, 1)), {1, 2, 2, 1}, {3, 4, 6, 7});
  check_values(avg_pool2d(x, Pool2dOptions::with(2, 2, 1)), {1, 2, 2, 1}, {0.25, 1.25, 2.75, 7});
  check_values(avg_pool2d(x, {{2, 2}, {2, 2}, {1, 1}, false}), {1, 2, 2, 1}, {1, 2.5, 5.5, 7});
  check_values(global_avg_pool(x), {1, 1, 1, 1}, {5});
  check_values(adaptive_avg_pool2d(x, 2, 2), {1, 2, 2, 1}, {3, 4, 6, 7});
  check_values(adaptive_avg_pool2d(x, 1, 3), {1, 1, 3, 1}, {4, 5, 6});
  check_values(resize_nearest(x, 2, 4), {1, 2, 4, 1}, {1, 1, 2, 3, 4, 4, 5, 6});
  const Tensor line = of({0, 1}, {1, 1, 2, 1});
  check_values(resize_bilinear(line, 1, 4), {1, 1, 4, 1}, {0, 0.25, 0.75, 1});
  check_values(resize_bilinear(of({0, 1, 2, 3}, {1, 1, 4, 1}), 1, 2), {1, 1, 2, 1}, {0.5, 2.5});
}

TEST_CASE("values: batch norm") {
  const Tensor x = of({1, 10, 3, 30}, {2, 2}), gamma = of({2, 1}), beta = of({0, 5}),
               skip = of({1, -9, 0, 0}, {2, 2});
  const BatchNormResult train = batch_norm_train(x, gamma, beta, {0, true}, skip);
  check_values(train.mean, {2}, {2, 20});
  check_values(train.var, {2}, {1, 100});
  check_values(train.y, {2, 2}, {0, 0, 2, 6});
  check_values(batch_norm_eval(x, gamma, beta, of({1, 10}), of({3, 99}), {1, false}), {2, 2}, {0, 5, 2, 7});
}

TEST_CASE("values: losses") {
  const Tensor logits = of({0, std::log(3.0), 0, 0}, {2, 2});
  const Array labels = Array::of<int32_t>({1, 0});
  const double l0 = -std::log(0.75), l1 = std::log(2.0);
  check_values(cross_entropy(logits, labels), {}, {(l0 + l1) / 2});
  const double smooth = 0.9 * l0 + 0.1 * (l0 - std::log(0.25)) / 2;
  check_values(cross_entropy(logits, labels, 0.1), {}, {(smooth + l1) / 2});
  check_values(soft_cross_entropy(logits, of({0, 1, 1, 0}, {2, 2})), {}, {(l0 + l1) / 2});
  // p = (1/2, 1/2) against q = (1/4, 3/4), softened by 2: logits of q are 0 and 2 log 3.
  const Tensor student = of({0, 2 * std::log(3.0)}, {1, 2}), teacher = of({1, 1}, {1, 2});
  const double kl = 0.5 * std::log(0.5 / 0.25) + 0.5 * std::log(0.5 / 0.75);
  check_values(kl_divergence(student, teacher, 2), {}, {4 * kl});
  check_values(mse(of({1, 2}), of({3, 5})), {}, {6.5});
  check_values(l2_normalise(of({3, 4})), {2}, {0.6, 0.8});
  check_values(cosine_similarity(of({3, 4, 0, 1}, {2, 2}), of({4, 3, 1, 0}, {2, 2})), {2}, {0.96, 0});
  const Tensor zero = Tensor::leaf(Array::zeros({2}, DType::f64));
  CHECK(std::isfinite(grad(sum(l2_normalise(zero)), zero).value().to_vector()[0]));
}

TEST_CASE("values: dropout and Gumbel softmax are functions of their key") {
  const Tensor x = Array::full({10000}, 1);
  const Tensor y = dropout(x, 0.3, Philox(1, 2));
  CHECK(y.value().to_vector() == dropout(x, 0.3, Philox(1, 2)).value().to_vector());
  CHECK(y.value().to_vector() != dropout(x, 0.3, Philox(1, 3)).value().to_vector());
  CHECK(mean(y).item() == doctest::Approx(1).epsilon(0.03));
  for (const double v : y.value().to_vector()) CHECK((v == 0 || v == doctest::Approx(1 / 0.7)));
  CHECK(dropout(x, 0, Philox(1)).value().shares_memory_with(x.value()));

  // P(argmax = 1) is softmax(logits)[1] = 3 / 4.
  const Tensor logits = broadcast_to(of({0, std::log(3.0)}), {4000, 2});
  const Tensor hard = gumbel_softmax(logits, 0.5, Philox(3), true);
  check_values(sum(hard, {1}), {4000}, Values(4000, 1));
  CHECK(mean(hard, {0}).value().to_vector()[1] == doctest::Approx(0.75).epsilon(0.05));
}
