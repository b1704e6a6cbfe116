#include "zoo.h"

namespace stairgrad::nn {
namespace {

struct Entry {
  std::string name;
  std::function<std::unique_ptr<Model>(const ModelOptions&)> make;
  int64_t image_size, classes;
};

std::vector<Entry> entries() {
  std::vector<Entry> list;
  const auto add = [&](const std::string& name, Stem stem, auto make) {
    const bool imagenet = stem == Stem::imagenet;
    list.push_back({name, make, imagenet ? 224 : 32, imagenet ? 1000 : 10});
  };
  using Options = const ModelOptions&;
  for (const int64_t depth : {8, 14, 20, 32, 44, 56, 110}) {
    add(text("resnet", depth), Stem::cifar, [=](Options o) { return cifar_resnet(depth, Shortcut::A, o); });
    add(text("resnet", depth, 'b'), Stem::cifar,
        [=](Options o) { return cifar_resnet(depth, Shortcut::B, o); });
  }
  add("vgg_small", Stem::cifar, vgg_small);
  for (const Stem stem : {Stem::imagenet, Stem::cifar}) {
    const std::string ending = stem == Stem::cifar ? "_cifar" : "";
    for (const int64_t depth : {18, 34, 50})
      add(text("resnet", depth, ending), stem, [=](Options o) { return resnet(depth, stem, o); });
    add("mobilenet_v2" + ending, stem, [=](Options o) { return mobilenet_v2(stem, o); });
  }
  add("mobilenet_v1", Stem::imagenet, mobilenet_v1);
  add("regnetx_600mf", Stem::imagenet, [](Options o) { return regnet_x(600, o); });
  add("regnetx_3_2gf", Stem::imagenet, [](Options o) { return regnet_x(3200, o); });
  add("mnasnet1_0", Stem::imagenet, [](Options o) { return mnasnet(1, o); });
  add("mnasnet2_0", Stem::imagenet, [](Options o) { return mnasnet(2, o); });
  return list;
}

const std::vector<Entry>& zoo() {
  static const std::vector<Entry> list = entries();
  return list;
}

const Entry& find(const std::string& name) {
  std::string known;
  for (const Entry& entry : zoo()) {
    if (entry.name == name) return entry;
    known += ' ' + entry.name;
  }
  throw argument_error(text("[model] got the name '", name, "', expected one of:", known));
}

}  // namespace

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const Entry& entry : zoo()) names.push_back(entry.name);
  return names;
}

ModelOptions usual_options(const std::string& name) {
  const Entry& entry = find(name);
  return {.image_size = entry.image_size, .classes = entry.classes};
}

std::unique_ptr<Model> make_model(const std::string& name, const ModelOptions& options) {
  const Entry& entry = find(name);
  check(options.in_channels > 0 && options.image_size > 0 && options.classes > 0 && options.width > 0 &&
            options.style.eps > 0,
        "[model] got ", options.in_channels, " channels, images of ", options.image_size, " pixels, ",
        options.classes, " classes, width ", options.width, " and eps ", options.style.eps,
        ", expected numbers above 0");
  check(!options.style.same_padding || options.image_size % 32 == 0, "[model] got images of ",
        options.image_size, " pixels, expected a multiple of 32 for TensorFlow's padding");
  return entry.make(options);
}

std::unique_ptr<Model> make_model(const std::string& name) { return make_model(name, usual_options(name)); }

}  // namespace stairgrad::nn
