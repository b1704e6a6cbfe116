// The main job, end to end: trains a small residual network on Fashion-MNIST, quantizes it with DSQ to 4
// bits, lowers it to integers, runs it, and shows what happened.
//
//     build/examples/quickstart
//
// Expect 91.8 % in floats and 92.0 % with 4-bit weights and activations (seed 0, an AMD EPYC); the integer
// run equals the quantized evaluation code for code. About three minutes on two cores.
#include <cstdio>

#include "../autograd/recorder.h"
#include "../data/formats/image.h"
#include "../kernels/reduce.h"
#include "../nn/attribution.h"
#include "../nn/checkpoint.h"
#include "../quant/cost.h"
#include "../quant/integer/model.h"
#include "../quant/sites.h"
#include "common/deployment.h"
#include "common/machine.h"
#include "common/pictures.h"
#include "common/policy_description.h"
#include "common/progress.h"
#include "common/quantization.h"
#include "common/report.h"
#include "common/task.h"

using namespace stairgrad;
using namespace stairgrad::examples;
namespace integer = stairgrad::quant::integer;

namespace {

struct Settings {
  CommonOptions common;
  TaskOptions task{.model = "resnet8", .dataset = "fashion-mnist"};
  std::string quantizer = "dsq", skip = "u8", ends = "8";
  int w_bits = 4, a_bits = 4, epochs = 4, qat_epochs = 2;
  int workers = 1;
  int64_t batch = 64;
  double lr = 0.1, qat_lr = 0.02, weight_decay = 5e-4;

  Value parse(int argc, char** argv) {
    Options options(
        "quickstart", "Trains, quantizes and runs a small network in integers, end to end.",
        {"build/examples/quickstart", "build/examples/quickstart --wbits 2 --abits 2 --out out/w2a2"});
    common.add_to(options, "out/quickstart");
    task.add_to(options);
    options.add("--epochs", epochs, "epochs in floats").at_least(1);
    options.add("--qat-epochs", qat_epochs, "epochs with quantizers").at_least(1);
    options.add("--batch", batch, "images in a step").at_least(1);
    options.add("--lr", lr, "learning rate in floats").at_least(0);
    options.add("--qat-lr", qat_lr, "learning rate with quantizers").at_least(0);
    options.add("--weight-decay", weight_decay, "of convolution and linear weights").at_least(0);
    options.add("--quantizer", quantizer, "how to quantize").one_of(quant::quantizer_names());
    options.add("--wbits", w_bits, "bits of weights; of the first and last layer: see --ends").between(1, 8);
    options.add("--abits", a_bits, "bits of activations").between(1, 8);
    options
        .add("--skip", skip,
             "where the skip of a residual add lives: 8 bits of its own, the layer's grid, or floats")
        .one_of({"u8", "shared", "float"});
    options.add("--ends", ends, "bits of the first and last layer").one_of({"8", "same"});
    options.add("--workers", workers, "threads that prepare batches").at_least(1);
    options.parse(argc, argv);
    return options.values();
  }

  TrainingOptions training(bool quantized) const {
    TrainingOptions options;
    options.epochs = quantized ? qat_epochs : epochs;
    options.lr = quantized ? qat_lr : lr;
    options.batch = batch;
    options.weight_decay = weight_decay;
    options.warmup = 0.25;
    options.crop = 0;  // a few epochs do not overfit
    options.workers = workers;
    options.seed = common.seed;
    return options;
  }
};

/// Everything the job makes on its way.
class Quickstart {
 public:
  Quickstart(Settings settings, const Value& options)
      : s_(std::move(settings)),
        task_(load_task(s_.task, s_.common.data, s_.common.seed)),
        plain_(task_.test_transform()),
        run_(s_.common.out, s_.common.resume) {
    run_.describe("quickstart", options, s_.common.seed);
  }

  void go() {
    train_float();
    train_quantized();
    lower_and_compare();
    measure_speed();
    finish();
    agreement_.expect_equal(run_.file("result.json"));
  }

 private:
  // The pictures that accuracies are of.
  std::string measured() const { return s_.task.validate ? "held-out" : "test"; }

