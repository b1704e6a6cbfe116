// Writes an integer model that has every layer and option, images, and every value of a run: for programs in
// other languages that read the format.
//   integer_codes FOLDER
#include <cmath>
#include <cstdio>

#include "../../data/formats/safetensors.h"
#include "../../kernels/random.h"
#include "../../quant/integer/model_file.h"
#include "../../quant/integer/session.h"

using namespace stairgrad;
using namespace stairgrad::quant::integer;

namespace {

// Draws parameters, and adds layers whose results have the shape that follows.
class Builder {
 public:
  Model model;

  int value(const Shape& shape, int bits, float scale, float zero_point) {
    const Grid grid{scale, zero_point, 0, (1 << bits) - 1};
    model.values.push_back({text("value", model.values.size()), shape, true, bits, grid, {}});
    return last();
  }
  int floats(const Shape& shape) {
    model.values.push_back({text("value", model.values.size()), shape, false, 0, {}, "for the test"});
    return last();
  }

  // Sums that spread over the codes of dst.
  Convolution& convolution(int src, int dst, const Shape& weights, int bits, const Conv2dOptions& options) {
    Convolution c;
    c.name = text("layer", model.layers.size());
    c.src = src;
    c.dst = dst;
    c.options = options;
    c.weight_bits = bits;
    c.weights = weight_codes(weights, bits);
    const auto alternatives = static_cast<int64_t>(at(src).alternatives.size());
    const Shape rows = alternatives > 0 ? Shape{alternatives, weights[0]} : Shape{weights[0]};
    c.b = random_normal(rows, Philox(2, ++stream_), 1000);
    c.m = random_normal(rows, Philox(2, ++stream_), at(dst).codes ? 0.05 : 0.001);
    c.hi = at(dst).codes ? at(dst).grid.hi : 255;
    model.layers.push_back(c);
    return std::get<Convolution>(model.layers.back());
  }

  Array weight_codes(const Shape& shape, int bits) {
    Array codes(shape, DType::s8);
    const int low = bits == 1 ? -1 : -(1 << (bits - 1));
    for (int64_t i = 0; i < shape.size(); ++i)
      codes.data<int8_t>()[i] = static_cast<int8_t>(
          bits == 1 ? low + 2 * draw(2) : std::max(-127, low + draw(static_cast<uint64_t>(-2 * low))));
    return codes;
  }

  int draw(uint64_t below) { return static_cast<int>(Philox(1).below(count_++, below)); }

 private:
  int last() const { return static_cast<int>(model.values.size()) - 1; }
  const Value& at(int index) const { return model.values[static_cast<size_t>(index)]; }

