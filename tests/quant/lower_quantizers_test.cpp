// Lowering of every quantizer of the catalogue: the integer weights are its codes, or it is refused by name.
#include <doctest/doctest.h>

#include "../../autograd/recorder.h"
#include "../../quant/cost.h"
#include "../../quant/integer/reference.h"
#include "../../quant/lower.h"
#include "../../quant/sites.h"
#include "settings.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace {

std::unique_ptr<nn::Model> quantized(const std::string& quantizer, int bits) {
  auto model = nn::make_model("resnet8", {.image_size = 8, .width = 0.5});
  nn::initialise(*model, 3);
  attach_sites(*model, uniform_policy(*model, {bits, 8, quantizer, "channel"}, Skip::u8, Ends::same));
  calibrate(*model, random_normal(model->input_shape(8), Philox(1)));
  model->eval();
  return model;
}
Trace trace_of(nn::Model& model) {
  return trace([&](const Tensors& in) { return model(in[0]); }, {Array::zeros(model.input_shape())});
}

}  // namespace

TEST_CASE(
    "the integer weights of a lowered network are the codes that its quantizers give, transforms included") {
  for (const std::string name :
       {"binary", "binary:standardise=yes,slope=tanh,levels=shift", "dorefa", "dsq", "dsq_fixed", "lsq",
        "lsq_plus", "pact", "pact:weights=sawb", "ste", "ternary"}) {
    CAPTURE(name);
    for (const int bits : {1, 2, 8}) {
      const auto model = quantized(name, bits);
      const integer::Model lowered = lower(trace_of(*model));
      const nn::State state = model->state();
      int compared = 0;
      for (const integer::Layer& layer : lowered.layers)
        if (const auto* conv = std::get_if<integer::Convolution>(&layer))
          for (const nn::NamedModule& m : model->modules())
            if (m.name == "sites." + conv->name + ".weight") {
              const NoGrad no_grad;
              Quantizer& quantizer = dynamic_cast<Quantizer&>(*m.module);
              const Array codes = quantizer(state.at(conv->name + ".weight")).integers();
              CHECK(same_bits(cast(conv->weights, DType::f32), codes.reshape(conv->weights.shape())));
              ++compared;
            }
      CHECK(compared == 8);

      // And the network says what it said, but for roundings.
      const NoGrad no_grad;
      const Array images = random_normal(model->input_shape(8), Philox(2));
      const Array logits = integer::evaluate(lowered, images)[static_cast<size_t>(lowered.output)];
      CHECK(difference(logits.reshape({8, 10}), (*model)(images).value()) < 0.05);
    }
  }
}

TEST_CASE("apot cannot be lowered, and counts its bits in the cost") {
  const auto model = quantized("apot", 4);
  const Trace t = trace_of(*model);
  CHECK_THROWS_WITH_AS(lower(t), doctest::Contains("apot"), argument_error);
  CHECK_THROWS_WITH_AS(lower(t), doctest::Contains("levels are not equally spaced"), argument_error);
  CHECK(count_cost(t)[1].w_bits == 4);
  CHECK(count_cost(t)[1].a_bits == 8);
}
