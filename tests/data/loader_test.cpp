// Batches depend on (seed, epoch, index) alone; memory is bounded; errors and abandoned epochs end cleanly.
#include "data/loader.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <set>
#include <thread>

#include "support.h"

using namespace stairgrad;
using namespace stairgrad::data;

namespace {

/// n pictures of 8 x 6 x 3 with all their bytes different from those of their neighbours.
Dataset small(int64_t n) {
  Array images({n, 8, 6, 3}, DType::u8);
  for (int64_t i = 0; i < images.size(); ++i)
    images.data<uint8_t>()[i] = static_cast<uint8_t>(Philox(5).below(static_cast<uint64_t>(i), 256));
  std::vector<int32_t> labels;
  for (int64_t i = 0; i < n; ++i) labels.push_back(static_cast<int32_t>(i % 4));
  return dataset_of("small", images, labels, {"a", "b", "c", "d"});
}

Transform augmented() {
  Transform transform = pad_crop_flip(Normalisation::named("cifar"), 2);
  transform.cutout = 3;
  return transform;
}

std::vector<Batch> collect(const Dataset& dataset, LoaderOptions options, int64_t epoch = 0,
                           int64_t from = 0) {
  Loader loader(dataset, augmented(), options);
  std::vector<Batch> batches;
  for (const Batch& batch : loader.epoch(epoch, from)) batches.push_back(batch);
  return batches;
}

bool same(const Array& a, const Array& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() && a.has_value() == b.has_value() &&
         (!a.has_value() || std::memcmp(a.raw(), b.raw(), a.bytes()) == 0);
}

bool same(const std::vector<Batch>& a, const std::vector<Batch>& b) {
  return std::ranges::equal(a, b, [](const Batch& x, const Batch& y) {
    return x.index == y.index && same(x.images, y.images) && same(x.labels, y.labels) &&
           same(x.soft_labels, y.soft_labels);
  });
}

}  // namespace

TEST_CASE("loader: the number of workers changes no bit, with every kind of mixing and in both types") {
  const Dataset dataset = small(53);
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const double cutmix : {0.0, 1.0}) {
      LoaderOptions options{
          .batch = 8, .shuffle = true, .seed = 3, .dtype = dtype, .mixup = 0.4, .cutmix = cutmix};
      const std::vector<Batch> one = collect(dataset, options, 2);
      REQUIRE(one.size() == 7);
      CHECK(one.back().size() == 5);
      for (const int workers : {2, 4}) {
        options.workers = workers;
        options.prefetch = 3;
        CHECK(same(one, collect(dataset, options, 2)));
      }
    }
}

TEST_CASE("loader: seed and epoch change order and augmentation; an epoch visits each picture once") {
  const Dataset dataset = small(40);
  const LoaderOptions options{.batch = 8, .shuffle = true, .seed = 1};
  const std::vector<Batch> first = collect(dataset, options, 0);
  CHECK(same(first, collect(dataset, options, 0)));
  CHECK(!same(first, collect(dataset, options, 1)));
  LoaderOptions other = options;
  other.seed = 2;
  CHECK(!same(first, collect(dataset, other, 0)));

  Loader plain(dataset, {}, options);
  std::multiset<std::vector<double>> seen, expected;
  for (const Batch& batch : plain.epoch(0))
    for (int64_t i = 0; i < batch.size(); ++i) seen.insert(batch.images.slice(i, 1).to_vector());
  Loader ordered(dataset, {}, {.batch = 40});
  for (const Batch& batch : ordered.epoch(0))
    for (int64_t i = 0; i < batch.size(); ++i) {
      CHECK(batch.labels.data<int32_t>()[i] == i % 4);
      expected.insert(batch.images.slice(i, 1).to_vector());
    }
  CHECK(seen == expected);
}

TEST_CASE("loader: an epoch resumed at a batch goes on as if it had not stopped") {
  const Dataset dataset = small(53);
  const LoaderOptions options{.batch = 8, .shuffle = true, .workers = 2, .seed = 9, .mixup = 1};
  const std::vector<Batch> whole = collect(dataset, options, 4);
  for (const int64_t from : {1, 3, 6})
    CHECK(same({whole.begin() + from, whole.end()}, collect(dataset, options, 4, from)));
  CHECK(collect(dataset, options, 4, 7).empty());
}

