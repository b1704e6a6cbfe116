#include "image_op.h"

namespace stairgrad::quant {

Saved ImageOp::saved() const {
  Saved all;
  for (int i = 0; i < inputs; ++i) all.inputs.push_back(i);
  return all;
}

}  // namespace stairgrad::quant
