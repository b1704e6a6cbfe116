#include "grad.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <unordered_set>

#include "../kernels/elementwise.h"
#include "../kernels/random.h"
#include "ops.h"
#include "recorder.h"

namespace stairgrad {

Tensors Op::vjp(const Vjp&) const {
  throw argument_error(
      text("[", name(), "] has no derivative; detach() its input if none should flow through it"));
}

Tensors Op::decompose(const Tensors&) const {
  throw argument_error(text("[", name(), "] is elementary: it has no decomposition"));
}

const Tensor& Vjp::input(int i) const {
  const Tensor& input = node_->inputs[static_cast<size_t>(i)];
  check(input.value().has_value(), "[", node_->op->name(), "] vjp reads input ", i,
        ", which saved() does not name");
  check(input.value().version() == node_->versions[static_cast<size_t>(i)], "[", node_->op->name(),
        "] input ", i, " ", input.name(), input.shape(),
        " was changed in place after it was recorded; take gradients before the optimiser's step");
  return input;
}

Tensor Vjp::output(int i) const {
  const Array& value = node_->outputs[static_cast<size_t>(i)];
  check(value.has_value(), "[", node_->op->name(), "] vjp reads output ", i, ", which saved() does not name");
  return node_->op->differentiable(i) ? Tensor(value, node_, i) : Tensor(value);
}

Tensor Vjp::grad(int i) const {
  if (has_grad(i)) return grads_[static_cast<size_t>(i)];
  const Array& output = node_->outputs[static_cast<size_t>(i)];
  return Array::zeros(output.shape(), output.dtype());
}

namespace {

// The nodes between outputs and inputs, and which of them lead to an input. Ids are topological: nothing with
// a smaller id than every input's can depend on one, and nothing below `floor` is entered.
struct Walk {
  std::vector<Node*> order;  // by descending id
  std::unordered_set<const Node*> leads_to_input;
  std::unordered_map<const Node*, std::shared_ptr<Node>> owner;
};

Walk plan(const Tensors& outputs, const Tensors& inputs, uint64_t floor) {
  uint64_t first = UINT64_MAX;
  Walk walk;
  for (const Tensor& input : inputs) {
    first = std::min(first, input.node()->id);
    walk.leads_to_input.insert(input.node().get());
  }
  first = std::max(first, floor);
  std::vector<std::shared_ptr<Node>> stack;
  const auto visit = [&](const std::shared_ptr<Node>& node) {
    if (node && node->differentiable && node->id >= first && walk.owner.emplace(node.get(), node).second)
      stack.push_back(node);
  };
  for (const Tensor& output : outputs) visit(output.node());
  while (!stack.empty()) {
    const std::shared_ptr<Node> node = std::move(stack.back());
    stack.pop_back();
    walk.order.push_back(node.get());
    for (const Tensor& input : node->inputs) visit(input.node());
  }
  std::sort(walk.order.begin(), walk.order.end(), [](const Node* a, const Node* b) { return a->id > b->id; });
  for (auto node = walk.order.rbegin(); node != walk.order.rend(); ++node)
    for (const Tensor& input : (*node)->inputs)
      if (walk.leads_to_input.count(input.node().get())) walk.leads_to_input.insert(*node);
  return walk;
}

// target += gradient, in the memory of either where nobody else refers to it.
void accumulate(Tensor& target, Tensor gradient) {
  if (recording() == Recording::tape) {
    target = add(target, gradient);
    return;
  }
  Array sum = target.value(), term = gradient.value();
  target = gradient = {};
  if (!sum.is_unique()) std::swap(sum, term);
  if (sum.is_unique())
    kernels::accumulate(sum, term);
  else
    sum = kernels::binary(kernels::Binary::add, term, sum);
  target = std::move(sum);
}

Tensors grad_above(uint64_t floor, const Tensors& outputs, const Tensors& inputs,
                   const GradOptions& options) {
  const bool retain = options.retain_graph.value_or(options.create_graph);
  check(options.grad_outputs.empty() || options.grad_outputs.size() == outputs.size(), "[grad] got ",
        options.grad_outputs.size(), " grad_outputs for ", outputs.size(), " outputs");
  for (size_t i = 0; i < inputs.size(); ++i)
    check(inputs[i].requires_grad(), "[grad] input ", i, " of shape ", inputs[i].shape(),
          " does not require a gradient; make it with Tensor::leaf, or record the op that made it");

  const Walk walk = plan(outputs, inputs, floor);
  // The gradients of each node's outputs, as far as they are known.
  std::unordered_map<const Node*, Tensors> slots;
  const auto add_to = [&](const Tensor& target, Tensor gradient) {
    const Node* node = target.node().get();
    Tensors& of_node = slots[node];
    if (of_node.empty()) of_node.resize(std::max<size_t>(1, node->outputs.size()));
    Tensor& slot = of_node[static_cast<size_t>(target.output_index())];
    if (slot.defined())
      accumulate(slot, std::move(gradient));
    else
      slot = std::move(gradient);
  };

  const RecordingScope mode(options.create_graph ? Recording::tape : Recording::off);
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].requires_grad()) continue;
    Tensor seed;
    if (options.grad_outputs.empty()) {
      check(outputs[i].size() == 1, "[grad] output ", i, " has the shape ", outputs[i].shape(),
            ", expected a scalar; reduce it with sum() or mean(), or pass grad_outputs");
      seed = Array::full(outputs[i].shape(), 1, outputs[i].dtype());
    } else {
      seed = options.grad_outputs[i];
      check(seed.shape() == outputs[i].shape() && seed.dtype() == outputs[i].dtype(), "[grad] grad_outputs ",
            i, ": got ", name_of(seed.dtype()), seed.shape(), ", expected ", name_of(outputs[i].dtype()),
            outputs[i].shape());
    }
    add_to(outputs[i], std::move(seed));
  }

  // Inputs may be intermediate tensors: their gradients are complete when the walk reaches their node.
  std::unordered_map<const Node*, std::vector<size_t>> wanted;
  for (size_t i = 0; i < inputs.size(); ++i) wanted[inputs[i].node().get()].push_back(i);

  Tensors results(inputs.size());
  for (Node* node : walk.order) {
    if (!walk.leads_to_input.count(node)) continue;
    const auto found = slots.find(node);
    if (found == slots.end()) continue;
    const Tensors gradients = std::move(found->second);
    slots.erase(found);
    if (const auto mine = wanted.find(node); mine != wanted.end())
      for (const size_t i : mine->second)
        results[i] = gradients[static_cast<size_t>(inputs[i].output_index())];
    if (!node->op) continue;

    std::vector<bool> needs;
    bool any = false;
    for (const Tensor& input : node->inputs) {
      needs.push_back(input.requires_grad() && walk.leads_to_input.count(input.node().get()));
      any = any || needs.back();
    }
    if (!any) continue;
    check(!node->released, "[", node->op->name(),
          "] was walked before and its values were released; pass retain_graph = true to the earlier grad()");
    Tensors input_gradients = node->op->vjp(Vjp(walk.owner.at(node), gradients, needs));
    for (size_t i = 0; i < node->inputs.size(); ++i) {
      if (!needs[i] || i >= input_gradients.size() || !input_gradients[i].defined()) continue;
      const Tensor& input = node->inputs[i];
      check(input_gradients[i].shape() == input.shape(), "[", node->op->name(), "] vjp gave the shape ",
            input_gradients[i].shape(), " for input ", i, " of shape ", input.shape());
      check(input_gradients[i].dtype() == input.dtype(), "[", node->op->name(), "] vjp gave the type ",
            name_of(input_gradients[i].dtype()), " for input ", i, " of type ", name_of(input.dtype()));
      add_to(input, std::move(input_gradients[i]));
    }
    if (!retain) {
      node->released = true;
      for (Tensor& input : node->inputs)
        input = Tensor(input.value().without_value(), input.node(), input.output_index());
      for (Array& output : node->outputs) output = output.without_value();
    }
  }

  for (size_t i = 0; i < inputs.size(); ++i) {
    // What has arrived at an input below the floor is its gradient.
    if (const auto found = slots.find(inputs[i].node().get()); found != slots.end())
      results[i] = found->second[static_cast<size_t>(inputs[i].output_index())];
    if (results[i].defined()) continue;
    check(options.allow_unused, "[grad] no output depends on input ", i, " ", inputs[i].name(),
          inputs[i].shape(), "; pass allow_unused = true to get zeros");
    results[i] = Array::zeros(inputs[i].shape(), inputs[i].dtype());
  }
  return results;
}

