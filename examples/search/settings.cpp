#include "settings.h"

namespace stairgrad::examples {

void Settings::parse(int argc, char** argv) {
  Options options("search", "Searches bits for each layer under a budget of BOPs.",
                  {"search --model resnet20 --init out/train/model.safetensors --bops 361M --dtype bf16",
                   "search --method edmips --model resnet20 --init out/train/model.safetensors --bops 361M",
                   "search --describe out/search/policy.json --model resnet20"});
  common.add_to(options, "out/search");
  options.add("--describe", describe,
              "a policy file: print what it costs for --model as it was published, or on the pictures of "
              "--dataset and --size if they are given; search nothing");
  options
      .add("--method", method,
           "gmpq: imitate the float network's attribution; r-gmpq: our reading of its successor (IJCV'24), "
           "with maps partitioned and an exponent for each image; edmips: no attribution; hessian: bits by "
           "the curvature of the loss (HAWQ-V2); random, uniform: no search")
      .one_of({"gmpq", "r-gmpq", "edmips", "hessian", "random", "uniform"});
  options.add("--bops", bops,
              "budget, such as 361M or 7.4G (1e9): MACs * bits of weights * bits of activations, over all "
              "layers but the first and the last; with --search-ends over all layers");
  options.add("--tolerance", tolerance, "percent of the budget that the policy may leave unused")
      .between(0.01, 50);
  options.add("--w-candidates", w_bits, "candidate bits of weights, 1 to 8, ascending");
  options.add("--a-candidates", a_bits, "candidate bits of activations");
  options.add("--search-ends", search_ends,
              "search the first and the last layer, too; the budget is then that of all");
  policy.add_to(options);
  task.add_to(options);
  options.add("--share", share, "search on so much of the training pictures, evenly spread")
      .between(0.001, 1);
  training.add_to(options);
  options.add("--scratch", scratch,
              "start from random weights, as the released code; --init is the teacher alone");
  options.add("--teachers", teachers,
              "model files with commas between, whose mean map is imitated (default: --init)");
  options.add("--references", references,
              "model files: the rank error of the policy's maps against their mean map is measured, too "
              "(default: --teachers)");
  options.add("--importance", importance, "how logits become shares: softmax, or with Gumbel noise")
      .one_of({"softmax", "gumbel"});
  options.add("--importance-lr", importance_lr, "multiplies the learning rate of the logits").at_least(0);
  options.add("--temperature", temperature, "of the shares at the start").between(0.001, 1000);
  options
      .add("--last-temperature", last_temperature, "and at the end; between the two it falls exponentially")
      .between(0.001, 1000);
  options.add("--stiffness", stiffness, "weight of the squared distance from the budget").at_least(0);
  options.add("--rate", rate, "how fast the multiplier of the budget adapts").at_least(0);
  options.add("--attribution", attribution, "weight of the attribution loss").at_least(0);
  options.add("--block", risk.block,
              "after which maps are taken, such as layer2.2 (default: the last feature map)");
  options.add("--explain", explain, "which class: each network's own, the teacher's, or the label")
      .one_of({"own", "teacher", "label"});
  options
      .add("--exponent", exponent,
           "of the imitated map, by the mean bits b: linear in t = (8 - b) / 6 as in the paper, convex (t^2) "
           "and concave (sqrt(t)) in place of its other two, whose formulas are not published, reciprocal as "
           "the released code, or constant")
      .one_of(quant::capacity_rule_names());
  options
      .add("--exponent-at-2", risk.capacity.at_2_bits,
           "for a mean of 2 bits (our constant: the paper's is not published)")
      .between(0.01, 100);
  options.add("--exponent-at-8", risk.capacity.at_8_bits, "for a mean of 8 bits (ours, too)")
      .between(0.01, 100);
  options.add("--exponent-constant", risk.capacity.constant, "of the rule constant").between(0.01, 100);
  options.add("--exponent-product", risk.capacity.product, "of the rule reciprocal").between(0.01, 1000);
  options.add("--top-k", risk.top_k, "only the largest pixels of the imitated map count; 0: all").at_least(0);
  options.add("--keep-empty", keep_empty, "count images where a map has no support, as the released code");
  options.add("--levels", r_gmpq.levels, "r-gmpq, our reading: levels of the partition of maps")
      .between(0, 10);
  options
      .add("--cells", r_gmpq.tolerance,
           "r-gmpq, our reading: a cell is cut while it spans more than this share of the peak")
      .between(0, 1);
  options.add("--beta", r_gmpq.beta, "r-gmpq, our reading: how much harder images concentrate more")
      .between(0, 10);
  options.add("--hessian-images", hessian_images, "training pictures for the curvature").between(1, 10'000);
  options.add("--probes", probes, "random vectors for the curvature").between(1, 10'000);
  options.add("--curve-points", curve_points, "budgets of the trade-off curve; 0: no curve").between(0, 100);
  options.add("--figures", figures, "test pictures whose attribution is compared at the end").at_least(1);
  options.parse(argc, argv);
  risk.capacity.rule = quant::parse_capacity_rule(exponent);
  risk.explained = quant::parse_explained_class(explain);
  risk.skip_empty = !keep_empty;
  if (method == "r-gmpq") {
    risk.levels = r_gmpq.levels;
    risk.tolerance = r_gmpq.tolerance;
    risk.beta = r_gmpq.beta;
  }
  if (method == "edmips") attribution = 0;
  if (references.empty()) references = teachers;
  check(policy.policy.empty(), "--policy: the policy is what comes out here; did you mean --describe?");
  if (describe.empty()) check_search();
  has_dataset = options.given("--dataset");
  training.seed = common.seed;
  values = options.values();
}

void Settings::check_search() const {
  check(!bops.empty(), "got no --bops, expected a budget such as 361M (search --help)");
  check(!task.init.empty(), "got no --init, expected the file of a trained float network: --method ", method,
        " takes it as its start, as its teacher or for its curvature, and the policy is compared with it");
  check(
      policy.skip != "shared",
      "--skip shared: a layer that reads a skip would need the skip's bits, but the search gives each layer "
      "its own; expected u8 or float");
  check(!policy.integer_forward,
        "--integer-forward: a search convolves mixtures of grids, which have no codes; give it to qat, which "
        "trains the policy");
}

}  // namespace stairgrad::examples
