// Images out of a network: labels, statistics, synthesis, meters.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <tuple>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../data/dataset.h"
#include "../../kernels/reduce.h"
#include "../../nn/optimiser.h"
#include "../../quant/datafree/augment.h"
#include "../../quant/datafree/difficulty.h"
#include "../../quant/datafree/generator.h"
#include "../../quant/datafree/synthesis.h"
#include "../../quant/moments.h"
#include "../folder.h"

using namespace stairgrad;
using namespace stairgrad::quant;
using namespace stairgrad::quant::datafree;

namespace {

// The images themselves are normalised, then two convolutions: so statistics of the input are known.
class Toy : public nn::Model {
 public:
  explicit Toy(bool norms = true, int64_t classes = 2) : nn::Model({8, 8, 3}) {
    const auto conv1 = add_module("conv1", std::make_shared<nn::Conv2d>(3, 4, 3, Conv2dOptions::with(1, 1)));
    const auto conv2 = add_module("conv2", std::make_shared<nn::Conv2d>(4, 6, 3, Conv2dOptions::with(2, 1)));
    std::shared_ptr<nn::BatchNorm2d> bn1, bn2;
    if (norms) {
      bn1 = add_module("bn1", std::make_shared<nn::BatchNorm2d>(4));
      bn2 = add_module("bn2", std::make_shared<nn::BatchNorm2d>(6));
    }
    add_block("body", [=](const Tensor& x) {
      const Tensor y = (*conv1)(x);
      const Tensor z = (*conv2)(bn1 ? bn1->relu(y) : stairgrad::relu(y));
      return bn2 ? bn2->relu(z) : stairgrad::relu(z);
    });
    add_head("fc", 6, classes);
  }
};

// Statistics and scales as after a training; f32 or f64.
std::unique_ptr<Toy> toy(bool norms = true, int64_t classes = 2, DType type = DType::f32) {
  auto model = std::make_unique<Toy>(norms, classes);
  nn::initialise(*model, 7);
  uint64_t stream = 0;
  for (const auto& [name, array] : model->state()) {
    Array values = array;
    const Philox rng(3, ++stream);
    for (int64_t i = 0; i < values.size(); ++i) {
      const double u = rng.uniform(static_cast<uint64_t>(i));
      if (name.ends_with("running_mean")) values.data<float>()[i] = static_cast<float>(u - 0.5);
      if (name.ends_with("running_var")) values.data<float>()[i] = static_cast<float>(0.5 + u);
    }
  }
  if (type != DType::f32) model->to(type);
  model->eval();
  return model;
}

Array class_weights() {
  // Rows 0 and 1 are alike, so are 2 and 3; row 4 is long and lies between.
  return Array::of<float>({1, 0.1f, 0, 0.9f, 0.2f, 0, 0, 0.1f, 1, 0, 0.2f, 0.9f, 3, 3, 3}, {5, 3});
}

}  // namespace

TEST_CASE("similar classes are found by dot product, cosine and centred cosine") {
  const Array dot = class_similarity(class_weights(), Similarity::dot);
  CHECK(dot.data<double>()[0 * 5 + 1] == doctest::Approx(0.92));
  CHECK(dot.data<double>()[0 * 5 + 4] == doctest::Approx(3.3));
  CHECK(most_similar(dot, 0)[0] == 4);  // the long row wins by its length
  CHECK(share_of_foreign_maxima(dot) == doctest::Approx(0.8));
  const Array cosine = class_similarity(class_weights(), Similarity::cosine);
  CHECK(most_similar(cosine, 0)[0] == 1);
  CHECK(most_similar(cosine, 3)[0] == 2);
  CHECK(share_of_foreign_maxima(cosine) == 0);
  // A common component of all rows changes nothing that softmax sees.
  Array shifted = class_weights().clone();
  for (int64_t i = 0; i < 15; ++i) shifted.data<float>()[i] += 5;
  const Array a = class_similarity(class_weights(), Similarity::centred),
              b = class_similarity(shifted, Similarity::centred);
  for (int64_t i = 0; i < 25; ++i)
    CHECK(a.data<double>()[i] == doctest::Approx(b.data<double>()[i]).epsilon(1e-5));
  // A dead class is similar to none, and ties go to the lower number.
  const Array dead = class_similarity(Array::zeros({3, 2}), Similarity::cosine);
  CHECK(dead.data<double>()[0] == 0);
  CHECK(most_similar(dead, 1) == std::vector<int32_t>{0, 2});
  CHECK_THROWS_WITH_AS(
      parse_similarity("cosinus"),
      "[similarity] got 'cosinus'; did you mean 'cosine'? Expected one of: dot cosine centred",
      argument_error);
}

