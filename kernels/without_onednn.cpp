// Stands in for onednn_*.cpp in a build without oneDNN.
#include "onednn.h"

namespace stairgrad::kernels::onednn {

std::string conv2d(ConvOp, ConvArrays, const Conv2dOptions&) { return {}; }
std::unique_ptr<IntegerPrimitive> integer_primitive(const IntegerConvSpec&, DType) { return nullptr; }
bool products_are_exact() { return false; }
bool has_matrix_units() { return false; }

}  // namespace stairgrad::kernels::onednn
