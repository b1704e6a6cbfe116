#include "loader.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>

namespace stairgrad::data {
namespace {

void mix(Batch& batch, const LoaderOptions& options, int classes) {
  const int64_t n = batch.size();
  batch.soft_labels = Array::zeros({n, classes});
  for (int64_t i = 0; i < n; ++i)
    batch.soft_labels.data<float>()[i * classes + batch.labels.data<int32_t>()[i]] = 1;
  constexpr int64_t not_a_picture = int64_t{1} << 39;  // keeps these draws apart from those of the pictures
  Draws draws(options.seed, batch.epoch, not_a_picture + batch.index);
  const bool cut = options.mixup <= 0 || (options.cutmix > 0 && draws.below(2) == 1);
  const double lambda = draws.beta(cut ? options.cutmix : options.mixup);
  cut ? cutmix(batch.images, batch.soft_labels, lambda, draws)
      : mixup(batch.images, batch.soft_labels, lambda);
}

}  // namespace

struct Loader::State {
  /// A place for one batch: slot i serves the batches i, i + prefetch, i + 2 prefetch, ...
  struct Slot {
    Batch batch;
    std::exception_ptr error;
    bool ready = false;
  };

  const Dataset dataset;
  const Transform transform;
  const LoaderOptions options;
  const Shape element;

  mutable std::mutex mutex;
  std::condition_variable work, done;
  std::vector<Slot> slots;
  std::vector<int64_t> order;
  int64_t epoch = 0;
  int64_t claimed = 0;   // first batch that no worker has taken
  int64_t consumed = 0;  // first batch that next() has not returned
  int64_t batches = 0;
  uint64_t run = 0;  // counts start(): a worker drops a batch of an earlier run
  bool running = false, stopping = false;
  double stalled = 0;
  std::vector<std::thread> workers;

  State(Dataset d, Transform t, LoaderOptions o)
      : dataset(std::move(d)),
        transform(std::move(t)),
        options(o),
        element(transform.dst_shape(dataset.image_shape)) {
    check(options.batch >= 1, "[loader] got a batch of ", options.batch, ", expected at least 1");
    check(options.workers >= 1 && options.prefetch >= 1, "[loader] got ", options.workers,
          " workers and a prefetch of ", options.prefetch, ", expected at least 1 of each");
    check(options.dtype == DType::f32 || options.dtype == DType::bf16, "[loader] got ",
          name_of(options.dtype), ", expected f32 or bf16");
    batches = (dataset.size() + (options.drop_last ? 0 : options.batch - 1)) / options.batch;
    slots.resize(static_cast<size_t>(options.prefetch));
    order.resize(static_cast<size_t>(dataset.size()));
    for (int i = 0; i < options.workers; ++i) workers.emplace_back([this] { serve(); });
  }

  ~State() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    work.notify_all();
    for (std::thread& worker : workers) worker.join();
  }

  bool may_claim() const { return running && claimed < std::min(batches, consumed + options.prefetch); }
  Slot& slot_of(int64_t index) { return slots[static_cast<size_t>(index % options.prefetch)]; }

  void serve() {
    std::unique_lock lock(mutex);
    for (;;) {
      work.wait(lock, [&] { return stopping || may_claim(); });
      if (stopping) return;
      const int64_t index = claimed++;
      const uint64_t this_run = run;
      Slot made;
      made.batch.epoch = epoch;
      made.batch.index = index;
      const auto begin = order.begin() + index * options.batch;
      const auto end = order.begin() + std::min(dataset.size(), (index + 1) * options.batch);
      const std::vector<int64_t> items(begin, end);
      lock.unlock();
      try {
        fill(made.batch, items);
      } catch (...) {
        made.error = std::current_exception();
      }
      made.ready = true;
      lock.lock();
      if (this_run != run) continue;
      slot_of(index) = std::move(made);
      done.notify_one();
    }
  }

  void fill(Batch& batch, const std::vector<int64_t>& items) const {
    const auto n = static_cast<int64_t>(items.size());
    batch.images = Array({n, element[0], element[1], element[2]}, options.dtype);
    batch.labels = Array({n}, DType::s32);
    for (int64_t row = 0; row < n; ++row) {
      const int64_t item = items[static_cast<size_t>(row)];
      transform.apply(dataset.image(item), Draws(options.seed, batch.epoch, item), batch.images, row);
      batch.labels.data<int32_t>()[row] = dataset.labels[static_cast<size_t>(item)];
    }
    if (options.mixup > 0 || options.cutmix > 0) mix(batch, options, dataset.classes());
  }
};

Loader::Loader(Dataset dataset, Transform transform, LoaderOptions options)
    : state_(std::make_unique<State>(std::move(dataset), std::move(transform), options)) {}
Loader::~Loader() = default;

int64_t Loader::batches() const { return state_->batches; }
int64_t Loader::images() const {
  return std::min(state_->dataset.size(), state_->batches * state_->options.batch);
}
const Dataset& Loader::dataset() const { return state_->dataset; }

void Loader::start(int64_t epoch, int64_t first_batch) {
  State& s = *state_;
  check(epoch >= 0 && first_batch >= 0 && first_batch <= s.batches, "[loader] got epoch ", epoch, ", batch ",
        first_batch, ", expected an epoch from 0 on and a batch up to ", s.batches);
  std::vector<int64_t> order(s.order.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  if (s.options.shuffle)
    order = random_permutation(s.dataset.size(),
                               Philox(s.options.seed ^ stream_of("order"), static_cast<uint64_t>(epoch)));
  {
    const std::lock_guard lock(s.mutex);
    ++s.run;
    s.order = std::move(order);
    s.epoch = epoch;
    s.claimed = s.consumed = first_batch;
    s.running = true;
    for (State::Slot& slot : s.slots) slot = {};
  }
  s.work.notify_all();
}

bool Loader::next(Batch& batch) {
  State& s = *state_;
  batch = {};  // its memory may serve the next batch
  std::unique_lock lock(s.mutex);
  check(s.running, "[loader] got next() before start()");
  if (s.consumed == s.batches) return false;
  State::Slot& slot = s.slot_of(s.consumed);
  if (!slot.ready) {
    const auto from = std::chrono::steady_clock::now();
    s.done.wait(lock, [&] { return slot.ready; });
    s.stalled += std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count();
  }
  State::Slot taken = std::exchange(slot, {});
  ++s.consumed;
  lock.unlock();
  s.work.notify_one();
  if (taken.error) std::rethrow_exception(taken.error);
  batch = std::move(taken.batch);
  return true;
}

double Loader::stalled_seconds() const {
  const std::lock_guard lock(state_->mutex);
  return state_->stalled;
}

}  // namespace stairgrad::data