TEST_CASE("groups of classes follow the arm") {
  const Array s = class_similarity(class_weights(), Similarity::cosine);
  const auto group = [&](Arm arm, int size) { return label_group(s, 0, {.arm = arm, .group = size}, 1, 5); };
  CHECK(group(Arm::similar, 2) == std::vector<int32_t>{0, 1});
  CHECK(group(Arm::dissimilar, 2) == std::vector<int32_t>{0, 2});
  CHECK(group(Arm::mixed, 3) == std::vector<int32_t>{0, 1, 2});
  CHECK(group(Arm::one_hot, 4) == std::vector<int32_t>{0});
  CHECK(group(Arm::similar, 99).size() == 5);  // no more than there are
  CHECK(label_group(s, 0, {.arm = Arm::similar, .group = 5, .least_similarity = 0.6}, 1, 5).size() < 5);
  std::vector<int> seen(5);
  for (int64_t item = 0; item < 400; ++item) {
    const auto some = label_group(s, 0, {.arm = Arm::arbitrary, .group = 3}, 1, item);
    REQUIRE(some.size() == 3);
    CHECK(some[0] == 0);
    CHECK(some[1] != some[2]);
    for (const int32_t c : some) ++seen[static_cast<size_t>(c)];
  }
  CHECK(seen[0] == 400);
  for (int c = 1; c < 5; ++c) CHECK(std::abs(seen[static_cast<size_t>(c)] - 200) < 60);
}

TEST_CASE("T14: soft labels sum to one within their group and have the spread of the table") {
  // E[max] and H / ln K of softmax(N(0, sigma^2)), 8,000 draws each: spec 1.4.
  struct Row {
    double sigma;
    int k;
    double largest, entropy;
  };
  const std::vector<Row> table = {
      {0.5, 2, 0.630, 0.924}, {0.5, 3, 0.476, 0.933}, {0.5, 5, 0.331, 0.942}, {0.5, 10, 0.197, 0.953},
      {1, 2, 0.724, 0.779},   {1, 3, 0.598, 0.792},   {1, 5, 0.465, 0.809},   {1, 10, 0.323, 0.833},
      {2, 2, 0.827, 0.542},   {2, 3, 0.742, 0.550},   {2, 5, 0.645, 0.562},   {2, 10, 0.530, 0.581},
      {4, 2, 0.906, 0.315},   {4, 3, 0.856, 0.315},   {4, 5, 0.807, 0.306},   {4, 10, 0.742, 0.305}};
  const Array similarity = class_similarity(random_normal({10, 6}, Philox(2)), Similarity::dot);
  for (const Row& row : table) {
    CAPTURE(row.sigma);
    CAPTURE(row.k);
    LabelOptions options{.group = row.k, .hard = 1, .sigma_low = row.sigma, .sigma_high = row.sigma};
    const Labels labels = draw_labels(8000, similarity, options, 11);
    double largest = 0, entropy = 0, own = 0, off = 0;
    int64_t outside = 0;
    for (int64_t i = 0; i < labels.size(); ++i) {
      const float* y = labels.soft.data<float>() + i * 10;
      const auto group = label_group(similarity, labels.classes[static_cast<size_t>(i)], options, 11, i);
      double sum = 0, most = 0, h = 0;
      for (int32_t c = 0; c < 10; ++c) {
        outside += y[c] > 0 && std::count(group.begin(), group.end(), c) != 1;
        sum += y[c];
        most = std::max<double>(most, y[c]);
        if (y[c] > 0) h -= y[c] * std::log(y[c]);
      }
      off = std::max(off, std::abs(sum - 1));
      largest += most / 8000;
      entropy += h / std::log(row.k) / 8000;
      own += y[labels.classes[static_cast<size_t>(i)]] == static_cast<float>(most) ? 1.0 / 8000 : 0;
    }
    CHECK(outside == 0);
    CHECK(off < 1e-5);
    CHECK(std::abs(largest - row.largest) < 0.01);
    CHECK(std::abs(entropy - row.entropy) < 0.01);
    CHECK(std::abs(own - 1.0 / row.k) < 0.02);  // without an anchor every class of the group is as likely
  }
}

