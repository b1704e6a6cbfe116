// Post-training quantization: a trained network and a few pictures without labels become an integer model.
//
//     build/examples/ptq --model resnet20 --dataset cifar10 --init weights/akamaster_resnet20-12fca82f.th
//         --import pytorch --method qdrop --wbits 4 --abits 4 --out out/ptq
//
// quant/ptq/README.md explains the methods; quant/results/ptq_*.json are tables of such runs (table.cpp).
#include <cmath>
#include <filesystem>
#include <iostream>
#include <map>
#include <numeric>
#include <optional>

#include "../../data/formats/safetensors.h"
#include "../../nn/checkpoint.h"
#include "../../quant/cost.h"
#include "../../quant/ptq/bias_correction.h"
#include "../../quant/ptq/distribution_correction.h"
#include "../../quant/ptq/equalisation.h"
#include "../../quant/ptq/scale_search.h"
#include "../common/deployment.h"
#include "../common/interrupt.h"
#include "../common/policy_description.h"
#include "../common/progress.h"
#include "../common/report.h"
#include "../common/statistics.h"
#include "../common/table.h"
#include "settings.h"

using namespace stairgrad;
using namespace stairgrad::examples;

namespace {

/// One quantization with one draw of pictures.
struct Draw {
  uint64_t seed = 0;
  bool host = false;                ///< the plain method, to compare with
  double accuracy = 0, floats = 0;  ///< of the quantized network and of the float one, on the same pictures
  double error = 0;                 ///< loss of hard weights, summed over the units of the last phase
  double seconds = 0;               ///< without distribution correction, which draws may share in a cache

  bool is(uint64_t other_seed, bool other_host) const { return seed == other_seed && host == other_host; }
  std::string name() const { return text("seed ", seed, host ? ", host" : ""); }
  Value value() const {
    return Value::Group{{"seed", seed},
                        {"host", host},
                        {"accuracy", accuracy},
                        {"float", floats},
                        {"reconstruction_error", error},
                        {"seconds", seconds}};
  }

  // As checkpoints have it.
  Array array() const {
    return Array::of<double>({static_cast<double>(seed), host ? 1.0 : 0.0, accuracy, floats, error, seconds});
  }
  static Draw of(const Array& array) {
    const std::vector<double> v = array.to_vector();
    return {static_cast<uint64_t>(v[0]), v[1] != 0, v[2], v[3], v[4], v[5]};
  }
};

class Ptq {
 public:
  explicit Ptq(Settings settings)
      : s_(std::move(settings)),
        task_(load_task(s_.task, s_.common.data, s_.common.seed)),
        run_(s_.common.out, s_.common.resume) {
    run_.describe("ptq", s_.values, s_.common.seed);
    float_state_ = nn::clone(task_.model->state());
    pictures_ = s_.calib_from_test ? task_.test : task_.train;
  }

  void go() {
    resume();
    const Stopwatch watch;
    float_ = evaluate(*task_.model, task_.test, task_.test_transform());
    run_.seconds("float evaluation", watch.seconds());
    std::cout << s_.task.model << " in floats: " << percent(float_.accuracy) << "\n";
    // First the one that was begun: the checkpoint has room for the units of one draw.
    if (begun_) run_draw(begun_->seed, begun_->host);
    const bool host = s_.seeds > 1 && s_.has_additions() && !s_.no_host;
    for (int i = 0; i < s_.seeds; ++i) {
      const uint64_t seed = s_.common.seed + static_cast<uint64_t>(i);
      if (host) run_draw(seed, /*host=*/true);
      run_draw(seed, /*host=*/false);
    }
    summarise();
    finish();
  }

 private:
  // --- data ---

