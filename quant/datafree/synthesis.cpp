#include "synthesis.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../data/formats/json.h"
#include "../../data/formats/safetensors.h"
#include "../../kernels/reduce.h"
#include "../../nn/optimiser.h"
#include "augment.h"
#include "generator.h"

namespace stairgrad::quant::datafree {
namespace {

// ReduceLROnPlateau of PyTorch: a tenth after more than `patience` steps that are not better by 1e-4.
class Plateau {
 public:
  Plateau(double lr, int patience) : lr_(lr), patience_(patience) {}
  double lr() const { return lr_; }
  void see(double loss) {
    if (loss < best_ * (1 - 1e-4)) {
      best_ = loss;
      bad_ = 0;
    } else if (++bad_ > patience_) {
      lr_ = std::max(lr_ / 10, 1e-4);
      bad_ = 0;
    }
  }

 private:
  double lr_, best_ = HUGE_VAL;
  int patience_, bad_ = 0;
};

// Entropy of each row of y, its mean: the floor of soft cross-entropy.
double mean_entropy(const Array& y) {
  double total = 0;
  for (const double share : y.to_vector())
    if (share > 0) total -= share * std::log(share);
  return total / static_cast<double>(y.dim(0));
}

// The losses of one synthesis, and what the network says of images on the way.
class Objective {
 public:
  Objective(nn::Model& model, const SynthesisOptions& options) : model_(model), o_(options) {
    if (o_.statistics_weight == 0) return;
    statistics_.emplace(model, o_.statistics);
    if (o_.statistics.slack > 0) {
      const Shape image = model.input_shape(std::min<int64_t>(o_.images, 64));
      statistics_->measure_slack(random_normal(image, Philox(o_.seed, stream_of("slack"))));
    }
  }

  struct Loss {
    Tensor total;
    double statistics = 0, label = 0;
    Array logits, features;
  };

  // `batch` keys what images keep while they are made, `iteration` what changes.
  Loss operator()(const Tensor& images, const Labels& labels, int64_t batch, int iteration) {
    const Philox rng(o_.seed ^ stream_of("augment"),
                     static_cast<uint64_t>(batch) << 32 | static_cast<uint64_t>(iteration));
    Tensor x = images;
    if (o_.augment > 0 && rng.uniform(100) < o_.augment) x = crop_and_flip(x, rng);
    Tensor features;
    const auto forward = [&](const Tensor& in) {
      const Tensor map = model_.forward(cast(in, o_.dtype), 0, model_.head());
      if (map.rank() == 4) features = mean(cast(map, DType::f32), {1, 2});
      return cast(model_.forward(map, model_.head(), model_.blocks().size()), DType::f32);
    };
    Loss loss;
    const Tensor logits = statistics_ ? statistics_->run(forward, x) : forward(x);
    loss.logits = logits.value();
    if (features.defined()) loss.features = features.value();
    const auto add = [&](const Tensor& part, double weight) {
      loss.total = loss.total.defined() ? loss.total + part * weight : part * weight;
    };
    if (statistics_) {
      const Tensor value = statistics_->value();
      loss.statistics = value.item();
      add(value, o_.statistics_weight);
    } else {
      add(prior(x), 1);
    }
    if (o_.label_weight > 0) {
      const Tensor value = label_loss(logits, labels, batch);
      loss.label = value.item();
      add(value, o_.label_weight);
    }
    if (o_.total_variation > 0) add(total_variation(x), o_.total_variation);
    if (o_.entropy_weight > 0) {
      const Tensor p = softmax(logits);
      const Tensor entropy = sum(p * log_softmax(logits), {-1}) * -1.0;
      const double target = o_.entropy_target * std::log(static_cast<double>(logits.dim(1)));
      add(mean(square(entropy - target)), o_.entropy_weight);
    }
    if (o_.farthest > 0 && features.defined() && !centres_.empty()) add(margins(features, labels), 1);
    return loss;
  }

  // Their features become part of the classes' centres.
  void finished(const Array& features, const Labels& labels) {
    if (o_.farthest == 0 || !features.has_value()) return;
    const int64_t d = features.dim(1);
    for (int64_t i = 0; i < features.dim(0); ++i) {
      std::vector<double>& centre = centres_[labels.classes[static_cast<size_t>(i)]];
      centre.resize(static_cast<size_t>(d));
      for (int64_t k = 0; k < d; ++k) centre[static_cast<size_t>(k)] += features.data<float>()[i * d + k];
    }
  }

 private:
  // What is known of the input alone: mean 0 and deviation 1.
  static Tensor prior(const Tensor& x) {
    const Tensor m = mean(x, {0, 1, 2}), v = var(x, {0, 1, 2});
    return mean(square(m)) + mean(square(v - 1));
  }

