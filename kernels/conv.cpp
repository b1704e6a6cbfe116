#include "conv.h"

#include "depthwise.h"
#include "dispatch.h"
#include "elementwise.h"
#include "onednn.h"
#include "reference/conv.h"
#include "simd/simd.h"

namespace stairgrad::kernels {
namespace {

Array& result_of(ConvOp op, ConvArrays& a) {
  return op == ConvOp::forward ? a.dst : op == ConvOp::backward_data ? a.src : a.weights;
}

void report(ConvOp op, const ConvArrays& a, const Conv2dOptions& o, const std::string& kernel,
            const char* reason) {
  if (!dispatch_is_verbose()) return;
  const auto& p = o.padding;
  report_dispatch(text(name_of(op), ' ', name_of(a.src.dtype()), ' ', a.src.shape(), '*', a.weights.shape(),
                       " stride ", o.stride[0], 'x', o.stride[1], " padding ", p[0], ',', p[1], ',', p[2],
                       ',', p[3], " dilation ", o.dilation[0], 'x', o.dilation[1], " groups ", o.groups),
                  kernel, reason);
}

Array scaled(const Array& dst, const Array& scale) {
  if (!scale.has_value()) return dst;
  return cast(binary(Binary::mul, cast(dst, DType::f32), scale), dst.dtype());
}

/// Computes the array that `op` names, of the given shape and type, from the other two. All have been
/// checked.
Array compute(ConvOp op, ConvArrays arrays, const Shape& shape, DType type, const Conv2dOptions& options) {
  Array& result = result_of(op, arrays) = Array(shape, type);
  const auto on_reference = [&](const char* reason) {
    report(op, arrays, options, "reference", reason);
    reference::conv2d(op, arrays, options);
    return scaled(result, arrays.scale);
  };
  if (arrays.src.dtype() == DType::f64) return on_reference("f64 runs on plain loops");
  const bool empty = arrays.src.size() == 0 || arrays.weights.size() == 0 || arrays.dst.size() == 0;
  if (!empty && depthwise::is_suited(arrays, options)) {
    depthwise::conv2d(op, arrays, options);
    report(op, arrays, options, text("depthwise:", simd::name_of(simd::isa())), "one filter a channel");
    return scaled(result, arrays.scale);
  }
  if (const std::string found = empty ? "" : onednn::conv2d(op, arrays, options); !found.empty()) {
    report(op, arrays, options, "onednn:" + found, "first choice");
    return result;
  }
  if (arrays.src.dtype() == DType::bf16) {
    report(op, arrays, options, "the f32 kernel, rounded at the store", "no bf16 kernel here");
    const auto widened = [&](const Array& a) { return &a == &result ? Array() : cast(a, DType::f32); };
    return cast(compute(op, {widened(arrays.src), widened(arrays.weights), widened(arrays.dst), arrays.scale},
                        shape, DType::f32, options),
                type);
  }
  return on_reference(empty ? "an array is empty" : "no faster kernel here");
}

void check_image(const char* op, const char* name, const Array& image) {
  check(is_floating(image.dtype()), "[", op, "] ", name, ": got ", name_of(image.dtype()),
        ", expected f32, bf16 or f64; codes go to IntegerConv");
}

void check_weights(const char* op, const Array& weights, const Array& image, const char* image_name) {
  if (image.dtype() == DType::bf16 && weights.dtype() == DType::f32) return;
  check(weights.dtype() == image.dtype(), "[", op, "] weights: got ", name_of(weights.dtype()), ", expected ",
        name_of(image.dtype()), " as ", image_name, image.dtype() == DType::bf16 ? " or f32" : "",
        "; convert one of them with cast");
}

void check_dst(const char* op, const Array& dst, const Shape& src, const Shape& weights,
               const Conv2dOptions& options) {
  const Shape expected = conv2d_shape(src, weights, options);
  check(dst.shape() == expected, "[", op, "] diff_dst: got ", dst.shape(), ", expected ", expected,
        " because src is ", src, " and weights are ", weights);
}

}  // namespace

Shape conv2d_shape(const Shape& src, const Shape& weights, const Conv2dOptions& o) {
  check(src.rank() == 4, "[conv2d] src: got ", src, ", expected (n, h, w, ic)");
  check(weights.rank() == 4, "[conv2d] weights: got ", weights, ", expected (oc, kh, kw, ic / groups)");
  check(o.stride[0] >= 1 && o.stride[1] >= 1, "[conv2d] stride: got ", o.stride[0], " x ", o.stride[1],
        ", expected at least 1");
  check(o.dilation[0] >= 1 && o.dilation[1] >= 1, "[conv2d] dilation: got ", o.dilation[0], " x ",
        o.dilation[1], ", expected at least 1 (1 means no gaps)");
  for (const int64_t padding : o.padding)
    check(padding >= 0, "[conv2d] padding: got ", padding, ", expected 0 or more; crop src to drop pixels");
  check(o.groups >= 1 && src[3] % o.groups == 0 && weights[0] % o.groups == 0, "[conv2d] groups: got ",
        o.groups, ", expected a divisor of ic = ", src[3], " and oc = ", weights[0], " because src is ", src,
        " and weights are ", weights);
  check(weights[3] * o.groups == src[3], "[conv2d] weights: got ", weights,
        ", expected ic / groups = ", src[3] / o.groups, " as the last extent because src is ", src,
        " and groups are ", o.groups);
  Shape dst{src[0], 0, 0, weights[0]};
  for (size_t i = 0; i < 2; ++i) {
    const int axis = static_cast<int>(i) + 1;
    const int64_t padded = src[axis] + o.padding[2 * i] + o.padding[2 * i + 1];
    const int64_t reach = (weights[axis] - 1) * o.dilation[i] + 1;
    check(weights[axis] >= 1 && reach <= padded, "[conv2d] weights: got ", weights, ", whose ",
          axis == 1 ? "rows" : "columns", " reach over ", reach, " pixels, expected 1 to ", padded,
          ", the padded extent of src ", src);
    dst[axis] = (padded - reach) / o.stride[i] + 1;
  }
  return dst;
}

Array conv2d(const Array& src, const Array& weights, const Conv2dOptions& options, const Array& scale) {
  const Shape shape = conv2d_shape(src.shape(), weights.shape(), options);
  check_image("conv2d", "src", src);
  check_weights("conv2d", weights, src, "src");
  check(!scale.has_value() || (scale.dtype() == DType::f32 && scale.shape() == Shape{shape[3]}),
        "[conv2d] scale: got ", scale.has_value() ? text(name_of(scale.dtype()), scale.shape()) : "",
        ", expected f32", Shape{shape[3]}, ", one factor for each output channel");
  return compute(ConvOp::forward, {src, weights, {}, scale}, shape, src.dtype(), options);
}

Array conv2d_backward_data(const Array& diff_dst, const Array& weights, const Shape& src_shape,
                           const Conv2dOptions& options) {
  constexpr auto op = ConvOp::backward_data;
  check_dst(name_of(op), diff_dst, src_shape, weights.shape(), options);
  check_image(name_of(op), "diff_dst", diff_dst);
  check_weights(name_of(op), weights, diff_dst, "diff_dst");
  return compute(op, {{}, weights, diff_dst}, src_shape, diff_dst.dtype(), options);
}

Array conv2d_backward_weights(const Array& src, const Array& diff_dst, const Shape& weights_shape,
                              const Conv2dOptions& options) {
  constexpr auto op = ConvOp::backward_weights;
  check_dst(name_of(op), diff_dst, src.shape(), weights_shape, options);
  check_image(name_of(op), "src", src);
  check(diff_dst.dtype() == src.dtype(), "[", name_of(op), "] diff_dst: got ", name_of(diff_dst.dtype()),
        ", expected ", name_of(src.dtype()), " as src; convert one of them with cast");
  const DType type = src.dtype() == DType::bf16 ? DType::f32 : src.dtype();
  return compute(op, {src, {}, diff_dst}, weights_shape, type, options);
}

}  // namespace stairgrad::kernels
