// Searches the bits of each layer under a budget of BOPs, on a small data set, for a policy that also holds
// on another one: GMPQ (Wang et al., ICCV'21) and its peers.
//
//     build/examples/search --model resnet20 --dataset cifar10 --init out/float/model.safetensors --bops 361M
//         --dtype bf16 --out out/search
//     build/examples/qat --model resnet20 --dataset cifar100 --init out/float100/model.safetensors
//         --policy out/search/policy.json
//     build/examples/search --describe out/search/policy.json --model resnet20
//
// quant/search/README.md says what is searched and how; quant/results/search_*.json are tables of such runs,
// for examples/table.
#include <algorithm>
#include <cmath>
#include <functional>
#include <iostream>
#include <optional>

#include "../../autograd/ops.h"
#include "../../autograd/recorder.h"
#include "../../data/formats/file.h"
#include "../../data/formats/image.h"
#include "../../nn/batch_norm_statistics.h"
#include "../../nn/checkpoint.h"
#include "../../quant/search/budget.h"
#include "../../quant/search/hessian.h"
#include "../../quant/search/peers.h"
#include "../../quant/search/risk.h"
#include "../../quant/sites.h"
#include "../common/attribution.h"
#include "../common/policy_description.h"
#include "../common/progress.h"
#include "../common/quantization.h"
#include "../common/task.h"
#include "../common/teacher.h"
#include "settings.h"

using namespace stairgrad;
using namespace stairgrad::examples;

namespace {

// What --model is on the pictures of --dataset, if that is given, and as it was published otherwise.
nn::ModelOptions described_network(const Settings& s) {
  nn::ModelOptions options = nn::usual_options(s.task.model);
  options.width = s.task.width;
  if (s.has_dataset) {
    const data::Dataset pictures = data::load_dataset(s.task.dataset, s.common.data, data::Split::test);
    options.in_channels = pictures.image_shape[2];
    options.image_size = pictures.image_shape[0];
    options.classes = pictures.classes();
  }
  if (s.task.size > 0) options.image_size = s.task.size;
  check(options.image_size > 0, "--dataset ", s.task.dataset,
        ": its pictures have no common size; say with --size what the network sees");
  return options;
}

int describe(const Settings& s) {
  const nn::ModelOptions options = described_network(s);
  const auto model = nn::make_model(s.task.model, options);
  nn::initialise(*model, s.common.seed);
  const quant::Policy policy = quant::Policy::load(s.describe, *model);
  const quant::Accounting accounting = quant::account(*model, policy);
  std::cout << s.task.model << " for pictures of " << options.image_size << " x " << options.image_size
            << " x " << options.in_channels << "\n"
            << policy_table(*model, policy).text() << "\n"
            << accounting_table(accounting, s.task.model).text() << "\n"
            << "weights: " << bytes(static_cast<double>(accounting.weight_bits) / 8) << "\n";
  const MeasuredLatency latency = measure_latency(*model, policy);
  if (latency.reason.empty())
    std::cout << "integer runtime: " << fixed(latency.ms, 3) << " ms for one image, "
              << bytes(static_cast<double>(latency.bytes)) << " of parameters\n";
  else
    std::cout << "no integer form: " << latency.reason << "\n";
  return 0;
}

class Search {
 public:
  explicit Search(Settings settings)
      : s_(std::move(settings)),
        task_(load_task(s_.task, s_.common.data, s_.common.seed)),
        run_(s_.common.out, s_.common.resume),
        space_(*task_.model, parse_bits("--w-candidates", s_.w_bits), parse_bits("--a-candidates", s_.a_bits),
               s_.search_ends),
        budget_bops_(quant::parse_bops(s_.bops)),
        budget_(budget_bops_, s_.stiffness, s_.rate) {
    quant::check_quantizer(s_.policy.quantizer);
    if (!s_.policy.eight_bit_quantizer.empty()) quant::check_quantizer(s_.policy.eight_bit_quantizer);
    space_.check_budget(budget_bops_, s_.tolerance / 100);
    run_.describe("search", s_.values, s_.common.seed);
    if (s_.share < 1) keep_share();
    float_ = task_.as_trained();
    teacher_ = s_.teachers.empty() ? nn::explainer_of(*float_) : explainer_of("--teachers", s_.teachers);
    if (!s_.references.empty()) references_ = explainer_of("--references", s_.references);
  }

