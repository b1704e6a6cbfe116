#include "labels.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "../../autograd/ops.h"
#include "../../autograd/recorder.h"
#include "../../kernels/movement.h"
#include "../../kernels/reduce.h"
#include "../names.h"

namespace stairgrad::quant::datafree {
namespace {

constexpr Named<Arm> arms[] = {{Arm::similar, "similar"},       {Arm::arbitrary, "arbitrary"},
                               {Arm::dissimilar, "dissimilar"}, {Arm::mixed, "mixed"},
                               {Arm::one_hot, "one-hot"},       {Arm::smoothing, "smoothing"}};

// Shares of `group`, of which the first is the image's own class.
std::vector<double> shares(size_t group, const LabelOptions& o, RandomSequence& draws) {
  std::vector<double> y(group);
  if (o.dirichlet > 0) {
    for (double& share : y) share = std::max(draws.gamma(o.dirichlet), 1e-300);
  } else {
    const double sigma = o.sigma_low * std::pow(o.sigma_high / o.sigma_low, draws.uniform());
    for (double& share : y) share = sigma * draws.normal();
    y[0] += o.anchor;
    const double largest = *std::ranges::max_element(y);
    for (double& share : y) share = std::exp(share - largest);
  }
  const double total = std::accumulate(y.begin(), y.end(), 0.0);
  for (double& share : y) share /= total;
  return y;
}

}  // namespace

std::string to_string(Arm arm) { return name_in(arms, arm); }
Arm parse_arm(const std::string& name) { return value_in(arms, name, "arm"); }

Labels Labels::slice(int64_t first, int64_t count) const {
  return {{classes.begin() + first, classes.begin() + first + count},
          {hard.begin() + first, hard.begin() + first + count},
          soft.slice(first, count)};
}

void validate(const LabelOptions& o) {
  check(!o.group || *o.group >= 1, "[labels] group: got ", o.group.value_or(1),
        " classes, expected at least 1");
  check(o.hard >= 0 && o.hard <= 1, "[labels] hard: got ", o.hard, ", expected a share from 0 to 1");
  check(o.sigma_low > 0 && o.sigma_low <= o.sigma_high, "[labels] sigma: got ", o.sigma_low, " to ",
        o.sigma_high, ", expected 0 < low <= high");
  check(o.dirichlet >= 0 && o.anchor >= 0, "[labels] dirichlet and anchor: got ", o.dirichlet, " and ",
        o.anchor, ", expected them not below 0");
  check(o.smoothing >= 0 && o.smoothing <= 1, "[labels] smoothing: got ", o.smoothing,
        ", expected a share from 0 to 1");
}

int64_t group_size(const LabelOptions& o, int64_t classes) {
  const int usual = classes <= 10 ? 3 : classes <= 100 ? 5 : 10;
  return std::min<int64_t>(o.group.value_or(usual), classes);
}

std::vector<int32_t> label_group(const Array& similarity, int32_t c, const LabelOptions& o, uint64_t seed,
                                 int64_t item) {
  const int64_t classes = similarity.dim(0);
  const auto others = static_cast<size_t>(group_size(o, classes) - 1);
  std::vector<int32_t> ranked = most_similar(similarity, c), group = {c};
  if (o.arm == Arm::one_hot || o.arm == Arm::smoothing) return group;
  if (o.arm == Arm::arbitrary) {
    const Philox rng(seed ^ stream_of("arbitrary classes"), static_cast<uint64_t>(item));
    const std::vector<int64_t> order = random_permutation(static_cast<int64_t>(ranked.size()), rng);
    for (size_t i = 0; i < others; ++i) group.push_back(ranked[static_cast<size_t>(order[i])]);
    return group;
  }
  const double* row = similarity.data<double>() + c * classes;
  const size_t from_below = o.arm == Arm::dissimilar ? others : o.arm == Arm::mixed ? others / 2 : 0;
  for (size_t i = 0; i < others - from_below; ++i)
    if (row[ranked[i]] >= o.least_similarity) group.push_back(ranked[i]);
  for (size_t i = 0; i < from_below; ++i) group.push_back(ranked[ranked.size() - 1 - i]);
  return group;
}

Labels draw_labels(int64_t n, const Array& similarity, const LabelOptions& o, uint64_t seed, int64_t first) {
  validate(o);
  check(n >= 1, "[labels] got ", n, " images, expected at least 1");
  const int64_t classes = similarity.dim(0);
  Labels labels{{}, {}, Array::zeros({n, classes})};
  for (int64_t i = 0; i < n; ++i) {
    RandomSequence draws(Philox(seed ^ stream_of("soft labels"), static_cast<uint64_t>(first + i)));
    const auto c = static_cast<int32_t>((first + i) % classes);
    const bool hard = o.arm != Arm::one_hot && draws.uniform() < o.hard;
    float* y = labels.soft.data<float>() + i * classes;
    if (!hard) {
      y[c] = 1;
    } else if (o.arm == Arm::smoothing) {
      std::fill_n(y, classes, static_cast<float>(o.smoothing / static_cast<double>(classes)));
      y[c] += static_cast<float>(1 - o.smoothing);
    } else {
      const std::vector<int32_t> group = label_group(similarity, c, o, seed, first + i);
      const std::vector<double> share = shares(group.size(), o, draws);
      for (size_t k = 0; k < group.size(); ++k) y[group[k]] = static_cast<float>(share[k]);
    }
    labels.classes.push_back(c);
    labels.hard.push_back(hard);
  }
  return labels;
}

Labels answers(nn::Model& teacher, const Array& images) {
  constexpr int64_t at_once = 250;
  const NoGrad no_grad;
  const int64_t n = images.dim(0);
  Arrays parts;
  for (int64_t i = 0; i < n; i += at_once)
    parts.push_back(softmax(teacher(images.slice(i, std::min(at_once, n - i)))).value());
  Labels labels{{}, std::vector<uint8_t>(static_cast<size_t>(n)), kernels::concat(parts, 0)};
  const Array top = kernels::argmax(labels.soft);
  labels.classes.assign(top.data<int32_t>(), top.data<int32_t>() + n);
  return labels;
}

}  // namespace stairgrad::quant::datafree