  data::Dataset drawn(uint64_t seed) const {
    std::vector<int64_t> order = random_permutation(pictures_.size(), Philox(seed, stream_of("calibration")));
    order.resize(static_cast<size_t>(std::min(s_.calib, pictures_.size())));
    return data::subset(pictures_, order);
  }
  Array images_of(const data::Dataset& dataset, uint64_t seed) const {
    TrainingOptions training;
    const data::Transform transform =
        s_.calib_augment ? task_.training_transform(training) : task_.test_transform();
    data::Loader loader(dataset, transform, {.batch = dataset.size(), .seed = seed});
    loader.start(0);
    data::Batch batch;
    loader.next(batch);
    return batch.images;
  }
  // Numbers of the test pictures that accuracy is measured on.
  std::vector<int64_t> measured(uint64_t seed) const {
    if (!s_.calib_from_test) {
      std::vector<int64_t> all(static_cast<size_t>(task_.test.size()));
      std::iota(all.begin(), all.end(), int64_t{0});
      return all;
    }
    std::vector<int64_t> order = random_permutation(pictures_.size(), Philox(seed, stream_of("calibration")));
    check(s_.calib < pictures_.size(), "--calib ", s_.calib, " --calib-from-test leaves none of ",
          pictures_.size(), " pictures to measure");
    order.erase(order.begin(), order.begin() + s_.calib);
    std::ranges::sort(order);
    return order;
  }
  // Which of them the float network gets right.
  std::vector<bool> floats_right(const std::vector<int64_t>& numbers) const {
    std::vector<bool> right;
    for (const int64_t n : numbers)
      right.push_back(float_.predictions[static_cast<size_t>(n)] ==
                      task_.test.labels[static_cast<size_t>(n)]);
    return right;
  }

  // --- one draw ---

  void run_draw(uint64_t seed, bool host) {
    for (const Draw& d : draws_)
      if (d.is(seed, host)) return;
    if (!begun_ || !begun_->is(seed, host)) {
      begun_ = Draw{seed, host};
      units_.clear();
    }
    Draw& draw = *begun_;
    std::cout << (s_.seeds > 1 ? draw.name() + ": " : "") << "calibrating with "
              << count(std::min(s_.calib, pictures_.size())) << " pictures\n";
    quant::detach_sites(*task_.model);
    task_.model->load_state(float_state_);
    const Array images = images_of(drawn(seed), seed);
    if (s_.equalise) equalise(images);
    policy_ = policy(host);
    sites_ = quant::attach_sites(*task_.model, policy_);
    watch_ = {};
    if (images.dim(0) < s_.batch)
      std::cout << "note: there are " << images.dim(0) << " pictures, fewer than the batch of " << s_.batch
                << "; every step takes " << images.dim(0) << "\n";
    quantize(images, draw);
    if (s_.evolve > 0 && !host) evolve(images, draw);
    if (s_.bias_correction) {
      const auto floats = nn::make_model(s_.task.model, task_.info.options);
      floats->load_state(equalised_.empty() ? float_state_ : equalised_);
      const int layers = quant::correct_biases(*task_.model, *floats, some_rows(images, 256));
      std::cout << "corrected the biases of " << layers << " layers\n";
    }
    take_time();
    const std::vector<int64_t> numbers = measured(seed);
    const data::Dataset test = s_.calib_from_test ? data::subset(task_.test, numbers) : task_.test;
    const std::vector<bool> right = floats_right(numbers);
    draw.floats =
        100 * static_cast<double>(std::ranges::count(right, true)) / static_cast<double>(right.size());
    const Evaluated fake = evaluate(*task_.model, test, task_.test_transform());
    draw.accuracy = fake.accuracy;
    std::cout << title() << (s_.clcalib && !host ? " with CL-Calib: " : ": ") << percent(fake.accuracy)
              << " in " << duration(draw.seconds) << "\n";
    if (!host && !deployed_) deploy_first(fake, test, right);
    draws_.push_back(draw);
    begun_.reset();
    units_.clear();
    save();
    interrupt_.stop_here();
  }

  // The method and the bits, or where they are from.
  std::string title() const {
    return s_.policy.empty() ? text(s_.method, ' ', s_.w_bits, '/', s_.a_bits, ", ends as in ", s_.preset)
                             : text(s_.method, ", bits of ", s_.policy);
  }

