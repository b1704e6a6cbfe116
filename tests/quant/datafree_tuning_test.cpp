// Fine-tuning on images that were made.
#include <doctest/doctest.h>

#include <cmath>
#include <utility>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../nn/fold.h"
#include "../../quant/datafree/synthesis.h"
#include "dynamic.h"

using namespace stairgrad;
using namespace stairgrad::quant;
using namespace stairgrad::quant::datafree;

TEST_CASE("both reductions of the distillation have their names, and differ by the number of classes") {
  const Tensor s = random_normal({4, 10}, Philox(1)), t = random_normal({4, 10}, Philox(2));
  const double batchmean = distillation(s, t, 20, KlReduction::batchmean).item();
  CHECK(batchmean > 0);
  CHECK(distillation(s, t, 20, KlReduction::mean).item() == doctest::Approx(batchmean / 10));
  CHECK(distillation(t, t, 20, KlReduction::batchmean).item() == doctest::Approx(0).epsilon(1e-6));
  // Warm teachers: T^2 KL tends to half the squared distance of the centred logits over the classes.
  double expected = 0;
  for (int64_t i = 0; i < 4; ++i) {
    double mean = 0, squares = 0;
    for (int64_t c = 0; c < 10; ++c)
      mean += (s.value().data<float>()[i * 10 + c] - t.value().data<float>()[i * 10 + c]) / 10;
    for (int64_t c = 0; c < 10; ++c)
      squares +=
          std::pow(s.value().data<float>()[i * 10 + c] - t.value().data<float>()[i * 10 + c] - mean, 2);
    expected += squares / 20 / 4;
  }
  CHECK(distillation(s, t, 200, KlReduction::batchmean).item() == doctest::Approx(expected).epsilon(0.05));
  const Tensor map = random_normal({2, 3, 3, 4}, Philox(3));
  CHECK(feature_alignment({map}, {map}).item() == 0);
  CHECK(feature_alignment({map}, {map * 3.0}).item() ==
        doctest::Approx(0).epsilon(1e-6));  // scale is not attention
  CHECK_THROWS_AS(feature_alignment({map}, {}), argument_error);
}

TEST_CASE("T14: mixing two one-hot labels leaves two classes or one, and hard images pass") {
  const int64_t n = 40;
  const Array images = random_normal({n, 2, 2, 1}, Philox(1));
  Array labels = Array::zeros({n, 5});
  std::vector<uint8_t> hard;
  for (int64_t i = 0; i < n; ++i) {
    labels.data<float>()[i * 5 + i % 5] = 1;
    hard.push_back(i % 3 == 0);
  }
  for (const Mixup mixup : {Mixup::off, Mixup::easy, Mixup::all}) {
    const MixedImages mixed = mix_images(images, labels, hard, mixup, 1, Philox(4));
    int changed = 0;
    for (int64_t i = 0; i < n; ++i) {
      double sum = 0;
      int classes = 0;
      for (int64_t c = 0; c < 5; ++c) {
        sum += mixed.labels.data<float>()[i * 5 + c];
        classes += mixed.labels.data<float>()[i * 5 + c] > 0;
      }
      CHECK(sum == doctest::Approx(1));
      CHECK((classes == 1 || classes == 2));
      const bool is_changed = !same_bytes(mixed.images.slice(i, 1), images.slice(i, 1));
      changed += is_changed;
      if (mixup == Mixup::easy && hard[static_cast<size_t>(i)]) CHECK_FALSE(is_changed);
    }
    CHECK((mixup == Mixup::off ? changed == 0 : changed > 20));
  }
  CHECK_THROWS_AS(mix_images(images, labels, {1}, Mixup::all, 1, Philox(4)), argument_error);
}

