// Private to the onednn_*.cpp files: the one header that sees dnnl.hpp, for oneDNN 2.6 and 3.x.
#pragma once

#include <oneapi/dnnl/dnnl.hpp>

#include "conv.h"
#include "threads.h"

namespace stairgrad::kernels::onednn {

using dnnl::memory;

inline const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

/// The stream of the calling thread; on a CPU its work is done when a call returns.
inline dnnl::stream& stream() {
  thread_local dnnl::stream in_order(engine());
  return in_order;
}

/// Primitives get their scratch memory from the caller, so that threads can share them.
inline dnnl::primitive_attr attributes() {
  dnnl::primitive_attr result;
  result.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return result;
}

/// Our memory seen by oneDNN.
inline memory wrap(const memory::desc& layout, const void* data) {
  return {layout, engine(), const_cast<void*>(data)};
}

struct Argument {
  int name;
  memory value;
};

/// Runs a primitive and waits for the result. `scratch` has the size of the descriptor's scratchpad.
template <size_t count>
void execute(const dnnl::primitive& primitive, const Argument (&arguments)[count],
             const memory::desc& scratchpad, void* scratch) {
  const memory scratch_memory = wrap(scratchpad, scratch);
  std::array<dnnl_exec_arg_t, count + 1> list;
  for (size_t i = 0; i < count; ++i) list[i] = {arguments[i].name, arguments[i].value.get()};
  list[count] = {DNNL_ARG_SCRATCHPAD, scratch_memory.get()};
  threads();  // oneDNN asks libgomp, which may have to learn it in this thread
  dnnl::error::wrap_c_api(
      dnnl_primitive_execute(primitive.get(), stream().get(), static_cast<int>(list.size()), list.data()),
      "oneDNN could not execute a primitive");
  stream().wait();
}
template <size_t count>
void execute(const dnnl::primitive& primitive, const Argument (&arguments)[count],
             const memory::desc& scratchpad) {
  Array scratch({static_cast<int64_t>(scratchpad.get_size())}, DType::u8);
  execute(primitive, arguments, scratchpad, scratch.raw());
}

/// Copies memory from one layout and type to another; nothing when they are the same.
struct Reorder {
  Reorder() = default;
  Reorder(const memory::desc& from, const memory::desc& to) : from(from), to(to), needed(from != to) {
    if (!needed) return;
    const dnnl::reorder::primitive_desc description(engine(), from, engine(), to, attributes());
    scratchpad = description.scratchpad_desc();
    primitive = dnnl::reorder(description);
  }
  void run(const void* source, void* destination) const {
    execute(primitive, {{DNNL_ARG_FROM, wrap(from, source)}, {DNNL_ARG_TO, wrap(to, destination)}},
            scratchpad);
  }

  memory::desc from, to, scratchpad;
  dnnl::primitive primitive;
  bool needed = false;
};

/// The attributes of a convolution in oneDNN's terms.
struct ConvGeometry {
  explicit ConvGeometry(const Conv2dOptions& o)
      : strides{o.stride[0], o.stride[1]},
        dilates{o.dilation[0] - 1, o.dilation[1] - 1},
        before{o.padding[0], o.padding[2]},
        after{o.padding[1], o.padding[3]} {}
  memory::dims strides, dilates, before, after;
};

/// Describes a forward convolution; `layouts` are src, weights, (bias,) dst.
template <class... Layouts>
dnnl::convolution_forward::primitive_desc describe_forward(const ConvGeometry& g,
                                                           const dnnl::primitive_attr& attributes,
                                                           const Layouts&... layouts) {
  constexpr auto kind = dnnl::prop_kind::forward_training;
  constexpr auto direct = dnnl::algorithm::convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
  return {engine(), kind, direct, layouts..., g.strides, g.dilates, g.before, g.after, attributes};
#else
  return {{kind, direct, layouts..., g.strides, g.dilates, g.before, g.after}, attributes, engine()};
#endif
}

/// Describes one of the two backward convolutions; `hint` is the forward one.
template <class Primitive>
typename Primitive::primitive_desc describe_backward(const ConvGeometry& g, const memory::desc& first,
                                                     const memory::desc& second, const memory::desc& third,
                                                     const dnnl::convolution_forward::primitive_desc& hint) {
  constexpr auto direct = dnnl::algorithm::convolution_direct;
#if DNNL_VERSION_MAJOR >= 3
  return {engine(),  direct,   first,   second, third,       g.strides,
          g.dilates, g.before, g.after, hint,   attributes()};
#else
  return {
      {direct, first, second, third, g.strides, g.dilates, g.before, g.after}, attributes(), engine(), hint};
#endif
}

/// oneDNN names extents (n, c, h, w), whatever the order in memory.
inline memory::desc images(const Shape& nhwc, memory::data_type type) {
  return {{nhwc[0], nhwc[3], nhwc[1], nhwc[2]}, type, memory::format_tag::nhwc};
}

/// Weights (oc, kh, kw, ic / groups): in our order, or with `any` in the one that a primitive prefers.
enum class Order { ours, any };
inline memory::desc weights(const Shape& ohwi, int64_t groups, memory::data_type type, Order order) {
  using tag = memory::format_tag;
  const bool any = order == Order::any;
  if (groups == 1) return {{ohwi[0], ohwi[3], ohwi[1], ohwi[2]}, type, any ? tag::any : tag::ohwi};
  return {{groups, ohwi[0] / groups, ohwi[3], ohwi[1], ohwi[2]}, type, any ? tag::any : tag::gohwi};
}

inline memory::data_type type_of(DType type) {
  switch (type) {
    case DType::bf16:
      return memory::data_type::bf16;
    case DType::u8:
      return memory::data_type::u8;
    case DType::s8:
      return memory::data_type::s8;
    case DType::s32:
      return memory::data_type::s32;
    default:
      return memory::data_type::f32;
  }
}

}  // namespace stairgrad::kernels::onednn
