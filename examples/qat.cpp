// Quantization-aware training: puts quantizers into a network, trains it on, lowers it to integers, and shows
// what became of it.
//
//     build/examples/train --model resnet20 --dataset cifar10 --epochs 100 --dtype bf16 --out out/float
//     build/examples/qat --model resnet20 --dataset cifar10 --init out/float/model.safetensors
//         --wbits 2 --abits 2 --quantizer dsq --epochs 15 --dtype bf16 --integer-forward --out out/w2a2
//
// quant/results/qat_cifar10.json is a table of such runs, for examples/table.
#include <iostream>
#include <optional>

#include "../autograd/ops.h"
#include "../data/formats/file.h"
#include "../data/formats/image.h"
#include "../nn/batch_norm_statistics.h"
#include "../nn/checkpoint.h"
#include "../quant/cost.h"
#include "../quant/oscillation.h"
#include "../quant/site_statistics.h"
#include "common/attribution.h"
#include "common/deployment.h"
#include "common/policy_description.h"
#include "common/progress.h"
#include "common/quantization.h"
#include "common/report.h"
#include "common/task.h"
#include "common/teacher.h"

using namespace stairgrad;
using namespace stairgrad::examples;

namespace {

struct Settings {
  CommonOptions common;
  TaskOptions task;
  TrainingOptions training{.epochs = 15, .lr = 0.02, .weight_decay = 1e-4, .warmup = 0.5};
  QuantizationOptions quantization;
  std::string progressive, teacher;
  int stage_epochs = 2;
  double quantizer_lr = 1, distill = 0, temperature = 4, dampen = 0;
  int64_t batch_norm_batches = 0, attribution = 0;
  DeploymentOptions deployment;
  bool test_curve = false;
  Value values;

  void parse(int argc, char** argv) {
    Options options("qat", "Trains a network with quantizers in it, and lowers it to integers.",
                    {"qat --model resnet20 --init out/train/model.safetensors --wbits 2 --abits 2 "
                     "--quantizer dsq --dtype bf16 --integer-forward",
                     "qat --model resnet20 --init resnet20.th --import pytorch --policy policy.json",
                     "qat --model resnet20 --init out/qat/model.safetensors --epochs 0"});
    common.add_to(options, "out/qat");
    task.add_to(options);
    quantization.add_to(options);
    training.add_to(options);
    options.add("--quantizer-lr", quantizer_lr, "multiplies the learning rate of the quantizers' parameters")
        .at_least(0);
    options.add("--progressive", progressive,
                "bits of weights and activations to pass through before the last ones, such as 8,4");
    options.add("--stage-epochs", stage_epochs, "epochs at each of the bits of --progressive").at_least(1);
    options.add("--distill", distill, "share of the loss that is distillation from the float network")
        .between(0, 1);
    options.add("--temperature", temperature, "of the distillation").between(0.1, 100);
    options.add("--teacher", teacher, "model file of the teacher (default: --init as it was in floats)");
    options
        .add("--dampen", dampen,
             "weight of the dampening loss against oscillating weights, rising along a cosine, such as 1e-3")
        .at_least(0);
    options
        .add("--bn-batches", batch_norm_batches,
             "take the statistics of batch norms anew from so many training batches at the end")
        .at_least(0);
    options
        .add("--attribution", attribution,
             "compare at the end, on so many test pictures, where the quantized network looks with where "
             "--init did "
             "in floats; 0: do not")
        .at_least(0);
    deployment.add_to(options);
    options.add("--test-curve", test_curve,
                "measure the test set after every epoch; without it, it is used once, after the last");
    options.parse(argc, argv);
    deployment.validate();
    check(attribution == 0 || (training.epochs > 0 && !task.init.empty()),
          "--attribution compares a network that is trained here with its --init in floats; got no --init or "
          "--epochs 0");
    check(training.epochs > 0 || !task.init.empty(),
          "--epochs 0 measures a network; name its file with --init");
    training.seed = common.seed;
    values = options.values();
  }
};

class Qat {
 public:
  explicit Qat(Settings settings)
      : s_(std::move(settings)),
        saved_policy_(saved_policy()),
        task_(load_task(task_options(), s_.common.data, s_.common.seed)),
        watched_(watched_pictures(s_.task, task_, s_.test_curve)),
        run_(s_.common.out, s_.common.resume) {
    run_.describe("qat", s_.values, s_.common.seed);
  }