  void go() {
    const Stopwatch watch;
    std::optional<double> trained;  // seconds, in all processes of a search that was resumed
    if (s_.trains())
      trained = train();
    else if (s_.method == "hessian")
      choice_ = by_hessian();
    else if (s_.method == "random")
      choice_ = quant::random_choice(space_, lowest(), budget_bops_, s_.common.seed);
    else
      choice_ = quant::uniform_choice(space_, budget_bops_);
    run_.seconds("search", trained ? *trained : watch.seconds());
    finish();
  }

 private:
  void keep_share() {
    std::vector<int64_t> indices;
    const int64_t size = task_.train.size(),
                  kept = std::max<int64_t>(1, std::llround(s_.share * static_cast<double>(size)));
    for (int64_t i = 0; i < kept; ++i) indices.push_back(i * size / kept);
    task_.train = data::subset(task_.train, std::move(indices));
  }
  int64_t lowest() const {
    return std::llround(static_cast<double>(budget_bops_) * (1 - s_.tolerance / 100));
  }
  quant::Policy policy_of(const quant::BitChoice& choice) const {
    return space_.policy(
        *float_, choice, {s_.policy.w_bits, s_.policy.a_bits, s_.policy.quantizer, s_.policy.granularity},
        quant::parse_skip(s_.policy.skip), quant::parse_ends(s_.policy.ends), s_.policy.eight_bit_quantizer);
  }

  // The mean map of the networks in these files.
  nn::Explainer explainer_of(const std::string& option, const std::string& files) const {
    std::vector<nn::Explainer> all;
    for (const std::string& file : split(files)) {
      const std::string path = data::find_file(file, s_.common.data);
      const int64_t classes = nn::read_model_info(path).options.classes;
      check(classes == task_.info.options.classes, option, ' ', file, ": got a network for ", classes,
            " classes, expected ", task_.info.options.classes);
      const auto teacher = std::make_shared<const Teacher>(Teacher::load(path, task_.normalisation));
      all.push_back(
          [teacher](const Tensor& images, const std::string& block, const std::vector<int32_t>& classes) {
            return teacher->explain(images, block, classes);
          });
    }
    return nn::mean_of(std::move(all));
  }

  // --- the search by gradients ---

  // Shares without noise are those that cost, choice and evaluation go by.
  void soften(bool noise) {
    const double done = all_steps_ > 0 ? steps_.item() / all_steps_ : 0;
    supernet_->soften({.temperature = s_.temperature * std::pow(s_.last_temperature / s_.temperature, done),
                       .gumbel = noise && s_.importance == "gumbel",
                       .seed = s_.common.seed,
                       .step = std::llround(steps_.item())});
  }

  Tensor loss_of(const Tensor& images, const data::Batch& batch) {
    soften(/*noise=*/true);
    const Tensor cost = supernet_->expected_bops();
    expected_bops_ = cost.item();
    Tensor logits, imitation;
    if (s_.attribution > 0) {
      const bool measure = static_cast<int64_t>(steps_.item()) % every_ == 0;
      const quant::Risk risk = quant::generalisation_risk(*task_.model, *supernet_, teacher_, images,
                                                          batch.labels, s_.risk, measure);
      logits = risk.logits;
      imitation = risk.imitation * s_.attribution;
      note("imitation", imitation.item());
      note("exponent", risk.exponent);
      note("empty", 100 * static_cast<double>(risk.empty) / static_cast<double>(batch.size()));
      if (measure) note("agreement", risk.agreement);
    } else {
      logits = cast((*task_.model)(images), DType::f32);
    }
    const Tensor entropy = cross_entropy_of(logits, batch, s_.training.label_smoothing);
    note("cross_entropy", entropy.item());
    const Tensor loss = entropy + budget_.penalty(cost);
    return imitation.defined() ? loss + imitation : loss;
  }

  // Means since the last line of metrics.
  void note(const std::string& name, double value) {
    sums_[name].first += value;
    sums_[name].second += 1;
  }