TEST_CASE(
    "labels: one of a group is one-hot, easy images too; anchors, Dirichlet and smoothing do as they say") {
  const Array similarity = class_similarity(random_normal({6, 4}, Philox(2)), Similarity::dot);
  const auto largest_of = [&](const LabelOptions& o) {
    const Labels labels = draw_labels(2000, similarity, o, 3);
    double own = 0;
    for (int64_t i = 0; i < 2000; ++i)
      own += labels.soft.data<float>()[i * 6 + labels.classes[static_cast<size_t>(i)]] / 2000;
    return own;
  };
  CHECK(largest_of({.group = 1, .hard = 1}) == doctest::Approx(1));
  CHECK(largest_of({.hard = 0}) == doctest::Approx(1));
  CHECK(largest_of({.arm = Arm::one_hot, .hard = 1}) == doctest::Approx(1));
  CHECK(largest_of({.arm = Arm::smoothing, .hard = 1, .smoothing = 0.3}) == doctest::Approx(0.75));
  CHECK(largest_of({.group = 4, .hard = 1, .dirichlet = 1}) == doctest::Approx(0.25).epsilon(0.05));
  CHECK(largest_of({.group = 4, .hard = 1, .anchor = 5}) > 0.8);
  const Labels half = draw_labels(2000, similarity, {.hard = 0.3}, 3);
  CHECK(std::abs(std::count(half.hard.begin(), half.hard.end(), 1) - 600) < 70);
  // A part of the images has the labels that all of them have.
  const Labels part = draw_labels(10, similarity, {.hard = 0.3}, 3, 40);
  CHECK(std::memcmp(part.soft.raw(), half.soft.slice(40, 10).raw(), part.soft.bytes()) == 0);
  const Array one = class_similarity(Array::zeros({1, 4}), Similarity::dot);
  CHECK(draw_labels(4, one, {.hard = 1}, 3).soft.to_vector() == std::vector<double>(4, 1));
  CHECK_THROWS_AS(draw_labels(4, similarity, {.hard = 1.5}, 3), argument_error);
  CHECK_THROWS_AS(draw_labels(4, similarity, {.group = 0}, 3), argument_error);
}

TEST_CASE("the group of a hard image is 3 of 10 classes, 5 of 100, 10 of more, or what is said") {
  for (const auto& [classes, size] : {std::pair{2, 2}, {10, 3}, {100, 5}, {101, 10}})
    CHECK(group_size({}, classes) == size);
  CHECK(group_size({.group = 7}, 100) == 7);
  CHECK(group_size({.group = 7}, 5) == 5);
  const Array s = class_similarity(random_normal({100, 20}, Philox(2)), Similarity::dot);
  CHECK(label_group(s, 3, {}, 1, 0).size() == 5);
}

TEST_CASE("T15: batch moments and their gradient, to the second order") {
  const auto f = [](const Tensors& t) {
    const Moments m = batch_moments(t[0]);
    return sum(square(m.mean)) + sum(m.var * m.var * m.mean);
  };
  const Tensors x = {Tensor(random_normal({3, 2, 2, 4}, Philox(1), 1, DType::f64))};
  CHECK(gradcheck(f, x).error < 1e-6);
  CHECK(gradcheck(f, x, 2).error < 1e-5);
  const Moments one = batch_moments(Tensor(Array::of<float>({1, 2, 3, 6}, {2, 2})));
  CHECK(one.mean.value().to_vector() == std::vector<double>{2, 4});
  CHECK(one.var.value().to_vector() == std::vector<double>{1, 4});
}

