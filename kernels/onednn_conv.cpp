// Floating-point convolution on oneDNN: images in (n, h, w, c) order, weights reordered to what the primitive
// prefers, primitives cached by everything that they depend on.
#include <algorithm>
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
  std::array<int64_t, 23> words{};

  Key(ConvOp op, const ConvArrays& a, const Conv2dOptions& o) {
    size_t i = 0;
    const auto add = [&](const auto&... values) { ((words[i++] = static_cast<int64_t>(values)), ...); };
    add(op, a.src.dtype(), a.weights.dtype(), threads(), o.groups, a.scale.has_value());
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
  memory::desc src, weights, dst, scale, scratchpad;
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
  auto with_scale = attributes();
  if (a.scale.has_value()) {
    p.scale = {{1, a.scale.size(), 1, 1}, memory::data_type::f32, memory::format_tag::nhwc};
    dnnl::post_ops after;
    after.append_binary(dnnl::algorithm::binary_mul, p.scale);
    with_scale.set_post_ops(after);
  }
  const auto forward = describe_forward(geometry, with_scale, p.src, any, p.dst);
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

/// How many pieces of the batch have their weight gradients computed side by side and then summed: enough to
/// occupy threads, few enough that the sums cost little beside the images. Depends on the shapes alone, so
/// that the result does not depend on the number of threads.
int64_t pieces_of(const ConvArrays& a) {
  const int64_t batch = a.src.dim(0), images = a.src.size() + a.dst.size();
  const int64_t cheap = images / (4 * a.weights.size());
  return std::min(batch, std::clamp<int64_t>(std::min(batch / 8, cheap), 4, 64));
}

/// to[0] += to[1] + to[2] ..., arrays of `size` floats one behind the other, in this order.
void sum_pieces(float* to, int64_t pieces, int64_t size) {
  parallel_for(size, 1 << 14, [=](int64_t begin, int64_t end) {
    for (int64_t p = 1; p < pieces; ++p)
      for (int64_t i = begin; i < end; ++i) to[i] += to[p * size + i];
  });
}

/// oneDNN would split the sums by the number of threads and meet at spinning barriers, which collapse when
/// another process takes a core. Pieces of the batch, each in one thread, need neither.
std::string backward_weights(const ConvArrays& arrays, const Conv2dOptions& options) {
  const int64_t batch = arrays.src.dim(0), pieces = pieces_of(arrays);
  const auto first = [=](int64_t piece) { return batch * piece / pieces; };
  struct Piece {
    ConvArrays arrays;
    std::shared_ptr<const Prepared> prepared;
  };
  std::vector<Piece> work;
  size_t scratch = 0;
  {
    const SerialScope serial;  // oneDNN plans for the threads that it sees
    for (int64_t p = 0; p < pieces; ++p) {
      const int64_t at = first(p), count = first(p + 1) - at;
      const ConvArrays part{arrays.src.slice(at, count), arrays.weights, arrays.dst.slice(at, count)};
      work.push_back({part, prepared(ConvOp::backward_weights, part, options)});
      if (work.back().prepared->implementation.empty()) return {};
      scratch = std::max(scratch, work.back().prepared->scratchpad.get_size());
    }
  }
  const Prepared& any = *work[0].prepared;
  const auto size = static_cast<int64_t>(any.weights.get_size() / sizeof(float));
  Array sums({pieces, size}, DType::f32), scratches({pieces, static_cast<int64_t>(scratch)}, DType::u8);
  parallel_for(pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const auto& [part, prepared] = work[static_cast<size_t>(p)];
      execute(prepared->primitive,
              {{DNNL_ARG_SRC, wrap(prepared->src, part.src.raw())},
               {DNNL_ARG_DIFF_WEIGHTS, wrap(prepared->weights, sums.data<float>() + p * size)},
               {DNNL_ARG_DIFF_DST, wrap(prepared->dst, part.dst.raw())}},
              prepared->scratchpad, scratches.data<uint8_t>() + p * static_cast<int64_t>(scratch));
    }
  });
  sum_pieces(sums.data<float>(), pieces, size);
  Array weights = arrays.weights;
  if (any.reorder.needed)
    any.reorder.run(sums.raw(), weights.raw());
  else
    std::copy_n(sums.data<float>(), size, weights.data<float>());
  return any.implementation;
}

}  // namespace

std::string conv2d(ConvOp op, ConvArrays arrays, const Conv2dOptions& options) {
  if (op == ConvOp::backward_weights) return backward_weights(arrays, options);
  const auto p = prepared(op, arrays, options);
  if (p->implementation.empty()) return {};
  const void* weights = arrays.weights.raw();
  Array buffer;
  if (p->reorder.needed) {
    buffer = Array({static_cast<int64_t>(p->weights.get_size())}, DType::u8);
    p->reorder.run(weights, buffer.raw());
    weights = buffer.raw();
  }
  const Argument src{op == ConvOp::backward_data ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC,
                     wrap(p->src, arrays.src.raw())},
      filters{DNNL_ARG_WEIGHTS, wrap(p->weights, weights)},
      dst{op == ConvOp::forward ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, wrap(p->dst, arrays.dst.raw())};
  if (arrays.scale.has_value())
    execute(p->primitive,
            {src,
             filters,
             dst,
             {DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, wrap(p->scale, arrays.scale.raw())}},
            p->scratchpad);
  else
    execute(p->primitive, {src, filters, dst}, p->scratchpad);
  return p->implementation;
}

}  // namespace stairgrad::kernels::onednn
