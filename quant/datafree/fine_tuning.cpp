#include "fine_tuning.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../data/formats/safetensors.h"
#include "../../kernels/movement.h"
#include "../../nn/optimiser.h"
#include "../names.h"
#include "augment.h"

namespace stairgrad::quant::datafree {
namespace {

constexpr Named<Protocol> protocols[] = {{Protocol::family, "family"}, {Protocol::folded, "folded"}};

// The maps between the blocks of a model, and its logits.
Tensor run(nn::Model& model, DynamicBits* dynamic, const Tensor& images, Tensors* maps) {
  if (dynamic) return dynamic->forward(images, maps);
  Tensor x = images;
  for (size_t block = 0; block < model.head(); ++block) {
    x = model.forward(x, block, block + 1);
    if (maps) maps->push_back(x);
  }
  return model.forward(x, model.head(), model.blocks().size());
}

// Random batches of a set; each a function of (seed, step).
class Batches {
 public:
  Batches(const ImageSet& set, const FineTuningOptions& o)
      : set_(set),
        o_(o),
        mixup_(o.mixup == Mixup::easy && !std::ranges::count(set.labels.hard, 1) ? Mixup::off : o.mixup) {}

  struct Batch {
    Array images, labels;
    std::vector<uint8_t> hard;
  };
  Batch operator()(uint64_t step) const {
    Batch batch = plain(step);
    const Philox mixing(o_.seed ^ stream_of("mixup"), step);
    const MixedImages mixed =
        mix_images(batch.images, batch.labels, batch.hard, mixup_, o_.mixup_alpha, mixing);
    return {mixed.images, mixed.labels, batch.hard};
  }
  // Before the mixing, whose images have other statistics than those that will come.
  Batch plain(uint64_t step) const {
    const Philox rng(o_.seed ^ stream_of("batches"), step);
    const int64_t n = std::min(o_.batch, set_.size());
    std::vector<int32_t> index;
    Batch batch;
    const std::vector<int64_t> order = random_permutation(set_.size(), rng);
    for (int64_t i = 0; i < n; ++i) {
      index.push_back(static_cast<int32_t>(order[static_cast<size_t>(i)]));
      batch.hard.push_back(set_.labels.hard[static_cast<size_t>(index.back())]);
    }
    batch.images = kernels::index_select(set_.images, 0, Array::of(index));
    batch.labels = kernels::index_select(set_.labels.soft, 0, Array::of(index));
    if (o_.augment)
      batch.images = crop_and_flip_each(batch.images, Philox(o_.seed ^ stream_of("fine-tuning crops"), step));
    return batch;
  }

 private:
  const ImageSet& set_;
  const FineTuningOptions& o_;
  Mixup mixup_;
};

// Weights decay; biases and batch norms do not; the selector has an optimiser of its own.
std::vector<nn::ParameterGroup> groups_of(const nn::Model& student, const DynamicBits* dynamic,
                                          double decay) {
  std::set<const void*> apart;
  if (dynamic)
    for (const nn::NamedTensor& p : dynamic->selector_parameters()) apart.insert(p.tensor.node().get());
  std::vector<nn::ParameterGroup> groups = {{{}, 1, decay}, {{}, 1, 0}};
  for (const nn::NamedTensor& p : student.parameters())
    if (!apart.count(p.tensor.node().get())) groups[p.tensor.rank() < 2].parameters.push_back(p);
  return groups;
}

double length(const Tensors& gradients) {
  double sum = 0;
  for (const Tensor& g : gradients)
    for (const double x : g.value().to_vector()) sum += x * x;
  return std::sqrt(sum);
}

class Tuning {
 public:
  Tuning(nn::Model& student, Sites& sites, DynamicBits* dynamic, nn::Model& teacher, const ImageSet& set,
         const FineTuningOptions& o, const FineTuningHooks& hooks)
      : student_(student),
        sites_(sites),
        dynamic_(dynamic),
        teacher_(teacher),
        set_(set),
        o_(o),
        hooks_(hooks),
        batches_(set, o) {}

