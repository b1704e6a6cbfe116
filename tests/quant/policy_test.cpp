// Policies, sites and cost.
#include <doctest/doctest.h>

#include <algorithm>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../autograd/recorder.h"
#include "../../data/formats/file.h"
#include "../../nn/model.h"
#include "../../quant/cost.h"
#include "../../quant/site_statistics.h"
#include "../../quant/sites.h"
#include "../folder.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace {

std::unique_ptr<nn::Model> resnet(const std::string& name = "resnet8") {
  auto model = nn::make_model(name, {.width = 0.25});
  nn::initialise(*model, 1);
  return model;
}

void refuses(const std::string& json, const std::string& words) {
  CAPTURE(json);
  CHECK_THROWS_WITH_AS(Policy::parse(json, "policy.json"), doctest::Contains(words.c_str()), format_error);
}

}  // namespace

TEST_CASE("a policy survives its JSON") {
  const auto model = resnet();
  Policy policy = uniform_policy(*model, {3, 5, "lsq", "channel"}, Skip::shared, Ends::same);
  policy.layers["linear"] = {32, 8, "ste", "layer"};
  CHECK(Policy::parse(policy.to_json(), "x") == policy);
  CHECK(policy.layers.size() == 8);
  CHECK(policy.tensors.size() == 4);
}

TEST_CASE("the ends of a uniform policy are what --ends says") {
  const auto model = resnet();
  CHECK(uniform_policy(*model, {4, 4}, Skip::u8, Ends::eight).layers.at("conv1").w_bits == 8);
  CHECK(uniform_policy(*model, {4, 4}, Skip::u8, Ends::eight).layers.at("linear").a_bits == 8);
  CHECK(uniform_policy(*model, {4, 4}, Skip::u8, Ends::same).layers.at("linear").a_bits == 4);
  CHECK(uniform_policy(*model, {4, 4}, Skip::u8, Ends::floating).layers.at("conv1").a_bits == 32);
  CHECK(uniform_policy(*model, {4, 4}).layers.at("layer1.0.conv1").w_bits == 4);
  CHECK(uniform_policy(*model, {4, 3}, Skip::shared).tensors.at("stem").bits == 3);
  for (const int bits : {-1, 0, 9, 33})
    CHECK_THROWS_WITH_AS(uniform_policy(*model, {bits, 4}), doctest::Contains("expected 1 .. 8"),
                         argument_error);
}

TEST_CASE("what has 8 bits on its own account may have a quantizer of its own") {
  const auto model = resnet();
  const Policy policy = uniform_policy(*model, {1, 1, "dorefa"}, Skip::u8, Ends::eight, "lsq");
  CHECK(policy.layers.at("conv1").quantizer == "lsq");
  CHECK(policy.layers.at("linear").quantizer == "lsq");
  CHECK(policy.layers.at("layer1.0.conv1").quantizer == "dorefa");
  CHECK(policy.tensors.at("stem").quantizer == "lsq");
  const Policy same = uniform_policy(*model, {1, 1, "dorefa"}, Skip::shared, Ends::same, "lsq");
  CHECK(same.layers.at("conv1").quantizer == "dorefa");
  CHECK(same.tensors.at("stem").quantizer == "dorefa");
}