  Tensor label_loss(const Tensor& logits, const Labels& labels, int64_t batch) const {
    const int64_t n = logits.dim(0);
    const Tensor y = labels.soft;
    const Tensor p = softmax(logits);
    if (o_.confidence > 0) {
      Array target({n, 1});
      const Philox rng(o_.seed ^ stream_of("confidence"), static_cast<uint64_t>(batch));
      for (int64_t i = 0; i < n; ++i) {
        const auto index = static_cast<uint64_t>(2 * i);
        const bool lower = rng.uniform(index) < 0.5;
        target.data<float>()[i] =
            lower ? static_cast<float>(o_.confidence + (1 - o_.confidence) * rng.uniform(index + 1)) : 1;
      }
      const Tensor own = sum(p * kernels::one_hot(Array::of(labels.classes), logits.dim(1)), {-1}, true);
      return mean(square(own - Tensor(target)));
    }
    if (o_.focal == 0) return soft_cross_entropy(logits, y);
    const Tensor far = sum(abs(p - y), {-1}) * 0.5;
    const Tensor each = sum(y * log_softmax(logits), {-1}) * -1.0;
    return mean(pow(far + 1e-6, o_.focal) * each);
  }

  // IntraQ's: not as close to the centre of the class as to be alike, not as far as to be another class.
  Tensor margins(const Tensor& features, const Labels& labels) const {
    const int64_t n = features.dim(0), d = features.dim(1);
    Array centre = Array::zeros({n, d});
    for (int64_t i = 0; i < n; ++i)
      if (const auto found = centres_.find(labels.classes[static_cast<size_t>(i)]); found != centres_.end())
        std::copy(found->second.begin(), found->second.end(), centre.data<float>() + i * d);
    const Tensor distance = 1.0 - cosine_similarity(features, Tensor(centre));
    return mean(relu(o_.nearest - distance) + relu(distance - o_.farthest));
  }

  nn::Model& model_;
  const SynthesisOptions& o_;
  std::optional<StatisticsLoss> statistics_;
  std::map<int32_t, std::vector<double>> centres_;  // sums; cosines do not see the count
};

double agreement(const Array& logits, const Labels& labels) {
  const Array top = kernels::argmax(logits);
  int64_t same = 0;
  for (int64_t i = 0; i < top.size(); ++i)
    same += labels.soft.data<float>()[i * logits.dim(1) + top.data<int32_t>()[i]] > 0;
  return static_cast<double>(same) / static_cast<double>(top.size());
}

void check_finite(double loss, int64_t batch, int iteration) {
  if (!std::isfinite(loss))
    throw numeric_error(text("[synthesis] the loss of batch ", batch, " is ", loss, " at iteration ",
                             iteration, "; lower the learning rate"));
}

// One batch of pixels under Adam.
class Pixels {
 public:
  Pixels(Array start, const SynthesisOptions& o, const PixelScale& scale)
      : images(Tensor::leaf(start, "pixels")),
        optimiser_({{{{"pixels", images}}, 1, 0}}),
        plateau_(o.lr, o.patience) {
    if (!o.clamp) return;
    low_ = scale.black(start.dim(3));
    high_ = scale.white(start.dim(3));
  }

  void step(const Tensor& loss) {
    optimiser_.step(grad(Tensors{loss}, {images}), plateau_.lr());
    plateau_.see(loss.item());
    if (low_.empty()) return;
    Array values = images.value();
    const auto channels = static_cast<int64_t>(low_.size());
    for (int64_t i = 0; i < values.size(); ++i) {
      float& v = values.data<float>()[i];
      const auto c = static_cast<size_t>(i % channels);
      v = std::clamp(v, static_cast<float>(low_[c]), static_cast<float>(high_[c]));
    }
    values.bump_version();
  }

  Tensor images;

 private:
  nn::AdamW optimiser_;
  Plateau plateau_;
  std::vector<double> low_, high_;
};

struct Maker {
  nn::Model& model;
  const SynthesisOptions& o;
  const PixelScale& scale;
  const SynthesisProgress& progress;
  Objective objective{model, o};
  Synthesis result = {};

  void note(const Objective::Loss& first, const Objective::Loss& last, const Labels& labels) {
    const double floor = o.focal == 0 && o.confidence == 0 ? mean_entropy(labels.soft) : 0;
    const bool labelled = o.label_weight > 0;
    result.batches.push_back({first.statistics, last.statistics, labelled ? last.label - floor : 0,
                              labelled ? agreement(last.logits, labels) : 1});
  }