  static Array some_rows(const Array& images, int64_t count) {
    return images.slice(0, std::min(count, images.dim(0)));
  }

  void equalise(const Array& images) {
    const quant::EqualisationReport r = quant::equalise(*task_.model, some_rows(images, 64));
    std::cout << "equalised " << r.channels << " channels between " << r.pairs << " pairs of layers"
              << (r.kept > 0 ? text("; ", r.kept, " reach the limit of their ReLU6 and stay") : "")
              << "; logits changed by " << r.change << "\n";
    run_.result().set("equalised.pairs", r.pairs);
    run_.result().set("equalised.channels", r.channels);
    equalised_ = nn::clone(task_.model->state());
  }

  void evolve(const Array& images, const Draw& draw) {
    quant::ScaleSearchOptions options{.passes = s_.evolve, .seed = draw.seed};
    Progress progress("searching scales",
                      s_.evolve * options.mutations * static_cast<int64_t>(sites_->sites().size()),
                      "mutations");
    const Stopwatch watch;
    const quant::ScaleSearchReport r =
        quant::search_scales(*task_.model, *sites_, images, logits_, options, [&] {
          progress.advance(1);
          interrupt_.stop_here();
        });
    run_.seconds("scale search", watch.seconds());
    run_.result().set("scale_search.kept", r.kept);
    run_.result().set("scale_search.tried", r.tried);
    std::cout << "kept " << r.kept << " of " << r.tried << " mutations, fitness " << fixed(r.before, 4)
              << " -> " << fixed(r.after, 4) << "\n";
  }

  // What corrected inputs depend on: a block's float inputs say all but the block's own weights.
  std::string correction_of(const quant::FeatureCache& inputs) const {
    return text(s_.task.init, ' ', inputs.rows().shape(), " checksum ",
                data::checksum({{{"features", inputs.rows()}}, {}}), ' ', s_.correction_steps, ' ',
                s_.correction_weight);
  }

  // Corrected inputs of blocks do not depend on bits or on what is added to the method.
  quant::FeatureCache corrected(size_t block, const quant::FeatureCache& inputs, uint64_t seed) {
    const std::string file =
        text(s_.correction_cache, '/', s_.task.model, "-seed", seed, "-block", block, ".safetensors");
    const bool keep = !s_.correction_cache.empty();
    const std::string what = keep ? correction_of(inputs) : "";
    if (keep && std::filesystem::exists(file)) {
      const data::SafeTensors saved = data::load_safetensors(file, data::Layout::any);
      const auto made = saved.metadata.find("made");
      if (made != saved.metadata.end() && made->second == what) {
        std::cout << "corrected inputs of " << task_.model->blocks()[block].name << " from " << file << "\n";
        return saved.tensors.empty() ? quant::FeatureCache()
                                     : quant::FeatureCache(saved.tensors.at("features"));
      }
    }
    const quant::DistributionCorrectionOptions options{.steps = s_.correction_steps,
                                                       .weight = s_.correction_weight};
    const int64_t batches = (inputs.images() + options.batch - 1) / options.batch;
    Progress progress("correcting " + task_.model->blocks()[block].name, batches * options.steps, "steps");
    const quant::FeatureCache result = quant::correct_distribution(*task_.model, block, inputs, options, [&] {
      progress.advance(1);
      interrupt_.stop_here();
    });
    if (!keep) return result;
    std::filesystem::create_directories(s_.correction_cache);
    data::SafeTensors content;
    if (result.images() > 0) content.tensors["features"] = result.rows();
    content.metadata["made"] = what;
    data::save_safetensors(file, content);
    return result;
  }

  quant::Policy policy(bool host) const {
    const std::string quantizer = text("affine:range=", s_.range, s_.border && !host ? ",border=yes" : "");
    if (!s_.policy.empty()) {
      quant::Policy policy = quant::Policy::load(s_.policy, *task_.model);
      for (auto& [name, layer] : policy.layers) layer.quantizer = quantizer;
      for (auto& [name, tensor] : policy.tensors) tensor.quantizer = quantizer;
      return policy;
    }
    return quant::preset_policy(*task_.model, {s_.w_bits, s_.a_bits, quantizer, s_.granularity},
                                quant::parse_skip(s_.skip), quant::parse_preset(s_.preset));
  }

