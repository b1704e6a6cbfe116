// Attribution maps as a loss: its closed form and gradient, what happens to empty maps, ties and extremes,
// and the figures that compare maps.
#include "../../nn/losses/attribution.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../nn/attribution.h"
#include "../../nn/rank_statistics.h"

using namespace stairgrad;
using namespace stairgrad::nn;

namespace {

// Positive maps (n, h, w), and maps after a ReLU, with many zeros.
Array positive(Shape shape, uint64_t stream) {
  return random_uniform(shape, Philox(5, stream), 0.1, 1, DType::f64);
}
Array clipped(Shape shape, uint64_t stream) {
  Array x = random_normal(shape, Philox(5, stream), 1, DType::f64);
  for (int64_t i = 0; i < x.size(); ++i) x.data<double>()[i] = std::max(0.0, x.data<double>()[i]);
  return x;
}
Array map_of(const std::vector<double>& values, int64_t n, int64_t h, int64_t w) {
  return Array::of(values, {n, h, w});
}
double loss_of(const Array& maps, const Array& targets, const ImitationOptions& options = {}) {
  return imitate(maps, targets, options).loss.item();
}
double cosine(const std::vector<double>& a, const std::vector<double>& b) {
  const auto dot = [](const std::vector<double>& x, const std::vector<double>& y) {
    return std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
  };
  return dot(a, b) / std::sqrt(dot(a, a) * dot(b, b));
}

}  // namespace

TEST_CASE("the imitation loss is (2 / HW) (1 - cos), for any exponent") {
  const Array maps = clipped({3, 4, 5}, 0), targets = clipped({3, 4, 5}, 1);
  for (const double p : {0.375, 1.0, 3.0, 6.0}) {
    double expected = 0;
    for (int64_t i = 0; i < 3; ++i) {
      std::vector<double> target = targets.slice(i, 1).to_vector();
      for (double& t : target) t = std::pow(t, p);
      expected += 2.0 / 20 * (1 - cosine(maps.slice(i, 1).to_vector(), target)) / 3;
    }
    CHECK(expected > 0.01);
    CHECK(std::abs(loss_of(maps, targets, {.exponents = {p}}) - expected) < 1e-14);
  }
}

TEST_CASE("every image may have its own exponent") {
  const Array maps = clipped({2, 4, 4}, 0), targets = clipped({2, 4, 4}, 1);
  const double both = loss_of(maps, targets, {.exponents = {1, 4}});
  const double each = loss_of(maps.slice(0, 1), targets.slice(0, 1), {.exponents = {1}}) +
                      loss_of(maps.slice(1, 1), targets.slice(1, 1), {.exponents = {4}});
  CHECK(std::abs(both - each / 2) < 1e-15);
  CHECK_THROWS_AS(loss_of(maps, targets, {.exponents = {1, 2, 3}}), argument_error);
  CHECK_THROWS_AS(loss_of(maps, targets, {.exponents = {0}}), argument_error);
  CHECK_THROWS_AS(loss_of(maps, targets.slice(0, 1)), argument_error);
}

TEST_CASE("the gradient of the imitation loss is that of its differences") {
  const Array targets = clipped({3, 4, 4}, 1);
  for (const ImitationOptions& options :
       {ImitationOptions{.exponents = {3}}, ImitationOptions{.exponents = {0.5, 1, 2}},
        ImitationOptions{.exponents = {2}, .top_k = 5}}) {
    const auto function = [&](const Tensors& in) { return imitate(in[0], targets, options).loss; };
    const GradcheckResult result = gradcheck(function, {positive({3, 4, 4}, 0)});
    INFO(result.worst);
    CHECK(result.error < 1e-7);
  }
  // By the closed form -2 / (B HW |m|) (t - (m t) m) with unit vectors m and t.
  const Tensor maps = Tensor::leaf(positive({1, 2, 2}, 0));
  const std::vector<double> m = maps.value().to_vector(), t = targets.slice(0, 1).to_vector();
  const Array target = map_of({t[0], t[1], t[2], t[3] + 0.5}, 1, 2, 2);
  const std::vector<double> g = grad(imitate(maps, target).loss, maps).value().to_vector();
  const std::vector<double> w = target.to_vector();
  const double norm = std::sqrt(std::inner_product(m.begin(), m.end(), m.begin(), 0.0)),
               target_norm = std::sqrt(std::inner_product(w.begin(), w.end(), w.begin(), 0.0));
  for (size_t i = 0; i < 4; ++i)
    CHECK(std::abs(g[i] + 2 / (4 * norm) * (w[i] / target_norm - cosine(m, w) * m[i] / norm)) < 1e-12);
}