// x itself, as the start of a new record.
struct Alias final : Op {
  std::string_view name() const override { return "alias"; }
  Arrays forward(const Arrays& in) const override { return in; }
  Tensors vjp(const Vjp& v) const override { return {v.grad()}; }
};

}  // namespace

Tensors grad(const Tensors& outputs, const Tensors& inputs, const GradOptions& options) {
  return grad_above(0, outputs, inputs, options);
}

Tensors vjp_by_recording(const std::function<Tensors(const Tensors&)>& function, int arguments,
                         const Vjp& v) {
  const bool create_graph = recording() == Recording::tape;
  const RecordingScope tape(Recording::tape);
  const uint64_t floor = Node().id;
  Tensors inputs, wanted;
  for (int i = 0; i < v.inputs(); ++i) {
    // New nodes tell apart arguments that depend on each other or are the same.
    Tensor input = v.input(i);
    if (i < arguments && v.needs(i))
      input = create_graph ? apply_op(Alias{}, {input}) : Tensor::leaf(input.value());
    if (i < arguments) inputs.push_back(input);
    if (v.needs(i)) wanted.push_back(input);
  }
  const Tensors all_outputs = function(inputs);
  Tensors outputs, cotangents;
  for (size_t i = 0; i < all_outputs.size(); ++i) {
    if (!v.has_grad(static_cast<int>(i)) || !all_outputs[i].requires_grad()) continue;
    outputs.push_back(all_outputs[i]);
    cotangents.push_back(v.grad(static_cast<int>(i)));
  }
  const Tensors found =
      grad_above(floor, outputs, wanted,
                 {.create_graph = create_graph, .grad_outputs = cotangents, .allow_unused = true});
  Tensors gradients(static_cast<size_t>(v.inputs()));
  for (size_t i = 0, next = 0; i < gradients.size(); ++i)
    if (v.needs(static_cast<int>(i))) gradients[i] = found[next++];
  return gradients;
}

