// Measures: images a second, time of a step, memory, and with --profile where the time goes.
//
//     build/examples/bench train --model resnet20 --batch 128 --dtype bf16 --threads 2 --json
//     build/examples/bench infer --model resnet50 --size 224 --classes 1000 --batch 32
//     build/examples/bench load --dataset cifar10 --cutout 8
#include <sys/resource.h>

#include <algorithm>

#include "../../kernels/error.h"
#include "bench.h"

namespace stairgrad::examples {
namespace {
const Stopwatch began;
}

void NetworkOptions::add_to(Options& o, const std::vector<std::string>& dtypes) {
  o.add("--model", model, "network of the zoo").one_of(nn::model_names());
  o.add("--batch", batch, "images at once").between(1, 65'536);
  o.add("--size", size, "side of the pictures").between(1, 4096);
  o.add("--classes", classes, "classes of the pictures").between(1, 100'000);
  o.add("--width", width, "multiplies the channels of the network").between(0.01, 100);
  o.add("--dtype", dtype, "type of the activations").one_of(dtypes);
  o.add("--threads", threads, "threads to compute with").between(1, 1024);
  o.add("--seconds", seconds, "how long to measure").between(0.1, 3600);
  o.add("--json", json, "print one JSON object");
}

std::unique_ptr<nn::Model> NetworkOptions::make() const {
  set_threads(threads);
  auto network =
      nn::make_model(model, {.in_channels = 3, .image_size = size, .classes = classes, .width = width});
  nn::initialise(*network, 0);
  return network;
}

Array NetworkOptions::images(const nn::Model& network) const {
  return cast(random_normal(network.input_shape(batch), Philox(1)),
              dtype == "bf16" ? DType::bf16 : DType::f32);
}

double since_start() { return began.seconds(); }

int64_t resident_peak() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * int64_t{1024};
}

Spread spread_of(std::vector<double> x) {
  std::ranges::sort(x);
  return {x[x.size() / 2], x.front(), x.back()};
}

Spread rate_of(int64_t images, const Spread& seconds) {
  const auto n = static_cast<double>(images);
  return {n / seconds.median, n / seconds.max, n / seconds.min};
}

std::vector<double> repeat(const std::function<void()>& body, double seconds) {
  std::vector<double> times;
  for (const Stopwatch all; times.size() < 5 || all.seconds() < seconds;) {
    const Stopwatch one;
    body();
    times.push_back(one.seconds());
  }
  return times;
}

Value described(const Value& setting) {
  const Machine machine = this_machine();
  Value all = Value::Group{};
  all.set("setting", setting);
  all.set("threads", threads());
  all.set("resident_bytes", resident_peak());
  all.set("cpu", machine.cpu_value());
  all.set("versions", machine.versions());
  return all;
}

}  // namespace stairgrad::examples

int main(int argc, char** argv) {
  using namespace stairgrad::examples;
  return run_program([&] {
    const std::string what = argc > 1 ? argv[1] : "";
    if (what == "train") return bench_train(argc - 1, argv + 1);
    if (what == "qat") return bench_qat(argc - 1, argv + 1);
    if (what == "infer") return bench_infer(argc - 1, argv + 1);
    if (what == "load") return bench_load(argc - 1, argv + 1);
    stairgrad::check(what == "--help" || what == "-h", "got \"", what,
                     "\", expected what to measure: bench train, qat, infer or load");
    std::printf(
        "Measures this machine. Each has its own --help:\n"
        "  bench train   a step of training\n"
        "  bench qat     the same with quantizers\n"
        "  bench infer   a network in evaluation\n"
        "  bench load    reading and changing pictures\n");
    return 0;
  });
}
