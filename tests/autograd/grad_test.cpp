// The engine: what grad() returns, and what it refuses.
#include "../../autograd/grad.h"

#include <doctest/doctest.h>

#include "../../autograd/ops.h"
#include "../../autograd/recorder.h"
#include "../message.h"
#include "common.h"

using namespace stairgrad;

namespace {

Tensor leaf(double value, const std::string& name = {}) {
  return Tensor::leaf(Array::scalar(value, DType::f64), name);
}

}  // namespace

TEST_CASE("grad: leaves and intermediate tensors") {
  const Tensor x = leaf(2), y = x * x, z = y * x;  // x^3
  const Tensors g = grad({z}, {x, y, z}, {.retain_graph = true});
  CHECK(g[0].item() == 12);
  CHECK(g[1].item() == 2);
  CHECK(g[2].item() == 1);
  CHECK(grad(z, y).item() == 2);
}

TEST_CASE("grad: a diamond, and one tensor used twice") {
  const Tensor x = leaf(3), left = x * 2, right = x * x;
  CHECK(grad(left * right, x).item() == 6 * 9);
  CHECK(grad(x + x, x).item() == 2);
  CHECK(grad(x * x, x).item() == 6);
  const Tensors twice = grad({x * x}, {x, x});
  CHECK(twice[0].item() == 6);
  CHECK(twice[1].item() == 6);
}

TEST_CASE("grad: several outputs, with and without cotangents") {
  const Tensor x = leaf(3), a = x * x, b = x * 5;
  CHECK(grad({a, b}, {x}, {.retain_graph = true})[0].item() == 11);
  const Tensor two(2, DType::f64), ten(10, DType::f64);
  CHECK(grad({a, b}, {x}, {.grad_outputs = {two, ten}})[0].item() == 62);
}

TEST_CASE("grad: several gradients of one tensor add up without touching tensors that others hold") {
  const Tensor x = Tensor::leaf(Array::full({4}, 1, DType::f32));
  const Tensor seed = Array::full({4}, 1, DType::f32);
  // reshape and add pass the cotangent's own memory on: five gradients reach x through it.
  const Tensor flat = reshape(x, {2, 2});
  const Tensor y = reshape(flat, {4}) + x + x + reshape(flat, {4}) + x;
  const Tensor held = grad(y, y, {.retain_graph = true, .grad_outputs = {seed}});
  const Tensors g = grad({y}, {x, flat}, {.grad_outputs = {seed}});
  CHECK(g[0].value().to_vector() == std::vector<double>(4, 5));
  CHECK(g[1].value().to_vector() == std::vector<double>(4, 2));
  CHECK(seed.value().to_vector() == std::vector<double>(4, 1));
  CHECK(held.value().to_vector() == std::vector<double>(4, 1));
}

TEST_CASE("grad: derivatives nest to any order") {
  const Tensor x = leaf(1.5);
  Tensor y = pow(x, 5.0);
  double factor = 1;
  for (int order = 1; order <= 5; ++order) {
    y = grad(y, x, {.create_graph = true});
    factor *= 6 - order;
    CHECK(y.item() == doctest::Approx(factor * std::pow(1.5, 5 - order)));
  }
}

TEST_CASE("grad: create_graph decides what is recorded") {
  const Tensor x = leaf(2), y = x * x * x;
  CHECK(!grad(y, x, {.retain_graph = true}).requires_grad());
  CHECK(grad(y, x, {.create_graph = true}).requires_grad());
  {
    const NoGrad off;
    CHECK(grad(y, x, {.create_graph = true}).requires_grad());
    CHECK(recording() == Recording::off);
    CHECK(!(x * x).requires_grad());
  }
  CHECK(recording() == Recording::tape);
}

TEST_CASE("grad: inputs that nothing depends on") {
  const Tensor x = leaf(2), other = Tensor::leaf(Array::full({2, 3}, 1), "other"), y = x * x;
  const std::string error = message_of<argument_error>([&] { grad({y}, {other}, {.retain_graph = true}); });
  CHECK(contains(error, "allow_unused"));
  CHECK(contains(error, "other(2,3)"));
  const Tensors g = grad({y}, {x, other}, {.allow_unused = true});
  CHECK(g[0].item() == 4);
  CHECK(g[1].value().to_vector() == std::vector<double>(6, 0));
}

TEST_CASE("grad: a released record says which op and which option") {
  const Tensor x = leaf(2), y = exp(x);
  grad(y, x);
  const std::string error = message_of<argument_error>([&] { grad(y, x); });
  CHECK(contains(error, "[exp]"));
  CHECK(contains(error, "retain_graph = true"));
}