  void quantize(const Array& images, Draw& draw) {
    quant::ReconstructionOptions recipe = s_.recipe(draw.seed, draw.host);
    if (s_.correction_steps > 0)
      recipe.correct = [&](size_t block, const quant::FeatureCache& inputs) {
        return corrected(block, inputs, draw.seed);
      };
    quant::Reconstruction engine(*task_.model, *sites_, images, recipe);
    if (!units_.empty()) {
      sites_->load_state(sites_state_);
      engine.load_state(units_);
      std::cout << "going on after " << units_.at("units").item() << " units\n";
    }
    std::optional<Progress> progress;
    std::vector<double> losses;  // of the unit: the mean of each tenth of its iterations
    int64_t steps = 0;           // in the last of them
    quant::ReconstructionObserver observer;
    observer.iteration = [&](const std::string& unit, int64_t t, int64_t iterations, double loss) {
      if (t == 1) progress.emplace(unit, iterations * std::min(s_.batch, images.dim(0)));
      if (static_cast<int64_t>(losses.size()) <= (t - 1) * std::min<int64_t>(10, iterations) / iterations) {
        losses.push_back(0);
        steps = 0;
      }
      losses.back() += (loss - losses.back()) / static_cast<double>(++steps);
      if (t % 20 == 0)
        progress->advance(20 * std::min(s_.batch, images.dim(0)), text("loss ", fixed(loss, 4)));
      interrupt_.stop_here();
    };
    observer.unit = [&](const quant::UnitReport& r) {
      progress.reset();
      if (r.phase == recipe.phases.back().name) draw.error += r.hard;
      note(r, draw, losses);
      losses.clear();
      units_ = engine.state();
      take_time();
      save();
    };
    if (const int64_t seen = engine.images_for_ranges();
        seen < std::min<int64_t>(recipe.range_images, images.dim(0)))
      std::cout << "note: ranges are those of the first " << seen << " pictures\n";
    engine.run(observer);
    logits_ = engine.logits();
    if (draw.host) return;
    spend("ranges", engine.range_seconds());
    run_.result().set("memory.cache_bytes", engine.peak_cache_bytes());
    std::cout << "features took " << bytes(static_cast<double>(engine.peak_cache_bytes())) << " at most\n";
    run_.result().set("trainable", Value::list(engine.trainable()));
    if (s_.clcalib && images.dim(0) > 1) {
      const double similar =
          quant::mean_similarity(quant::normalised_features(Tensor(engine.logits()), s_.centre).value());
      run_.result().set("contrast.mean_similarity", similar);
      if (similar > 0.95)
        std::cout << "warning: the float logits of different pictures have the mean cosine "
                  << fixed(similar, 3) << "; contrast between them is noise\n";
    }
  }

  void note(const quant::UnitReport& r, Draw& draw, const std::vector<double>& losses) {
    Value line = Value::Group{{"phase", r.phase},
                              {"unit", r.unit},
                              {"seed", draw.seed},
                              {"host", draw.host},
                              {"before", r.before},
                              {"soft", r.soft},
                              {"hard", r.hard},
                              {"settled", r.settled},
                              {"flipped", r.flipped},
                              {"step_drift", r.drift},
                              {"variables", r.variables},
                              {"seconds", r.seconds},
                              {"caching_seconds", r.caching_seconds},
                              {"correction_seconds", r.correction_seconds},
                              {"contrastive_seconds", r.contrastive_seconds},
                              {"cache_bytes", r.cache_bytes},
                              {"losses", Value::list(losses)}};
    if (r.features) {
      line.set("positive_cosine", r.features->positive);
      line.set("negative_cosine", r.features->negative);
      line.set("effective_rank", r.features->rank);
      line.set("spread", r.features->spread);
      line.set("logit_scale", r.features->scale);
      if (r.features->collided())
        std::cout << "warning: " << r.unit << ": the features of all pictures have become one (collision)\n";
    }
    run_.metrics(line);
    draw.seconds -= r.correction_seconds;
    if (!draw.host) {
      variables_ += static_cast<double>(r.variables);
      settled_ += r.settled * static_cast<double>(r.variables);
      spend("caching", r.caching_seconds);
      spend("correction", r.correction_seconds);
      spend("reconstruction", r.seconds);
      spend("contrastive forward", r.contrastive_seconds);
      note_worst("hardening", r.soft > 0 ? 100 * (r.hard / r.soft - 1) : 0);
      note_worst("step_drift", r.drift);
      if (r.features) run_.result().set("contrast." + r.unit + ".logit_scale", r.features->scale);
    }
    std::cout << r.phase << ' ' << r.unit << ": loss " << fixed(r.before, 4) << " -> " << fixed(r.hard, 4)
              << ", settled " << percent(100 * r.settled, 1) << ", " << duration(r.seconds) << std::endl;
  }

