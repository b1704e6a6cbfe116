// Runs a network in integers.
#pragma once

#include <memory>

#include "model.h"

namespace stairgrad::quant::integer {

/// A model prepared for one batch size and the threads() of this moment: weights are packed and buffers
/// planned once; run() allocates nothing. Small batches share the work of a layer among the threads;
/// otherwise each thread takes images of its own from the first layer to the last, a few at a time, so that
/// what it works on stays in its cache. One session a thread; sessions of one model may run side by side.
class Session {
 public:
  /// With keep_values every value has a buffer of its own after run(); otherwise buffers are reused.
  explicit Session(const Model& model, int64_t batch, bool keep_values = false);
  ~Session();
  Session(Session&&) noexcept;

  int64_t batch() const;
  /// images (batch, h, w, c) f32, normalised -> logits (batch, classes) f32, valid until the next run().
  const Array& run(const Array& images);
  /// The same for a model with alternatives: choices (batch, choices_of(model)) u8 say which one each image
  /// takes for each value that has them. The result does not depend on the company an image is in. Without
  /// choices a selector in the model makes them; where there is none, images take the first alternatives.
  const Array& run(const Array& images, const Array& choices);

  /// (batch, choices_of(model)) u8: what the model's selector chose in the last run() without choices. Throws
  /// argument_error for a model without one.
  const Array& choices() const;

  /// What the last run() wrote, by index into model.values; needs keep_values.
  const Array& value(int index) const;
  /// Seconds that a layer took in the last run(); needs keep_values.
  double seconds(size_t layer) const;
  /// What computes a layer: "own:dense", "onednn:...", "reference", or the name of the operation.
  const char* implementation(size_t layer) const;
  /// Bytes of the buffers between layers.
  int64_t buffer_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace stairgrad::quant::integer
