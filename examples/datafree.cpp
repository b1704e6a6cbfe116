// Quantizes a network without any data: makes images out of the network, trains a quantized copy on them,
// lets a selector spend bits image by image if asked, and lowers all of it to integers.
//
//     build/examples/datafree --model resnet20 --init weights/resnet20.th --import pytorch --wbits 4 --abits
//     4 --out out/w4a4 build/examples/datafree ... --selector --bops 0.85 --eval cifar10
//
// Data sets are opened at the very end, to measure, and only with --eval. quant/datafree/README.md has the
// formulas.
#include <algorithm>
#include <cmath>
#include <iostream>
#include <numeric>
#include <optional>

#include "../autograd/ops.h"
#include "../data/formats/image.h"
#include "../kernels/reduce.h"
#include "../nn/fold.h"
#include "../nn/import.h"
#include "../quant/datafree/difficulty.h"
#include "../quant/datafree/fine_tuning.h"
#include "../quant/datafree/selection_metrics.h"
#include "../quant/datafree/synthesis.h"
#include "../quant/integer/model_file.h"
#include "../quant/integer/session.h"
#include "../quant/lower.h"
#include "common/deployment.h"
#include "common/interrupt.h"
#include "common/labels.h"
#include "common/pictures.h"
#include "common/progress.h"
#include "common/report.h"
#include "common/statistics.h"

using namespace stairgrad;
using namespace stairgrad::examples;
using namespace stairgrad::quant::datafree;
namespace integer = stairgrad::quant::integer;

namespace {

constexpr double unset = -1;  // the preset's value holds
constexpr const char* checkpoint_file = "fine-tuning.ckpt";

std::vector<int> parse_bits(const std::string& words) {
  std::vector<int> bits;
  for (size_t at = 0; at < words.size();) {
    const size_t end = std::min(words.find(',', at), words.size());
    const std::string word = words.substr(at, end - at);
    check(word.size() == 1 && word[0] >= '1' && word[0] <= '8', "--candidates ", words, ": got \"", word,
          "\", expected bits from 1 to 8 with commas between");
    bits.push_back(word[0] - '0');
    at = end + 1;
  }
  return bits;
}

/// "0.85" or "365M": relative to the target's bits, or BOPs.
struct Budget {
  double value = 1;
  bool absolute = false;

  static Budget parse(const std::string& word) {
    size_t used = 0;
    Budget budget;
    try {
      budget.value = std::stod(word, &used);
    } catch (const std::exception&) {
      used = 0;
    }
    const std::string suffix = word.substr(used);
    budget.absolute = suffix == "M" || suffix == "G";
    if (suffix == "M") budget.value *= 1e6;
    if (suffix == "G") budget.value *= 1e9;
    check(used > 0 && budget.value > 0 && (suffix.empty() || budget.absolute), "--bops ", word,
          ": expected a factor such as 0.85, or BOPs such as 365M or 7.4G");
    return budget;
  }
};

struct Settings {
  CommonOptions common;
  std::string model = "resnet20", init, import, norm, preset = "dynadfq", tuning = "dynadfq", from, real,
              eval;
  double width = 1;
  // synthesis
  int64_t images = 1280, synthesis_batch = 256, limit = 0;
  int iterations = -1, group = -1;
  std::string arm, similarity, synthesis_dtype = "f32";
  double hard = unset, synthesis_lr = unset, label_weight = unset, statistics_weight = unset, tv = unset,
         entropy_target = unset, sigma_low = unset, sigma_high = unset, dirichlet = unset, anchor = unset;
  bool clamp = false;
  // quantization
  int w_bits = 4, a_bits = 4;
  std::string protocol = "family", quantizer = "ste", skip;
  // fine-tuning
  int epochs = 20, steps = 50, calibration = -1;
  int64_t batch = -1;
  double lr = unset, kd = unset, ce = unset, features = unset, temperature = unset, perturbation = unset;
  std::string mixup, reduction;
  bool no_augment = false, no_best = false, validate = false;
  // selector
  bool selector = false;
  std::string selector_type = "image", candidates, ranges = "shared", choosing = "gumbel", law = "hinge",
              bops = "1", start = "target", dynamic_part = "activations";
  int after = 1;
  double budget = 1, entropy = 0.01, warm_up = 0.1, selector_lr = 1e-3;
  Value values;

