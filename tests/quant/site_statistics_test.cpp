// What is measured of quantizers during training: errors by cause, and oscillating weights.
#include "../../quant/site_statistics.h"

#include <algorithm>
#include <cmath>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../kernels/elementwise.h"
#include "../../quant/oscillation.h"
#include "settings.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace {

struct Network {
  std::unique_ptr<nn::Model> model = nn::make_model("resnet8");
  std::shared_ptr<Sites> sites;

  explicit Network(const std::string& quantizer = "lsq") {
    nn::initialise(*model, 1);
    sites = attach_sites(*model, uniform_policy(*model, {3, 3, quantizer, "layer"}));
    calibrate(*model, random_normal(model->input_shape(2), Philox(2)));
  }
  Tensor parameter(const std::string& name) const {
    for (const nn::NamedTensor& p : model->parameters())
      if (p.name == name) return p.tensor;
    FAIL("no parameter ", name);
    return {};
  }
  std::shared_ptr<Quantizer> quantizer(const std::string& name) const {
    for (const Sites::Site& site : sites->sites())
      if (site.name == name) return site.quantizer;
    FAIL("no site ", name);
    return {};
  }
};

// A grid that follows the data of every call, and counts them.
class Following final : public Quantizer {
 public:
  explicit Following(const QuantizerOptions& options)
      : Quantizer(options), scale_(add_buffer("scale", {1})) {}
  Grids grids(const Arrays&) const override { return {{static_cast<float>(scale_.item()), 0, -4, 3}}; }
  Tensor surrogate(const Tensors& in, const Arrays&) const override { return in[0]; }
  int observed = 0;

 private:
  void choose(const Array& x) override { scale_.assign(Array::full({1}, std::abs(x.to_vector()[0]) / 3)); }
  void observe(const Array& x) override {
    ++observed;
    choose(x);
  }
  Array& scale_;
};

}  // namespace

TEST_CASE("site_statistics: error, clipping and rounding as their definitions say") {
  const Network n;
  const std::string name = "layer1.0.conv1.weight";
  const std::vector<double> w = n.parameter(name).value().to_vector();
  const Quantized q = (*n.quantizer(name))(n.parameter(name));
  const std::vector<double> levels = q.value.value().to_vector();
  const Grid g = q.grids[0];
  double energy = 0, clipping = 0, rounding = 0, saturated = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    const double square = (levels[i] - w[i]) * (levels[i] - w[i]);
    const bool beyond =
        w[i] > (g.hi + 0.5 - g.zero_point) * g.scale || w[i] < (g.lo - 0.5 - g.zero_point) * g.scale;
    energy += w[i] * w[i];
    (beyond ? clipping : rounding) += square;
    saturated += beyond;
  }
  REQUIRE(saturated > 0);
  const std::vector<SiteStatistics> all =
      site_statistics(*n.model, *n.sites, random_normal(n.model->input_shape(2), Philox(3)));
  CHECK(all.size() == n.sites->sites().size());
  for (const SiteStatistics& s : all) {
    CHECK(s.error == doctest::Approx(s.clipping + s.rounding));
    CHECK((s.error > 0 && s.error < 1));
    CHECK(s.low < s.high);
    if (s.name != name) continue;
    CHECK(s.clipping == doctest::Approx(clipping / energy).epsilon(1e-5));
    CHECK(s.rounding == doctest::Approx(rounding / energy).epsilon(1e-5));
    CHECK(s.saturated == doctest::Approx(saturated / static_cast<double>(w.size())));
    CHECK(s.learned.at("scale") == doctest::Approx(g.scale));
    CHECK(s.high == doctest::Approx(3 * g.scale));
  }
}

TEST_CASE(
    "site_statistics: what a quantizer puts on the grid is the transform of the weights; not all have a "
    "grid") {
  for (const std::string quantizer : {"dorefa", "apot"}) {
    CAPTURE(quantizer);
    const Network n(quantizer);
    const std::string name = "layer1.0.conv1.weight";
    const std::shared_ptr<Quantizer> own = n.quantizer(name);
    const Tensor w = n.parameter(name);
    const std::vector<double> x = own->transform(w).value().to_vector(),
                              y = (*own)(w).value.value().to_vector();
    double energy = 0, error = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      energy += x[i] * x[i];
      error += (y[i] - x[i]) * (y[i] - x[i]);
    }
    const Tensor dampened = dampening(*n.model, *n.sites);
    CHECK(std::isfinite(dampened.item()));
    CHECK(grad(dampened, w).shape() == w.shape());
    for (const SiteStatistics& s :
         site_statistics(*n.model, *n.sites, random_normal(n.model->input_shape(2), Philox(3)))) {
      CHECK(s.low < s.high);
      CHECK((s.error > 0 && s.error < 1));
      if (s.name != name) continue;
      CHECK(s.error == doctest::Approx(error / energy).epsilon(1e-5));
      CHECK(s.high == doctest::Approx(*std::ranges::max_element(y)).epsilon(1e-5));
    }
  }
}

