#include "reconstruction.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "../../autograd/grad.h"
#include "../../autograd/recorder.h"
#include "../../kernels/reduce.h"
#include "../../nn/optimiser.h"
#include "../quantizers/affine.h"
#include "contrastive_term.h"
#include "drop.h"

namespace stairgrad::quant {
namespace {

using Hook = std::function<Quantized(const Tensor&)>;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Numbers that differ from those of every other stream.
uint64_t stream(const std::string& name, int64_t iteration) {
  return stream_of(name) + static_cast<uint64_t>(iteration) * 0x9E3779B97F4A7C15u;
}

double loss_between(const Array& a, const Array& b) { return reconstruction_loss(Tensor(a), b).item(); }

int64_t row_size(const Array& x) { return x.size() / std::max<int64_t>(1, x.dim(0)); }

Shape row_of(const Shape& shape) { return Shape(std::vector<int64_t>(shape.begin() + 1, shape.end())); }

}  // namespace

struct Reconstruction::Impl {
  struct WeightSite {
    std::string layer;
    nn::Tap *tap, *input;
    std::shared_ptr<Quantizer> quantizer;
    nn::Layer* module;
    Array parameter, floating;
    Tensor current;  // rounded to nearest, or hard
    bool hard = false;
  };
  struct ActivationSite {
    std::string name;
    nn::Tap* tap;
    std::shared_ptr<Affine> quantizer;
  };
  // A block, or a layer of one.
  struct Unit {
    std::string name;
    size_t block;
    std::function<Tensor(const Tensor&)> run;
    std::vector<size_t> weights, activations;  // numbers of sites
  };
  // What passes: weights and activations as floats; rounded weights; everything quantized.
  enum class Mode { floating, weights, quantized };

  // What a unit is reconstructed from.
  struct Caches {
    FeatureCache quantized, floating, target;
  };

  Impl(nn::Model& model, Sites& sites, const Array& images, ReconstructionOptions options)
      : model(model), images(images), options(std::move(options)) {
    check(images.rank() == 4 && images.dim(0) > 0, "[ptq] got calibration images of shape ", images.shape(),
          ", expected (n, h, w, c) with at least one image");
    check(this->options.batch > 0, "[ptq] got the batch ", this->options.batch, ", expected at least 1");
    find_sites(sites);
  }
  ~Impl() {
    for (WeightSite& w : weights)
      if (w.hard) w.parameter.assign(w.current.value());
  }

  // --- sites ---

  void find_sites(Sites& sites) {
    std::map<std::string, std::shared_ptr<Quantizer>> quantizers;
    for (const Sites::Site& site : sites.sites()) quantizers[site.name] = site.quantizer;
    std::map<std::string, Array> parameters;
    for (const nn::NamedTensor& p : model.parameters()) parameters[p.name] = p.tensor.value();
    std::map<std::string, nn::Tap*> taps;
    for (const nn::NamedTap& t : model.taps()) taps[t.name] = t.tap;
    std::map<std::string, nn::Layer*> layers;
    for (const nn::NamedModule& m : model.modules()) layers[m.name] = dynamic_cast<nn::Layer*>(m.module);

    for (const nn::Block& block : model.blocks())
      blocks.push_back({block.name, blocks.size(), block.run, {}, {}});
    size_t current = 0;
    for (const nn::NamedTap& t : model.taps()) {
      t.tap->hook = [&, name = t.name, tap = t.tap](const Tensor& x) {
        if (quantizers.count(name))
          enter(blocks[current], name, tap, quantizers.at(name), parameters, taps, layers);
        return Quantized{x, {}};
      };
    }
    const nn::Evaluation evaluation(model);
    const NoGrad no_grad;
    Tensor x = Array::zeros(model.input_shape());
    for (; current < blocks.size(); ++current) x = blocks[current].run(x);
    for (const nn::NamedTap& t : model.taps()) t.tap->hook = nullptr;
  }