TEST_CASE("a text that is no policy is refused with the reason") {
  refuses("", "the file is empty");
  refuses("[]", "expected an object");
  refuses("{}", "the field 'version' is missing");
  refuses(R"({"version": 2})", "'version': got 2, expected 1");
  refuses(R"({"version": 1, "skips": "u8"})", "unknown field 'skips'; did you mean 'skip'?");
  refuses(R"({"version": 1, "skip": "u16"})", "got 'u16'");
  refuses(R"({"version": 1, "layers": []})", "expected an object");
  refuses(R"({"version": 1, "layers": {"conv1": {"w_bits": 0}}})", "got 0 bits");
  refuses(R"({"version": 1, "layers": {"conv1": {"w_bits": 33}}})", "got 33 bits");
  refuses(R"({"version": 1, "layers": {"conv1": {"w_bits": -1}}})", "got -1");
  refuses(R"({"version": 1, "layers": {"conv1": {"w_bits": 3.5}}})", "got 3.5");
  refuses(R"({"version": 1, "layers": {"conv1": {"w_bits": 18446744073709551616}}})", "");
  refuses(R"({"version": 1, "layers": {"conv1": {"w_bits": "4"}}})", "got \"4\"");
  refuses(R"({"version": 1, "layers": {"conv1": {"wbits": 4}}})", "did you mean 'w_bits'?");
  refuses(R"({"version": 1, "layers": {"conv1": {"granularity": "pixel"}}})", "expected layer or channel");
  refuses(R"({"version": 1, "tensors": {"stem": {"bits": 0}}})", "got 0 bits");
  refuses(R"({"version": 1, "version": 1})", "");
  refuses(R"({"version": 1,})", "");
}

TEST_CASE("an error in a policy file says in which line, and what would have been right") {
  const Folder folder;
  const auto model = resnet();
  const Policy good = uniform_policy(*model, {4, 4});
  const auto refused = [&](const std::string& from, const std::string& to, const std::string& words) {
    CAPTURE(words);
    std::string json = good.to_json();
    const size_t at = json.find(from);
    REQUIRE(at != std::string::npos);
    const auto line = 1 + std::count(json.begin(), json.begin() + static_cast<std::ptrdiff_t>(at), '\n');
    json.replace(at, from.size(), to);
    const std::string path = folder / "policy.json";
    data::atomic_write(path, json);
    CHECK_THROWS_WITH_AS(Policy::load(path, *model), doctest::Contains(text("line ", line, ": ").c_str()),
                         format_error);
    CHECK_THROWS_WITH_AS(Policy::load(path, *model), doctest::Contains(words.c_str()), format_error);
    CHECK_THROWS_WITH_AS(Policy::load(path, *model), doctest::Contains("policy.json"), format_error);
  };
  refused("\"layer2.0.conv1\"", "\"layer2.0.conv9\"", "did you mean 'layer2.0.conv");
  refused("\"w_bits\": 4", "\"w_bits\": 0", "got 0 bits");
  refused("\"a_bits\": 4", "\"a_bits\": 33", "got 33 bits");
  refused("\"w_bits\": 4", "\"w_bits\": \"4\"", "got \"4\"");
  refused("\"a_bits\": 4", "\"a_bits\": 4.5", "got 4.5");
  refused("\"a_bits\": 4", "\"abits\": 4", "did you mean 'a_bits'?");
  refused("\"ends\": \"8\"", "\"ends\": \"9\"", "got '9'");
  refused("\"version\": 1", "\"version\": 7", "expected 1");
  refused("\"bits\": 8", "\"bits\": true", "got true");
  Policy missing = good;
  missing.layers.erase("layer2.0.conv2");
  const std::string path = folder / "missing.json";
  data::atomic_write(path, missing.to_json());
  CHECK_THROWS_WITH_AS(Policy::load(path, *model), doctest::Contains("layer 'layer2.0.conv2' is missing"),
                       format_error);
  CHECK_THROWS_WITH_AS(Policy::load(path, *model), doctest::Contains("line 3: "), format_error);
  data::atomic_write(path, good.to_json());
  CHECK(Policy::load(path, *model) == good);
}

TEST_CASE("a policy must name the layers of the model, no more and no fewer") {
  const auto model = resnet();
  Policy policy = uniform_policy(*model, {4, 4});
  policy.layers["layer1.0.conv3"] = {};
  CHECK_THROWS_WITH_AS(check_policy(policy, *model), doctest::Contains("did you mean 'layer1.0.conv"),
                       argument_error);
  policy = uniform_policy(*model, {4, 4});
  policy.layers.erase("conv1");
  CHECK_THROWS_WITH_AS(attach_sites(*model, policy), doctest::Contains("layer 'conv1' is missing"),
                       argument_error);
}