  void run() {
    student_.eval();
    teacher_.eval();
    if (!hooks_.resume) calibrate();
    nn::SGD optimiser(groups_of(student_, dynamic_, o_.weight_decay), o_.momentum, /*nesterov=*/true);
    std::optional<nn::AdamW> of_selector;
    if (dynamic_)
      of_selector.emplace(std::vector<nn::ParameterGroup>{{dynamic_->selector_parameters(), 1, 0}});
    const auto snapshot = [&](int epoch) {
      nn::Checkpoint now{.parts = {{"student", student_.state()}, {"optimiser", optimiser.state()}},
                         .counters = {{"epoch", epoch}},
                         .notes = notes()};
      if (of_selector) now.parts["selector"] = of_selector->state();
      return now;
    };
    int epoch = 0;
    if (hooks_.resume) {
      nn::Checkpoint current = snapshot(0);
      nn::restore(*hooks_.resume, current);
      epoch = static_cast<int>(current.counters.at("epoch"));
    }
    const int64_t all = int64_t{o_.epochs} * o_.steps;
    for (; epoch < o_.epochs; ++epoch) {
      note_ = {.epoch = epoch};
      for (int i = 0; i < o_.steps; ++i) step(optimiser, of_selector, int64_t{epoch} * o_.steps + i, all);
      if (dynamic_) {
        dynamic_->choosing = Choosing::hard;
        dynamic_->train_selectors(false);
        note_.deployed_cost = mean_cost(*dynamic_, deployed_choices(*dynamic_, set_));
      }
      if (hooks_.after_epoch) hooks_.after_epoch(note_);
      if (hooks_.checkpoint) hooks_.checkpoint(snapshot(epoch + 1));
    }
  }

 private:
  // Correct averages of ranges, then they stay: a batch norm in evaluation mode, quantizers in training mode.
  void calibrate() {
    const NoGrad no_grad;
    sites_.train();
    if (dynamic_) {
      dynamic_->train();
      dynamic_->choosing = Choosing::random;
    }
    for (int i = 0; i < o_.calibration; ++i) {
      if (dynamic_) dynamic_->rng = Philox(o_.seed ^ stream_of("calibration bits"), static_cast<uint64_t>(i));
      datafree::run(student_, dynamic_, batches_.plain((uint64_t{1} << 40) + static_cast<uint64_t>(i)).images,
                    nullptr);
      if (dynamic_ && i % 10 == 0) prepare_selector(static_cast<uint64_t>(i));
      if (hooks_.progress) hooks_.progress(o_.batch);
    }
    sites_.eval();
    if (dynamic_) {
      dynamic_->eval();
      dynamic_->choosing = Choosing::hard;
    }
  }

  // Random bits do not ask the selector, whose own quantizers need ranges, too.
  void prepare_selector(uint64_t step) {
    dynamic_->choosing = Choosing::hard;
    datafree::run(student_, dynamic_, batches_.plain((uint64_t{1} << 41) + step).images, nullptr);
    dynamic_->choosing = Choosing::random;
  }