  void parse(int argc, char** argv) {
    Options o("datafree", "Quantizes a network without data, with bits for each image if asked.",
              {"datafree --model resnet20 --init weights/resnet20.th --import pytorch --wbits 4 --abits 4",
               "datafree --model resnet20 --init out/train/model.safetensors --wbits 4 --abits 4 --selector "
               "--bops 0.85 "
               "--eval cifar10",
               "datafree --model resnet20 --init out/train/model.safetensors --from out/datafree/images "
               "--wbits 3 --abits 3"});
    common.add_to(o, "out/datafree");
    std::vector<std::string> recipes = {""};
    for (const nn::ImportRecipe& recipe : nn::import_recipes()) recipes.push_back(recipe.name);
    o.add("--model", model, "network of the zoo").one_of(nn::model_names());
    o.add("--init", init,
          "model file of the trained network; a relative name may also be one in the folder of the data");
    o.add("--import", import, "what --init is, if it is a file of another framework").one_of(recipes);
    o.add("--norm", norm, "normalisation of the pictures (default: that of --init)");
    o.add("--width", width, "with --import: multiplies the channels of the network").between(0.01, 100);
    o.add("--eval", eval, "measure on the test pictures of a data set, which is opened then and not before");
    o.add("--validate", validate,
          "with --eval: measure on pictures held out of the training set, not on the test set");
    o.add("--limit", limit, "with --eval: use so many test pictures only; 0: all").at_least(0);

    o.add("--preset", preset, "how images are made").one_of(synthesis_presets());
    o.add("--from", from, "take images that were made before, a folder as this program writes it");
    o.add("--real", real,
          "upper bound: unlabelled training pictures of this data set in place of made images");
    o.add("--images", images, "images to make").at_least(1);
    o.add("--synthesis-batch", synthesis_batch, "images that are made together").at_least(1);
    o.add("--iterations", iterations, "steps of the synthesis (default: the preset's)");
    o.add("--synthesis-lr", synthesis_lr, "learning rate of the synthesis (default: the preset's)");
    o.add("--synthesis-dtype", synthesis_dtype, "type of the activations").one_of({"f32", "bf16"});
    o.add("--arm", arm,
          "classes of hard images: similar, arbitrary, dissimilar, mixed, one-hot or smoothing");
    o.add("--similarity", similarity, "of classes: dot, cosine or centred");
    o.add("--group", group, "classes of a hard image");
    o.add("--hard", hard, "share of hard images");
    o.add("--sigma-low", sigma_low, "smallest spread of soft labels");
    o.add("--sigma-high", sigma_high, "largest spread of soft labels");
    o.add("--dirichlet", dirichlet, "soft labels from this Dirichlet distribution");
    o.add("--anchor", anchor, "added to the logit of an image's own class");
    o.add("--label-weight", label_weight, "weight of the label loss");
    o.add("--statistics-weight", statistics_weight, "weight of the loss on batch-norm statistics");
    o.add("--tv", tv, "weight of total variation");
    o.add("--entropy-target", entropy_target, "share of the largest entropy that predictions shall have");
    o.add("--clamp", clamp, "keep pixels between black and white");

    o.add("--wbits", w_bits, "bits of weights").between(1, 8);
    o.add("--abits", a_bits, "bits of activations; with --selector the target's").between(1, 8);
    o.add("--protocol", protocol,
          "family: low bits in all layers, batch norms stay; folded: batch norms folded, first and last "
          "layer 8 bit")
        .one_of({"family", "folded"});
    o.add("--quantizer", quantizer, "how to quantize");
    o.add("--skip", skip, "residual adds read: shared (default), or u8 (with --selector always)")
        .one_of({"", "shared", "u8"});

    o.add("--tuning", tuning, "how the quantized network is trained").one_of(fine_tuning_presets());
    o.add("--epochs", epochs, "epochs; 0: ranges are calibrated, nothing is trained").at_least(0);
    o.add("--steps", steps, "steps of an epoch").at_least(1);
    o.add("--calibration", calibration,
          "batches that move the ranges of activations (default: the preset's)");
    o.add("--batch", batch, "images of a step (default: the preset's)");
    o.add("--lr", lr, "learning rate (default: the preset's)");
    o.add("--kd", kd, "weight of the distillation");
    o.add("--ce", ce, "weight of the cross-entropy with the labels");
    o.add("--features", features, "weight of the feature alignment");
    o.add("--temperature", temperature, "of the distillation");
    o.add("--reduction", reduction, "of the distillation: batchmean or mean (over classes, too)")
        .one_of({"", "batchmean", "mean"});
    o.add("--mixup", mixup, "images that are mixed: off, easy or all");
    o.add("--perturbation", perturbation,
          "train also on images moved so far towards a larger loss, such as HAST's 0.01");
    o.add("--no-augment", no_augment, "neither crop nor mirror");
    o.add("--no-best", no_best, "do not measure every epoch at the end");

    o.add("--selector", selector, "learn a selector of bits for each image");
    o.add("--bops", bops, "with --selector: mean cost, as a factor of --abits bits or as BOPs (365M)");
    o.add("--candidates", candidates, "bits to choose from, such as 3,4,5 (default: one less to one more)");
    o.add("--dynamic", dynamic_part, "what takes the chosen bits: activations, or both they and the weights")
        .one_of({"activations", "both"});
    o.add("--selector-type", selector_type,
          "one for each layer, one for the image, or one offset for the image")
        .one_of({"image", "layer", "offset"});
    o.add("--after", after, "blocks before the selector, which keep fixed bits").at_least(1);
    o.add("--ranges", ranges, "candidates share a range, each finds its own, or each learns its own")
        .one_of({"shared", "each", "learned"});
    o.add("--choosing", choosing, "how the selector is trained").one_of({"gumbel", "straight-through"});
    o.add("--law", law, "of the budget").one_of({"hinge", "distance"});
    o.add("--budget", budget, "weight of the budget").at_least(0);
    o.add("--entropy", entropy, "weight of the guard against a collapsed selector").at_least(0);
    o.add("--warm-up", warm_up, "share of the steps with random bits").between(0, 0.99);
    o.add("--selector-lr", selector_lr, "learning rate of the selector").at_least(0);
    o.add("--selector-start", start, "first choice: the target's bits, or the highest")
        .one_of({"target", "highest"});
    o.parse(argc, argv);
    check(!init.empty(), "name the trained network with --init");
    check(from.empty() || real.empty(), "--from and --real: got both, expected one source of images");
    check(!selector || skip != "shared",
          "--skip shared: with --selector tensors are stored in 8 bits; use u8");
    synthesis();  // complains before there is work to lose
    fine_tuning();
    if (selector) {
      dynamic();
      Budget::parse(bops);
    }
    values = o.values();
  }

