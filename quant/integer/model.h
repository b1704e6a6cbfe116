// A network in integers: plain data, made by lower(), run by Session, kept in a file. Knows kernels only.
#pragma once

#include <array>
#include <limits>
#include <string>
#include <variant>
#include <vector>

#include "../../kernels/conv.h"
#include "../../kernels/grid.h"
#include "../../kernels/movement.h"
#include "../../kernels/pool.h"

namespace stairgrad::quant::integer {

/// What a model may have at most: extents, elements of all values of one image, grids of one value.
constexpr int64_t max_extent = int64_t{1} << 16, max_elements = int64_t{1} << 28;
constexpr size_t max_alternatives = 256;

/// One of several grids that a value may have, chosen for each image.
struct Alternative {
  int bits = 8;
  Grid grid;
};

/// A tensor between layers: u8 codes on `grid`, or floats (the images, the logits, what a float skip reads).
/// Shapes are those of one image.
struct Value {
  std::string name;
  Shape shape;  ///< (h, w, c)
  bool codes = true;
  int bits = 8;
  Grid grid;         ///< codes: lo = 0, integer zero point (a half-integer one if only a Remap reads it)
  std::string note;  ///< of floats between layers: why they are
  /// Of codes that have another bit width for each image: the grids, of which `grid` is the first, and which
  /// column of the choices says what an image takes. Only Remap writes such a value, and only convolutions
  /// read it.
  std::vector<Alternative> alternatives = {};
  int choice = -1;
};

/// Floats to codes.
struct Encode {
  int src = 0, dst = 0;
};

/// t = (conv(src, weights) + b) * m [+ skip]; dst = saturate(round(t)), clamped to lo .. hi, or where dst
/// holds floats t itself, clamped to low .. high. A skip of codes is added as fma(code, skip_ratio, t), a
/// skip of floats (dst is floats then) as it is. b and m contain zero points, bias, batch norm and scales. A
/// fully connected layer is a convolution whose kernel covers the image.
struct Convolution {
  std::string name;
  int src = 0, dst = 0, skip = -1;
  Conv2dOptions options;
  struct Weights {
    Array codes;
    int bits = 8;
  };
  Array weights;  ///< (oc, kh, kw, ic / groups), s8
  int weight_bits = 8;
  /// Of the alternatives of src but the first, where each has weights of its own; else they share `weights`.
  std::vector<Weights> other_weights = {};
  Array b, m;  ///< (oc), f32; (alternatives of src, oc) if it has any
  int lo = 0, hi = 255;
  float low = -std::numeric_limits<float>::infinity(), high = -low;
  float skip_ratio = 0;
};

/// Codes of one grid to codes of another: a table, or one for each alternative of dst.
struct Remap {
  using Table = std::array<uint8_t, 256>;
  int src = 0, dst = 0;
  std::vector<Table> tables;
};

/// t = (s + b) * m with s the sum over the window and m = scale / (pixels * dst_scale): one rounding for the
/// whole mean. Padding holds zeros: the zero point where src has codes. Floats are summed in double, row by
/// row, and s is rounded to f32. dst = saturate(round(t)), or t where it holds floats.
struct AveragePool {
  int src = 0, dst = 0;
  Pool2dOptions options;
  float b = 0, m = 1;
};

/// Largest element of each window.
struct MaxPool {
  int src = 0, dst = 0;
  Pool2dOptions options;
};

/// Every stride-th row and column, with `before` and `after` channels of zeros around: the parameter-free
/// shortcut.
struct Subsample {
  int src = 0, dst = 0;
  std::array<int64_t, 2> stride{1, 1};
  int64_t before = 0, after = 0;
};

/// Channels of several values of one grid behind each other.
struct Concat {
  std::vector<int> srcs;
  int dst = 0;
};

/// Mean of each channel of src (codes), then its deviation: dst has one pixel with twice the channels. With s
/// and r the exact sums of (code - zero_point) and of its square over the n pixels, both are taken in f64:
/// mean = s / n, deviation = sqrt(max(0, r / n - mean * mean)); dst = the code of f32(scale * either).
struct Moments {
  int src = 0, dst = 0;
};

/// What a bit selector decides: src holds floats (1, 1, columns * k), dst codes (1, 1, columns), the place of
/// the largest of each k, the first of equals. They are the image's choices in the columns from `first` on.
struct Select {
  int src = 0, dst = 0;
  int first = 0;
};

using Layer =
    std::variant<Encode, Convolution, Remap, AveragePool, MaxPool, Subsample, Concat, Moments, Select>;

struct Model {
  std::vector<Value> values;
  std::vector<Layer> layers;  ///< in the order to run them
  int input = 0, output = 0;

  std::string policy;  ///< the JSON the sites were filled from
  std::vector<std::string> class_names;
  std::vector<float> mean, deviation;  ///< normalisation of an image in [0, 1]: none, one, or per channel
};

/// The convolution of images that have taken alternative k of its source: that one's weights, b and m alone.
Convolution alternative_of(const Convolution& layer, int64_t k);

/// Bytes of all codes of weights at their true bit widths, and of b and m.
int64_t parameter_bytes(const Convolution& layer);
int64_t parameter_bytes(const Model& model);

/// How many choices an image makes: columns of what Session::run() takes. 0 where all grids are fixed.
int choices_of(const Model& model);
/// Whether the model has a selector, which makes them.
bool selects(const Model& model);

/// Bit operations of one image: the sum over convolutions of MACs * weight bits * activation bits, exactly.
/// `choices` are those of the image; none means the first alternatives.
int64_t bops(const Model& model, const std::vector<int>& choices = {});

/// What a layer is called in tables, and which operation it is ("convolution", "remap", ...).
std::string name_of(const Model& model, const Layer& layer);
const char* op_of(const Layer& layer);

/// Which value each layer writes, and which it reads.
int dst_of(const Layer& layer);
std::vector<int> sources_of(const Layer& layer);

/// Throws argument_error if the model does not hang together: indices, shapes, ranges, grids.
void validate(const Model& model);

}  // namespace stairgrad::quant::integer
