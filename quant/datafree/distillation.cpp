#include "distillation.h"

#include "../../autograd/ops.h"
#include "../names.h"

namespace stairgrad::quant::datafree {
namespace {

constexpr Named<Mixup> mixups[] = {{Mixup::off, "off"}, {Mixup::easy, "easy"}, {Mixup::all, "all"}};

Tensor attention(const Tensor& map) {
  const Tensor wide = cast(map, DType::f32);
  return l2_normalise(mean(square(wide), {1, 2}), {-1}, 1e-6);
}

void mix_row(float* to, const float* other, int64_t size, float share) {
  for (int64_t k = 0; k < size; ++k) to[k] = share * to[k] + (1 - share) * other[k];
}

}  // namespace

Tensor distillation(const Tensor& student, const Tensor& teacher, double temperature, KlReduction reduction) {
  const Tensor loss = kl_divergence(student, teacher, temperature);
  return reduction == KlReduction::mean ? loss / static_cast<double>(student.dim(1)) : loss;
}

Tensor feature_alignment(const Tensors& student, const Tensors& teacher) {
  check(!student.empty() && student.size() == teacher.size(), "[feature_alignment] got ", student.size(),
        " maps of the student and ", teacher.size(), " of the teacher, expected the same number, at least 1");
  Tensor total;
  for (size_t i = 0; i < student.size(); ++i) {
    const Tensor own = mse(attention(student[i]), attention(teacher[i]));
    total = total.defined() ? total + own : own;
  }
  return total;
}

Array perturbed(const Array& images, const Array& slope, double size) {
  check(images.shape() == slope.shape(), "[perturbed] got a slope ", slope.shape(), " for images ",
        images.shape(), ", expected one of that shape");
  Array result = images.clone();
  float* x = result.data<float>();
  const float* s = slope.data<float>();
  for (int64_t i = 0; i < result.size(); ++i)
    x[i] += static_cast<float>(s[i] > 0 ? size : s[i] < 0 ? -size : 0);
  return result;
}

std::string to_string(Mixup mixup) { return name_in(mixups, mixup); }
Mixup parse_mixup(const std::string& name) { return value_in(mixups, name, "mixup"); }

MixedImages mix_images(const Array& images, const Array& labels, const std::vector<uint8_t>& hard,
                       Mixup mixup, double alpha, Philox rng) {
  const int64_t n = images.dim(0);
  check(labels.dim(0) == n && static_cast<int64_t>(hard.size()) == n, "[mixup] got ", n, " images, ",
        labels.dim(0), " labels and ", hard.size(), " flags, expected as many of each");
  check(alpha > 0, "[mixup] alpha: got ", alpha, ", expected it above 0");
  MixedImages mixed{images, labels};
  if (mixup == Mixup::off) return mixed;
  std::vector<int64_t> members;
  for (int64_t i = 0; i < n; ++i)
    if (mixup == Mixup::all || !hard[static_cast<size_t>(i)]) members.push_back(i);
  if (members.size() < 2) return mixed;
  mixed = {images.clone(), labels.clone()};
  const std::vector<int64_t> order = random_permutation(static_cast<int64_t>(members.size()), rng);
  const int64_t size = images.size() / n, classes = labels.size() / n;
  for (size_t m = 0; m < members.size(); ++m) {
    const int64_t i = members[m], j = members[static_cast<size_t>(order[m])];
    RandomSequence draws(rng, (static_cast<uint64_t>(i) + 1) << 32);  // apart from those of the permutation
    const auto share = static_cast<float>(draws.beta(alpha));
    mix_row(mixed.images.data<float>() + i * size, images.data<float>() + j * size, size, share);
    mix_row(mixed.labels.data<float>() + i * classes, labels.data<float>() + j * classes, classes, share);
  }
  return mixed;
}

}  // namespace stairgrad::quant::datafree