TEST_CASE("easy images are mixed where hard ones stand beside them; ranges see images as they are") {
  const auto outcome = [](Mixup mixup, bool hard, int epochs) {
    ImageSet set = random_set(48);
    if (!hard) set.labels.hard.assign(48, 0);
    const auto teacher = network(), student = network();
    const auto sites =
        attach_sites(*student, protocol_policy(*student, Protocol::family, 3, 3, "ste", Skip::shared));
    FineTuningOptions o{.calibration = 3, .epochs = epochs, .steps = 2, .batch = 16, .lr = 1e-3, .kd = 1};
    o.mixup = mixup;
    fine_tune(*student, *sites, nullptr, *teacher, set, o);
    std::string bytes;
    for (const auto& [name, array] : student->state())
      bytes.append(static_cast<const char*>(array.raw()), array.bytes());
    return bytes;
  };
  CHECK(outcome(Mixup::easy, true, 1) != outcome(Mixup::off, true, 1));
  CHECK(outcome(Mixup::easy, false, 1) == outcome(Mixup::off, false, 1));
  CHECK(outcome(Mixup::all, false, 1) != outcome(Mixup::off, false, 1));
  CHECK(outcome(Mixup::all, true, 0) == outcome(Mixup::off, true, 0));
}

TEST_CASE("fine-tuning refuses options that teach nothing") {
  const auto refused = [](auto change, const char* words) {
    FineTuningOptions o;
    change(o);
    CHECK_THROWS_WITH_AS(validate(o), doctest::Contains(words), argument_error);
  };
  CHECK_NOTHROW(validate(FineTuningOptions{}));
  refused([](FineTuningOptions& o) { o.lr = -1; }, "lr -1");
  refused([](FineTuningOptions& o) { o.temperature = 0; }, "the temperature 0");
  refused([](FineTuningOptions& o) { o.temperature_end = 0; }, "to 0 of Gumbel noise");
  refused([](FineTuningOptions& o) { o.kd = o.ce = 0; }, "nothing to learn");
  refused([](FineTuningOptions& o) { o.kd = -1; }, "none below 0");
  refused([](FineTuningOptions& o) { o.mixup_alpha = 0; }, "mixup_alpha");
  refused([](FineTuningOptions& o) { o.calibration = 0; }, "at least 1 of each");
}

TEST_CASE("folded batch norms compute what they did") {
  for (const char* name : {"resnet8", "resnet8b", "mobilenet_v2_cifar"}) {
    CAPTURE(name);
    const auto model = network(name, 32);
    const auto folded =
        nn::make_model(name, {.image_size = 32, .classes = 10, .width = 0.5, .style = {.folded = true}});
    nn::fold_batch_norms(*model, *folded);
    folded->eval();
    const NoGrad no_grad;
    const Array x = random_normal(model->input_shape(2), Philox(3));
    const Array a = (*model)(x).value(), b = (*folded)(x).value();
    for (int64_t i = 0; i < a.size(); ++i)
      CHECK(a.data<float>()[i] == doctest::Approx(b.data<float>()[i]).epsilon(1e-3));
  }
}

TEST_CASE("fine-tuning brings a quantized network nearer to its teacher, and repeats bit for bit") {
  const ImageSet set = random_set(96);
  const auto distance_after = [&](int epochs, nn::State* state) {
    const auto teacher = network(), student = network();
    const auto sites =
        attach_sites(*student, protocol_policy(*student, Protocol::family, 3, 3, "ste", Skip::shared));
    FineTuningOptions o{
        .calibration = 10, .epochs = epochs, .steps = 10, .batch = 32, .lr = 1e-2, .kd = 1, .ce = 0};
    o.features = 1;
    int notes = 0;
    fine_tune(*student, *sites, nullptr, *teacher, set, o, {.after_epoch = [&](const EpochNote& note) {
      CHECK(std::isfinite(note.loss));
      CHECK(note.epoch == notes++);
    }});
    CHECK(notes == epochs);
    const NoGrad no_grad;
    if (state) *state = student->state();
    return distillation((*student)(set.images), (*teacher)(set.images), 4, KlReduction::batchmean).item();
  };
  nn::State once, twice;
  const double before = distance_after(0, nullptr), after = distance_after(6, &once);
  CHECK(after < 0.7 * before);
  distance_after(6, &twice);
  for (const auto& [name, array] : once) {
    CAPTURE(name);
    CHECK(same_bytes(array, twice.at(name)));
  }
  // Ranges stay after the calibration; statistics of batch norms never move.
  const auto fresh = network();
  CHECK(same_bytes(once.at("bn1.running_mean"), fresh->state().at("bn1.running_mean")));
  for (const std::string& name : fine_tuning_presets()) CHECK_NOTHROW(fine_tuning_preset(name));
  CHECK_THROWS_WITH_AS(fine_tuning_preset("dsg"), doctest::Contains("intraq, hast, gdfq or dynadfq"),
                       argument_error);
}

