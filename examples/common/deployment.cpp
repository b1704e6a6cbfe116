#include "deployment.h"

#include <algorithm>
#include <cstring>
#include <iostream>

#include "../../autograd/recorder.h"
#include "../../data/formats/file.h"
#include "../../kernels/reduce.h"
#include "../../quant/integer/model_file.h"
#include "../../quant/integer/reference.h"
#include "../../quant/integer/session.h"
#include "../../quant/lower.h"
#include "../../quant/search/space.h"
#include "../../quant/sites.h"
#include "progress.h"
#include "statistics.h"
#include "table.h"

namespace stairgrad::examples {
namespace {

namespace integer = quant::integer;

double percent_of(int64_t part, int64_t whole) {
  return 100.0 * static_cast<double>(part) / static_cast<double>(std::max<int64_t>(1, whole));
}

int64_t differing(const Array& a, const Array& b) {
  const uint8_t *x = a.data<uint8_t>(), *y = b.data<uint8_t>();
  int64_t count = 0;
  for (int64_t i = 0; i < a.size(); ++i) count += x[i] != y[i];
  return count;
}

int64_t differing(const Array& codes, float zero_point, const Array& integers) {
  const uint8_t* code = codes.data<uint8_t>();
  const float* integer = integers.data<float>();
  int64_t count = 0;
  for (int64_t i = 0; i < codes.size(); ++i) count += static_cast<float>(code[i]) - zero_point != integer[i];
  return count;
}

// Floats that differ in any bit.
int64_t differing_floats(const Array& a, const Array& b) {
  const float *x = a.data<float>(), *y = b.data<float>();
  int64_t count = 0;
  for (int64_t i = 0; i < a.size(); ++i) count += std::memcmp(x + i, y + i, sizeof(float)) != 0;
  return count;
}

Array as_rows(const Array& logits) {
  return logits.reshape({logits.dim(0), logits.dim(0) ? logits.size() / logits.dim(0) : 0});
}

double median_seconds(const std::function<void()>& body) {
  for (int i = 0; i < 3; ++i) body();
  std::vector<double> times;
  const Stopwatch total;
  while (times.size() < 5 || (total.seconds() < 1 && times.size() < 2000)) {
    const Stopwatch watch;
    body();
    times.push_back(watch.seconds());
  }
  return percentile(std::move(times), 0.5);
}

// Runs images in whole batches of a session, and compares their logits.
void compare_logits(integer::Session& session, const Array& images, const Array& expected,
                    Agreement& result) {
  const int64_t batch = session.batch();
  for (int64_t i = 0; i + batch <= images.dim(0); i += batch) {
    const Array& logits = session.run(images.slice(i, batch));
    result.logits += logits.size();
    result.logits_differing += differing_floats(logits, expected.slice(i, batch));
  }
}

// `prepare` makes the function that runs a batch.
Speed measure(const Shape& image, const std::function<std::function<void()>(const Array& images)>& prepare) {
  const auto seconds = [&](int64_t batch) {
    return median_seconds(prepare(random_normal({batch, image[0], image[1], image[2]}, Philox(1))));
  };
  return {100 / seconds(100), 1e3 * seconds(1)};
}

}  // namespace

double Agreement::accuracy() const { return percent_of(correct, images); }
double Agreement::fake_share() const {
  Site all;
  for (const auto& [name, site] : fake_sites) {
    all.codes += site.codes;
    all.mismatched += site.mismatched;
  }
  return percent_of(all.mismatched, all.codes);
}

void Agreement::record(Value& result) const {
  result.set("accuracy.integer", accuracy());
  result.set("agreement.images", images);
  result.set("agreement.top1", top1);
  result.set("agreement.codes_total", codes);
  result.set("agreement.codes_mismatched", mismatched);
  result.set("agreement.logits_total", logits);
  result.set("agreement.logits_differing", logits_differing);
  result.set("agreement.fake_quant_top1", fake_top1);
  result.set("agreement.fake_quant_codes_differing_percent", fake_share());
  Value::Group sites;
  for (const auto& [name, site] : fake_sites)
    sites.push_back({name, percent_of(site.mismatched, site.codes)});
  result.set("agreement.fake_quant_codes_differing_percent_by_site", sites);
}

std::string Agreement::str() const {
  return text("The integer run against the quantized evaluation: ", count(mismatched), " of ", count(codes),
              " codes and ", count(logits_differing), " of ", count(logits),
              " logits differ, top-1 agrees on ", count(top1), " of ", count(images),
              " images. Against plain f32 fake quantization: ", percent(fake_share(), 4),
              " of codes differ, top-1 agrees on ", count(fake_top1), ".");
}

void Agreement::expect_equal(const std::string& result_file) const {
  if (mismatched + logits_differing > 0)
    throw numeric_error(
        text(mismatched, " codes and ", logits_differing,
             " logits of the integer run differ from the quantized evaluation; please report this with ",
             result_file));
}

integer::Model lowered(nn::Model& model, const data::Normalisation& normalisation,
                       const std::vector<std::string>& class_names, const quant::Policy& policy,
                       const std::function<Tensor(const Tensor&)>& forward) {
  model.eval();
  const Trace trace =
      stairgrad::trace([&](const Tensors& in) { return forward ? forward(in[0]) : model(in[0]); },
                       {Array::zeros(model.input_shape())});
  integer::Model result = quant::lower(trace);
  result.class_names = class_names;
  result.policy = policy.to_json();
  for (const double mean : normalisation.mean) result.mean.push_back(static_cast<float>(mean));
  for (const double std : normalisation.std) result.deviation.push_back(static_cast<float>(std));
  return result;
}

integer::Model deploy(nn::Model& model, const Task& task, const quant::Policy& policy,
                      const std::string& path) {
  integer::save(lowered(model, task.normalisation, task.test.class_names, policy), path);
  return integer::load(path);
}

std::vector<quant::LayerCost> save_quantized(Task& task, const quant::Policy& policy, const Evaluated& fake,
                                             RunDirectory& run) {
  nn::Model& model = *task.model;
  task.info.notes["accuracy"] = fixed(fake.accuracy, 2);
  task.info.notes["policy"] = policy.to_json();
  nn::save_model(run.file("model.safetensors"), model, task.info);
  data::atomic_write(run.file("policy.json"), policy.to_json());
  model.eval();
  const auto cost = quant::count_cost(
      trace([&](const Tensors& in) { return model(in[0]); }, {Array::zeros(model.input_shape())}));
  run.result().set("cost.params", model.parameter_count());
  run.result().set("cost.macs", quant::total_macs(cost));
  run.result().set("cost.bops", quant::total_bops(cost));
  run.result().set("cost.bops_inner", quant::account(model, policy).quantized);
  return cost;
}

Explanation explain_layers(const integer::Model& lowered, nn::Model& model, const data::Dataset& dataset,
                           const data::Transform& transform, int64_t images, RunDirectory& run) {
  const data::Dataset few = data::first(dataset, std::min(images, dataset.size()));
  data::Loader loader(few, transform, {.batch = few.size()});
  loader.start(0);
  data::Batch batch;
  loader.next(batch);
  const Explanation result{quant::explain(lowered, model, batch.images), few.size()};
  run.result().set("layers", explanation_value(result.layers));
  std::cout << explanation_table(result.layers).text();
  return result;
}

void DeploymentOptions::add_to(Options& options) {
  options.add("--no-deploy", no_deploy, "do not lower to integers");
  options
      .add("--explain", explain,
           "say of each integer layer, on so many test pictures, how far it is from the float network; 0: do "
           "not")
      .at_least(0);
}

void DeploymentOptions::validate() const {
  check(explain == 0 || !no_deploy, "--explain ", explain, " needs the integer model; leave out --no-deploy");
}

std::optional<Deployment> deploy_and_compare(Task& task, const quant::Policy& policy,
                                             const data::Dataset& test, const DeploymentOptions& options,
                                             RunDirectory& run) {
  if (options.no_deploy) return {};
  std::optional<integer::Model> lowered;
  try {
    lowered = deploy(*task.model, task, policy, run.file("integer.safetensors"));
  } catch (const argument_error& error) {
    run.result().set("deployed", error.what());
    std::cout << "not deployed: " << error.what() << "\n";
    return {};
  }
  Deployment result{compare(*lowered, *task.model, test, task.test_transform()), {}};
  result.agreement.record(run.result());
  run.result().set("cost.bytes", integer::parameter_bytes(*lowered));
  std::cout << result.agreement.str() << "\n";
  if (options.explain > 0)
    result.explanation =
        explain_layers(*lowered, *task.model, test, task.test_transform(), options.explain, run);
  return result;
}

Agreement compare(const integer::Model& lowered, nn::Model& model, const data::Dataset& dataset,
                  const data::Transform& transform, const std::function<Tensor(const Tensor&)>& forward) {
  Agreement result;
  model.eval();
  const quant::SiteRecorder recorder(model);
  const NoGrad no_grad;
  // Every value of every image of a batch is kept, several times over.
  const int64_t most = std::min<int64_t>(192, evaluation_batch(transform.dst_shape(dataset.image_shape)));
  data::Loader loader(dataset, transform, {.batch = most});
  Progress progress("comparing codes", dataset.size());
  std::unique_ptr<integer::Session> session;
  integer::Session small(lowered, 32), single(lowered, 1);
  for (const data::Batch& batch : loader.epoch(0)) {
    if (!session || session->batch() != batch.size())
      session = std::make_unique<integer::Session>(lowered, batch.size(), /*keep_values=*/true);
    const Arrays expected = integer::evaluate(lowered, batch.images);
    const Array logits = as_rows(expected[static_cast<size_t>(lowered.output)]);
    compare_logits(*session, batch.images, logits, result);
    compare_logits(small, batch.images, logits, result);
    if (result.images == 0) {
      const int64_t few = std::min<int64_t>(64, batch.size());
      compare_logits(single, batch.images.slice(0, few), logits, result);
    }
    const Array own = kernels::argmax(as_rows(session->value(lowered.output)));
    const Array evaluated = kernels::argmax(logits);
    const Array fake = kernels::argmax((forward ? forward(batch.images) : model(batch.images)).value());
    for (int64_t i = 0; i < batch.size(); ++i) {
      const int32_t top = own.data<int32_t>()[i];
      result.correct += top == batch.labels.data<int32_t>()[i];
      result.top1 += top == evaluated.data<int32_t>()[i];
      result.fake_top1 += top == fake.data<int32_t>()[i];
    }
    result.images += batch.size();
    for (size_t v = 0; v < lowered.values.size(); ++v) {
      const integer::Value& value = lowered.values[v];
      if (!value.codes) continue;
      const Array& codes = session->value(static_cast<int>(v));
      result.codes += codes.size();
      result.mismatched += differing(codes, expected[v]);
      const auto site = recorder.integers.find(value.name);
      if (site == recorder.integers.end()) continue;
      result.fake_sites[value.name].codes += codes.size();
      result.fake_sites[value.name].mismatched += differing(codes, value.grid.zero_point, site->second);
    }
    progress.advance(batch.size());
  }
  return result;
}

Speed float_speed(nn::Model& model) {
  model.eval();
  const NoGrad no_grad;
  const Shape input = model.input_shape();
  return measure({input[1], input[2], input[3]},
                 [&](const Array& images) { return [&model, images] { model(images); }; });
}

Speed integer_speed(const integer::Model& lowered) {
  return measure(lowered.values[static_cast<size_t>(lowered.input)].shape, [&](const Array& images) {
    const auto session = std::make_shared<integer::Session>(lowered, images.dim(0));
    return [session, images] { session->run(images); };
  });
}

}  // namespace stairgrad::examples