  Array by_noise(const Labels& labels, int64_t batch) {
    const Shape shape = model.input_shape(labels.size());
    const Philox rng(o.seed ^ stream_of("pixels"), static_cast<uint64_t>(batch));
    Pixels pixels(random_normal(shape, rng), o, scale);
    Objective::Loss first, last;
    for (int i = 0; i < o.iterations; ++i) {
      last = objective(pixels.images, labels, batch, i);
      if (i == 0) first = {{}, last.statistics, last.label, {}, {}};
      const double loss = last.total.item();
      check_finite(loss, batch, i);
      pixels.step(last.total);
      last.total = {};
      if (progress) progress(batch, i, loss);
    }
    objective.finished(last.features, labels);
    note(first, last, labels);
    return pixels.images.value();
  }

  // Trains a generator on labels as they will be asked for, then asks.
  Array by_generator(const Labels& labels, const Array& similarity) {
    const Shape image = model.input_shape();
    Generator generator(labels.soft.dim(1), image[1], image[3],
                        o.classifier_embeddings ? classifier_weights(model) : Array());
    nn::initialise(generator, o.seed);
    nn::AdamW optimiser({{generator.learned(), 1, 0}}, 0.5, 0.999);
    Objective::Loss first, last;
    const auto images_for = [&](const Labels& some, uint64_t stream) {
      const Philox rng(o.seed ^ stream_of("generator noise"), stream);
      return generator(random_normal({some.size(), generator.noise()}, rng), some.soft);
    };
    for (int i = 0; i < o.iterations; ++i) {
      const Labels some =
          draw_labels(std::min(o.batch, o.images), similarity, o.labels, o.seed, o.images + i * o.batch);
      last = objective(images_for(some, static_cast<uint64_t>(i)), some, /*batch=*/i, /*iteration=*/0);
      if (i == 0) first = {{}, last.statistics, last.label, {}, {}};
      const double loss = last.total.item();
      check_finite(loss, 0, i);
      const std::vector<int64_t> milestones = {o.iterations / 4, o.iterations / 2, o.iterations * 3 / 4};
      optimiser.step(grad(Tensors{last.total}, optimiser.parameters()),
                     nn::step_schedule(o.lr, i, milestones));
      last.total = {};
      if (progress) progress(0, i, loss);
      if (i + 1 == o.iterations) note(first, last, some);
    }
    generator.eval();
    const NoGrad no_grad;
    Arrays parts;
    for (int64_t done = 0; done < o.images; done += o.batch) {
      const Labels some = labels.slice(done, std::min(o.batch, o.images - done));
      parts.push_back(images_for(some, static_cast<uint64_t>(1) << 40 | static_cast<uint64_t>(done)).value());
    }
    return kernels::concat(parts, 0);
  }

  Synthesis run() {
    const Array weights = classifier_weights(model);
    const Array similarity = class_similarity(weights, o.labels.similarity);
    const Labels labels = draw_labels(o.images, similarity, o.labels, o.seed);
    warn(similarity);
    Array images;
    if (o.method == Method::generator) {
      images = by_generator(labels, similarity);
    } else {
      Arrays parts;
      for (int64_t done = 0; done < o.images; done += o.batch)
        parts.push_back(by_noise(labels.slice(done, std::min(o.batch, o.images - done)), done / o.batch));
      images = kernels::concat(parts, 0);
    }
    result.set = {images, o.label_weight > 0 ? labels : answers(model, images), recipe_of(model, o)};
    return std::move(result);
  }

