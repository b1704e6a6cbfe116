#include "integer_direct.h"

#include <algorithm>
#include <cstring>

namespace stairgrad::kernels {
namespace {

/// Results that are worth a part of their own.
constexpr int64_t results_of_a_part = 32;

/// What a strip reads and writes stays in the second level of cache until all channels are done.
constexpr int64_t strip_bytes = 128 << 10;

struct Part {
  int64_t first, last;
};
Part part_of(int64_t n, int64_t part, int64_t parts) { return {n * part / parts, n * (part + 1) / parts}; }

/// How many of the `left` vectors of channels a block takes: as many as it can, but it leaves more than one.
int64_t vectors_of_block(int64_t left, int64_t most) {
  return left <= most ? left : left == most + 1 ? most - 1 : most;
}

/// Where the depthwise loops have channel c of a block: lane 4 i + k of quarter q holds channel
/// 16 i + 4 q + k.
int64_t lane_of(int64_t c, int64_t lanes) { return c % 16 / 4 * lanes + c / 16 * 4 + c % 4; }

}  // namespace

DirectConv::DirectConv(const IntegerConvSpec& s)
    : conv_(s.conv),
      images_(s.src[0]),
      src_height_(s.src[1]),
      src_width_(s.src[2]),
      channels_(s.src[3]),
      height_(s.src[1] + s.conv.padding[0] + s.conv.padding[1]),
      width_(s.src[2] + s.conv.padding[2] + s.conv.padding[3]),
      results_(s.weights.dim(0)),
      kernel_height_(s.weights.dim(1)),
      zero_point_(s.src_zero_point),
      requantise_(s.requantise),
      skip_(s.skip),
      float_skip_(s.float_skip) {
  const Shape dst = conv2d_shape(s.src, s.weights.shape(), s.conv);
  rows_ = dst[1];
  columns_ = dst[2];
  range_.low = s.requantise ? static_cast<float>(s.lo) : s.low;
  range_.high = s.requantise ? static_cast<float>(s.hi) : s.high;
  range_.skip_ratio = s.skip_ratio;
  range_.pitch = results_;
  const int64_t kh = s.weights.dim(1), kw = s.weights.dim(2);
  depthwise_ = s.conv.groups == channels_ && results_ == channels_ && kh == kw && (kh == 3 || kh == 5) &&
               s.conv.stride[1] <= 2 && s.conv.dilation == std::array<int64_t, 2>{1, 1};
  if (depthwise_)
    pack_depthwise(s);
  else
    pack_dense(s);
  pack_constants(s);
  frame_ |= s.conv.padding != std::array<int64_t, 4>{};
  const int64_t fitting = strip_bytes / pitch();
  strip_ = fitting >= height_ ? std::min(images_, fitting / height_) * height_
                              : std::clamp(fitting, reach(), height_);
}

DirectConv::DirectConv(const DirectConv& like, const IntegerConvSpec& s) : DirectConv(like) {
  zero_point_ = s.src_zero_point;
  pack_constants(s);
}

// What lies under the kernel, cut into runs of consecutive codes: a row of it where that is one, else a
// pixel.
void DirectConv::pack_dense(const IntegerConvSpec& s) {
  const int64_t kh = s.weights.dim(1), kw = s.weights.dim(2), depth = s.weights.dim(3);
  const int64_t lanes = loops_.lanes, groups = s.conv.groups, of_group = results_ / groups;
  const bool whole_rows = groups == 1 && s.conv.dilation[1] == 1;
  const int64_t pixels = whole_rows ? kw : 1, length = pixels * depth;
  for (int64_t y = 0; y < kh; ++y)
    for (int64_t x = 0; x < kw; x += pixels)
      runs_.push_back(y * s.conv.dilation[0] * pitch() + x * s.conv.dilation[1] * channels_);
  quads_ = (length + 3) / 4;
  frame_ = length % 4 != 0;  // a quad that reaches beyond its run must stay in memory of our own

  const int64_t all = (of_group + lanes - 1) / lanes;
  const int64_t steps = static_cast<int64_t>(runs_.size()) * quads_;
  packed_channels_ = groups * all * lanes;
  weights_ = Array::zeros({packed_channels_ * steps * 4}, DType::s8);
  const int8_t* from = s.weights.data<int8_t>();
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t first = 0, vectors; first < all; first += vectors) {
      vectors = vectors_of_block(all - first, loops_.most_vectors);
      const int64_t channel = g * of_group + first * lanes;
      const int64_t constants = (g * all + first) * lanes;
      const Block block{g * depth,
                        constants * steps * 4,
                        constants,
                        channel,
                        std::min(vectors * lanes, of_group - first * lanes),
                        vectors};
      blocks_.push_back(block);
      int8_t* to = weights_.data<int8_t>() + block.weights;
      for (int64_t run = 0; run < static_cast<int64_t>(runs_.size()); ++run)
        for (int64_t i = 0; i < 4 * quads_; ++i)
          for (int64_t c = 0; c < block.channels && i < length; ++c) {
            // (oc, kh, kw, ic / groups): the taps of a run are consecutive here too
            const int64_t step = run * quads_ + i / 4;
            to[(step * vectors * lanes + c) * 4 + i % 4] =
                from[(channel + c) * kh * kw * depth + run * length + i];
          }
    }
}

