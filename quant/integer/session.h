// Runs a network in integers.
#pragma once

#include <memory>

#include "model.h"

namespace stairgrad::quant::integer {

/// A model prepared for one batch size: convolutions are made, weights reordered and buffers planned once.
/// One session a thread; sessions of one model may run side by side.
class Session {
 public:
  /// With keep_values every value has a buffer of its own after run(); otherwise buffers are reused.
  explicit Session(const Model& model, int64_t batch, bool keep_values = false);
  ~Session();
  Session(Session&&) noexcept;

  int64_t batch() const;
  /// images (batch, h, w, c) f32, normalised -> logits (batch, classes) f32, valid until the next run().
  const Array& run(const Array& images);
  /// What the last run() wrote, by index into model.values; needs keep_values.
  const Array& value(int index) const;
  /// Bytes of the buffers between layers.
  int64_t buffer_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace stairgrad::quant::integer