  void enter(Unit& block, const std::string& name, nn::Tap* tap, const std::shared_ptr<Quantizer>& quantizer,
             const std::map<std::string, Array>& parameters, const std::map<std::string, nn::Tap*>& taps,
             const std::map<std::string, nn::Layer*>& layers) {
    if (tap->role == nn::Tap::Role::weight) {
      const std::string layer = name.substr(0, name.rfind('.'));
      check(quantizer->traits().uniform, "[ptq] ", name,
            ": its levels are not equally spaced; weights need a uniform quantizer, such as affine");
      const Array& parameter = parameters.at(name);
      block.weights.push_back(weights.size());
      weights.push_back({layer,
                         tap,
                         taps.at(layer + ".input"),
                         quantizer,
                         layers.at(layer),
                         parameter,
                         parameter.clone(),
                         {},
                         false});
      return;
    }
    const auto affine = std::dynamic_pointer_cast<Affine>(quantizer);
    check(affine != nullptr, "[ptq] ", name,
          ": activations need the quantizer affine, whose step is learned");
    block.activations.push_back(activations.size());
    activations.push_back({name, tap, affine});
  }

  // --- what the taps do ---

  void set_mode(const Unit& unit, Mode mode) {
    for (const size_t i : unit.weights) {
      const WeightSite& w = weights[i];
      const Tensor value = mode == Mode::floating ? Tensor(w.floating) : w.current;
      w.tap->hook = [value](const Tensor&) { return Quantized{value, {}}; };
    }
    for (const size_t i : unit.activations) {
      const ActivationSite& a = activations[i];
      if (mode != Mode::quantized)
        a.tap->hook = nullptr;
      else
        a.tap->hook = [q = a.quantizer](const Tensor& x) { return (*q)(x); };
    }
  }

  // Sees what reaches a tap while it lives.
  class Capture {
   public:
    using See = std::function<void(const Array&)>;
    Capture(nn::Tap* tap, See see) : tap_(tap), before_(tap->hook) {
      tap_->hook = [see = std::move(see), before = before_](const Tensor& x) {
        see(x.value());
        return before ? before(x) : Quantized{x, {}};
      };
    }
    ~Capture() { tap_->hook = before_; }
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;

   private:
    nn::Tap* tap_;
    Hook before_;
  };

  // The unit's results for all images, or with `at` what reaches that tap.
  FeatureCache pass(const Unit& unit, const FeatureCache& inputs, Mode mode, nn::Tap* at = nullptr) {
    const NoGrad no_grad;
    set_mode(unit, mode);
    Array seen;
    std::optional<Capture> capture;
    if (at) capture.emplace(at, [&seen](const Array& x) { seen = x; });
    FeatureCache result;
    const int64_t n = inputs.images();
    const int64_t step = std::clamp<int64_t>((1 << 21) / row_size(inputs.run(0, 1)), 1, 128);
    for (int64_t first = 0; first < n; first += step) {
      const Tensor y = unit.run(inputs.run(first, std::min(step, n - first)));
      const Array& features = at ? seen : y.value();
      if (first == 0) result = FeatureCache(n, row_of(features.shape()), cache_type(row_size(features)));
      result.set(first, features);
    }
    return result;
  }

  // The type of caches with rows of so many elements. A block has three at a time: before it, quantized and
  // float, and behind it. Correction adds one, and a layer of the block has its own three besides.
  DType cache_type(int64_t row) const {
    const bool by_layer =
        std::ranges::any_of(options.phases, [](const Phase& phase) { return phase.by_layer; });
    const double caches = by_layer ? 6 : options.correct ? 4 : 3;
    const double need =
        caches * sizeof(float) * static_cast<double>(row) * static_cast<double>(images.dim(0));
    const auto room = static_cast<double>(options.memory);
    check(need / 2 <= room, "[ptq] the features of ", images.dim(0), " images need ", need / 2e6,
          " MB, but caches may take ", room / 1e6, " MB; take fewer calibration images or allow more memory");
    return need <= room ? DType::f32 : DType::bf16;
  }
  // What caches take together; those that share their memory take it once.
  static size_t bytes_of(const std::vector<FeatureCache>& caches) {
    std::map<const void*, size_t> parts;
    for (const FeatureCache& c : caches)
      if (c.images() > 0) parts[c.rows().raw()] = c.bytes();
    size_t sum = 0;
    for (const auto& [memory, bytes] : parts) sum += bytes;
    return sum;
  }
  void note_memory(const std::vector<FeatureCache>& caches) {
    peak_bytes = std::max(peak_bytes, bytes_of(caches));
  }

