// Measures: images a second, time of a step, memory, and with --profile where the time goes.
//
//     build/examples/bench train --model resnet20 --batch 128 --dtype bf16 --threads 2 --json
//     build/examples/bench infer --model resnet50 --size 224 --classes 1000 --batch 32
//     build/examples/bench load --dataset cifar10 --cutout 8
#include <sys/resource.h>

#include <algorithm>

#include "../../kernels/error.h"
#include "../../kernels/threads.h"
#include "bench.h"

namespace stairgrad::examples {
namespace {
const Stopwatch began;
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
    if (what == "infer") return bench_infer(argc - 1, argv + 1);
    if (what == "load") return bench_load(argc - 1, argv + 1);
    stairgrad::check(what == "--help" || what == "-h", "got \"", what,
                     "\", expected what to measure: bench train, infer or load");
    std::printf(
        "Measures this machine. Each has its own --help:\n"
        "  bench train   a step of training\n"
        "  bench infer   a network in evaluation\n"
        "  bench load    reading and changing pictures\n");
    return 0;
  });
}
