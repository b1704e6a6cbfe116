#include "generator.h"

#include "../../autograd/ops.h"

namespace stairgrad::quant::datafree {

namespace {

constexpr int64_t latent = 100;

Tensor normalised_rows(const Tensor& x) { return (x - mean(x, {1}, true)) / sqrt(var(x, {1}, true) + 1e-5); }

}  // namespace

Generator::Generator(int64_t classes, int64_t side, int64_t channels, const Array& embeddings)
    : quarter_(side / 4),
      given_(embeddings),
      embedding_(
          add_parameter("embedding", embeddings.has_value() ? embeddings.shape() : Shape{classes, latent})) {
  check(side >= 4 && side % 4 == 0, "[generator] got images of side ", side, ", expected a multiple of 4");
  const auto conv = [&](const char* name, int64_t in, int64_t out) {
    return add_module(name,
                      std::make_shared<nn::Conv2d>(in, out, 3, Conv2dOptions::with(1, 1), /*bias=*/true));
  };
  const auto norm = [&](const char* name, int64_t features, double eps) {
    return add_module(name, std::make_shared<nn::BatchNorm2d>(features, eps));
  };
  check(embedding_.dim(0) == classes, "[generator] got embeddings ", embedding_.shape(), " for ", classes,
        " classes, expected a row for each");
  if (given_.has_value()) reduce_ = add_module("reduce", std::make_shared<nn::Linear>(noise(), latent));
  spread_ = add_module("spread", std::make_shared<nn::Linear>(latent, 128 * quarter_ * quarter_));
  norm0_ = norm("norm0", 128, 1e-5);
  conv1_ = conv("conv1", 128, 128);
  norm1_ = norm("norm1", 128, 0.8);
  conv2_ = conv("conv2", 128, 64);
  norm2_ = norm("norm2", 64, 0.8);
  conv3_ = conv("conv3", 64, channels);
  norm3_ = norm("norm3", channels, 1e-5);
}

void Generator::reset(uint64_t seed, const std::string& path) {
  Array target = embedding_.value();
  target.assign(
      given_.has_value()
          ? given_
          : random_normal(target.shape(), Philox(seed, stream_of(path + ".embedding")), 1, target.dtype()));
}

Tensor Generator::operator()(const Tensor& z, const Tensor& labels) {
  const int64_t n = z.dim(0);
  const Tensor of_classes = matmul(labels, embedding_);
  Tensor x = (*spread_)(reduce_ ? (*reduce_)(normalised_rows(of_classes + z)) : z * of_classes);
  x = (*norm0_)(reshape(x, {n, quarter_, quarter_, 128}));
  x = leaky_relu((*norm1_)((*conv1_)(resize_nearest(x, 2 * quarter_, 2 * quarter_))), 0.2);
  x = leaky_relu((*norm2_)((*conv2_)(resize_nearest(x, 4 * quarter_, 4 * quarter_))), 0.2);
  return (*norm3_)(tanh((*conv3_)(x)));
}

std::vector<nn::NamedTensor> Generator::learned() const {
  std::vector<nn::NamedTensor> all = parameters();
  std::erase_if(all, [](const nn::NamedTensor& p) { return p.name.starts_with("norm3."); });
  return all;
}

}  // namespace stairgrad::quant::datafree