  SynthesisOptions synthesis() const {
    SynthesisOptions s = synthesis_preset(preset);
    const auto take = [](double given, double& into) {
      if (given != unset) into = given;
    };
    s.images = images;
    if (s.method == Method::noise) s.batch = synthesis_batch;
    if (iterations > 0) s.iterations = iterations;
    take(synthesis_lr, s.lr);
    if (!arm.empty()) s.labels.arm = parse_arm(arm);
    if (!similarity.empty()) s.labels.similarity = parse_similarity(similarity);
    if (group > 0) s.labels.group = group;
    take(hard, s.labels.hard);
    take(sigma_low, s.labels.sigma_low);
    take(sigma_high, s.labels.sigma_high);
    take(dirichlet, s.labels.dirichlet);
    take(anchor, s.labels.anchor);
    take(label_weight, s.label_weight);
    take(statistics_weight, s.statistics_weight);
    take(tv, s.total_variation);
    if (entropy_target != unset) {
      s.entropy_target = entropy_target;
      s.entropy_weight = 1;
    }
    s.clamp = clamp;
    s.dtype = synthesis_dtype == "bf16" ? DType::bf16 : DType::f32;
    s.seed = common.seed;
    return s;
  }

  FineTuningOptions fine_tuning() const {
    FineTuningOptions f = fine_tuning_preset(tuning);
    const auto take = [](double given, double& into) {
      if (given != unset) into = given;
    };
    f.epochs = epochs;
    f.steps = steps;
    if (calibration > 0) f.calibration = calibration;
    if (batch > 0) f.batch = batch;
    take(lr, f.lr);
    take(kd, f.kd);
    take(ce, f.ce);
    take(features, f.features);
    take(temperature, f.temperature);
    take(perturbation, f.perturbation);
    if (!reduction.empty()) f.reduction = reduction == "mean" ? KlReduction::mean : KlReduction::batchmean;
    if (!mixup.empty()) f.mixup = parse_mixup(mixup);
    f.augment = !no_augment;
    f.seed = common.seed;
    f.budget = budget;
    f.entropy = entropy;
    f.warm_up = warm_up;
    f.selector_lr = selector_lr;
    f.law = law == "hinge" ? BudgetLaw::hinge : BudgetLaw::distance;
    f.choosing = choosing == "gumbel" ? Choosing::gumbel : Choosing::straight_through;
    return f;
  }

