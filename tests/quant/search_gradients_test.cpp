// Gradients of the search: importance logits, ranges and the attribution loss, by finite differences in f64,
// and the fused mixture against the composition of its parts.
#include <doctest/doctest.h>

#include <cmath>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../kernels/elementwise.h"
#include "../../quant/search/budget.h"
#include "../../quant/search/mixed_quantizer.h"
#include "../../quant/search/risk.h"
#include "settings.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace {

Array activations(Shape shape, uint64_t stream, DType dtype = DType::f64) {
  Array x = random_normal(shape, Philox(21, stream), 1, DType::f64);
  for (int64_t i = 0; i < x.size(); ++i) x.data<double>()[i] = std::max(0.0, x.data<double>()[i]);
  return cast(x, dtype);
}

std::shared_ptr<MixedQuantizer> mixed(const std::string& name, const std::vector<int>& bits, bool weight,
                                      const Array& first, DType dtype) {
  const auto made = std::make_shared<MixedQuantizer>(
      name, bits, QuantizerOptions{.weight = weight, .scale_gradients = false});
  made->to(dtype);
  Array logits = made->logits.value();
  logits.assign(random_normal(logits.shape(), Philox(22), 1, dtype));
  for (const auto& candidate : made->candidates()) candidate->initialise(first);
  return made;
}

Tensors learned(const MixedQuantizer& site) {
  Tensors all;
  for (const nn::NamedTensor& p : site.parameters()) all.push_back(p.tensor);
  return all;
}

// Derivative of loss() along a random direction of the values of p, by differences of the fourth order.
double along(const Tensor& p, const Array& direction, const std::function<double()>& loss, double h = 1e-5) {
  Array w = p.value();
  const Array start = w.clone();
  const auto at = [&](double step) {
    for (int64_t j = 0; j < w.size(); ++j)
      w.data<double>()[j] = start.data<double>()[j] + step * direction.data<double>()[j];
    return loss();
  };
  const double slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h);
  w.assign(start);
  return slope;
}

void check_close(const Array& a, const Array& b, double tolerance) {
  REQUIRE(a.shape() == b.shape());
  const std::vector<double> u = a.to_vector(), v = b.to_vector();
  double worst = 0, most = 0;
  for (size_t i = 0; i < u.size(); ++i) {
    worst = std::max(worst, std::abs(u[i] - v[i]));
    most = std::max(most, std::abs(v[i]));
  }
  CHECK(worst <= tolerance * std::max(most, 1e-3));
}

}  // namespace

TEST_CASE(
    "importance logits: the gradient is that of differences, and the closed form pi_j (<G, Q_j> - mean)") {
  const Array x = activations({2, 4, 4, 3}, 0), g = random_normal({2, 4, 4, 3}, Philox(23), 1, DType::f64);
  for (const char* name : {"lsq", "pact", "dsq"}) {
    CAPTURE(name);
    const auto site = mixed(name, {2, 3, 4, 6}, false, x, DType::f64);
    const auto loss = [&] { return sum((*site)(x)*Tensor(g)); };
    const Array slope = grad(loss(), site->logits).value();
    const Array direction = random_normal(slope.shape(), Philox(24), 1, DType::f64);
    const double exact = sum(Tensor(slope) * Tensor(direction)).item();
    CHECK(std::abs(exact - along(site->logits, direction, [&] { return loss().item(); })) < 1e-7);
    const std::vector<double> pi = site->shares().value().to_vector();
    std::vector<double> products;
    double mean = 0;
    for (size_t j = 0; j < pi.size(); ++j) {
      products.push_back(sum((*site->candidates()[j])(x).value * Tensor(g)).item());
      mean += pi[j] * products[j];
    }
    for (size_t j = 0; j < pi.size(); ++j)
      CHECK(slope.to_vector()[j] == doctest::Approx(pi[j] * (products[j] - mean)).epsilon(1e-5));
  }
}