TEST_CASE("grad: a changed value says which op and which tensor") {
  Array value = Array::scalar(2, DType::f64);
  const Tensor x = Tensor::leaf(value, "weight"), y = x * x, z = x + x;
  value.assign(Array::scalar(3, DType::f64));
  const std::string error = message_of<argument_error>([&] { grad(y, x); });
  CHECK(contains(error, "[mul]"));
  CHECK(contains(error, "weight"));
  CHECK(grad(z, x).item() == 2);  // add reads no values
}

TEST_CASE("grad: arguments that do not fit") {
  const Tensor x = Tensor::leaf(Array::full({2}, 1)), constant = Array::full({2}, 1), y = x * 2;
  CHECK(contains(message_of<argument_error>([&] { grad(y, x); }), "expected a scalar"));
  CHECK(contains(message_of<argument_error>([&] { grad(sum(y), constant); }), "does not require a gradient"));
  CHECK(
      contains(message_of<argument_error>([&] { grad({y}, {x}, {.grad_outputs = {Tensor(1, DType::f32)}}); }),
               "grad_outputs 0"));
  CHECK(contains(message_of<argument_error>(
                     [&] { grad({y}, {x}, {.grad_outputs = {Array::full({2}, 1, DType::f64)}}); }),
                 "grad_outputs 0: got f64"));
  CHECK(contains(message_of<argument_error>([&] {
                   grad({y}, {x}, {.grad_outputs = {y, y}});
                 }),
                 "2 grad_outputs for 1 outputs"));
}

TEST_CASE("grad: types do not mix by accident") {
  const Tensor f32 = Array::full({2}, 1), bf = Array::full({2}, 1, DType::bf16),
               f64 = Array::full({2}, 1, DType::f64);
  for (const auto& function : std::vector<TensorFunction>{
           [](const Tensors& t) { return t[0] + t[1]; }, [](const Tensors& t) { return t[0] * t[1]; },
           [](const Tensors& t) { return maximum(t[0], t[1]); },
           [](const Tensors& t) { return concat(t, 0); },
           [](const Tensors& t) { return greater(t[0], t[1]); }}) {
    const std::string error = message_of<argument_error>([&] { function({bf, f32}); });
    CHECK(contains(error, "["));
    CHECK(contains(error, "types bf16 and f32"));
    CHECK(!message_of<argument_error>([&] { function({f64, f32}); }).empty());
  }
  CHECK(cast(f64, DType::f32).dtype() == DType::f32);
}

TEST_CASE("grad: a chain of 100,000 nodes is walked and destroyed") {
  const uint64_t before = detail::live_nodes();
  {
    const Tensor x = leaf(1);
    Tensor y = x;
    for (int i = 0; i < 100000; ++i) y = y + 1;
    CHECK(detail::live_nodes() - before == 100001);
    CHECK(grad(y, x, {.create_graph = true}).item() == 1);
    Tensor unused = x;
    for (int i = 0; i < 100000; ++i) unused = unused * unused;
  }
  CHECK(detail::live_nodes() == before);
}

TEST_CASE("grad: no node is left when the tensors are gone") {
  const uint64_t before = detail::live_nodes();
  for (const bool create_graph : {false, true}) {
    const Tensor x = Tensor::leaf(random_normal({2, 4, 4, 3}, Philox(1)));
    const Tensor w = Tensor::leaf(random_normal({3, 3, 3, 3}, Philox(2)));
    const Tensor gamma = Tensor::leaf(Array::full({3}, 1)), beta = Tensor::leaf(Array::zeros({3}));
    const Tensor y =
        batch_norm_train(conv2d(x, w, Conv2dOptions::with(1, 1)), gamma, beta, {1e-5, true}, x).y;
    const Tensors g =
        grad({sum(max_pool2d(y, Pool2dOptions::with(2, 2)))}, {x, w}, {.create_graph = create_graph});
    if (create_graph) grad({sum(square(g[0])) + sum(square(g[1]))}, {x, w, gamma}, {.create_graph = true});
  }
  CHECK(detail::live_nodes() == before);
}

TEST_CASE("grad: ops with several outputs") {
  const Tensor x = Tensor::leaf(random_normal({6, 3}, Philox(1), 1, DType::f64));
  const Tensor gamma = Tensor::leaf(Array::full({3}, 2, DType::f64)),
               beta = Tensor::leaf(Array::zeros({3}, DType::f64));
  const BatchNormResult r = batch_norm_train(x, gamma, beta);
  CHECK(r.y.requires_grad());
  CHECK(!r.mean.requires_grad());
  CHECK(!r.var.requires_grad());
  // Only some of the inputs ask for a gradient.
  CHECK(grad(sum(square(r.y)), beta, {.retain_graph = true}).shape() == Shape{3});
  const Sorted top = top_k(x, 2);
  CHECK(!top.index.requires_grad());
  CHECK(sum(grad(sum(top.values), x)).item() == 12);
}

