// DSQ: the invariants and the edge cases of its definition.
#include "../../quant/quantizers/dsq.h"

#include <cmath>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../kernels/simd/simd.h"
#include "../../quant/quantizers/backward.h"
#include "../../quant/quantizers/ranges.h"
#include "settings.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace {

// The definition, in double.
struct Soft {
  double alpha, l, u;
  int n;

  double delta() const { return (u - l) / n; }
  double kappa() const { return std::log(2 / alpha - 1); }
  double phi(double t) const {
    return std::abs(kappa()) < 1e-3 ? 2 * t * (1 + kappa() * kappa() * (1.0 / 12 - t * t / 3))
                                    : std::tanh(kappa() * t) / (1 - alpha);
  }
  double cell(double x) const { return std::min(std::floor((x - l) / delta()), n - 1.0); }
  double place(double x) const { return (x - l) / delta() - cell(x) - 0.5; }
  double operator()(double x) const {
    if (x <= l) return l;
    if (x >= u) return u;
    return l + delta() * (cell(x) + (phi(place(x)) + 1) / 2);
  }
  double hard(double x) const {
    return l + delta() * std::nearbyint((std::min(std::max(x, l), u) - l) / delta());
  }
};

struct Point {
  double x, alpha, l, u;
};

// dQ/dx, dQ/dalpha, dQ/dl, dQ/du of each point by itself: every point is a slice with a range of its own.
template <class T = double>
std::vector<Point> gradients(const std::vector<Point>& points, int n, bool soft) {
  std::vector<T> x, alpha, l, u;
  for (const Point& p : points) {
    x.push_back(static_cast<T>(p.x));
    alpha.push_back(static_cast<T>(p.alpha));
    l.push_back(static_cast<T>(p.l));
    u.push_back(static_cast<T>(p.u));
  }
  const Shape shape{static_cast<int64_t>(points.size()), 1};
  const DsqGradients g = dsq_backward(Array::full(shape, 1, dtype_of<T>), Array::of(x, shape),
                                      Array::of(alpha), Array::of(l), Array::of(u), n, soft);
  std::vector<Point> all;
  for (int64_t i = 0; i < shape[0]; ++i)
    all.push_back({g.x.data<T>()[i], g.alpha.data<T>()[i], g.l.data<T>()[i], g.u.data<T>()[i]});
  return all;
}
Point gradient(const Point& point, int n, bool soft) { return gradients({point}, n, soft)[0]; }

// Points inside, outside and at the ends of random ranges.
std::vector<Point> random_points(int count) {
  const Philox rng(5);
  std::vector<Point> points;
  for (uint64_t i = 0; points.size() < static_cast<size_t>(count); i += 4) {
    const double l = -2 * rng.uniform(i), u = l + 0.2 + 3 * rng.uniform(i + 1);
    points.push_back(
        {l + (1.4 * rng.uniform(i + 2) - 0.2) * (u - l), 0.01 + 0.98 * rng.uniform(i + 3), l, u});
  }
  return points;
}

const std::vector<int> all_intervals = {1, 3, 7, 15, 254, 255};

// The library's soft and hard functions with weights of two bits on [-1, 1].
struct Curves {
  std::vector<double> x, soft, hard;
  static constexpr double delta = 2.0 / 3;

  // `points` in the middle of as many equal parts.
  Curves(double alpha, int points) {
    const auto q = std::make_shared<Dsq>(QuantizerOptions{.bits = 2, .weight = true}, 1,
                                         DsqOptions{.soft_direct_term = true});
    q->initialise(Array::of<float>({-1, 1}));
    q->to(DType::f64);
    for (int i = 0; i < points; ++i) x.push_back(-1 + 2 * (i + 0.5) / points);
    const Tensors in = {Array::of(x), Array::full({1}, alpha, DType::f64), Array::full({1}, 1, DType::f64)};
    soft = q->surrogate(in, {in[0].value(), in[1].value(), in[2].value()}).value().to_vector();
    hard = q->apply(in).value().to_vector();
  }
  // Distance from the middle of the cell, in cells.
  double from_threshold(size_t i) const {
    const double place = (x[i] + 1) / delta;
    return std::abs(place - std::floor(place) - 0.5);
  }
};

}  // namespace

