// Files of integer models, and what their validation refuses.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "../../data/formats/file.h"
#include "../../data/formats/safetensors.h"
#include "../../quant/integer/model_file.h"
#include "../../quant/integer/reference.h"
#include "../../quant/integer/session.h"
#include "../folder.h"
#include "deployed.h"

using namespace stairgrad;
using namespace stairgrad::quant;

namespace integer = stairgrad::quant::integer;

TEST_CASE("a file holds the model: same codes after a round trip, weights at their true width") {
  const std::string path =
      (std::filesystem::temp_directory_path() / "stairgrad_integer_test.safetensors").string();
  for (const Case& c : cases) {
    const Deployed q = quantized(c);
    integer::save(q.lowered, path);
    const integer::Model loaded = integer::load(path);
    const Array images = images_of(q.model->input_shape(2), 7);
    integer::Session a(q.lowered, 2, true), b(loaded, 2, true);
    a.run(images);
    b.run(images);
    for (size_t v = 0; v < loaded.values.size(); ++v)
      CHECK(same_bytes(a.value(static_cast<int>(v)), b.value(static_cast<int>(v))));
  }
  const auto size_of_weights = [](int bits) {
    const Deployed q = quantized({"resnet8", "dsq", bits, 4, Skip::u8, Ends::same});
    int64_t bytes = integer::parameter_bytes(q.lowered);
    for (const integer::Layer& layer : q.lowered.layers)
      if (const auto* conv = std::get_if<integer::Convolution>(&layer)) bytes -= 8 * conv->m.size();
    return bytes;
  };
  CHECK(size_of_weights(8) == 4 * size_of_weights(2));
  std::filesystem::remove(path);
}

TEST_CASE("a file is known as an integer model or as another one, and must have its checksum") {
  const std::string path =
      (std::filesystem::temp_directory_path() / "stairgrad_integer_sealed.safetensors").string();
  data::save_safetensors(path, {});
  CHECK_FALSE(integer::load_if_integer(path).has_value());
  integer::save(quantized(cases[0]).lowered, path);
  CHECK(integer::load_if_integer(path).has_value());
  data::SafeTensors content = data::load_safetensors(path);
  content.metadata.erase("stairgrad.checksum");
  data::save_safetensors(path, content);
  CHECK_THROWS_WITH_AS(integer::load(path), doctest::Contains("it has no checksum"), format_error);
  std::filesystem::remove(path);
}

TEST_CASE("a file of another version is refused, with the versions that can be read") {
  const Folder folder;
  const std::string path = folder / "model.safetensors", key = "stairgrad.integer_model";
  integer::save(quantized(cases[0]).lowered, path);
  data::SafeTensors content = data::load_safetensors(path);
  const std::string now = "\"version\":2";
  const size_t at = content.metadata.at(key).find(now);
  REQUIRE(at != std::string::npos);
  for (const char* other : {"1", "4", "1000000"}) {
    CAPTURE(other);
    data::SafeTensors changed = content;
    changed.metadata[key].replace(at, now.size(), text("\"version\":", other));
    data::seal(changed, key);
    data::save_safetensors(path, changed);
    CHECK_THROWS_WITH_AS(integer::load(path),
                         doctest::Contains(text("version ", other, " is none of").c_str()), format_error);
  }
}

TEST_CASE("damaged files end in format_error: truncated anywhere, or with any byte changed") {
  const std::string path =
      (std::filesystem::temp_directory_path() / "stairgrad_integer_damaged.safetensors").string();
  Case small{"resnet8", "dsq", 2, 2, Skip::u8, Ends::same};
  small.size = 8;
  integer::save(quantized(small).lowered, path);
  const data::Bytes whole = data::read_file(path);
  const auto attempt = [&](const data::Bytes& bytes) {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    try {
      integer::Session session(integer::load(path), 1);
      session.run(images_of({1, 8, 8, 3}));
      return true;
    } catch (const argument_error&) {
      return true;  // whole, but the image has another shape
    } catch (const format_error&) {
      return false;
    }
  };
  CHECK(attempt(whole));
  for (size_t length = 0; length < whole.size(); length += 1 + whole.size() / 200)
    CHECK_FALSE(attempt(data::Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length))));
  const Philox rng(11);
  int loaded = 0;
  for (uint64_t i = 0; i < 2000; ++i) {
    data::Bytes damaged = whole;
    damaged[rng.below(2 * i, damaged.size())] ^= static_cast<uint8_t>(1 + rng.below(2 * i + 1, 255));
    loaded += attempt(damaged);  // what no checksum guards: its own name, the policy's text, spaces
  }
  CHECK(loaded < 10);
  std::filesystem::remove(path);
}

