// Damaged files: whatever the bytes are, a parser returns a value or throws format_error. Memory errors are
// the sanitizers' to find. The damage depends on FUZZ_SEED alone, FUZZ_SECONDS (60) says for how long each.
#include <doctest/doctest.h>

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "data/formats/cifar.h"
#include "data/formats/gzip.h"
#include "data/formats/idx.h"
#include "data/formats/image.h"
#include "data/formats/labels.h"
#include "data/formats/pth.h"
#include "data/formats/safetensors.h"
#include "kernels/random.h"
#include "quant/integer/model_file.h"
#include "quant/integer/session.h"
#include "quant/policy.h"
#include "repair.h"

using namespace stairgrad;
using data::Bytes;

namespace {

int64_t setting(const char* name, int64_t otherwise) {
  const char* value = std::getenv(name);
  return value ? std::atoll(value) : otherwise;
}

/// A few of: a flipped bit, an extreme byte, an extreme 32-bit number, a lost tail, a doubled or lost piece.
Bytes damage(Bytes bytes, const Philox& rng, uint64_t& index) {
  static const uint32_t extremes[] = {0,      1,          0x7F,       0xFF,       0x7FFF,
                                      0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x01000000};
  const uint64_t wounds = 1 + rng.below(index++, 4);
  for (uint64_t wound = 0; wound < wounds && !bytes.empty(); ++wound) {
    // Headers are short and decide most, so half of the wounds are there.
    const uint64_t reach = rng.below(index++, 2) ? bytes.size() : std::min<size_t>(bytes.size(), 64);
    const uint64_t at = rng.below(index++, reach);
    const auto place = bytes.begin() + static_cast<ptrdiff_t>(at);
    const uint64_t length = std::min<uint64_t>(1 + rng.below(index++, 16), bytes.size() - at);
    switch (rng.below(index++, 6)) {
      case 0:
        *place ^= static_cast<uint8_t>(1u << rng.below(index++, 8));
        break;
      case 1:
        *place = static_cast<uint8_t>(extremes[rng.below(index++, 4)]);
        break;
      case 2: {
        const uint32_t value = extremes[rng.below(index++, 10)];
        for (uint64_t i = 0; i < std::min<uint64_t>(4, bytes.size() - at); ++i) {
          bytes[at + i] = static_cast<uint8_t>(value >> (8 * i));
        }
        break;
      }
      case 3:
        bytes.resize(at);
        break;
      case 4: {
        const Bytes piece(place, place + static_cast<ptrdiff_t>(length));
        bytes.insert(place, piece.begin(), piece.end());
        break;
      }
      default:
        bytes.erase(place, place + static_cast<ptrdiff_t>(length));
    }
  }
  return bytes;
}

using Repair = void (*)(uint8_t* bytes, size_t size);

/// Feeds damaged versions of `whole` to `parse`, most of them with right checksums; fails with what
/// reproduces it.
template <class Parse>
void fuzz(const std::string& what, const Bytes& whole, Parse parse, Repair repair = nullptr) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(setting("FUZZ_SECONDS", 60));
  const Philox rng(static_cast<uint64_t>(setting("FUZZ_SEED", 0)), stream_of(what));
  REQUIRE_NOTHROW(parse(whole));
  int64_t round = 0, refused = 0;
  for (; std::chrono::steady_clock::now() < end; ++round) {
    uint64_t index = static_cast<uint64_t>(round) << 20;
    Bytes damaged = damage(whole, rng, index);
    if (repair && round % 8 > 0) repair(damaged.data(), damaged.size());
    try {
      parse(damaged);
    } catch (const format_error&) {
      ++refused;
    } catch (const std::exception& error) {
      FAIL_CHECK(what << ", round " << round << ": got \"" << error.what() << "\", expected a format_error");
      return;
    }
  }
  MESSAGE(what << ": " << round << " damaged files, " << refused << " refused");
}