  void go() {
    policy_ = saved_policy_ ? *saved_policy_ : s_.quantization.policy_for(*task_.model);
    measure_floats();
    if (s_.training.epochs > 0) {
      make_teacher();
      if (s_.attribution > 0) in_floats_ = task_.as_trained();
      for (const int bits : parse_bits("--progressive", s_.progressive)) train_stage(bits);
      train_last();
    } else {
      sites_ = s_.quantization.attach(*task_.model, policy_);
      if (saved_policy_)
        nn::load_weights(init_file(), *task_.model, /*partial=*/false, s_.task.not_finite());
      else
        calibrate(*task_.model, task_, s_.common.seed);
    }
    reestimate();
    measure();
    lower();
    finish();
  }

 private:
  // The policy of a file that this program wrote, whose quantizers --init brings along.
  std::optional<quant::Policy> saved_policy() const {
    if (s_.task.init.empty() || !s_.task.import.empty()) return {};
    const nn::ModelInfo info = nn::read_model_info(init_file());
    const auto found = info.notes.find("policy");
    if (found == info.notes.end()) return {};
    return quant::Policy::parse(found->second, init_file());
  }
  std::string init_file() const { return data::find_file(s_.task.init, s_.common.data); }
  TaskOptions task_options() const {
    TaskOptions options = s_.task;
    if (!saved_policy_) return options;
    check(s_.training.epochs == 0 && s_.quantization.policy.empty(), "--init ", s_.task.init,
          ": it holds a quantized network, expected one in floats to train; with --epochs 0 it is measured");
    options.init_partial = true;  // the network without its quantizers, which come when their places exist
    return options;
  }

  // What --init does without quantizers, if it brings the whole network as it is.
  void measure_floats() {
    if (s_.task.init.empty() || saved_policy_ || !task_.not_loaded.none()) return;
    const Stopwatch watch;
    run_.result().set("accuracy.float",
                      evaluate(*task_.as_trained(), task_.test, task_.test_transform()).accuracy);
    run_.seconds("float", watch.seconds());
  }

  void make_teacher() {
    if (s_.distill == 0) return;
    check(!s_.task.init.empty() || !s_.teacher.empty(),
          "--distill needs a float network: --init or --teacher");
    if (s_.teacher.empty())
      teacher_.emplace(task_.as_trained(), task_.normalisation, task_.normalisation);
    else
      teacher_ = Teacher::load(s_.teacher, task_.normalisation);
  }

  quant::Policy policy_at(int bits) const {
    quant::Policy policy = policy_;
    for (auto& [name, layer] : policy.layers) {
      if (layer.w_bits < bits) layer.w_bits = bits;
      if (layer.a_bits < bits) layer.a_bits = bits;
    }
    for (auto& [name, tensor] : policy.tensors)
      if (tensor.bits < bits) tensor.bits = bits;
    return policy;
  }
  void train_stage(int bits) {
    TrainingOptions options = s_.training;
    options.epochs = s_.stage_epochs;
    train(text("stage ", bits, " bits"), policy_at(bits), options);
  }
  void train_last() { train("qat", policy_, s_.training); }

  Tensor loss_of(const Tensor& images, const data::Batch& batch) {
    const double progress = steps_.item() / all_steps_;
    sites_->set_progress(progress);
    const Tensor logits = cast((*task_.model)(images), DType::f32);
    Tensor loss = cross_entropy_of(logits, batch, s_.training.label_smoothing);
    if (teacher_) loss = distilled(loss, logits, (*teacher_)(images), s_.distill, s_.temperature);
    if (s_.dampen > 0) {
      const double rise = (1 - std::cos(M_PI * progress)) / 2;
      loss = loss + quant::dampening(*task_.model, *sites_) * (s_.dampen * rise);
    }
    return loss;
  }