TEST_CASE("DSQ: the forward is the plain uniform grid, bit for bit, for every alpha") {
  const Array x = random_normal({2000}, Philox(3), 0.5);
  for (const bool weight : {true, false})
    for (int bits = 1; bits <= 8; ++bits) {
      Array first;
      for (const double alpha : {1e-3, 0.05, 0.2, 0.5, 0.9, 0.999}) {
        const auto q =
            std::make_shared<Dsq>(QuantizerOptions{.bits = bits, .weight = weight}, 1, DsqOptions{alpha});
        const Array y = (*q)(x).value.value();
        if (!first.has_value()) first = y;
        CHECK(same_bits(y, first));
      }
      const auto q = std::make_shared<Dsq>(QuantizerOptions{.bits = bits, .weight = weight});
      q->initialise(x);
      const std::vector<Tensor> p = q->own_parameters();
      const double u = p.back().item(), l = weight ? -u : p[1].item();
      const Soft definition{0.2, l, u, intervals(bits, weight)};
      const Grid g = q->to_grid()[0];
      const double shift = grid::decode(g.lo, g) - l;  // zero is moved onto a level
      for (int64_t i = 0; i < x.size() && weight; ++i) {
        const double at = x.data<float>()[i], place = (at - l) / definition.delta();
        if (std::abs(place - std::floor(place) - 0.5) < 1e-4)
          continue;  // rounding may differ within an ulp of a tie
        CHECK(first.data<float>()[i] == doctest::Approx(definition.hard(at) + shift).epsilon(1e-6));
      }
      CHECK(std::abs(shift) <= 0.5001 * definition.delta());
    }
}

TEST_CASE("DSQ: gradients are the derivatives of the soft function (f64, finite differences)") {
  for (const int n : all_intervals) {
    const std::vector<Point> points = random_points(400), found = gradients(points, n, true);
    for (size_t i = 0; i < points.size(); ++i) {
      const Point& p = points[i];
      const Soft q{p.alpha, p.l, p.u, n};
      const double distance = std::abs(q.place(p.x)) * q.delta(), h = 1e-3 * q.delta();
      const bool near_border = std::abs(0.5 * q.delta() - distance) < 4 * h * n && p.x > p.l && p.x < p.u;
      if (near_border || std::abs(p.x - p.l) < 8 * h || std::abs(p.x - p.u) < 8 * h) continue;
      const auto derivative = [&](auto at, double step) {
        return (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step);
      };
      const double dx = derivative([&](double d) { return q(p.x + d); }, h);
      const double dalpha = derivative(
          [&](double d) {
            return Soft{p.alpha + d, p.l, p.u, n}(p.x);
          },
          1e-3 * p.alpha * (1 - p.alpha));
      const double dl = derivative([&](double d) { return Soft{p.alpha, p.l + d, p.u, n}(p.x); }, h);
      const double du = derivative([&](double d) { return Soft{p.alpha, p.l, p.u + d, n}(p.x); }, h);
      INFO("N = ", n, ", x = ", p.x, ", alpha = ", p.alpha, ", l = ", p.l, ", u = ", p.u);
      const auto close = [](double a, double b) {
        return std::abs(a - b) < 1e-6 * std::max(1.0, std::abs(b));
      };
      CHECK(close(found[i].x, dx));
      CHECK(close(found[i].alpha, dalpha));
      CHECK(close(found[i].l, dl));
      CHECK(close(found[i].u, du));
    }
  }
}

TEST_CASE("DSQ: the hard direct term takes the code instead of phi, and changes nothing else") {
  for (const int n : all_intervals) {
    const std::vector<Point> points = random_points(200), hard = gradients(points, n, false),
                             soft = gradients(points, n, true);
    for (size_t i = 0; i < points.size(); ++i) {
      const Point& p = points[i];
      const Soft q{p.alpha, p.l, p.u, n};
      const double lost = (q.hard(p.x) - q(p.x)) / (p.u - p.l);
      CHECK(hard[i].x == soft[i].x);
      CHECK(hard[i].alpha == soft[i].alpha);
      CHECK(hard[i].u - soft[i].u == doctest::Approx(lost).epsilon(1e-9));
      CHECK(hard[i].l - soft[i].l == doctest::Approx(-lost).epsilon(1e-9));
    }
  }
}