  DynamicOptions dynamic() const {
    DynamicOptions d;
    d.target = a_bits;
    d.candidates = parse_bits(candidates);
    for (int bits = std::max(1, a_bits - 1); candidates.empty() && bits <= std::min(8, a_bits + 1); ++bits)
      d.candidates.push_back(bits);
    d.weights = dynamic_part == "both";
    d.type = parse_selector_type(selector_type);
    d.selector.start_highest = start == "highest";
    d.after = static_cast<size_t>(after);
    d.quantizer = ranges == "shared" ? "ste" : ranges == "each" ? "ste:range=mse" : "lsq";
    d.seed = common.seed;
    return d;
  }
};

/// Results on pictures, in order.
struct Run {
  Array logits;   // (n, classes)
  Array choices;  // (n, sites), of a network with a selector

  double accuracy(const std::vector<int32_t>& labels) const {
    const Array top = kernels::argmax(logits);
    int64_t right = 0;
    for (int64_t i = 0; i < top.size(); ++i)
      right += top.data<int32_t>()[i] == labels[static_cast<size_t>(i)];
    return 100 * static_cast<double>(right) / static_cast<double>(top.size());
  }
};

class DataFree {
 public:
  explicit DataFree(Settings settings) : s_(std::move(settings)), run_(s_.common.out, s_.common.resume) {
    run_.describe("datafree", s_.values, s_.common.seed);
  }

  void go() {
    load_network();
    make_images();
    show_images();
    quantize();
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
    } else {
      const SynthesisOptions options = s_.synthesis();
      const bool generator = options.method == Method::generator;
      const int64_t batches = generator ? 1 : (options.images + options.batch - 1) / options.batch;
      Progress progress("synthesis", batches * options.iterations, "steps");
      const Synthesis made = synthesise(*teacher_, options, scale_, [&](int64_t, int, double loss) {
        progress.advance(1, "loss " + fixed(loss, 3));
        interrupt_.stop_here();
      });
      set_ = made.set;
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
    run_.seconds("synthesis", watch.seconds());
    run_.result().set("images.count", set_.size());
    run_.result().set("images.data_free", s_.real.empty());
  }

  // The upper bound: pictures without their labels, which the teacher's opinion replaces.
  ImageSet real_pictures() {
    std::cout << "--real: the training pictures of " << s_.real << " are opened; this run is not data-free\n";
    const data::Dataset train = some_pictures(
        data::load_dataset(s_.real, s_.common.data, s_.validate ? data::Split::fit : data::Split::train));
    ImageSet set;
    set.images = images_of(train);
    const NoGrad no_grad;
    Arrays parts;
    for (int64_t i = 0; i < train.size(); i += 250)
      parts.push_back(
          softmax((*teacher_)(set.images.slice(i, std::min<int64_t>(250, train.size() - i)))).value());
    set.labels.soft = kernels::concat(parts, 0);
    const Array top = kernels::argmax(set.labels.soft);
    set.labels.classes.assign(top.data<int32_t>(), top.data<int32_t>() + top.size());
    set.labels.hard.assign(set.labels.classes.size(), 0);
    return set;
  }
  data::Dataset some_pictures(const data::Dataset& all) const {
    std::vector<int64_t> order =
        random_permutation(all.size(), Philox(s_.common.seed, stream_of("real pictures")));
    order.resize(static_cast<size_t>(std::min(s_.images, all.size())));
    return data::subset(all, order);
  }
  Array images_of(const data::Dataset& pictures) const {
    data::Loader loader(pictures, {.normalisation = normalisation_}, {.batch = 250});
    Arrays parts;
    for (const data::Batch& batch : loader.epoch(0)) parts.push_back(batch.images);
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
      if (const std::vector<Array> some = pictures(hard, 100); !some.empty() && some[0].dim(2) == 3)
        data::write_png(run_.file(hard ? "hard.png" : "easy.png"), enlarge(contact_sheet(some, 10), 2));
    const NoGrad no_grad;
    made_ = meter(set_.images, set_.labels.soft);
    for (const bool hard : {false, true}) note_difficulty(hard ? "hard" : "easy", made_of(hard));
  }