TEST_CASE(
    "T15: the loss on statistics is zero on the statistics themselves, and its gradient reaches the pixels") {
  for (const StatisticsLaw law : {StatisticsLaw::batch, StatisticsLaw::image}) {
    CAPTURE(static_cast<int>(law));
    const bool batch = law == StatisticsLaw::batch;
    const auto model = toy(true, 2, DType::f64);
    Array images = random_normal({batch ? 5 : 1, 8, 8, 3}, Philox(4), 1, DType::f64);
    if (!batch) {  // the input counts, too: its mean is 0 and its deviation 1, but for the floor of 1e-6
      const Moments m = image_moments(images);
      images =
          ((Tensor(images) - reshape(m.mean, {1, 1, 1, 3})) / sqrt(reshape(m.var, {1, 1, 1, 3}) / (1 - 1e-6)))
              .value();
    }
    StatisticsLoss loss(*model, {.law = law});
    const auto forward = [&](const Tensor& x) { return (*model)(x); };
    const auto value = [&](const Tensors& t) {
      loss.run(forward, t[0]);
      return loss.value();
    };
    CHECK(value({images}).item() > 0.01);
    CHECK(gradcheck(value, {Tensor(images)}).error < 1e-5);
    // Layer by layer, since changing one changes what the next one sees.
    for (int layer = 0; layer < 2; ++layer) {
      BatchNormInputs inputs(*model);
      const NoGrad no_grad;
      (*model)(images);
      const Tensor x = inputs.seen()[static_cast<size_t>(layer)].x;
      const Moments m = batch ? batch_moments(x) : image_moments(x);
      auto* norm = const_cast<nn::BatchNorm2d*>(inputs.seen()[static_cast<size_t>(layer)].norm);
      norm->running_mean.assign(m.mean.value().reshape(norm->running_mean.shape()));
      norm->running_var.assign(m.var.value().reshape(norm->running_var.shape()));
    }
    StatisticsLoss again(*model, {.law = law});
    again.run(forward, images);
    CHECK(again.value().item() < 1e-20);
  }
}

TEST_CASE("T15: the loss on statistics has the value of its definition, by both laws") {
  const auto model = toy(true, 2, DType::f64);
  const int64_t n = 3;
  const Array images = random_normal({n, 8, 8, 3}, Philox(4), 1, DType::f64);
  // Of channel c of x (n, h, w, channels) over images first .. last - 1.
  const auto moments = [](const Array& x, int64_t c, int64_t first, int64_t last) {
    const int64_t channels = x.dim(3), pixels = x.dim(1) * x.dim(2);
    double sum = 0, squares = 0, count = 0;
    for (int64_t i = first * pixels; i < last * pixels; ++i) sum += x.data<double>()[i * channels + c];
    count = static_cast<double>((last - first) * pixels);
    for (int64_t i = first * pixels; i < last * pixels; ++i)
      squares += std::pow(x.data<double>()[i * channels + c] - sum / count, 2);
    return std::tuple{sum / count, squares, count};
  };
  double batch = 0, each = 0;
  BatchNormInputs inputs(*model);
  const NoGrad no_grad;
  (*model)(images);
  REQUIRE(inputs.seen().size() == 2);
  for (const auto& [norm, x] : inputs.seen()) {
    const int64_t channels = x.value().dim(3);
    double own = 0;
    for (int64_t c = 0; c < channels; ++c) {
      const double mean = norm->running_mean.to_vector()[static_cast<size_t>(c)],
                   var = norm->running_var.to_vector()[static_cast<size_t>(c)];
      const auto [m, squares, count] = moments(x.value(), c, 0, n);
      own += std::pow(m - mean, 2) + std::pow(squares / count - var, 2);
      for (int64_t i = 0; i < n; ++i) {
        const auto [of_one, squares_of_one, pixels] = moments(x.value(), c, i, i + 1);
        const double spread = std::sqrt(squares_of_one / (pixels - 1) + 1e-6) - std::sqrt(var + 1e-6);
        each += (std::pow(of_one - mean, 2) + std::pow(spread, 2)) / static_cast<double>(n);
      }
    }
    batch += own / static_cast<double>(channels) / 2;
  }
  for (int64_t i = 0; i < n; ++i)
    for (int64_t c = 0; c < 3; ++c) {
      const auto [m, squares, count] = moments(images, c, i, i + 1);
      each += (m * m + std::pow(std::sqrt(squares / (count - 1) + 1e-6) - 1, 2)) / static_cast<double>(n);
    }
  for (const auto& [law, expected] : {std::pair{StatisticsLaw::batch, batch}, {StatisticsLaw::image, each}}) {
    StatisticsLoss loss(*model, {.law = law});
    loss.run([&](const Tensor& x) { return (*model)(x); }, images);
    CHECK(loss.value().item() == doctest::Approx(expected).epsilon(1e-9));
  }
}

