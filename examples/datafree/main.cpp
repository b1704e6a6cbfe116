// Quantizes a network without any data: makes images out of the network, trains a quantized copy on them,
// lets a selector spend bits image by image if asked, and lowers all of it to integers.
//
//     build/examples/datafree --model resnet20 --init resnet20.th --import pytorch --wbits 4 --abits 4
//     build/examples/datafree ... --selector --bops 0.85 --eval cifar10
//
// Data sets are opened at the very end, to measure, and only with --eval. quant/datafree/README.md has the
// formulas.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <optional>

#include "../../autograd/ops.h"
#include "../../data/formats/image.h"
#include "../../kernels/reduce.h"
#include "../../kernels/threads.h"
#include "../../nn/checkpoint.h"
#include "../../nn/fold.h"
#include "../../nn/import.h"
#include "../../quant/datafree/difficulty.h"
#include "../../quant/datafree/fine_tuning.h"
#include "../../quant/datafree/selection_metrics.h"
#include "../../quant/datafree/synthesis.h"
#include "../../quant/integer/model_file.h"
#include "../common/deployment.h"
#include "../common/interrupt.h"
#include "../common/labels.h"
#include "../common/pictures.h"
#include "../common/progress.h"
#include "../common/report.h"
#include "../common/statistics.h"
#include "../common/task.h"
#include "selector.h"
#include "settings.h"

using namespace stairgrad;
using namespace stairgrad::examples;
using namespace stairgrad::quant::datafree;
namespace integer = stairgrad::quant::integer;

namespace {

constexpr const char* checkpoint_file = "fine-tuning.ckpt";

class DataFree {
 public:
  explicit DataFree(Settings settings) : s_(std::move(settings)), run_(s_.common.out, s_.common.resume) {
    run_.describe("datafree", s_.values, s_.common.seed);
  }

  void go() {
    load_network();
    quantize();
    make_images();
    show_images();
    train();
    lower();
    final_evaluation();
    finish();
  }

 private:
  // --- the network ---

  void load_network() {
    const std::string file = data::find_file(s_.init, s_.common.data);
    if (s_.import.empty()) {
      info_ = nn::read_model_info(file);
      check(info_.model == s_.model, "--init ", s_.init, ": it holds a ", info_.model, ", but --model is ",
            s_.model);
      teacher_ = nn::load_model(file);
    } else {
      nn::ModelOptions options = nn::usual_options(s_.model);
      options.width = s_.width;
      nn::Imported imported = nn::import_model(s_.import, file, s_.model, options);
      teacher_ = std::move(imported.model);
      info_ = std::move(imported.info);
    }
    std::string norm = s_.norm;
    if (const auto found = info_.notes.find("normalisation"); norm.empty() && found != info_.notes.end())
      norm = found->second;
    check(!norm.empty(), s_.init, " does not say how its pictures are normalised; say it with --norm");
    info_.notes["normalisation"] = norm;
    normalisation_ = data::Normalisation::named(norm);
    scale_ = {normalisation_.mean, normalisation_.std};
    if (const auto found = info_.notes.find("classes"); found != info_.notes.end())
      class_names_ = split_lines(found->second);
    teacher_->eval();
    student_ = copy(*teacher_);
    std::cout << s_.model << ": " << count(teacher_->parameter_count()) << " parameters, "
              << info_.options.classes << " classes; no data set is open\n";
  }

  // With batch norms folded, if the protocol has them so.
  std::unique_ptr<nn::Model> copy(nn::Model& model) {
    auto made = nn::make_model(info_.model, student_options());
    if (student_options().style.folded && !info_.options.style.folded)
      nn::fold_batch_norms(model, *made);
    else
      made->load_state(model.state());
    made->eval();
    return made;
  }

  // --- the images ---

