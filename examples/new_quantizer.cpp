// A quantizer of your own, from its definition to a network that runs in integers:
//
//   build/examples/new_quantizer
//
// trains ResNet-8 with 4-bit weights and activations for one epoch of Fashion-MNIST, from scratch, in about
// 20 seconds of one core; expect 86.7 % of the test pictures, in floats as in integers.
//
// The gradient of its staircase is a parabola on each step, instead of the straight-through estimator's 1:
//
//   y = s (code + c(t)),  c(t) = (1 - bend) t + 4 bend t^3,  t = x / s - code in [-1/2, 1/2]
//
// so that dy/dx is 1 + 2 bend at a threshold, 1 - bend on a level, and 1 on average. c runs from -1/2 to 1/2:
// the pieces join. The step s is learned.
#include <algorithm>
#include <cmath>
#include <iostream>

// Elsewhere than in this tree: #include <stairgrad/stairgrad.h>
#include "../autograd/grad.h"
#include "../autograd/ops.h"
#include "../data/loader.h"
#include "../nn/optimiser.h"
#include "../quant/integer/session.h"
#include "../quant/lower.h"
#include "../quant/sites.h"

namespace sg = stairgrad;
namespace quant = stairgrad::quant;

class Cubic final : public quant::Quantizer {
 public:
  explicit Cubic(const quant::QuantizerOptions& options)
      : Quantizer(options), bend_(options.settings.number("bend")) {
    sg::check(options.bits >= 2 && !options.per_channel, "[cubic] got ", options.bits, " bits",
              options.per_channel ? " per channel" : "", ", expected 2 .. 8 with one grid for the tensor");
    declare("s");
  }

  // Which levels the parameters describe. Zero is one of them: signed activations have a zero point.
  sg::Grids grids(const sg::Arrays& parameters) const override {
    const int half = 1 << (options().bits - 1);
    const auto s = static_cast<float>(std::max(parameters[0].item(), smallest));
    if (options().weight) return {{s, 0, 1 - half, half - 1}};
    return {{s, is_signed() ? static_cast<float>(half) : 0.0f, 0, 2 * half - 1}};
  }

  // What the backward is the derivative of, as ops; what it treats as constant comes from the sample point.
  sg::Tensor surrogate(const sg::Tensors& in, const sg::Arrays& at) const override {
    const sg::Grid g = grids({at[1]})[0];
    const sg::Tensor &x = in[0], &s = in[1];
    const auto cubic = [&](const sg::Tensor& t) { return (1 - bend_) * t + 4 * bend_ * t * sg::square(t); };
    const sg::Tensor position = sg::Tensor(at[0]) / sg::Tensor(at[1]);
    const sg::Tensor nearest = sg::round(position),
                     code = sg::clamp(nearest, g.lo - g.zero_point, g.hi - g.zero_point);
    const sg::Tensor step = s * (code + cubic(x / s - code) - cubic(position - code));
    return sg::where(sg::equal(nearest, code), step, s * code);
  }

  // After a step of the optimiser.
  void project() override { set_values(0, {std::max(values(0)[0], smallest)}); }

 private:
  static constexpr double smallest = 1e-6;

  // Where the parameters start, from the first data: LSQ's rule.
  void choose(const sg::Array& x) override {
    double sum = 0;
    for (const double value : x.to_vector()) sum += std::abs(value);
    const sg::Grid g = grids({sg::Array::full({1}, 1)})[0];
    set_values(
        0, {std::max(2 * sum / static_cast<double>(x.size()) / std::sqrt(g.hi - g.zero_point), smallest)});
  }

  double bend_;
};

namespace {

// Percent of the pictures whose class `logits_of` finds.
template <class Logits>
double accuracy(sg::data::Loader& loader, const Logits& logits_of) {
  int64_t right = 0;
  for (const sg::data::Batch& batch : loader.epoch(0)) {
    const std::vector<double> found = sg::argmax(logits_of(batch.images)).value().to_vector(),
                              labels = batch.labels.to_vector();
    for (size_t i = 0; i < found.size(); ++i) right += found[i] == labels[i];
  }
  return 100.0 * static_cast<double>(right) / static_cast<double>(loader.images());
}

void run() {
  quant::register_quantizer(
      "cubic", {[](const quant::QuantizerOptions& o, int64_t) { return std::make_shared<Cubic>(o); },
                {quant::SettingRule::number("bend", 0.3, 0, 1)},
                "a staircase with parabolas for gradients"});

  // Pictures of 14 x 14 pixels, so that it takes a few seconds.
  const sg::data::Transform transform{
      .normalisation = sg::data::Normalisation::named("fashion-mnist"), .resize = 14, .centre_crop = 14};
  sg::data::Loader train(sg::data::load_dataset("fashion-mnist"), transform,
                         {.shuffle = true, .drop_last = true});
  sg::data::Loader test(sg::data::load_dataset("fashion-mnist", "", sg::data::Split::test), transform,
                        {.batch = 100});
  const auto model = sg::nn::make_model("resnet8", {.in_channels = 1, .image_size = 14});
  sg::nn::initialise(*model, 0);
  // Every layer's weights and input; the first and the last layer and the skips have 8 bits.
  const auto sites = quant::attach_sites(*model, quant::uniform_policy(*model, {4, 4, "cubic:bend=0.3"}));
  for (const sg::data::Batch& batch : train.epoch(0)) {
    quant::calibrate(*model, batch.images);
    break;
  }

  sg::nn::SGD optimiser({{model->parameters()}});
  int64_t step = 0;
  for (const sg::data::Batch& batch : train.epoch(0)) {
    const sg::Tensor loss = sg::cross_entropy((*model)(batch.images), batch.labels);
    optimiser.step(sg::grad({loss}, optimiser.parameters()),
                   sg::nn::cosine_schedule(0.1, step, train.batches(), /*warmup=*/20));
    sites->project();
    if (++step % 100 == 0)
      std::cout << "step " << step << " of " << train.batches() << ", loss " << loss.item() << std::endl;
  }

  model->eval();
  const sg::NoGrad no_grad;
  std::cout << "fake-quantized: " << accuracy(test, [&](const sg::Array& x) { return (*model)(x); })
            << " %\n";
  const quant::integer::Model lowered = quant::lower(sg::trace(
      [&](const sg::Tensors& in) { return (*model)(in[0]); }, {sg::Array::zeros(model->input_shape(1))}));
  quant::integer::Session session(lowered, 100);
  std::cout << "in integers:    " << accuracy(test, [&](const sg::Array& x) {
    return sg::Tensor(session.run(x).clone());
  }) << " %\n";
}

}  // namespace

int main() {
  try {
    run();
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
