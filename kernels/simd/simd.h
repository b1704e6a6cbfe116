// The hot loops of the library, compiled once per instruction set and reached through one table.
//
// A loop is a plain function over a range: no threads, no allocation, no exceptions. It computes in Real
// (double for double, float for float and bf16) and rounds once, when it stores. Loops give the same bits on
// every instruction set: no operation is contracted unless its product is exact, and sums run over a fixed
// number of lanes.
#pragma once

#include <limits>
#include <type_traits>

#include "../elementwise.h"

namespace stairgrad {
struct Grid;
}

namespace stairgrad::simd {

/// What a loop over elements of type T computes in.
template <class T>
using Real = std::conditional_t<std::is_same_v<T, double>, double, float>;

/// Where the ReLU behind a normalisation let its argument through: where 0 < y < high or, with y null, where
/// (x - mean) * scale + shift is between them; everywhere if all pointers are null.
template <class T>
struct ReluMask {
  const T* y = nullptr;
  const Real<T>* scale = nullptr;
  const Real<T>* shift = nullptr;
  Real<T> high = std::numeric_limits<Real<T>>::infinity();

  /// For elements `offset` further on.
  ReluMask at(int64_t offset) const { return {y ? y + offset : nullptr, scale, shift, high}; }
};

/// Loops over elements of type T. Arrays of functions are indexed by the enums of elementwise.h.
template <class T>
struct Loops {
  // map.cpp: n elements; y may be one of the inputs.
  void (*unary[16])(const T* x, T* y, int64_t n);
  void (*binary[10])(const T* a, const T* b, T* y, int64_t n);
  void (*binary_scalar[10])(const T* a, Real<T> b, T* y, int64_t n);
  void (*scalar_binary[10])(Real<T> a, const T* b, T* y, int64_t n);
  void (*affine)(const T* x, T* y, int64_t n, Real<T> scale, Real<T> shift);
  void (*clamp)(const T* x, T* y, int64_t n, Real<T> low, Real<T> high);
  void (*where)(const T* condition, const T* a, const T* b, T* y, int64_t n);
  void (*pass_inside[2])(const T* u, const T* x, T* y, int64_t n, Real<T> low, Real<T> high);
  void (*widen)(const T* x, Real<T>* y, int64_t n);
  void (*narrow)(const Real<T>* x, T* y, int64_t n);

  // reduce.cpp: a contiguous range to one number; rows of `width` elements onto `result[width]`.
  double (*sum)(const T* x, int64_t n);
  Real<T> (*max)(const T* x, int64_t n);
  Real<T> (*min)(const T* x, int64_t n);
  void (*column_sum)(const T* x, int64_t rows, int64_t width, Real<T>* result);
  void (*column_max)(const T* x, int64_t rows, int64_t width, Real<T>* result);
  void (*column_min)(const T* x, int64_t rows, int64_t width, Real<T>* result);
  /// exp(x - shift) into y; returns the sum.
  double (*exp_sum)(const T* x, Real<T> shift, Real<T>* y, int64_t n);

  // pool.cpp: `c` channels of the pixels of a window, rows of which are `row` elements apart.
  /// y = the average, with `scale` for 1 / (pixels averaged over).
  void (*average_window)(const T* x, T* y, int64_t c, int64_t height, int64_t width, int64_t row,
                         Real<T> scale);
  /// y = the largest element, the first one if several are; index = its position, `first` for the window's
  /// first pixel and `step` more for each row. NaN counts as largest.
  void (*max_window)(const T* x, T* y, int32_t* index, int64_t c, int64_t height, int64_t width, int64_t row,
                     int32_t first, int32_t step);
  /// sum += g * scale.
  void (*add_scaled)(const T* g, Real<T>* sum, int64_t n, Real<T> scale);

