// Damaged files: whatever the bytes are, a parser returns a value or throws format_error. Memory errors are
// the sanitizers' to find. The damage depends on FUZZ_SEED alone, FUZZ_SECONDS (60) says for how long each.
#include <doctest/doctest.h>

#include <chrono>

#include "data/formats/cifar.h"
#include "data/formats/gzip.h"
#include "data/formats/idx.h"
#include "data/formats/image.h"
#include "data/formats/labels.h"
#include "data/formats/pth.h"
#include "data/formats/safetensors.h"
#include "kernels/random.h"
#include "quant/policy.h"
#include "repair.h"
#include "setting.h"

using namespace stairgrad;
using data::Bytes;

namespace {

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
