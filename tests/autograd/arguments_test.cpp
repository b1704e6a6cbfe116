// What ops refuse: each error names the op.
#include <doctest/doctest.h>

#include "../../autograd/ops.h"
#include "../message.h"
#include "common.h"

using namespace stairgrad;

TEST_CASE("arguments: wrong ones throw an error that names the op") {
  const Tensor x = Array::full({2, 3}, 1), y = Array::full({3, 2}, 1), image = Array::full({1, 4, 4, 2}, 1);
  const Tensor labels = Array::of<int32_t>({0, 5}), negative = Array::of<int32_t>({0, -1});
  const Tensor gamma = Array::full({2}, 1), wide = Array::full({3}, 1);
  const Tensor parameter = Tensor::leaf(Array::full({2}, 1));
  const std::vector<std::pair<const char*, std::function<void()>>> cases = {
      {"matmul", [&] { matmul(x, x); }},
      {"matmul", [&] { matmul(x, Array::full({3}, 1)); }},
      {"linear", [&] { linear(x, y); }},
      {"linear", [&] { linear(x, x, wide); }},
      {"conv2d",
       [&] {
         conv2d(image, Array::full({3, 3, 3, 5}, 1));
       }},
      {"conv2d_backward_data",
       [&] {
         conv2d_backward_data(image, Array::full({2, 3, 3, 2}, 1), {1, 4, 4, 2});
       }},
      {"conv2d_backward_weights",
       [&] {
         conv2d_backward_weights(image, image, {2, 3, 3, 2});
       }},
      {"batch_norm", [&] { batch_norm_train(image, wide, gamma); }},
      {"batch_norm", [&] { batch_norm_train(image, gamma, gamma, {}, x); }},
      {"batch_norm", [&] { batch_norm_train(gamma, gamma, gamma); }},
      {"batch_norm",
       [&] {
         batch_norm_train(Array(Shape{0, 2}), gamma, gamma);
       }},
      {"batch_norm", [&] { batch_norm_eval(image, gamma, gamma, parameter, gamma); }},
      {"cross_entropy", [&] { cross_entropy(x, labels); }},
      {"cross_entropy", [&] { cross_entropy(x, negative); }},
      {"cross_entropy", [&] { cross_entropy(x, gamma); }},
      {"cross_entropy",
       [&] {
         cross_entropy(x, Array::of<int32_t>({0, 1}), 1);
       }},
      {"soft_cross_entropy", [&] { soft_cross_entropy(x, y); }},
      {"kl_divergence", [&] { kl_divergence(x, y); }},
      {"kl_divergence", [&] { kl_divergence(x, x, 0); }},
      {"mse", [&] { mse(x, Array::full({3}, 1)); }},
      {"cosine_similarity", [&] { cosine_similarity(x, Array::full({3}, 1)); }},
      {"sum", [&] { sum(x, {2}); }},
      {"sum",
       [&] {
         sum(x, {0, -2});
       }},
      {"broadcast", [&] { sum_to(x, {4}); }},
      {"max", [&] { max(x, {-3}); }},
      {"argmax", [&] { argmax(x, 2); }},
      {"var", [&] { var(x, {0}, false, 2); }},
      {"softmax", [&] { softmax(x, {5}); }},
      {"reshape", [&] { reshape(x, {5}); }},
      {"transpose",
       [&] {
         transpose(x, {0, 0});
       }},
      {"transpose", [&] { transpose(x, {0}); }},
      {"concat",
       [&] {
         concat({x, y}, 0);
       }},
      {"concat", [&] { concat({}, 0); }},
      {"slice", [&] { slice(x, 1, 2, 4); }},
      {"slice", [&] { slice(x, 1, 2, 1); }},
      {"slice",
       [&] {
         slice(x, {{0, 2, 1}});
       }},
      {"unslice",
       [&] {
         unslice(x, {4, 4}, {{0, 1, 1}, {0, 3, 1}});
       }},
      {"pad", [&] { pad(x, {1}, {1}); }},
      {"pad",
       [&] {
         pad(x, {1, -1}, {0, 0});
       }},
      {"gather",
       [&] {
         gather(x, Array::of<int32_t>({0, 3}, {2, 1}));
       }},
      {"scatter_add",
       [&] {
         scatter_add(x, Array::of<int32_t>({0, 1, 2, 0, 1, 3}, {2, 3}), 3);
       }},
      {"index_select", [&] { index_select(x, 0, Array::of<int32_t>({2})); }},
      {"index_add",
       [&] {
         index_add(x, 0, Array::of<int32_t>({2, 0}), 2);
       }},
      {"one_hot", [&] { one_hot(labels, 5); }},
      {"one_hot", [&] { one_hot(x, 5); }},
      {"top_k", [&] { top_k(x, 4); }},
      {"sort", [&] { sort(Tensor(1, DType::f32)); }},
      {"clamp", [&] { clamp(x, 1, 0); }},
      {"hardtanh", [&] { hardtanh(x, 1, 0); }},
      {"pass_inside", [&] { pass_inside(x, y, 0, 1, true); }},
      {"pool2d", [&] { max_pool2d(image, Pool2dOptions::with(5, 1)); }},
      {"max_pool2d_scatter",
       [&] {
         max_pool2d_scatter(image, x, {1, 4, 4, 2});
       }},
      {"pool2d", [&] { avg_pool2d(x, Pool2dOptions::with(2, 2)); }},
      {"avg_pool2d_backward",
       [&] {
         avg_pool2d_backward(image, {1, 4, 4, 2}, Pool2dOptions::with(2, 2));
       }},
      {"global_avg_pool", [&] { global_avg_pool(x); }},
      {"global_avg_pool_backward",
       [&] {
         global_avg_pool_backward(image, {1, 4, 4, 2});
       }},
      {"adaptive_avg_pool2d", [&] { adaptive_avg_pool2d(image, 0, 1); }},
      {"resize_nearest", [&] { resize_nearest(x, 2, 2); }},
      {"resize_bilinear", [&] { resize_bilinear(image, 2, 0); }},
      {"dropout", [&] { dropout(x, 1, Philox(1)); }},
      {"gumbel_softmax", [&] { gumbel_softmax(x, 0, Philox(1)); }},
  };
  for (const auto& c : cases) {
    const std::string name = c.first;
    INFO(name);
    const std::string message = message_of<argument_error>(c.second);
    INFO(message);
    CHECK(contains(message, text('[', name)));
  }
}
