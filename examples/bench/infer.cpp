// bench infer: a network in evaluation on random pictures.
#include <algorithm>
#include <iostream>

#include "../../autograd/recorder.h"
#include "../common/table.h"
#include "bench.h"

namespace stairgrad::examples {
namespace {

double percentile(std::vector<double> x, double share) {
  std::ranges::sort(x);
  return x[std::min(x.size() - 1, static_cast<size_t>(share * static_cast<double>(x.size())))];
}

}  // namespace

int bench_infer(int argc, char** argv) {
  NetworkOptions o;
  o.batch = 32;
  Options options("bench infer", "Measures a network in evaluation on random pictures.",
                  {"bench infer --model resnet20 --batch 1",
                   "bench infer --model resnet50 --size 224 --classes 1000 --batch 32 --json"});
  o.add_to(options);
  options.parse(argc, argv);

  const auto network = o.make();
  network->eval();
  const NoGrad no_grad;
  const Tensor images = o.images(*network);
  const auto run = [&] { (*network)(images); };
  run();
  const double first = since_start();
  run();
  const std::vector<double> times = repeat(run, o.seconds);
  const Spread rate = rate_of(o.batch, spread_of(times));
  const double p50 = 1e3 * percentile(times, 0.5), p95 = 1e3 * percentile(times, 0.95),
               p99 = 1e3 * percentile(times, 0.99);
  if (o.json) {
    Value all = described(options.values());
    all.set("images_per_second", rate.value());
    all.set("latency_ms", Value::Group{{"p50", p50}, {"p95", p95}, {"p99", p99}});
    all.set("first_answer_ms", 1e3 * first);
    std::cout << all.json() << "\n";
    return 0;
  }
  std::cout << o.model << ", " << o.dtype << ", batch " << o.batch << ", " << threads()
            << " threads: " << fixed(rate.median, 1) << " images/s (" << fixed(rate.min, 1) << " to "
            << fixed(rate.max, 1) << "), ms a batch: p50 " << fixed(p50, 3) << ", p95 " << fixed(p95, 3)
            << ", p99 " << fixed(p99, 3) << "; resident " << bytes(static_cast<double>(resident_peak()))
            << ", first answer after " << fixed(1e3 * first, 0) << " ms\n";
  return 0;
}

}  // namespace stairgrad::examples