TEST_CASE("perturbed images are harder, and are trained on if asked") {
  const Array x = Array::of<float>({1, 2, 3}, {1, 3}), slope = Array::of<float>({0.1f, -5, 0}, {1, 3});
  CHECK(same_bytes(perturbed(x, slope, 0.5), Array::of<float>({1.5f, 1.5f, 3}, {1, 3})));
  CHECK_THROWS_AS(perturbed(x, Array::zeros({3}), 1), argument_error);

  const ImageSet set = random_set(64);
  const auto loss_with = [&](double perturbation, double lr, const Dynamic& d) {
    const auto teacher = network("resnet8", 12, 0.5);
    for (const nn::NamedTensor& p : teacher->parameters()) {  // something to disagree about
      Array w = p.tensor.value();
      if (p.name.ends_with("conv1.weight")) w.assign(random_normal(w.shape(), Philox(77), 0.3));
    }
    FineTuningOptions o{.calibration = 4, .epochs = 1, .steps = 4, .batch = 32, .lr = lr, .kd = 1, .ce = 0};
    o.features = 1;
    o.temperature = 1;
    o.mixup = Mixup::off;
    o.perturbation = perturbation;
    o.warm_up = 0;
    EpochNote note;
    fine_tune(*d.model, *d.sites, d.bits.get(), *teacher, set, o,
              {.after_epoch = [&](const EpochNote& n) { note = n; }});
    return note;
  };
  const auto fixed = [] {
    Dynamic d{network(), {}, {}};
    d.sites = attach_sites(*d.model, protocol_policy(*d.model, Protocol::family, 8, 8, "ste", Skip::shared));
    return d;
  };
  const EpochNote plain = loss_with(0, 0, fixed()), harder = loss_with(0.05, 0, fixed());
  CHECK(harder.loss > 2.05 * plain.loss);
  CHECK(harder.loss < 10 * plain.loss);
  CHECK(harder.kd == plain.kd);  // parts are those of the images as they are
  CHECK(harder.features == plain.features);
  DynamicOptions options{.candidates = {7, 8}, .target = 8};
  CHECK(loss_with(0.05, 1e-3, dynamic(options, "resnet8", 8)).selector_gradient > 0);
  CHECK(fine_tuning_preset("hast").perturbation == 0.01);
  CHECK_THROWS_AS(loss_with(-1, 0, fixed()), argument_error);
}