  void train(const std::string& phase, const quant::Policy& policy, const TrainingOptions& options) {
    sites_ = s_.quantization.attach(*task_.model, policy);
    calibrate(*task_.model, task_, s_.common.seed);
    data::Loader loader(task_.train, task_.training_transform(options), loader_options(options));
    const auto optimiser = make_optimiser(
        options, quantized_groups(*task_.model, *sites_, options.weight_decay, s_.quantizer_lr));
    oscillations_.emplace(*task_.model, *sites_);
    steps_ = Array::scalar(0, DType::f64);
    all_steps_ = static_cast<double>(options.epochs * loader.batches());
    TrainingJob job{
        .phase = phase,
        .model = *task_.model,
        .optimiser = *optimiser,
        .loader = loader,
        .options = options,
        .run = run_,
        .first_epoch = epochs_,
        .checkpoint = phase + ".ckpt",
        .notes = {{"model", s_.task.model},
                  {"dataset", s_.task.dataset},
                  {"width", text(s_.task.width)},
                  {"size", text(s_.task.size)},
                  {"pictures", text(task_.train.size())},
                  {"init", s_.task.init},
                  {"policy", policy.to_json()},
                  {"integer-forward", text(s_.quantization.integer_forward)},
                  {"quantizer-lr", text(s_.quantizer_lr)},
                  {"distill", text(s_.distill, ' ', s_.temperature, ' ', s_.teacher)},
                  {"dampen", text(s_.dampen)},
                  {"activation", nn::to_string(task_.info.options.style.activation)},
                  {"normalisation", task_.info.notes.at("normalisation")},
                  {"progressive", s_.progressive.empty() ? "" : text(s_.progressive, ' ', s_.stage_epochs)}}};
    job.parts = {{"oscillation", oscillations_->state()}, {"progress", {{"steps", steps_}}}};
    job.loss = [&](const Tensor& images, const data::Batch& batch) { return loss_of(images, batch); };
    job.after_step = [&] {
      sites_->project();
      oscillations_->update();
      steps_.data<double>()[0] += 1;
    };
    job.measured = watched_.name;
    job.evaluate = [&] {
      const auto epoch = std::llround(steps_.item() / static_cast<double>(loader.batches()));
      note_sites(phase, epochs_ + epoch);
      return evaluate(*task_.model, watched_.pictures, task_.test_transform(), options.type());
    };
    run_.seconds(phase, examples::train(job, s_.common.resume));
    epochs_ += options.epochs;
  }

  // A line of metrics with what every site does to some training pictures.
  void note_sites(const std::string& phase, int64_t epoch) {
    Value line = Value::Group{{"phase", phase}, {"epoch", epoch}};
    const std::map<std::string, double> oscillating = oscillations_->shares();
    for (const quant::SiteStatistics& site : quant::site_statistics(*task_.model, *sites_, probe())) {
      const auto set = [&](const std::string& key, double value) {
        line.set("sites." + site.name + '.' + key, value);
      };
      for (const auto& [name, value] : site.learned) set(name, value);
      set("low", site.low);
      set("high", site.high);
      set("error", site.error);
      set("clipping", site.clipping);
      set("rounding", site.rounding);
      set("saturated", site.saturated);
      if (const auto found = oscillating.find(site.name); found != oscillating.end())
        set("oscillating", found->second);
    }
    run_.metrics(line);
  }

  // Evenly spread training pictures, not changed at random.
  const Array& probe() {
    if (!probe_.has_value()) {
      const data::Dataset few = some_of(task_.train, 256);
      data::Loader loader(few, task_.test_transform(), {.batch = few.size()});
      loader.start(0);
      data::Batch batch;
      loader.next(batch);
      probe_ = batch.images;
    }
    return probe_;
  }

  // On codes, as deployment computes.
  void reestimate() {
    if (s_.batch_norm_batches == 0) return;
    sites_->set_arithmetic(*task_.model, nn::Arithmetic::integers);
    TrainingOptions options = s_.training;
    options.dtype = "f32";
    data::Loader loader(task_.train, task_.training_transform(options), loader_options(options));
    loader.start(s_.training.epochs);
    data::Batch batch;
    int64_t left = s_.batch_norm_batches;
    nn::reestimate_batch_norms(*task_.model,
                               [&] { return left-- > 0 && loader.next(batch) ? batch.images : Array(); });
  }

  // Plain f32 fake quantization.
  void measure() {
    sites_->set_arithmetic(*task_.model, nn::Arithmetic::values);
    fake_ = evaluate(*task_.model, task_.test, task_.test_transform());
    run_.result().set("accuracy.fake_quant", fake_.accuracy);
    run_.result().set("loss.test", fake_.loss);
    cost_ = save_quantized(task_, policy_, fake_, run_);
    if (in_floats_) {
      looks_ = measure_attribution(*task_.model, *in_floats_, task_, s_.attribution);
      looks_->record(run_.result());
      std::cout << looks_->str() << "\n";
    }
    std::cout << s_.task.model << " with " << s_.quantization.title() << ": " << percent(fake_.accuracy)
              << " of " << count(fake_.images) << (s_.task.validate ? " held-out" : " test") << " pictures\n";
  }

  void lower() { deployed_ = deploy_and_compare(task_, policy_, task_.test, s_.deployment, run_); }

  Curve curve(const std::string& name, const std::string& field) const {
    const RunDirectory::Series series = run_.series("epoch", field);
    return {name, series.x, series.y};
  }

  // One curve for each site of a role that has this figure.
  std::vector<Curve> curves_of(nn::Tap::Role role, const std::string& figure) const {
    std::vector<Curve> all;
    for (const quant::Sites::Site& site : sites_->sites())
      if (site.role == role)
        if (Curve one = curve(site.name, "sites." + site.name + '.' + figure); !one.x.empty())
          all.push_back(one);
    return all;
  }
  static Curve mean_of(const std::string& name, const std::vector<Curve>& curves) {
    Curve mean{name, curves[0].x, std::vector<double>(curves[0].x.size())};
    for (const Curve& one : curves)
      for (size_t i = 0; i < mean.y.size(); ++i) mean.y[i] += one.y[i] / static_cast<double>(curves.size());
    return mean;
  }