TEST_CASE("validate() names what does not hang together") {
  const integer::Model good = quantized(cases[0]).lowered;
  const auto refuses = [&](const auto& change, const std::string& words) {
    integer::Model bad = good;
    change(bad);
    CHECK_THROWS_WITH_AS(integer::validate(bad), doctest::Contains(words.c_str()), argument_error);
  };
  const auto conv = [](integer::Model& m) -> integer::Convolution& {
    for (integer::Layer& layer : m.layers)
      if (auto* c = std::get_if<integer::Convolution>(&layer)) return *c;
    throw std::logic_error("no convolution");
  };
  refuses([](integer::Model& m) { m.input = 99; }, "got value 99");
  refuses([](integer::Model& m) { std::swap(m.layers[0], m.layers[1]); }, "before it is written");
  refuses([](integer::Model& m) { m.layers.push_back(m.layers.back()); }, "written twice");
  refuses([](integer::Model& m) { m.layers.pop_back(); }, "nothing writes the output");
  const auto codes = [](integer::Model& m) -> integer::Value& {
    return *std::find_if(m.values.begin(), m.values.end(), [](const integer::Value& v) { return v.codes; });
  };
  refuses([&](integer::Model& m) { codes(m).grid.scale = 0; }, "scale 0");
  refuses([&](integer::Model& m) { codes(m).grid.zero_point = 0.5; }, "zero point 0.5");
  refuses([&](integer::Model& m) { codes(m).shape = {1, 2, 3}; }, "(1,2,3)");
  refuses([&](integer::Model& m) { conv(m).m = Array::full(conv(m).m.shape(), NAN); }, "not finite");
  refuses([&](integer::Model& m) { conv(m).b = Array::zeros({1}); }, "one f32 for each");
  refuses([&](integer::Model& m) { conv(m).hi = 300; }, "code range");
  refuses([&](integer::Model& m) { conv(m).options.padding = {9, 1, 1, 1}; }, "more than the kernel reaches");
  refuses([](integer::Model& m) { m.output = m.input; }, "same value");
  refuses([&](integer::Model& m) { codes(m).codes = false; }, "reads floats, expected codes");
  refuses([&](integer::Model& m) { codes(m).bits = 2; }, "codes of 2 bits");
  refuses([&](integer::Model& m) { conv(m).options.stride = {2, 2}; }, "gives");
  refuses([&](integer::Model& m) { conv(m).options.dilation = {1 << 17, 1}; }, "expected 1 to 65536");
  refuses([](integer::Model& m) { m.mean = {0.5f, 0.5f, 0.5f}; }, "got 3 means and 0 deviations");
  refuses([](integer::Model& m) { m.mean = m.deviation = {0.5f, 0.5f}; }, "none, one or 3");
  refuses([](integer::Model& m) { m.mean = {0}, m.deviation = {0}; }, "the deviation positive");
  refuses([](integer::Model& m) { m.mean = {NAN}, m.deviation = {1}; }, "expected finite numbers");
  refuses([](integer::Model& m) { m.class_names = {"a"}; }, "got 1 class names, expected none or 10");
  refuses(
      [&](integer::Model& m) {
        codes(m).alternatives.assign(integer::max_alternatives + 1, {codes(m).bits, codes(m).grid});
        codes(m).choice = 0;
      },
      "expected up to 256");
  integer::Model named = good;
  named.mean = named.deviation = {0.5f};
  named.class_names.assign(10, "a");
  CHECK_NOTHROW(integer::validate(named));
}

TEST_CASE("a padding may not ask for memory that the values do not take") {
  const auto padded = [](int64_t side) {
    return one_convolution({1, 1, 1}, Array::full({1, 2, 2, 1}, 1, DType::s8),
                           {{1 << 16, 1 << 16}, {side, side, side, side}, {side, side}, 1});
  };
  CHECK_NOTHROW(integer::validate(padded(8000)));
  CHECK_THROWS_WITH_AS(integer::validate(padded(65'535)),
                       doctest::Contains("with a padding to (131071,131071,1)"), argument_error);
}

TEST_CASE("a model is refused for the sums of its weights, as a session would, and not for their number") {
  constexpr int64_t taps = 80'000;  // 80,000 * 255 * 128 > 2^31
  const auto wide = [](int weight) {
    return one_convolution({4, 4, taps / 16}, Array::full({1, 4, 4, taps / 16}, weight, DType::s8), {});
  };
  const integer::Model good = wide(-1);
  integer::Session session(good, 1);
  const Array images = Array::full({1, 4, 4, taps / 16}, 255);
  CHECK(session.run(images).to_vector() == std::vector<double>{-255.0 * taps});
  CHECK_THROWS_WITH_AS(integer::validate(wide(127)), doctest::Contains("may pass 2^31"), argument_error);
}

TEST_CASE("what fuzzers found, and the model they begin with: a model or a format_error") {
  int files = 0, models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(CORPUS)) {
    INFO(entry.path().string());
    ++files;
    try {
      integer::load(entry.path().string());
      ++models;
    } catch (const format_error&) {
    }
  }
  CHECK(files > 1);
  CHECK(models > 0);
}
