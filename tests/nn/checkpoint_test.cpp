// Files of models and of training runs.
#include "../../nn/checkpoint.h"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <limits>

#include "../../data/formats/safetensors.h"
#include "../../nn/average.h"
#include "../folder.h"
#include "../message.h"

using namespace stairgrad;
using namespace stairgrad::nn;

namespace {

std::map<std::string, std::vector<double>> values(const State& state) {
  std::map<std::string, std::vector<double>> all;
  for (const auto& [name, array] : state) all[name] = array.to_vector();
  return all;
}

}  // namespace

TEST_CASE("a model file makes the model again") {
  const Folder folder;
  const ModelInfo info{
      "resnet8b", {.in_channels = 1, .image_size = 28, .classes = 7, .width = 0.25}, {{"seed", "5"}}};
  const auto model = make_model(info.model, info.options);
  initialise(*model, 5);
  save_model(folder / "m", *model, info);

  const ModelInfo read = read_model_info(folder / "m");
  CHECK(read.model == info.model);
  CHECK(read.notes == info.notes);
  CHECK(read.options.width == 0.25);
  const auto again = load_model(folder / "m");
  CHECK(again->input_shape() == model->input_shape());
  CHECK(values(again->state()) == values(model->state()));
}

TEST_CASE("weights of another network are refused with every name, or taken in part") {
  const Folder folder;
  const auto model = make_model("resnet8", {.classes = 10}), other = make_model("resnet8", {.classes = 4});
  initialise(*model, 1);
  save_model(folder / "m", *model, {"resnet8", {}, {}});
  const auto before = values(other->state());
  const std::string message = message_of<format_error>([&] { load_weights(folder / "m", *other); });
  CHECK(contains(message, folder / "m"));
  CHECK(contains(message, "linear.weight (got (10,64), expected (4,64))"));
  CHECK(contains(message, "linear.bias (got (10), expected (4))"));
  CHECK(values(other->state()) == before);

  CHECK(load_weights(folder / "m", *other, /*partial=*/true).misshaped.size() == 2);
  CHECK(other->state().at("conv1.weight").to_vector() == model->state().at("conv1.weight").to_vector());
}

TEST_CASE("files that are no model files are refused") {
  const Folder folder;
  const auto model = make_model("resnet8");
  const auto write = [&](std::map<std::string, std::string> metadata) {
    data::save_safetensors(folder / "m", {model->state(), std::move(metadata)});
    return message_of<format_error>([&] { load_model(folder / "m"); });
  };
  const std::string options = R"({"classes":10,"image_size":32,"in_channels":3,"width":1.0})";
  std::map<std::string, std::string> good = {{"stairgrad.format", "stairgrad.model"},
                                             {"stairgrad.version", "1"},
                                             {"stairgrad.model", "resnet8"},
                                             {"stairgrad.options", options}};
  CHECK(write(good) == "");
  const auto with = [&](const char* key, const char* value) {
    auto metadata = good;
    metadata[key] = value;
    return write(metadata);
  };
  CHECK(contains(write({}), "no entry stairgrad.format"));
  CHECK(contains(with("stairgrad.format", "stairgrad.checkpoint"), "is a stairgrad.checkpoint file"));
  CHECK(contains(with("stairgrad.version", "2"), "version 2"));
  CHECK(contains(with("stairgrad.model", "vgg"), "vgg"));
  for (const char* bad :
       {"{", "[]", "{}", R"({"classes":-1,"image_size":32,"in_channels":3,"width":1})",
        R"({"classes":10,"image_size":32,"in_channels":3,"width":0})",
        R"({"classes":10,"image_size":32.5,"in_channels":3,"width":1})",
        R"({"classes":10,"image_size":32,"in_channels":3,"width":1,"style":{"folded":true}})"}) {
    CAPTURE(bad);
    CHECK(with("stairgrad.options", bad) != "");
  }
  CHECK(contains(with("stairgrad.options", R"({"classes":0,"image_size":32,"in_channels":3,"width":1})"),
                 "stairgrad.options: 'classes': got 0, expected an integer in 1 .. 1000000"));
  CHECK(contains(with("stairgrad.options",
                      R"({"classes":10,"image_size":32,"in_channels":3,"width":1,"style":{"folded":1}})"),
                 "stairgrad.options: style: 'folded': got 1, expected true or false"));
  CHECK_THROWS_AS(save_model(folder / "m", *model, {"resnet8", {}, {{"layout", "oihw"}}}), argument_error);
}

