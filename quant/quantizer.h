// What a quantizer is. Each lives in a file of its own under quantizers/, with its source and its deviations.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "../autograd/op.h"
#include "../autograd/quantized.h"
#include "../nn/module.h"
#include "quantizer_settings.h"

namespace stairgrad::quant {

/// What a site asks of its quantizer.
struct QuantizerOptions {
  int bits = 4;                     ///< 1 .. 8
  bool weight = false;              ///< weights: symmetric; else activations: zero is a level
  bool per_channel = false;         ///< weights: one grid for each slice of the outermost axis
  bool learn = true;                ///< false: parameters stay at their initial values
  bool scale_gradients = true;      ///< see Quantizer::gradient_scale; false in gradient checks
  QuantizerSettings settings = {};  ///< filled in by make_quantizer
};

/// What a quantizer promises; the laws of the tests follow it.
struct QuantizerTraits {
  bool uniform = true;     ///< levels are equally spaced
  bool deployable = true;  ///< the integer runtime can run its grid
  bool learned = true;     ///< it has parameters of its own
  bool follows = false;    ///< range or statistics are taken anew from the values of every call
  bool scales = true;      ///< its levels grow with the data; false: their range is fixed
  bool decay = false;      ///< as its paper has it, weight decay acts on its parameters, too
};

/// What a quantizer does that has one grid and one parameter, rounds, and passes gradients straight through
/// between the first and the last code. The parameter's gradient is scale * (rounding * R + below * B + above
/// * A) with the sums of quantizers/rounded.h. Mixtures of such quantizers run in one pass (quant/search).
struct RoundingRule {
  Grid grid;
  double rounding, below, above;
  double scale;
};

/// Maps a tensor to an integer grid, with a gradient of its own choice. Parameters belong to the quantizer,
/// have one value for each grid, and are learned with the network's. A subclass declares them, and says how
/// to choose them (choose), which grid they describe (grids) and what the gradient is (surrogate). Values are
/// decode(encode(transform(x))) on that grid.
class Quantizer : public nn::Module, public std::enable_shared_from_this<Quantizer> {
 public:
  /// For weights of `channels` output channels, or activations. Throws argument_error for bits outside 1 ..
  /// 8, and for activations per channel, whose grids could not be deployed.
  explicit Quantizer(const QuantizerOptions& options, int64_t channels = 1);

  const QuantizerOptions& options() const { return options_; }
  virtual QuantizerTraits traits() const { return {}; }

  /// Chooses the parameters for data like `x` (f32). The first call of operator() does it, unless they were
  /// loaded. Throws numeric_error for data with NaN or infinity.
  void initialise(const Array& x);
  bool initialised() const;

  /// Quantizes x, of the parameters' type (f32, or f64 for gradient checks) or activations in bf16, to which
  /// values are rounded then (weights in bf16 become f32). Values and codes are those of kernels/grid.h on
  /// to_grid().
  Quantized operator()(const Tensor& x);
  /// From now on activations in bf16 become codes (Quantized::codes), for convolutions of integers.
  void give_codes(bool on) { gives_codes_ = on; }

  /// The grid that the parameters describe: one, or one for each slice.
  Grids to_grid() const;
  virtual Grids grids(const Arrays& parameters) const = 0;

  /// What is put on the grid: x itself or, of weights, a function of it that is made of ops (DoReFa's tanh).
  virtual Tensor transform(const Tensor& x) const { return x; }

  /// The parameters, in the order in which they were declared: learned ones, and constants if they are not
  /// learned.
  Tensors own_parameters() const;

  /// The quantizer as a function of {transform(x), own_parameters()...}. By default an op whose gradient is
  /// the surrogate's; a quantizer overrides it to do the backward in one pass.
  virtual Tensor apply(const Tensors& in) const;

  /// The function whose derivative the backward promises, of the same arguments. Whatever the backward treats
  /// as constant (codes, the cell that x lies in) is that of the sample point `at`: values of the same
  /// arguments. At the sample point it equals apply(); elsewhere it is smooth, so that gradient checks can
  /// run on it.
  virtual Tensor surrogate(const Tensors& in, const Arrays& at) const = 0;

