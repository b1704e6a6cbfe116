#include "module.h"

namespace stairgrad::nn {
namespace {

std::string joined(const std::string& path, const std::string& name) {
  return path.empty() || name.empty() ? path + name : path + '.' + name;
}

void list(std::string& out, const char* what, const std::vector<std::string>& names) {
  if (names.empty()) return;
  out += text(out.empty() ? "" : "; ", what, ':');
  for (const std::string& name : names) out += ' ' + name;
}

}  // namespace

std::string StateMismatch::str() const {
  std::string out;
  list(out, "missing", missing);
  list(out, "unexpected", unexpected);
  list(out, "of another shape", misshaped);
  return out;
}

State clone(const State& state) {
  State copy;
  for (const auto& [name, array] : state) copy[name] = array.clone();
  return copy;
}

StateMismatch compare(const State& own, const State& values, bool same_types) {
  StateMismatch mismatch;
  const auto kind = [&](const Array& a) { return text(same_types ? name_of(a.dtype()) : "", a.shape()); };
  for (const auto& [name, array] : own) {
    const auto found = values.find(name);
    if (found == values.end())
      mismatch.missing.push_back(name);
    else if (kind(found->second) != kind(array))
      mismatch.misshaped.push_back(
          text(name, " (got ", kind(found->second), ", expected ", kind(array), ')'));
  }
  for (const auto& [name, array] : values)
    if (!own.count(name)) mismatch.unexpected.push_back(name);
  return mismatch;
}

void Module::train(bool on) {
  training_ = on;
  for (const auto& [name, child] : children_) child->train(on);
}

std::vector<NamedTensor> Module::parameters() const {
  std::vector<NamedTensor> all(parameters_.begin(), parameters_.end());
  for (const auto& [name, child] : children_)
    for (const NamedTensor& p : child->parameters()) all.push_back({joined(name, p.name), p.tensor});
  return all;
}

std::vector<NamedBuffer> Module::buffers() const {
  std::vector<NamedBuffer> all(buffers_.begin(), buffers_.end());
  for (const auto& [name, child] : children_)
    for (const NamedBuffer& b : child->buffers()) all.push_back({joined(name, b.name), b.array});
  return all;
}

std::vector<NamedTap> Module::taps() {
  std::vector<NamedTap> all;
  for (const auto& [name, tap] : taps_) all.push_back({name, tap});
  for (const auto& [name, child] : children_)
    for (const NamedTap& t : child->taps()) all.push_back({joined(name, t.name), t.tap});
  return all;
}

std::vector<NamedModule> Module::modules() {
  std::vector<NamedModule> all = {{"", this}};
  for (const auto& [name, child] : children_)
    for (const NamedModule& m : child->modules()) all.push_back({joined(name, m.name), m.module});
  return all;
}

int64_t Module::parameter_count() const {
  int64_t count = 0;
  for (const NamedTensor& p : parameters()) count += p.tensor.size();
  return count;
}

void Module::to(DType dtype) {
  check(dtype == DType::f32 || dtype == DType::f64, "[to] got ", name_of(dtype),
        ", expected f32 or f64; bf16 is for activations");
  for (NamedTensor& p : parameters_) p.tensor = Tensor::leaf(cast(p.tensor.value(), dtype), p.tensor.name());
  for (NamedBuffer& b : buffers_) b.array = cast(b.array, dtype);
  for (const auto& [name, child] : children_) child->to(dtype);
}

State Module::state() const {
  State values;
  for (const NamedTensor& p : parameters()) values[p.name] = p.tensor.value();
  for (const NamedBuffer& b : buffers()) values[b.name] = b.array;
  return values;
}

StateMismatch Module::load_state(const State& values, bool partial) {
  State own = state();
  const StateMismatch mismatch = compare(own, values, /*same_types=*/false);
  check(partial || mismatch.none(), "[load_state] the values do not fit the model: ", mismatch.str());
  for (auto& [name, array] : own)
    if (const auto found = values.find(name); found != values.end() && found->second.shape() == array.shape())
      array.assign(cast(found->second, array.dtype()));
  return mismatch;
}

const Tensor& Module::add_parameter(const std::string& name, Shape shape) {
  SizeLimit::count(shape);
  parameters_.push_back({name, Tensor::leaf(Array::zeros(shape), name)});
  return parameters_.back().tensor;
}

Array& Module::add_buffer(const std::string& name, Shape shape, double value) {
  SizeLimit::count(shape);
  buffers_.push_back({name, Array::full(shape, value)});
  return buffers_.back().array;
}

namespace {
thread_local SizeLimit* limit = nullptr;
}  // namespace

SizeLimit::SizeLimit(int64_t elements) : elements_(elements) {
  check(!limit, "[size limit] got a second limit on this thread, expected one at a time");
  limit = this;
}

SizeLimit::~SizeLimit() { limit = nullptr; }

void SizeLimit::count(const Shape& shape) {
  if (!limit) return;
  limit->used_ += shape.size();
  check(limit->used_ <= limit->elements_, "[model] got a network of more than ", limit->elements_,
        " elements, expected at most so many");
}

Evaluation::Evaluation(Module& module) {
  for (const NamedModule& m : module.modules()) modes_.emplace_back(m.module, m.module->training_);
  module.eval();
}

Evaluation::~Evaluation() {
  for (const auto& [module, training] : modes_) module->training_ = training;
}

void Module::remove_module(const std::string& name) {
  std::erase_if(children_, [&](const auto& child) { return child.first == name; });
}

void initialise(Module& model, uint64_t seed) {
  for (const NamedModule& m : model.modules()) m.module->reset(seed, m.name);
}

}  // namespace stairgrad::nn