  void show_trajectories(Report& report) const {
    using Role = nn::Tap::Role;
    const std::vector<Curve> weight_alpha = curves_of(Role::weight, "alpha"),
                             input_alpha = curves_of(Role::input, "alpha");
    if (!weight_alpha.empty() && !input_alpha.empty()) {
      report.curves("Mean alpha", "epoch", "alpha",
                    {mean_of("weights", weight_alpha), mean_of("activations", input_alpha)});
      report.curves("Alpha of weights", "epoch", "alpha", weight_alpha);
      report.curves("Alpha of activations", "epoch", "alpha", input_alpha);
    }
    for (const auto& [role, what] : {std::pair{Role::weight, "weights"}, {Role::input, "activations"}}) {
      report.curves(text("Lowest level of ", what), "epoch", "value", curves_of(role, "low"));
      report.curves(text("Highest level of ", what), "epoch", "value", curves_of(role, "high"));
    }
    for (const auto& [figure, title] : {std::pair{"error", "Quantization error"},
                                        {"clipping", "Clipping error"},
                                        {"rounding", "Rounding error"}})
      for (const auto& [role, what] : {std::pair{Role::weight, "weights"}, {Role::input, "activations"}})
        report.curves(text(title, " of ", what), "epoch", "share of the energy", curves_of(role, figure));
    std::vector<BarRow> errors, oscillating;
    for (const quant::Sites::Site& site : sites_->sites()) {
      const auto last = [&](const std::string& figure) {
        const Curve one = curve("", "sites." + site.name + '.' + figure);
        return one.y.empty() ? NAN : one.y.back();
      };
      errors.push_back({site.name, {100 * last("clipping"), 100 * last("rounding")}});
      if (site.role == Role::weight) oscillating.push_back({site.name, {100 * last("oscillating")}});
    }
    report.bars("Error at the end, percent of the energy", {"clipping", "rounding"}, errors);
    report.bars("Oscillating weights at the end, percent", {"frequency above 0.005"}, oscillating);
  }

  void finish() {
    Report report(text(s_.task.model, " on ", s_.task.dataset, ", ", s_.quantization.title()),
                  text(percent(fake_.accuracy), " of ", count(fake_.images),
                       s_.task.validate ? " held-out pictures" : " test pictures", ", last epoch"));
    if (deployed_) report.paragraph(deployed_->agreement.str());
    if (epochs_ > 0) {
      report.section("Training");
      report.curves("Loss", "epoch", "cross-entropy",
                    {curve("training", "loss"), curve(watched_.name, "measured_loss")});
      report.curves("Accuracy", "epoch", "percent", {curve(watched_.name, "accuracy")});
      report.section("Quantizers");
      show_trajectories(report);
    }
    report.section("Bits");
    add_bits(report, cost_);
    if (deployed_ && deployed_->explanation) deployed_->explanation->add_to(report);
    if (looks_) {
      const Array sheet = show_attribution(report, *task_.model, *in_floats_, task_);
      data::write_png(run_.file("attribution.png"), sheet);
      report.paragraph(looks_->str());
    }
    report.section("Settings");
    Table table({"option", "value"});
    for (const auto& [name, value] : s_.training.notes()) table.row({name, value});
    report.table(table);
    report.save(run_.file("report.html"));
    run_.finish();
    std::cout << "see " << run_.file("report.html") << "\n";
    if (deployed_) deployed_->agreement.expect_equal(run_.file("result.json"));
  }

  Settings s_;
  std::optional<quant::Policy> saved_policy_;  // of --init, if that is a quantized network
  Task task_;
  WatchedPictures watched_;
  RunDirectory run_;
  quant::Policy policy_;
  std::optional<Teacher> teacher_;
  std::unique_ptr<nn::Model> in_floats_;  // with --attribution
  std::optional<AttributionFigures> looks_;
  std::shared_ptr<quant::Sites> sites_;
  std::optional<quant::OscillationCounter> oscillations_;
  Array probe_;
  Array steps_;           // of the stage, so far
  double all_steps_ = 0;  // of the stage
  int epochs_ = 0;        // of the stages that are done
  Evaluated fake_;
  std::optional<Deployment> deployed_;
  std::vector<quant::LayerCost> cost_;
};

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    Settings settings;
    settings.parse(argc, argv);
    Qat(std::move(settings)).go();
    return 0;
  });
}
