#include "selector.h"

#include <algorithm>
#include <iostream>
#include <map>

#include "../../kernels/reduce.h"
#include "../../quant/datafree/fine_tuning.h"
#include "../../quant/datafree/selection_metrics.h"
#include "../../quant/integer/session.h"
#include "../common/progress.h"
#include "../common/statistics.h"

namespace stairgrad::examples {

using namespace quant::datafree;
namespace integer = quant::integer;

namespace {

// Makes each call 200 times; at least 25 times, if they take long. They take turns, so that what disturbs one
// disturbs them all.
void in_turns(const std::vector<std::function<void()>>& calls) {
  const Stopwatch all;
  for (int round = 0; round < 25 || (round < 200 && all.seconds() < 5 * static_cast<double>(calls.size()));
       ++round)
    for (const std::function<void()>& call : calls) call();
}

// Which layers are the selector's: those that a choice is made of, back to the moments of a map.
std::vector<bool> selector_layers(const integer::Model& model) {
  std::vector<bool> own(model.layers.size()), read(model.values.size());
  for (size_t l = model.layers.size(); l-- > 0;) {
    const integer::Layer& layer = model.layers[l];
    own[l] =
        std::holds_alternative<integer::Select>(layer) || read[static_cast<size_t>(integer::dst_of(layer))];
    if (!own[l] || std::holds_alternative<integer::Moments>(layer)) continue;
    for (const int src : integer::sources_of(layer)) read[static_cast<size_t>(src)] = true;
  }
  return own;
}

// Rows of choices among `candidates` for each of `sites`, of which so many differ.
Array random_choices(int64_t rows, int64_t sites, int64_t distinct, size_t candidates) {
  const Philox rng(0, stream_of("distinct choices"));
  Array choices({rows, sites}, DType::u8);
  for (int64_t i = 0; i < choices.size(); ++i)
    choices.data<uint8_t>()[i] =
        static_cast<uint8_t>(rng.below(static_cast<uint64_t>(i % (distinct * sites)), candidates));
  return choices;
}

}  // namespace

// Results on pictures, in order.
struct SelectorMeasurements::Run {
  Array logits;   // (n, classes)
  Array choices;  // (n, sites), of a network with a selector