  void make_images() {
    const Stopwatch watch;
    const std::string folder = run_.file("images");
    if (!s_.real.empty()) {
      set_ = real_pictures();
    } else if (!s_.from.empty()) {
      set_ = load_images(s_.from);
    } else if (s_.common.resume && run_.has("images/images.safetensors")) {
      set_ = load_images(folder);
      expect_own(set_, folder);
    } else {
      // What an earlier run left is not this run's, whatever becomes of it.
      std::filesystem::remove_all(folder);
      const SynthesisOptions options = s_.synthesis();
      const bool generator = options.method == Method::generator;
      const int64_t batches = generator ? 1 : (options.images + options.batch - 1) / options.batch;
      Progress progress("synthesis", batches * options.iterations, "steps");
      const Synthesis made = synthesise(*teacher_, options, scale_, [&](int64_t, int, double loss) {
        progress.advance(1, "loss " + fixed(loss, 3));
        interrupt_.stop_here();
      });
      set_ = made.set;
      Value recipe = Value::parse(set_.recipe);
      recipe.set("seconds", watch.seconds());
      recipe.set("threads", threads());
      set_.recipe = recipe.json(2) + "\n";
      for (const std::string& warning : made.warnings) warn(warning);
      for (size_t i = 0; i < made.batches.size(); ++i) {
        const SynthesisNote& n = made.batches[i];
        run_.metrics({{"phase", "synthesis"},
                      {"batch", i},
                      {"first_statistics", n.first_statistics},
                      {"statistics", n.statistics},
                      {"label_loss", n.label_loss},
                      {"agreement", n.agreement}});
      }
      save(set_, folder, scale_, class_names_);
    }
    const Shape image = teacher_->input_shape(set_.size());
    check(set_.images.shape() == image, "the images are ", set_.images.shape(), ", but ", s_.model, " takes ",
          image);
    check(set_.labels.soft.dim(1) == info_.options.classes, "the images have labels of ",
          set_.labels.soft.dim(1), " classes, but ", s_.model, " has ", info_.options.classes);
    // Also of images that an earlier run made.
    const Value recipe = Value::parse(set_.recipe);
    if (const Value* seconds = recipe.find("seconds")) run_.seconds("synthesis", seconds->number());
    run_.result().set("images.recipe", recipe);
    run_.result().set("images.count", set_.size());
    run_.result().set("images.data_free", s_.real.empty());
  }

  // Images that --resume finds must be those that this run would make.
  void expect_own(const ImageSet& found, const std::string& folder) {
    const Value noted = Value::parse(found.recipe);
    Value own = Value::parse(recipe_of(*teacher_, s_.synthesis()));
    for (const char* measured : {"seconds", "threads"})
      if (const Value* value = noted.find(measured)) own.set(measured, *value);
    check(
        noted.json() == own.json(), "--resume: the images in ", folder,
        " were made by another network or with other options, as their recipe.json says; give the same ones, "
        "or start anew without --resume");
  }

  // The upper bound: pictures without their labels, which the teacher's opinion replaces.
  ImageSet real_pictures() {
    std::cout << "--real: the training pictures of " << s_.real << " are opened; this run is not data-free\n";
    const data::Dataset train = some_pictures(
        data::load_dataset(s_.real, s_.common.data, s_.validate ? data::Split::fit : data::Split::train));
    ImageSet set;
    set.images = images_of(train);
    set.labels = answers(*teacher_, set.images);
    Value recipe = Value::Group{};
    recipe.set("pictures", s_.real);
    recipe.set("labels.from", "teacher");
    set.recipe = recipe.json(2) + "\n";
    return set;
  }
  data::Dataset some_pictures(const data::Dataset& all) const {
    std::vector<int64_t> order =
        random_permutation(all.size(), Philox(s_.common.seed, stream_of("real pictures")));
    order.resize(static_cast<size_t>(std::min(s_.images, all.size())));
    return data::subset(all, order);
  }
  data::Transform transform_of(const data::Dataset& pictures) const {
    return fitting_transform(pictures, normalisation_, info_.options.image_size);
  }
  Array images_of(const data::Dataset& pictures) const {
    data::Loader loader(pictures, transform_of(pictures), {.batch = 250});
    Arrays parts;
    for (const data::Batch& batch : loader.epoch(0)) parts.push_back(batch.images);
    return kernels::concat(parts, 0);
  }

  // f of all images, which it sees some at a time.
  static Array in_chunks(const Array& images, const std::function<Tensor(const Tensor&)>& f) {
    const NoGrad no_grad;
    Arrays parts;
    for (int64_t i = 0; i < images.dim(0); i += 250)
      parts.push_back(f(images.slice(i, std::min<int64_t>(250, images.dim(0) - i))).value());
    return kernels::concat(parts, 0);
  }