TEST_CASE("P10: empty maps are counted and left out, or cost what they cost in the authors' code") {
  const Array some = map_of({1, 0, 0, 0}, 1, 2, 2), none = map_of({0, 0, 0, 0}, 1, 2, 2),
              other = map_of({0, 1, 0, 0}, 1, 2, 2);
  for (const auto& [maps, targets] : {std::pair{some, none}, {none, some}, {none, none}}) {
    const Tensor leaf = Tensor::leaf(maps);
    const Imitation result = imitate(leaf, targets);
    CHECK(result.empty == 1);
    CHECK(result.loss.item() == 0);
    for (const double g : grad(result.loss, leaf).value().to_vector()) CHECK(g == 0);
  }
  const ImitationOptions as_coded{.skip_empty = false};
  CHECK(loss_of(some, none, as_coded) == 0.25);  // 1 / HW
  CHECK(loss_of(none, some, as_coded) == 0.25);
  CHECK(loss_of(none, none, as_coded) == 0);
  CHECK(loss_of(some, other, as_coded) == 0.5);  // 2 / HW: an orthogonal map costs more than a dead one
  const Tensor dead = Tensor::leaf(none);
  for (const double g : grad(imitate(dead, some, as_coded).loss, dead).value().to_vector())
    CHECK(std::isfinite(g));
  // The images that are left keep their share of the batch.
  const Array maps = map_of({0, 0, 0, 0, 1, 2, 3, 4}, 2, 2, 2),
              targets = map_of({1, 2, 3, 4, 4, 3, 2, 1}, 2, 2, 2);
  CHECK(loss_of(maps, targets) == doctest::Approx(loss_of(maps.slice(1, 1), targets.slice(1, 1)) / 2));
}

TEST_CASE("P11: only the largest positive pixels of the target count, of equals the first") {
  const Array targets = map_of({5, 1, 5, 5, 0, 0}, 1, 2, 3), maps = map_of({1, 9, 2, 7, 7, 7}, 1, 2, 3);
  // Of three fives two are taken: pixels 0 and 2.
  CHECK(loss_of(maps, targets, {.top_k = 2}) == doctest::Approx(2.0 / 2 * (1 - cosine({1, 2}, {5, 5}))));
  // Asked for more than are positive, it takes those that are.
  CHECK(loss_of(maps, targets, {.top_k = 6}) ==
        doctest::Approx(2.0 / 4 * (1 - cosine({1, 9, 2, 7}, {5, 1, 5, 5}))));
  const Tensor leaf = Tensor::leaf(maps);
  const std::vector<double> g = grad(imitate(leaf, targets, {.top_k = 2}).loss, leaf).value().to_vector();
  CHECK(g[0] != 0);
  for (const size_t pixel : {1, 3, 4, 5}) CHECK(g[pixel] == 0);
}

TEST_CASE("P12: tiny and huge maps neither underflow nor overflow in f32") {
  const std::vector<double> values = {0, 1, 2, 3}, wanted = {3, 2, 1, 0};
  const auto f32 = [](const std::vector<double>& x, double scale) {
    std::vector<float> scaled;
    for (const double v : x) scaled.push_back(static_cast<float>(v * scale));
    return Array::of(scaled, {1, 2, 2});
  };
  const double expected = loss_of(f32(values, 1), f32(wanted, 1), {.exponents = {6}});
  CHECK(expected > 0.3);
  for (const double scale : {1e-30, 1e-6, 1e30}) {
    const Tensor maps = Tensor::leaf(f32(values, scale));
    const Tensor loss = imitate(maps, f32(wanted, scale), {.exponents = {6}}).loss;
    CHECK(loss.item() == doctest::Approx(expected));
    const std::vector<double> g = grad(loss, maps).value().to_vector();
    CHECK(std::isfinite(g[0]));
    CHECK(g[0] < 0);
  }
}

TEST_CASE("powers keep ranks, and large ones concentrate the map") {
  const Array target = positive({1, 4, 4}, 3);
  const auto powered = [&](double p) {
    std::vector<double> x = target.to_vector();
    for (double& v : x) v = std::pow(v, p);
    return map_of(x, 1, 4, 4);
  };
  CHECK(spearman(target, powered(5))[0] == doctest::Approx(1));
  CHECK(entropies(powered(5))[0] < entropies(target)[0]);
  CHECK(entropies(target)[0] < entropies(powered(0.2))[0]);
}

