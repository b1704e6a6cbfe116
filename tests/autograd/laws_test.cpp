// Laws that hold for every op: they run over the samples of the op table.
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <set>

#include "../../autograd/op_table.h"
#include "../../autograd/ops.h"
#include "../../autograd/profile.h"
#include "../../autograd/recorder.h"
#include "common.h"

using namespace stairgrad;

namespace {

constexpr double step = 5e-4;
constexpr uint64_t seed = 7;  // of the cotangents

// Runs `law` on every sample; STAIRGRAD_OP=conv2d restricts it to one op. A failure prints how to repeat it.
template <class Law>
void for_each_sample(const Law& law) {
  const char* only = std::getenv("STAIRGRAD_OP");
  const ThreadsScope serial(1);  // samples are tiny
  for (const OpEntry& op : op_table()) {
    if (only && op.name != only) continue;
    for (const Sample& sample : op.samples()) {
      INFO("repeat: STAIRGRAD_OP=", std::string(op.name), ", sample \"", sample.label, "\", seed ", seed);
      CHECK_NOTHROW(law(sample));
    }
  }
}

// Values and gradients in `dtype` against f64 at the same (rounded) inputs.
void check_precision(const Sample& sample, DType dtype, double tolerance) {
  const Tensors inputs = leaves_of(sample.inputs, dtype);
  const Arrays got = value_and_gradients(sample.function, inputs, seed);
  const Arrays expected = value_and_gradients(sample.function, leaves_of(inputs, DType::f64), seed);
  REQUIRE(got.size() == expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    const std::string what = i == 0 ? "value" : text("gradient of input ", i - 1);
    INFO(what);
    CHECK(difference(got[i], expected[i]) <= tolerance);
  }
}

// Compares every op that runs with its decomposition, if it has one.
class DecompositionCheck : public OpObserver {
 public:
  int compared = 0;

  Arrays run(const Op& op, const Arrays& inputs) override {
    const Arrays outputs = op.forward(inputs);
    Tensors parts;
    try {
      const NoGrad off;
      parts = op.decompose(Tensors(inputs.begin(), inputs.end()));
    } catch (const argument_error& error) {
      CHECK(std::string(error.what()).find("is elementary") != std::string::npos);
      return outputs;
    }
    ++compared;
    const std::string name(op.name());
    INFO(name);
    REQUIRE(parts.size() == outputs.size());
    for (size_t i = 0; i < parts.size(); ++i) CHECK(difference(parts[i].value(), outputs[i]) < 1e-12);
    return outputs;
  }
};

}  // namespace

TEST_CASE("laws: every op file has a line in the table, and samples") {
  std::set<std::string> names;
  for (const OpEntry& op : op_table()) {
    INFO(std::string(op.name));
    CHECK(names.insert(std::string(op.name)).second);
    CHECK(!op.samples().empty());
  }
  for (const auto& file : std::filesystem::directory_iterator(OPS_FOLDER)) {
    if (file.path().extension() != ".cpp") continue;
    INFO(file.path().filename().string());
    CHECK(names.erase(file.path().stem().string()) == 1);
  }
  CHECK(names.empty());
}

TEST_CASE("laws: gradients equal differences in f64") {
  for_each_sample([](const Sample& sample) {
    if (!sample.smooth) return;
    const GradcheckResult result = gradcheck(sample.function, sample.inputs, 1, step);
    INFO(result.worst);
    CHECK(result.error < 1e-6);
  });
}

TEST_CASE("laws: gradients of gradients equal differences in f64") {
  for_each_sample([](const Sample& sample) {
    if (!sample.smooth) return;
    const GradcheckResult result = gradcheck(sample.function, sample.inputs, 2, step);
    INFO(result.worst);
    CHECK(result.error < 1e-5);
  });
}

TEST_CASE("laws: f32 values and gradients equal those in f64") {
  for_each_sample([](const Sample& sample) { check_precision(sample, DType::f32, sample.f32_tolerance); });
}

TEST_CASE("laws: bf16 values and gradients equal those in f64") {
  for_each_sample([](const Sample& sample) {
    if (sample.bf16_tolerance > 0) check_precision(sample, DType::bf16, sample.bf16_tolerance);
  });
}

TEST_CASE("laws: an op gives its output the type of its inputs") {
  for_each_sample([](const Sample& sample) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
      if (dtype == DType::bf16 && sample.bf16_tolerance == 0) continue;
      CHECK(sample.function(leaves_of(sample.inputs, dtype)).dtype() == dtype);
    }
  });
}

TEST_CASE("laws: a trace has the shapes and types of the run") {
  for_each_sample([](const Sample& sample) {
    const Tensor y = sample.function(sample.inputs);
    const Trace traced = trace(sample.function, sample.inputs);
    REQUIRE(traced.outputs.size() == 1);
    CHECK(traced.outputs[0].shape() == y.shape());
    CHECK(traced.outputs[0].dtype() == y.dtype());
    for (const auto& node : traced.nodes)
      for (const Array& output : node->outputs) CHECK(!output.has_value());
  });
}

TEST_CASE("laws: fused ops equal their decompositions, in f64") {
  int compared = 0;
  for_each_sample([&](const Sample& sample) {
    DecompositionCheck check;
    value_and_gradients(sample.function, leaves_of(sample.inputs, DType::f64), seed);
    compared += check.compared;
  });
  if (!std::getenv("STAIRGRAD_OP")) CHECK(compared >= 12);  // batch norm, forward and backward
}