  // What must not change between the runs.
  std::map<std::string, std::string> notes() const {
    std::string milestones;
    for (const double share : o_.milestones) milestones += text(' ', share);
    std::map<std::string, std::string> all = {
        {"teacher", text("checksum ", data::checksum({teacher_.state(), {}}))},
        {"images", text(set_.images.shape(), ", checksum ", data::checksum({{{"images", set_.images}}, {}}))},
        {"policy", sites_.policy().to_json()},
        {"steps",
         text(o_.epochs, " epochs of ", o_.steps, ", batch ", o_.batch, ", calibration ", o_.calibration)},
        {"optimiser", text("lr ", o_.lr, ", momentum ", o_.momentum, ", decay ", o_.weight_decay,
                           ", milestones", milestones)},
        {"loss", text("temperature ", o_.temperature, ", kd ", o_.kd, ' ', static_cast<int>(o_.reduction),
                      ", ce ", o_.ce, ", features ", o_.features)},
        {"pictures", text("mixup ", to_string(o_.mixup), ' ', o_.mixup_alpha, ", augment ", o_.augment,
                          ", perturbation ", o_.perturbation)},
        {"seed", text(o_.seed)}};
    if (!dynamic_) return all;
    const DynamicOptions& d = dynamic_->options();
    std::string candidates;
    for (const int bits : d.candidates) candidates += text(' ', bits);
    all["bits"] = text("candidates", candidates, ", target ", d.target, d.weights ? ", weights, too, " : ", ",
                       d.quantizer, d.norms ? ", norms of each" : "");
    all["selection"] =
        text("budget ", o_.budget, " of ", o_.target, ' ', static_cast<int>(o_.law), ", entropy ", o_.entropy,
             ", warm-up ", o_.warm_up, ", lr ", o_.selector_lr, ", choosing ", static_cast<int>(o_.choosing),
             ' ', o_.temperature_start, ' ', o_.temperature_end);
    return all;
  }

  double learning_rate(int64_t step, int64_t all) const {
    if (o_.milestones.empty()) return nn::cosine_schedule(o_.lr, step, all);
    std::vector<int64_t> at;
    for (const double share : o_.milestones) at.push_back(std::llround(share * static_cast<double>(all)));
    return nn::step_schedule(o_.lr, step, at);
  }

  void step(nn::SGD& optimiser, std::optional<nn::AdamW>& of_selector, int64_t step, int64_t all) {
    const auto number = static_cast<uint64_t>(step);
    const Batches::Batch batch = batches_(number);
    const double done = static_cast<double>(step) / static_cast<double>(all);
    const bool warming = dynamic_ && done < o_.warm_up;
    if (dynamic_) {
      dynamic_->train_selectors(true);
      dynamic_->choosing = warming ? Choosing::random : o_.choosing;
      dynamic_->rng = Philox(o_.seed ^ stream_of("bits"), number);
      dynamic_->temperature = o_.temperature_start + (o_.temperature_end - o_.temperature_start) * done;
    }
    const auto share = 1.0 / o_.steps;
    const bool perturbs = o_.perturbation > 0;
    const Tensor images = perturbs ? Tensor::leaf(batch.images) : Tensor(batch.images);
    Tensor loss = loss_of(images, batch.labels, share);
    const Tensor slope =
        perturbs ? grad(Tensors{loss}, Tensors{images}, {.retain_graph = true})[0] : Tensor();
    if (dynamic_) {
      note_choices(share);
      if (!warming) add_budget(loss, share);
    }
    if (perturbs)
      loss = loss + loss_of(perturbed(batch.images, slope.value(), o_.perturbation), batch.labels, 0);
    if (!std::isfinite(loss.item()))
      throw numeric_error(
          text("[fine_tuning] the loss of step ", step, " is ", loss.item(), "; lower the learning rate"));
    note_.loss += loss.item() * share;

    Tensors wanted = optimiser.parameters();
    const size_t own = wanted.size();
    if (dynamic_ && !warming)
      for (const Tensor& p : of_selector->parameters()) wanted.push_back(p);
    const Tensors gradients = grad(Tensors{loss}, wanted, {.allow_unused = true});
    optimiser.step({gradients.begin(), gradients.begin() + static_cast<std::ptrdiff_t>(own)},
                   learning_rate(step, all));
    sites_.project();
    if (dynamic_) dynamic_->project();
    if (dynamic_ && !warming) {
      const Tensors to_selector(gradients.begin() + static_cast<std::ptrdiff_t>(own), gradients.end());
      note_.selector_gradient += length(to_selector) * share;
      of_selector->step(to_selector, o_.selector_lr);
    }
    if (hooks_.progress) hooks_.progress(batch.images.dim(0));
  }

