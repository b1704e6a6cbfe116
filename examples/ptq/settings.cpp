#include "settings.h"

#include <charconv>

namespace stairgrad::examples {
namespace {

// Of "sim:0.9".
double parse_cosine(const std::string& word) {
  double cosine = 0;
  const char* const last = word.data() + word.size();
  const auto [end, error] = std::from_chars(word.data() + 4, last, cosine);
  check(error == std::errc() && end == last && cosine >= -1 && cosine <= 1, "--negatives: got \"", word,
        "\", expected a cosine from -1 to 1 after sim:, such as sim:0.9");
  return cosine;
}

}  // namespace

void Settings::parse(int argc, char** argv) {
  Options options(
      "ptq",
      "Quantizes a trained network with a few pictures and no labels, block by block, and lowers it to "
      "integers. "
      "rtn only chooses ranges; adaround learns to round the weights of each layer; brecq does that for a "
      "block at "
      "a time and then learns the steps of activations; qdrop learns both at once, while activations are "
      "quantized at random; pdquant also keeps the predictions. --clcalib adds the contrastive loss of "
      "CL-Calib.",
      {"ptq --init weights/akamaster_resnet20-12fca82f.th --import pytorch --wbits 4 --abits 4",
       "ptq --init resnet20.th --import pytorch --method pdquant --clcalib --wbits 2 --abits 2 --seeds 5",
       "ptq --init resnet20.th --import pytorch --method rtn --range percentile --wbits 8 --abits 8"});
  common.add_to(options, "out/ptq");
  task.dataset = "cifar10";
  task.add_to(options);
  options.add("--method", method, "what is done beside choosing ranges").one_of(quant::method_names());
  options.add("--wbits", w_bits, "bits of weights").between(1, 8);
  options.add("--abits", a_bits, "bits of activations").between(1, 8);
  std::vector<std::string> presets = quant::preset_names();
  presets.insert(presets.begin(), "");
  options
      .add("--preset", preset,
           "what the first and the last layer are: as the papers of qdrop, brecq or pdquant have it, or "
           "the same "
           "as all others (default: that of --method)")
      .one_of(presets);
  options.add("--range", range, "how ranges are chosen")
      .one_of({"mse", "minmax", "percentile", "sigma", "kl"});
  options.add("--granularity", granularity, "weights of an output channel share a grid, or those of a layer")
      .one_of({"channel", "layer"});
  options
      .add("--skip", skip,
           "where the skip of a residual add lives: on the layer's grid, in 8 bits of its own, or in floats")
      .one_of({"shared", "u8", "float"});
  options.add("--policy", policy,
              "a policy file in place of bits, preset, granularity and skip; its quantizers become affine");
  options.add("--calib", calib, "pictures to calibrate with, drawn by the seed").at_least(1);
  options.add("--calib-augment", calib_augment, "change them at random as in training");
  options.add("--calib-from-test", calib_from_test,
              "draw them from the test pictures, which are then measured without them");
  options.add("--iterations", iterations, "steps for each block; 20,000 in the papers").at_least(1);
  options.add("--batch", batch, "pictures of a step").at_least(1);
  options
      .add("--lr-rounding", lr_rounding,
           "learning rate of the rounding; 0: the paper's 1e-3 (pdquant 3e-3) x 20,000 / iterations, up to "
           "1e-2")
      .at_least(0);
  options.add("--lr-step", lr_step, "of the steps; 0: 4e-5 (brecq 4e-4) x 20,000 / iterations, up to 1e-3")
      .at_least(0);
  options
      .add("--rounding-weight", rounding_weight,
           "of the regulariser: 0.01 ResNet, 0.1 MobileNetV2, 0.2 MNASNet")
      .at_least(0);
  options.add("--warmup", warmup, "share of the steps before the regulariser sets in").between(0, 1);
  options.add("--keep-input", keep_input, "share of a block's input that is quantized; below 0: the method's")
      .between(-1, 1);
  options
      .add("--keep-activation", keep_activation,
           "probability that an activation is quantized; below 0: the method's")
      .between(-1, 1);
  options.add("--without-replacement", without_replacement, "no picture twice in a batch");
  options.add("--memory", memory, "MB for the features of the pictures; kept in bf16 if f32 does not fit")
      .at_least(1);
  options.add("--border", border,
              "learn where activations between two levels are rounded up, after AQuant; has no integer form");
  options.add("--equalise", equalise,
              "before all else, give layers that follow one another weights of the same ranges");
  options.add("--bias-correction", bias_correction,
              "in the end, take the mean errors of layers from their biases");
  options
      .add("--correction-steps", correction_steps,
           "steps of distribution correction for each 32 pictures; 0: none; below 0: the method's, 500 with "
           "pdquant")
      .at_least(-1);
  options.add(
      "--correction-cache", correction_cache,
      "folder for the corrected features, which other bits and additions with the same pictures use again; "
      "empty: they are not kept");
  options
      .add("--correction-weight", correction_weight,
           "1 / lambda_c: 50 ResNet, 100 RegNet, 200 MNASNet, 1000 MobileNetV2")
      .at_least(0);
  options
      .add("--evolve", evolve,
           "passes of an evolutionary search of the scales with a contrastive fitness (CPT-V), in the end")
      .at_least(0);
  options
      .add(
          "--tail", tail,
          "type of the activations in the frozen rest of the network that predictions come from; with bf16 a "
          "step of pdquant takes about 30 % less time")
      .one_of({"f32", "bf16"});
  options.add("--lambda-rec", lambda_rec, "weight of the reconstruction loss; 0 leaves it out").at_least(0);
  options
      .add("--prediction", prediction,
           "weight of the prediction difference (1 / lambda_r); below 0: the method's")
      .at_least(-1);
  options
      .add("--prediction-temperature", prediction_temperature, "4 for ResNet, 1 for MobileNetV2 and MNASNet")
      .between(0.01, 100);
  options
      .add("--direct", direct,
           "a direct objective on the logits: kl (at temperature 1), cosine (positives alone), mse")
      .one_of({"none", "kl", "cosine", "mse"});
  options.add("--direct-weight", direct_weight, "its weight").at_least(0);
  options.add("--clcalib", clcalib, "add the contrastive loss of CL-Calib");
  options.add("--critic", critic, "A: noise contrastive, B: softplus, C: InfoNCE").one_of({"A", "B", "C"});
  options
      .add("--mapping", mapping,
           "into the contrastive space: the frozen tail, means of channels, the features "
           "as they are, or a trained projection")
      .one_of({"tail", "gap", "flatten", "linear"});
  options.add("--tau", tau, "temperature").between(0.005, 10);
  options.add("--lambda", lambda, "weight; below 0: 1, with critic C 0.1").at_least(-1);
  options.add("--negatives", negatives,
              "which pictures are no negatives: none, or some of duplicate, pred, sim:0.9, with commas");
  options.add("--reweight", reweight, "negatives count 1 - their similarity in floats");
  options.add("--centre", centre, "compare logits minus their mean");
  options.add("--bank", bank, "compare with all pictures, not those of the batch");
  options.add("--cl-no-drop", cl_no_drop, "the contrasted path has all activations quantized");
  options.add("--seeds", seeds, "repeat with other pictures: seeds SEED, SEED + 1, ...").between(1, 1000);
  options.add("--no-host", no_host,
              "with --seeds, do not run the plain method on the same pictures to compare with");
  deployment.add_to(options);
  options.parse(argc, argv);
  deployment.validate();
  check(!task.init.empty(), "name the trained network with --init");
  if (preset.empty()) preset = method == "brecq" || method == "pdquant" ? method : "qdrop";
  check(!(clcalib && (method == "rtn" || method == "adaround")),
        "--clcalib needs a method that reconstructs blocks: "
        "brecq, qdrop or pdquant");
  check(!(method == "rtn" || method == "adaround") || (prediction < 0 && direct == "none" && lambda_rec == 1),
        "--prediction, --direct and --lambda-rec change what blocks are reconstructed for: they need the "
        "method brecq, qdrop or pdquant");
  const bool predicts = prediction >= 0 ? prediction > 0 : method == "pdquant";
  check(direct != "kl" || !predicts,
        "--direct kl is itself a difference of predictions, at temperature 1, and takes the place of "
        "--prediction; got both, expected one of them: leave out --direct kl, or give --prediction 0");
  check(direct != "none" || !options.given("--direct-weight"),
        "--direct-weight: got a weight without an objective; name one with --direct kl, cosine or mse");
  for (const char* name : {"--critic", "--mapping", "--tau", "--lambda", "--negatives", "--reweight",
                           "--centre", "--bank", "--cl-no-drop"})
    check(clcalib || !options.given(name), name, " is of the contrastive loss, which is off; add --clcalib");
  check(!cl_no_drop || !(predicts || direct == "kl"),
        "--cl-no-drop is for --clcalib without a difference of predictions, which shares the path and drops "
        "on it; leave out --prediction and --direct kl, and with pdquant give --prediction 0");
  check(!border || (method != "rtn" && method != "adaround"), "--border: got the method ", method,
        ", which learns nothing of activations; take brecq, qdrop or pdquant");
  if (correction_steps < 0) correction_steps = method == "pdquant" ? 500 : 0;
  check(!(correction_steps > 0 && (method == "rtn" || method == "adaround")),
        "--correction-steps: distribution correction is for methods that reconstruct blocks");
  values = options.values();
  values.set("preset", preset);
  values.set("correction-steps", correction_steps);
}

quant::ContrastiveOptions Settings::contrastive() const {
  quant::ContrastiveOptions c;
  c.critic = quant::parse_critic(critic);
  c.mapping = quant::parse_mapping(mapping);
  c.temperature = tau;
  c.weight = lambda >= 0 ? lambda : critic == "C" ? 0.1 : 1;
  c.reweight = reweight;
  c.centre = centre;
  c.bank = bank;
  c.drop = !cl_no_drop;
  c.mask_duplicates = false;
  for (const std::string& word : split(negatives)) {
    if (word == "duplicate")
      c.mask_duplicates = true;
    else if (word == "pred")
      c.mask_prediction = true;
    else if (word.starts_with("sim:"))
      c.mask_similarity = parse_cosine(word);
    else
      check(word == "none", "--negatives: got \"", word, "\", expected none, duplicate, pred or sim:0.9");
  }
  return c;
}

quant::ReconstructionOptions Settings::recipe(uint64_t seed, bool plain) const {
  quant::ReconstructionOptions r = quant::ptq_recipe(quant::parse_method(method), iterations);
  r.batch = batch;
  r.seed = seed;
  r.memory = static_cast<size_t>(memory) << 20;
  if (tail == "bf16") r.tail = DType::bf16;
  r.skip_first = preset == "brecq" && policy.empty();
  for (quant::Phase& p : r.phases) {
    if (lr_rounding > 0) p.lr_rounding = lr_rounding;
    if (lr_step > 0) p.lr_step = lr_step;
    if (keep_input >= 0) p.keep_input = keep_input;
    if (keep_activation >= 0 && p.activations) p.keep_activation = keep_activation;
    if (without_replacement) p.replacement = false;
    p.rounding_weight = rounding_weight;
    p.beta.warmup = warmup;
    p.objectives.prediction_temperature = prediction_temperature;
    if (plain || p.by_layer) continue;
    quant::Objectives& o = p.objectives;
    o.reconstruction = lambda_rec;
    if (prediction >= 0) o.prediction = prediction;
    if (direct == "kl") {
      o.prediction = direct_weight;
      o.prediction_temperature = 1;
    }
    if (direct == "cosine") o.logit_cosine = direct_weight;
    if (direct == "mse") o.logit_mse = direct_weight;
    if (clcalib) o.contrastive = contrastive();
  }
  return r;
}

}  // namespace stairgrad::examples
