// What the measurements share. Each is a function that parses its own options and prints what it found.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../../data/formats/file.h"
#include "../../kernels/threads.h"
#include "../../nn/model.h"
#include "../common/machine.h"
#include "../common/options.h"
#include "../common/progress.h"

namespace stairgrad::examples {

int bench_train(int argc, char** argv);
int bench_qat(int argc, char** argv);
int bench_infer(int argc, char** argv);
int bench_load(int argc, char** argv);

/// Which network is measured, how and for how long.
struct NetworkOptions {
  std::string model = "resnet20", dtype = "f32";
  int64_t batch = 128, size = 32, classes = 10;
  double width = 1, seconds = 10;
  int threads = stairgrad::threads();
  bool json = false;

  void add_to(Options& options, const std::vector<std::string>& dtypes = {"f32", "bf16"});
  /// The network with initial values; sets the number of threads.
  std::unique_ptr<nn::Model> make() const;
  /// A batch of random pictures for it.
  Array images(const nn::Model& network) const;
};

/// Seconds since the program began.
double since_start();

/// Decodes a JPEG or PNG file with stb_image alone, and forgets the picture.
void decode_by_stb(data::ByteView file);

/// Bytes of memory that the process had at most.
int64_t resident_peak();

struct Spread {
  double median = 0, min = 0, max = 0;
  Value value() const { return Value::Group{{"median", median}, {"min", min}, {"max", max}}; }
};
Spread spread_of(std::vector<double> x);
/// Images a second, given the seconds of batches of `images`.
Spread rate_of(int64_t images, const Spread& seconds);

/// Seconds of each call of `body`, for about so many seconds, at least five times.
std::vector<double> repeat(const std::function<void()>& body, double seconds);

/// The fields that every measurement's JSON has: setting, threads, memory, cpu, versions.
Value described(const Value& setting);

}  // namespace stairgrad::examples
