#include "settings.h"

#include <algorithm>
#include <cmath>

#include "../../nn/import.h"

namespace stairgrad::examples {

using namespace quant::datafree;

namespace {

void take(double given, double& into) {
  if (!std::isnan(given)) into = given;
}

}  // namespace

Budget Budget::parse(const std::string& word) {
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

void Settings::parse(int argc, char** argv) {
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
  o.add("--real", real, "upper bound: unlabelled training pictures of this data set in place of made images");
  o.add("--images", images, "images to make").at_least(1);
  o.add("--synthesis-batch", synthesis_batch, "images that are made together (default: the preset's)")
      .at_least(1);
  o.add("--iterations", iterations, "steps of the synthesis (default: the preset's)").at_least(1);
  o.add("--synthesis-lr", synthesis_lr, "learning rate of the synthesis (default: the preset's)").at_least(0);
  o.add("--synthesis-dtype", synthesis_dtype, "type of the activations").one_of({"f32", "bf16"});
  o.add("--arm", arm, "classes of hard images: similar, arbitrary, dissimilar, mixed, one-hot or smoothing");
  o.add("--similarity", similarity, "of classes: dot, cosine or centred");
  o.add("--similar-min", similar_min, "leave classes less similar than this out of a hard image's");
  o.add("--group", group, "classes of a hard image (default: 3 of up to 10, 5 of up to 100, 10 of more)")
      .at_least(1);
  o.add("--hard", hard, "share of hard images").between(0, 1);
  o.add("--sigma-low", sigma_low, "smallest spread of soft labels").at_least(0);
  o.add("--sigma-high", sigma_high, "largest spread of soft labels").at_least(0);
  o.add("--dirichlet", dirichlet, "soft labels from this Dirichlet distribution").at_least(0);
  o.add("--anchor", anchor, "added to the logit of an image's own class").at_least(0);
  o.add("--smoothing", smoothing, "share of a label that --arm smoothing spreads").between(0, 1);
  o.add("--label-weight", label_weight, "weight of the label loss; 0: the network's answers are the labels")
      .at_least(0);
  o.add("--focal", focal, "weigh the label loss by how far an image is from its label, to this power")
      .at_least(0);
  o.add("--statistics-weight", statistics_weight, "weight of the loss on batch-norm statistics").at_least(0);
  o.add("--tv", tv, "weight of total variation").at_least(0);
  o.add("--synthesis-augment", synthesis_augment, "probability of a crop and a mirror in a step")
      .between(0, 1);
  o.add("--entropy-target", entropy_target, "share of the largest entropy that predictions shall have")
      .between(0, 1);
  o.add("--clamp", clamp, "keep pixels between black and white");

  o.add("--wbits", w_bits, "bits of weights").between(1, 8);
  o.add("--abits", a_bits, "bits of activations; with --selector the target's").between(1, 8);
  o.add("--protocol", protocol,
        "family: low bits in all layers, batch norms stay; folded: batch norms folded, first and last "
        "layer 8 bit")
      .one_of({"family", "folded"});
  o.add("--quantizer", quantizer,
        "how to quantize: ranges of least error, or those of the extremes, as in the family's code: ste "
        "(inputs of several candidates: --ranges)");
  o.add("--skip", skip, "residual adds read: shared (default), or u8 (with --selector always)")
      .one_of({"", "shared", "u8"});

  o.add("--tuning", tuning, "how the quantized network is trained").one_of(fine_tuning_presets());
  o.add("--epochs", epochs, "epochs; 0: ranges are calibrated, nothing is trained").at_least(0);
  o.add("--steps", steps, "steps of an epoch").at_least(1);
  o.add("--calibration", calibration, "batches that move the ranges of activations (default: the preset's)")
      .at_least(1);
  o.add("--batch", batch, "images of a step (default: the preset's)").at_least(1);
  o.add("--lr", lr, "learning rate (default: the preset's)").at_least(0);
  o.add("--kd", kd, "weight of the distillation").at_least(0);
  o.add("--ce", ce, "weight of the cross-entropy with the labels").at_least(0);
  o.add("--features", features, "weight of the feature alignment").at_least(0);
  o.add("--temperature", temperature, "of the distillation").at_least(0);
  o.add("--reduction", reduction, "of the distillation: batchmean or mean (over classes, too)")
      .one_of({"", "batchmean", "mean"});
  o.add("--mixup", mixup, "images that are mixed: off, easy (where there are hard ones beside) or all");
  o.add("--mixup-alpha", mixup_alpha, "of the Beta distribution of the mixture").at_least(0);
  o.add("--perturbation", perturbation,
        "train also on images moved so far towards a larger loss, such as HAST's 0.01")
      .at_least(0);
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
  o.add("--ranges", ranges,
        "candidates share one range, which is that of the extremes; each finds one of least error; or each "
        "learns its own")
      .one_of({"shared", "each", "learned"});
  o.add("--norms", norms, "candidates share the batch norms, or each has its own").one_of({"shared", "each"});
  o.add("--choosing", choosing, "how the selector is trained").one_of({"gumbel", "straight-through"});
  o.add("--gumbel-start", gumbel_start, "temperature of the Gumbel noise at the start").at_least(0);
  o.add("--gumbel-end", gumbel_end, "and at the end").at_least(0);
  o.add("--selector-width", selector_width, "hidden features of the selector").at_least(1);
  o.add("--law", law, "of the budget").one_of({"hinge", "distance"});
  o.add("--budget", budget, "weight of the budget").at_least(0);
  o.add("--no-shift", no_shift,
        "do not shift the selector's biases in the end to where its choices cost what was asked for");
  o.add("--entropy", entropy, "weight of the guard against a collapsed selector").at_least(0);
  o.add("--warm-up", warm_up, "share of the steps with random bits").between(0, 0.99);
  o.add("--selector-lr", selector_lr, "learning rate of the selector").at_least(0);
  o.add("--selector-start", start, "first choice: the target's bits, or the highest")
      .one_of({"target", "highest"});
  o.parse(argc, argv);
  check(!init.empty(), "name the trained network with --init");
  check(from.empty() || real.empty(), "--from and --real: got both, expected one source of images");
  check(!selector || skip != "shared", "--skip shared: with --selector tensors are stored in 8 bits; use u8");
  check(norms == "shared" || parse_protocol(protocol) == Protocol::family,
        "--norms each: --protocol folded leaves no batch norms; use --norms shared or --protocol family");
  // Complaints come before there is work to lose.
  quant::datafree::validate(synthesis());
  quant::datafree::validate(fine_tuning());
  if (selector) {
    check(dynamic().candidates.size() > 1, "--candidates ", candidates,
          ": got one candidate, expected two or more to choose from; without --selector all images have "
          "--abits");
    Budget::parse(bops);
  }
  values = o.values();
}

SynthesisOptions Settings::synthesis() const {
  SynthesisOptions s = synthesis_preset(preset);
  s.images = images;
  if (synthesis_batch > 0) s.batch = synthesis_batch;
  if (iterations > 0) s.iterations = iterations;
  take(synthesis_lr, s.lr);
  if (!arm.empty()) s.labels.arm = parse_arm(arm);
  if (!similarity.empty()) s.labels.similarity = parse_similarity(similarity);
  take(similar_min, s.labels.least_similarity);
  if (group > 0) s.labels.group = group;
  take(hard, s.labels.hard);
  take(sigma_low, s.labels.sigma_low);
  take(sigma_high, s.labels.sigma_high);
  take(dirichlet, s.labels.dirichlet);
  take(anchor, s.labels.anchor);
  take(smoothing, s.labels.smoothing);
  take(label_weight, s.label_weight);
  take(focal, s.focal);
  take(synthesis_augment, s.augment);
  take(statistics_weight, s.statistics_weight);
  take(tv, s.total_variation);
  if (!std::isnan(entropy_target)) {
    s.entropy_target = entropy_target;
    s.entropy_weight = 1;
  }
  s.clamp = clamp;
  s.dtype = synthesis_dtype == "bf16" ? DType::bf16 : DType::f32;
  s.seed = common.seed;
  return s;
}

FineTuningOptions Settings::fine_tuning() const {
  FineTuningOptions f = fine_tuning_preset(tuning);
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
  f.mixup_alpha = mixup_alpha;
  f.augment = !no_augment;
  f.seed = common.seed;
  f.budget = budget;
  f.entropy = entropy;
  f.warm_up = warm_up;
  f.selector_lr = selector_lr;
  f.temperature_start = gumbel_start;
  f.temperature_end = gumbel_end;
  f.law = law == "hinge" ? BudgetLaw::hinge : BudgetLaw::distance;
  f.choosing = choosing == "gumbel" ? Choosing::gumbel : Choosing::straight_through;
  return f;
}

DynamicOptions Settings::dynamic() const {
  DynamicOptions d;
  d.target = a_bits;
  d.candidates = parse_bits("--candidates", candidates);
  for (int bits = std::max(1, a_bits - 1); candidates.empty() && bits <= std::min(8, a_bits + 1); ++bits)
    d.candidates.push_back(bits);
  d.weights = dynamic_part == "both";
  d.type = parse_selector_type(selector_type);
  d.selector.hidden = selector_width;
  d.selector.start_highest = start == "highest";
  d.after = static_cast<size_t>(after);
  d.quantizer = ranges == "shared" ? "ste" : ranges == "each" ? "ste:range=mse" : "lsq";
  d.norms = norms == "each";
  d.seed = common.seed;
  return d;
}

}  // namespace stairgrad::examples