  std::vector<Array> pictures(bool hard, size_t most) const {
    std::vector<Array> all;
    for (int64_t i = 0; i < set_.size() && all.size() < most; ++i)
      if (static_cast<bool>(set_.labels.hard[static_cast<size_t>(i)]) == hard)
        all.push_back(picture(set_.images, i, scale_));
    return all;
  }

  void show_images() {
    for (const bool hard : {false, true})
      if (const std::vector<Array> some = pictures(hard, 100); !some.empty())
        data::write_png(run_.file(hard ? "hard.png" : "easy.png"), enlarge(contact_sheet(some, 10), 2));
    const NoGrad no_grad;
    made_ = meter(set_.images, set_.labels.soft);
    for (const bool hard : {false, true})
      if (const Difficulty part = made_of(hard); !part.entropy.empty())
        note_difficulty(hard ? "hard" : "easy", part);
    if (set_.size() > 1) run_.result().set("diversity.pairwise_cosine", mean_pairwise_cosine(made_.features));
    note_similarities();
  }

  // Whether it matters how classes are compared: rank correlations over all pairs of classes.
  void note_similarities() {
    const Array weights = classifier_weights(*teacher_);
    const auto pairs = [&](Similarity kind) {
      const Array similarity = class_similarity(weights, kind);
      std::vector<double> values;
      for (int64_t c = 0; c < similarity.dim(0); ++c)
        for (int64_t k = 0; k < c; ++k)
          values.push_back(similarity.data<double>()[c * similarity.dim(0) + k]);
      return values;
    };
    const auto dot = pairs(Similarity::dot), cosine = pairs(Similarity::cosine),
               centred = pairs(Similarity::centred);
    run_.result().set("similarity.spearman_dot_cosine", spearman(dot, cosine).value);
    run_.result().set("similarity.spearman_dot_centred", spearman(dot, centred).value);
    run_.result().set("similarity.spearman_cosine_centred", spearman(cosine, centred).value);
  }

  struct Meter {
    Difficulty difficulty;
    Array features;
  };
  Meter meter(const Array& images, const Array& labels) {
    Arrays features;
    const Array logits = in_chunks(images, [&](const Tensor& x) {
      const Tensor map = teacher_->forward(x, 0, teacher_->head());
      features.push_back(map.rank() == 4 ? mean(map, {1, 2}).value() : map.value());
      return teacher_->forward(map, teacher_->head(), teacher_->blocks().size());
    });
    return {difficulty(logits, labels), kernels::concat(features, 0)};
  }
  Difficulty made_of(bool hard) const {
    Difficulty part;
    for (int64_t i = 0; i < set_.size(); ++i) {
      const auto n = static_cast<size_t>(i);
      if (static_cast<bool>(set_.labels.hard[n]) != hard) continue;
      part.entropy.push_back(made_.difficulty.entropy[n]);
      part.gradient.push_back(made_.difficulty.gradient[n]);
      part.margin.push_back(made_.difficulty.margin[n]);
    }
    part.density = gradient_density(part.gradient);
    return part;
  }
  void note_difficulty(const std::string& name, const Difficulty& d) {
    run_.result().set("difficulty." + name + ".entropy", mean(d.entropy));
    run_.result().set("difficulty." + name + ".gradient", mean(d.gradient));
    run_.result().set("difficulty." + name + ".density", mean(d.density));
    run_.result().set("difficulty." + name + ".margin", mean(d.margin));
    const double most = std::log(std::max(2.0, static_cast<double>(info_.options.classes)));
    run_.result().set("difficulty." + name + ".entropy_histogram",
                      Value::list(histogram(d.entropy, 0, most, 20)));
    run_.result().set("difficulty." + name + ".gradient_histogram",
                      Value::list(histogram(d.gradient, 0, 1, 20)));
    run_.result().set("difficulty." + name + ".margin_histogram", Value::list(histogram(d.margin, 0, 1, 20)));
  }

  // --- quantization and training ---

  Tensor forward(const Tensor& images) { return dynamic_ ? dynamic_->forward(images) : (*student_)(images); }

