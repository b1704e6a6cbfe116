// The recorder: whether applied ops are forgotten, taped for grad(), or traced as structure.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "op.h"

namespace stairgrad {

enum class Recording {
  off,   ///< nothing is recorded
  tape,  ///< ops with an input that requires a gradient are recorded with the values their vjp reads (the
         ///< default)
  trace  ///< every op is recorded without values, into a Trace
};

/// The mode of the calling thread.
Recording recording();

/// Sets the mode of the calling thread while it lives.
class RecordingScope {
 public:
  explicit RecordingScope(Recording mode);
  ~RecordingScope();
  RecordingScope(const RecordingScope&) = delete;
  RecordingScope& operator=(const RecordingScope&) = delete;

 private:
  Recording previous_;
};

/// No recording while it lives: evaluation.
class NoGrad : RecordingScope {
 public:
  NoGrad() : RecordingScope(Recording::off) {}
};

/// Names the module that applies ops while it lives; nested names are joined with dots.
class Scope {
 public:
  explicit Scope(std::string_view name);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  /// The path of the calling thread.
  static const std::string& path();

 private:
  size_t previous_length_;
};

/// The structure of one run: the one source of cost, lowering and export.
struct Trace {
  std::vector<std::shared_ptr<Node>> nodes;  ///< in the order they ran
  Tensors inputs;                            ///< the traced function's arguments, as leaves
  Tensors outputs;

  /// One line an op: "conv1 conv2d (1,32,32,3) (16,3,3,3) -> (1,32,32,16)".
  std::string str() const;
};

/// Runs `function` on `inputs` (an example: shapes are those of this run) and keeps what it applied. Values
/// of parameters and constants stay, values of results do not.
template <class Function>
Trace trace(Function&& function, const Tensors& inputs);

namespace detail {
Trace begin_trace(const Tensors& inputs);
/// Collects the nodes of the calling thread while it lives.
class TraceScope : RecordingScope {
 public:
  explicit TraceScope(Trace& trace);
  ~TraceScope();

 private:
  Trace* previous_;
};

/// Nothing is recorded while it lives; tensors that require a gradient and meet an op are added to `found`.
class CaptureScope : RecordingScope {
 public:
  explicit CaptureScope(Tensors& found);
  ~CaptureScope();

 private:
  Tensors* previous_;
};

/// Nodes that exist: none is left when all tensors are gone.
uint64_t live_nodes();
}  // namespace detail

template <class Function>
Trace trace(Function&& function, const Tensors& inputs) {
  Trace result = detail::begin_trace(inputs);
  const detail::TraceScope scope(result);
  result.outputs = {function(result.inputs)};
  return result;
}

}  // namespace stairgrad