TEST_CASE("ranges and x: the gradient of a site is that of the mixture's surrogate, by differences") {
  struct Site {
    std::string quantizer;
    bool weight;
  };
  const Array g = random_normal({2, 3, 3, 2}, Philox(25), 1, DType::f64);
  for (const auto& [name, weight] :
       {Site{"lsq", false}, Site{"pact", false}, Site{"dsq", false}, Site{"lsq", true}, Site{"dsq", true}}) {
    CAPTURE(name);
    CAPTURE(weight);
    const Array x =
        weight ? random_normal({2, 3, 3, 2}, Philox(34), 0.3, DType::f64) : activations({2, 3, 3, 2}, 1);
    // Ranges of other data: the largest value would lie on the very end of a range, where there is no slope.
    const auto site = mixed(name, {2, 4}, weight, kernels::affine(x, 0.9, 0), DType::f64);
    const std::vector<double> pi = site->shares().value().to_vector();
    Tensors in = {x};
    for (const auto& candidate : site->candidates())
      for (const Tensor& p : candidate->own_parameters()) in.push_back(p.value());
    const auto surrogate = [&](const Tensors& t) {
      Tensor total;
      size_t next = 1;
      for (size_t j = 0; j < pi.size(); ++j) {
        Tensors own = {t[0]};
        Arrays at = {x};
        for (size_t k = 0; k < site->candidates()[j]->own_parameters().size(); ++k, ++next) {
          own.push_back(t[next]);
          at.push_back(in[next].value());
        }
        const Tensor term = site->candidates()[j]->surrogate(own, at) * pi[j];
        total = total.defined() ? total + term : term;
      }
      return sum(total * Tensor(g));
    };
    CHECK(gradcheck(surrogate, in).error < 1e-6);
    const Tensor leaf = Tensor::leaf(x);
    Tensors points = {leaf};
    for (const auto& candidate : site->candidates())
      for (const Tensor& p : candidate->own_parameters()) points.push_back(p);
    REQUIRE(points.size() == in.size());
    const Tensors own = grad({sum((*site)(leaf)*Tensor(g))}, points);
    Tensors leaves;
    for (const Tensor& t : in) leaves.push_back(Tensor::leaf(t.value()));
    const Tensors expected = grad({surrogate(leaves)}, leaves);
    for (size_t i = 0; i < own.size(); ++i) {
      CAPTURE(i);
      check_close(own[i].value(), expected[i].value(), 1e-5);
    }
  }
}

TEST_CASE("one pass over memory gives the values and gradients of the composition, in f32 and bf16") {
  // Longer than a chunk and no multiple of a vector.
  const Shape shape = {3, 41, 37, 5};
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const char* name : {"lsq", "pact"})
      for (const bool negative : {false, true}) {
        CAPTURE(name);
        CAPTURE(negative);
        const Array x = negative ? random_normal(shape, Philox(26), 1, dtype) : activations(shape, 2, dtype);
        const Array g = random_normal(shape, Philox(27), 1, dtype);
        // Ranges of other data: at the very end of a grid, one rounding more or less decides.
        const Array narrower = kernels::affine(cast(x, DType::f32), 0.9, 0);
        const auto site = mixed(name, {1, 2, 3, 4, 5, 6, 7, 8}, false, narrower, DType::f32);
        const Tensor one = Tensor::leaf(x), other = Tensor::leaf(x);
        const Tensors own = learned(*site);
        const auto with = [&](const Tensor& point) {
          Tensors all = {point};
          all.insert(all.end(), own.begin(), own.end());
          return all;
        };
        const Tensor fused = (*site)(one);
        std::vector<Tensors> parameters;
        for (const auto& candidate : site->candidates()) parameters.push_back(candidate->own_parameters());
        const Tensor composed = mix_by_composition(other, site->shares(), site->candidates(), parameters);
        check_close(fused.value(), composed.value(), dtype == DType::bf16 ? 0.004 : 1e-6);
        const Tensors a = grad({fused}, with(one), {.grad_outputs = {Tensor(g)}}),
                      b = grad({composed}, with(other), {.grad_outputs = {Tensor(g)}});
        for (size_t i = 0; i < a.size(); ++i)
          check_close(a[i].value(), b[i].value(), i == 0 && dtype == DType::bf16 ? 0.01 : 2e-3);
      }
}

TEST_CASE("the mixture has the composition's second derivatives") {
  const Array x = activations({2, 3, 3, 2}, 3), g = random_normal({2, 3, 3, 2}, Philox(28), 1, DType::f64);
  const auto site = mixed("lsq", {2, 4}, false, x, DType::f64);
  std::vector<Tensors> parameters;
  for (const auto& candidate : site->candidates()) parameters.push_back(candidate->own_parameters());
  const auto second = [&](const std::function<Tensor(const Tensor&)>& mixture) {
    const Tensor leaf = Tensor::leaf(x), cotangent = Tensor::leaf(g);
    Tensors points = learned(*site);
    points.push_back(leaf);
    const Tensors first = grad({mixture(leaf)}, points, {.create_graph = true, .grad_outputs = {cotangent}});
    Tensor total;
    for (size_t i = 0; i < first.size(); ++i) {
      const Tensor weights = random_normal(first[i].shape(), Philox(29, i), 1, DType::f64);
      const Tensor term = sum(first[i] * weights);
      total = total.defined() ? total + term : term;
    }
    points.push_back(cotangent);
    return grad({total}, points, {.allow_unused = true});
  };
  const Tensors fused = second([&](const Tensor& t) { return (*site)(t); });
  const Tensors composed = second(
      [&](const Tensor& t) { return mix_by_composition(t, site->shares(), site->candidates(), parameters); });
  for (size_t i = 0; i < fused.size(); ++i) check_close(fused[i].value(), composed[i].value(), 1e-5);
}