TEST_CASE("grad: gradients of a fused op's inputs are partial ones, also where one depends on another") {
  // skip = x: both arrive at x. gamma is computed from x: its path must be counted once.
  const auto function = [](const Tensors& t) {
    const Tensor gamma = mean(square(t[0]), {0}) + 0.5, beta = mean(t[0], {0});
    return batch_norm_train(t[0], gamma, beta, {1e-3, true}, t[0] * 0.3).y;
  };
  const Tensors inputs = {random_normal({5, 3}, Philox(4), 1, DType::f64)};
  CHECK(gradcheck(function, inputs, 1, 5e-4).error < 1e-6);
  CHECK(gradcheck(function, inputs, 2, 5e-4).error < 1e-5);
  CHECK(gradcheck(function, {inputs[0]}, 3, 2e-3).error < 1e-4);
}

TEST_CASE("grad: zero derivatives and straight-through") {
  const Tensor x = Tensor::leaf(Array::of<double>({-1.5, -0.2, 0, 0.4, 2.6}));
  const auto g = [&](Tensor (*op)(const Tensor&)) { return grad(sum(op(x)), x).value().to_vector(); };
  const std::vector<double> zeros(5, 0), ones(5, 1);
  CHECK(g(stairgrad::round) == zeros);
  CHECK(g(stairgrad::floor) == zeros);
  CHECK(g(stairgrad::sign) == zeros);
  CHECK(g(round_ste) == ones);
  CHECK(g(floor_ste) == ones);
  CHECK(round_ste(x).value().to_vector() == std::vector<double>{-2, 0, 0, 0, 3});
  CHECK(floor_ste(x).value().to_vector() == std::vector<double>{-2, -1, 0, 0, 2});
  // A mask's derivative is zero too, not missing.
  CHECK(grad(sum(pass_inside(Array::full({5}, 1, DType::f64), x, -1, 1, true)), x).value().to_vector() ==
        zeros);
  CHECK(grad(sum(where(x, Tensor(1, DType::f64), Tensor(2, DType::f64))), x).value().to_vector() == zeros);
  CHECK(grad(sum(x * stop_grad(x)), x).value().to_vector() == x.value().to_vector());
  CHECK(!stop_grad(x).requires_grad());
  // The second derivative of a straight-through op is exactly zero.
  const Tensor first = grad(sum(square(x) + round_ste(x)), x, {.create_graph = true});
  CHECK(grad(sum(first), x).value().to_vector() == std::vector<double>(5, 2));
}

TEST_CASE("grad: ties and kinks follow the stated rules") {
  const auto at = [](double value, const TensorFunction& f) {
    const Tensor x = leaf(value);
    return grad(f({x}), x).item();
  };
  CHECK(at(0, [](const Tensors& t) { return relu(t[0]); }) == 0);
  CHECK(at(0, [](const Tensors& t) { return leaky_relu(t[0], 0.1); }) == 0);
  CHECK(at(0, [](const Tensors& t) { return abs(t[0]); }) == 0);
  for (const double bound : {-1.0, 1.0}) {
    CHECK(at(bound, [](const Tensors& t) { return clamp(t[0], -1, 1); }) == 1);
    CHECK(at(bound, [](const Tensors& t) { return hardtanh(t[0]); }) == 0);
  }
  CHECK(at(6, [](const Tensors& t) { return relu6(t[0]); }) == 0);
  CHECK(at(6.5, [](const Tensors& t) { return clamp(t[0], 0, 6); }) == 0);

  const Tensor a = leaf(2), b = leaf(2);
  for (const auto op : {minimum, maximum}) {
    const Tensors g = grad({op(a, b)}, {a, b});
    CHECK(g[0].item() == 1);
    CHECK(g[1].item() == 0);
  }
  const Tensor x = Tensor::leaf(Array::of<double>({1, 3, 3, 1}));
  CHECK(grad(max(x), x).value().to_vector() == std::vector<double>{0, 1, 0, 0});
  CHECK(grad(min(x), x).value().to_vector() == std::vector<double>{1, 0, 0, 0});
  CHECK(argmax(x).value().to_vector() == std::vector<double>{1});
  CHECK(sort(x).index.value().to_vector() == std::vector<double>{0, 3, 1, 2});
  CHECK(top_k(x, 2).index.value().to_vector() == std::vector<double>{1, 2});
  const Tensor plane = Tensor::leaf(Array::full({1, 2, 2, 1}, 5, DType::f64));
  CHECK(grad(sum(max_pool2d(plane, Pool2dOptions::with(2, 2))), plane).value().to_vector() ==
        std::vector<double>{1, 0, 0, 0});
  CHECK(greater(a, b).item() == 0);
  CHECK(greater_equal(a, b).item() == 1);
  CHECK(equal(a, b).item() == 1);
}