  void note_shares() {
    Value line = Value::Group{{"phase", "search"}, {"epoch", steps_.item() / static_cast<double>(batches_)}};
    for (const auto& [name, sum] : sums_) line.set("losses." + name, sum.first / sum.second);
    sums_.clear();
    line.set("bops", expected_bops_);
    line.set("multiplier", budget_.multiplier());
    line.set("bits.mean", supernet_->mean_bits());
    double entropy = 0;
    for (const auto& layer : supernet_->layers()) {
      for (const auto& [site, kind] : {std::pair{layer.weight, "w"}, std::pair{layer.input, "a"}}) {
        const NoGrad no_grad;
        const std::vector<double> shares = site->shares().value().to_vector();
        for (size_t j = 0; j < shares.size(); ++j) {
          line.set(text("shares.", kind, '.', layer.name, '.', site->bits()[j]), shares[j]);
          if (shares[j] > 0)
            entropy -= shares[j] * std::log(shares[j]) / static_cast<double>(2 * supernet_->layers().size());
        }
        line.set(text("bits.", kind, '.', layer.name), site->expected_bits().item());
      }
    }
    line.set("entropy", entropy);
    run_.metrics(line);
  }

  // Statistics of batch norms from some batches that no step of the search sees.
  void fit_batch_norms() {
    data::Loader loader(task_.train, task_.training_transform(s_.training), loader_options(s_.training));
    loader.start(s_.training.epochs);
    data::Batch batch;
    int left = 8;
    nn::reestimate_batch_norms(*task_.model,
                               [&] { return left-- > 0 && loader.next(batch) ? batch.images : Array(); });
  }

  // Returns the seconds that it took.
  double train() {
    check(s_.training.mixup == 0 && s_.training.cutmix == 0,
          "--mixup and --cutmix: a mixed picture has no class to explain, expected both 0");
    check(s_.training.epochs > 0, "--epochs 0: a search needs at least one");
    if (s_.scratch) {
      nn::initialise(*task_.model, s_.common.seed);
      fit_batch_norms();  // ranges start from what layers get in training
    }
    supernet_ = quant::attach_supernet(*task_.model, space_, {s_.policy.quantizer, s_.policy.granularity});
    calibrate(*task_.model, task_, s_.common.seed);
    data::Loader loader(task_.train, task_.training_transform(s_.training), loader_options(s_.training));
    batches_ = loader.batches();
    all_steps_ = static_cast<double>(s_.training.epochs * batches_);
    every_ = std::max<int64_t>(1, batches_ / 10);
    const auto optimiser = make_optimiser(
        s_.training, quant::supernet_groups(*task_.model, s_.training.weight_decay, s_.importance_lr));
    TrainingJob job{.phase = "search",
                    .model = *task_.model,
                    .optimiser = *optimiser,
                    .loader = loader,
                    .options = s_.training,
                    .run = run_,
                    .checkpoint = "search.ckpt",
                    .notes = notes()};
    job.parts = {{"budget", budget_.state()}, {"progress", {{"steps", steps_}}}};
    job.loss = [&](const Tensor& images, const data::Batch& batch) { return loss_of(images, batch); };
    job.after_step = [&] {
      supernet_->project();
      budget_.update(expected_bops_);
      steps_.data<double>()[0] += 1;
      if (static_cast<int64_t>(steps_.item()) % every_ == 0) note_shares();
    };
    const data::Dataset measured = some_of(task_.train, 1000);
    job.measured = "training (unchanged pictures)";
    job.evaluate = [&] {
      soften(/*noise=*/false);
      write_policy_of_epoch();
      return evaluate(*task_.model, measured, task_.test_transform(), s_.training.type());
    };
    const double seconds = examples::train(job, s_.common.resume);
    soften(/*noise=*/false);
    decide();
    return seconds;
  }