  // Of the draw, since the last time.
  void take_time() {
    begun_->seconds += watch_.seconds();
    watch_ = {};
  }
  // The seconds of a part, over all draws but the host's.
  void spend(const std::string& part, double seconds) {
    const Value* before = run_.result().find("seconds." + part);
    run_.seconds(part, seconds + (before ? before->number() : 0));
  }
  // The largest over the units, of all draws but the host's.
  void note_worst(const std::string& name, double value) {
    const Value* before = run_.result().find("worst." + name);
    run_.result().set("worst." + name, before ? std::max(before->number(), value) : value);
  }

  // --- resuming: the draws that are done, and the units of the one that is not ---

  void save() {
    nn::Checkpoint checkpoint;
    if (begun_) {
      checkpoint.parts["units"] = units_;
      checkpoint.parts["sites"] = sites_->state();
      checkpoint.parts["begun"]["draw"] = begun_->array();
    }
    for (const Draw& d : draws_)
      checkpoint.parts["draws"][text(checkpoint.parts["draws"].size())] = d.array();
    checkpoint.parts["rounding"]["settled"] = Array::of<double>({settled_, variables_});
    checkpoint.notes["options"] = fingerprint();
    checkpoint.notes["result"] = run_.result().json();
    nn::save_checkpoint(run_.file("last.ckpt"), checkpoint);
  }
  // What must not change between the runs.
  std::string fingerprint() const {
    Value values = s_.values;
    for (const char* free :
         {"out", "data", "resume", "threads", "seeds", "no-deploy", "explain", "correction-cache"})
      values.set(free, "");
    return values.json();
  }
  void resume() {
    if (!s_.common.resume || !run_.has("last.ckpt")) return;
    const nn::Checkpoint saved = nn::load_checkpoint(run_.file("last.ckpt"));
    check(saved.notes.at("options") == fingerprint(), "--resume: ", run_.file("last.ckpt"),
          " is of a run with other options; take another --out or leave out --resume");
    run_.result() = Value::parse(saved.notes.at("result"));
    run_.describe("ptq", s_.values, s_.common.seed);
    if (const auto draws = saved.parts.find("draws"); draws != saved.parts.end())
      for (size_t i = 0; i < draws->second.size(); ++i) {
        draws_.push_back(Draw::of(draws->second.at(text(i))));
        deployed_ = deployed_ || !draws_.back().host;
      }
    const std::vector<double> totals = saved.parts.at("rounding").at("settled").to_vector();
    settled_ = totals[0];
    variables_ = totals[1];
    if (const auto begun = saved.parts.find("begun"); begun != saved.parts.end()) {
      begun_ = Draw::of(begun->second.at("draw"));
      units_ = saved.parts.at("units");
      sites_state_ = saved.parts.at("sites");
    }
  }

  // --- results ---

  void deploy_first(const Evaluated& fake, const data::Dataset& test, const std::vector<bool>& floats) {
    deployed_ = true;
    compare_with_floats(fake, test, floats);
    cost_ = save_quantized(task_, policy_, fake, run_);
    integers_ = deploy_and_compare(task_, policy_, test, s_.deployment, run_);
  }