  // --- ranges ---

  // Images whose activations choose ranges: what a tap sees of all of them is in memory at once.
  int64_t images_for_ranges() const {
    const int64_t fitting =
        std::clamp<int64_t>((int64_t{1} << 24) / row_size(images), 8, options.range_images);
    return std::min(fitting, images.dim(0));
  }

  void choose_ranges() {
    const double start = now();
    for (WeightSite& w : weights) w.quantizer->initialise(w.floating);
    FeatureCache x(images.slice(0, images_for_ranges()));
    for (const Unit& block : blocks) {
      initialise_activations(block, x, Mode::floating);
      x = pass(block, x, Mode::floating);
    }
    range_seconds = now() - start;
  }

  // From what the block's sites see of the first images.
  void initialise_activations(const Unit& block, const FeatureCache& inputs, Mode mode) {
    const NoGrad no_grad;
    set_mode(block, mode);
    std::vector<Array> seen(activations.size());
    {
      std::vector<std::unique_ptr<Capture>> captures;
      for (const size_t i : block.activations)
        captures.push_back(
            std::make_unique<Capture>(activations[i].tap, [&seen, i](const Array& x) { seen[i] = x; }));
      block.run(inputs.run(0, std::min(images_for_ranges(), inputs.images())));
    }
    for (const size_t i : block.activations) activations[i].quantizer->initialise(seen[i]);
  }

  // --- the walk ---

  void run(const ReconstructionObserver& observer) {
    const nn::Evaluation evaluation(model);
    if (finished == 0) choose_ranges();
    for (WeightSite& w : weights)
      if (!w.hard) w.current = fake_quantize(w.floating, w.quantizer->to_grid());
    for (const Unit& block : blocks) set_mode(block, Mode::floating);
    know_images();
    job = 0;
    for (const Phase& phase : options.phases) walk(phase, observer);
  }

  // The float network's opinion of the calibration images.
  void know_images() {
    const Unit whole{"network", 0, [this](const Tensor& x) { return model(x); }, {}, {}};
    const FeatureCache all = pass(whole, FeatureCache(images), Mode::floating);
    logits = all.run(0, all.images());
    const Array top = kernels::argmax(logits);
    classes.assign(top.data<int32_t>(), top.data<int32_t>() + top.size());
  }

  void walk(const Phase& phase, const ReconstructionObserver& observer) {
    const Mode mode = phase.activations ? Mode::quantized : Mode::weights;
    Caches c;
    c.quantized = c.floating = FeatureCache(images);
    double carried = 0;  // what it took to carry the images through the block before
    for (const Unit& block : blocks) {
      const double start = now();
      FeatureCache next = pass(block, c.floating, Mode::floating);
      const double caching = carried + now() - start;
      if (options.skip_first && block.block == 0) {
        // Its weights stay rounded to nearest.
      } else if (phase.by_layer) {
        for (const size_t i : block.weights) {
          const Unit layer = layer_of(block, i);
          if (done()) continue;
          const double before = now();
          Caches inner;
          inner.quantized = pass(block, c.quantized, mode, weights[i].input);
          inner.floating = pass(block, c.floating, Mode::floating, weights[i].input);
          inner.target = pass(layer, inner.floating, Mode::floating);
          note_memory({inner.quantized, inner.floating, inner.target, c.quantized, c.floating, next});
          const bool first = i == block.weights.front();
          finish(phase, layer, inner, (first ? caching : 0) + now() - before, 0, observer);
        }
      } else if (!done()) {
        const double begun = now();
        c.target = next;
        if (options.correct && phase.objectives.reconstruction > 0) {
          const FeatureCache corrected = options.correct(block.block, c.floating);
          if (corrected.images() > 0) {
            note_memory({c.quantized, c.floating, corrected, next});
            c.floating = corrected;
            c.target = pass(block, corrected, Mode::floating);
          }
        }
        const double correction = now() - begun;
        if (options.ranges_by_block && phase.activations) {
          initialise_activations(block, c.quantized, Mode::weights);
          range_seconds += now() - begun - correction;
        }
        note_memory({c.quantized, c.floating, c.target, next});
        finish(phase, block, c, caching, correction, observer);
      }
      c.target = FeatureCache();
      c.floating = next;
      carried = -now();
      c.quantized = pass(block, c.quantized, mode);
      carried += now();
      set_mode(block, Mode::floating);
    }
  }