  // What the student shall do like the teacher, whose answers are constants; its parts are noted with the
  // weight `share`.
  Tensor loss_of(const Tensor& images, const Array& labels, double share) {
    Tensors expected_maps, maps;
    Tensor expected;
    {
      const NoGrad no_grad;
      expected = datafree::run(teacher_, nullptr, images, o_.features > 0 ? &expected_maps : nullptr);
    }
    const Tensor logits = datafree::run(student_, dynamic_, images, o_.features > 0 ? &maps : nullptr);
    Tensor loss;
    const auto add = [&](const Tensor& part, double weight, double& noted) {
      noted += part.item() * share;
      loss = loss.defined() ? loss + part * weight : part * weight;
    };
    if (o_.kd > 0) add(distillation(logits, expected, o_.temperature, o_.reduction), o_.kd, note_.kd);
    if (o_.ce > 0) add(soft_cross_entropy(logits, labels), o_.ce, note_.ce);
    if (o_.features > 0) add(feature_alignment(maps, expected_maps), o_.features, note_.features);
    return loss;
  }

  void add_budget(Tensor& loss, double share) {
    const Tensor over = mean(dynamic_->cost()) - o_.target;
    const Tensor budget = o_.law == BudgetLaw::hinge ? relu(over) : abs(over);
    note_.budget += budget.item() * share;
    loss = loss + budget * o_.budget;
    if (o_.entropy > 0 && dynamic_->probabilities().defined()) {
      const Tensor p = mean(dynamic_->probabilities(), {0});  // (sites, candidates)
      const Tensor entropy = sum(p * log(p + 1e-10)) * (-1 / static_cast<double>(p.dim(0)));
      loss = loss - entropy * o_.entropy;
    }
  }

  void note_choices(double share) {
    note_.cost += mean(dynamic_->cost()).item() * share;
    const Array choices = dynamic_->last_choices();
    const std::vector<int>& candidates = dynamic_->options().candidates;
    double bits = 0, entropy = 0;
    for (int64_t i = 0; i < choices.size(); ++i) bits += candidates[choices.data<uint8_t>()[i]];
    const std::vector<double> entropies = choice_entropy(choices, static_cast<int64_t>(candidates.size()));
    for (const double h : entropies) entropy += h / static_cast<double>(entropies.size());
    note_.bits += bits / static_cast<double>(choices.size()) * share;
    note_.bit_entropy += entropy * share;
  }