  // On the same pictures, by McNemar's test.
  void compare_with_floats(const Evaluated& fake, const data::Dataset& test,
                           const std::vector<bool>& floats) {
    std::vector<bool> quantized;
    for (size_t i = 0; i < floats.size(); ++i) quantized.push_back(fake.predictions[i] == test.labels[i]);
    const Paired paired = compare_answers(floats, quantized);
    run_.result().set("mcnemar.lost", paired.lost);
    run_.result().set("mcnemar.gained", paired.gained);
    run_.result().set("mcnemar.p", paired.p);
    std::cout << "Against floats (" << percent(begun_->floats) << "): " << paired.lost << " pictures lost, "
              << paired.gained << " gained, McNemar's p = " << fixed(paired.p, 4) << "\n";
  }

  // A figure of all draws, the host's or the others.
  std::vector<double> figures(bool host, double Draw::*figure) const {
    std::vector<double> all;
    for (const Draw& d : draws_)
      if (d.host == host) all.push_back(d.*figure);
    return all;
  }
  std::vector<double> accuracies(bool host) const { return figures(host, &Draw::accuracy); }
  double seconds(bool host) const {
    const std::vector<double> all = figures(host, &Draw::seconds);
    return std::accumulate(all.begin(), all.end(), 0.0);
  }

  // The units of all draws but the host's, as metrics.jsonl has them. One whose run was stopped before its
  // checkpoint has two lines, of which the last counts.
  std::vector<Value> units() const {
    std::vector<Value> units;
    std::map<std::string, size_t> places;
    for (const Value& line : run_.lines()) {
      if (line.find("host")->json() == "true") continue;
      const std::string name =
          text(line.find("seed")->json(), line.find("phase")->word(), '/', line.find("unit")->word());
      const auto [place, is_new] = places.emplace(name, units.size());
      if (is_new) units.emplace_back();
      units[place->second] = line;
    }
    return units;
  }

  // The loss along the iterations of a unit, relative to that of their first tenth, over the units of a
  // phase.
  static std::vector<Curve> loss_curves(const std::vector<Value>& units) {
    std::map<std::string, std::vector<std::vector<double>>> shares;  // by phase and point
    for (const Value& unit : units) {
      const Value::List losses = unit.find("losses")->items();
      if (losses.size() < 2 || !(losses[0].number() > 0)) continue;
      auto& points = shares[unit.find("phase")->word()];
      points.resize(losses.size());
      for (size_t i = 0; i < losses.size(); ++i) points[i].push_back(losses[i].number() / losses[0].number());
    }
    std::vector<Curve> curves;
    for (const auto& [phase, points] : shares) {
      Curve curve{phase, {}, {}};
      for (size_t i = 0; i < points.size(); ++i) {
        curve.x.push_back(100 * (static_cast<double>(i) + 0.5) / static_cast<double>(points.size()));
        curve.y.push_back(mean(points[i]));
      }
      curves.push_back(curve);
    }
    return curves;
  }