  std::vector<bool> right(const std::vector<int32_t>& labels) const {
    const Array top = kernels::argmax(logits);
    std::vector<bool> result;
    for (size_t i = 0; i < labels.size(); ++i) result.push_back(top.data<int32_t>()[i] == labels[i]);
    return result;
  }
};

void SelectorMeasurements::measure(const integer::Model& fixed, const ImageSet& set) const {
  const std::vector<bool> of_selector = selector_layers(integer_);
  int64_t weights = 0, moved = 0;
  for (size_t l = 0; l < integer_.layers.size(); ++l) {
    if (!of_selector[l]) continue;
    const integer::Layer& layer = integer_.layers[l];
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
  result.set("selector.bops", dynamic_->selector_macs() * 8 * 8);
  result.set("selector.bops_as_floats", dynamic_->selector_macs() * 32 * 32);
  result.set("selector.bytes_read", weights + moved);
  result.set("selector.bytes_of_choices", dynamic_->sites().size());
  for (const int64_t batch : {1, 32}) {
    const Array images =
        kernels::concat(Arrays(static_cast<size_t>((batch + set.size() - 1) / set.size()), set.images), 0)
            .slice(0, batch);
    const std::string at = text("selector.batch", batch, '.');
    integer::Session layers(integer_, batch, /*keep_values=*/true), dynamic(integer_, batch),
        own(fixed, batch);
    double all = 0;
    std::map<std::string, std::vector<double>> times;
    // A share of one session's time, which others would slow by taking the caches.
    in_turns({[&] {
      layers.run(images);
      double selector = 0;
      for (size_t l = 0; l < integer_.layers.size(); ++l) {
        all += layers.seconds(l);
        if (of_selector[l]) selector += layers.seconds(l);
      }
      times["selector_ms"].push_back(selector);
    }});
    std::vector<std::function<void()>> calls;
    const auto time = [&](const std::string& name, const std::function<void()>& call) {
      calls.push_back([&seconds = times[name], call] {
        const Stopwatch watch;
        call();
        seconds.push_back(watch.seconds());
      });
    };
    time("dynamic_ms", [&] { dynamic.run(images); });
    time("fixed_ms", [&] { own.run(images); });
    // Whether it matters how many of the images have bits of their own.
    if (batch > 1)
      for (const int64_t distinct : {1, 8, 32}) {
        const Array choices = random_choices(batch, static_cast<int64_t>(dynamic_->sites().size()), distinct,
                                             dynamic_->options().candidates.size());
        time(text("distinct_", distinct, "_ms"), [&, choices] { dynamic.run(images, choices); });
      }
    in_turns(calls);
    const std::vector<double>& selector = times["selector_ms"];
    result.set(at + "share_of_time", mean(selector) * static_cast<double>(selector.size()) / all);
    for (const auto& [name, seconds] : times)
      for (const int percent : {50, 95, 99})
        result.set(text(at, name, ".p", percent), 1e3 * percentile(seconds, percent / 100.0));
  }
}

// In integers; without choices the network's selector makes them.
SelectorMeasurements::Run SelectorMeasurements::run_integers(const data::Dataset& test,
                                                             const data::Transform& transform,
                                                             const Array& choices) const {
  data::Loader loader(test, transform, {.batch = 200});
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

void SelectorMeasurements::judge(const data::Dataset& test, const data::Transform& transform,
                                 const Array& expected, double target, uint64_t seed,
                                 const std::function<void(const std::string&)>& warn) {
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
  const Run dynamic = run_integers(test, transform);
  const std::vector<bool> by_dynamic = dynamic.right(test.labels);
  Value& result = run_.result();
  const auto note = [&](const std::string& name, const Run& r) {
    const std::vector<bool> right = r.right(test.labels);
    const double accuracy =
        100 * static_cast<double>(std::ranges::count(right, true)) / static_cast<double>(n);
    const double bops = mean_cost(r.choices, cost) + fixed_part;
    result.set("arms." + name + ".accuracy", accuracy);
    result.set("arms." + name + ".bops", bops);
    arms_.row({name, percent(accuracy), scaled(bops)});
    return right;
  };
  // The same, and how sure it is that the selector's choices are better or worse.
  const auto compare = [&](const std::string& name, const Run& r) {
    const Paired paired = compare_answers(by_dynamic, note(name, r));
    result.set("arms." + name + ".only_dynamic", paired.lost);
    result.set("arms." + name + ".only_this", paired.gained);
    result.set("arms." + name + ".mcnemar_p", paired.p);
  };
  note("dynamic", dynamic);
  // What the choice saves when the selector is paid, against fixed bits, which need none.
  const double budget = mean_cost(dynamic.choices, cost), spent = budget + fixed_part;
  const double selector_bops = static_cast<double>(dynamic_->selector_macs() * 8 * 8);
  result.set("selector.bops_saved", dynamic_->target_bops() - selector_bops - spent);
  const double cost_on_test = spent / dynamic_->target_bops();
  result.set("selector.cost_on_test", cost_on_test);
  if (const auto sentence = missed_target(cost_on_test, target, "test pictures")) warn(*sentence);
  std::vector<Run> all_at;
  for (size_t k = 0; k < candidates.size(); ++k) {
    all_at.push_back(
        run_integers(test, transform, Array::full({n, sites}, static_cast<double>(k), DType::u8)));
    compare(text("all at ", candidates[k]), all_at.back());
  }
  compare("static mixed", run_integers(test, transform, static_choices(dynamic.choices, cost)));
  compare("random", run_integers(test, transform, shuffled_choices(dynamic.choices, seed)));

  // Against what the images need.
  std::vector<std::vector<double>> omega;
  for (const Run& r : all_at) omega.push_back(sensitivity(expected, r.logits));
  std::vector<std::vector<double>> gain(static_cast<size_t>(n));
  for (size_t i = 0; i < gain.size(); ++i)
    for (const std::vector<double>& at : omega) gain[i].push_back(omega[0][i] - at[i]);
  compare("oracle", run_integers(test, transform, oracle_choices(gain, cost, budget)));

  std::vector<double> bits(static_cast<size_t>(n));
  for (int64_t i = 0; i < n * sites; ++i)
    bits[static_cast<size_t>(i / sites)] +=
        candidates[dynamic.choices.data<uint8_t>()[i]] / static_cast<double>(sites);
  const double median = percentile(bits, 0.5);
  std::vector<bool> above;
  for (const double b : bits) above.push_back(b > median);
  const std::vector<bool> needed = needs_bits(all_at.front().logits, all_at.back().logits, test.labels);
  const Decisions d = compare_decisions(above, needed);
  const Correlation rho = spearman(bits, omega[0]);
  result.set("selector.mean_bits", mean(bits));
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
  if (const auto sentence =
          collapse(dynamic.choices, static_cast<int64_t>(candidates.size()), "test pictures"))
    warn(*sentence);
  std::cout << arms_.text() << "Spearman of bits and sensitivity on real pictures: " << fixed(rho.value, 3)
            << " (" << fixed(rho.low, 3) << " to " << fixed(rho.high, 3) << "); precision "
            << fixed(d.precision(), 3) << ", recall " << fixed(d.recall(), 3) << ", ROC-AUC "
            << fixed(roc_auc(bits, needed), 3) << "\n";
}

}  // namespace stairgrad::examples
