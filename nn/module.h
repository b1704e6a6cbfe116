// Modules: named parameters, buffers and children, and the taps where quantizers are put in.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../autograd/quantized.h"
#include "../autograd/recorder.h"
#include "../autograd/tensor.h"
#include "../kernels/random.h"

namespace stairgrad::nn {

/// A point that a tensor passes on its way, where a quantizer may be put. nn offers the point and knows no
/// quantizer.
struct Tap {
  enum class Role {
    weight,  ///< a layer's weights
    input,   ///< what a layer convolves
    tensor   ///< a result with several readers, or one that a pooling layer reads: stored once
  };

  explicit Tap(Role role) : role(role) {}

  /// What the tensor becomes: itself, if there is no hook.
  Quantized operator()(const Tensor& x) const { return hook ? hook(x) : Quantized{x, {}}; }

  Role role;
  std::function<Quantized(const Tensor&)> hook;
};

class Module;

struct NamedTensor {
  std::string name;
  Tensor tensor;
};
struct NamedBuffer {
  std::string name;
  Array array;
};
struct NamedModule {
  std::string name;
  Module* module;
};
struct NamedTap {
  std::string name;  ///< "layer1.0.conv1.weight"; the path of the tap
  Tap* tap;
  /// Path of the module whose tap it is: "layer1.0.conv1".
  std::string owner() const { return name.substr(0, name.rfind('.')); }
};

/// Arrays by full name: what is saved of a module or an optimiser.
using State = std::map<std::string, Array>;
/// The same values in memory of their own.
State clone(const State& state);

/// In what a state differs from another, by full name.
struct StateMismatch {
  std::vector<std::string> missing, unexpected, misshaped;
  bool none() const { return missing.empty() && unexpected.empty() && misshaped.empty(); }
  std::string str() const;
};
/// Compares names and shapes, and also types if they must be the same.
StateMismatch compare(const State& own, const State& values, bool same_types);

/// Names are torchvision's, joined with dots: "layer1.0.conv1.weight". Names sort the children in the order
/// in which they were added.
class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  /// Fills this module's own parameters and buffers with their initial values (children do their own). `path`
  /// keys the random numbers, so a layer's values depend on its name and the seed alone.
  virtual void reset(uint64_t /*seed*/, const std::string& /*path*/) {}
  /// Training or evaluation, for this module and all below it.
  virtual void train(bool on = true);
  void eval() { train(false); }
  bool training() const { return training_; }
  /// The name within the parent.
  const std::string& name() const { return name_; }

  std::vector<NamedTensor> parameters() const;
  std::vector<NamedBuffer> buffers() const;
  std::vector<NamedTap> taps();
  /// This module (name "") and all below it.
  std::vector<NamedModule> modules();
  int64_t parameter_count() const;

  /// Makes all parameters and buffers of this module and below f32, or f64 for gradient checks. The
  /// parameters become new leaves, so make optimisers afterwards.
  void to(DType dtype);

  /// Values of parameters and buffers by name; they share the model's memory.
  State state() const;
  /// Copies values in. All or nothing: unless `partial`, any mismatch throws argument_error that lists them
  /// all.
  StateMismatch load_state(const State& values, bool partial = false);

  /// Makes `child` a part of this module. Its name may have dots: "conv.0.0" stands for two modules that
  /// would do nothing but hold others.
  template <class M>
  std::shared_ptr<M> add_module(const std::string& name, std::shared_ptr<M> child) {
    child->name_ = name;
    children_.emplace_back(name, child);
    return child;
  }
  /// Offers a point to quantizers; `tap` lives as long as this module.
  void add_tap(const std::string& name, Tap& tap) { taps_.emplace_back(name, &tap); }

 protected:
  /// A learned array, zero until reset() or load_state(). Hold it by reference: to() replaces it.
  const Tensor& add_parameter(const std::string& name, Shape shape);
  /// An array that is saved with the model but not learned; likewise.
  Array& add_buffer(const std::string& name, Shape shape, double value = 0);
  /// Takes a child out again; nothing if there is none of that name.
  void remove_module(const std::string& name);

 private:
  friend class Evaluation;

  std::string name_;
  bool training_ = true;
  std::deque<NamedTensor> parameters_;  // deques, because layers refer to the elements
  std::deque<NamedBuffer> buffers_;
  std::vector<std::pair<std::string, std::shared_ptr<Module>>> children_;
  std::vector<std::pair<std::string, Tap*>> taps_;
};

/// A module that maps one tensor to one tensor.
class Layer : public Module {
 public:
  virtual Tensor forward(const Tensor& x) = 0;
  /// forward() within the scope of this layer's name, so that traces know who applied an op.
  Tensor operator()(const Tensor& x) {
    const Scope scope(name());
    return forward(x);
  }
};

/// While it lives, the modules that this thread makes hold at most `elements` together: one that would go
/// beyond throws argument_error before it allocates. For sizes that come from a file, unchecked.
class SizeLimit {
 public:
  explicit SizeLimit(int64_t elements);
  ~SizeLimit();
  SizeLimit(const SizeLimit&) = delete;
  SizeLimit& operator=(const SizeLimit&) = delete;

 private:
  friend class Module;
  static void count(const Shape& shape);

  int64_t elements_, used_ = 0;
};

/// Evaluation mode while it lives; afterwards every module is back in the mode it had.
class Evaluation {
 public:
  explicit Evaluation(Module& module);
  ~Evaluation();
  Evaluation(const Evaluation&) = delete;
  Evaluation& operator=(const Evaluation&) = delete;

 private:
  std::vector<std::pair<Module*, bool>> modes_;
};

/// Gives every module below `model` its initial values.
void initialise(Module& model, uint64_t seed);

}  // namespace stairgrad::nn