  // Whether the next unit was reconstructed before a resume.
  bool done() { return job++ < finished; }

  void finish(const Phase& phase, const Unit& unit, const Caches& caches, double caching, double correction,
              const ReconstructionObserver& observer) {
    UnitReport report = reconstruct(phase, unit, caches, observer);
    report.caching_seconds = caching;
    report.correction_seconds = correction;
    report.cache_bytes = bytes_of({caches.quantized, caches.floating, caches.target});
    finished = job;
    if (observer.unit) observer.unit(report);
  }

  Unit layer_of(const Unit& block, size_t i) const {
    const WeightSite& w = weights[i];
    return {w.layer, block.block, [module = w.module](const Tensor& x) { return (*module)(x); }, {i}, {}};
  }

  // --- one unit ---

  // The loss of up to 256 images whose inputs went through the quantized units before.
  double measure(const Unit& unit, const Caches& c) const {
    const NoGrad no_grad;
    const int64_t n = std::min<int64_t>(256, c.quantized.images()), step = std::min(options.batch, n);
    double sum = 0;
    for (int64_t first = 0; first < n; first += step) {
      const int64_t count = std::min(step, n - first);
      const Tensor y = unit.run(c.quantized.run(first, count));
      sum += loss_between(y.value(), c.target.run(first, count)) * static_cast<double>(count);
    }
    return sum / static_cast<double>(n);
  }

  std::vector<int64_t> draw(const Phase& phase, const std::string& unit, int64_t iteration) const {
    const int64_t n = images.dim(0), batch = std::min(options.batch, n);
    const std::string name = phase.name + '/' + unit + "/images";
    if (!phase.replacement || batch == n) {
      std::vector<int64_t> order = random_permutation(n, Philox(options.seed, stream(name, iteration + 1)));
      order.resize(static_cast<size_t>(batch));
      return order;
    }
    const Philox rng(options.seed, stream_of(name));
    std::vector<int64_t> indices;
    for (int64_t i = 0; i < batch; ++i)
      indices.push_back(static_cast<int64_t>(
          rng.below(static_cast<uint64_t>(iteration * batch + i), static_cast<uint64_t>(n))));
    return indices;
  }

  // What learns in a unit, and what its taps do meanwhile.
  struct Learning {
    std::vector<Rounding> roundings;  // of unit.weights
    std::vector<Tensor> h;            // of this step
    int64_t mixed = 0;                // images of the batch whose activations are dropped
    int64_t iteration = 0;
  };

  void set_learning(const Phase& phase, const Unit& unit, Learning& learning) {
    set_mode(unit, phase.activations ? Mode::quantized : Mode::weights);
    for (size_t k = 0; k < learning.roundings.size(); ++k)
      weights[unit.weights[k]].tap->hook = [&learning, k](const Tensor&) {
        return Quantized{learning.roundings[k].soft(learning.h[k]), {}};
      };
    if (!phase.activations) return;
    for (const size_t i : unit.activations)
      activations[i].tap->hook = [this, &phase, &learning, &a = activations[i]](const Tensor& x) {
        const Choice choice = chosen(phase.keep_activation, options.seed,
                                     stream(phase.name + '/' + a.name, learning.iteration));
        if (a.quantizer->border().defined()) return Quantized{bordered(a, x, choice, learning.mixed), {}};
        const Tensor step = phase.learn_steps ? a.quantizer->step() : a.quantizer->step().detach();
        const Grid grid = a.quantizer->levels()[0];
        return Quantized{quantize_with_drop(x, step, grid, choice, learning.mixed), {}};
      };
  }

