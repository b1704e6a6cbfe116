// The machine and the libraries that a program runs on.
#pragma once

#include <string>
#include <vector>

#include "value.h"

namespace stairgrad::examples {

struct Machine {
  std::string cpu;                    ///< "AMD EPYC 9B14"
  std::vector<std::string> features;  ///< of those that matter here: avx2, avx512_vnni, amx_int8 ...
  int cores;                          ///< that this process may use
  double memory_bytes, free_memory_bytes;
  std::string stairgrad, compiler, onednn, openblas;  ///< versions
  std::string openblas_threads;                       ///< OpenMP, pthreads or none

  bool has(const std::string& feature) const;
  /// As result.json has them.
  Value versions() const;
  Value cpu_value() const;
};

Machine this_machine();
/// Path of the running program.
std::string this_program();

}  // namespace stairgrad::examples
