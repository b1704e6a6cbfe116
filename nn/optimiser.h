// Optimisers: one pass over each parameter, in place.
#pragma once

#include "module.h"

namespace stairgrad::nn {

/// Parameters that share settings.
struct ParameterGroup {
  std::vector<NamedTensor> parameters;
  double lr_scale = 1;  ///< multiplies the schedule's learning rate
  double weight_decay = 0;
};

/// Updates parameters from gradients; how, the subclass says. Every step bumps the parameters' versions.
class Optimiser {
 public:
  explicit Optimiser(std::vector<ParameterGroup> groups);
  virtual ~Optimiser() = default;

  /// All parameters, in the order in which step() takes their gradients.
  const Tensors& parameters() const { return parameters_; }
  /// One update with learning rate `lr`.
  void step(const Tensors& gradients, double lr);

  /// The optimiser's memory (momentum ...), by "kind.parameter"; for checkpoints. Shares memory.
  State state() const;
  /// Copies a state() back in. All or nothing: throws argument_error that lists the names that differ.
  void load_state(const State& values);

 protected:
  struct Slot {
    Array value;                ///< the parameter's memory
    std::vector<Array> memory;  ///< what the optimiser remembers of it
  };
  /// Names of the memories each parameter has.
  virtual std::vector<std::string> kinds() const = 0;
  /// Changes slot.value and its memories in place and bumps their versions.
  virtual void update(Slot& slot, const Array& gradient, double lr, double weight_decay) = 0;
  int64_t steps() const { return static_cast<int64_t>(steps_.item()); }
  /// To be called by the constructor of a subclass: makes the memories.
  void allocate();

 private:
  std::vector<ParameterGroup> groups_;
  Tensors parameters_;
  std::vector<Slot> slots_;
  Array steps_ = Array::scalar(0, DType::f64);  // an array, so that it is part of the state
};

/// Stochastic gradient descent with momentum (PyTorch's form: the learning rate multiplies the momentum
/// buffer).
class SGD : public Optimiser {
 public:
  SGD(std::vector<ParameterGroup> groups, double momentum = 0.9, bool nesterov = false);

 private:
  std::vector<std::string> kinds() const override { return {"momentum"}; }
  void update(Slot& slot, const Array& gradient, double lr, double weight_decay) override;

  double momentum_;
  bool nesterov_;
};

/// Adam with decoupled weight decay (Loshchilov and Hutter, ICLR'19).
class AdamW : public Optimiser {
 public:
  AdamW(std::vector<ParameterGroup> groups, double beta1 = 0.9, double beta2 = 0.999, double eps = 1e-8);

 private:
  std::vector<std::string> kinds() const override { return {"mean", "square"}; }
  void update(Slot& slot, const Array& gradient, double lr, double weight_decay) override;

  double beta1_, beta2_, eps_;
};

/// lr * (1 + cos(pi t)) / 2 with t the part of the steps done, after a linear rise over the first `warmup`
/// steps (Loshchilov and Hutter, ICLR'17).
double cosine_schedule(double lr, int64_t step, int64_t steps, int64_t warmup = 0);
/// lr * gamma^k, where k milestones (ascending, in steps) have been reached.
double step_schedule(double lr, int64_t step, const std::vector<int64_t>& milestones, double gamma = 0.1);

}  // namespace stairgrad::nn