Bytes bytes_of(const std::string& text) { return {text.begin(), text.end()}; }

Bytes idx_file() {
  Bytes bytes = {0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 6};
  bytes.resize(bytes.size() + 4 * 5 * 6, 7);
  return bytes;
}

Array small_picture() {
  Array image(Shape{9, 11, 3}, DType::u8);
  for (int64_t i = 0; i < image.size(); ++i) image.data<uint8_t>()[i] = static_cast<uint8_t>(37 * i);
  return image;
}

}  // namespace

TEST_CASE("damaged IDX files") {
  fuzz("idx", idx_file(), [](const Bytes& bytes) { data::parse_idx(bytes, "idx"); });
}

TEST_CASE("damaged gzip files") {
  // "stairgrad" four times, by gzip -9n.
  const Bytes packed = {0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0xff, 0x2b,
                        0x2e, 0x49, 0xcc, 0x2c, 0x4a, 0x2f, 0x4a, 0x4c, 0x29, 0xc6, 0xcd,
                        0x00, 0x00, 0xe0, 0x36, 0xae, 0x5a, 0x24, 0x00, 0x00, 0x00};
  fuzz("gzip", packed, [](const Bytes& bytes) { data::gunzip(bytes, "gzip", 1 << 20); });
}

TEST_CASE("damaged CIFAR files") {
  fuzz("cifar10", Bytes(2 * 3073, 5), [](const Bytes& bytes) { data::parse_cifar(bytes, "cifar10", 10); });
  fuzz("cifar100", Bytes(2 * 3074, 5), [](const Bytes& bytes) { data::parse_cifar(bytes, "cifar100", 100); });
}

TEST_CASE("damaged PNG files") {
  fuzz(
      "png", data::encode_png(small_picture()),
      [](const Bytes& bytes) { data::decode_image(bytes, "png", {.pixels = 1 << 20}); }, data::repair_png);
}

TEST_CASE("damaged JPEG files") {
  for (const char* name : {"subsampled.jpg", "progressive.jpg"}) {
    fuzz(name, data::read_file(std::string(TEST_FILES) + "/data/pictures/" + name),
         [](const Bytes& bytes) { data::decode_image(bytes, "jpeg", {.pixels = 1 << 20}); });
  }
}

TEST_CASE("damaged safetensors files") {
  data::SafeTensors content;
  content.tensors["conv1.weight"] = Array::zeros({2, 3, 3, 1});
  content.tensors["codes"] = Array::zeros({5}, DType::s8);
  content.metadata["about"] = "a test";
  fuzz("safetensors", data::encode_safetensors(content),
       [](const Bytes& bytes) { data::parse_safetensors(bytes, "safetensors"); });
}

TEST_CASE("damaged PyTorch files") {
  for (const char* name : {"archive", "legacy"}) {
    fuzz(
        text("pth, ", name), data::read_file(text(TEST_FILES, "/fuzz/corpus/pth/", name)),
        [](const Bytes& bytes) { data::parse_pth(bytes, "pth"); }, data::repair_zip);
  }
}

TEST_CASE("damaged tables of labels") {
  const Bytes table = bytes_of("file\tclass\tname\na.jpg\t2\tcat\nb.jpg\t0\tdog\n");
  fuzz("labels", table, [](const Bytes& bytes) { data::parse_labels(bytes, "labels"); });
  fuzz("class names", table, [](const Bytes& bytes) { data::parse_class_names(bytes, "class names"); });
}

TEST_CASE("damaged policies") {
  quant::Policy policy;
  policy.layers["conv1"] = {.w_bits = 8, .a_bits = 8};
  policy.tensors["stem"] = {};
  fuzz("policy", bytes_of(policy.to_json()), [](const Bytes& bytes) {
    quant::Policy::parse({bytes.begin(), bytes.end()}, "policy");
  });
}

