// CL-Calib's critics, masks and features: the conformance tests T11 to T13.
#include "../../quant/ptq/contrastive.h"

#include <doctest/doctest.h>

#include <cmath>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "settings.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace {

Array f64(const Shape& shape, uint64_t seed) { return random_normal(shape, Philox(seed), 1, DType::f64); }
Tensor matrix(const std::vector<double>& values, int64_t rows, DType type = DType::f64) {
  return cast(Array::of(values, {rows, static_cast<int64_t>(values.size()) / rows}), type);
}
Comparison others(int64_t n) {
  Comparison c{Array::full({n, n}, 1), Array({n, 1}, DType::s32)};
  for (int64_t i = 0; i < n; ++i) {
    c.weights.data<float>()[i * n + i] = 0;
    c.positive.data<int32_t>()[i] = static_cast<int32_t>(i);
  }
  return c;
}

}  // namespace

TEST_CASE("T11: the critics have their hand values") {
  const Tensor s = matrix({1, 0, 0, 1}, 2);
  ContrastiveOptions options{.temperature = 1};
  CHECK(contrastive_loss(s, others(2), options, 2).item() ==
        doctest::Approx(0.313262 + 0.693147).epsilon(1e-5));
  options.critic = Critic::C;
  CHECK(contrastive_loss(s, others(2), options, 2).item() == doctest::Approx(0.313262).epsilon(1e-5));
  options.critic = Critic::A;  // with N / M = 1 it is B, with a sum over the negatives
  CHECK(contrastive_loss(s, others(2), options, 1).item() ==
        doctest::Approx(0.313262 + 0.693147).epsilon(1e-5));
  const double k = 1 / 1024.0;
  const double h = std::exp(1) / (std::exp(1) + k), negative = 1 / (1 + k);
  CHECK(contrastive_loss(s, others(2), options, 1024).item() ==
        doctest::Approx(-std::log(h) - std::log(1 - negative)));
}

TEST_CASE("at the usual temperature, with masks and with weights, the critics have their hand values") {
  const auto value = [](const Tensor& s, const Comparison& c, Critic critic) {
    return contrastive_loss(s, c, {.critic = critic, .temperature = 0.1}, 4).item();
  };
  // s / tau = (5, 2; -1, 3). A: ln(1 + k e^-z) of a positive, ln(1 + e^z / k) of a negative, k = N / M = 1/4,
  // summed over the negatives. B: softplus(-5), softplus(-3); softplus(2), softplus(-1), means of both.
  // C: ln(1 + e^-3) and ln(1 + e^-4).
  const Tensor two = matrix({0.5, 0.2, -0.1, 0.3}, 2);
  CHECK(value(two, others(2), Critic::A) == doctest::Approx(2.169227).epsilon(1e-6));
  CHECK(value(two, others(2), Critic::B) == doctest::Approx(1.247746).epsilon(1e-6));
  CHECK(value(two, others(2), Critic::C) == doctest::Approx(0.033369).epsilon(1e-4));

  // Images 0 and 1 are the same. z = (6, *, 3; *, 5, -2; 1, 4, 7): four negatives are left, and
  // B is (0.002476 + 0.006715 + 0.000911) / 3 + (3.048587 + 0.126928 + 1.313262 + 4.018150) / 4: no mean over
  // the six that were there. A has N = 4/3; C has sums over what is left of each row.
  const Tensor three = matrix({0.6, 0.9, 0.3, 0.8, 0.5, -0.2, 0.1, 0.4, 0.7}, 3);
  const Comparison masked = compare_images({2, 2, 0}, {2, 2, 0}, {}, {}, {});
  CHECK(value(three, masked, Critic::A) == doctest::Approx(3.926060).epsilon(1e-6));
  CHECK(value(three, masked, Critic::B) == doctest::Approx(2.130099).epsilon(1e-6));
  CHECK(value(three, masked, Critic::C) == doctest::Approx(0.033482).epsilon(1e-4));

  // The float features of images 0 and 1 have the cosine 1/2, so that each is half a negative of the other:
  // half its term in A and B, N = 5/3 and 5 negatives in all, and half its exp(z) in C.
  const Array features = Array::of<float>({1, 0, 0, 0.5f, 0.8660254f, 0, 0, 0, 1}, {3, 3});
  const Comparison weighted = compare_images({0, 1, 2}, {0, 1, 2}, {.reweight = true}, features, {});
  CHECK(weighted.weights.to_vector() == std::vector<double>{0, 0.5, 1, 0.5, 0, 1, 1, 1, 0});
  CHECK(value(three, weighted, Critic::A) == doctest::Approx(6.819400).epsilon(1e-6));
  CHECK(value(three, weighted, Critic::B) == doctest::Approx(3.404799).epsilon(1e-6));
  CHECK(value(three, weighted, Critic::C) == doctest::Approx(1.619693).epsilon(1e-6));
}

