// The layers of a model as functions on memory: what a session runs one after another. Private to the
// runtime.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../../kernels/integer_conv.h"
#include "model.h"

namespace stairgrad::quant::integer {

/// What a step works on: the buffers of `images` images, of which the share-th part of `shares` is done.
/// Steps read and write whole rows, so that parts do not overlap.
struct Work {
  void* const* values;  ///< by index into model.values
  void* scratch;
  int64_t images;
  const uint8_t* choices;  ///< (images, choices_of(model)), or null: the first alternatives
  uint8_t* own_choices;    ///< the same memory where the model's selector makes them, else null
  int share, shares;
};

struct Step {
  std::function<void(const Work&)> run;
  size_t scratch_bytes = 0;
  std::string implementation = {};
};

/// Prepares a layer of `model` for up to `images` images at once and so many shares; the step refers to
/// `model`. Buffers hold as many images even where fewer are given.
Step make_step(const Model& model, const Layer& layer, int64_t images, int shares);

}  // namespace stairgrad::quant::integer