  // Before images are made: what cannot be reached is known then.
  void quantize() {
    const Protocol protocol = parse_protocol(s_.protocol);
    const quant::Skip skip = s_.selector || s_.skip == "u8" ? quant::Skip::u8 : quant::Skip::shared;
    policy_ = protocol_policy(*student_, protocol, s_.w_bits, s_.a_bits, s_.quantizer, skip);
    fixed_policy_ = policy_;
    if (!s_.selector) {
      sites_ = quant::attach_sites(*student_, policy_);
      return;
    }
    const DynamicOptions dynamic = s_.dynamic();
    policy_ = dynamic_policy(*student_, policy_, dynamic);
    sites_ = quant::attach_sites(*student_, policy_);
    dynamic_ = attach_dynamic_bits(*student_, *sites_, dynamic);
    check_target(*dynamic_, target());
    if (target() > dynamic_->most_cost())
      warn(text("target out of reach: the highest candidates cost ", fixed(dynamic_->most_cost(), 3),
                " times the target's bits, less than --bops ", s_.bops));
  }

  void train() {
    FineTuningOptions options = s_.fine_tuning();
    if (dynamic_) options.target = target();
    const Stopwatch watch;
    std::optional<nn::Checkpoint> before;
    if (s_.common.resume && run_.has(checkpoint_file))
      before = nn::load_checkpoint(run_.file(checkpoint_file));
    const int64_t epochs_done = before ? before->counters.at("epoch") : 0;
    run_.forget_metrics_after("fine-tuning", epochs_done - 1);
    const int64_t images_of_step = std::min(options.batch, set_.size());
    Progress progress(
        "fine-tuning", (options.calibration + int64_t{options.epochs} * options.steps) * images_of_step,
        "images", before ? (options.calibration + epochs_done * options.steps) * images_of_step : 0);
    const std::unique_ptr<nn::Model> folded = copy(*teacher_);
    fine_tune(*student_, *sites_, dynamic_.get(), *folded, set_, options,
              {.progress =
                   [&](int64_t images) {
                     progress.advance(images);
                     interrupt_.stop_here();
                   },
               .after_epoch = [&](const EpochNote& note) { after_epoch(note); },
               .checkpoint =
                   [&](const nn::Checkpoint& now) {
                     nn::save_checkpoint(run_.file(checkpoint_file), now);
                     interrupt_.stop_here();
                   },
               .resume = before ? &*before : nullptr});
    if (shifts()) run_.result().set("selector.shift", meet_target(*dynamic_, set_, target()));
    run_.seconds("fine-tuning", watch.seconds());
    nn::ModelInfo info = info_;
    info.options = student_options();
    info.notes["policy"] = policy_.to_json();
    nn::save_model(run_.file("model.safetensors"), *student_, info);
    data::atomic_write(run_.file("policy.json"), policy_.to_json());
    if (dynamic_) check_selector();
  }

  // On the images that were made: that a selector has failed is known without a data set.
  void check_selector() {
    const Array choices = deployed_choices(*dynamic_, set_);
    const double cost = mean_cost(*dynamic_, choices);
    run_.result().set("selector.target", target());
    run_.result().set("selector.cost_on_made", cost);
    if (const auto sentence = missed_target(cost, target(), "made images")) warn(*sentence);
    const auto candidates = static_cast<int64_t>(dynamic_->options().candidates.size());
    if (const auto sentence = collapse(choices, candidates, "made images")) warn(*sentence);
  }

  // Whether what training left of the selector is moved to the target.
  bool shifts() const { return dynamic_ && s_.epochs > 0 && !s_.no_shift; }

  // Relative BOPs that the selector shall spend.
  double target() const {
    const Budget budget = Budget::parse(s_.bops);
    return budget.absolute ? budget.value / dynamic_->target_bops() : budget.value;
  }

  void after_epoch(const EpochNote& n) {
    run_.metrics({{"phase", "fine-tuning"},
                  {"epoch", n.epoch},
                  {"loss", n.loss},
                  {"kd", n.kd},
                  {"ce", n.ce},
                  {"features", n.features},
                  {"budget", n.budget},
                  {"cost", n.cost},
                  {"deployed_cost", n.deployed_cost},
                  {"bits", n.bits},
                  {"bit_entropy", n.bit_entropy},
                  {"selector_gradient", n.selector_gradient}});
    if (s_.eval.empty() || s_.no_best) return;
    nn::Checkpoint network;  // for the final evaluation
    network.parts["student"] = student_->state();
    nn::save_checkpoint(run_.file(epoch_file(n.epoch)), network);
  }
  static std::string epoch_file(int epoch) { return text("epoch-", epoch, ".ckpt"); }

