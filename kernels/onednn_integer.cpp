// Integer convolution on oneDNN: the requantisation of grid.h as attributes of the primitive.
#include <string_view>

#include "onednn.h"
#include "onednn_engine.h"

namespace stairgrad::kernels::onednn {
namespace {

/// Appends the part that both versions of oneDNN share: skip, then the range of codes.
void append_skip_and_range(dnnl::post_ops& ops, const IntegerConvSpec& spec) {
  if (spec.skip) ops.append_sum(spec.skip_ratio);
  if (spec.lo <= 0 && spec.hi >= 255) return;  // saturation to u8 does it
  const auto lo = static_cast<float>(spec.lo), hi = static_cast<float>(spec.hi);
#if DNNL_VERSION_MAJOR >= 3
  ops.append_eltwise(dnnl::algorithm::eltwise_clip, lo, hi);
#else
  ops.append_eltwise(1, dnnl::algorithm::eltwise_clip, lo, hi);
#endif
}

class Primitive final : public IntegerPrimitive {
 public:
  Primitive(const IntegerConvSpec& spec, DType dst_type)
      : b_(spec.b), m_(spec.m), bare_(dst_type == DType::s32) {
    const Shape dst_shape = conv2d_shape(spec.src, spec.weights.shape(), spec.conv);
    const Shape& w = spec.weights.shape();
    src_ = images(spec.src, memory::data_type::u8);
    dst_ = images(dst_shape, type_of(dst_type));
    const auto any = weights(w, spec.conv.groups, memory::data_type::s8, Order::any);
    const auto description = describe(spec, dst_type, any);
    primitive_ = dnnl::convolution_forward(description);
    scratchpad_ = description.scratchpad_desc();
    implementation_ = description.impl_info_str();

    const Reorder reorder(weights(w, spec.conv.groups, memory::data_type::s8, Order::ours),
                          description.weights_desc());
    reordered_ = spec.weights;
    if (reorder.needed) {
      reordered_ = Array({static_cast<int64_t>(description.weights_desc().get_size())}, DType::u8);
      reorder.run(spec.weights.raw(), reordered_.raw());
    }
    weights_ = wrap(description.weights_desc(), reordered_.raw());
  }

  void run(const void* src, void* dst, void* scratch) const override {
    const memory from = wrap(src_, src), to = wrap(dst_, dst);
    if (bare_)
      return execute(primitive_, {{DNNL_ARG_SRC, from}, {DNNL_ARG_WEIGHTS, weights_}, {DNNL_ARG_DST, to}},
                     scratchpad_, scratch);
#if DNNL_VERSION_MAJOR >= 3
    execute(primitive_,
            {{DNNL_ARG_SRC, from},
             {DNNL_ARG_WEIGHTS, weights_},
             {DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, addend_},
             {DNNL_ARG_ATTR_MULTIPLE_POST_OP(1) | DNNL_ARG_SRC_1, factor_},
             { DNNL_ARG_DST,
               to }},
            scratchpad_, scratch);
#else
    execute(
        primitive_,
        {{DNNL_ARG_SRC, from}, {DNNL_ARG_WEIGHTS, weights_}, {DNNL_ARG_BIAS, addend_}, {DNNL_ARG_DST, to}},
        scratchpad_, scratch);
#endif
  }

  size_t scratch_bytes() const override { return scratchpad_.get_size(); }
  const char* implementation() const override { return implementation_.c_str(); }

 private:
  /// t = (f32(sum) + b) * m: 2.x adds the bias, then scales. 3.x would scale first; there two binary
  /// post-ops keep the order.
  dnnl::convolution_forward::primitive_desc describe(const IntegerConvSpec& spec, DType dst_type,
                                                     const memory::desc& any) {
    const ConvGeometry geometry(spec.conv);
    dnnl::primitive_attr requantise = attributes();
    if (dst_type == DType::s32) return describe_forward(geometry, requantise, src_, any, dst_);
    dnnl::post_ops ops;
    const memory::dim oc = spec.weights.dim(0);
#if DNNL_VERSION_MAJOR >= 3
    const memory::desc per_channel({1, oc, 1, 1}, memory::data_type::f32, memory::format_tag::nhwc);
    addend_ = wrap(per_channel, b_.raw());
    factor_ = wrap(per_channel, m_.raw());
    ops.append_binary(dnnl::algorithm::binary_add, per_channel);
    ops.append_binary(dnnl::algorithm::binary_mul, per_channel);
    if (dst_type == DType::u8) append_skip_and_range(ops, spec);
    requantise.set_post_ops(ops);
    return describe_forward(geometry, requantise, src_, any, dst_);
#else
    const memory::desc per_channel({oc}, memory::data_type::f32, memory::format_tag::x);
    addend_ = wrap(per_channel, b_.raw());
    const float* m = m_.data<float>();
    requantise.set_output_scales(1 << 1, std::vector<float>(m, m + oc));
    if (dst_type == DType::u8) append_skip_and_range(ops, spec);
    requantise.set_post_ops(ops);
    return describe_forward(geometry, requantise, src_, any, per_channel, dst_);
#endif
  }

  const Array b_, m_;
  const bool bare_;  // sums, not requantised
  Array reordered_;
  memory::desc src_, dst_, scratchpad_;
  memory weights_, addend_, factor_;
  dnnl::convolution_forward primitive_;
  std::string implementation_;
};

}  // namespace

std::unique_ptr<IntegerPrimitive> integer_primitive(const IntegerConvSpec& spec, DType dst_type) try {
  auto primitive = std::make_unique<Primitive>(spec, dst_type);
  // oneDNN's own plain loops add the skip in two roundings instead of one fma.
  if (std::string_view(primitive->implementation()).starts_with("ref")) return nullptr;
  return primitive;
} catch (const dnnl::error& e) {
  if (e.status != dnnl_unimplemented) throw;
  return nullptr;
}

bool products_are_exact() {
  const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto vnni = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_vnni);
  return (isa & vnni) == vnni;
}

bool has_matrix_units() {
  const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto amx = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_amx);
  return (isa & amx) == amx;
}

}  // namespace stairgrad::kernels::onednn