  nn::Model& student_;
  Sites& sites_;
  DynamicBits* dynamic_;
  nn::Model& teacher_;
  const ImageSet& set_;
  const FineTuningOptions& o_;
  const FineTuningHooks& hooks_;
  Batches batches_;
  EpochNote note_;
};

}  // namespace

void validate(const FineTuningOptions& o) {
  check(o.epochs >= 0 && o.steps >= 1 && o.batch >= 1 && o.calibration >= 1, "[fine_tuning] got ", o.epochs,
        " epochs of ", o.steps, " steps of ", o.batch, " images after ", o.calibration,
        " batches of calibration, expected at least 1 of each (0 epochs only calibrate)");
  check(o.lr >= 0 && o.selector_lr >= 0, "[fine_tuning] got lr ", o.lr, " and selector_lr ", o.selector_lr,
        ", expected them not below 0");
  check(o.temperature > 0 && o.temperature_start > 0 && o.temperature_end > 0,
        "[fine_tuning] got the temperature ", o.temperature, " of the distillation and ", o.temperature_start,
        " to ", o.temperature_end, " of Gumbel noise, expected them above 0");
  check(o.kd >= 0 && o.ce >= 0 && o.features >= 0 && o.kd + o.ce + o.features > 0,
        "[fine_tuning] got the weights kd ", o.kd, ", ce ", o.ce, " and features ", o.features,
        ", expected none below 0 and one above: or there is nothing to learn");
  check(o.mixup_alpha > 0, "[fine_tuning] mixup_alpha: got ", o.mixup_alpha, ", expected it above 0");
  check(o.perturbation >= 0, "[fine_tuning] perturbation: got ", o.perturbation, ", expected it not below 0");
  check(o.target > 0, "[fine_tuning] target: got the cost ", o.target, ", expected it above 0");
  check(o.warm_up >= 0 && o.warm_up < 1, "[fine_tuning] warm_up: got ", o.warm_up,
        ", expected a share below 1");
}

void check_target(const DynamicBits& dynamic, double target) {
  const double least = dynamic.least_cost();
  check(target >= least, "[fine_tuning] the target of ", target, " times the BOPs of ",
        dynamic.options().target, " bits is out of reach: with the lowest candidates everywhere it is ",
        least, "; raise the target or add lower candidates");
}

void fine_tune(nn::Model& student, Sites& sites, DynamicBits* dynamic, nn::Model& teacher,
               const ImageSet& set, const FineTuningOptions& options, const FineTuningHooks& hooks) {
  validate(options);
  check(set.size() >= 1, "[fine_tuning] the set has no images");
  if (dynamic) check_target(*dynamic, options.target);
  const RecordingScope tape(Recording::tape);
  Tuning(student, sites, dynamic, teacher, set, options, hooks).run();
}

FineTuningOptions fine_tuning_preset(const std::string& name) {
  FineTuningOptions o;
  if (name == "dynadfq") return o;
  o.mixup = Mixup::off;
  o.milestones = {20.0 / 151, 40.0 / 151, 60.0 / 151};
  o.calibration = 200;
  if (name == "intraq") {
    o.batch = 256;
    o.lr = 1e-4;
    return o;
  }
  if (name == "hast") {
    o.lr = 1e-5;
    o.ce = 0;
    o.features = 1000;
    o.perturbation = 0.01;
    return o;
  }
  check(name == "gdfq", "[fine_tuning] got the preset \"", name,
        "\", expected intraq, hast, gdfq or dynadfq");
  o.batch = 200;
  o.lr = 1e-4;
  o.kd = 1;
  o.reduction = KlReduction::mean;
  o.milestones = {0.25, 0.5, 0.75};
  return o;
}

std::vector<std::string> fine_tuning_presets() { return {"intraq", "hast", "gdfq", "dynadfq"}; }

std::vector<double> choice_entropy(const Array& choices, int64_t candidates) {
  const int64_t n = choices.dim(0), sites = choices.dim(1);
  std::vector<double> entropy;
  for (int64_t s = 0; s < sites; ++s) {
    std::vector<double> count(static_cast<size_t>(candidates));
    for (int64_t i = 0; i < n; ++i) ++count[choices.data<uint8_t>()[i * sites + s]];
    double h = 0;
    for (const double c : count)
      if (c > 0) h -= c / static_cast<double>(n) * std::log(c / static_cast<double>(n));
    entropy.push_back(h);
  }
  return entropy;
}

Array deployed_choices(DynamicBits& dynamic, const ImageSet& set) {
  constexpr int64_t most = 512, at_once = 128;
  const NoGrad no_grad;
  const Choosing before = std::exchange(dynamic.choosing, Choosing::hard);
  const int64_t n = std::min(most, set.size());
  Arrays parts;
  for (int64_t i = 0; i < n; i += at_once) {
    dynamic.forward(set.images.slice(i, std::min(at_once, n - i)));
    parts.push_back(dynamic.last_choices());
  }
  dynamic.choosing = before;
  return kernels::concat(parts, 0);
}

double mean_cost(const DynamicBits& dynamic, const Array& choices) {
  const int64_t n = choices.dim(0), sites = choices.dim(1);
  double total = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint8_t* row = choices.data<uint8_t>() + i * sites;
    total += dynamic.cost_of({row, row + sites});
  }
  return total / static_cast<double>(n);
}