TEST_CASE("slack forgives what noise does, and enhancement doubles one layer an image") {
  const auto model = toy();
  const Array noise = random_normal({32, 8, 8, 3}, Philox(5));
  const auto loss_of = [&](const StatisticsOptions& o, bool measured) {
    StatisticsLoss loss(*model, o);
    if (measured) loss.measure_slack(noise);
    loss.run([&](const Tensor& x) { return (*model)(x); }, noise);
    return loss.value().item();
  };
  const double plain = loss_of({.law = StatisticsLaw::image}, false);
  const double slack = loss_of({.law = StatisticsLaw::image, .slack = 0.9}, true);
  CHECK(slack > 0);
  CHECK(slack < 0.5 * plain);
  CHECK(loss_of({.law = StatisticsLaw::image, .enhance = true}, false) > 1.5 * plain);
  CHECK_THROWS_WITH_AS(StatisticsLoss(*toy(false), {}), doctest::Contains("no batch norms"), argument_error);
  model->train();
  StatisticsLoss loss(*model, {});
  CHECK_THROWS_WITH_AS(loss.run([&](const Tensor& x) { return (*model)(x); }, noise),
                       doctest::Contains("training mode"), argument_error);
}

TEST_CASE("T16: synthesis makes a class probable and lowers the loss on statistics") {
  const auto model = toy();
  SynthesisOptions options;
  options.labels.arm = Arm::one_hot;
  options.images = options.batch = 32;
  options.iterations = 200;
  options.lr = 0.1;
  options.statistics_weight = 5;
  Array decision = model->state().at("fc.weight");  // a network that is sure of itself
  for (int64_t i = 0; i < decision.size(); ++i) decision.data<float>()[i] *= 8;
  // Statistics that images can have: those of some images.
  {
    model->train();
    const NoGrad no_grad;
    for (int i = 0; i < 60; ++i)
      (*model)(random_normal({64, 8, 8, 3}, Philox(6, static_cast<uint64_t>(i)), 0.7));
    model->eval();
  }
  const Synthesis made = synthesise(*model, options, {});
  REQUIRE(made.batches.size() == 1);
  CHECK(made.batches[0].statistics < 0.1 * made.batches[0].first_statistics);
  const NoGrad no_grad;
  const Array p = softmax((*model)(made.set.images)).value();
  double own = 0;
  for (int64_t i = 0; i < 32; ++i)
    own += p.data<float>()[i * 2 + made.set.labels.classes[static_cast<size_t>(i)]] / 32;
  CHECK(own > 0.9);
  CHECK(made.batches[0].agreement > 0.95);
  CHECK(made.warnings.empty());
}

// Losses of the steps of a synthesis that hardly moves, without statistics; and the images.
struct Still {
  Array images;
  std::vector<double> loss;
};
Still still(nn::Model& model, SynthesisOptions o) {
  o.labels.arm = Arm::one_hot;
  o.images = 8;
  o.batch = 4;
  o.lr = 1e-12;
  o.statistics_weight = 0;
  Still result;
  result.images =
      synthesise(model, o, {}, [&](int64_t, int, double loss) { result.loss.push_back(loss); }).set.images;
  return result;
}