namespace {

/// Encodes, convolves with a skip, remaps, pools, joins, ends in floats: small, so that many can be read in a
/// second.
quant::integer::Model small_model() {
  using namespace quant::integer;
  Model m;
  const auto value = [&](const char* name, const Shape& shape, int bits) {
    m.values.push_back(
        {name, shape, bits > 0, bits, bits > 0 ? Grid{0.5f, 1, 0, (1 << bits) - 1} : Grid{}, {}});
    return static_cast<int>(m.values.size()) - 1;
  };
  const auto convolution = [&](int src, int dst, int skip, const Shape& weights,
                               const Conv2dOptions& options) {
    Convolution c;
    c.name = "layer";
    c.src = src;
    c.dst = dst;
    c.skip = skip;
    c.options = options;
    c.weights = Array::full(weights, 1, DType::s8);
    c.weight_bits = 4;
    c.b = Array::full({weights[0]}, 0.5);
    c.m = Array::full({weights[0]}, 0.25);
    c.hi = m.values[static_cast<size_t>(dst)].codes ? m.values[static_cast<size_t>(dst)].grid.hi : 255;
    c.skip_ratio = 1;
    m.layers.push_back(c);
  };
  const int images = value("images", {4, 4, 2}, 0), codes = value("codes", {4, 4, 2}, 8);
  m.layers.push_back(Encode{images, codes});
  const int sum = value("sum", {4, 4, 2}, 4);
  convolution(codes, sum, codes, {2, 3, 3, 2}, Conv2dOptions::with(1, 1));
  const int coarse = value("coarse", {4, 4, 2}, 2);
  m.layers.push_back(Remap{sum, coarse, {{0, 1, 2, 3}}});
  const int joined = value("joined", {4, 4, 4}, 2);
  m.layers.push_back(Concat{{coarse, coarse}, joined});
  const int pooled = value("pooled", {2, 2, 4}, 2), mean = value("mean", {1, 1, 4}, 4);
  m.layers.push_back(MaxPool{joined, pooled, Pool2dOptions::with(2, 2)});
  m.layers.push_back(AveragePool{pooled, mean, Pool2dOptions::with(2, 2), 0, 0.5f});
  const int logits = value("logits", {1, 1, 3}, 0);
  convolution(mean, logits, -1, {3, 1, 1, 4}, {});
  m.input = images;
  m.output = logits;
  return m;
}

}  // namespace

// FUZZ_FLIPS single bytes are changed, one after another. Without a checksum, so that the changes are seen by
// what comes after it; whatever is accepted is run.
TEST_CASE("integer models with a changed byte") {
  using namespace quant::integer;
  const std::string path = text("/tmp/fuzz_integer.", getpid(), ".safetensors");
  save(small_model(), path);
  data::SafeTensors content = data::load_safetensors(path);
  std::remove(path.c_str());
  content.metadata.erase("stairgrad.checksum");
  const Bytes whole = data::encode_safetensors(content);
  const Philox rng(static_cast<uint64_t>(setting("FUZZ_SEED", 0)), stream_of("integer"));
  const auto flips = static_cast<uint64_t>(setting("FUZZ_FLIPS", 100'000));
  uint64_t ran = 0;
  for (uint64_t i = 0; i < flips; ++i) {
    Bytes damaged = whole;
    damaged[rng.below(3 * i, damaged.size())] ^= static_cast<uint8_t>(1 + rng.below(3 * i + 1, 255));
    try {
      const Model model = parse(damaged, "integer model");
      const Shape image = model.values[static_cast<size_t>(model.input)].shape;
      if (image.size() > 1 << 16) continue;
      Session session(model, 1);
      session.run(Array::full({1, image[0], image[1], image[2]}, 1));
      ++ran;
    } catch (const format_error&) {
    } catch (const std::exception& error) {
      FAIL(text("flip ", i, ": got \"", error.what(), "\", expected a format_error"));
    }
  }
  MESSAGE(flips << " changed bytes, " << ran << " models ran");
  CHECK(ran < flips);
}