TEST_CASE("DSQ I1, I2: translation and homogeneity") {
  for (const int n : all_intervals) {
    const std::vector<Point> points = random_points(200), d = gradients(points, n, true);
    for (size_t i = 0; i < points.size(); ++i) {
      const Point& p = points[i];
      CHECK(d[i].x + d[i].l + d[i].u == doctest::Approx(1).epsilon(1e-12));
      CHECK(p.x * d[i].x + p.l * d[i].l + p.u * d[i].u ==
            doctest::Approx(Soft{p.alpha, p.l, p.u, n}(p.x)).epsilon(1e-9));
    }
  }
}

TEST_CASE("DSQ I3: the mean of dQ/dx over a cell is 1") {
  for (const double alpha : {0.01, 0.2, 0.7, 0.99}) {
    double mean = 0;
    const int points = 20000;
    for (int i = 0; i < points; ++i)
      mean += gradient({-1 + (2 + (i + 0.5) / points) / 1.5, alpha, -1, 1}, 3, false).x / points;
    CHECK(mean == doctest::Approx(1).epsilon(1e-6));
  }
}

TEST_CASE("DSQ I4: alpha has no gradient in the middle and at the ends of a cell") {
  for (const double alpha : {0.01, 0.2, 0.7, 0.99})
    for (const double v : {0.5, 1.0 + 1e-13, 1.5, 2.0 - 1e-13, 2.5})
      CHECK(std::abs(gradient({-1 + v * 2 / 3, alpha, -1, 1}, 3, false).alpha) < 1e-10);
}

TEST_CASE("DSQ I5: the surrogate with the soft term is the soft function, continuous everywhere") {
  const auto q = std::make_shared<Dsq>(QuantizerOptions{.bits = 2, .weight = true}, 1,
                                       DsqOptions{.soft_direct_term = true});
  q->initialise(Array::of<float>({-1, 1, -1, 1}));
  q->to(DType::f64);
  const Tensors p = q->own_parameters();
  const Soft definition{p[0].item(), -p[1].item(), p[1].item(), 3};
  std::vector<double> x;
  for (int i = -1500; i <= 1500; ++i) x.push_back(i * 0.001 * p[1].item());
  const Array at = Array::of(x);
  const std::vector<double> y =
      q->surrogate({at, p[0], p[1]}, {at, p[0].value(), p[1].value()}).value().to_vector();
  for (size_t i = 0; i < x.size(); ++i) {
    CHECK(y[i] == doctest::Approx(definition(x[i])).epsilon(1e-12));
    if (i > 0) CHECK(std::abs(y[i] - y[i - 1]) < 0.003);
  }
}

TEST_CASE("DSQ I6: alpha and 2 - alpha are the same curve") {
  for (const Point& p : random_points(100)) {
    const Point a = gradient(p, 7, true), b = gradient({p.x, 2 - p.alpha, p.l, p.u}, 7, true);
    CHECK(b.x == doctest::Approx(a.x).epsilon(1e-9));
    CHECK(b.alpha == doctest::Approx(-a.alpha).epsilon(1e-6));
    CHECK(b.u == doctest::Approx(a.u).epsilon(1e-9));
  }
}

TEST_CASE("DSQ I7: alpha -> 1 is LSQ's straight-through slope, alpha -> 0 a comb") {
  for (const double x : {-0.9, -0.31, 0.05, 0.6}) {
    const Point d = gradient({x, 0.999, -1, 1}, 15, false);
    CHECK(d.x == doctest::Approx(1).epsilon(1e-5));
    const double v = (x + 1) * 7.5;
    CHECK(d.u * 15 == doctest::Approx(std::nearbyint(v) - v).epsilon(1e-3));
  }
  CHECK(gradient({0.5 / 7.5 - 1, 1e-3, -1, 1}, 15, false).x > 3.5);            // on a threshold
  CHECK(gradient({(0.5 + 0.45) / 7.5 - 1, 1e-3, -1, 1}, 15, false).x < 0.05);  // near a level
}