  // The same with a learned border; the first `mixed` images are mixed, the others quantized throughout.
  static Tensor bordered(const ActivationSite& site, const Tensor& x, const Choice& choice, int64_t mixed) {
    Array mask = Array::full(x.shape(), 1);
    Array first = mask.slice(0, std::min(mixed, x.dim(0)));
    first.assign(mix(first.clone(), Array::zeros(first.shape()), choice));
    return where(Tensor(mask), (*site.quantizer)(x).value, x);
  }

  UnitReport reconstruct(const Phase& phase, const Unit& unit, const Caches& caches,
                         const ReconstructionObserver& observer) {
    UnitReport report;
    report.phase = phase.name;
    report.unit = unit.name;
    const double start = now();
    const Mode mode = phase.activations ? Mode::quantized : Mode::weights;
    set_mode(unit, mode);
    report.before = report.soft = report.hard = measure(unit, caches);

    Learning learning;
    std::vector<nn::NamedTensor> variables, steps, borders;
    if (phase.learn_weights)
      for (const size_t i : unit.weights) {
        WeightSite& w = weights[i];
        learning.roundings.emplace_back(w.floating, w.quantizer->to_grid(), w.layer + ".rounding");
        variables.push_back({w.layer + ".rounding", learning.roundings.back().variable()});
        report.variables += w.floating.size();
      }
    if (phase.activations && phase.learn_steps)
      for (const size_t i : unit.activations) {
        const Affine& quantizer = *activations[i].quantizer;
        steps.push_back({activations[i].name, quantizer.step()});
        if (quantizer.border().defined())
          borders.push_back({activations[i].name + ".border", quantizer.border()});
      }
    if (variables.empty() && steps.empty()) return report;

    std::vector<Array> before;
    for (const nn::NamedTensor& s : steps) before.push_back(s.tensor.value().clone());
    for (const nn::NamedTensor& b : borders) before.push_back(b.tensor.value().clone());
    try {
      optimise(phase, unit, caches, observer, learning, variables, steps, borders, report);
    } catch (...) {
      for (size_t i = 0; i < before.size(); ++i) {
        const bool step = i < steps.size();
        Array((step ? steps[i] : borders[i - steps.size()]).tensor.value()).assign(before[i]);
      }
      throw;
    }
    for (size_t i = 0; i < steps.size(); ++i)
      report.drift = std::max(report.drift, std::abs(std::log(steps[i].tensor.item() / before[i].item())));
    harden(mode, unit, caches, learning, report);
    report.seconds = now() - start;
    return report;
  }

  void harden(Mode mode, const Unit& unit, const Caches& caches, Learning& learning, UnitReport& report) {
    int64_t settled = 0, flipped = 0;
    const NoGrad no_grad;
    std::vector<Tensor> hard;
    set_mode(unit, mode);
    for (size_t k = 0; k < learning.roundings.size(); ++k) {
      const Rounding& rounding = learning.roundings[k];
      WeightSite& w = weights[unit.weights[k]];
      settled += std::llround(rounding.settled() * static_cast<double>(w.floating.size()));
      hard.push_back(rounding.hard());
      const Array nearest = fake_quantize(w.floating, w.quantizer->to_grid());
      for (int64_t i = 0; i < nearest.size(); ++i)
        flipped += std::abs(hard.back().value().data<float>()[i] - nearest.data<float>()[i]) >
                   1e-3f * std::abs(nearest.data<float>()[i]) + 1e-12f;
      w.tap->hook = [soft = rounding.soft(rectified_sigmoid(rounding.variable()))](const Tensor&) {
        return Quantized{soft, {}};
      };
    }
    report.soft = measure(unit, caches);
    for (size_t k = 0; k < hard.size(); ++k) {
      weights[unit.weights[k]].current = hard[k];
      weights[unit.weights[k]].hard = true;
    }
    set_mode(unit, mode);
    report.hard = measure(unit, caches);
    if (report.variables == 0) return;
    report.settled = static_cast<double>(settled) / static_cast<double>(report.variables);
    report.flipped = static_cast<double>(flipped) / static_cast<double>(report.variables);
  }