void DirectConv::pack_depthwise(const IntegerConvSpec& s) {
  const int64_t taps = s.weights.dim(1), lanes = loops_.lanes, width = 4 * lanes, groups = (taps + 3) / 4;
  const int64_t blocks = (results_ + width - 1) / width;
  packed_channels_ = blocks * width;
  weights_ = Array::zeros({packed_channels_ * taps * groups * 4}, DType::s8);
  for (int64_t first = 0; first < results_; first += width) {
    const Block block{first, first * taps * groups * 4, first, first, std::min(width, results_ - first), 4};
    blocks_.push_back(block);
    for (int64_t c = 0; c < block.channels; ++c) {
      const int64_t at = lane_of(c, lanes);
      for (int64_t y = 0; y < taps; ++y)
        for (int64_t x = 0; x < taps; ++x)
          weights_.data<int8_t>()[block.weights + ((x * groups + y / 4) * width + at) * 4 + y % 4] =
              s.weights.data<int8_t>()[((first + c) * taps + y) * taps + x];
    }
  }
}

void DirectConv::pack_constants(const IntegerConvSpec& s) {
  b_ = Array::zeros({packed_channels_});
  m_ = Array::zeros({packed_channels_});
  for (const Block& block : blocks_)
    for (int64_t c = 0; c < block.channels; ++c) {
      const int64_t at = block.constants + (depthwise_ ? lane_of(c, loops_.lanes) : c);
      b_.data<float>()[at] = s.b.data<float>()[block.channel + c];
      m_.data<float>()[at] = s.m.data<float>()[block.channel + c];
    }
}

/// The rows top..bottom of an image within its frame.
void DirectConv::frame_rows(const uint8_t* image, int64_t top, int64_t bottom, uint8_t* to) const {
  const auto before = static_cast<size_t>(conv_.padding[2] * channels_),
             after = static_cast<size_t>(conv_.padding[3] * channels_),
             line = static_cast<size_t>(src_width_ * channels_);
  for (int64_t y = top - conv_.padding[0]; y < bottom - conv_.padding[0]; ++y, to += pitch()) {
    if (y < 0 || y >= src_height_) {
      std::memset(to, zero_point_, static_cast<size_t>(pitch()));
      continue;
    }
    std::memset(to, zero_point_, before);
    std::memcpy(to + before, image + y * src_width_ * channels_, line);
    std::memset(to + before + line, zero_point_, after);
  }
}

/// Calls body(strip) for the rows first..last of results, counted through images: with a frame, as many rows
/// or images at once as scratch holds.
template <class Body>
void DirectConv::for_strips(const IntegerConvOperands& o, int64_t first, int64_t last,
                            const Body& body) const {
  const auto* src = static_cast<const uint8_t*>(o.src);
  if (!frame_) {
    const int64_t rows = std::max<int64_t>(1, strip_bytes / (columns_ * (channels_ + results_)));
    for (; first < last; first += rows)
      body(Strip{src, first * columns_, std::min(first + rows, last) * columns_, 0});
    return;
  }
  auto* scratch = static_cast<uint8_t*>(o.scratch);
  const int64_t rows_at_once = (strip_ - reach()) / conv_.stride[0] + 1, images_at_once = strip_ / height_;
  const int64_t step = src_height_ * src_width_ * channels_;
  while (first < last) {
    const int64_t image = first / rows_, y = first % rows_;
    if (y == 0 && images_at_once > 1 && last - first > rows_) {
      const int64_t images = std::min(images_at_once, (last - first) / rows_);
      for (int64_t i = 0; i < images; ++i)
        frame_rows(src + (image + i) * step, 0, height_, scratch + i * image_bytes());
      body(Strip{scratch, 0, images * rows_ * columns_, first * columns_});
      first += images * rows_;
      continue;
    }
    const int64_t rows = std::min({rows_at_once, rows_ - y, last - first}), top = y * conv_.stride[0];
    frame_rows(src + image * step, top, top + (rows - 1) * conv_.stride[0] + reach(), scratch);
    body(Strip{scratch, 0, rows * columns_, first * columns_});
    first += rows;
  }
}