TEST_CASE("DSQ I7: the soft function becomes the clip as alpha -> 1 and the hard function as alpha -> 0") {
  const auto distance = [](double alpha, bool to_hard, double least) {
    const Curves q(alpha, 30000);
    double most = 0;
    for (size_t i = 0; i < q.x.size(); ++i)
      if (q.from_threshold(i) >= least)
        most = std::max(most, std::abs(q.soft[i] - (to_hard ? q.hard[i] : q.x[i])));
    return most / Curves::delta;
  };
  for (const double rest : {0.1, 1e-2, 1e-3}) {
    CAPTURE(rest);  // the distance from the clip falls with the square of 1 - alpha
    CHECK(distance(1 - rest, false, 0) < 0.08 * rest * rest);
    CHECK(distance(1 - rest, false, 0) > 0.05 * rest * rest);
  }
  // Off the thresholds: (1 - phi) / 2 = (1 - tanh(kappa t) / (1 - alpha)) / 2 at t = 0.1.
  double before = 0.5;
  for (const double alpha : {0.5, 0.1, 1e-2, 1e-3, 1e-6, 1e-12}) {
    CAPTURE(alpha);
    const double now = distance(alpha, true, 0.1), kappa = std::log(2 / alpha - 1);
    CHECK(now == doctest::Approx((1 - std::tanh(kappa * 0.1) / (1 - alpha)) / 2).epsilon(1e-3));
    CHECK(now < before);
    before = now;
  }
  CHECK(before < 0.005);
}

TEST_CASE("DSQ I8: distance of the soft function from the grid") {
  for (const double alpha : {0.05, 0.2, 0.5, 0.9}) {
    const int points = 30000;
    const Curves q(alpha, points);
    double most = 0, mean_phi = 0;
    for (size_t i = 0; i < q.x.size(); ++i) {
      const double lost = std::abs(q.soft[i] - q.hard[i]) / q.delta;  // (1 - |phi|) / 2
      most = std::max(most, lost);
      mean_phi += (1 - 2 * lost) / points;
    }
    const double kappa = std::log(2 / alpha - 1);
    CHECK(most == doctest::Approx(0.5).epsilon(1e-3));
    CHECK(mean_phi ==
          doctest::Approx(2 / ((1 - alpha) * kappa) * std::log(std::cosh(kappa / 2))).epsilon(1e-4));
  }
}

TEST_CASE("DSQ P1, P2: f32 keeps its digits as alpha goes to 0 and to 1, and is finite beyond") {
  std::vector<Point> points;
  for (const double alpha : {1e-3, 0.01, 0.18, 0.19, 0.2, 0.5, 0.9, 0.99, 0.999})
    for (int i = 0; i < 97; ++i) points.push_back({-0.5 + (i + 0.5) / 97, alpha, -0.5, 0.5});
  for (const bool soft : {false, true}) {
    const std::vector<Point> narrow = gradients<float>(points, 3, soft),
                             wide = gradients<double>(points, 3, soft);
    for (size_t i = 0; i < points.size(); ++i) {
      INFO("x = ", points[i].x, ", alpha = ", points[i].alpha);
      const double t = points[i].x * 3 + 1.5 - std::floor(points[i].x * 3 + 1.5) - 0.5;
      const double slack = points[i].alpha < 0.01 && std::abs(t) > 0.4 ? 1e-3 : 1e-5;
      CHECK(std::abs(narrow[i].x - wide[i].x) < slack * std::max(1e-3, wide[i].x));
      CHECK(std::abs(narrow[i].alpha - wide[i].alpha) < 1e-5 * std::max(1.0, std::abs(wide[i].alpha)));
      CHECK(std::abs(narrow[i].u - wide[i].u) < 1e-5);
      CHECK(std::abs(narrow[i].l - wide[i].l) < 1e-5);
      CHECK(narrow[i].x > 0);
    }
  }
  for (const double alpha : {1 - 1e-9, 1.0, 1 + 1e-9}) {
    const Point d = gradient({0.2, alpha, -1, 1}, 3, false);
    CHECK(d.x == doctest::Approx(1));
    CHECK(std::abs(d.alpha) < 1e-6);
  }
  // dQ/dalpha is linear in 1 - alpha near 1: its value at 0.999 is a thousandth of that at alpha -> 0.
  CHECK(gradient({0.2, 0.999, -1, 1}, 3, false).alpha / gradient({0.2, 0.9999, -1, 1}, 3, false).alpha ==
        doctest::Approx(10).epsilon(1e-3));
}