  // Whatever the value of a resumed run depends on.
  std::map<std::string, std::string> notes() const {
    std::map<std::string, std::string> notes = {
        {"activation", nn::to_string(task_.info.options.style.activation)},
        {"normalisation", task_.info.notes.at("normalisation")}};
    for (const char* name : {"model",
                             "dataset",
                             "init",
                             "import",
                             "method",
                             "bops",
                             "w-candidates",
                             "a-candidates",
                             "search-ends",
                             "quantizer",
                             "granularity",
                             "width",
                             "size",
                             "limit",
                             "share",
                             "scratch",
                             "teachers",
                             "importance",
                             "importance-lr",
                             "temperature",
                             "last-temperature",
                             "stiffness",
                             "rate",
                             "attribution",
                             "block",
                             "explain",
                             "exponent",
                             "exponent-at-2",
                             "exponent-at-8",
                             "exponent-constant",
                             "exponent-product",
                             "top-k",
                             "keep-empty",
                             "levels",
                             "cells",
                             "beta"})
      notes[name] = s_.values.find(name)->json();
    return notes;
  }

  // The policy that a search would give that ended now.
  std::optional<quant::BitChoice> best_within(int64_t budget) const {
    return space_.best([&](size_t layer, quant::LayerBits bits) { return supernet_->merit(layer, bits); },
                       std::llround(static_cast<double>(budget) * (1 - s_.tolerance / 100)), budget);
  }
  void write_policy_of_epoch() const {
    const auto epoch = std::llround(steps_.item() / static_cast<double>(batches_));
    if (const auto choice = best_within(budget_bops_))
      data::atomic_write(run_.file(text("policy-epoch", epoch, ".json")), policy_of(*choice).to_json());
  }

  void decide() {
    int ties = 0;
    const quant::BitChoice argmax = supernet_->chosen(&ties);
    const auto within = best_within(budget_bops_);
    check(within.has_value(), "no policy of these candidates has BOPs from ",
          quant::in_giga(static_cast<double>(lowest())), " to ",
          quant::in_giga(static_cast<double>(budget_bops_)), "; raise --tolerance");
    choice_ = *within;
    int64_t changed = 0;
    for (size_t i = 0; i < choice_.size(); ++i)
      changed += (choice_[i].w != argmax[i].w) + (choice_[i].a != argmax[i].a);
    const double expected = supernet_->expected_bops().item();
    Value& result = run_.result();
    result.set("search.expected_bops", expected);
    result.set("search.argmax_bops", space_.bops(argmax));
    result.set("search.changed_sites", changed);
    result.set("search.ties", ties);
    result.set("search.multiplier", budget_.multiplier());
    decision_ = text("Expected BOPs at the end ", quant::in_giga(expected), ", argmax ",
                     quant::in_giga(static_cast<double>(space_.bops(argmax))), ", ", ties, " ties; ", changed,
                     " of ", 2 * choice_.size(), " sites changed to meet the budget.");
  }

  // --- the search by curvature ---

  quant::BitChoice by_hessian() {
    const data::Dataset some = some_of(task_.train, s_.hessian_images);
    data::Loader loader(some, task_.test_transform(), {.batch = some.size()});
    loader.start(0);
    data::Batch batch;
    loader.next(batch);
    const quant::HessianOptions options{s_.policy.quantizer, s_.policy.granularity, s_.probes,
                                        s_.common.seed};
    const auto traces = quant::hessian_traces(*task_.model, space_, batch.images, batch.labels, options);
    for (const auto& [name, trace] : traces) run_.result().set("search.traces." + name, trace);
    const auto choice = space_.best(quant::hessian_merit(*task_.model, space_, traces, batch.images, options),
                                    lowest(), budget_bops_);
    check(choice.has_value(), "no policy of these candidates has BOPs within ", s_.tolerance,
          " % of the budget");
    return *choice;
  }

  // --- what came out ---

  // The supernet with the shares of one choice alone, and batch norms that fit it.
  void become_child(const quant::BitChoice& choice) {
    for (size_t i = 0; i < choice.size(); ++i) {
      const auto& layer = supernet_->layers()[i];
      for (const auto& [site, bits] :
           {std::pair{layer.weight, choice[i].w}, std::pair{layer.input, choice[i].a}}) {
        std::vector<double> logits;
        for (const int candidate : site->bits()) logits.push_back(candidate == bits ? 0 : -1000);
        Array values = site->logits.value();
        values.assign(cast(Array::of(logits), values.dtype()));
        site->soften({});
      }
    }
    fit_batch_norms();
  }