TEST_CASE("sites fill the taps, are initialised by one batch, and leave without a trace") {
  const auto model = resnet();
  const Array images = random_normal(model->input_shape(4), Philox(1));
  const NoGrad no_grad;
  model->eval();
  const Array before = (*model)(images).value();
  const auto parameters = model->parameter_count();
  {
    const auto sites = attach_sites(*model, uniform_policy(*model, {2, 2}));
    CHECK(sites->sites().size() == 8 * 2 + 4);
    for (const Sites::Site& site : sites->sites()) CHECK_FALSE(site.quantizer->initialised());
    calibrate(*model, images);
    for (const Sites::Site& site : sites->sites()) CHECK(site.quantizer->initialised());
  }
  CHECK((*model)(images).value().to_vector() != before.to_vector());
  CHECK(model->state().count("sites.layer1.0.conv1.weight.alpha") == 1);
  CHECK(model->parameter_count() > parameters);
  detach_sites(*model);
  CHECK(model->parameter_count() == parameters);
  CHECK((*model)(images).value().to_vector() == before.to_vector());
}

TEST_CASE("calibration runs in floats: no site's range depends on what others lose") {
  const auto model = resnet();
  model->eval();
  const NoGrad no_grad;
  const Array images = random_normal(model->input_shape(4), Philox(1));
  // What each site of the float network sees.
  std::map<std::string, Array> seen;
  for (const nn::NamedTap& t : model->taps())
    t.tap->hook = [&seen, name = t.name](const Tensor& x) {
      seen[name] = x.value();
      return Quantized{x, {}};
    };
  (*model)(images);
  for (const nn::Arithmetic arithmetic : {nn::Arithmetic::values, nn::Arithmetic::integers}) {
    const auto sites = attach_sites(*model, uniform_policy(*model, {1, 2, "lsq"}));
    sites->set_arithmetic(*model, arithmetic);
    calibrate(*model, images);
    for (const Sites::Site& site : sites->sites()) {
      CAPTURE(site.name);
      const auto alone = make_quantizer("lsq", site.quantizer->options());
      alone->initialise(seen.at(site.name));
      CHECK(site.quantizer->own_parameters()[0].item() == alone->own_parameters()[0].item());
    }
    SiteRecorder recorder(*model);  // sites quantize again
    (*model)(images);
    CHECK(recorder.integers.count("layer1.0.conv2.input") == 1);
  }
}

TEST_CASE("the mode of the sites is the model's: evaluation changes no quantizer") {
  const auto model = resnet();
  attach_sites(*model, uniform_policy(*model, {4, 4, "ste"}));
  calibrate(*model, random_normal(model->input_shape(4), Philox(1)));
  const NoGrad no_grad;
  const auto snapshot = [&] {
    std::map<std::string, std::vector<double>> values;
    for (const auto& [name, array] : model->state())
      if (name.starts_with("sites.")) values[name] = array.to_vector();
    return values;
  };
  const auto before = snapshot();
  model->eval();
  (*model)(random_normal(model->input_shape(4), Philox(2), 3));
  CHECK(snapshot() == before);
  model->train();
  (*model)(random_normal(model->input_shape(4), Philox(2), 3));
  CHECK(snapshot() != before);
}