TEST_CASE("DSQ: how exact f32 is, against the definition in long double") {
  // Units in the last place of the slope, and error of dQ/dalpha over its largest value.
  struct Bound {
    double alpha, slope, by_alpha;
  };
  for (const Bound& b : {Bound{1e-3, 16, 1e-6},
                         {0.05, 9, 1e-6},
                         {0.18, 7, 2e-6},
                         {0.2, 3, 5e-7},
                         {0.3, 3, 5e-7},
                         {0.5, 2, 5e-7},
                         {0.75, 2, 5e-7},
                         {0.9, 2, 5e-7},
                         {0.999, 2, 5e-7}}) {
    const auto a = static_cast<float>(b.alpha);
    const long double alpha = a, kappa = std::log(2 / alpha - 1), end = std::tanh(kappa / 2);
    std::vector<Point> points;
    const int count = 20000;
    for (int i = 0; i < count; ++i)  // l = 0 and N = 1: the place in the cell is x - 1/2, exactly
      points.push_back({static_cast<double>(static_cast<float>((i + 0.5) / count)), a, 0, 1});
    const std::vector<Point> found = gradients<float>(points, 1, false);
    double slope_ulps = 0, error = 0, largest = 0;
    for (size_t i = 0; i < points.size(); ++i) {
      const long double t = static_cast<long double>(points[i].x) - 0.5L;
      const long double sech = 1 / std::cosh(kappa * t), sech_end = 1 / std::cosh(kappa / 2);
      const auto slope = static_cast<float>(kappa / (2 * end) * sech * sech);
      const long double by_kappa =
          (t * sech * sech - std::tanh(kappa * t) * sech_end * sech_end / (2 * end)) / end;
      const auto by_alpha = static_cast<double>(-by_kappa / (alpha * (2 - alpha)));
      slope_ulps = std::max(slope_ulps, std::abs(found[i].x - static_cast<double>(slope)) /
                                            static_cast<double>(std::nextafter(slope, 1e9f) - slope));
      error = std::max(error, std::abs(found[i].alpha - by_alpha));
      largest = std::max(largest, std::abs(by_alpha));
    }
    INFO("alpha ", b.alpha, ": slope within ", slope_ulps, " ulp, dalpha within ", error / largest);
    CHECK(slope_ulps <= b.slope);
    CHECK(error <= b.by_alpha * largest);
  }
}

TEST_CASE("DSQ P3, P4: project() keeps alpha and the range where they are defined") {
  for (const bool weight : {true, false}) {
    const auto q = std::make_shared<Dsq>(QuantizerOptions{.bits = 4, .weight = weight});
    q->initialise(random_normal({500}, Philox(1)));
    const double u0 = q->own_parameters().back().item();
    for (const double value : {-5.0, 0.0, 3.0}) {
      for (const nn::NamedTensor& p : q->parameters()) {
        Array target = p.tensor.value();
        target.assign(Array::full(target.shape(), value));
      }
      q->project();
      const Tensors p = q->own_parameters();
      CHECK(p[0].item() >= 1e-3f);
      CHECK(p[0].item() <= 0.999f);
      const double l = weight ? -p.back().item() : p[1].item();
      CHECK(p.back().item() - l >= 0.9e-3 * u0);
      CHECK(l <= 0);
    }
  }
}