  // Trains to the last epoch; with sites, the quantized network.
  Evaluated fit(nn::Model& model, quant::Sites* sites) {
    const TrainingOptions options = s_.training(sites != nullptr);
    data::Loader loader(task_.train, task_.training_transform(options), loader_options(options));
    const auto optimiser = make_optimiser(options, decayed_groups(model, options.weight_decay));
    const std::string phase = sites ? "qat" : "float";
    TrainingJob job{.phase = phase,
                    .model = model,
                    .optimiser = *optimiser,
                    .loader = loader,
                    .options = options,
                    .run = run_,
                    .first_epoch = sites ? s_.epochs : 0,
                    .checkpoint = phase + ".ckpt",
                    .notes = {{"model", s_.task.model},
                              {"dataset", s_.task.dataset},
                              {"width", text(s_.task.width)},
                              {"size", text(s_.task.size)},
                              {"init", s_.task.init},
                              {"images", text(task_.train.size())},
                              {"norm", task_.info.notes.at("normalisation")},
                              {"policy", sites ? sites->policy().to_json() : ""}}};
    if (sites) job.after_step = [sites] { sites->project(); };
    job.measured = measured();
    job.evaluate = [&] { return evaluate(model, task_.test, plain_); };
    run_.seconds("train_" + phase, train(job, s_.common.resume));
    return evaluate(model, task_.test, plain_);
  }

  void train_float() {
    float_ = fit(*task_.model, nullptr);
    nn::save_model(run_.file("model.safetensors"), *task_.model, task_.info);
    run_.result().set("accuracy.float", float_.accuracy);
  }

  void train_quantized() {
    model_ = nn::make_model(s_.task.model, task_.info.options);
    model_->load_state(task_.model->state());
    policy_ = quant::uniform_policy(*model_, {s_.w_bits, s_.a_bits, s_.quantizer, "layer"},
                                    quant::parse_skip(s_.skip), quant::parse_ends(s_.ends));
    const auto sites = quant::attach_sites(*model_, policy_);
    calibrate(*model_, task_, s_.common.seed);
    fake_ = fit(*model_, sites.get());
    run_.result().set("accuracy.fake_quant", fake_.accuracy);
    data::atomic_write(run_.file("policy.json"), policy_.to_json());
  }

  void lower_and_compare() {
    model_->eval();
    const Stopwatch watch;
    cost_ = quant::count_cost(stairgrad::trace([&](const Tensors& in) { return (*model_)(in[0]); },
                                               {Array::zeros(model_->input_shape())}));
    lowered_ = deploy(*model_, task_, policy_, run_.file("integer.safetensors"));
    run_.seconds("lower", watch.seconds());

    const Stopwatch comparing;
    agreement_ = compare(lowered_, *model_, task_.test, plain_);
    explained_ = explain_layers(lowered_, *model_, task_.test, plain_, /*images=*/50, run_);
    run_.seconds("compare", comparing.seconds());
    Value& result = run_.result();
    agreement_.record(result);
    result.set("cost.params", task_.model->parameter_count());
    result.set("cost.macs", quant::total_macs(cost_));
    result.set("cost.bops", quant::total_bops(cost_));
    result.set("cost.bytes", integer::parameter_bytes(lowered_));
    result.set("cost.bytes_float", 4 * task_.model->parameter_count());
  }

  void measure_speed() {
    const Stopwatch watch;
    float_speed_ = float_speed(*task_.model);
    integer_speed_ = integer_speed(lowered_);
    run_.seconds("measure", watch.seconds());
    Value& result = run_.result();
    result.set("speed.float.images_per_second", float_speed_.images_per_second);
    result.set("speed.float.latency_ms", float_speed_.latency_ms);
    result.set("speed.integer.images_per_second", integer_speed_.images_per_second);
    result.set("speed.integer.latency_ms", integer_speed_.latency_ms);
  }

  Table summary() const {
    const std::string bits = text("W", s_.w_bits, "A", s_.a_bits);
    const int64_t macs = quant::total_macs(cost_), params = task_.model->parameter_count();
    Table table({"", "float", "fake-quantized " + bits, "integer " + bits});
    table.row(
        {"accuracy", percent(float_.accuracy), percent(fake_.accuracy), percent(agreement_.accuracy())});
    table.row({"parameters", count(params), count(params), count(params)});
    table.row({"bytes", bytes(4.0 * static_cast<double>(params)), "",
               bytes(static_cast<double>(integer::parameter_bytes(lowered_)))});
    table.row({"MACs", scaled(static_cast<double>(macs)), scaled(static_cast<double>(macs)),
               scaled(static_cast<double>(macs))});
    const std::string bops = scaled(static_cast<double>(quant::total_bops(cost_)));
    table.row({"BOPs", scaled(1024.0 * static_cast<double>(macs)), bops, bops});
    table.row({"images/s (batch 100)", count(static_cast<int64_t>(float_speed_.images_per_second)), "",
               count(static_cast<int64_t>(integer_speed_.images_per_second))});
    table.row({"latency (batch 1)", fixed(float_speed_.latency_ms, 3) + " ms", "",
               fixed(integer_speed_.latency_ms, 3) + " ms"});
    return table;
  }