TEST_CASE("a small file that describes a huge network is refused before memory is taken for it") {
  const Folder folder;
  const auto peak = [] {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss / 1024;  // MiB
  };
  for (const std::string name : {"resnet8", "resnet50", "vgg_small", "mobilenet_v2"}) {
    CAPTURE(name);
    data::save_safetensors(
        folder / "m",
        {{},
         {{"stairgrad.format", "stairgrad.model"},
          {"stairgrad.version", "1"},
          {"stairgrad.model", name},
          {"stairgrad.options", R"({"classes":1000000,"image_size":32,"in_channels":3,"width":100})"}}});
    const auto before = peak();
    const std::string message = message_of<format_error>([&] { load_model(folder / "m"); });
    CHECK_MESSAGE(contains(message, "elements, expected at most so many"), message);
    CHECK(peak() - before < 200);
  }
}

TEST_CASE("a checkpoint makes the round trip") {
  const Folder folder;
  const auto from = make_model("resnet8", {.width = 0.25}), to = make_model("resnet8", {.width = 0.25});
  initialise(*from, 1);
  initialise(*to, 2);
  const Checkpoint saved{
      {{"model", from->state()}, {"empty", {}}}, {{"step", -3}, {"epoch", 1}}, {{"name", "r"}}};
  save_checkpoint(folder / "c", saved);
  Checkpoint current{{{"model", to->state()}, {"empty", {}}}, {{"step", 0}, {"epoch", 0}}, {{"name", "r"}}};
  restore(load_checkpoint(folder / "c"), current);
  CHECK(values(to->state()) == values(from->state()));
  CHECK(current.counters == saved.counters);
  CHECK_THROWS_AS(load_weights(folder / "c", *to), format_error);
}

TEST_CASE("a bit that changed in the tensors of a file is noticed") {
  const Folder folder;
  const auto model = make_model("resnet8", {.width = 0.25});
  initialise(*model, 1);
  const std::string path = folder / "f";
  const auto load = [&] { load_checkpoint(path); };
  const auto damaged = [&](size_t from_end, const auto& read) {
    data::Bytes bytes = data::read_file(path);
    bytes[bytes.size() - from_end] ^= 1;  // the low bit of an element: any value is possible there
    data::atomic_write(path, bytes);
    return message_of<format_error>(read);
  };
  for (const size_t from_end : {4, 4000}) {
    save_checkpoint(path, {{{"model", model->state()}}, {{"step", 1}}, {}});
    CHECK(message_of<format_error>(load) == "");
    const std::string message = damaged(from_end, load);
    CHECK_MESSAGE(contains(message, path), message);
    CHECK_MESSAGE(contains(message, "the file is damaged"), message);

    save_model(path, *model, {"resnet8", {.width = 0.25}, {}});
    CHECK(message_of<format_error>([&] { load_model(path); }) == "");
    CHECK(contains(damaged(from_end, [&] { load_model(path); }), "the file is damaged"));
    CHECK_THROWS_AS(load_weights(path, *model), format_error);
  }

  // Of the same size, under another name.
  save_checkpoint(path, {{{"a", {{"x", Array::zeros({3})}}}}, {}, {}});
  data::SafeTensors file = data::load_safetensors(path);
  file.tensors["a/y"] = file.tensors.at("a/x");
  file.tensors.erase("a/x");
  data::save_safetensors(path, file);
  CHECK(contains(message_of<format_error>(load), "the file is damaged"));
  file.metadata.erase("stairgrad.checksum");  // as earlier builds wrote it
  data::save_safetensors(path, file);
  CHECK(message_of<format_error>(load) == "");
}

TEST_CASE("a model file with weights that are not finite is refused, unless they are wanted") {
  const Folder folder;
  const std::string path = folder / "m";
  const auto model = make_model("resnet8", {.width = 0.25});
  initialise(*model, 1);
  model->state().at("linear.bias").data<float>()[3] = std::numeric_limits<float>::quiet_NaN();
  save_model(path, *model, {"resnet8", {.width = 0.25}, {}});
  const auto other = make_model("resnet8", {.width = 0.25});
  for (const std::string& message : {message_of<format_error>([&] { load_model(path); }),
                                     message_of<format_error>([&] { load_weights(path, *other); }),
                                     message_of<format_error>([&] { load_weights(path, *other, true); })}) {
    CHECK(contains(message, path));
    CHECK(contains(message, "1 of its values is NaN or infinite, the first in linear.bias"));
  }
  CHECK(other->state().at("conv1.weight").to_vector()[0] == 0);  // nothing was loaded
  const auto loaded = load_model(path, NotFinite::accept);
  CHECK(std::isnan(loaded->state().at("linear.bias").to_vector()[3]));
  CHECK(load_weights(path, *other, false, NotFinite::accept).none());
  CHECK(read_model_info(path).model == "resnet8");
}