TEST_CASE("with a shared skip a layer that reads a stored tensor has no input site of its own") {
  const auto model = resnet();
  Policy policy = uniform_policy(*model, {4, 4}, Skip::shared);
  const auto sites = attach_sites(*model, policy);
  std::vector<std::string> inputs;
  for (const Sites::Site& site : sites->sites())
    if (site.role == nn::Tap::Role::input) inputs.push_back(site.name);
  CHECK(inputs == std::vector<std::string>{"conv1.input", "layer1.0.conv2.input", "layer2.0.conv2.input",
                                           "layer3.0.conv2.input", "linear.input"});
  policy.layers["layer2.0.conv1"].a_bits = 3;
  CHECK_THROWS_WITH_AS(attach_sites(*model, policy),
                       doctest::Contains("'layer2.0.conv1' has a_bits 3 but reads"), argument_error);
}

TEST_CASE("with a shared skip, too, every layer multiplies integers if it is asked to") {
  const auto model = resnet();
  const auto sites = attach_sites(*model, uniform_policy(*model, {4, 4, "lsq"}, Skip::shared));
  const Array images = random_normal(model->input_shape(3), Philox(1));
  calibrate(*model, images);
  model->eval();
  const Tensor weight = model->parameters()[0].tensor;  // of the first layer: its gradient passes all others
  const auto run = [&](nn::Arithmetic arithmetic, DType type) {
    sites->set_arithmetic(*model, arithmetic);
    for (const nn::NamedModule& m : model->modules()) {
      if (const auto* layer = dynamic_cast<const nn::Conv2d*>(m.module))
        CHECK(layer->arithmetic == arithmetic);
      if (const auto* layer = dynamic_cast<const nn::Linear*>(m.module))
        CHECK(layer->arithmetic == arithmetic);
    }
    const SiteRecorder recorder(*model);
    const Tensor y = cast((*model)(cast(images, type)), DType::f32);
    if (arithmetic == nn::Arithmetic::integers)
      CHECK(recorder.integers.at("layer1.0.conv1.input").to_vector() ==
            recorder.integers.at("stem").to_vector());
    return Arrays{y.value(), grad(sum(square(y)), weight).value()};
  };
  const auto difference = [](const Array& a, const Array& b) {
    double most = 0, scale = 0;
    for (int64_t i = 0; i < a.size(); ++i) {
      most = std::max<double>(most, std::abs(a.data<float>()[i] - b.data<float>()[i]));
      scale = std::max<double>(scale, std::abs(b.data<float>()[i]));
    }
    return most / scale;
  };
  // A sum at the border of two codes may fall on either side.
  const Arrays values = run(nn::Arithmetic::values, DType::f32),
               codes = run(nn::Arithmetic::integers, DType::f32);
  for (size_t i = 0; i < values.size(); ++i) CHECK(difference(codes[i], values[i]) < 0.1);
  CHECK(site_statistics(*model, *sites, images).size() == sites->sites().size());
  CHECK(difference(run(nn::Arithmetic::integers, DType::bf16)[0], values[0]) < 0.2);
  const Arrays again = run(nn::Arithmetic::values, DType::f32);
  for (size_t i = 0; i < values.size(); ++i) CHECK(again[i].to_vector() == values[i].to_vector());
}

TEST_CASE("cost is counted on the trace: ResNet-20 has 40,551,040 multiply-accumulates") {
  auto model = nn::make_model("resnet20");
  nn::initialise(*model, 1);
  model->eval();
  const auto cost = [&] {
    return count_cost(
        trace([&](const Tensors& in) { return (*model)(in[0]); }, {Array::zeros(model->input_shape(2))}));
  };
  CHECK(total_macs(cost()) == 40551040);
  CHECK(total_bops(cost()) == 40551040ll * 1024);
  CHECK(total_bops(cost(), /*quantized_only=*/true) == 0);

  attach_sites(*model, uniform_policy(*model, {2, 3}));
  calibrate(*model, random_normal(model->input_shape(2), Philox(1)));
  const int64_t stem = 32 * 32 * 16 * 27, head = 640;
  CHECK(cost()[0].name == "conv1");
  CHECK(cost()[0].w_bits == 8);
  CHECK(total_bops(cost()) == (40551040 - stem - head) * 6 + (stem + head) * 64);
}
