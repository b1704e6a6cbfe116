// bench train, bench qat: a step of training on random pictures, in floats or with quantizers.
#include <algorithm>
#include <iostream>
#include <map>
#include <optional>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../autograd/profile.h"
#include "../../data/formats/file.h"
#include "../../kernels/allocator.h"
#include "../../kernels/threads.h"
#include "../../nn/attribution.h"
#include "../../nn/model.h"
#include "../../quant/oscillation.h"
#include "../common/quantization.h"
#include "../common/table.h"
#include "../common/training.h"
#include "bench.h"

namespace stairgrad::examples {
namespace {

struct Settings {
  NetworkOptions network;
  QuantizationOptions quantization;
  bool quantized = false;
  std::string trace, attribution;
  bool profile = false;

  Value parse_float(int argc, char** argv) {
    Options options("bench train", "Measures a step of training on random pictures.",
                    {"bench train --model resnet20 --batch 128 --dtype bf16 --threads 2 --json",
                     "bench train --model resnet20 --profile --trace step.json"});
    return parse(options, argc, argv);
  }
  Value parse_quantized(int argc, char** argv) {
    Options options("bench qat", "Measures a step of quantization-aware training on random pictures.",
                    {"bench qat --model resnet20 --quantizer lsq --wbits 4 --abits 4 --dtype bf16 "
                     "--integer-forward"});
    quantized = true;
    quantization.add_to(options);
    return parse(options, argc, argv);
  }

 private:
  Value parse(Options& options, int argc, char** argv) {
    network.add_to(options);
    options.add("--attribution", attribution,
                "adds a loss on the Grad-CAM at the end of this block, such as layer2.2: second order");
    options.add("--profile", profile, "print the time of every op");
    options.add("--trace", trace, "file for one step in Chrome's trace format");
    options.parse(argc, argv);
    return options.values();
  }
};

/// A step of training on random pictures.
class TrainingStep {
 public:
  explicit TrainingStep(const Settings& s)
      : model_(s.network.make()),
        images_(s.network.images(*model_)),
        labels_({s.network.batch}, DType::s32),
        sites_(s.quantized ? quantized(s.quantization) : nullptr),
        optimiser_(sites_ ? quantized_groups(*model_, *sites_, 5e-4) : decayed_groups(*model_, 5e-4), 0.9,
                   /*nesterov=*/true) {
    if (sites_) oscillations_.emplace(*model_, *sites_);
    if (!s.attribution.empty()) attend_to(s.attribution);
    for (int64_t i = 0; i < s.network.batch; ++i)
      labels_.data<int32_t>()[i] = static_cast<int32_t>(i % s.network.classes);
  }

  void run() {
    run([](const char*, auto&& part) { part(); });
  }
  void run(Profile& profile) {
    run([&](const char* name, auto&& part) { profile.span(name, part); });
  }

 private:
  std::shared_ptr<quant::Sites> quantized(const QuantizationOptions& options) {
    const auto sites = options.attach(*model_, options.policy_for(*model_));
    quant::calibrate(*model_, cast(images_.value(), DType::f32));
    return sites;
  }

  // The Grad-CAM after this block joins the loss.
  void attend_to(const std::string& name) {
    const auto& blocks = model_->blocks();
    std::string names;
    for (const nn::Block& block : blocks) names += ' ' + block.name;
    const auto found = std::ranges::find(blocks, name, &nn::Block::name);
    check(found != blocks.end(), "--attribution: got ", name, ", expected one of", names);
    attended_ = static_cast<size_t>(found - blocks.begin()) + 1;
    classes_.resize(static_cast<size_t>(labels_.size()));
  }

  Tensor loss() {
    const size_t end = model_->blocks().size();
    const Tensor features = model_->forward(images_, 0, attended_);
    const Tensor logits = cast(model_->forward(features, attended_, end), DType::f32);
    const Tensor task = cross_entropy(logits, labels_);
    if (attended_ == 0) return task;
    const Tensor map = cast(nn::grad_cam(features, logits, classes_, /*create_graph=*/true), DType::f32);
    if (!target_.has_value()) target_ = random_uniform(map.shape(), Philox(2));
    return task + mse(l2_normalise(map, {1, 2}), target_);
  }

  // `part` runs a named part of the step.
  template <class Part>
  void run(Part&& part) {
    Tensor loss;
    Tensors gradients;
    part("forward", [&] { loss = this->loss(); });
    part("backward", [&] { gradients = grad({loss}, optimiser_.parameters()); });
    part("optimiser", [&] {
      optimiser_.step(gradients, 1e-3);
      if (sites_) sites_->project();
    });
    if (oscillations_) part("oscillations", [&] { oscillations_->update(); });
    part("release", [&] {
      loss = {};
      gradients.clear();
    });
  }