  struct Meter {
    Difficulty difficulty;
    Array features;
  };
  Meter meter(const Array& images, const Array& labels) {
    Arrays logits, features;
    for (int64_t i = 0; i < images.dim(0); i += 250) {
      const Tensor map =
          teacher_->forward(images.slice(i, std::min<int64_t>(250, images.dim(0) - i)), 0, teacher_->head());
      features.push_back(map.rank() == 4 ? mean(map, {1, 2}).value() : map.value());
      logits.push_back(teacher_->forward(map, teacher_->head(), teacher_->blocks().size()).value());
    }
    return {difficulty(kernels::concat(logits, 0), labels), kernels::concat(features, 0)};
  }
  Difficulty made_of(bool hard) const {
    Difficulty part;
    for (int64_t i = 0; i < set_.size(); ++i) {
      const auto n = static_cast<size_t>(i);
      if (static_cast<bool>(set_.labels.hard[n]) != hard) continue;
      part.entropy.push_back(made_.difficulty.entropy[n]);
      part.gradient.push_back(made_.difficulty.gradient[n]);
      part.density.push_back(made_.difficulty.density[n]);
      part.margin.push_back(made_.difficulty.margin[n]);
    }
    return part;
  }
  void note_difficulty(const std::string& name, const Difficulty& d) {
    const auto average = [](const std::vector<double>& x) {
      return x.empty() ? NAN : std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
    };
    run_.result().set("difficulty." + name + ".entropy", average(d.entropy));
    run_.result().set("difficulty." + name + ".gradient", average(d.gradient));
    run_.result().set("difficulty." + name + ".density", average(d.density));
    run_.result().set("difficulty." + name + ".margin", average(d.margin));
    run_.result().set("difficulty." + name + ".gradient_histogram",
                      Value::list(histogram(d.gradient, 0, 1, 20)));
  }

  // --- quantization and training ---

  Tensor forward(const Tensor& images) { return dynamic_ ? dynamic_->forward(images) : (*student_)(images); }

  void quantize() {
    const Protocol protocol = parse_protocol(s_.protocol);
    const quant::Skip skip = s_.selector || s_.skip == "u8" ? quant::Skip::u8 : quant::Skip::shared;
    policy_ = protocol_policy(*student_, protocol, s_.w_bits, s_.a_bits, s_.quantizer, skip);
    fixed_policy_ = policy_;
    FineTuningOptions options = s_.fine_tuning();
    if (s_.selector) {
      const DynamicOptions dynamic = s_.dynamic();
      policy_ = dynamic_policy(*student_, policy_, dynamic);
      sites_ = quant::attach_sites(*student_, policy_);
      dynamic_ = attach_dynamic_bits(*student_, *sites_, dynamic);
      options.target = relative(Budget::parse(s_.bops));
      if (options.target > dynamic_->most_cost())
        warn(text("target out of reach: the highest candidates cost ", fixed(dynamic_->most_cost(), 3),
                  " times the target's bits, less than --bops ", s_.bops));
    } else {
      sites_ = quant::attach_sites(*student_, policy_);
    }
    const Stopwatch watch;
    std::optional<nn::Checkpoint> before;
    if (s_.common.resume && run_.has(checkpoint_file))
      before = nn::load_checkpoint(run_.file(checkpoint_file));
    const int64_t epochs_done = before ? before->counters.at("epoch") : 0;
    run_.forget_metrics_after("fine-tuning", epochs_done - 1);
    const int64_t images_of_step = std::min(options.batch, set_.size());
    Progress progress("fine-tuning",
                      (options.calibration + int64_t{options.epochs} * options.steps) * images_of_step, "images",
                      before ? (options.calibration + epochs_done * options.steps) * images_of_step : 0);
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
    run_.seconds("fine-tuning", watch.seconds());
    nn::ModelInfo info = info_;
    info.options = student_options();
    info.notes["policy"] = policy_.to_json();
    nn::save_model(run_.file("model.safetensors"), *student_, info);
    data::atomic_write(run_.file("policy.json"), policy_.to_json());
  }