TEST_CASE("DSQ P4, P6: zeros and zero channels have no gradient and stay at zero") {
  const auto q = std::make_shared<Dsq>(QuantizerOptions{.bits = 4, .weight = true, .per_channel = true}, 3);
  Array w = random_normal({3, 20}, Philox(2));
  for (int64_t i = 20; i < 40; ++i) w.data<float>()[i] = 0;
  const Tensor x = Tensor::leaf(w);
  const Tensor y = (*q)(x).value;
  const Tensors d = grad({sum(y * y + y)}, {x, q->own_parameters()[0], q->own_parameters()[1]});
  for (int64_t i = 0; i < 60; ++i) {
    const bool zero_channel = i / 20 == 1;
    const float level = std::abs(y.value().data<float>()[i]);
    CHECK((level < 1e-6) == zero_channel);
    if (zero_channel)
      CHECK(level == doctest::Approx(5e-7 / 15).epsilon(1e-6));  // half a step: the grid has no zero
    if (zero_channel) CHECK(d[0].value().data<float>()[i] == 0);
  }
  for (const size_t parameter : {1u, 2u}) {
    CHECK(d[parameter].value().data<float>()[0] != 0);
    CHECK(d[parameter].value().data<float>()[1] == 0);
  }
  // Data beyond a collapsed range widens it again.
  const Point out = gradient({0.5, 0.2, 0, 1e-6}, 15, false);
  CHECK(out.u == 1);
  CHECK(out.x == 0);
}

TEST_CASE("DSQ P5: the ends and the thresholds") {
  for (const double alpha : {0.01, 0.2, 0.9}) {
    const Point at_u = gradient({1, alpha, -1, 1}, 3, false), at_l = gradient({-1, alpha, -1, 1}, 3, false);
    CHECK((at_u.u == 1 && at_u.x == 0 && at_u.l == 0 && at_u.alpha == 0));
    CHECK((at_l.l == 1 && at_l.x == 0 && at_l.u == 0 && at_l.alpha == 0));
    const Point nan = gradient({NAN, alpha, -1, 1}, 3, false);
    CHECK((nan.l == 1 && nan.x == 0 && nan.u == 0 && nan.alpha == 0));
  }
  const auto q = std::make_shared<Dsq>(QuantizerOptions{.bits = 2, .weight = true});
  q->initialise(Array::of<float>({-1, 1}));
  const Grid g = q->to_grid()[0];
  CHECK(grid::encode(0, g) == 2);  // 1.5 rounds to even
}

TEST_CASE("DSQ P8: in evaluation and training alike the range does not depend on the batch") {
  const auto q = std::make_shared<Dsq>(QuantizerOptions{.bits = 4});
  (*q)(random_uniform({100}, Philox(1)));
  const Grids before = q->to_grid();
  (*q)(random_uniform({100}, Philox(2), 0, 50));
  CHECK(q->to_grid() == before);
}

TEST_CASE("DSQ P9: the slope is DSQ's, not the straight-through estimator's") {
  CHECK(gradient({0.5 / 1.5 - 1 + 1e-9, 0.2, -1, 1}, 3, false).x == doctest::Approx(1.3733).epsilon(1e-3));
  CHECK(gradient({1e-9 / 1.5 - 1, 0.2, -1, 1}, 3, false).x == doctest::Approx(0.4944).epsilon(1e-3));
}

TEST_CASE("DSQ: weights tie l = -u, unsigned activations keep l = 0, signed ones keep zero a level") {
  const Array x = random_normal({4, 30}, Philox(6));
  const auto weights =
      std::make_shared<Dsq>(QuantizerOptions{.bits = 3, .weight = true, .scale_gradients = false});
  const Tensor y = (*weights)(x).value;
  const Array alpha = weights->own_parameters()[0].value(), u = weights->own_parameters()[1].value();
  const Array ones = Array::full(x.shape(), 1);
  const DsqGradients g = dsq_backward(ones, x, alpha, Array::full(u.shape(), -u.item()), u, 7, false);
  const Tensor du = grad(sum(y), weights->own_parameters()[1]);
  CHECK(du.item() == doctest::Approx(g.u.item() - g.l.item()));

  const auto activations = std::make_shared<Dsq>(QuantizerOptions{.bits = 3});
  const Tensor positive = (*activations)(random_uniform({4, 30}, Philox(7))).value;
  CHECK(grad(sum(positive), activations->own_parameters()[1]).item() == 0);
  CHECK(activations->own_parameters()[1].item() == 0);
  CHECK(activations->to_grid()[0].zero_point == 0);

  const auto both = std::make_shared<Dsq>(QuantizerOptions{.bits = 3});
  const Tensor z = (*both)(x).value;
  CHECK(both->own_parameters()[1].item() < 0);
  CHECK(grad(sum(z), both->own_parameters()[1]).item() != 0);
  const float zero_point = both->to_grid()[0].zero_point;
  CHECK((zero_point == std::nearbyint(zero_point) && zero_point > 0));
}

