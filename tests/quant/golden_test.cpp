// Every quantizer against golden values and gradients of an independent PyTorch program,
// tests/golden/quantizers.py.
#include <set>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../data/formats/json_fields.h"
#include "settings.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace {

data::Json golden() {
  const std::string path = std::string(GOLDEN) + "/quantizers.json";
  return data::parse_json(data::read_file(path, 1 << 20), path);
}

Array matrix(const data::Json& rows) {
  std::vector<double> values;
  for (const data::Json& row : rows)
    for (const double value : row) values.push_back(value);
  return Array::of(values, {2, static_cast<int64_t>(values.size()) / 2});
}

void compare(const std::string& what, const Array& found, const std::vector<double>& expected) {
  const std::vector<double> values = found.to_vector();
  REQUIRE(values.size() == expected.size());
  for (size_t i = 0; i < values.size(); ++i) {
    INFO(what, ", element ", i);
    // Grids are f32: levels are right to 1e-7, and what is a difference of levels to a little less.
    CHECK(std::abs(values[i] - expected[i]) < 5e-6 * std::max(1.0, std::abs(expected[i])));
  }
}

}  // namespace

TEST_CASE("every quantizer gives the values and the gradients of an independent PyTorch program") {
  const data::Json file = golden();
  std::set<std::string> compared;
  for (const data::Json& c : file.at("cases")) {
    const std::string spec = c.at("spec"), role = c.at("role");
    const int bits = c.at("bits");
    CAPTURE(spec);
    CAPTURE(role);
    CAPTURE(bits);
    compared.insert(spec.substr(0, spec.find(':')));
    const bool weight = role == "weights" || role == "channels";
    const auto quantizer = make_quantizer(
        spec, {.bits = bits, .weight = weight, .per_channel = role == "channels", .scale_gradients = false},
        2);
    const Array x = matrix(file.at("x").at(role));
    quantizer->to(DType::f64);
    quantizer->initialise(x);
    for (const nn::NamedTensor& p : quantizer->parameters()) {
      Array target = p.tensor.value();
      target.assign(Array::of(c.at("parameters").at(p.name).get<std::vector<double>>()));
    }
    REQUIRE(quantizer->parameters().size() == c.at("parameters").size());

    const Tensor leaf = Tensor::leaf(x);
    const Tensor y = (*quantizer)(leaf).value;
    compare("y", y.value(), c.at("y"));
    Tensors inputs = {leaf};
    for (const nn::NamedTensor& p : quantizer->parameters()) inputs.push_back(p.tensor);
    const Tensors gradients = grad({sum(y * Tensor(matrix(file.at("u"))))}, inputs);
    compare("dx", gradients[0].value(), c.at("dx"));
    for (size_t i = 1; i < gradients.size(); ++i) {
      const std::string name = quantizer->parameters()[i - 1].name;
      compare("d" + name, gradients[i].value(), c.at("gradients").at(name));
    }
  }
  for (const std::string& name : catalogue)
    CHECK_MESSAGE(compared.count(name), name, " has no golden values");
}
