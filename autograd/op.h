// What an op is, and how one is run and recorded.
//
// An op is a struct: typed attributes, a forward on arrays, and a vjp that is built only from ops. So a vjp
// is itself differentiable, and grad of grad is free at any order.
#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "tensor.h"

namespace stairgrad {

class Vjp;

/// Which values a vjp reads. What is not named here is released after the forward; shapes and types always
/// stay.
struct Saved {
  std::vector<int> inputs = {};
  std::vector<int> outputs = {};
};

struct Op {
  virtual ~Op() = default;

  virtual std::string_view name() const = 0;

  /// Values of the outputs. Arguments have been checked by the op's function.
  virtual Arrays forward(const Arrays& inputs) const = 0;

  /// Gradients for the inputs, undefined tensors for inputs that do not need one (v.needs(i)). Built only
  /// from ops; it looks at nothing but v and the attributes. The default throws: the op has no derivative.
  virtual Tensors vjp(const Vjp& v) const;

  /// The values that vjp reads.
  virtual Saved saved() const { return {}; }

  /// False for outputs that are constants by definition (an index, a statistic that only feeds a running
  /// mean).
  virtual bool differentiable(int /*output*/) const { return true; }

  /// True if floating inputs may differ in type (bf16 activations with f32 parameters); otherwise apply()
  /// throws.
  virtual bool mixed_types() const { return false; }

  /// The same function as a composition of simpler ops: what a fused op's higher derivatives, lowering and
  /// export use. The default throws: the op is elementary.
  virtual Tensors decompose(const Tensors& inputs) const;
};

/// A recorded application of an op, or a leaf (no op).
struct Node {
  Node();
  ~Node();  // a loop: a long chain must not overflow the stack

  uint64_t id;  ///< counts up, so an order by id is topological
  std::shared_ptr<const Op> op;
  Tensors
      inputs;  ///< values only where the op's saved() asks for them, and of constants and leaves in a trace
  Arrays outputs;                  ///< likewise
  std::vector<uint64_t> versions;  ///< of the inputs' memory, when it was recorded
  std::string name;                ///< of a leaf
  std::string scope;               ///< path of the module that applied the op, in a trace
  bool differentiable = false;     ///< false in a trace of constants
  bool released = false;           ///< a walk of grad() has used and dropped the values
};

/// What a vjp may look at.
class Vjp {
 public:
  Vjp(const std::shared_ptr<Node>& node, const Tensors& grads, const std::vector<bool>& needs)
      : node_(node), grads_(grads), needs_(needs) {}

  /// Input i with its history. Throws if saved() did not name it, or if its memory was changed since.
  const Tensor& input(int i) const;
  /// Output i with its history. Throws if saved() did not name it.
  Tensor output(int i = 0) const;
  const Shape& input_shape(int i) const { return node_->inputs[static_cast<size_t>(i)].shape(); }
  DType input_dtype(int i) const { return node_->inputs[static_cast<size_t>(i)].dtype(); }
  int inputs() const { return static_cast<int>(node_->inputs.size()); }

  /// The gradient with respect to output i; zeros if nothing depends on that output.
  Tensor grad(int i = 0) const;
  bool has_grad(int i) const { return grads_[static_cast<size_t>(i)].defined(); }
  /// True if somebody wants the gradient of input i.
  bool needs(int i) const { return needs_[static_cast<size_t>(i)]; }

 private:
  const std::shared_ptr<Node>& node_;
  const Tensors& grads_;
  const std::vector<bool>& needs_;
};

/// Runs an op and records it as the recorder's mode asks (recorder.h).
Tensors apply(std::shared_ptr<const Op> op, const Tensors& inputs);

/// The same for an op with one output.
template <class O>
Tensor apply_op(O op, const Tensors& inputs) {
  return stairgrad::apply(std::make_shared<const O>(std::move(op)), inputs)[0];
}

/// Records an op whose outputs have been computed already.
Tensors apply_computed(std::shared_ptr<const Op> op, const Tensors& inputs, Arrays outputs);

/// The vjp of a fused op by differentiating its decompose(): exact at any order, several passes over memory.
Tensors vjp_by_decomposition(const Op& op, const Vjp& v);

/// The same for any function: runs and records it on the first `arguments` inputs and walks that record
/// alone. Further inputs are tensors that the function uses by itself.
Tensors vjp_by_recording(const std::function<Tensors(const Tensors&)>& function, int arguments, const Vjp& v);

}  // namespace stairgrad
