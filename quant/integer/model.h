// A network in integers: plain data, made by lower(), run by Session, kept in a file. Knows kernels only.
#pragma once

#include <array>
#include <string>
#include <variant>
#include <vector>

#include "../../kernels/conv.h"
#include "../../kernels/grid.h"
#include "../../kernels/movement.h"
#include "../../kernels/pool.h"

namespace stairgrad::quant::integer {

/// A tensor between layers: u8 codes on `grid`, or floats (the images, the logits). Shapes are those of one
/// image.
struct Value {
  std::string name;
  Shape shape;  ///< (h, w, c)
  bool codes = true;
  int bits = 8;
  Grid grid;  ///< codes: lo = 0, integer zero point
};

/// Images to codes.
struct Encode {
  int src = 0, dst = 0;
};

/// dst = saturate(round((conv(src, weights) + b) * m [+ skip_ratio * skip])), clamped to lo .. hi; or, where
/// dst holds floats, (conv(src, weights) + b) * m. b and m contain zero points, bias, batch norm and scales.
/// A fully connected layer is a convolution whose kernel covers the image.
struct Convolution {
  std::string name;
  int src = 0, dst = 0, skip = -1;
  Conv2dOptions options;
  Array weights;  ///< (oc, kh, kw, ic / groups), s8
  int weight_bits = 8;
  Array b, m;  ///< (oc), f32
  int lo = 0, hi = 255;
  float skip_ratio = 0;
};

/// Codes of one grid to codes of another.
struct Remap {
  int src = 0, dst = 0;
  std::array<uint8_t, 256> table{};
};

/// dst = saturate(round((sum of the h * w codes + b) * m)): one rounding for the whole mean.
struct AveragePool {
  int src = 0, dst = 0;
  float b = 0, m = 1;
};

/// Largest code of each window.
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

using Layer = std::variant<Encode, Convolution, Remap, AveragePool, MaxPool, Subsample>;

struct Model {
  std::vector<Value> values;
  std::vector<Layer> layers;  ///< in the order to run them
  int input = 0, output = 0;

  std::string policy;  ///< the JSON the sites were filled from
  std::vector<std::string> class_names;
  std::vector<float> mean, deviation;  ///< normalisation of an image in [0, 1], per channel
};

/// Bytes of all codes of weights at their true bit widths, and of b and m.
int64_t parameter_bytes(const Model& model);

/// Which value each layer writes, and which it reads.
int dst_of(const Layer& layer);
std::vector<int> sources_of(const Layer& layer);

/// Throws argument_error if the model does not hang together: indices, shapes, ranges, grids.
void validate(const Model& model);

}  // namespace stairgrad::quant::integer