TEST_CASE("counters that no 64 bits hold are refused") {
  const Folder folder;
  const std::string path = folder / "c";
  const auto with = [&](const char* step) {
    data::save_safetensors(path, {{},
                                  {{"stairgrad.format", "stairgrad.checkpoint"},
                                   {"stairgrad.version", "1"},
                                   {"stairgrad.counters", text("{\"step\":", step, '}')}}});
    return message_of<format_error>([&] { load_checkpoint(path); });
  };
  CHECK(with("9223372036854775807") == "");
  CHECK(load_checkpoint(path).counters.at("step") == INT64_MAX);
  CHECK(with("-9223372036854775808") == "");
  CHECK(load_checkpoint(path).counters.at("step") == INT64_MIN);
  for (const char* bad : {"9223372036854775808", "18446744073709551615", "1e30", "0.5", "\"1\"", "null"})
    CHECK_MESSAGE(contains(with(bad), "expected a whole number of 64 bits"), bad);
}

TEST_CASE("kill -9 while a checkpoint is saved, 200 times: the old or the new one is there, whole") {
  const Folder folder;
  const std::string path = folder / "c";
  constexpr int64_t size = 250'000;
  const auto generation = [](int64_t number) {
    const Array values = Array::full({size}, static_cast<double>(number));
    return Checkpoint{
        {{"model", {{"weight", values}}}, {"optimiser", {{"weight", values}}}}, {{"generation", number}}, {}};
  };
  // The moments of the kills spread over the time that three checkpoints take on this disk.
  const auto begin = std::chrono::steady_clock::now();
  save_checkpoint(path, generation(0));
  const std::chrono::duration<double, std::micro> one = std::chrono::steady_clock::now() - begin;
  const auto window = static_cast<uint64_t>(std::clamp(3 * one.count(), 1000.0, 500'000.0));
  const Philox rng(12);
  int64_t now = 0, replaced = 0, in_mid_write = 0;
  for (uint64_t round = 0; round < 200; ++round) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0)  // saves generation after generation until it is killed
      for (int64_t next = now + 1;; ++next) save_checkpoint(path, generation(next));
    ::usleep(static_cast<useconds_t>(rng.below(round, window)));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);

    const Checkpoint found = load_checkpoint(path);
    const int64_t number = found.counters.at("generation");
    REQUIRE(number >= now);
    for (const char* part : {"model", "optimiser"}) {
      const std::vector<double> values = found.parts.at(part).at("weight").to_vector();
      REQUIRE(values == std::vector<double>(size, static_cast<double>(number)));
    }
    replaced += number != now;
    now = number;
    for (const auto& entry : std::filesystem::directory_iterator(folder.path))
      if (entry.path().extension() == ".part") in_mid_write += std::filesystem::remove(entry.path());
  }
  MESSAGE(replaced, " kills found a new checkpoint, ", in_mid_write, " hit in mid-write");
  CHECK(replaced > 0);
  CHECK(in_mid_write > 0);
}

TEST_CASE("a checkpoint of another run is refused with every difference") {
  const auto model = make_model("resnet8", {.width = 0.25});
  initialise(*model, 1);
  const auto before = values(model->state());
  State changed = model->state();
  changed.erase("conv1.weight");
  changed["linear.bias"] = Array::zeros({10}, DType::f64);
  const Checkpoint saved{
      {{"model", changed}, {"average", {{"x", Array::zeros({1})}}}}, {}, {{"name", "r"}, {"jitter", "1"}}};
  Checkpoint current{{{"model", model->state()}}, {{"step", 7}}, {{"name", "s"}, {"seed", "1"}}};
  const std::string message = message_of<argument_error>([&] { restore(saved, current); });
  for (const char* part : {"missing: conv1.weight", "linear.bias (got f64(10), expected f32(10))",
                           "a part average", "no counter step", "its jitter is 1, that of this run nothing",
                           "its name is r, that of this run s", "its seed is nothing"})
    CHECK_MESSAGE(contains(message, part), part, " is not in: ", message);
  CHECK(values(model->state()) == before);
  CHECK(current.counters.at("step") == 7);
}

TEST_CASE("the moving average follows, is swapped in and out, and is part of a checkpoint") {
  const auto model = make_model("resnet8", {.width = 0.25});
  initialise(*model, 1);
  WeightAverage average(*model, 0.75);
  Array bias = model->state().at("linear.bias");
  double expected = 0;
  for (int t = 0; t < 6; ++t) {
    bias.assign(Array::full({10}, t + 1));
    average.update();
    const double decay = std::min(0.75, (1.0 + t) / (10.0 + t));
    expected = decay * expected + (1 - decay) * (t + 1);
  }
  average.swap();
  CHECK(bias.to_vector()[9] == doctest::Approx(expected));
  average.swap();
  CHECK(bias.to_vector()[9] == 6);

  WeightAverage other(*model, 0.75);
  Checkpoint current{{{"average", other.state()}}, {}, {}};
  restore({{{"average", average.state()}}, {}, {}}, current);
  other.update();
  average.update();
  CHECK(values(other.state()) == values(average.state()));
}
