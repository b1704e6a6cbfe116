#include "op_table.h"

#include "../kernels/random.h"

namespace stairgrad {

std::vector<Sample> abs_samples();
std::vector<Sample> adaptive_avg_pool2d_samples();
std::vector<Sample> add_samples();
std::vector<Sample> affine_samples();
std::vector<Sample> argmax_samples();
std::vector<Sample> avg_pool2d_samples();
std::vector<Sample> batch_norm_samples();
std::vector<Sample> cast_samples();
std::vector<Sample> clamp_samples();
std::vector<Sample> concat_samples();
std::vector<Sample> conv2d_samples();
std::vector<Sample> cosine_similarity_samples();
std::vector<Sample> cross_entropy_samples();
std::vector<Sample> div_samples();
std::vector<Sample> dropout_samples();
std::vector<Sample> equal_samples();
std::vector<Sample> exp_samples();
std::vector<Sample> floor_samples();
std::vector<Sample> floor_ste_samples();
std::vector<Sample> gather_samples();
std::vector<Sample> global_avg_pool_samples();
std::vector<Sample> greater_samples();
std::vector<Sample> greater_equal_samples();
std::vector<Sample> gumbel_softmax_samples();
std::vector<Sample> hardswish_samples();
std::vector<Sample> index_select_samples();
std::vector<Sample> kl_divergence_samples();
std::vector<Sample> l2_normalise_samples();
std::vector<Sample> leaky_relu_samples();
std::vector<Sample> linear_samples();
std::vector<Sample> log_samples();
std::vector<Sample> log_softmax_samples();
std::vector<Sample> logsumexp_samples();
std::vector<Sample> matmul_samples();
std::vector<Sample> max_samples();
std::vector<Sample> max_pool2d_samples();
std::vector<Sample> maximum_samples();
std::vector<Sample> mean_samples();
std::vector<Sample> min_samples();
std::vector<Sample> minimum_samples();
std::vector<Sample> mse_samples();
std::vector<Sample> mul_samples();
std::vector<Sample> neg_samples();
std::vector<Sample> one_hot_samples();
std::vector<Sample> pad_samples();
std::vector<Sample> pass_inside_samples();
std::vector<Sample> pow_samples();
std::vector<Sample> relu_samples();
std::vector<Sample> reshape_samples();
std::vector<Sample> resize_bilinear_samples();
std::vector<Sample> resize_nearest_samples();
std::vector<Sample> round_samples();
std::vector<Sample> round_ste_samples();
std::vector<Sample> rsqrt_samples();
std::vector<Sample> sigmoid_samples();
std::vector<Sample> sign_samples();
std::vector<Sample> silu_samples();
std::vector<Sample> slice_samples();
std::vector<Sample> soft_cross_entropy_samples();
std::vector<Sample> softmax_samples();
std::vector<Sample> softplus_samples();
std::vector<Sample> sort_samples();
std::vector<Sample> sqrt_samples();
std::vector<Sample> square_samples();
std::vector<Sample> stop_grad_samples();
std::vector<Sample> sub_samples();
std::vector<Sample> sum_samples();
std::vector<Sample> tanh_samples();
std::vector<Sample> transpose_samples();
std::vector<Sample> var_samples();
std::vector<Sample> where_samples();

const std::vector<OpEntry>& op_table() {
  // clang-format off
  static const std::vector<OpEntry> table = {
      {"abs", abs_samples},
      {"adaptive_avg_pool2d", adaptive_avg_pool2d_samples},
      {"add", add_samples},
      {"affine", affine_samples},
      {"argmax", argmax_samples},
      {"avg_pool2d", avg_pool2d_samples},
      {"batch_norm", batch_norm_samples},
      {"cast", cast_samples},
      {"clamp", clamp_samples},
      {"concat", concat_samples},
      {"conv2d", conv2d_samples},
      {"cosine_similarity", cosine_similarity_samples},
      {"cross_entropy", cross_entropy_samples},
      {"div", div_samples},
      {"dropout", dropout_samples},
      {"equal", equal_samples},
      {"exp", exp_samples},
      {"floor", floor_samples},
      {"floor_ste", floor_ste_samples},
      {"gather", gather_samples},
      {"global_avg_pool", global_avg_pool_samples},
      {"greater", greater_samples},
      {"greater_equal", greater_equal_samples},
      {"gumbel_softmax", gumbel_softmax_samples},
      {"hardswish", hardswish_samples},
      {"index_select", index_select_samples},
      {"kl_divergence", kl_divergence_samples},
      {"l2_normalise", l2_normalise_samples},
      {"leaky_relu", leaky_relu_samples},
      {"linear", linear_samples},
      {"log", log_samples},
      {"log_softmax", log_softmax_samples},
      {"logsumexp", logsumexp_samples},
      {"matmul", matmul_samples},
      {"max", max_samples},
      {"max_pool2d", max_pool2d_samples},
      {"maximum", maximum_samples},
      {"mean", mean_samples},
      {"min", min_samples},
      {"minimum", minimum_samples},
      {"mse", mse_samples},
      {"mul", mul_samples},
      {"neg", neg_samples},
      {"one_hot", one_hot_samples},
      {"pad", pad_samples},
      {"pass_inside", pass_inside_samples},
      {"pow", pow_samples},
      {"relu", relu_samples},
      {"reshape", reshape_samples},
      {"resize_bilinear", resize_bilinear_samples},
      {"resize_nearest", resize_nearest_samples},
      {"round", round_samples},
      {"round_ste", round_ste_samples},
      {"rsqrt", rsqrt_samples},
      {"sigmoid", sigmoid_samples},
      {"sign", sign_samples},
      {"silu", silu_samples},
      {"slice", slice_samples},
      {"soft_cross_entropy", soft_cross_entropy_samples},
      {"softmax", softmax_samples},
      {"softplus", softplus_samples},
      {"sort", sort_samples},
      {"sqrt", sqrt_samples},
      {"square", square_samples},
      {"stop_grad", stop_grad_samples},
      {"sub", sub_samples},
      {"sum", sum_samples},
      {"tanh", tanh_samples},
      {"transpose", transpose_samples},
      {"var", var_samples},
      {"where", where_samples},
  };
  // clang-format on
  return table;
}

Tensor sample_tensor(Shape shape, uint64_t stream, double scale) {
  return random_normal(shape, Philox(1, stream), scale, DType::f64);
}

Tensor sample_positive(Shape shape, uint64_t stream) {
  return random_uniform(shape, Philox(2, stream), 0.5, 2, DType::f64);
}

Tensor sample_distinct(Shape shape, uint64_t stream) {
  Array values(shape, DType::f64);
  const std::vector<int64_t> order = random_permutation(shape.size(), Philox(3, stream));
  for (size_t i = 0; i < order.size(); ++i)
    values.data<double>()[i] =
        (static_cast<double>(order[i]) - 0.5 * static_cast<double>(order.size()) + 0.37) * 0.05;
  return values;
}

}  // namespace stairgrad