  Picture overlay(const Array& image, const Array& maps, int64_t row, const std::string& caption) const {
    const Array map = maps.slice(row, 1).reshape({maps.dim(1), maps.dim(2)});
    return {heat_overlay(enlarge(image, 4), map), caption};
  }

  // A row of test images, and where each network looks.
  void show_attribution(Report& report) {
    constexpr int64_t shown = 10;
    data::Loader loader(data::first(task_.test, shown), plain_, {.batch = shown});
    loader.start(0);
    data::Batch batch;
    loader.next(batch);
    const Array float_maps = nn::attribution_map(*task_.model, batch.images);
    const Array maps = nn::attribution_map(*model_, batch.images);
    std::vector<Picture> originals, in_floats, quantized;
    for (int64_t i = 0; i < batch.size(); ++i) {
      const auto name = [&](int32_t label) { return task_.test.class_names[static_cast<size_t>(label)]; };
      const auto at = static_cast<size_t>(i);
      Array image = task_.test.image(i);
      if (image.dim(2) == 1) image = kernels::concat({image, image, image}, 2);
      originals.push_back({enlarge(image, 4), name(task_.test.labels[at])});
      in_floats.push_back(overlay(image, float_maps, i, name(float_.predictions[at])));
      quantized.push_back(overlay(image, maps, i, name(fake_.predictions[at])));
    }
    report.section("Where the networks look");
    report.paragraph("Grad-CAM of each network's own top class at its last feature map.");
    report.pictures("Test images and their classes", originals, 84);
    report.pictures("Float network, with what it says", in_floats, 84);
    report.pictures("Quantized network, with what it says", quantized, 84);
    std::vector<Array> sheet;
    for (const auto* row : {&originals, &in_floats, &quantized})
      for (const Picture& picture : *row) sheet.push_back(picture.image);
    data::write_png(run_.file("gradcam.png"), contact_sheet(sheet, static_cast<int>(originals.size())));
  }

  void finish() {
    Report report("stairgrad quickstart",
                  text(s_.task.model, " on ", s_.task.dataset, ", ", s_.quantizer, ' ', s_.w_bits, '/',
                       s_.a_bits, ", skip ", s_.skip, ", ends ", s_.ends));
    const Table table = summary();
    report.section("Result");
    report.table(table);
    report.paragraph(agreement_.str());
    report.section("Training");
    const auto curve = [&](const std::string& name, const std::string& field) {
      const RunDirectory::Series series = run_.series("epoch", field);
      return Curve{name, series.x, series.y};
    };
    report.curves("Loss", "epoch", "cross-entropy",
                  {curve("training", "loss"), curve(measured(), "measured_loss")});
    report.curves("Accuracy", "epoch", "percent", {curve(measured(), "accuracy")});
    report.section("Bits");
    add_bits(report, cost_);
    explained_.add_to(report);
    show_attribution(report);
    report.save(run_.file("report.html"));
    run_.finish();
    std::printf("\n%s\n%s\n\nreport: %s\n", table.text().c_str(), agreement_.str().c_str(),
                run_.file("report.html").c_str());
  }

  Settings s_;
  Task task_;  // its model is the network in floats
  data::Transform plain_;
  RunDirectory run_;
  std::unique_ptr<nn::Model> model_;  // the quantized one
  quant::Policy policy_;
  Evaluated float_, fake_;
  std::vector<quant::LayerCost> cost_;
  integer::Model lowered_;
  Explanation explained_;
  Agreement agreement_;
  Speed float_speed_, integer_speed_;
};

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    Settings settings;
    const Value options = settings.parse(argc, argv);
    Quickstart(settings, options).go();
    return 0;
  });
}