/// Where a block's results go, beginning with the first-th pixel.
simd::IntegerResult DirectConv::result_of(const IntegerConvOperands& o, const Block& block,
                                          int64_t first) const {
  simd::IntegerResult r = range_;
  r.b = b_.data<float>() + block.constants;
  r.m = m_.data<float>() + block.constants;
  const int64_t offset = first * results_ + block.channel;
  if (requantise_)
    r.codes = static_cast<uint8_t*>(o.dst) + offset;
  else
    r.floats = static_cast<float*>(o.dst) + offset;
  if (skip_) r.skip = static_cast<const uint8_t*>(o.skip) + offset;
  if (float_skip_) r.float_skip = static_cast<const float*>(o.skip) + offset;
  return r;
}

void DirectConv::run_dense(const IntegerConvOperands& o, int share, int shares) const {
  const int64_t rows = images_ * rows_, blocks = static_cast<int64_t>(blocks_.size());
  // Few results: the parts are blocks of channels, so that each share reads weights of its own.
  const int64_t chunks = shares == 1 ? 1
                                     : std::clamp<int64_t>(rows * columns_ / results_of_a_part, 1,
                                                           std::min<int64_t>(shares, rows));
  const auto [begin, end] = part_of(chunks * blocks, share, shares);
  for (int64_t unit = begin; unit < end;) {
    const int64_t chunk = unit / blocks, first_block = unit % blocks;
    const int64_t last_block = std::min(blocks, first_block + end - unit);
    const auto [first, last] = part_of(rows, chunk, chunks);
    for_strips(o, first, last, [&](const Strip& strip) {
      for (int64_t i = first_block; i < last_block; ++i) {
        const Block& block = blocks_[static_cast<size_t>(i)];
        const simd::IntegerConvBlock work{.src = strip.src + block.src,
                                          .column = conv_.stride[1] * channels_,
                                          .row = conv_.stride[0] * pitch(),
                                          .image = image_bytes(),
                                          .width = columns_,
                                          .height = rows_,
                                          .runs = runs_.data(),
                                          .run_count = static_cast<int64_t>(runs_.size()),
                                          .quads = quads_,
                                          .weights = weights_.data<int8_t>() + block.weights,
                                          .vectors = block.vectors,
                                          .channels = block.channels};
        loops_.dense(work, result_of(o, block, strip.origin), strip.first, strip.last);
      }
    });
    unit += last_block - first_block;
  }
}

void DirectConv::run_depthwise(const IntegerConvOperands& o, int share, int shares) const {
  const auto [first_row, last_row] = part_of(images_ * rows_, share, shares);
  for_strips(o, first_row, last_row, [&](const Strip& strip) {
    for (int64_t first = strip.first; first < strip.last; first += columns_)
      for (const Block& block : blocks_) {
        const int64_t y = first / columns_;
        const uint8_t* row = strip.src + y / rows_ * image_bytes() + y % rows_ * conv_.stride[0] * pitch();
        const simd::IntegerDepthwiseRow work{.src = row + block.src,
                                             .column = channels_,
                                             .row = pitch(),
                                             .count = columns_,
                                             .taps = kernel_height_,
                                             .stride = conv_.stride[1],
                                             .weights = weights_.data<int8_t>() + block.weights,
                                             .channels = block.channels};
        loops_.depthwise(work, result_of(o, block, strip.origin + first));
      }
  });
}

void DirectConv::run(const IntegerConvOperands& o, int share, int shares) const {
  if (depthwise_)
    run_depthwise(o, share, shares);
  else
    run_dense(o, share, shares);
}

}  // namespace stairgrad::kernels