TEST_CASE("DSQ: initial ranges") {
  const Array w = random_normal({20000}, Philox(8), 0.1);
  const auto at = [](int bits, bool weight, const Array& x) {
    const auto q = std::make_shared<Dsq>(QuantizerOptions{.bits = bits, .weight = weight});
    q->initialise(x);
    return q->own_parameters();
  };
  CHECK(at(4, true, w)[0].item() == doctest::Approx(0.2));
  CHECK(at(4, true, w)[1].item() == doctest::Approx(0.3).epsilon(0.03));
  const double largest =
      kernels::reduce(kernels::Reduction::max, kernels::unary(kernels::Unary::abs, w)).item();
  CHECK(at(8, true, w)[1].item() == doctest::Approx(largest));
  const Array half_normal = kernels::unary(kernels::Unary::abs, w);
  CHECK(at(4, false, half_normal)[2].item() == doctest::Approx(0.3).epsilon(0.03));
  CHECK(at(8, false, half_normal)[2].item() == doctest::Approx(largest));
  CHECK(at(2, true, Array::of<float>({0.1f, -0.1f}))[1].item() == doctest::Approx(0.1));  // capped
}

TEST_CASE("DSQ: one pass gives the same bits on every instruction set, and f32 agrees with f64") {
  const simd::Isa all[] = {simd::Isa::baseline, simd::Isa::avx2, simd::Isa::avx512};
  const simd::Table* before = &simd::table();
  // alpha: below 0.19 by the exponential, above by polynomials. Data in bf16 are those of the f64 run, too.
  for (const int64_t size : {1, 3, 15, 16, 17, 500, 513, 40000})
    for (const double a : {1e-3, 0.05, 0.18, 0.2, 0.9})
      for (const bool soft : {false, true})
        for (const DType narrow : {DType::f32, DType::bf16}) {
          CAPTURE(size);
          CAPTURE(a);
          CAPTURE(soft);
          const Array x = cast(random_normal({size}, Philox(9), 0.6), narrow),
                      gradient = cast(random_normal({size}, Philox(10)), narrow);
          const auto run = [&](DType type) {
            const DType wide = type == DType::f64 ? type : DType::f32;
            const auto parameter = [&](double value) {
              return cast(Array::full({1}, value), wide);  // the same number in both
            };
            const DsqGradients g = dsq_backward(cast(gradient, type), cast(x, type), parameter(a),
                                                parameter(-0.7), parameter(1.1), 15, soft);
            return Arrays{g.x, g.alpha, g.l, g.u};
          };
          Arrays first;
          for (const simd::Isa isa : all) {
            if (!simd::table_of(isa)) continue;
            simd::use_isa(isa);
            const Arrays found = run(narrow);
            if (first.empty()) first = found;
            for (size_t i = 0; i < found.size(); ++i) CHECK(same_bits(found[i], first[i]));
          }
          const Arrays exact = run(DType::f64);
          CHECK(difference(first[0], exact[0]) < (narrow == DType::f32 ? 1e-4 : 4e-3));
          for (size_t i = 1; i < exact.size(); ++i)
            CHECK(std::abs(first[i].item() - exact[i].item()) <
                  1e-5 * std::sqrt(static_cast<double>(size)) * std::max(1.0, std::abs(exact[i].item())));
        }
  for (const simd::Isa isa : all)
    if (simd::table_of(isa) == before) simd::use_isa(isa);
}