double meet_target(DynamicBits& dynamic, const ImageSet& set, double target) {
  const auto candidates = static_cast<int64_t>(dynamic.options().candidates.size());
  Arrays biases = dynamic.selector_biases(), trained;
  for (const Array& bias : biases) trained.push_back(bias.clone());
  const auto apply = [&](double shift) {
    for (size_t k = 0; k < biases.size(); ++k) {
      for (int64_t i = 0; i < biases[k].size(); ++i)
        biases[k].data<float>()[i] = static_cast<float>(static_cast<double>(trained[k].data<float>()[i]) -
                                                        shift * static_cast<double>(i % candidates));
      biases[k].bump_version();
    }
  };
  double best = 0, least = HUGE_VAL;
  // By how much the choices are too dear, which falls as the shift grows.
  const auto excess = [&](double shift) {
    apply(shift);
    const double over = mean_cost(dynamic, deployed_choices(dynamic, set)) / target - 1;
    if (std::abs(over) < least) {
      least = std::abs(over);
      best = shift;
    }
    return over;
  };
  constexpr double near_enough = 1e-3, largest = 1024;
  const double sign = excess(0) > 0 ? 1 : -1;
  double inner = 0, outer = 0.25;
  while (least > near_enough && outer < largest && sign * excess(sign * outer) > 0) {
    inner = outer;
    outer *= 2;
  }
  for (int i = 0; i < 20 && least > near_enough && outer < largest; ++i) {
    const double middle = (inner + outer) / 2;
    (sign * excess(sign * middle) > 0 ? inner : outer) = middle;
  }
  apply(best);
  return best;
}

std::optional<std::string> missed_target(double cost, double target, const std::string& kind) {
  if (std::abs(cost - target) <= target_tolerance * target) return {};
  return text("target missed: the selector's choices for ", kind, " cost ", cost,
              " times the target's bits, where ", target, " was asked for; ",
              cost > target ? "raise the weight of the budget, the selector's learning rate or the epochs"
                            : "the law `distance` pulls up, too");
}

std::optional<std::string> collapse(const Array& choices, int64_t candidates, const std::string& kind) {
  const int64_t n = choices.dim(0), sites = choices.dim(1);
  bool differ = false;
  for (int64_t i = sites; i < n * sites && !differ; ++i)
    differ = choices.data<uint8_t>()[i] != choices.data<uint8_t>()[i % sites];
  double largest = 0;
  for (const double h : choice_entropy(choices, candidates)) largest = std::max(largest, h);
  if (candidates < 2 || n < 2 || (differ && largest >= 0.1)) return {};
  return text("collapsed selector: ", differ ? "almost all" : "all", " of ", n, ' ', kind,
              " get the same bits in every layer; raise the weight of the entropy guard, the warm-up or the ",
              "temperature, or move the target");
}

std::string to_string(Protocol protocol) { return name_in(protocols, protocol); }
Protocol parse_protocol(const std::string& name) { return value_in(protocols, name, "protocol"); }

Policy protocol_policy(nn::Model& model, Protocol protocol, int w_bits, int a_bits,
                       const std::string& quantizer, Skip skip) {
  const LayerPolicy layer{w_bits, a_bits, quantizer, "channel"};
  if (protocol == Protocol::folded) return uniform_policy(model, layer, skip, Ends::eight);
  Policy policy = uniform_policy(model, layer, skip, Ends::same);
  std::string first, last;
  for (const nn::NamedTap& t : model.taps())
    if (t.tap->role == nn::Tap::Role::input) {
      if (first.empty()) first = t.owner();
      last = t.owner();
    }
  policy.layers.at(first).a_bits = policy.layers.at(last).a_bits = 8;
  return policy;
}

}  // namespace stairgrad::quant::datafree