  void summarise() {
    const std::vector<double> own = accuracies(false), host = accuracies(true);
    Value::List list;
    for (const Draw& d : draws_) list.push_back(d.value());
    run_.result().set("draws", list);
    run_.result().set("accuracy.fake_quant", mean(own));
    run_.result().set("accuracy.float", mean(figures(false, &Draw::floats)));
    run_.result().set("accuracy.min", std::ranges::min(own));
    if (s_.method != "rtn") run_.result().set("reconstruction.error", mean(figures(false, &Draw::error)));
    run_.seconds("calibration", seconds(false));
    if (variables_ > 0) run_.result().set("settled", settled_ / variables_);
    if (own.size() < 2) return;
    run_.result().set("accuracy.deviation", deviation(own));
    std::cout << own.size() << " draws: " << percent(mean(own)) << " +- " << fixed(deviation(own), 2)
              << ", min " << percent(std::ranges::min(own)) << "\n";
    if (host.size() != own.size()) return;
    std::vector<double> differences;
    for (size_t i = 0; i < own.size(); ++i) differences.push_back(own[i] - host[i]);
    const Interval interval = mean_interval(differences);
    run_.result().set("host.mean", mean(host));
    run_.result().set("host.min", std::ranges::min(host));
    run_.result().set("difference.mean", mean(differences));
    run_.result().set("difference.low", interval.low);
    run_.result().set("difference.high", interval.high);
    run_.result().set("difference.seconds_percent", 100 * (seconds(false) / seconds(true) - 1));
    std::cout << "against the plain method on the same pictures: " << fixed(mean(differences), 2)
              << " (95 %: " << fixed(interval.low, 2) << " to " << fixed(interval.high, 2) << "), in "
              << duration(seconds(false)) << " against " << duration(seconds(true)) << "\n";
  }

  void finish() {
    Report report(text(s_.task.model, " on ", s_.task.dataset, ", ", title()),
                  text(percent(mean(accuracies(false))), " of the test pictures; ",
                       percent(mean(figures(false, &Draw::floats))), " in floats"));
    if (integers_) report.paragraph(integers_->agreement.str());
    report.section("Units");
    Table table({"unit", "phase", "loss, nearest", "soft", "hard", "settled", "seconds"});
    std::vector<BarRow> times;
    const std::vector<Value> done = units();
    for (const Value& unit : done) {
      const std::string name = unit.find("unit")->word(), phase = unit.find("phase")->word();
      const auto number = [&](const char* field) { return unit.find(field)->number(); };
      table.row({name, phase, fixed(number("before"), 4), fixed(number("soft"), 4), fixed(number("hard"), 4),
                 percent(100 * number("settled"), 2), fixed(number("seconds"), 1)});
      times.push_back(
          {phase + ' ' + name, {number("seconds"), number("caching_seconds"), number("correction_seconds")}});
    }
    report.table(table);
    if (const std::vector<Curve> curves = loss_curves(done); !curves.empty())
      report.curves("Loss of the units, the regulariser aside", "iterations, %", "share of the first tenth's",
                    curves);
    if (!times.empty()) {
      Table parts({"part", "seconds"});
      for (const char* part : {"ranges", "caching", "correction", "reconstruction", "contrastive forward"})
        if (const Value* took = run_.result().find(text("seconds.", part)))
          parts.row({part, fixed(took->number(), 1)});
      report.table(parts);
      report.bars("Seconds of each unit", {"reconstruction", "caching", "correction"}, times);
    }
    report.section("Bits");
    add_bits(report, cost_);
    if (integers_ && integers_->explanation) integers_->explanation->add_to(report);
    report.section("Draws");
    Table draws({"draw", "accuracy", "in floats", "seconds"});
    for (const Draw& d : draws_)
      draws.row({d.name(), percent(d.accuracy), percent(d.floats), fixed(d.seconds, 0)});
    report.table(draws);
    report.save(run_.file("report.html"));
    run_.finish();
    std::cout << "see " << run_.file("report.html") << "\n";
    if (integers_) integers_->agreement.expect_equal(run_.file("result.json"));
  }

  Settings s_;
  Task task_;
  RunDirectory run_;
  Interrupt interrupt_;
  nn::State float_state_, equalised_;
  data::Dataset pictures_;
  Evaluated float_;
  quant::Policy policy_;
  Array logits_;  // of the float network, for the calibration pictures
  std::shared_ptr<quant::Sites> sites_;
  std::vector<Draw> draws_;
  std::optional<Draw> begun_;      // not done,
  nn::State units_, sites_state_;  // and its units that are
  double settled_ = 0, variables_ = 0;
  Stopwatch watch_;
  bool deployed_ = false;
  std::vector<quant::LayerCost> cost_;
  std::optional<Deployment> integers_;
};

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    Settings settings;
    settings.parse(argc, argv);
    Ptq(std::move(settings)).go();
    return 0;
  });
}