  void optimise(const Phase& phase, const Unit& unit, const Caches& caches,
                const ReconstructionObserver& observer, Learning& learning,
                const std::vector<nn::NamedTensor>& variables, const std::vector<nn::NamedTensor>& steps,
                const std::vector<nn::NamedTensor>& borders, UnitReport& report) {
    nn::AdamW rounding_optimiser({{variables}}), step_optimiser({{steps}}), border_optimiser({{borders}});
    Tensors learned = rounding_optimiser.parameters();
    const size_t count = learned.size();
    for (const nn::Optimiser* o : {&step_optimiser, &border_optimiser})
      learned.insert(learned.end(), o->parameters().begin(), o->parameters().end());
    set_learning(phase, unit, learning);
    ContrastiveTerm contrast(phase.objectives.contrastive, logits, classes, caches.target,
                             Philox(options.seed, stream_of(unit.name)));
    learned.insert(learned.end(), contrast.parameters().begin(), contrast.parameters().end());
    for (int64_t t = 0; t < phase.iterations; ++t) {
      const std::vector<int64_t> indices = draw(phase, unit.name, t);
      learning.iteration = t;
      Tensor loss = objective(phase, unit, caches, indices, learning, contrast, report);
      const double shown = loss.item();
      if (!phase.beta.warming_up(t, phase.iterations) && phase.rounding_weight > 0)
        for (const Tensor& h : learning.h)
          loss = loss + rounding_regulariser(h, phase.beta.beta(t, phase.iterations)) * phase.rounding_weight;
      if (!std::isfinite(loss.item()))
        throw numeric_error(text("[ptq] ", unit.name, ": the loss is ", loss.item(), " at iteration ", t,
                                 "; lower the learning rate"));
      const Tensors gradients = grad({loss}, learned, {.allow_unused = true});
      const auto of = [&](size_t first, size_t size) {
        return Tensors(gradients.begin() + static_cast<std::ptrdiff_t>(first),
                       gradients.begin() + static_cast<std::ptrdiff_t>(first + size));
      };
      rounding_optimiser.step(of(0, count), phase.lr_rounding);
      step_optimiser.step(of(count, steps.size()), nn::cosine_schedule(phase.lr_step, t, phase.iterations));
      border_optimiser.step(of(count + steps.size(), borders.size()), phase.lr_border);
      contrast.step(of(count + steps.size() + borders.size(), contrast.parameters().size()),
                    phase.lr_rounding);
      for (const size_t i : unit.activations) activations[i].quantizer->project();
      if (observer.iteration) observer.iteration(unit.name, t + 1, phase.iterations, shown);
    }
    report.features = contrast.statistics();
  }

  Tensor objective(const Phase& phase, const Unit& unit, const Caches& caches,
                   const std::vector<int64_t>& indices, Learning& learning, ContrastiveTerm& contrast,
                   UnitReport& report) {
    const Objectives& o = phase.objectives;
    const auto batch = static_cast<int64_t>(indices.size());
    learning.h.clear();
    for (const Rounding& rounding : learning.roundings)
      learning.h.push_back(rectified_sigmoid(rounding.variable()));
    Array x = caches.quantized.pick(indices);
    const Array quantized = x;
    if (phase.keep_input < 1)
      x = mix(
          x, caches.floating.pick(indices),
          chosen(phase.keep_input, options.seed, stream(phase.name + '/' + unit.name, learning.iteration)));
    // The second half of the batch has fully quantized inputs, and goes on to where predictions are compared.
    const bool second = o.needs_second_pass();
    const bool drops = !o.contrastive || o.contrastive->drop || o.prediction > 0;
    learning.mixed = second && drops ? 2 * batch : batch;
    const Tensor y = unit.run(second ? concat({Tensor(x), Tensor(quantized)}, 0) : Tensor(x));
    const Tensor first = second ? slice(y, 0, 0, batch) : y;
    Tensor loss(0, DType::f32);
    if (o.reconstruction > 0) {
      const Array target = caches.target.pick(indices);
      const Tensor distance = o.power == 2 ? reconstruction_loss(first, target)
                                           : mean(pow(abs(first - Tensor(target)), o.power)) *
                                                 static_cast<double>(first.shape().back());
      loss = o.reconstruction == 1 ? distance : distance * o.reconstruction;
    }
    if (!second) return loss;
    const Tensor out = slice(y, 0, batch, 2 * batch);
    Tensor u;
    if (o.needs_logits())
      u = cast(model.forward(cast(out, options.tail), unit.block + 1, model.blocks().size()), DType::f32);
    const Tensor expected = o.needs_logits() ? Tensor(FeatureCache(logits).pick(indices)) : Tensor();
    if (o.prediction > 0) {
      const double t = o.prediction_temperature;
      loss = loss + kl_divergence(u, expected, t) * (o.prediction / (t * t));
    }
    if (o.logit_cosine > 0) loss = loss + (1 - mean(cosine_similarity(u, expected))) * o.logit_cosine;
    if (o.logit_mse > 0) loss = loss + reconstruction_loss(u, expected.value()) * o.logit_mse;
    if (o.contrastive) {
      const double start = now();
      loss = loss + contrast.loss(u, out, indices) * o.contrastive->weight;
      report.contrastive_seconds += now() - start;
    }
    return loss;
  }

