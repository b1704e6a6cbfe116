// Distillation: how strong it is, and what the teacher sees.
#include "../../examples/common/teacher.h"

#include <doctest/doctest.h>

#include <cmath>

#include "../../autograd/grad.h"
#include "../../autograd/ops.h"
#include "../../kernels/random.h"
#include "../../nn/checkpoint.h"
#include "../folder.h"

using namespace stairgrad;
using namespace stairgrad::examples;

namespace {

// KL(softmax(teacher / t) || softmax(student / t)) of one row of three.
double divergence(const double (&student)[3], const double (&teacher)[3], double t) {
  double p[3], q[3], of_p = 0, of_q = 0, sum = 0;
  for (int i = 0; i < 3; ++i) {
    of_p += p[i] = std::exp(teacher[i] / t);
    of_q += q[i] = std::exp(student[i] / t);
  }
  for (int i = 0; i < 3; ++i) sum += p[i] / of_p * std::log(p[i] / of_p / (q[i] / of_q));
  return sum;
}

}  // namespace

TEST_CASE("distillation has T^2 once, so that its gradient keeps its size as T grows") {
  const double student[3] = {0.3, -1, 0.5}, teacher[3] = {2, 0, -1};
  const Tensor own = Array::of<float>({0.7f});
  const Array expected = Array::of<float>({2, 0, -1}, {1, 3});
  for (const double t : {1.0, 4.0})
    for (const double share : {0.0, 0.3, 1.0}) {
      const Tensor logits = Array::of<float>({0.3f, -1, 0.5f}, {1, 3});
      CHECK(
          distilled(sum(own), logits, expected, share, t).item() ==
          doctest::Approx((1 - share) * 0.7 + share * t * t * divergence(student, teacher, t)).epsilon(1e-5));
    }
  // As T grows the gradient of T^2 KL becomes (student - teacher, both without their means) / classes.
  const Tensor logits = Tensor::leaf(Array::of<float>({0.3f, -1, 0.5f}, {1, 3}));
  const Array slope = grad(distilled(sum(own), logits, expected, 1, 100), logits).value();
  for (int i = 0; i < 3; ++i)
    CHECK(slope.data<float>()[i] ==
          doctest::Approx((student[i] + 0.2 / 3 - teacher[i] + 1.0 / 3) / 3).epsilon(0.02));
}

TEST_CASE("a teacher sees the student's pictures in its own normalisation") {
  const Folder folder;
  const nn::ModelOptions options{.image_size = 8, .classes = 3, .width = 0.25};
  const auto network = nn::make_model("resnet8", options);
  nn::initialise(*network, 1);
  nn::save_model(folder / "teacher", *network, {"resnet8", options, {{"normalisation", "imagenet"}}});
  nn::save_model(folder / "unknown", *network, {"resnet8", options, {}});
  network->eval();

  const auto students = data::Normalisation::named("tf"), own = data::Normalisation::named("imagenet");
  Array picture({8, 8, 3}, DType::u8);
  for (int64_t i = 0; i < picture.size(); ++i)
    picture.data<uint8_t>()[i] = static_cast<uint8_t>(255 * Philox(2).uniform(static_cast<uint64_t>(i)));
  const auto batch = [&](const data::Normalisation& normalisation) {
    Array images({1, 8, 8, 3});
    data::Transform{.normalisation = normalisation}.apply(picture, data::Draws(0, 0, 0), images, 0);
    return images;
  };
  const auto check_equal = [](const Array& a, const Array& b, double epsilon) {
    for (int64_t i = 0; i < a.size(); ++i)
      CHECK(a.to_vector()[static_cast<size_t>(i)] ==
            doctest::Approx(b.to_vector()[static_cast<size_t>(i)]).epsilon(epsilon));
  };
  const Array expected = (*network)(batch(own)).value();
  check_equal(Teacher::load(folder / "teacher", students)(batch(students)).value(), expected, 1e-3);
  CHECK(Teacher::load(folder / "teacher", own)(batch(own)).value().to_vector() == expected.to_vector());
  CHECK(Teacher::load(folder / "unknown", own)(batch(own)).value().to_vector() == expected.to_vector());
  // And looks at them where it looks at its own: last and inner maps, of its own and of other classes.
  for (const auto& [block, classes] :
       {std::pair{"", std::vector<int32_t>()}, std::pair{"layer2.0", std::vector<int32_t>{2}}}) {
    const nn::Attribution looks = Teacher::load(folder / "teacher", students)
                                      .explain(batch(students), block, classes),
                          wanted = nn::explainer_of(*network)(batch(own), block, classes);
    CHECK(looks.classes == wanted.classes);
    check_equal(looks.map.value(), wanted.map.value(), 1e-3);
    CHECK(Teacher::load(folder / "unknown", students)
              .explain(batch(students), block, classes)
              .map.value()
              .to_vector() != looks.map.value().to_vector());
  }
  const Tensor narrow = Teacher::load(folder / "teacher", students)(cast(batch(students), DType::bf16));
  CHECK(narrow.dtype() == DType::f32);
  check_equal(narrow.value(), expected, 0.1);
}
