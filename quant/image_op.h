// What image_choice() and image_route() have in common.
#pragma once

#include "../autograd/op.h"

namespace stairgrad::quant {

/// Inputs: gates (n, parts), then the parts, all of one shape (n, ...). Image i takes part k, with k the
/// largest of gates[i].
struct ImageOp : Op {
  int column;      ///< which column of the integer runtime's choices says k
  int inputs = 0;  ///< gates and parts

  explicit ImageOp(int column) : column(column) {}
  Saved saved() const override;
  bool mixed_types() const override { return true; }
};

}  // namespace stairgrad::quant