  nn::Model& model;
  Array images;
  ReconstructionOptions options;
  std::vector<Unit> blocks;
  std::vector<WeightSite> weights;
  std::vector<ActivationSite> activations;
  KeptHooks kept{model};
  Array logits;
  std::vector<int32_t> classes;
  int64_t finished = 0, job = 0;  // units that are done; the next one of the walk
  size_t peak_bytes = 0;
  double range_seconds = 0;
};

Reconstruction::Reconstruction(nn::Model& model, Sites& sites, const Array& images,
                               ReconstructionOptions options)
    : impl_(std::make_unique<Impl>(model, sites, images, std::move(options))) {}
Reconstruction::~Reconstruction() = default;

void Reconstruction::run(const ReconstructionObserver& observer) { impl_->run(observer); }

nn::State Reconstruction::state() const {
  nn::State state = {{"units", Array::scalar(static_cast<double>(impl_->finished), DType::f64)}};
  for (const Impl::WeightSite& w : impl_->weights)
    if (w.hard) state["weights." + w.layer] = w.current.value();
  return state;
}

void Reconstruction::load_state(const nn::State& state) {
  impl_->finished = static_cast<int64_t>(state.at("units").item());
  for (Impl::WeightSite& w : impl_->weights)
    if (const auto found = state.find("weights." + w.layer); found != state.end()) {
      w.current = found->second.clone();
      w.hard = true;
    }
}

const Array& Reconstruction::logits() const { return impl_->logits; }
size_t Reconstruction::peak_cache_bytes() const { return impl_->peak_bytes; }
int64_t Reconstruction::images_for_ranges() const { return impl_->images_for_ranges(); }
double Reconstruction::range_seconds() const { return impl_->range_seconds; }

std::vector<std::string> Reconstruction::trainable() const {
  std::vector<std::string> names;
  bool rounding = false, steps = false, projection = false;
  for (const Phase& phase : impl_->options.phases) {
    rounding = rounding || phase.learn_weights;
    steps = steps || (phase.activations && phase.learn_steps);
    const auto& contrast = phase.objectives.contrastive;
    projection = projection || (contrast && contrast->mapping == Mapping::linear);
  }
  for (const Impl::Unit& block : impl_->blocks) {
    if (impl_->options.skip_first && block.block == 0) continue;
    if (rounding)
      for (const size_t i : block.weights) names.push_back(impl_->weights[i].layer + ".rounding");
    if (steps)
      for (const size_t i : block.activations) {
        names.push_back(impl_->activations[i].name + ".scale");
        if (impl_->activations[i].quantizer->border().defined())
          names.push_back(impl_->activations[i].name + ".border");
      }
    if (projection) names.push_back(block.name + ".projection");
  }
  return names;
}

}  // namespace stairgrad::quant
