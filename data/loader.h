// Batches, prepared ahead of time by worker threads.
#pragma once

#include <memory>

#include "dataset.h"
#include "transforms.h"

namespace stairgrad::data {

struct Batch {
  int64_t epoch = 0, index = 0;
  Array images;       ///< f32 or bf16 (n, h, w, c)
  Array labels;       ///< s32 (n)
  Array soft_labels;  ///< f32 (n, classes) when the loader mixes pictures, else without value

  int64_t size() const { return labels.size(); }
};

struct LoaderOptions {
  int64_t batch = 128;
  bool shuffle = false;
  bool drop_last = false;  ///< leave out a last batch that is not full
  int workers = 1;
  int prefetch = 4;  ///< bound on the batches that are ready or in the making
  uint64_t seed = 0;
  DType dtype = DType::f32;
  double mixup = 0,
         cutmix = 0;  ///< alpha of the Beta distribution; 0 is off; with both on, each batch draws one
};

/// Batches depend on (seed, epoch, index) alone: not on the number of workers, nor on where an epoch was
/// resumed.
class Loader {
 public:
  Loader(Dataset dataset, Transform transform, LoaderOptions options);
  /// Stops the workers, also in the middle of an epoch.
  ~Loader();

  /// Batches in an epoch.
  int64_t batches() const;
  /// Pictures in an epoch.
  int64_t images() const;
  const Dataset& dataset() const;

  /// Begins an epoch at a batch; whatever is left of another epoch is dropped.
  void start(int64_t epoch, int64_t first_batch = 0);
  /// Moves on to the next batch; false at the end of the epoch. Rethrows what a worker threw for this batch.
  bool next(Batch& batch);

  /// Seconds that next() waited: near the length of the epoch when the loader, not the network, is the
  /// bottleneck.
  double stalled_seconds() const;

  class Iterator;
  class Epoch;
  /// for (const Batch& batch : loader.epoch(e)) ...
  Epoch epoch(int64_t epoch, int64_t first_batch = 0);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Passes over an epoch once.
class Loader::Iterator {
 public:
  explicit Iterator(Loader* loader) : loader_(loader) { ++*this; }
  const Batch& operator*() const { return batch_; }
  Iterator& operator++() {
    more_ = loader_->next(batch_);
    return *this;
  }
  bool operator!=(std::nullptr_t) const { return more_; }

 private:
  Loader* loader_;
  Batch batch_;
  bool more_ = false;
};

class Loader::Epoch {
 public:
  explicit Epoch(Loader* loader) : loader_(loader) {}
  Iterator begin() const { return Iterator(loader_); }
  std::nullptr_t end() const { return nullptr; }

 private:
  Loader* loader_;
};

inline Loader::Epoch Loader::epoch(int64_t epoch, int64_t first_batch) {
  start(epoch, first_batch);
  return Epoch(this);
}

}  // namespace stairgrad::data