TEST_CASE("the losses of the presets have the values of their definitions") {
  const auto model = toy(true, 3);
  SynthesisOptions o;
  o.iterations = 1;
  o.label_weight = 0;
  const Still prior = still(*model, o);
  REQUIRE(prior.loss.size() == 2);
  Tensor features, logits;
  {
    const NoGrad no_grad;
    const Tensor map = model->forward(prior.images, 0, model->head());
    features = mean(map, {1, 2});
    logits = (*model)(prior.images);
  }
  const std::vector<double> p = softmax(logits).value().to_vector(), z = features.value().to_vector();
  const auto own = [&](int64_t i) { return p[static_cast<size_t>(3 * i + i % 3)]; };  // labels come in turn
  // Mean of a term over the four images of a batch, which is all that a loss adds to the prior.
  const auto adds = [&](const SynthesisOptions& with, const std::function<double(int64_t)>& term) {
    const Still run = still(*model, with);
    for (int64_t batch = 0; batch < 2; ++batch) {
      double expected = 0;
      for (int64_t i = 4 * batch; i < 4 * batch + 4; ++i) expected += term(i) / 4;
      CHECK(run.loss[static_cast<size_t>(batch)] - prior.loss[static_cast<size_t>(batch)] ==
            doctest::Approx(expected).epsilon(1e-4));
    }
  };
  SynthesisOptions focal = o;
  focal.label_weight = 10;
  focal.focal = 2;
  adds(focal, [&](int64_t i) { return -10 * std::pow(1 - own(i), 2) * std::log(own(i)); });
  SynthesisOptions entropy = o;
  entropy.entropy_weight = 0.5;
  entropy.entropy_target = 0.25;
  adds(entropy, [&](int64_t i) {
    double h = 0;
    for (size_t k = 0; k < 3; ++k)
      h -= p[static_cast<size_t>(3 * i) + k] * std::log(p[static_cast<size_t>(3 * i) + k]);
    return 0.5 * std::pow(h - 0.25 * std::log(3), 2);
  });
  // The second batch alone has centres: features of the first by class, of which class 0 has two.
  SynthesisOptions margins = o;
  margins.nearest = 0.002;
  margins.farthest = 0.01;
  int outside = 0;
  adds(margins, [&](int64_t i) {
    if (i < 4) return 0.0;
    double dot = 0, a = 0, b = 0;
    for (size_t k = 0; k < 6; ++k) {
      const size_t c = static_cast<size_t>(i % 3);
      const double centre = z[6 * c + k] + (c == 0 ? z[6 * 3 + k] : 0), x = z[static_cast<size_t>(6 * i) + k];
      dot += centre * x;
      a += centre * centre;
      b += x * x;
    }
    const double distance = 1 - dot / std::sqrt(a * b);
    outside += distance < 0.002 || distance > 0.01;
    return std::max(0.002 - distance, 0.0) + std::max(distance - 0.01, 0.0);
  });
  CHECK(outside > 0);
  // Targets of a probability are an image's own while it is made, and lie where they shall.
  SynthesisOptions confidence = o;
  confidence.label_weight = 1;
  confidence.confidence = 0.95;
  confidence.iterations = 3;
  const Still sure = still(*model, confidence);
  REQUIRE(sure.loss.size() == 6);
  for (size_t batch = 0; batch < 2; ++batch) {
    CHECK(sure.loss[3 * batch] == doctest::Approx(sure.loss[3 * batch + 1]).epsilon(1e-7));
    CHECK(sure.loss[3 * batch] == doctest::Approx(sure.loss[3 * batch + 2]).epsilon(1e-7));
    double least = 0, most = 0;
    for (size_t i = 4 * batch; i < 4 * batch + 4; ++i) {
      least += std::pow(0.95 - own(static_cast<int64_t>(i)), 2) / 4;
      most += std::pow(1 - own(static_cast<int64_t>(i)), 2) / 4;
    }
    const double added = sure.loss[3 * batch] - prior.loss[batch];
    CHECK(added > least);
    CHECK(added < most);
  }
}

TEST_CASE("images that no label has shaped are labelled by the network; others keep what was asked for") {
  const auto model = toy(true, 3);
  for (const std::string& name : synthesis_presets()) {
    CAPTURE(name);
    SynthesisOptions options = synthesis_preset(name);
    options.images = options.batch = 24;
    options.iterations = 2;
    const ImageSet set = synthesise(*model, options, {}).set;
    const Labels own = answers(*model, set.images);
    const bool unlabelled = name == "zeroq" || name == "dsg";
    CHECK((own.soft.to_vector() == set.labels.soft.to_vector()) == unlabelled);
    CHECK((set.recipe.find("\"from\": \"teacher\"") != std::string::npos) == unlabelled);
    if (unlabelled) {
      CHECK(set.labels.classes == own.classes);
      CHECK(std::ranges::count(set.labels.hard, 1) == 0);
    } else {
      for (size_t i = 0; i < 24; ++i) CHECK(set.labels.classes[i] == static_cast<int32_t>(i % 3));
    }
  }
  // Answers are those of the network: soft, of the class that it names, whatever the batch.
  const Array images = random_normal({300, 8, 8, 3}, Philox(8));
  const Labels labels = answers(*model, images);
  const NoGrad no_grad;
  const Array expected = softmax((*model)(images)).value();
  for (int64_t i = 0; i < expected.size(); ++i)
    CHECK(labels.soft.data<float>()[i] == doctest::Approx(expected.data<float>()[i]).epsilon(1e-5));
  CHECK(labels.classes[299] == kernels::argmax(expected).data<int32_t>()[299]);
}