TEST_CASE("fine-tuning goes on from a checkpoint, bit for bit, and refuses one of another run") {
  const ImageSet set = random_set(48);
  for (const bool with_selector : {false, true})
    for (const char* ranges : {"ste", "lsq"}) {
      CAPTURE(with_selector);
      CAPTURE(ranges);
      std::vector<EpochNote> notes;
      std::map<int64_t, nn::Checkpoint> saved;
      nn::State start;
      const auto run = [&](double lr, const nn::Checkpoint* resume, const ImageSet& pictures,
                           bool other_teacher = false) {
        Dynamic d;
        if (with_selector) {
          DynamicOptions options;
          options.quantizer = ranges;
          options.norms = options.quantizer == "lsq";
          d = dynamic(options);
          start = nn::clone(d.model->state());
        } else {
          d.model = network();
          d.sites =
              attach_sites(*d.model, protocol_policy(*d.model, Protocol::family, 3, 3, ranges, Skip::shared));
        }
        const FineTuningOptions o{
            .calibration = 3, .epochs = 4, .steps = 3, .batch = 16, .lr = lr, .kd = 1, .warm_up = 0.3};
        FineTuningHooks hooks;
        hooks.after_epoch = [&](const EpochNote& note) { notes.push_back(note); };
        hooks.checkpoint = [&](const nn::Checkpoint& now) {
          nn::Checkpoint& copy = saved[now.counters.at("epoch")] = now;
          for (auto& [part, state] : copy.parts)
            for (auto& [name, array] : state) array = array.clone();
        };
        hooks.resume = resume;
        const auto teacher = network();
        if (other_teacher) teacher->state().at("linear.bias").data<float>()[0] += 1;
        fine_tune(*d.model, *d.sites, d.bits.get(), *teacher, pictures, o, hooks);
        nn::State state = d.model->state();
        for (auto& [name, array] : state) array = array.clone();
        return state;
      };
      const nn::State whole = run(1e-3, nullptr, set);
      REQUIRE(saved.size() == 4);
      for (const auto& [name, array] : start) {
        CAPTURE(name);
        if (name.find(".norm") != std::string::npos)
          CHECK(same_bytes(array, whole.at(name)) == (name.find(".running_") != std::string::npos));
      }
      const std::vector<EpochNote> all = std::exchange(notes, {});
      for (const int64_t epoch : {1, 2, 4}) {
        CAPTURE(epoch);
        notes.clear();
        const nn::Checkpoint from = saved.at(epoch);
        const nn::State resumed = run(1e-3, &from, set);
        for (const auto& [name, array] : whole) {
          CAPTURE(name);
          CHECK(same_bytes(array, resumed.at(name)));
        }
        REQUIRE(notes.size() == static_cast<size_t>(4 - epoch));
        for (size_t i = 0; i < notes.size(); ++i) {
          CHECK(notes[i].epoch == all[static_cast<size_t>(epoch) + i].epoch);
          CHECK(notes[i].loss == all[static_cast<size_t>(epoch) + i].loss);
        }
      }
      CHECK_THROWS_WITH_AS(run(2e-3, &saved.at(1), set), doctest::Contains("of another run"), argument_error);
      CHECK_THROWS_WITH_AS(run(1e-3, &saved.at(1), set, /*other_teacher=*/true),
                           doctest::Contains("of another run"), argument_error);
      ImageSet other = set;
      other.images = set.images.clone();
      other.images.data<float>()[7] += 1;
      CHECK_THROWS_WITH_AS(run(1e-3, &saved.at(1), other), doctest::Contains("of another run"),
                           argument_error);
    }
}

TEST_CASE("protocols: the family's low bits everywhere, and 8-bit ends when folded") {
  const auto model = network();
  const Policy family = protocol_policy(*model, Protocol::family, 3, 4, "ste", Skip::shared);
  CHECK(family.layers.at("conv1").w_bits == 3);
  CHECK(family.layers.at("conv1").a_bits == 8);
  CHECK(family.layers.at("linear").w_bits == 3);
  CHECK(family.layers.at("layer1.0.conv1").a_bits == 4);
  const Policy folded = protocol_policy(*model, Protocol::folded, 3, 4, "ste", Skip::u8);
  CHECK(folded.layers.at("conv1").w_bits == 8);
  CHECK(folded.layers.at("linear").w_bits == 8);
  CHECK(folded.layers.at("layer1.0.conv1").w_bits == 3);
  CHECK_THROWS_AS(parse_protocol("fold"), argument_error);
}
