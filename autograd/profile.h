// Where the time goes: every op that runs, with its time.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "op.h"

namespace stairgrad {

/// Sees every op that the calling thread runs while it lives.
class OpObserver {
 public:
  OpObserver();
  virtual ~OpObserver();
  OpObserver(const OpObserver&) = delete;
  OpObserver& operator=(const OpObserver&) = delete;

  /// Runs op.forward(inputs) and returns its result.
  virtual Arrays run(const Op& op, const Arrays& inputs) = 0;

  /// The observer of the calling thread, or null.
  static OpObserver* current();

 private:
  OpObserver* previous_;
};

/// Times every op that the calling thread runs while it lives.
class Profile : public OpObserver {
 public:
  struct Event {
    std::string name;   ///< the op's, or that of a span
    std::string scope;  ///< path of the module that applied it; empty in a backward walk
    Shape shape;        ///< of the first output
    double begin, seconds;
    size_t bytes;  ///< of inputs and outputs
  };

  Arrays run(const Op& op, const Arrays& inputs) override;

  /// Runs `body` and notes its time under a name, beside the ops that it applies.
  template <class Body>
  void span(const std::string& name, Body&& body) {
    const double begin = now();
    body();
    spans_.push_back({name, {}, {}, begin, now() - begin, 0});
  }

  const std::vector<Event>& ops() const { return ops_; }
  const std::vector<Event>& spans() const { return spans_; }

  /// In the format of chrome://tracing and ui.perfetto.dev.
  std::string chrome_trace() const;

 private:
  double now() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
  std::vector<Event> ops_, spans_;
};

}  // namespace stairgrad
