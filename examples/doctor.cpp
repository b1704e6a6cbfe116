// doctor: is this machine fit for stairgrad, and what to do when something is off.
#include <iostream>

#include "../kernels/integer_conv.h"
#include "../kernels/threads.h"
#include "common/machine.h"
#include "common/options.h"
#include "common/table.h"

using namespace stairgrad;
using namespace stairgrad::examples;

namespace {

struct Finding {
  bool good;
  std::string what, advice;
};

std::string join(const std::vector<std::string>& words) {
  std::string joined;
  for (const std::string& word : words) joined += (joined.empty() ? "" : " ") + word;
  return joined.empty() ? "none" : joined;
}

std::vector<Finding> examine(const Machine& machine) {
  return {
      {machine.has("avx2") && machine.has("fma"), "AVX2 and FMA",
       "without them everything runs in plain loops, many times slower"},
      {machine.onednn != "off", "oneDNN",
       "convolutions run in plain, slow loops: install libdnnl-dev, then build anew"},
      {kernels::integer_self_check(), "int8 products that do not saturate (VNNI)",
       "integer layers with weights beyond +-64 run as two sums: the same results, in up to twice the time"},
      {machine.openblas_threads == "OpenMP", "OpenBLAS in the thread pool of oneDNN",
       "two pools compete for the cores: install libopenblas-openmp-dev, then build anew"},
      {threads() <= machine.cores, "no more threads than cores",
       text("OMP_NUM_THREADS asks for ", threads(), " on ", machine.cores, " cores: unset it or lower it")},
      {machine.free_memory_bytes >= 2e9, "2 GB of free memory",
       "close other programs or use a smaller --batch"},
  };
}

/// An integer convolution at the largest weights, against plain loops.
bool integer_convolution_is_exact() {
  kernels::IntegerConvSpec spec;
  spec.src = {1, 8, 8, 64};
  spec.conv = Conv2dOptions::with(1, 1);
  spec.src_zero_point = 128;
  spec.weights = Array::full({32, 3, 3, 64}, -127, DType::s8);
  spec.b = Array::full({32}, 64.0 * 9 * 127 * 250);
  spec.m = Array::full({32}, 1e-4);
  const Array src = Array::full(spec.src, 251, DType::u8);
  Array fast({1, 8, 8, 32}, DType::u8), plain({1, 8, 8, 32}, DType::u8);
  kernels::IntegerConv(spec).run(src, fast);
  kernels::integer_conv_reference(spec, src, plain);
  return fast.to_vector() == plain.to_vector();
}

}  // namespace

int main(int argc, char** argv) {
  return run_program([&] {
    Options options("doctor", "Looks at this machine and says what is off.");
    options.parse(argc, argv);

    const Machine machine = this_machine();
    Table facts({"this machine", ""});
    facts.row({"CPU", machine.cpu})
        .row({"features", join(machine.features)})
        .row({"cores / threads", text(machine.cores, " / ", threads())})
        .row({"memory, free", bytes(machine.memory_bytes) + ", " + bytes(machine.free_memory_bytes)})
        .row({"compiler", machine.compiler})
        .row({"oneDNN", machine.onednn})
        .row({"OpenBLAS", machine.openblas + " (" + machine.openblas_threads + ")"})
        .row({"stairgrad", machine.stairgrad});
    std::cout << facts.text() << "\n";

    for (const auto& [good, what, advice] : examine(machine)) {
      std::cout << (good ? "  ok    " : "  note  ") << what << (good ? "" : ": no. " + advice) << "\n";
    }
    const bool exact = integer_convolution_is_exact();
    std::cout << (exact ? "  ok    " : "  BAD   ") << "integer convolutions equal plain loops\n";
    check(exact, "integer convolutions are wrong on this CPU with oneDNN ", machine.onednn,
          ": integer models cannot be trusted here; ONEDNN_MAX_CPU_ISA=AVX2 may avoid it");
    return 0;
  });
}