Tensors vjp_by_decomposition(const Op& op, const Vjp& v) {
  return vjp_by_recording([&](const Tensors& inputs) { return op.decompose(inputs); }, v.inputs(), v);
}

namespace {

// <cotangent, function(inputs)>, with the same pseudo-random cotangent at every call.
Tensor contracted(const TensorFunction& function, const Tensors& inputs, uint64_t stream) {
  const Tensor y = function(inputs);
  return sum(mul(y, Tensor(random_normal(y.shape(), Philox(7, stream), 1, y.dtype()))));
}

}  // namespace

GradcheckResult gradcheck(const TensorFunction& function, const Tensors& inputs, int order, double step) {
  if (order > 1) {
    // The vjp is a function too, of the inputs and of the cotangent: contract its parts, check one order
    // less.
    const TensorFunction vjp = [&](const Tensors& at) {
      const RecordingScope tape(Recording::tape);
      Tensors leaves;
      for (const Tensor& t : at) leaves.push_back(t.requires_grad() ? t : Tensor::leaf(t.value()));
      const Tensor cotangent = leaves.back();
      leaves.pop_back();
      const Tensors parts = grad({function(leaves)}, leaves,
                                 {.create_graph = true, .grad_outputs = {cotangent}, .allow_unused = true});
      Tensor total;
      for (size_t i = 0; i < parts.size(); ++i) {
        const Tensor weights = random_normal(parts[i].shape(), Philox(7, 2 + i), 1, parts[i].dtype());
        const Tensor term = sum(mul(parts[i], weights));
        total = total.defined() ? add(total, term) : term;
      }
      return total;
    };
    Tensors at = inputs;
    at.push_back(random_normal(function(inputs).shape(), Philox(7), 1, DType::f64));
    return gradcheck(vjp, at, order - 1, step);
  }

  if (step == 0) step = 1e-5;
  Tensors leaves;
  for (const Tensor& input : inputs) {
    check(input.dtype() == DType::f64, "[gradcheck] got ", name_of(input.dtype()), ", expected f64 inputs");
    leaves.push_back(Tensor::leaf(input.value().clone()));
  }
  Tensors analytic;
  {
    const RecordingScope tape(Recording::tape);
    const Tensor y = contracted(function, leaves, 1);
    if (y.requires_grad())
      analytic = grad({y}, leaves, {.allow_unused = true});
    else
      for (const Tensor& leaf : leaves) analytic.push_back(Array::zeros(leaf.shape(), DType::f64));
  }

  GradcheckResult result;
  const auto at = [&](size_t i, int64_t j, double value) {
    Tensors moved;
    for (const Tensor& input : inputs) moved.push_back(input.value().clone());
    Array changed = moved[i].value();
    changed.data<double>()[j] = value;
    return contracted(function, moved, 1).item();
  };
  for (size_t i = 0; i < inputs.size(); ++i) {
    const double* exact = analytic[i].value().data<double>();
    std::vector<double> numeric;
    double largest = 1e-3;  // below it, the noise of the differences would be taken for an error
    for (int64_t j = 0; j < inputs[i].size(); ++j) {
      const double x = inputs[i].value().data<double>()[j], h = step * std::max(1.0, std::abs(x));
      // Fourth-order central difference: the error of the check stays far below the tolerance.
      numeric.push_back(
          (8 * (at(i, j, x + h) - at(i, j, x - h)) - (at(i, j, x + 2 * h) - at(i, j, x - 2 * h))) / (12 * h));
      largest = std::max({largest, std::abs(exact[j]), std::abs(numeric.back())});
    }
    for (size_t j = 0; j < numeric.size(); ++j) {
      const double error = std::abs(exact[j] - numeric[j]) / largest;
      if (error > result.error || std::isnan(error))
        result = {std::isnan(error) ? HUGE_VAL : error, text("input ", i, ", element ", j, ": ", exact[j],
                                                             " by grad, ", numeric[j], " by differences")};
    }
  }
  return result;
}

}  // namespace stairgrad