  uint64_t count_ = 0, stream_ = 0;
};

Model every_layer() {
  Builder b;
  Model& m = b.model;
  m.input = b.floats({7, 6, 3});
  const int codes = b.value({7, 6, 3}, 8, 0.02f, 117);
  m.layers.push_back(Encode{m.input, codes});
  const int a = b.value({4, 7, 6}, 8, 0.1f, 3);
  b.convolution(codes, a, {6, 3, 3, 3}, 8, {{2, 1}, {1, 1, 2, 1}, {1, 1}, 1});
  const int dilated = b.value({4, 7, 6}, 4, 0.2f, 5);
  Convolution& with_skip = b.convolution(a, dilated, {6, 3, 3, 2}, 3, {{1, 1}, {2, 2, 2, 2}, {2, 2}, 3});
  with_skip.skip = a;
  with_skip.skip_ratio = 0.37f;
  with_skip.lo = 5;

  const int moments = b.value({1, 1, 12}, 8, 0.04f, 9);
  m.layers.push_back(Moments{a, moments});
  const int logits = b.floats({1, 1, 2});
  b.convolution(moments, logits, {2, 1, 1, 12}, 8, {});
  const int chosen = b.value({1, 1, 1}, 1, 1, 0);
  m.layers.push_back(Select{logits, chosen, 0});

  const int coarse = b.value({4, 7, 6}, 2, 0.7f, 1);
  Value& dynamic = m.values[static_cast<size_t>(coarse)];
  dynamic.choice = 0;
  dynamic.alternatives = {{2, dynamic.grid}, {5, {0.1f, 7, 0, 31}}};
  Remap remap{a, coarse, {}};
  for (const Alternative& alternative : dynamic.alternatives) {
    remap.tables.emplace_back();
    for (uint8_t& code : remap.tables.back())
      code = static_cast<uint8_t>(b.draw(static_cast<uint64_t>(alternative.grid.hi + 1)));
  }
  m.layers.push_back(remap);
  const int by_bits = b.value({4, 7, 6}, 5, 0.1f, 5);
  const Array five_bits = b.weight_codes({6, 3, 3, 6}, 5);
  b.convolution(coarse, by_bits, five_bits.shape(), 2, Conv2dOptions::with(1, 1)).other_weights = {
      {five_bits, 5}};
  const int depthwise = b.value({4, 7, 6}, 4, 0.2f, 5);
  Convolution& with_shared = b.convolution(coarse, depthwise, {6, 3, 3, 1}, 1, Conv2dOptions::with(1, 1, 6));
  with_shared.skip = by_bits;
  with_shared.skip_ratio = 0.3f;

  const int joined = b.value({4, 7, 12}, 4, 0.2f, 5);
  m.layers.push_back(Concat{{dilated, depthwise}, joined});
  const int largest = b.value({2, 4, 12}, 4, 0.2f, 5);
  m.layers.push_back(MaxPool{joined, largest, Pool2dOptions::with(3, 2, 1)});
  m.values[static_cast<size_t>(largest)].shape = {2, 4, 12};
  const int mean = b.value({1, 2, 12}, 6, 0.05f, 9);
  m.layers.push_back(AveragePool{largest, mean, {{3, 2}, {2, 2}, {1, 0}}, -11.5f, 0.4f});
  const int every_second = b.value({1, 1, 16}, 6, 0.05f, 9);
  m.layers.push_back(Subsample{mean, every_second, {1, 2}, 1, 3});

  const int block = b.floats({2, 4, 12});
  Convolution& to_floats = b.convolution(largest, block, {12, 1, 1, 12}, 8, {});
  to_floats.skip = largest;
  to_floats.skip_ratio = 0.21f;
  to_floats.low = 0;
  const int next = b.floats({2, 4, 12});
  Convolution& uneven = b.convolution(largest, next, {12, 1, 3, 12}, 5, {{1, 1}, {0, 0, 1, 1}, {1, 1}, 1});
  uneven.skip = block;
  uneven.high = 3;
  // Each channel has codes -o .. 31 - o, so that the file must say where they start.
  for (int64_t i = 0; i < uneven.weights.size(); ++i)
    uneven.weights.data<int8_t>()[i] = static_cast<int8_t>(uneven.weights.data<int8_t>()[i] + 16 - i / 36);
  const int pooled = b.floats({1, 1, 12});
  m.layers.push_back(AveragePool{next, pooled, {{2, 4}, {2, 4}}, 0.25f, 0.125f});
  const int halves = b.value({1, 1, 12}, 7, 0.03f, 40.5f), back = b.value({1, 1, 12}, 7, 0.03f, 40);
  m.layers.push_back(Encode{pooled, halves});
  Remap turned{halves, back, {}};
  turned.tables.emplace_back();
  for (uint8_t i = 0; i < 128; ++i) turned.tables[0][i] = static_cast<uint8_t>(127 - i);
  m.layers.push_back(turned);
  const int flat = b.value({1, 1, 16}, 7, 0.03f, 40);
  m.layers.push_back(Subsample{back, flat, {1, 1}, 2, 2});
  const int sum = b.value({1, 1, 16}, 8, 0.03f, 20);
  Convolution& add = b.convolution(every_second, sum, {16, 1, 1, 1}, 1, Conv2dOptions::with(1, 0, 16));
  add.skip = flat;
  add.skip_ratio = 1.5f;
  m.output = b.floats({1, 1, 5});
  b.convolution(sum, m.output, {5, 1, 1, 16}, 7, {});
  m.class_names = {"a", "b", "c", "d", "e"};
  m.mean = {0.5f, 0.4f, 0.3f};
  m.deviation = {0.2f, 0.3f, 0.25f};
  return m;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: integer_codes FOLDER\n"), 1;
  const std::string folder = argv[1];
  save(every_layer(), folder + "/model.safetensors");
  const Model model = load(folder + "/model.safetensors");
  Array images = random_normal({4, 7, 6, 3}, Philox(7));
  for (int64_t i = 0; i < images.size() / 2; ++i)
    images.data<float>()[i] *= 0.2f;  // so that images choose differently
  Session session(model, 4, /*keep_values=*/true);
  session.run(images);
  data::SafeTensors run;
  run.tensors["choices"] = session.choices();
  for (size_t i = 0; i < model.values.size(); ++i)
    run.tensors[text("values.", i)] = session.value(static_cast<int>(i));
  data::save_safetensors(folder + "/run.safetensors", run);
  return 0;
}
