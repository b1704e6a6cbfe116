#include "model.h"

#include "layers.h"

namespace stairgrad::nn {

Tensor Model::forward(const Tensor& x, size_t from, size_t to) {
  check(from <= to && to <= blocks_.size(), "[model] got blocks ", from, " to ", to, " of ", blocks_.size());
  Tensor y = x;
  for (size_t i = from; i < to; ++i) y = blocks_[i].run(y);
  return y;
}

void Model::add_block(const std::string& name, const std::shared_ptr<Layer>& layer) {
  add_module(name, layer);
  add_block(name, [layer](const Tensor& x) { return (*layer)(x); });
}

void Model::add_head(const std::string& name, int64_t channels, int64_t classes) {
  const auto linear = add_module(name, std::make_shared<Linear>(channels, classes));
  add_block("head", [pool = std::make_shared<GlobalAvgPool>(), linear](const Tensor& x) {
    return (*linear)((*pool)(x));
  });
}

void Model::attach(const std::string& name, std::shared_ptr<Module> child) {
  remove_module(name);
  child->train(training());
  add_module(name, std::move(child));
}

Shape Model::input_shape(int64_t batch) const {
  return {batch, image_shape_[0], image_shape_[1], image_shape_[2]};
}

std::string to_string(Activation activation) { return activation == Activation::relu ? "relu" : "hardtanh"; }

Activation parse_activation(const std::string& name) {
  check(name == "relu" || name == "hardtanh", "[activation] got \"", name, "\", expected relu or hardtanh");
  return name == "relu" ? Activation::relu : Activation::hardtanh;
}

}  // namespace stairgrad::nn
