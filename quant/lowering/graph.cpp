#include "graph.h"

#include <algorithm>
#include <cmath>

#include "../../autograd/ops.h"
#include "../../autograd/ops/concat.h"
#include "../../autograd/ops/pad.h"
#include "../../autograd/ops/slice.h"
#include "../quantizer.h"

namespace stairgrad::quant::lowering {

std::string name_of_op(const Tensor& t) { return op_of(t) ? std::string(op_of(t)->name()) : "input"; }

void refuse(const Tensor& t, const std::string& why) {
  const std::string scope = t.node() ? t.node()->scope : "";
  const std::string where = t.node() ? name_of_op(t) + (scope.empty() ? "" : " of " + scope) : "a constant";
  throw argument_error(text("[lower] ", where, ' ', t.shape(), " has no integer form: ", why));
}

Tensor unshaped(Tensor t) {
  while (is(t, "reshape")) t = Tensor(input_of(t));
  return t;
}

Shape image_of(const Shape& shape) {
  if (shape.rank() == 4) return {shape[1], shape[2], shape[3]};
  return {1, 1, shape.back()};
}

void check_uniform(const Tensor& t, const QuantizeOp& op) {
  if (op.grids.empty()) refuse(t, "its levels are not equally spaced; train with another quantizer");
}

Grid unsigned_grid(const Tensor& t, const QuantizeOp& op) {
  check_uniform(t, op);
  if (op.grids.size() != 1) refuse(t, "activations have one grid for each channel; use one for the tensor");
  Grid g = op.grids[0];
  g.zero_point -= static_cast<float>(g.lo);
  g.hi -= g.lo;
  g.lo = 0;
  return g;
}

bool has_zero(const Grid& g) { return g.zero_point == std::nearbyint(g.zero_point); }

Grid with_zero(const Grid& g) { return has_zero(g) ? g : Grid{g.scale / 2, 2 * g.zero_point, 0, 2 * g.hi}; }

Graph::Graph(const Trace& trace) : trace_(trace) {
  for (const auto& node : trace_.nodes)
    for (const Tensor& input : node->inputs)
      if (input.node() && node->op->name() != "reshape") ++readers_[key(unshaped(input))];
}

bool Graph::is_parameter(const Tensor& t) const {
  return !op_of(t) && t.value().has_value() && !is_images(t);
}

std::optional<Array> Graph::constant(const Tensor& t) const {
  if (is_parameter(t)) return t.value();
  if (!op_of(t) || as<QuantizeOp>(t)) return {};
  Arrays inputs;
  for (const Tensor& input : t.node()->inputs) {
    const std::optional<Array> value = constant(input);
    if (!value) return {};
    inputs.push_back(*value);
  }
  return op_of(t)->forward(inputs)[static_cast<size_t>(t.output_index())];
}

bool Graph::has_one_reader(const Tensor& t) const {
  const auto found = readers_.find(key(unshaped(t)));
  return found == readers_.end() || found->second <= 1;
}

bool Graph::is_on_grid(const Tensor& t) const {
  if (as<QuantizeOp>(t)) return !constant(input_of(t));
  if (as<ConcatOp>(t)) {
    const auto& parts = t.node()->inputs;
    return std::all_of(parts.begin(), parts.end(), [this](const Tensor& part) { return is_on_grid(part); }) &&
           std::all_of(parts.begin(), parts.end(),
                       [&](const Tensor& part) { return grid_of(part) == grid_of(parts[0]); });
  }
  const bool moves = is(t, "reshape") || as<SliceOp>(t) || as<PadOp>(t) || as<MaxPool2dOp>(t);
  return moves && is_on_grid(input_of(t));
}

Grid Graph::grid_of(const Tensor& t) const {
  if (const auto* op = as<QuantizeOp>(t)) return with_zero(unsigned_grid(t, *op));
  return grid_of(input_of(t));
}

void Graph::check_reshape(const Tensor& t, const Shape& image) const {
  if (t.dim(0) != trace_.inputs[0].dim(0) || (t.rank() != 2 && image_of(t.shape()) != image))
    refuse(t, text("it makes other images of ", image, "; only flattening is possible"));
}

}  // namespace stairgrad::quant::lowering
