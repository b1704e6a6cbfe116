// bench infer: a network in evaluation on random pictures, in floats or lowered to integers.
#include <algorithm>
#include <filesystem>
#include <iostream>

#include "../../autograd/recorder.h"
#include "../../quant/integer/model_file.h"
#include "../../quant/integer/session.h"
#include "../../quant/lower.h"
#include "../../quant/sites.h"
#include "../common/statistics.h"
#include "../common/table.h"
#include "bench.h"

namespace stairgrad::examples {
namespace {

namespace integer = quant::integer;

struct Settings {
  NetworkOptions network;
  int w_bits = 8, a_bits = 8;
  std::string skip = "u8", file;

  Value parse(int argc, char** argv) {
    network.batch = 32;
    Options options(
        "bench infer", "Measures a network in evaluation on random pictures.",
        {"bench infer --model resnet20 --batch 1",
         "bench infer --model resnet50 --size 224 --classes 1000 --batch 32 --dtype int8 --json"});
    network.add_to(options, {"f32", "bf16", "int8"});
    options.add("--wbits", w_bits, "with --dtype int8: bits of weights").between(1, 8);
    options.add("--abits", a_bits, "with --dtype int8: bits of activations").between(1, 8);
    options.add("--skip", skip, "with --dtype int8: what residual adds read")
        .one_of({"u8", "shared", "float"});
    options.add(
        "--file", file,
        "with --dtype int8: the integer model, written if it is not there; from then on start and memory are "
        "those of a deployed program");
    options.parse(argc, argv);
    return options.values();
  }
};

// The network with initial values, its ranges from random pictures: for measuring time, not accuracy.
integer::Model lowered(const Settings& s) {
  const auto network = s.network.make();
  network->eval();
  quant::attach_sites(*network, quant::uniform_policy(*network, {s.w_bits, s.a_bits, "ste", "channel"},
                                                      quant::parse_skip(s.skip), quant::Ends::eight));
  quant::calibrate(*network, random_normal(network->input_shape(2), Philox(1)));
  return quant::lower(
      trace([&](const Tensors& in) { return (*network)(in[0]); }, {Array::zeros(network->input_shape())}));
}

integer::Model integer_model(const Settings& s) {
  if (s.file.empty()) return lowered(s);
  if (!std::filesystem::exists(s.file)) integer::save(lowered(s), s.file);
  integer::Model model = integer::load(s.file);
  const Shape &image = model.values[static_cast<size_t>(model.input)].shape,
              &logits = model.values[static_cast<size_t>(model.output)].shape;
  check(image[0] == s.network.size && logits.size() == s.network.classes, "--file ", s.file,
        ": it takes pictures of ", image[0], " pixels a side and has ", logits.size(), " classes, expected ",
        s.network.size, " and ", s.network.classes, "; remove it, or change --size and --classes");
  return model;
}

// What a run is, and the bytes that lie between its layers.
struct Prepared {
  std::function<void()> run;
  int64_t buffer_bytes = 0;
};

Prepared prepare(const Settings& s) {
  if (s.network.dtype == "int8") {
    set_threads(s.network.threads);
    const integer::Model model = integer_model(s);
    const auto session = std::make_shared<integer::Session>(model, s.network.batch);
    const Shape image = model.values[static_cast<size_t>(model.input)].shape;
    const Array images = random_normal({s.network.batch, image[0], image[1], image[2]}, Philox(1));
    return {[=] { session->run(images); }, session->buffer_bytes()};
  }
  const std::shared_ptr<nn::Model> network = s.network.make();
  network->eval();
  const Tensor images = s.network.images(*network);
  return {[=] {
    const NoGrad no_grad;
    (*network)(images);
  }};
}

}  // namespace

int bench_infer(int argc, char** argv) {
  Settings s;
  const Value values = s.parse(argc, argv);
  const Prepared prepared = prepare(s);
  prepared.run();
  const double first = since_start();
  prepared.run();
  const std::vector<double> times = repeat(prepared.run, s.network.seconds);
  const Spread seconds = spread_of(times), rate = rate_of(s.network.batch, seconds);
  const double p50 = 1e3 * percentile(times, 0.5), p95 = 1e3 * percentile(times, 0.95),
               p99 = 1e3 * percentile(times, 0.99);
  if (s.network.json) {
    Value all = described(values);
    all.set("images_per_second", rate.value());
    all.set("latency_ms", Value::Group{{"median", 1e3 * seconds.median},
                                       {"min", 1e3 * seconds.min},
                                       {"max", 1e3 * seconds.max},
                                       {"p50", p50},
                                       {"p95", p95},
                                       {"p99", p99}});
    all.set("first_answer_ms", 1e3 * first);
    all.set("peak_bytes", resident_peak());
    if (prepared.buffer_bytes > 0) all.set("buffer_bytes", prepared.buffer_bytes);
    std::cout << all.json() << "\n";
    return 0;
  }
  std::cout << (s.file.empty() ? s.network.model : s.file) << ", " << s.network.dtype << ", batch "
            << s.network.batch << ", " << threads() << " threads: " << fixed(rate.median, 1) << " images/s ("
            << fixed(rate.min, 1) << " to " << fixed(rate.max, 1) << "), ms a batch: p50 " << fixed(p50, 3)
            << ", p95 " << fixed(p95, 3) << ", p99 " << fixed(p99, 3) << "; resident "
            << bytes(static_cast<double>(resident_peak())) << ", first answer after " << fixed(1e3 * first, 0)
            << " ms\n";
  return 0;
}

}  // namespace stairgrad::examples
