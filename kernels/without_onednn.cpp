// Stands in for onednn_*.cpp in a build without oneDNN.
#include "onednn.h"

namespace stairgrad::kernels::onednn {

const char* conv2d(ConvOp, ConvArrays, const Conv2dOptions&) { return nullptr; }
std::unique_ptr<IntegerPrimitive> integer_primitive(const IntegerConvSpec&, DType) { return nullptr; }
bool products_are_exact() { return false; }

}  // namespace stairgrad::kernels::onednn