  void lower() {
    student_->eval();
    if (dynamic_) dynamic_->choosing = Choosing::hard;
    const std::string file = run_.file("integer.safetensors");
    integer::save(lowered(*student_, normalisation_, class_names_, policy_,
                          [&](const Tensor& x) { return forward(x); }),
                  file);
    integer_ = integer::load(file);
    run_.result().set("cost.params", teacher_->parameter_count());
    run_.result().set("cost.bytes", integer::parameter_bytes(integer_));
    run_.result().set("cost.bops", integer::bops(integer_, at_target()));
    std::cout << "integer model: " << bytes(static_cast<double>(integer::parameter_bytes(integer_))) << ", "
              << scaled(static_cast<double>(integer::bops(integer_, at_target()))) << " BOPs"
              << (dynamic_ ? " at the target's bits" : "") << "; " << file << "\n";
    if (!dynamic_) return;
    selector_.emplace(dynamic_, integer_, run_);
    selector_->measure(fixed_network(), set_);
  }
  std::vector<int> at_target() const {
    if (!dynamic_) return {};
    return std::vector<int>(dynamic_->sites().size(), static_cast<int>(dynamic_->target_candidate()));
  }

  // The student at the target's bits alone, to measure its time; its batch norms are the shared ones.
  integer::Model fixed_network() const {
    const auto fixed_student = nn::make_model(info_.model, student_options());
    nn::State own = fixed_student->state(), trained = student_->state();
    for (auto& [name, array] : own) array.assign(trained.at(name));
    quant::attach_sites(*fixed_student, fixed_policy_);
    quant::calibrate(*fixed_student, set_.images.slice(0, std::min<int64_t>(64, set_.size())));
    return lowered(*fixed_student, normalisation_, class_names_, fixed_policy_);
  }
  nn::ModelOptions student_options() const {
    nn::ModelOptions options = info_.options;
    options.style.folded = options.style.folded || parse_protocol(s_.protocol) == Protocol::folded;
    return options;
  }

  // --- the only place that opens test pictures ---

  void final_evaluation() {
    if (s_.eval.empty()) return;
    std::cout << "everything is made and saved; only now are the test pictures of " << s_.eval
              << " opened, to measure\n";
    const Stopwatch watch;
    const data::Split split = s_.validate ? data::Split::validation : data::Split::test;
    data::Dataset test = data::load_dataset(s_.eval, s_.common.data, split);
    if (s_.limit > 0) test = data::first(test, s_.limit);
    check(test.classes() == info_.options.classes, "--eval ", s_.eval, ": it has ", test.classes(),
          " classes, but ", s_.model, " has ", info_.options.classes);
    const data::Transform transform = transform_of(test);
    const double full = evaluate(*teacher_, test, transform).accuracy;
    const auto measure = [&] {
      const NoGrad no_grad;
      return evaluate([&](const Array& x) { return forward(x).value(); }, test, transform).accuracy;
    };
    const double last = measure();
    run_.result().set("accuracy.float", full);
    run_.result().set("accuracy.fake_quant", last);
    run_.result().set("accuracy.drop", full - last);
    best_epoch(measure, last);
    agreement_ = compare(integer_, *student_, test, transform, [&](const Tensor& x) { return forward(x); });
    agreement_->record(run_.result());
    std::cout << agreement_->str() << "\n";
    compare_difficulty(test);
    if (dynamic_)
      selector_->judge(test, transform,
                       in_chunks(images_of(test), [&](const Tensor& x) { return (*teacher_)(x); }), target(),
                       s_.common.seed, [&](const std::string& sentence) { warn(sentence); });
    run_.seconds("evaluation", watch.seconds());
    summary_ = text("float ", percent(full), ", quantized ", percent(last), " (last epoch), integer ",
                    percent(agreement_->accuracy()));
    std::cout << summary_ << "\n";
  }

  // The literature reports the best epoch on the test set; here it stands beside the last one, which counts.
  void best_epoch(const std::function<double()>& measure, double last) {
    if (s_.no_best || s_.epochs == 0) return;
    for (int epoch = 0; epoch < s_.epochs; ++epoch)
      if (!run_.has(epoch_file(epoch))) return;  // trained without --eval
    double best = last;
    const nn::State final_state = nn::clone(student_->state());
    std::vector<double> curve;
    for (int epoch = 0; epoch < s_.epochs; ++epoch) {
      student_->load_state(nn::load_checkpoint(run_.file(epoch_file(epoch))).parts.at("student"));
      if (shifts()) meet_target(*dynamic_, set_, target());  // or epochs of different BOPs would be compared
      curve.push_back(measure());
      best = std::max(best, curve.back());
    }
    student_->load_state(final_state);
    run_.result().set("accuracy.best_epoch", best);
    run_.result().set("accuracy.epochs", Value::list(curve));
  }