TEST_CASE("ranks: equal values share the mean of their ranks") {
  CHECK(average_ranks({3, 1, 3, 2}) == std::vector<double>{3.5, 1, 3.5, 2});
  CHECK(average_ranks({0, 0, 0}) == std::vector<double>{2, 2, 2});
  CHECK(average_ranks({}).empty());
  CHECK(average_ranks({1, NAN, 0}).size() == 3);
  const Array a = map_of({1, 2, 3, 4}, 1, 2, 2), reversed = map_of({8, 6, 4, 2}, 1, 2, 2),
              constant = map_of({2, 2, 2, 2}, 1, 2, 2), tied = map_of({1, 2, 2, 4}, 1, 2, 2);
  CHECK(spearman(a, a)[0] == doctest::Approx(1));
  CHECK(spearman(a, reversed)[0] == doctest::Approx(-1));
  CHECK(std::isnan(spearman(a, constant)[0]));
  CHECK(spearman(a, tied)[0] == doctest::Approx(4.5 / std::sqrt(5 * 4.5)));  // by hand
  CHECK(rank_errors(a, a)[0] == 0);
  CHECK(rank_errors(reversed, a)[0] == doctest::Approx(2.0 / 4));     // (3 + 1 + 1 + 3) / 4 of 4
  CHECK(rank_errors(reversed, a, 1)[0] == doctest::Approx(3.0 / 4));  // the largest became the smallest
  CHECK(rank_errors(a, constant)[0] == doctest::Approx(1.0 / 4));
}

TEST_CASE("entropy: log of the pixels for an even map, 0 for a point, nothing for nothing") {
  const Array maps = map_of({1, 1, 1, 1, 0, 7, 0, 0, 0, 0, 0, 0}, 3, 2, 2);
  const std::vector<double> e = entropies(maps);
  CHECK(e[0] == doctest::Approx(std::log(4)));
  CHECK(e[1] == 0);
  CHECK(std::isnan(e[2]));
  CHECK(mean_of_numbers(e) == doctest::Approx(std::log(4) / 2));
  CHECK(std::isnan(mean_of_numbers({})));
}

TEST_CASE("a quad-tree cuts where a map changes, and nowhere else") {
  // 4 x 4: the upper left quarter varies, the others do not.
  const Array map = map_of({9, 0, 1, 1,  //
                            0, 0, 1, 1,  //
                            2, 2, 3, 3,  //
                            2, 2, 3, 3},
                           1, 4, 4);
  const std::vector<double> cells = quad_tree(map, 0.1, 3).to_vector();
  CHECK(cells == std::vector<double>{0, 1, 2, 2, 4, 5, 2, 2, 8, 8, 10, 10, 8, 8, 10, 10});
  CHECK(quad_tree(map, 0.1, 1).to_vector() ==
        std::vector<double>{0, 0, 2, 2, 0, 0, 2, 2, 8, 8, 10, 10, 8, 8, 10, 10});
  for (const double cell : quad_tree(map, 1.0, 3).to_vector()) CHECK(cell == 0);  // 9 - 0 is not above 9
  CHECK(cell_means(map, quad_tree(map, 0.1, 1)).value().to_vector()[5] == 9.0 / 4);
  CHECK(cell_means(map, quad_tree(map, 0.1, 3)).value().to_vector() == map.to_vector());
  // Sides that are no powers of two, and an empty map: one cell.
  CHECK(quad_tree(positive({2, 5, 7}, 0), 0, 9).to_vector()[34] == 34);
  for (const double cell : quad_tree(Array::zeros({1, 3, 3}, DType::f64), 0.1, 3).to_vector())
    CHECK(cell == 0);
}

TEST_CASE("cell means are differentiable, keep the sum, and lower the noise by the root of the cell") {
  const Array cells = quad_tree(clipped({2, 4, 4}, 0), 0.5, 2);
  const auto function = [&](const Tensors& in) { return cell_means(in[0], cells); };
  CHECK(gradcheck(function, {positive({2, 4, 4}, 1)}).error < 1e-8);
  const Array noise = random_normal({200, 4, 4}, Philox(8), 1, DType::f64);
  const Array one_cell = Array::zeros({200, 4, 4}, DType::s32);
  const std::vector<double> means = cell_means(noise, one_cell).value().to_vector();
  double squares = 0;
  for (const double m : means) squares += m * m / static_cast<double>(means.size());
  CHECK(std::sqrt(squares) == doctest::Approx(1.0 / 4).epsilon(0.15));
}

TEST_CASE("the mismatch of input gradients is 0 for the same model and grows with the distance") {
  const auto make = [](uint64_t seed) {
    auto model = make_model("resnet8", {.image_size = 8, .classes = 4, .width = 0.25});
    initialise(*model, seed);
    return model;
  };
  const auto model = make(1), same = make(1), other = make(2);
  const Array images = random_normal(model->input_shape(4), Philox(3)),
              labels = Array::of<int32_t>({0, 1, 2, 3});
  CHECK(input_gradient_mismatch(*model, *same, images, labels) == 0);
  CHECK(input_gradient_mismatch(*model, *other, images, labels) > 0.1);
  CHECK(model->training());
}