  void warn(const Array& similarity) {
    // The generator learns from whole batches only.
    const int64_t whole = std::min(o.batch, o.images), rest = o.images % o.batch;
    const int64_t smallest = o.method == Method::noise && rest > 0 ? rest : whole;
    if (o.statistics.law == StatisticsLaw::batch && o.statistics_weight > 0 && smallest < 16)
      result.warnings.push_back(text("small batch: statistics are those of ", smallest,
                                     " images, too few to match; make batches of 16 or more"));
    if (similarity.dim(0) == 1)
      result.warnings.push_back("one class: every label is the same, so labels shape nothing");
    if (o.statistics_weight == 0)
      result.warnings.push_back(
          "no statistics: images follow labels and a prior of the input with mean 0 and deviation 1");
    const Arm arm = o.labels.arm;
    const bool compares = arm == Arm::similar || arm == Arm::dissimilar || arm == Arm::mixed;
    if (const double foreign = share_of_foreign_maxima(similarity); compares && foreign > 0)
      result.warnings.push_back(
          text("foreign maxima: ", std::lround(100 * foreign),
               " % of the classes are less similar to themselves than to another; rows ",
               "of large norm win, the similarities cosine and centred do not have that"));
  }
};

}  // namespace

void validate(const SynthesisOptions& o) {
  validate(o.labels);
  check(o.images >= 1 && o.batch >= 1 && o.iterations >= 1, "[synthesis] got ", o.images,
        " images in batches of ", o.batch, " and ", o.iterations, " iterations, expected at least 1 of each");
  check(o.lr > 0 && o.patience >= 0, "[synthesis] got the learning rate ", o.lr, " and the patience ",
        o.patience, ", expected them positive");
  check(o.focal >= 0 && o.confidence >= 0 && o.confidence <= 1, "[synthesis] got focal ", o.focal,
        " and confidence ", o.confidence, ", expected focal >= 0 and confidence in 0 .. 1");
  check(o.augment >= 0 && o.augment <= 1, "[synthesis] augment: got ", o.augment, ", expected a probability");
  check(o.nearest >= 0 && o.nearest <= o.farthest, "[synthesis] margins: got ", o.nearest, " to ", o.farthest,
        ", expected 0 <= nearest <= farthest");
}

Synthesis synthesise(nn::Model& model, const SynthesisOptions& options, const PixelScale& scale,
                     const SynthesisProgress& progress) {
  validate(options);
  const nn::Evaluation evaluation(model);
  const RecordingScope tape(Recording::tape);
  return Maker{model, options, scale, progress}.run();
}

SynthesisOptions synthesis_preset(const std::string& name) {
  SynthesisOptions o;
  o.labels.arm = Arm::one_hot;
  if (name == "zeroq" || name == "dsg") {
    o.statistics.law = StatisticsLaw::image;
    o.label_weight = 0;
    o.patience = 100;
    if (name == "zeroq") return o;
    o.statistics.slack = 0.9;
    o.statistics.enhance = true;
    o.lr = 0.9;
    return o;
  }
  if (name == "gdfq" || name == "qimera") {
    o.method = Method::generator;
    o.statistics_weight = 0.1;
    o.lr = 1e-3;
    o.batch = 128;
    o.iterations = 2000;
    if (name == "gdfq") return o;
    o.labels.arm = Arm::arbitrary;
    o.labels.group = 2;
    o.labels.hard = 0.4;
    o.classifier_embeddings = true;
    o.labels.sigma_low = o.labels.sigma_high = 1;
    return o;
  }
  if (name == "intraq") {
    o.iterations = 1000;
    o.confidence = 0.95;
    o.nearest = 0.05;
    o.farthest = 0.8;
    o.augment = 0.5;
    return o;
  }
  if (name == "hast") {
    o.iterations = 1000;
    o.label_weight = 10;
    o.focal = 2;
    return o;
  }
  check(name == "dynadfq", "[synthesis] got the preset \"", name,
        "\", expected zeroq, dsg, gdfq, qimera, intraq, hast or dynadfq");
  o.labels.arm = Arm::similar;
  o.total_variation = 1e-3;
  return o;
}

std::vector<std::string> synthesis_presets() {
  return {"zeroq", "dsg", "gdfq", "qimera", "intraq", "hast", "dynadfq"};
}

std::string recipe_of(nn::Model& model, const SynthesisOptions& o) {
  const LabelOptions& l = o.labels;
  data::Json json = {{"method", o.method == Method::noise ? "noise" : "generator"},
                     {"labels",
                      {{"arm", to_string(l.arm)},
                       {"similarity", to_string(l.similarity)},
                       {"group", group_size(l, classifier_weights(model).dim(0))},
                       {"from", o.label_weight > 0 ? "drawn" : "teacher"},
                       {"hard", l.hard},
                       {"sigma", {l.sigma_low, l.sigma_high}},
                       {"dirichlet", l.dirichlet},
                       {"anchor", l.anchor},
                       {"smoothing", l.smoothing}}},
                     {"statistics",
                      {{"law", o.statistics.law == StatisticsLaw::batch ? "batch" : "image"},
                       {"slack", o.statistics.slack},
                       {"enhance", o.statistics.enhance}}},
                     {"weights",
                      {{"statistics", o.statistics_weight},
                       {"label", o.label_weight},
                       {"total_variation", o.total_variation},
                       {"entropy", o.entropy_weight}}},
                     {"focal", o.focal},
                     {"confidence", o.confidence},
                     {"margins", {o.nearest, o.farthest}},
                     {"augment", o.augment},
                     {"classifier_embeddings", o.classifier_embeddings},
                     {"entropy_target", o.entropy_target},
                     {"clamp", o.clamp},
                     {"images", o.images},
                     {"batch", o.batch},
                     {"iterations", o.iterations},
                     {"lr", o.lr},
                     {"patience", o.patience},
                     {"dtype", std::string(name_of(o.dtype))},
                     {"seed", o.seed},
                     {"network", data::checksum({model.state(), {}})}};
  if (std::isfinite(l.least_similarity)) json["labels"]["least_similarity"] = l.least_similarity;
  return json.dump(2) + "\n";
}

}  // namespace stairgrad::quant::datafree