TEST_CASE("Qimera's generator starts from the classifier's weights, GDFQ's at random") {
  const Array weights = random_normal({5, 12}, Philox(3));
  Generator of_classes(5, 8, 3, weights), random(5, 8, 3);
  for (Generator* g : {&of_classes, &random}) nn::initialise(*g, 1);
  CHECK(of_classes.state().at("embedding").to_vector() == weights.to_vector());
  CHECK(of_classes.noise() == 12);
  CHECK(random.noise() == 100);
  // The scale of the weights is none of the image's: rows are normalised.
  Array larger = weights.clone();
  for (int64_t i = 0; i < larger.size(); ++i) larger.data<float>()[i] *= 7;
  Generator scaled(5, 8, 3, larger);
  nn::initialise(scaled, 1);
  const Array labels = kernels::one_hot(Array::of<int32_t>({0, 3}), 5), silence = Array::zeros({2, 12});
  const Array a = of_classes(silence, labels).value(), b = scaled(silence, labels).value();
  for (int64_t i = 0; i < a.size(); ++i)
    CHECK(a.data<float>()[i] == doctest::Approx(b.data<float>()[i]).epsilon(1e-3));
  CHECK(of_classes.learned().size() == random.learned().size() + 2);
  CHECK(synthesis_preset("qimera").classifier_embeddings);
  CHECK_FALSE(synthesis_preset("gdfq").classifier_embeddings);
  CHECK_THROWS_WITH_AS(Generator(4, 8, 3, weights), doctest::Contains("a row for each"), argument_error);
}

TEST_CASE("every preset makes finite images that depend on the seed alone") {
  const auto model = toy(true, 3);
  for (const std::string& name : synthesis_presets()) {
    CAPTURE(name);
    SynthesisOptions options = synthesis_preset(name);
    options.images = 40;
    options.batch = 20;
    options.iterations = 5;
    const Array once = synthesise(*model, options, {}).set.images,
                twice = synthesise(*model, options, {}).set.images;
    CHECK(once.shape() == Shape{40, 8, 8, 3});
    for (const double x : once.to_vector()) CHECK(std::isfinite(x));
    CHECK(std::memcmp(once.raw(), twice.raw(), once.bytes()) == 0);
    options.seed = 1;
    CHECK(std::memcmp(once.raw(), synthesise(*model, options, {}).set.images.raw(), once.bytes()) != 0);
  }
  CHECK_THROWS_WITH_AS(synthesis_preset("zeroqq"), doctest::Contains("dynadfq"), argument_error);
}

TEST_CASE("synthesis: clamped pixels, wrong options, few images, one class, no batch norms") {
  SynthesisOptions o = synthesis_preset("dynadfq");
  o.images = o.batch = 16;
  o.iterations = 10;
  o.clamp = true;
  const PixelScale scale{{0.5}, {0.25}};
  for (const double x : synthesise(*toy(), o, scale).set.images.to_vector()) CHECK(std::abs(x) <= 2);
  o.images = 1;
  o.augment = 1;
  o.entropy_weight = 1;
  o.entropy_target = 0.5;
  const Synthesis one = synthesise(*toy(true, 1), o, scale);
  REQUIRE(one.warnings.size() == 2);
  CHECK(one.warnings[0].starts_with("small batch"));
  CHECK(one.warnings[1].starts_with("one class"));
  for (const double x : one.set.images.to_vector()) CHECK(std::isfinite(x));
  CHECK_THROWS_WITH_AS(synthesise(*toy(false), o, scale), doctest::Contains("no batch norms"),
                       argument_error);
  for (const char* name : {"gdfq", "qimera"}) {  // generators learn from batches alike
    SynthesisOptions generator = synthesis_preset(name);
    generator.images = 1;
    generator.iterations = 2;
    const Synthesis alone = synthesise(*toy(true, 2), generator, scale);
    REQUIRE(alone.warnings.size() == 1);
    CHECK(alone.warnings[0].starts_with("small batch: statistics are those of 1"));
    for (const double x : alone.set.images.to_vector()) CHECK(std::isfinite(x));
    generator.images = 130;  // a rest of 2 is drawn, not learned from
    CHECK(synthesise(*toy(true, 2), generator, scale).warnings.empty());
  }
  o.statistics_weight = 0;
  CHECK(synthesise(*toy(false), o, scale).warnings[0].starts_with("no statistics"));
  o.iterations = 0;
  CHECK_THROWS_AS(synthesise(*toy(), o, scale), argument_error);
}

