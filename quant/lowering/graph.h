// What lowering asks of a recorded graph.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "../../autograd/recorder.h"
#include "../../kernels/grid.h"

namespace stairgrad::quant {
struct QuantizeOp;
}

namespace stairgrad::quant::lowering {

/// The op that made a tensor; null if none did.
inline const Op* op_of(const Tensor& t) { return t.node() ? t.node()->op.get() : nullptr; }
template <class O>
const O* as(const Tensor& t) {
  return dynamic_cast<const O*>(op_of(t));
}
inline bool is(const Tensor& t, std::string_view name) { return op_of(t) && op_of(t)->name() == name; }
inline const Tensor& input_of(const Tensor& t, size_t i = 0) { return t.node()->inputs[i]; }
/// Its op's name; "input" if it has none.
std::string name_of_op(const Tensor& t);

/// Throws argument_error: `t`, named by op and layer, has no integer form.
[[noreturn]] void refuse(const Tensor& t, const std::string& why);

/// What a chain of reshapes reshapes.
Tensor unshaped(Tensor t);

/// (h, w, c) of one image; (n, c) is a 1x1 image.
Shape image_of(const Shape& shape);

using Key = std::pair<const Node*, int>;
inline Key key(const Tensor& t) { return {t.node().get(), t.output_index()}; }

/// Throws argument_error where levels are not equally spaced.
void check_uniform(const Tensor& t, const QuantizeOp& op);
/// The grid of an activation's quantizer, with codes from 0.
Grid unsigned_grid(const Tensor& t, const QuantizeOp& op);
bool has_zero(const Grid& g);
/// The grid that a layer reads: one with zero, which is what it pads with. An even grid (binary activations)
/// gets levels between its own.
Grid with_zero(const Grid& g);

class Graph {
 public:
  explicit Graph(const Trace& trace);

  bool is_images(const Tensor& t) const { return key(t) == key(trace_.inputs[0]); }
  bool is_parameter(const Tensor& t) const;
  /// The value of a tensor that is made of parameters alone, such as weights that their quantizer transforms.
  std::optional<Array> constant(const Tensor& t) const;
  /// What reads a reshape reads what the reshape reads.
  bool has_one_reader(const Tensor& t) const;

  /// Whether the values of `t` are codes of one grid: a quantizer's result, moved or not.
  bool is_on_grid(const Tensor& t) const;
  /// Of a tensor that is on one.
  Grid grid_of(const Tensor& t) const;

  /// Values keep their images, so a reshape may flatten them, or undo that; throws argument_error otherwise.
  void check_reshape(const Tensor& t, const Shape& image) const;

 private:
  const Trace& trace_;
  std::map<Key, int> readers_;
};

}  // namespace stairgrad::quant::lowering