TEST_CASE("weights: a site of equal shares is the mean of its candidates, and zeros stay zeros") {
  const Array w = random_normal({4, 3, 3, 5}, Philox(30), 0.1);
  for (const std::string& name : catalogue) {
    CAPTURE(name);
    MixedQuantizer site(name, {2, 3, 4}, {.weight = true});
    site.reset(0, "");
    const std::vector<double> mixture = site(w).value().to_vector();
    std::vector<double> mean(mixture.size());
    for (const auto& candidate : site.candidates()) {
      const std::vector<double> one = (*candidate)(w).value.value().to_vector();
      for (size_t i = 0; i < mean.size(); ++i) mean[i] += one[i] / 3;
    }
    for (size_t i = 0; i < mean.size(); ++i) CHECK(std::abs(mixture[i] - mean[i]) < 1e-5);
  }
  MixedQuantizer site("lsq", {2, 4}, {.weight = true});
  for (const double v : site(Array::zeros({4, 3, 3, 5})).value().to_vector()) CHECK(v == 0);
}

TEST_CASE(
    "a supernet of all parts: the whole loss of a search by differences, with the map at an inner block") {
  const auto make = [](uint64_t seed) {
    auto model = nn::make_model("resnet8", {.image_size = 8, .classes = 4, .width = 0.25});
    nn::initialise(*model, seed);
    return model;
  };
  const auto model = make(3), teacher = make(4);
  const SearchSpace space(*model, {2, 4}, {3, 8});
  const auto supernet = attach_supernet(*model, space, {.quantizer = "lsq"});
  const Array images = random_normal(model->input_shape(8), Philox(31)),
              labels = Array::of<int32_t>({1, 0, 3, 2, 0, 1, 2, 3});
  model->eval();
  {
    const NoGrad no_grad;
    (*model)(images);  // ranges
  }
  model->to(DType::f64);
  teacher->to(DType::f64);
  for (const auto& layer : supernet->layers()) {
    Array logits = layer.weight->logits.value();
    logits.assign(random_normal(logits.shape(), Philox(32, stream_of(layer.name)), 1, DType::f64));
  }
  const Budget budget(space.bops({3, 4}), 3, 0.1);
  const Tensor batch = cast(images, DType::f64);
  // In the second case the map lies before the layer, whose weights reach it through its own gradient alone.
  for (const char* block : {"", "layer2.0"}) {
    CAPTURE(block);
    // The exponent follows the bits, but is a constant for the gradient: take a rule that does not move.
    const RiskOptions options{
        .block = block, .explained = ExplainedClass::label, .capacity = {.rule = CapacityRule::constant}};
    const auto imitation = [&] {
      return generalisation_risk(*model, *supernet, nn::explainer_of(*teacher), batch, labels, options)
                 .imitation *
             10;
    };
    const auto loss = [&] { return imitation() + budget.penalty(supernet->expected_bops()); };
    // Of the last searched layer's weights: further back, a step of a later quantizer may be crossed.
    const Tensor& logits = supernet->layers().back().weight->logits;
    const Array direction = random_normal(logits.shape(), Philox(33), 1, DType::f64);
    const auto by_grad = [&](const Tensor& value) {
      return sum(grad(value, logits) * Tensor(direction)).item();
    };
    CHECK(std::abs(by_grad(imitation())) > 1e-4);
    const double exact = by_grad(loss()), numeric = along(logits, direction, [&] { return loss().item(); });
    CHECK(std::abs(exact - numeric) < 1e-6 * std::max(1.0, std::abs(exact)));
  }
}

TEST_CASE("the cost is differentiable: dE/dlogit_j = macs abar pi_j (w_j - wbar)") {
  auto model = nn::make_model("resnet8", {.width = 0.25});
  nn::initialise(*model, 1);
  const SearchSpace space(*model, {2, 3, 6}, {2, 4});
  const auto supernet = attach_supernet(*model, space);
  const auto& layer = supernet->layers()[2];
  Array logits = layer.weight->logits.value();
  logits.assign(Array::of<float>({0.3f, -0.2f, 0.5f}));
  const std::vector<double> pi = layer.weight->shares().value().to_vector(),
                            slope = grad(supernet->expected_bops(), layer.weight->logits).value().to_vector();
  const double w = layer.weight->expected_bits().item(), a = layer.input->expected_bits().item();
  CHECK(a == doctest::Approx(3));
  for (size_t j = 0; j < 3; ++j)
    CHECK(
        slope[j] ==
        doctest::Approx(static_cast<double>(layer.macs) * a * pi[j] * (space.w_bits()[j] - w)).epsilon(1e-3));
}