  Curve trade_off() {
    Curve curve{"children of the supernet, not trained on", {}, {}};
    const nn::State saved = nn::clone(task_.model->state());
    std::vector<quant::BitChoice> choices;
    const auto least = static_cast<double>(space_.bops({space_.w_bits().front(), space_.a_bits().front()})),
               most = static_cast<double>(space_.bops({space_.w_bits().back(), space_.a_bits().back()}));
    for (int i = 0; i < s_.curve_points; ++i) {
      const double at = s_.curve_points > 1 ? i / static_cast<double>(s_.curve_points - 1) : 0;
      if (const auto choice = best_within(std::llround(least * std::pow(most / least, at))))
        choices.push_back(*choice);
    }
    const data::Dataset measured = some_of(task_.train, 500);
    for (const quant::BitChoice& choice : choices) {
      become_child(choice);
      const Evaluated found = evaluate(*task_.model, measured, task_.test_transform(), s_.training.type());
      curve.x.push_back(static_cast<double>(space_.bops(choice)) / 1e9);
      curve.y.push_back(found.accuracy);
      task_.model->load_state(saved);
      soften(/*noise=*/false);
    }
    return curve;
  }

  Curve curve(const std::string& name, const std::string& field) const {
    const RunDirectory::Series series = run_.series("epoch", field);
    return {name, series.x, series.y};
  }

  void show_search(Report& report) {
    report.section("Search");
    report.paragraph(decision_);
    report.curves("Loss", "epoch", "",
                  {curve("cross-entropy", "losses.cross_entropy"), curve("imitation", "losses.imitation")});
    report.curves("Expected BOPs", "epoch", "BOPs", {curve("expected", "bops")});
    report.curves("Multiplier of the budget", "epoch", "", {curve("multiplier", "multiplier")});
    report.curves("Entropy of the shares, mean over sites", "epoch", "nats", {curve("entropy", "entropy")});
    if (s_.attribution > 0) {
      report.curves("Exponent", "epoch", "p", {curve("p", "losses.exponent")});
      report.curves("Rank correlation with the float network's maps", "epoch", "Spearman",
                    {curve("batch", "losses.agreement")});
      report.curves("Images without support", "epoch", "percent", {curve("empty", "losses.empty")});
    }
    for (const auto& [kind, title] : {std::pair{"w", "weights"}, std::pair{"a", "activations"}}) {
      std::vector<Curve> bits;
      for (const quant::SearchLayer& layer : space_.layers())
        bits.push_back(curve(layer.name, text("bits.", kind, '.', layer.name)));
      report.curves(text("Expected bits of ", title), "epoch", "bits", bits);
      for (const int candidate : *kind == 'w' ? space_.w_bits() : space_.a_bits()) {
        std::vector<Curve> shares;
        for (const quant::SearchLayer& layer : space_.layers())
          shares.push_back(curve(layer.name, text("shares.", kind, '.', layer.name, '.', candidate)));
        report.curves(text("Share of ", candidate, " bits of ", title), "epoch", "share", shares);
      }
    }
    if (s_.curve_points > 0) {
      const Curve found = trade_off();
      report.curves("Trade-off: policies of other budgets, by the same shares", "BOPs (1e9)", "percent",
                    {found});
      run_.result().set("search.trade_off.gbops", Value::list(found.x));
      run_.result().set("search.trade_off.accuracy", Value::list(found.y));
    }
  }

  // Over the searched layers of a kind.
  struct MeanBits {
    double w = 0, a = 0;
    int layers = 0;
  };
  template <class Kind>
  MeanBits mean_bits(const Kind& counts) const {
    MeanBits mean;
    for (size_t i = 0; i < choice_.size(); ++i) {
      if (!counts(space_.layers()[i])) continue;
      mean.w += choice_[i].w;
      mean.a += choice_[i].a;
      ++mean.layers;
    }
    mean.w /= std::max(1, mean.layers);
    mean.a /= std::max(1, mean.layers);
    return mean;
  }