  std::unique_ptr<nn::Model> model_;
  Tensor images_;
  Array labels_;
  std::shared_ptr<quant::Sites> sites_;
  nn::SGD optimiser_;
  std::optional<quant::OscillationCounter> oscillations_;  // as qat counts them
  size_t attended_ = 0;                                    // blocks before the attribution, 0: none
  std::vector<int32_t> classes_;
  Array target_;
};

struct Row {
  std::string name;
  int64_t calls = 0;
  double seconds = 0, bytes = 0;
};

/// Time of one step by op and by part of the step, the longest first.
std::vector<Row> rows_of(const std::vector<Profile::Event>& events, double steps) {
  std::map<std::string, Row> by_name;
  for (const Profile::Event& e : events) {
    Row& row = by_name[e.name];
    row.name = e.name;
    ++row.calls;
    row.seconds += e.seconds / steps;
    row.bytes += static_cast<double>(e.bytes) / steps;
  }
  std::vector<Row> rows;
  for (auto& [name, row] : by_name) {
    row.calls = static_cast<int64_t>(static_cast<double>(row.calls) / steps + 0.5);
    rows.push_back(row);
  }
  std::ranges::sort(rows, std::greater(), &Row::seconds);
  return rows;
}

std::string profile_table(const std::vector<Row>& ops, const std::vector<Row>& parts) {
  double in_ops = 0, whole = 0;
  for (const Row& row : ops) in_ops += row.seconds;
  for (const Row& row : parts) whole += row.seconds;
  Table table({"op", "calls", "ms a step", "share", "GB/s"});
  for (const Row& row : ops)
    table.row({row.name, count(row.calls), fixed(1e3 * row.seconds, 3), percent(100 * row.seconds / whole, 1),
               fixed(row.bytes / row.seconds / 1e9, 1)});
  table.row({"all ops", "", fixed(1e3 * in_ops, 3), percent(100 * in_ops / whole, 1), ""});
  for (const Row& row : parts)
    table.row(
        {"part: " + row.name, "", fixed(1e3 * row.seconds, 3), percent(100 * row.seconds / whole, 1), ""});
  table.row({"step", "", fixed(1e3 * whole, 3), percent(100, 1), ""});
  return table.text();
}

int measure(const Settings& s, const Value& setting) {
  TrainingStep step(s);
  step.run();
  const double first_step = since_start();
  for (int i = 0; i < 2; ++i) step.run();  // the allocator and the caches fill up
  reset_peak();
  const std::vector<double> times = repeat([&] { step.run(); }, s.network.seconds);
  const size_t peak = memory_stats().peak;

  std::vector<Row> ops, parts;
  if (s.profile || !s.trace.empty()) {
    Profile profile;
    const size_t steps = repeat([&] { step.run(profile); }, s.profile ? s.network.seconds : 0).size();
    ops = rows_of(profile.ops(), static_cast<double>(steps));
    parts = rows_of(profile.spans(), static_cast<double>(steps));
  }
  if (!s.trace.empty()) {
    Profile profile;
    step.run(profile);
    data::atomic_write(s.trace, profile.chrome_trace());
  }

  const Spread seconds = spread_of(times);
  const Spread rate = rate_of(s.network.batch, seconds);
  const Spread latency{1e3 * seconds.median, 1e3 * seconds.min, 1e3 * seconds.max};
  if (!s.network.json) {
    std::cout << s.network.model << ", " << s.network.dtype << ", batch " << s.network.batch << ", "
              << threads() << " threads: " << fixed(rate.median, 1) << " images/s (" << fixed(rate.min, 1)
              << " to " << fixed(rate.max, 1) << "), " << fixed(latency.median, 2) << " ms a step, peak "
              << bytes(static_cast<double>(peak)) << ", first step after " << fixed(1e3 * first_step, 0)
              << " ms\n";
    if (s.profile) std::cout << "\n" << profile_table(ops, parts);
    return 0;
  }
  Value all = described(setting);
  all.set("images_per_second", rate.value());
  all.set("latency_ms", latency.value());
  all.set("steps", times.size());
  all.set("first_step_ms", 1e3 * first_step);
  all.set("peak_bytes", peak);
  Value::List lines;
  for (const Row& row : ops)
    lines.push_back(Value::Group{
        {"op", row.name}, {"calls", row.calls}, {"ms", 1e3 * row.seconds}, {"bytes", row.bytes}});
  if (s.profile) all.set("profile", std::move(lines));
  std::cout << all.json() << "\n";
  return 0;
}

}  // namespace

int bench_train(int argc, char** argv) {
  Settings s;
  const Value setting = s.parse_float(argc, argv);
  return measure(s, setting);
}

int bench_qat(int argc, char** argv) {
  Settings s;
  const Value setting = s.parse_quantized(argc, argv);
  return measure(s, setting);
}

}  // namespace stairgrad::examples
