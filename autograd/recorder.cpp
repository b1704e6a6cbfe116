#include "recorder.h"

#include <atomic>

#include "profile.h"

namespace stairgrad {
namespace {

thread_local Recording mode = Recording::tape;
thread_local Trace* active_trace = nullptr;
thread_local std::string scope_path;

thread_local Tensors* captured = nullptr;

std::atomic<uint64_t> nodes_made{0}, nodes_destroyed{0};

const std::string no_name;

}  // namespace

Recording recording() { return mode; }

RecordingScope::RecordingScope(Recording to) : previous_(mode) { mode = to; }
RecordingScope::~RecordingScope() { mode = previous_; }

Scope::Scope(std::string_view name) : previous_length_(scope_path.size()) {
  if (!scope_path.empty() && !name.empty()) scope_path += '.';
  scope_path += name;
}
Scope::~Scope() { scope_path.resize(previous_length_); }
const std::string& Scope::path() { return scope_path; }

Tensor Tensor::leaf(Array value, std::string name) {
  auto node = std::make_shared<Node>();
  node->name = std::move(name);
  node->differentiable = true;
  return Tensor(std::move(value), std::move(node), 0);
}

bool Tensor::requires_grad() const { return node_ && node_->differentiable; }
const std::string& Tensor::name() const { return node_ && !node_->op ? node_->name : no_name; }

namespace {

// A tensor as a record keeps it: without its value unless the vjp reads it.
Tensor recorded(const Tensor& t, bool keep) {
  return keep ? t : Tensor(t.value().without_value(), t.node(), t.output_index());
}

std::shared_ptr<Node> record(std::shared_ptr<const Op> op, const Tensors& inputs, const Arrays& outputs,
                             bool differentiable) {
  auto node = std::make_shared<Node>();
  node->differentiable = differentiable;
  const bool tracing = mode == Recording::trace;
  const Saved saved = tracing ? Saved{} : op->saved();
  std::vector<bool> keep(inputs.size(), false);
  for (const int i : saved.inputs) keep[static_cast<size_t>(i)] = true;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const bool source = !inputs[i].node() || !inputs[i].node()->op;
    node->inputs.push_back(recorded(inputs[i], keep[i] || (tracing && source)));
    node->versions.push_back(inputs[i].value().version());
  }
  for (const Array& output : outputs) node->outputs.push_back(output.without_value());
  for (const int i : saved.outputs) node->outputs[static_cast<size_t>(i)] = outputs[static_cast<size_t>(i)];
  node->op = std::move(op);
  if (tracing) {
    node->scope = scope_path;
    active_trace->nodes.push_back(node);
  }
  return node;
}

void check_types(const Op& op, const Tensors& inputs) {
  const Tensor* first = nullptr;
  for (const Tensor& input : inputs) {
    if (!is_floating(input.dtype())) continue;
    if (!first) first = &input;
    check(input.dtype() == first->dtype(), "[", op.name(), "] got inputs of the types ",
          name_of(first->dtype()), " and ", name_of(input.dtype()), ", expected one type; convert with cast");
  }
}

}  // namespace

Tensors apply(std::shared_ptr<const Op> op, const Tensors& inputs) {
  if (!op->mixed_types()) check_types(*op, inputs);
  Arrays values;
  values.reserve(inputs.size());
  for (const Tensor& input : inputs) values.push_back(input.value());
  OpObserver* const observer = OpObserver::current();
  Arrays outputs = observer ? observer->run(*op, values) : op->forward(values);
  return apply_computed(std::move(op), inputs, std::move(outputs));
}

Tensors apply_computed(std::shared_ptr<const Op> op, const Tensors& inputs, Arrays outputs) {
  bool differentiable = false;
  for (const Tensor& input : inputs) {
    differentiable = differentiable || input.requires_grad();
    if (captured && input.requires_grad()) captured->push_back(input);
  }
  const bool record_it = mode == Recording::trace || (mode == Recording::tape && differentiable);
  std::shared_ptr<Node> node;
  if (record_it) node = record(op, inputs, outputs, differentiable);

  Tensors results;
  results.reserve(outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    const int output = static_cast<int>(i);
    const bool follow = node && (mode == Recording::trace || op->differentiable(output));
    results.push_back(follow ? Tensor(std::move(outputs[i]), node, output) : Tensor(std::move(outputs[i])));
  }
  return results;
}

Node::Node() : id(++nodes_made) {}

Node::~Node() {
  ++nodes_destroyed;
  // Inputs that only this node keeps alive are destroyed from a list instead of recursively.
  thread_local std::vector<std::shared_ptr<Node>>* pending = nullptr;
  std::vector<std::shared_ptr<Node>> own;
  const bool outermost = pending == nullptr;
  if (outermost) pending = &own;
  for (const Tensor& input : inputs)
    if (input.node()) pending->push_back(input.node());
  inputs.clear();
  if (!outermost) return;
  while (!own.empty()) {
    const std::shared_ptr<Node> next = std::move(own.back());
    own.pop_back();
  }
  pending = nullptr;
}

namespace detail {

Trace begin_trace(const Tensors& inputs) {
  Trace trace;
  for (size_t i = 0; i < inputs.size(); ++i)
    trace.inputs.push_back(Tensor::leaf(inputs[i].value(), text("input", inputs.size() > 1 ? text(i) : "")));
  return trace;
}

uint64_t live_nodes() { return nodes_made - nodes_destroyed; }

CaptureScope::CaptureScope(Tensors& found) : RecordingScope(Recording::off), previous_(captured) {
  captured = &found;
}
CaptureScope::~CaptureScope() { captured = previous_; }

TraceScope::TraceScope(Trace& trace) : RecordingScope(Recording::trace), previous_(active_trace) {
  active_trace = &trace;
}
TraceScope::~TraceScope() { active_trace = previous_; }

}  // namespace detail

std::string Trace::str() const {
  std::string out;
  for (const auto& node : nodes) {
    out += text(node->scope.empty() ? "-" : node->scope, ' ', node->op->name());
    for (const Tensor& input : node->inputs) out += text(' ', input.shape());
    out += " ->";
    for (const Array& output : node->outputs) out += text(' ', output.shape());
    out += '\n';
  }
  return out;
}

}  // namespace stairgrad