  double relative(const Budget& budget) const {
    if (!budget.absolute) return budget.value;
    double target = 0, most = 0;
    const std::vector<int> at = at_target();
    for (size_t i = 0; i < at.size(); ++i) {
      const DynamicBits::Site& site = dynamic_->sites()[i];
      target += dynamic_->bops(site, static_cast<size_t>(at[i]));
      most += dynamic_->bops(site, dynamic_->options().candidates.size() - 1);
    }
    // (fixed + most) / (fixed + target) = most_cost
    const double fixed = (most - dynamic_->most_cost() * target) / (dynamic_->most_cost() - 1);
    return budget.value / (fixed + target);
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
                  {"bits", n.bits},
                  {"bit_entropy", n.bit_entropy},
                  {"selector_gradient", n.selector_gradient}});
    if (s_.eval.empty() || s_.no_best) return;
    nn::Checkpoint network;  // for the final evaluation
    network.parts["student"] = student_->state();
    nn::save_checkpoint(run_.file(epoch_file(n.epoch)), network);
  }
  static std::string epoch_file(int epoch) { return text("epoch-", epoch, ".ckpt"); }

  integer::Model lowered(const std::function<Tensor(const Tensor&)>& run, const quant::Policy& policy) const {
    integer::Model model = quant::lower(
        trace([&](const Tensors& in) { return run(in[0]); }, {Array::zeros(student_->input_shape())}));
    model.class_names = class_names_;
    model.policy = policy.to_json();
    for (const double mean : normalisation_.mean) model.mean.push_back(static_cast<float>(mean));
    for (const double std : normalisation_.std) model.deviation.push_back(static_cast<float>(std));
    return model;
  }

  void lower() {
    student_->eval();
    if (dynamic_) dynamic_->choosing = Choosing::hard;
    const std::string file = run_.file("integer.safetensors");
    integer::save(lowered([&](const Tensor& x) { return forward(x); }, policy_), file);
    integer_ = integer::load(file);
    run_.result().set("cost.params", teacher_->parameter_count());
    run_.result().set("cost.bytes", integer::parameter_bytes(integer_));
    run_.result().set("cost.bops", integer::bops(integer_, at_target()));
    std::cout << "integer model: " << bytes(static_cast<double>(integer::parameter_bytes(integer_))) << ", "
              << scaled(static_cast<double>(integer::bops(integer_, at_target()))) << " BOPs"
              << (dynamic_ ? " at the target's bits" : "") << "; " << file << "\n";
    if (dynamic_) measure_selector();
  }
  std::vector<int> at_target() const {
    if (!dynamic_) return {};
    const std::vector<int>& c = dynamic_->options().candidates;
    const auto place = std::ranges::find(c, dynamic_->options().target) - c.begin();
    return std::vector<int>(dynamic_->sites().size(), static_cast<int>(place));
  }

  // What the selector takes, beside the fixed network of the target's bits.
  void measure_selector() {
    const auto is_selector = [&](const integer::Layer& layer) {
      return std::holds_alternative<integer::Moments>(layer) ||
             std::holds_alternative<integer::Select>(layer) ||
             integer::name_of(integer_, layer).find("selector") != std::string::npos;
    };
    int64_t weights = 0, moved = 0;
    for (const integer::Layer& layer : integer_.layers) {
      if (!is_selector(layer)) continue;
      if (const auto* c = std::get_if<integer::Convolution>(&layer))
        weights += c->weights.size() + 8 * c->m.size();
      for (const int src : integer::sources_of(layer)) {
        const integer::Value& v = integer_.values[static_cast<size_t>(src)];
        moved += v.shape.size() * (v.codes ? 1 : 4);
      }
    }
    Value& result = run_.result();
    int64_t parameters = 0;
    for (const nn::NamedTensor& p : dynamic_->selector_parameters()) parameters += p.tensor.size();
    result.set("selector.params", parameters);
    result.set("selector.macs", dynamic_->selector_macs());
    result.set("selector.bops", dynamic_->selector_macs() * 64);
    result.set("selector.bytes_read", weights + moved);
    const auto fixed_student = nn::make_model(info_.model, student_options());
    nn::State own = fixed_student->state(), trained = student_->state();
    for (auto& [name, array] : own) array.assign(trained.at(name));
    quant::attach_sites(*fixed_student, fixed_policy_);
    quant::calibrate(*fixed_student, set_.images.slice(0, std::min<int64_t>(64, set_.size())));
    fixed_student->eval();
    const integer::Model fixed = lowered([&](const Tensor& x) { return (*fixed_student)(x); }, fixed_policy_);
    for (const int64_t batch : {1, 32}) {
      const Array images =
          kernels::concat(Arrays(static_cast<size_t>((batch + set_.size() - 1) / set_.size()), set_.images),
                          0)
              .slice(0, batch);
      const std::string at = text("selector.batch", batch, '.');
      integer::Session layers(integer_, batch, /*keep_values=*/true), dynamic(integer_, batch),
          own(fixed, batch);
      double all = 0;
      std::vector<double> selector;
      times_of([&] {
        layers.run(images);
        selector.push_back(0);
        for (size_t l = 0; l < integer_.layers.size(); ++l) {
          all += layers.seconds(l);
          if (is_selector(integer_.layers[l])) selector.back() += layers.seconds(l);
        }
      });
      result.set(at + "share_of_time", mean(selector) * static_cast<double>(selector.size()) / all);
      note_times(at + "selector_ms", selector);
      note_times(at + "dynamic_ms", times_of([&] { dynamic.run(images); }));
      note_times(at + "fixed_ms", times_of([&] { own.run(images); }));
      // Whether it matters how many of the images have bits of their own.
      for (const int64_t distinct : {1, 8, 32}) {
        if (distinct > batch || batch == 1) continue;
        const Array choices = random_choices(batch, distinct);
        note_times(text(at, "distinct_", distinct, "_ms"), times_of([&] { dynamic.run(images, choices); }));
      }
    }
  }
  // Rows of choices, of which so many differ.
  Array random_choices(int64_t rows, int64_t distinct) const {
    const auto sites = static_cast<int64_t>(dynamic_->sites().size());
    const Philox rng(s_.common.seed, stream_of("distinct choices"));
    Array choices({rows, sites}, DType::u8);
    for (int64_t i = 0; i < choices.size(); ++i)
      choices.data<uint8_t>()[i] = static_cast<uint8_t>(rng.below(
          static_cast<uint64_t>(i % (distinct * sites)), dynamic_->options().candidates.size()));
    return choices;
  }
  nn::ModelOptions student_options() const {
    nn::ModelOptions options = info_.options;
    options.style.folded = options.style.folded || parse_protocol(s_.protocol) == Protocol::folded;
    return options;
  }
  // Seconds of 200 calls; of at least 25, if they take long.
  static std::vector<double> times_of(const std::function<void()>& call) {
    std::vector<double> times;
    for (const Stopwatch all; times.size() < 25 || (times.size() < 200 && all.seconds() < 5);) {
      const Stopwatch watch;
      call();
      times.push_back(watch.seconds());
    }
    return times;
  }
  void note_times(const std::string& name, const std::vector<double>& seconds) {
    for (const int percent : {50, 95, 99})
      run_.result().set(text(name, ".p", percent), 1e3 * percentile(seconds, percent / 100.0));
  }

  // --- the only place that opens test pictures ---

  void final_evaluation() {
    if (s_.eval.empty()) return;
    std::cout << "everything is made and saved; only now is the data set " << s_.eval
              << " opened, to measure\n";
    const Stopwatch watch;
    const data::Split split = s_.validate ? data::Split::validation : data::Split::test;
    data::Dataset test = data::load_dataset(s_.eval, s_.common.data, split);
    if (s_.limit > 0) test = data::first(test, s_.limit);
    check(test.classes() == info_.options.classes, "--eval ", s_.eval, ": it has ", test.classes(),
          " classes, but ", s_.model, " has ", info_.options.classes);
    const data::Transform transform{.normalisation = normalisation_};
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
    if (dynamic_) judge_selector(test);
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
    const nn::State final_state = [&] {
      nn::State state;
      for (const auto& [name, array] : student_->state()) state[name] = array.clone();
      return state;
    }();
    std::vector<double> curve;
    for (int epoch = 0; epoch < s_.epochs; ++epoch) {
      student_->load_state(nn::load_checkpoint(run_.file(epoch_file(epoch))).parts.at("student"));
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
      const std::string name = text("difficulty.", hard ? "hard" : "easy", "_to_real.");
      run_.result().set(name + "entropy_wasserstein", mean_distance(part.entropy, real.difficulty.entropy));
      run_.result().set(name + "gradient_wasserstein",
                        mean_distance(part.gradient, real.difficulty.gradient));
      run_.result().set(name + "gradient_ks", largest_distance(part.gradient, real.difficulty.gradient));
    }
    run_.result().set("diversity.pairwise_cosine", mean_pairwise_cosine(made_.features));
    run_.result().set("diversity.pairwise_cosine_real", mean_pairwise_cosine(real.features));
    if (real.features.dim(0) > 5)
      run_.result().set("diversity.coverage", coverage(real.features, made_.features));
  }

  // In integers; without choices the network's selector makes them.
  Run run_integers(const data::Dataset& test, const Array& choices = {}) {
    data::Loader loader(test, {.normalisation = normalisation_}, {.batch = 200});
    std::unique_ptr<integer::Session> session;
    Arrays logits, chosen;
    int64_t done = 0;
    for (const data::Batch& batch : loader.epoch(0)) {
      if (!session || session->batch() != batch.size())
        session = std::make_unique<integer::Session>(integer_, batch.size());
      if (choices.has_value()) {
        logits.push_back(session->run(batch.images, choices.slice(done, batch.size())).clone());
      } else {
        logits.push_back(session->run(batch.images).clone());
        chosen.push_back(session->choices().clone());
      }
      done += batch.size();
    }
    return {kernels::concat(logits, 0), choices.has_value() ? choices : kernels::concat(chosen, 0)};
  }

  void judge_selector(const data::Dataset& test) {
    const std::vector<int>& candidates = dynamic_->options().candidates;
    const auto sites = static_cast<int64_t>(dynamic_->sites().size()), n = test.size();
    SiteCosts cost;
    double sites_at_first = 0;
    for (const DynamicBits::Site& site : dynamic_->sites()) {
      cost.emplace_back();
      for (size_t k = 0; k < candidates.size(); ++k) cost.back().push_back(dynamic_->bops(site, k));
      sites_at_first += cost.back()[0];
    }
    const double fixed_part = static_cast<double>(integer::bops(integer_)) - sites_at_first;
    const Run dynamic = run_integers(test);
    Value& result = run_.result();
    const auto note = [&](const std::string& name, const Run& r) {
      result.set("arms." + name + ".accuracy", r.accuracy(test.labels));
      result.set("arms." + name + ".bops", mean_cost(r.choices, cost) + fixed_part);
      arms_.row({name, percent(r.accuracy(test.labels)), scaled(mean_cost(r.choices, cost) + fixed_part)});
    };
    note("dynamic", dynamic);
    std::vector<Run> all_at;
    for (size_t k = 0; k < candidates.size(); ++k) {
      all_at.push_back(run_integers(test, Array::full({n, sites}, static_cast<double>(k), DType::u8)));
      note(text("all at ", candidates[k]), all_at.back());
    }
    note("static mixed", run_integers(test, static_choices(dynamic.choices, cost)));
    note("random", run_integers(test, shuffled_choices(dynamic.choices, s_.common.seed)));

    // Against what the images need.
    const NoGrad no_grad;
    Arrays full;
    const Array images = images_of(test);
    for (int64_t i = 0; i < n; i += 250)
      full.push_back((*teacher_)(images.slice(i, std::min<int64_t>(250, n - i))).value());
    const Array expected = kernels::concat(full, 0);
    std::vector<std::vector<double>> omega;
    for (const Run& r : all_at) omega.push_back(sensitivity(expected, r.logits));
    std::vector<std::vector<double>> gain(static_cast<size_t>(n));
    for (size_t i = 0; i < gain.size(); ++i)
      for (const std::vector<double>& at : omega) gain[i].push_back(omega[0][i] - at[i]);
    note("oracle", run_integers(test, oracle_choices(gain, cost, mean_cost(dynamic.choices, cost))));

    std::vector<double> bits(static_cast<size_t>(n));
    for (int64_t i = 0; i < n * sites; ++i)
      bits[static_cast<size_t>(i / sites)] +=
          candidates[dynamic.choices.data<uint8_t>()[i]] / static_cast<double>(sites);
    std::vector<double> sorted = bits;
    std::ranges::nth_element(sorted, sorted.begin() + n / 2);
    std::vector<bool> above;
    for (const double b : bits) above.push_back(b > sorted[static_cast<size_t>(n / 2)]);
    const std::vector<bool> needed = needs_bits(all_at.front().logits, all_at.back().logits, test.labels);
    const Decisions d = compare_decisions(above, needed);
    const Correlation rho = spearman(bits, omega[0]);
    result.set("selector.mean_bits", std::accumulate(bits.begin(), bits.end(), 0.0) / static_cast<double>(n));
    result.set("selector.needing", d.true_positive + d.false_negative);
    result.set("selector.precision", d.precision());
    result.set("selector.recall", d.recall());
    result.set("selector.f1", d.f1());
    result.set("selector.roc_auc", roc_auc(bits, needed));
    result.set("selector.confusion", Value::list(std::vector<int64_t>{d.true_positive, d.false_positive,
                                                                      d.false_negative, d.true_negative}));
    result.set("selector.spearman", rho.value);
    result.set("selector.spearman_low", rho.low);
    result.set("selector.spearman_high", rho.high);
    result.set("selector.bit_entropy",
               Value::list(choice_entropy(dynamic.choices, static_cast<int64_t>(candidates.size()))));
    if (const auto sentence = collapse(dynamic.choices, static_cast<int64_t>(candidates.size())))
      warn(*sentence);
    std::cout << arms_.text() << "Spearman of bits and sensitivity on real pictures: " << fixed(rho.value, 3)
              << " (" << fixed(rho.low, 3) << " to " << fixed(rho.high, 3) << "); precision "
              << fixed(d.precision(), 3) << ", recall " << fixed(d.recall(), 3) << ", ROC-AUC "
              << fixed(roc_auc(bits, needed), 3) << "\n";
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
      report.curves("Cost", "epoch", "relative BOPs", {curve("cost")});
      report.curves("Entropy of the bits", "epoch", "nats", {curve("bit_entropy")});
      report.table(arms_);
    }
    report.save(run_.file("report.html"));
    run_.finish();
    std::cout << "see " << run_.file("report.html") << "\n";
    if (agreement_ && agreement_->mismatched > 0)
      throw numeric_error(text(agreement_->mismatched, " codes of the integer run differ from the quantized ",
                               "evaluation; please report this with ", run_.file("result.json")));
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
  Table arms_{{"bits", "accuracy", "BOPs"}};
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