  // norm.cpp: rows of `width` elements; per-channel arrays have `width` elements.
  /// sum += x - pivot, squares += (x - pivot)^2.
  void (*moments)(const T* x, int64_t rows, int64_t width, const Real<T>* pivot, Real<T>* sum,
                  Real<T>* squares);
  /// y = act((x - mean) * scale + shift [+ skip]), act being nothing or the ReLU up to `high`.
  void (*normalise)(const T* x, const T* skip, T* y, int64_t rows, int64_t width, const Real<T>* mean,
                    const Real<T>* scale, const Real<T>* shift, bool relu, Real<T> high);
  /// With g = diff_y where the ReLU let it through: sum += g, products += g * (x - mean), and g itself into
  /// diff_skip unless that is null.
  void (*norm_gradient_sums)(const T* x, const T* diff_y, const ReluMask<T>& relu, T* diff_skip, int64_t rows,
                             int64_t width, const Real<T>* mean, Real<T>* sum, Real<T>* products);
  /// diff_x = (g - offset - (x - mean) * slope) * scale with g as above.
  void (*norm_gradient)(const T* x, const T* diff_y, const ReluMask<T>& relu, T* diff_x, int64_t rows,
                        int64_t width, const Real<T>* mean, const Real<T>* offset, const Real<T>* slope,
                        const Real<T>* scale);
};

/// Channels of T that fill a vector of any instruction set.
template <class T>
constexpr int64_t depthwise_vector = 64 / sizeof(T);

/// A row of results of a depthwise convolution. src points to the first row of pixels that the taps meet.
struct DepthwiseRow {
  int64_t channels;       ///< at least depthwise_vector
  int64_t pitch;          ///< elements from a pixel to the next, and from a tap to the next
  int64_t width;          ///< pixels of a row of src
  int64_t rows, columns;  ///< of taps; rows that lie in the padding are left out
  int64_t stride;         ///< of the columns
  int64_t first;  ///< the column of src under the first tap of the first result; may lie in the padding
  int64_t count;  ///< results
  int64_t step;   ///< pixels of dst from one result to the next
};

/// depthwise.cpp: taps are (rows, columns, channels). Kernels are 3 x 3 or 5 x 5 with stride 1 or 2 and, with
/// stride 1, every second row and column of those.
template <class T>
struct DepthwiseLoops {
  void (*forward)(const T* src, const T* taps, T* dst, const DepthwiseRow& row);
  /// sums += what the row diff_dst adds to the gradients of the taps.
  void (*gradient)(const T* src, const T* diff_dst, float* sums, const DepthwiseRow& row);
};

/// m = beta1 m + rate1 g;  v = beta2 v + rate2 g^2;  w = decay w - step m / (sqrt(v scale) + eps).
struct AdamW {
  float beta1, rate1, beta2, rate2, scale, eps, step, decay;
};

/// Updates of f32 parameters (optimiser.h).
struct OptimiserLoops {
  void (*sgd)(float* w, float* v, const float* g, int64_t n, float lr, float momentum, float weight_decay,
              bool nesterov);
  void (*adamw)(float* w, float* m, float* v, const float* g, int64_t n, const AdamW& a);
};

/// The functions of grid.h over ranges; acc and codes of requantise are rows of `width` channels.
struct GridLoops {
  void (*encode_u8)(const float* x, uint8_t* codes, int64_t n, const Grid& g, float inverse_scale);
  void (*encode_s8)(const float* x, int8_t* codes, int64_t n, const Grid& g, float inverse_scale);
  void (*decode_u8)(const uint8_t* codes, float* y, int64_t n, const Grid& g);
  void (*decode_s8)(const int8_t* codes, float* y, int64_t n, const Grid& g);
  void (*fake_quantize)(const float* x, float* y, int64_t n, const Grid& g, float inverse_scale);
  /// (code - zero_point) * step of bf16 values.
  void (*levels_b16)(const bf16* x, bf16* y, int64_t n, const Grid& g, float inverse_scale, float step);
  void (*affine)(const int32_t* acc, const float* b, const float* m, float* y, int64_t rows, int64_t width);
  void (*requantise)(const int32_t* acc, const float* b, const float* m, uint8_t* codes, int64_t rows,
                     int64_t width, int lo, int hi);
  /// The same after adding the codes that are there, the skip's, times `ratio`.
  void (*requantise_add)(const int32_t* acc, const float* b, const float* m, uint8_t* codes, int64_t rows,
                         int64_t width, int lo, int hi, float ratio);
};

/// A convolution of codes for a block of output channels of one group. Nothing lies in the padding: src has
/// its frame. Under each result the codes are runs of consecutive bytes, cut into quads of four.
struct IntegerConvBlock {
  const uint8_t* src;  ///< under the first tap of the first result
  int64_t column, row,
      image;              ///< bytes of src from a result to the next one, to the next row, to the next image
  int64_t width, height;  ///< results of a row, rows of an image
  const int64_t* runs;    ///< where they begin, in bytes from the result's first tap
  int64_t run_count, quads;   ///< quads of each run
  const int8_t* weights;      ///< (runs, quads, vectors * lanes, 4); zero where there is no tap or channel
  int64_t vectors, channels;  ///< channels = up to vectors * lanes
};

/// A depthwise convolution of codes with 3 x 3 or 5 x 5 taps: one row of results. src has its frame.
struct IntegerDepthwiseRow {
  const uint8_t* src;     ///< under the first tap of the first result
  int64_t column, row;    ///< bytes of src from a pixel to the next one and to the next row
  int64_t count;          ///< results
  int64_t taps, stride;   ///< 3 or 5; 1 or 2, of the columns
  const int8_t* weights;  ///< (columns, ceil(taps / 4), 4, lanes, 4): four rows of a column beside each other
  int64_t channels;       ///< up to 4 * lanes
};

/// How sums become results, by grid.h. Exactly one of codes and floats is set, and at most one of the skips.
/// They point to the first channel of the first result; results are `pitch` elements apart.
struct IntegerResult {
  const float *b, *m;  ///< of each channel, to the end of the last vector
  float low = 0, high = 255;
  float skip_ratio = 0;
  int64_t pitch = 0;
  uint8_t* codes = nullptr;
  float* floats = nullptr;
  const uint8_t* skip = nullptr;
  const float* float_skip = nullptr;
};

/// integer_conv.cpp; null without loops for this machine. Channels lie on the lanes of vectors; a depthwise
/// convolution takes four vectors at once and there a vector holds four channels of each 16: quarter q holds
/// channel 16 i + 4 q + k in lane 4 i + k.
struct IntegerConvLoops {
  int64_t lanes, most_vectors;  ///< of 32 bits; of channels in a block
  /// Results first..last of a block, counted through rows and images; result 0 is at `result`.
  void (*dense)(const IntegerConvBlock& block, const IntegerResult& result, int64_t first, int64_t last);
  void (*depthwise)(const IntegerDepthwiseRow& row, const IntegerResult& result);
};

/// codes.cpp: elements of codes.
struct CodeLoops {
  void (*remap)(const uint8_t* from, uint8_t* to, int64_t n, const uint8_t* table);
  /// to = max(to, from).
  void (*larger)(const uint8_t* from, uint8_t* to, int64_t n);
  /// sum += from.
  void (*add)(const uint8_t* from, int32_t* sum, int64_t n);
  /// sum and squares of each channel over at most 2^15 pixels; from (pixels, channels).
  void (*moments)(const uint8_t* from, int64_t pixels, int64_t channels, int32_t* sum, int32_t* squares);
};

struct Table {
  Loops<float> f32;
  Loops<bf16> b16;
  Loops<double> f64;
  DepthwiseLoops<float> depthwise_f32;
  DepthwiseLoops<bf16> depthwise_b16;
  OptimiserLoops optimiser;
  GridLoops grid;
};

/// What the integer runtime is made of.
struct IntegerTable {
  IntegerConvLoops conv;
  CodeLoops codes;
};

/// avx512_vnni has the table of avx512 and an integer table of its own, with 8-bit dot products
/// (VNNI).
enum class Isa { baseline, avx2, avx512, avx512_vnni };

/// The table of an instruction set, or null if this build or this CPU does not have it.
const Table* table_of(Isa isa);

/// The table in use: the best of this CPU, at most STAIRGRAD_MAX_ISA={baseline,avx2,avx512,avx512_vnni} if
/// that is set.
const Table& table();

/// The same for the integer loops.
const IntegerTable* integer_table_of(Isa isa);
const IntegerTable& integer_table();

/// The instruction set of table().
Isa isa();
constexpr const char* name_of(Isa isa) {
  constexpr const char* names[] = {"baseline", "avx2", "avx512", "avx512_vnni"};
  return names[static_cast<int>(isa)];
}

/// Makes table() and integer_table() return those of `isa`, which must exist: for tests.
void use_isa(Isa isa);

/// The loops for elements of type T.
template <class T>
const Loops<T>& loops() {
  if constexpr (std::is_same_v<T, float>)
    return table().f32;
  else if constexpr (std::is_same_v<T, bf16>)
    return table().b16;
  else
    return table().f64;
}

/// Its depthwise convolutions; T is float or bf16.
template <class T>
const DepthwiseLoops<T>& depthwise_loops() {
  if constexpr (std::is_same_v<T, float>)
    return table().depthwise_f32;
  else
    return table().depthwise_b16;
}

}  // namespace stairgrad::simd
