#include "checkpoint.h"

#include <algorithm>

#include "op.h"
#include "recorder.h"

namespace stairgrad {
namespace {

thread_local int recomputations = 0;

// Inputs: the arguments, then the tensors that the function uses by itself.
struct Checkpoint final : Op {
  std::function<Tensors(const Tensors&)> function;
  int arguments, captures;

  Checkpoint(std::function<Tensors(const Tensors&)> function, int arguments, int captures)
      : function(std::move(function)), arguments(arguments), captures(captures) {}
  std::string_view name() const override { return "checkpoint"; }
  Arrays forward(const Arrays& in) const override {
    const NoGrad off;
    Arrays values;
    for (const Tensor& t : function(Tensors(in.begin(), in.begin() + arguments))) values.push_back(t.value());
    return values;
  }
  Tensors vjp(const Vjp& v) const override {
    struct Count {
      Count() { ++recomputations; }
      ~Count() { --recomputations; }
    } const count;
    return vjp_by_recording(function, arguments, v);
  }
  Saved saved() const override {
    Saved all;
    for (int i = 0; i < arguments + captures; ++i) all.inputs.push_back(i);
    return all;
  }
};

}  // namespace

bool recomputing() { return recomputations > 0; }

Tensors checkpoint(std::function<Tensors(const Tensors&)> function, const Tensors& inputs) {
  if (recording() != Recording::tape) return function(inputs);
  Tensors constants, all = inputs, found;
  for (const Tensor& input : inputs) constants.push_back(input.detach());
  Arrays outputs;
  {
    const detail::CaptureScope capture(found);
    for (const Tensor& t : function(constants)) outputs.push_back(t.value());
  }
  for (const Tensor& t : found) {
    const auto same = [&](const Tensor& other) {
      return t.node() == other.node() && t.output_index() == other.output_index();
    };
    if (std::none_of(all.begin() + static_cast<std::ptrdiff_t>(inputs.size()), all.end(), same))
      all.push_back(t);
  }
  const auto arguments = static_cast<int>(inputs.size()), captures = static_cast<int>(all.size()) - arguments;
  return apply_computed(std::make_shared<Checkpoint>(std::move(function), arguments, captures), all,
                        std::move(outputs));
}

}  // namespace stairgrad