TEST_CASE("oscillation: a weight that changes its code to and fro, not one that wanders off") {
  const Network n;
  const std::string name = "layer1.0.conv1.weight";
  const Grid g = n.quantizer(name)->to_grid()[0];
  Array w = n.parameter(name).value();
  const auto put = [&](int64_t i, double code) { w.data<float>()[i] = static_cast<float>(code * g.scale); };
  OscillationCounter counter(*n.model, *n.sites, 0.5);
  // Weight 0 goes to and fro, weight 1 only up, weight 2 stays.
  for (const auto& [swinging, rising] : {std::pair{0, -2}, {1, -1}, {0, 0}, {1, 1}}) {
    put(0, swinging);
    put(1, rising);
    put(2, 2);
    w.bump_version();
    counter.update();
  }
  const Array frequency = counter.state().at(name + ".frequency");
  CHECK(frequency.data<float>()[0] == 0.75f);  // two reversals in a row, each with half the weight
  CHECK(frequency.data<float>()[1] == 0);
  CHECK(frequency.data<float>()[2] == 0);
  CHECK(counter.shares().at(name) == doctest::Approx(1.0 / static_cast<double>(w.size())));
  CHECK(counter.shares(0.8).at(name) == 0);
  CHECK_THROWS_AS(OscillationCounter(*n.model, *n.sites, 1), argument_error);
}

TEST_CASE("oscillation and dampening take the grids that the forward has found, and look for none") {
  register_quantizer("following",
                     {[](const QuantizerOptions& o, int64_t) { return std::make_shared<Following>(o); }});
  const Network n("following");
  OscillationCounter counter(*n.model, *n.sites, 0.5);
  const std::string name = "layer1.0.conv1.weight";
  const auto quantizer = std::dynamic_pointer_cast<Following>(n.quantizer(name));
  const Tensor weight = n.parameter(name);
  (*quantizer)(weight);
  CHECK(quantizer->observed == 1);
  const Grids grids = quantizer->to_grid();
  Array w = weight.value();
  w.assign(kernels::affine(w, 1.5, 0));  // a step of the optimiser
  counter.update();
  CHECK(dampening(*n.model, *n.sites).item() > 0);
  CHECK(quantizer->observed == 1);
  CHECK(quantizer->to_grid() == grids);
  CHECK(same_bits(counter.state().at(name + ".integers"),
                  Quantized{fake_quantize(w, grids), grids}.integers()));
}

TEST_CASE("dampening: squared distance to the code within the grid, pulling weights to their codes") {
  const Network n;
  double expected = 0;
  for (const Sites::Site& site : n.sites->sites()) {
    if (site.role != nn::Tap::Role::weight) continue;
    const Quantized q = (*site.quantizer)(n.parameter(site.name));
    const std::vector<double> w = n.parameter(site.name).value().to_vector(),
                              level = q.value.value().to_vector();
    const double low = grid::decode(q.grids[0].lo, q.grids[0]),
                 high = grid::decode(q.grids[0].hi, q.grids[0]);
    for (size_t i = 0; i < w.size(); ++i) expected += std::pow(level[i] - std::clamp(w[i], low, high), 2);
  }
  const Tensor loss = dampening(*n.model, *n.sites);
  CHECK(loss.item() == doctest::Approx(expected).epsilon(1e-4));
  const Tensor w = n.parameter("layer1.0.conv1.weight");
  const Array gradient = grad(loss, w).value();
  const Array level = (*n.quantizer("layer1.0.conv1.weight"))(w).value.value();
  for (int64_t i = 0; i < w.size(); ++i) {
    const double distance = w.value().data<float>()[i] - level.data<float>()[i];
    CHECK(gradient.data<float>()[i] * distance >= 0);
  }
}