TEST_CASE("loader: drop_last leaves out the batch that is not full") {
  const Dataset dataset = small(53);
  Loader loader(dataset, {}, {.batch = 8, .drop_last = true});
  CHECK(loader.batches() == 6);
  CHECK(loader.images() == 48);
  for (const Batch& batch : loader.epoch(0)) CHECK(batch.size() == 8);
  CHECK(Loader(dataset, {}, {.batch = 64, .drop_last = true}).batches() == 0);
  CHECK(Loader(dataset, {}, {.batch = 8}).images() == 53);
}

TEST_CASE("loader: never more than `prefetch` batches are ready or in the making") {
  Dataset dataset = small(64);
  std::atomic<int> made = 0;
  dataset.image = [&made, image = dataset.image](int64_t i) {
    ++made;
    return image(i);
  };
  Loader loader(dataset, {}, {.batch = 4, .workers = 4, .prefetch = 3});
  loader.start(0);
  Batch batch;
  for (int64_t taken = 1; loader.next(batch); ++taken) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // time to run too far ahead
    CHECK(made <= 4 * (taken + 3));
  }
  CHECK(made == 64);
}

TEST_CASE("loader: abandoned epochs, restarts and destruction at any moment") {
  const Dataset dataset = small(64);
  const LoaderOptions options{.batch = 4, .shuffle = true, .workers = 3};
  for (int taken = 0; taken < 5; ++taken) {
    Loader loader(dataset, {}, options);
    loader.start(0);
    Batch batch;
    for (int i = 0; i < taken; ++i) CHECK(loader.next(batch));
  }
  Loader never_started(dataset, {}, options);

  Loader loader(dataset, augmented(), options);
  Batch batch;
  for (int64_t epoch = 0; epoch < 20; ++epoch) {
    loader.start(epoch);
    if (epoch % 2) CHECK(loader.next(batch));
  }
  std::vector<Batch> after;
  for (const Batch& b : loader.epoch(7)) after.push_back(b);
  CHECK(same(after, collect(dataset, options, 7)));
  CHECK(!loader.next(batch));
}

TEST_CASE("loader: what a worker throws reaches the consumer at the right batch") {
  Dataset dataset = small(32);
  dataset.image = [image = dataset.image](int64_t i) {
    if (i == 13) throw format_error("picture 13", 7, "damaged");
    return image(i);
  };
  Loader loader(dataset, {}, {.batch = 4, .workers = 2});
  loader.start(0);
  Batch batch;
  for (int i = 0; i < 3; ++i) CHECK(loader.next(batch));
  CHECK(contains(refusal([&] { loader.next(batch); }), "picture 13 (byte 7): damaged"));
  CHECK(loader.next(batch));  // whoever wants to go on without it may
  CHECK(batch.index == 4);
}

TEST_CASE("loader: waiting is measured") {
  Dataset dataset = small(8);
  dataset.image = [image = dataset.image](int64_t i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return image(i);
  };
  Loader loader(dataset, {}, {.batch = 4});
  CHECK(loader.stalled_seconds() == 0);
  for (const Batch& batch : loader.epoch(0)) CHECK(batch.size() == 4);
  CHECK(loader.stalled_seconds() > 0);
}

TEST_CASE("loader: options that make no sense are refused") {
  const Dataset dataset = small(8);
  Batch batch;
  CHECK_THROWS_AS(Loader(dataset, {}, {.batch = 0}), argument_error);
  CHECK_THROWS_AS(Loader(dataset, {}, {.workers = 0}), argument_error);
  CHECK_THROWS_AS(Loader(dataset, {}, {.prefetch = 0}), argument_error);
  CHECK_THROWS_AS(Loader(dataset, {}, {.dtype = DType::u8}), argument_error);
  Loader loader(dataset, {}, {});
  CHECK_THROWS_AS(loader.next(batch), argument_error);
  CHECK_THROWS_AS(loader.start(-1), argument_error);
  CHECK_THROWS_AS(loader.start(0, 2), argument_error);
  Dataset mixed_sizes = dataset;
  mixed_sizes.image_shape = {0, 0, 3};
  CHECK_THROWS_WITH(Loader(mixed_sizes, {}, {}), doctest::Contains("different sizes"));
}
