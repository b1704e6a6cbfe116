// bench infer: a network in evaluation on random pictures.
#include <algorithm>
#include <iostream>

#include "../../autograd/recorder.h"
#include "../../kernels/threads.h"
#include "../../nn/model.h"
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
  std::string model = "resnet20", dtype = "f32";
  int64_t batch = 32, size = 32, classes = 10;
  int thread_count = threads();
  double width = 1, seconds = 10;
  bool json = false;
  Options options("bench infer", "Measures a network in evaluation on random pictures.",
                  {"bench infer --model resnet20 --batch 1",
                   "bench infer --model resnet50 --size 224 --classes 1000 --batch 32 --json"});
  options.add("--model", model, "network of the zoo").one_of(nn::model_names());
  options.add("--batch", batch, "images at once").between(1, 65'536);
  options.add("--size", size, "side of the pictures").between(1, 4096);
  options.add("--classes", classes, "classes of the pictures").between(1, 100'000);
  options.add("--width", width, "multiplies the channels of the network").between(0.01, 100);
  options.add("--dtype", dtype, "type of the activations").one_of({"f32", "bf16"});
  options.add("--threads", thread_count, "threads to compute with").between(1, 1024);
  options.add("--seconds", seconds, "how long to measure").between(0.1, 3600);
  options.add("--json", json, "print one JSON object");
  options.parse(argc, argv);
  set_threads(thread_count);

  const auto network =
      nn::make_model(model, {.in_channels = 3, .image_size = size, .classes = classes, .width = width});
  nn::initialise(*network, 0);
  network->eval();
  const NoGrad no_grad;
  const Tensor images =
      cast(random_normal(network->input_shape(batch), Philox(1)), dtype == "bf16" ? DType::bf16 : DType::f32);
  const auto run = [&] { (*network)(images); };
  run();
  const double first = since_start();
  run();
  const std::vector<double> times = repeat(run, seconds);
  const Spread rate = rate_of(batch, spread_of(times));
  const double p50 = 1e3 * percentile(times, 0.5), p95 = 1e3 * percentile(times, 0.95),
               p99 = 1e3 * percentile(times, 0.99);
  if (json) {
    Value all = described(options.values());
    all.set("images_per_second", rate.value());
    all.set("latency_ms", Value::Group{{"p50", p50}, {"p95", p95}, {"p99", p99}});
    all.set("first_answer_ms", 1e3 * first);
    std::cout << all.json() << "\n";
    return 0;
  }
  std::cout << model << ", " << dtype << ", batch " << batch << ", " << threads()
            << " threads: " << fixed(rate.median, 1) << " images/s (" << fixed(rate.min, 1) << " to "
            << fixed(rate.max, 1) << "), ms a batch: p50 " << fixed(p50, 3) << ", p95 " << fixed(p95, 3)
            << ", p99 " << fixed(p99, 3) << "; resident " << bytes(static_cast<double>(resident_peak()))
            << ", first answer after " << fixed(1e3 * first, 0) << " ms\n";
  return 0;
}

}  // namespace stairgrad::examples
