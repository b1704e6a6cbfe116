// Every network of the zoo against golden logits of an independent PyTorch program, tests/golden/zoo.py.
#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "../../autograd/recorder.h"
#include "../../data/formats/json.h"
#include "../../nn/import.h"
#include "../../quant/cost.h"

using namespace stairgrad;
using namespace stairgrad::nn;

namespace {

// The program's uniform() and value(): splitmix64, seeded by the FNV-1a hash of the name.
class Uniform {
 public:
  explicit Uniform(const std::string& name) {
    for (const char c : name) state_ = (state_ ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  }
  double next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return static_cast<double>((z ^ (z >> 31)) >> 40) * 0x1p-24;
  }

 private:
  uint64_t state_ = 0xcbf29ce484222325u;
};

Array value(const std::string& name, const Shape& shape, bool normalises) {
  Uniform uniform(name);
  Array result(shape);
  double fan_in = 1;
  for (int axis = 1; axis < shape.rank(); ++axis)
    fan_in *= static_cast<double>(shape[static_cast<size_t>(axis)]);
  const bool weight = name.ends_with(".weight"),
             positive = name.ends_with(".running_var") || (weight && normalises);
  const double bound = std::sqrt(6 / fan_in);
  for (int64_t i = 0; i < result.size(); ++i) {
    const double u = uniform.next();
    result.data<float>()[i] = static_cast<float>(positive ? 0.5 + u : weight ? (2 * u - 1) * bound : u - 0.5);
  }
  return result;
}

// What torch.save would have kept of the network: PyTorch's names, shapes and order.
State pytorch_state(const std::string& model, const State& own) {
  State foreign;
  for (const auto& [own_name, array] : own) {
    std::string name = own_name;
    // The CIFAR networks with shortcut B call it shortcut there.
    if (const size_t at = name.find("downsample."); model.ends_with('b') && at != std::string::npos)
      name.replace(at, 10, "shortcut");
    Shape shape = array.shape();
    if (shape.rank() == 4) shape = {shape[0], shape[3], shape[1], shape[2]};
    if (model == "vgg_small" && name == "fc.weight") shape = {shape[0], shape[1] * shape[2] * shape[3]};
    const bool normalises = own.count(own_name.substr(0, own_name.rfind('.')) + ".running_mean");
    foreign["module." + name] = value(name, shape, normalises);
  }
  return foreign;
}

data::Json golden_networks() {
  const std::string path = GOLDEN "/zoo.json";
  return data::parse_json(data::read_file(path, 1 << 20), path).at("networks");
}

}  // namespace

TEST_CASE("logits of every network equal PyTorch's") {
  std::set<std::string> compared;
  for (const data::Json& entry : golden_networks()) {
    const std::string name = entry.at("model");
    CAPTURE(name);
    const double width = entry.at("width");
    const int64_t size = entry.at("size");
    CAPTURE(width);
    const auto model = make_model(name, {.image_size = size, .classes = 10, .width = width});
    const State own = model->state();
    model->load_state(import_recipe("pytorch").translate(pytorch_state(name, own), own));
    model->eval();

    Array images({2, size, size, 3});
    Uniform uniform("pictures");
    for (int64_t i = 0; i < images.size(); ++i)
      images.data<float>()[i] = static_cast<float>(4 * uniform.next() - 2);
    const NoGrad no_grad;
    const std::vector<double> logits = (*model)(images).value().to_vector();
    double largest = 0, worst = 0;
    for (size_t i = 0; i < 20; ++i) {
      const double expected = entry.at("logits")[i / 10][i % 10];
      largest = std::max(largest, std::abs(expected));
      worst = std::max(worst, std::abs(logits[i] - expected));
    }
    CHECK(worst <= 1e-4 * largest);
    compared.insert(name);
  }
  for (const std::string& name : model_names())
    CHECK_MESSAGE(compared.count(name), name, " has no golden logits");
}

TEST_CASE("parameters and multiply-accumulates at the usual size are those that PyTorch counts") {
  for (const data::Json& entry : golden_networks()) {
    const std::string name = entry.at("model");
    CAPTURE(name);
    ModelOptions options = usual_options(name);
    options.width = entry.at("width");
    const auto model = make_model(name, options);
    model->eval();
    CHECK(model->parameter_count() == entry.at("parameters"));
    CHECK(quant::total_macs(quant::count_cost(trace([&](const Tensors& in) { return (*model)(in[0]); },
                                                    {Array::zeros(model->input_shape())}))) ==
          entry.at("macs"));
  }
}
