// A network as a chain of blocks.
#pragma once

#include "module.h"

namespace stairgrad::nn {

/// One link of the chain.
struct Block {
  std::string name;
  std::function<Tensor(const Tensor&)> run;
};

/// (n, h, w, c) images -> (n, classes) logits. The blocks are where reconstruction, tails and bit selectors
/// cut; the last one, the head, reads the last feature map.
class Model : public Layer {
 public:
  Tensor forward(const Tensor& x) override { return forward(x, 0, blocks().size()); }
  /// Runs blocks [from, to).
  Tensor forward(const Tensor& x, size_t from, size_t to);

  const std::vector<Block>& blocks() const { return blocks_; }
  /// Index of the head: forward(x, 0, head()) is the last feature map.
  size_t head() const { return blocks_.size() - 1; }
  /// Gives the model a further child, whose parameters, state and mode go with its own from now on: how
  /// quantizers join. Replaces an earlier child of that name.
  void attach(const std::string& name, std::shared_ptr<Module> child);
  void detach(const std::string& name) { remove_module(name); }

  /// Shape of `batch` images.
  Shape input_shape(int64_t batch = 1) const;

 protected:
  explicit Model(const Shape& image_shape) : image_shape_(image_shape) {}
  void add_block(std::string name, std::function<Tensor(const Tensor&)> run) {
    blocks_.push_back({std::move(name), std::move(run)});
  }
  /// A layer that is a block of its own, and a child of that name.
  void add_block(const std::string& name, const std::shared_ptr<Layer>& layer);
  /// The last block, "head": global average pooling and a fully connected layer, the child `name`.
  void add_head(const std::string& name, int64_t channels, int64_t classes);

 private:
  Shape image_shape_;  // (h, w, c)
  std::vector<Block> blocks_;
};

/// What follows the convolutions of networks that are published with ReLU.
enum class Activation {
  relu,
  hardtanh  ///< limits to [-1, 1]: for networks with binary activations, which ReLU would leave no sign
};

/// How the convolutions of a network are made. Weights that come from elsewhere may ask for another way.
struct ConvStyle {
  bool folded = false;  ///< batch norms are part of the convolutions, which have biases instead
  /// TensorFlow's "same" padding: where the kernel does not fit evenly, one pixel more at the bottom and the
  /// right. For images of 32 n pixels, whose maps are multiples of every stride.
  bool same_padding = false;
  double eps = 1e-5;  ///< of the batch norms
  Activation activation = Activation::relu;
  bool operator==(const ConvStyle&) const = default;
};

std::string to_string(Activation activation);
/// Throws argument_error that lists what is known.
Activation parse_activation(const std::string& name);

/// What the zoo can make.
struct ModelOptions {
  int64_t in_channels = 3;
  int64_t image_size = 32;
  int64_t classes = 10;
  double width = 1;  ///< multiplies the number of channels
  ConvStyle style = {};
};

/// A model of the zoo, by name, with zero parameters: initialise() it or load its state. Throws
/// argument_error that lists the names for an unknown one, and for options outside their range.
std::unique_ptr<Model> make_model(const std::string& name, const ModelOptions& options);
/// The same with usual_options(name).
std::unique_ptr<Model> make_model(const std::string& name);
/// The sizes a network was published with: 224 x 224 pixels and 1,000 classes, or 32 x 32 and 10.
ModelOptions usual_options(const std::string& name);
std::vector<std::string> model_names();

}  // namespace stairgrad::nn