TEST_CASE("images go to a folder and come back; the pictures are a data set") {
  const auto model = toy();
  SynthesisOptions o = synthesis_preset("dynadfq");
  o.images = o.batch = 16;
  o.iterations = 3;
  const Synthesis made = synthesise(*model, o, {});
  const Folder folder;
  const std::string path = folder / "set";
  save(made.set, path, {{0.5}, {0.25}}, {"cat", "dog"});
  const ImageSet back = load_images(path);
  CHECK(std::memcmp(back.images.raw(), made.set.images.raw(), back.images.bytes()) == 0);
  CHECK(std::memcmp(back.labels.soft.raw(), made.set.labels.soft.raw(), back.labels.soft.bytes()) == 0);
  CHECK(back.labels.hard == made.set.labels.hard);
  CHECK(back.recipe == made.set.recipe);
  CHECK(back.recipe.find("\"arm\": \"similar\"") != std::string::npos);
  const data::Dataset pictures = data::load_dataset("folder", path + "/pictures");
  CHECK(pictures.size() == 16);
  CHECK(pictures.class_names == std::vector<std::string>{"cat", "dog"});
  CHECK(pictures.image(3).to_vector() == picture(made.set.images, 3, {{0.5}, {0.25}}).to_vector());
  std::ofstream(path + "/images.safetensors", std::ios::app) << "x";
  CHECK_THROWS_AS(load_images(path), format_error);
}

TEST_CASE("crops and mirrors keep what they shall, and their gradient is that of differences") {
  const Array constant = Array::full({3, 8, 8, 2}, 0.25);
  for (const double x : crop_and_flip_each(constant, Philox(1)).to_vector()) CHECK(x == 0.25);
  const Array images = random_normal({3, 8, 8, 2}, Philox(2));
  const Array changed = crop_and_flip_each(images, Philox(1));
  CHECK(std::memcmp(changed.raw(), images.raw(), images.bytes()) != 0);
  const Tensors x = {Tensor(random_normal({2, 8, 8, 2}, Philox(3), 1, DType::f64))};
  CHECK(gradcheck([](const Tensors& t) { return sum(square(crop_and_flip(t[0], Philox(4)))); }, x).error <
        1e-6);
  CHECK(gradcheck([](const Tensors& t) { return total_variation(t[0]); }, x).error < 1e-6);
  CHECK(total_variation(Tensor(constant)).item() == 0);
  CHECK(total_variation(Tensor(images)).item() > 1);
}

TEST_CASE("meters of difficulty have the values of their definitions") {
  const float big = std::log(0.7f), small = std::log(0.2f), least = std::log(0.1f);
  const Array logits = Array::of<float>({big, small, least, 0, 0, 0}, {2, 3});
  const Difficulty d = difficulty(logits, Array::of<float>({0, 1, 0, 0.5f, 0.5f, 0}, {2, 3}));
  CHECK(d.entropy[0] == doctest::Approx(0.8018).epsilon(1e-3));
  CHECK(d.entropy[1] == doctest::Approx(std::log(3)));
  CHECK(d.gradient[0] == doctest::Approx(0.8));      // 1 - p_y
  CHECK(d.gradient[1] == doctest::Approx(1.0 / 3));  // half of |p - y|_1
  CHECK(d.margin[0] == doctest::Approx(0.5));
  CHECK(d.margin[1] == doctest::Approx(0).epsilon(1e-6));
  // Three values within a window, one alone; the window is cut at 1.
  const std::vector<double> density = gradient_density({0.50, 0.52, 0.48, 1.0});
  CHECK(density[0] == doctest::Approx(7.5));
  CHECK(density[3] == doctest::Approx(5));
  CHECK(gradient_density({0.50, 0.52, 0.48, 1.0, 0.50, 0.52, 0.48, 1.0})[0] == doctest::Approx(7.5));
  CHECK(largest_distance({0, 1}, {0, 1}) == 0);
  CHECK(largest_distance({0, 1}, {2, 3}) == 1);
  CHECK(mean_distance({0, 1}, {2, 3}) == doctest::Approx(2));
  CHECK(mean_distance({0, 0, 1, 1}, {0, 1}) == doctest::Approx(0));
  CHECK(std::isnan(mean_distance({}, {1})));
  CHECK(histogram({-1, 0.1, 0.6, 2}, 0, 1, 2) == std::vector<int64_t>{2, 2});
  CHECK(mean_pairwise_cosine(Array::of<float>({1, 0, 2, 0, 0, 1}, {3, 2})) == doctest::Approx(1.0 / 3));
  const Array real = Array::of<float>({0, 0, 0, 1, 1, 0, 9, 9}, {4, 2});
  CHECK(coverage(real, Array::of<float>({0.2f, 0.2f}, {1, 2}), 1) == doctest::Approx(0.75));
  CHECK(nearest_distances(Array::of<float>({3, 4, 0, 1}, {2, 2}), Array::of<float>({0, 0, 0, -9}, {2, 2})) ==
        std::vector<double>{5, 1});
}