  void compare_difficulty(const data::Dataset& test) {
    const data::Dataset some = some_of(test, 1000);
    const NoGrad no_grad;
    const Array labels = kernels::one_hot(Array::of(some.labels), info_.options.classes);
    const Meter real = meter(images_of(some), labels);
    note_difficulty("real", real.difficulty);
    for (const bool hard : {false, true}) {
      const Difficulty part = made_of(hard);
      if (part.entropy.empty()) continue;
      const std::string name = text("difficulty.", hard ? "hard" : "easy", "_to_real.");
      run_.result().set(name + "entropy_wasserstein", mean_distance(part.entropy, real.difficulty.entropy));
      run_.result().set(name + "entropy_ks", largest_distance(part.entropy, real.difficulty.entropy));
      run_.result().set(name + "gradient_wasserstein",
                        mean_distance(part.gradient, real.difficulty.gradient));
      run_.result().set(name + "gradient_ks", largest_distance(part.gradient, real.difficulty.gradient));
    }
    run_.result().set("diversity.pairwise_cosine_real", mean_pairwise_cosine(real.features));
    if (real.features.dim(0) > 5)
      run_.result().set("diversity.coverage", coverage(real.features, made_.features));
    // How far made images are from real ones, beside how far real ones are from each other.
    run_.result().set("diversity.nearest_real", mean(nearest_distances(made_.features, real.features)));
    if (const int64_t half = real.features.dim(0) / 2; half > 0)
      run_.result().set(
          "diversity.nearest_real_of_real",
          mean(nearest_distances(real.features.slice(0, half), real.features.slice(half, half))));
  }

  // --- what people look at ---

  void warn(const std::string& sentence) {
    warnings_.push_back(sentence);
    std::cout << "warning: " << sentence << "\n";
  }

  Curve curve(const std::string& field) const {
    const RunDirectory::Series series = run_.series("epoch", field);
    return {field, series.x, series.y};
  }

  void finish() {
    run_.result().set("warnings", Value::list(warnings_));
    Report report(text(s_.model, " without data, ", s_.w_bits, "/", s_.a_bits, " bits"),
                  summary_.empty() ? "not measured: no --eval" : summary_);
    for (const std::string& warning : warnings_) report.paragraph(warning);
    report.section("Images");
    for (const bool hard : {false, true}) {
      std::vector<Picture> row;
      for (const Array& p : pictures(hard, 24)) row.push_back({p, ""});
      if (!row.empty()) report.pictures(hard ? "Hard" : "Easy", row, 64);
    }
    report.section("Training");
    report.curves("Loss", "epoch", "loss", {curve("loss"), curve("kd"), curve("ce")});
    if (dynamic_) {
      report.section("Bits");
      report.curves("Cost", "epoch", "relative BOPs", {curve("cost"), curve("deployed_cost")});
      report.curves("Entropy of the bits", "epoch", "nats", {curve("bit_entropy")});
      report.table(selector_->arms());
    }
    report.save(run_.file("report.html"));
    run_.finish();
    std::cout << "see " << run_.file("report.html") << "\n";
    if (agreement_) agreement_->expect_equal(run_.file("result.json"));
  }

  Settings s_;
  Interrupt interrupt_;
  RunDirectory run_;
  std::unique_ptr<nn::Model> teacher_, student_;
  nn::ModelInfo info_;
  data::Normalisation normalisation_;
  PixelScale scale_;
  std::vector<std::string> class_names_, warnings_;
  ImageSet set_;
  Meter made_;
  quant::Policy policy_, fixed_policy_;
  std::shared_ptr<quant::Sites> sites_;
  std::shared_ptr<DynamicBits> dynamic_;
  integer::Model integer_;
  std::optional<Agreement> agreement_;
  std::optional<SelectorMeasurements> selector_;  // with --selector
  std::string summary_;
};

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    Settings settings;
    settings.parse(argc, argv);
    DataFree(std::move(settings)).go();
    return 0;
  });
}