  // Figures of what the papers say about bits: activations have more than weights (F1), down-sample layers
  // more than the others (F2), and how that differs between networks (F3).
  void record_means(const MeanBits& mean, Value& result) const {
    int64_t more_of_activations = 0;
    for (const quant::LayerBits& bits : choice_) more_of_activations += bits.a > bits.w;
    result.set("search.mean_w_bits", mean.w);
    result.set("search.mean_a_bits", mean.a);
    result.set("search.activation_to_weight_bits", mean.a / mean.w);
    result.set("search.layers_with_more_activation_bits", more_of_activations);
    const auto downsample = [](const quant::SearchLayer& layer) {
      return layer.name.find(".downsample.") != std::string::npos;
    };
    const MeanBits own = mean_bits(downsample), others = mean_bits(std::not_fn(downsample));
    if (own.layers == 0) return;
    result.set("search.downsample.mean_w_bits", own.w);
    result.set("search.downsample.mean_a_bits", own.a);
    result.set("search.others.mean_w_bits", others.w);
    result.set("search.others.mean_a_bits", others.a);
  }

  void finish() {
    const quant::Policy policy = policy_of(choice_);
    data::atomic_write(run_.file("policy.json"), policy.to_json());
    const quant::Accounting accounting = quant::account(*float_, policy);
    const int64_t own = space_.bops(choice_);
    Value& result = run_.result();
    record(accounting, result);
    record_bits(policy, result);
    const MeanBits mean = mean_bits([](const quant::SearchLayer&) { return true; });
    result.set("search.method", s_.title());
    result.set("search.budget", budget_bops_);
    result.set("search.bops", own);
    result.set("search.gbops", static_cast<double>(own) / 1e9);
    record_means(mean, result);
    const double minutes = result.find("seconds.search")->number() / 60;
    result.set("search.minutes", minutes);

    Report report(text(s_.task.model, " on ", s_.task.dataset, ", ", s_.title()),
                  text(quant::in_giga(static_cast<double>(own)), " BOPs of a budget of ",
                       quant::in_giga(static_cast<double>(budget_bops_)),
                       " in the searched layers, found in ", duration(60 * minutes)));
    report.section("Policy");
    add_bits(report, policy, *float_);
    report.table(accounting_table(accounting, s_.task.model));
    if (s_.trains()) {
      show_search(report);
      become_child(choice_);
    } else {
      quant::attach_sites(*task_.model, policy);
      calibrate(*task_.model, task_, s_.common.seed);
    }
    const AttributionFigures figures = measure_attribution(*task_.model, *float_, task_, s_.figures);
    figures.record(result);
    std::string looks = figures.str();
    if (references_) {
      const double error = rank_error_to(references_, *task_.model, task_, s_.figures);
      result.set("attribution.references.rank_error", error);
      looks += text(" Rank error against the mean map of the references ", fixed(error, 3), ".");
    }
    const Array sheet = show_attribution(report, *task_.model, *float_, task_);
    report.paragraph(looks);
    data::write_png(run_.file("attribution.png"), sheet);
    report.save(run_.file("report.html"));
    run_.finish();
    std::cout << policy_table(*float_, policy).text() << "\n"
              << s_.title() << ": " << quant::in_giga(static_cast<double>(own)) << " BOPs of "
              << quant::in_giga(static_cast<double>(budget_bops_))
              << (s_.search_ends ? " (all layers)" : " (all layers but the first and the last)")
              << ", mean bits " << fixed(mean.w, 2) << " of weights and " << fixed(mean.a, 2)
              << " of activations, found in " << duration(60 * minutes) << "\n"
              << (decision_.empty() ? "" : decision_ + "\n") << looks << "\nsee " << run_.file("policy.json")
              << " and " << run_.file("report.html") << "\n";
  }

  Settings s_;
  Task task_;
  RunDirectory run_;
  quant::SearchSpace space_;
  int64_t budget_bops_;
  quant::Budget budget_;
  std::unique_ptr<nn::Model> float_;  // the network in floats, as it was at the start
  nn::Explainer teacher_, references_;
  std::shared_ptr<quant::Supernet> supernet_;
  quant::BitChoice choice_;
  std::string decision_;
  Array steps_ = Array::scalar(0, DType::f64);
  double all_steps_ = 0, expected_bops_ = 0;
  int64_t batches_ = 1, every_ = 1;
  std::map<std::string, std::pair<double, int>> sums_;
};

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    Settings settings;
    settings.parse(argc, argv);
    if (!settings.describe.empty()) return describe(settings);
    Search(std::move(settings)).go();
    return 0;
  });
}
