// Floating-point convolution on oneDNN: images in (n, h, w, c) order, weights reordered to what the primitive
// prefers, primitives cached by everything that they depend on.
#include <mutex>
#include <unordered_map>

#include "onednn.h"
#include "onednn_defects.h"
#include "onednn_engine.h"
#include "threads.h"

namespace stairgrad::kernels::onednn {
namespace {

/// Everything that a primitive depends on, as plain numbers.
struct Key {
  std::array<int64_t, 22> words{};

  Key(ConvOp op, const ConvArrays& a, const Conv2dOptions& o) {
    size_t i = 0;
    const auto add = [&](const auto&... values) { ((words[i++] = static_cast<int64_t>(values)), ...); };
    add(op, a.src.dtype(), a.weights.dtype(), threads(), o.groups);
    for (const Array* array : {&a.src, &a.weights})
      for (const int64_t extent : array->shape()) add(extent);
    add(o.stride[0], o.stride[1], o.dilation[0], o.dilation[1]);
    for (const int64_t padding : o.padding) add(padding);
  }
  bool operator==(const Key&) const = default;
};

struct KeyHash {
  size_t operator()(const Key& key) const {
    uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a on words
    for (const int64_t word : key.words) hash = (hash ^ static_cast<uint64_t>(word)) * 0x100000001b3u;
    return hash ^ hash >> 32;
  }
};

/// A primitive of oneDNN, ready to run.
struct Prepared {
  memory::desc src, weights, dst, scratchpad;
  dnnl::primitive primitive;
  Reorder reorder;             ///< of the weights: ours to the primitive's, or back for their gradient
  std::string implementation;  ///< empty when oneDNN has none
};

template <class Description>
void finish(Prepared& p, const Description& description) {
  p.primitive = dnnl::primitive(description.get());
  p.scratchpad = description.scratchpad_desc();
  p.implementation = description.impl_info_str();
}

Prepared prepare(ConvOp op, const ConvArrays& a, const Conv2dOptions& options) {
  const ConvGeometry geometry(options);
  const auto type = type_of(a.src.dtype());
  const auto ours = weights(a.weights.shape(), options.groups, type_of(a.weights.dtype()), Order::ours);
  const auto any = weights(a.weights.shape(), options.groups, type, Order::any);
  Prepared p;
  p.src = images(a.src.shape(), type);
  p.dst = images(a.dst.shape(), type);
  const auto forward = describe_forward(geometry, attributes(), p.src, any, p.dst);
  if (op == ConvOp::forward) {
    p.weights = forward.weights_desc();
    p.reorder = Reorder(ours, p.weights);
    finish(p, forward);
  } else if (op == ConvOp::backward_data) {
    const auto description =
        describe_backward<dnnl::convolution_backward_data>(geometry, p.src, any, p.dst, forward);
    p.weights = description.weights_desc();
    p.reorder = Reorder(ours, p.weights);
    finish(p, description);
  } else {
    const auto gradient = weights(a.weights.shape(), options.groups, type_of(a.weights.dtype()), Order::any);
    const auto description =
        describe_backward<dnnl::convolution_backward_weights>(geometry, p.src, gradient, p.dst, forward);
    p.weights = description.diff_weights_desc();
    p.reorder = Reorder(p.weights, ours);
    finish(p, description);
  }
  return p;
}

/// The cached primitive. Its implementation is empty when oneDNN has none.
std::shared_ptr<const Prepared> prepared(ConvOp op, const ConvArrays& arrays, const Conv2dOptions& options) {
  constexpr size_t most = 4096;  // far more than a network has; bounds programs whose shapes never repeat
  static std::mutex mutex;
  static std::unordered_map<Key, std::shared_ptr<const Prepared>, KeyHash> cache;
  const Key key(op, arrays, options);
  const std::lock_guard lock(mutex);
  if (const auto found = cache.find(key); found != cache.end()) return found->second;
  if (cache.size() >= most) cache.clear();
  std::shared_ptr<const Prepared> made;
  try {
    const bool sound = is_sound(op, arrays.src.dtype(), arrays.src.shape(), arrays.weights.shape(), options);
    made = std::make_shared<Prepared>(sound ? prepare(op, arrays, options) : Prepared());
  } catch (const dnnl::error& e) {
    if (e.status != dnnl_unimplemented && e.status != dnnl_invalid_arguments) throw;
    made = std::make_shared<Prepared>();
  }
  return cache[key] = made;
}

}  // namespace

std::string conv2d(ConvOp op, ConvArrays arrays, const Conv2dOptions& options) {
  const auto p = prepared(op, arrays, options);
  if (p->implementation.empty()) return {};
  const bool weights_are_result = op == ConvOp::backward_weights;
  void *ours = arrays.weights.raw(), *theirs = ours;
  Array buffer;
  if (p->reorder.needed) {
    buffer = Array({static_cast<int64_t>(p->weights.get_size())}, DType::u8);
    theirs = buffer.raw();
    if (!weights_are_result) p->reorder.run(ours, theirs);
  }
  execute(p->primitive,
          {{op == ConvOp::backward_data ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, wrap(p->src, arrays.src.raw())},
           {weights_are_result ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, wrap(p->weights, theirs)},
           {op == ConvOp::forward ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, wrap(p->dst, arrays.dst.raw())}},
          p->scratchpad);
  if (p->reorder.needed && weights_are_result) p->reorder.run(theirs, ours);
  return p->implementation;
}

}  // namespace stairgrad::kernels::onednn