TEST_CASE(
    "T12: order does not matter, a masked pair is no negative, one image and all temperatures are finite") {
  const Tensor u = f64({6, 10}, 1), v = normalised_features(Tensor(f64({6, 10}, 2)));
  const Array order = Array::of<int32_t>({3, 1, 5, 0, 2, 4});
  const Tensor s = matmul(normalised_features(u), v, false, true);
  const Tensor t = matmul(normalised_features(index_select(u, 0, Tensor(order))),
                          index_select(v, 0, Tensor(order)), false, true);
  for (const Critic critic : {Critic::A, Critic::B, Critic::C}) {
    CAPTURE(to_string(critic));
    ContrastiveOptions options{.critic = critic};
    CHECK(contrastive_loss(s, others(6), options, 100).item() ==
          doctest::Approx(contrastive_loss(t, others(6), options, 100).item()));
    CHECK(gradcheck(
              [&](const Tensors& in) {
                return contrastive_loss(matmul(normalised_features(in[0]), v, false, true), others(6),
                                        options, 100);
              },
              {u})
              .error < 1e-5);

    // Images 0 and 1 are the same: without that pair, the loss is that of the remaining similarities.
    const Comparison masked = compare_images({7, 7, 2, 3, 4, 5}, {7, 7, 2, 3, 4, 5}, options, {}, {});
    CHECK(masked.weights.to_vector()[1] == 0);
    CHECK(masked.weights.to_vector()[6] == 0);
    CHECK(masked.weights.to_vector()[2] == 1);
    Array changed = s.value().clone();
    changed.data<double>()[1] = changed.data<double>()[6] = 0.9;
    CHECK(contrastive_loss(Tensor(changed), masked, options, 100).item() ==
          doctest::Approx(contrastive_loss(s, masked, options, 100).item()));
    CHECK(contrastive_loss(Tensor(changed), others(6), options, 100).item() >
          contrastive_loss(s, masked, options, 100).item());

    for (const double tau : {0.01, 0.1, 1.0, 10.0}) {
      options.temperature = tau;
      const Tensor one = Tensor::leaf(Array::of<float>({0.3f}, {1, 1}));
      const Tensor alone = contrastive_loss(one, others(1), options, 10);
      CHECK(std::isfinite(alone.item()));
      if (critic == Critic::C) CHECK(alone.item() == doctest::Approx(0));
      const Tensor leaf = Tensor::leaf(cast(s.value(), DType::f32));
      const Tensor loss = contrastive_loss(leaf, others(6), options, 100);
      CHECK(std::isfinite(loss.item()));
      CHECK(all_finite(grad(loss, leaf).value()));
    }
  }
  // By prediction, by similarity, and by weight.
  const Array features =
      normalised_features(Tensor(Array::of<float>({1, 0, 0.99f, 0.1f, 0, 1}, {3, 2}))).value();
  const auto weights_with = [&](auto change) {
    ContrastiveOptions options;
    change(options);
    return compare_images({0, 1, 2}, {0, 1, 2}, options, features, {4, 5, 4}).weights.to_vector();
  };
  CHECK(weights_with([](auto& o) { o.mask_prediction = true; }) ==
        std::vector<double>{0, 1, 0, 1, 0, 1, 0, 1, 0});
  CHECK(weights_with([](auto& o) { o.mask_similarity = 0.9; }) ==
        std::vector<double>{0, 0, 1, 0, 0, 1, 1, 1, 0});
  CHECK(weights_with([](auto& o) { o.reweight = true; })[1] < 0.01);
}

TEST_CASE("T13: the gradient is orthogonal to the features; dead and centred features are finite") {
  const Tensor u = Tensor::leaf(f64({5, 10}, 1));
  const Tensor v = normalised_features(Tensor(f64({5, 10}, 2)));
  for (const Critic critic : {Critic::A, Critic::B, Critic::C}) {
    const Tensor loss =
        contrastive_loss(matmul(normalised_features(u), v, false, true), others(5), {.critic = critic}, 100);
    const std::vector<double> g = grad(loss, u).value().to_vector(), x = u.value().to_vector();
    for (size_t row = 0; row < 5; ++row) {
      double dot = 0, gg = 0, xx = 0;
      for (size_t i = row * 10; i < row * 10 + 10; ++i) {
        dot += g[i] * x[i];
        gg += g[i] * g[i];
        xx += x[i] * x[i];
      }
      CHECK(std::abs(dot) < 1e-5 * std::sqrt(gg * xx));
      CHECK(gg > 0);
    }
  }
  const Tensor dead = Tensor::leaf(Array::zeros({2, 4}));
  const Tensor s = normalised_features(dead);
  CHECK(sum(s).item() == 0);
  CHECK(difference(grad(sum(s), dead).value(), Array::zeros({2, 4})) == 0);
  CHECK(std::abs(sum(normalised_features(u, /*centre=*/true)).item()) < 1e-9);
}

TEST_CASE("feature statistics see a collision, rank and scale") {
  const Array varied = random_normal({16, 4}, Philox(1)), same = Array::full({16, 4}, 0.5);
  const FeatureStatistics good = feature_statistics(varied, varied), bad = feature_statistics(same, varied);
  CHECK(good.positive == doctest::Approx(1));
  CHECK(good.scale == doctest::Approx(1));
  CHECK(good.rank > 3);
  CHECK(good.rank <= 4.0001);
  CHECK(!good.collided());
  CHECK(bad.rank == doctest::Approx(1));
  CHECK(bad.collided());
  // One image is no collision, and how many features there are makes no difference.
  CHECK(!feature_statistics(random_normal({1, 10}, Philox(1)), random_normal({1, 10}, Philox(2))).collided());
  for (const int64_t features : {4, 10000}) {
    CAPTURE(features);
    const auto around_one = [&](double deviation) {
      const Tensor x = Tensor(random_normal({16, features}, Philox(3), deviation)) + 1;
      return feature_statistics(x.value(), x.value());
    };
    CHECK(around_one(0.01).spread == doctest::Approx(0.01).epsilon(0.3));
    CHECK(!around_one(0.01).collided());
    CHECK(around_one(0.0001).collided());
  }
  CHECK(mean_similarity(normalised_features(Tensor(same)).value()) == doctest::Approx(1));
  CHECK(std::abs(mean_similarity(normalised_features(Tensor(random_normal({200, 40}, Philox(2)))).value())) <
        0.05);
}
