// What people read about an integer model.
#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "../../examples/common/explanation.h"
#include "../folder.h"

using namespace stairgrad;
using namespace stairgrad::examples;

namespace integer = stairgrad::quant::integer;

namespace {

bool contains(const std::string& whole, const std::string& part) {
  return whole.find(part) != std::string::npos;
}

// A layer without an error, one with, one whose float network is all zeros, and one that is not in it.
std::vector<quant::LayerExplanation> four_layers() {
  std::vector<quant::LayerExplanation> layers(4);
  const double sqnr[] = {HUGE_VAL, 31.25, -HUGE_VAL, NAN};
  for (size_t i = 0; i < 4; ++i) {
    layers[i].name = text("layer", i);
    layers[i].alone = layers[i].cumulative = {sqnr[i], 0.5};
  }
  return layers;
}

}  // namespace

TEST_CASE("a layer without an error is exact in text, JSON and page, and an unknown one is not") {
  const auto layers = four_layers();
  const std::string table = explanation_table(layers).text();
  const auto row = [&](size_t i) {
    const size_t begin = table.find(text("layer", i));
    return table.substr(begin, table.find('\n', begin) - begin);
  };
  CHECK(contains(row(0), "exact"));
  CHECK(contains(row(1), "31.2"));
  CHECK_FALSE(contains(row(1), "exact"));
  CHECK_FALSE(contains(row(2), "exact"));
  CHECK_FALSE(contains(row(3), "exact"));

  const std::string json = explanation_value(layers).json();
  CHECK(contains(json, R"("sqnr_alone_db":"exact","sqnr_cumulative_db":"exact")"));
  CHECK(contains(json, R"("sqnr_alone_db":31.25,"sqnr_cumulative_db":31.25)"));
  CHECK(contains(json.substr(json.find("layer3")), R"("sqnr_alone_db":null,"sqnr_cumulative_db":null)"));

  Report report("explained", "");
  add_explanation(report, layers, 20);
  const Folder folder;
  report.save(folder / "report.html");
  std::ostringstream page;
  page << std::ifstream(folder / "report.html").rdbuf();
  CHECK(contains(page.str(), "Layer by layer"));
  CHECK(contains(page.str(), "on 20 images"));
  CHECK(contains(page.str(), "exact"));
}

TEST_CASE("layers that are computed more than once are counted") {
  integer::Model model;
  const auto value = [&](const std::string& name, bool codes) {
    model.values.push_back({name, {1, 1, 2}, codes, codes ? 8 : 0, {}, ""});
    return static_cast<int>(model.values.size()) - 1;
  };
  const auto convolution = [&](const std::string& name, int src, int8_t weight) {
    integer::Convolution c;
    c.name = name;
    c.src = src;
    c.dst = value(name + ".out", true);
    c.weights = Array::full({2, 1, 1, 2}, weight, DType::s8);
    c.b = c.m = Array::full({2}, 1);
    model.layers.push_back(c);
    return c.dst;
  };
  model.input = value("images", false);
  const int codes = value("codes", true);
  model.layers.emplace_back(integer::Encode{model.input, codes});
  model.output = convolution("a", codes, 1);
  convolution("b", codes, 1);
  convolution("a", codes, 2);
  CHECK_FALSE(contains(model_table(model, "m").text(), "computed again"));
  convolution("a", codes, 1);
  const std::string table = model_table(model, "m").text();
  const size_t row = table.find("layers computed again");
  REQUIRE(row != std::string::npos);
  CHECK(contains(table.substr(row, table.find('\n', row) - row), " 1"));
}
