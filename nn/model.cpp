#include "model.h"

#include "resnet.h"

namespace stairgrad::nn {

Tensor Model::forward(const Tensor& x, size_t from, size_t to) {
  check(from <= to && to <= blocks_.size(), "[model] got blocks ", from, " to ", to, " of ", blocks_.size());
  Tensor y = x;
  for (size_t i = from; i < to; ++i) y = blocks_[i].run(y);
  return y;
}

void Model::attach(const std::string& name, std::shared_ptr<Module> child) {
  remove_module(name);
  child->train(training());
  add_module(name, std::move(child));
}

Shape Model::input_shape(int64_t batch) const {
  return {batch, image_shape_[0], image_shape_[1], image_shape_[2]};
}

namespace {

std::unique_ptr<Model> cifar_resnet(int64_t depth, Shortcut shortcut, const ModelOptions& options) {
  CifarResNetOptions resnet;
  resnet.blocks_per_stage = (depth - 2) / 6;
  resnet.width = std::max<int64_t>(1, std::llround(16 * options.width));
  resnet.in_channels = options.in_channels;
  resnet.image_size = options.image_size;
  resnet.classes = options.classes;
  resnet.shortcut = shortcut;
  return std::make_unique<CifarResNet>(resnet);
}

using Maker = std::function<std::unique_ptr<Model>(const ModelOptions&)>;

const std::vector<std::pair<std::string, Maker>>& zoo() {
  static const std::vector<std::pair<std::string, Maker>> models = [] {
    std::vector<std::pair<std::string, Maker>> list;
    for (const int64_t depth : {8, 14, 20, 32, 44, 56, 110}) {
      list.emplace_back(text("resnet", depth),
                        [depth](const ModelOptions& o) { return cifar_resnet(depth, Shortcut::A, o); });
      list.emplace_back(text("resnet", depth, "b"),
                        [depth](const ModelOptions& o) { return cifar_resnet(depth, Shortcut::B, o); });
    }
    return list;
  }();
  return models;
}

}  // namespace

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const auto& [name, maker] : zoo()) names.push_back(name);
  return names;
}

std::unique_ptr<Model> make_model(const std::string& name, const ModelOptions& options) {
  std::string known;
  for (const auto& [own, maker] : zoo()) {
    if (own == name) return maker(options);
    known += ' ' + own;
  }
  throw argument_error(text("[model] got the name '", name, "', expected one of:", known));
}

}  // namespace stairgrad::nn