  /// The same as numbers, for data of shape `x`, if this quantizer is so simple: transform() and observe() do
  /// nothing.
  virtual std::optional<RoundingRule> rounding_rule(const Shape& /*x*/) const { return {}; }

  /// Moves the parameters back to where the grid is defined, after a step of the optimiser.
  virtual void project() {}

  /// How much of the training is done, 0 .. 1: for gradients that follow a schedule.
  virtual void set_progress(double /*share*/) {}

 protected:
  /// Applies an op of this quantizer, a QuantizeOp, in the form that is asked for.
  template <class O>
  Tensor quantize(O op, const Tensors& in) const {
    op.codes = gives_codes_ && in[0].dtype() == DType::bf16;
    return apply_op(std::move(op), in);
  }
  /// Adds a parameter with one value for each grid; a constant unless it is `learned` and options().learn.
  void declare(const std::string& name, bool learned = true);
  std::vector<double> values(int parameter) const;
  void set_values(int parameter, const std::vector<double>& values);

  /// x before transform().
  virtual void choose(const Array& x) = 0;
  /// Sees the data of every call but the first, likewise.
  virtual void observe(const Array& /*x*/) {}

  int64_t groups() const { return groups_; }
  /// True for weights, and for activations that had negative values when the quantizer was initialised.
  bool is_signed() const;
  /// True for the grids -u .. u of weights, and {-u, u} of signed activations with 1 bit.
  bool symmetric() const { return options_.weight || (options_.bits == 1 && is_signed()); }
  /// 1 / sqrt(n * levels), which balances the step of a parameter with those of the weights (Esser et al.,
  /// ICLR'20, 2.2): n is the number of weights on the grid, or of activations in one image, or in the batch
  /// with the setting "scale=batch". 1 with "scale=none" and without scale_gradients.
  double gradient_scale(const Shape& x, int levels) const;

 private:
  struct Own {  // where the module keeps it
    const Tensor* learned;
    const Array* constant;
  };

  QuantizerOptions options_;
  int64_t groups_;
  bool gives_codes_ = false;
  Array& state_;  // {initialised, signed}
  std::vector<Own> own_;
};

/// The setting "scale" of quantizers that scale their gradients; `first` holds if it is not given.
SettingRule gradient_scale_rule(const std::string& first = "image");

/// Base of the quantizers' ops: y = decode(encode(x)) on the grids; the gradient is the subclass's. Without
/// grids, for levels that are not equally spaced, so are forward() and bits().
struct QuantizeOp : Op {
  Grids grids;
  bool codes = false;  ///< y has the form Quantized::codes

  explicit QuantizeOp(Grids grids) : grids(std::move(grids)) {}
  Arrays forward(const Arrays& in) const override;
  /// Of the codes.
  virtual int bits() const { return grid::bits(grids[0]); }
  bool mixed_types() const override { return true; }
};

/// decode(encode(x)) with one grid, or one for each slice of the outermost axis. f32, f64 or, with one grid,
/// bf16.
Array fake_quantize(const Array& x, const Grids& grids);

using QuantizerFactory = std::function<std::shared_ptr<Quantizer>(const QuantizerOptions&, int64_t channels)>;

/// A quantizer as the catalogue has it.
struct QuantizerEntry {
  QuantizerFactory make;                   ///< finds the values of its settings in the options
  std::vector<SettingRule> settings = {};  ///< what its name may say after a colon
  std::string about = {};                  ///< one line, for help texts
};

/// A quantizer of the catalogue for weights of `channels` output channels, or activations. `spec` is its
/// name, or name and settings: "lsq", "dsq:alpha=0.2,learn_alpha=no". Throws argument_error for bits outside
/// 1
/// .. 8, and for an unknown name or setting, with the nearest known one and the list.
std::shared_ptr<Quantizer> make_quantizer(const std::string& spec, QuantizerOptions options,
                                          int64_t channels = 1);
/// Throws the same errors about `spec` without making a quantizer.
void check_quantizer(const std::string& spec);
std::vector<std::string> quantizer_names();
/// A line for each quantizer: what it is, and its settings with what holds if they are not given.
std::string quantizer_help();

/// Adds a quantizer to the catalogue, or replaces one: how a user's program brings its own.
void register_quantizer(const std::string& name, QuantizerEntry entry);

}  // namespace stairgrad::quant
