#include "machine.h"

#include <cblas.h>
#include <sched.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "../../kernels/error.h"
#include "../../kernels/threads.h"

#if STAIRGRAD_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#endif

namespace stairgrad::examples {

namespace {

/// The value of "key : value" in a file of /proc; empty when it is not there.
std::string proc_value(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos || line.compare(0, key.size(), key) != 0) continue;
    const size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return {};
}

double proc_memory(const std::string& key) {
  const std::string value = proc_value("/proc/meminfo", key);
  return value.empty() ? 0 : 1024.0 * std::stod(value);
}

std::vector<std::string> cpu_features() {
  std::istringstream flags(proc_value("/proc/cpuinfo", "flags"));
  std::vector<std::string> present;
  for (std::string flag; flags >> flag;) {
    for (const char* wanted : {"avx2", "fma", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16",
                               "amx_int8", "amx_bf16"}) {
      if (flag == wanted) present.push_back(flag);
    }
  }
  return present;
}

int usable_cores() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

std::string compiler_version() {
#if defined(__clang__)
  return text("clang ", __clang_major__, ".", __clang_minor__, ".", __clang_patchlevel__);
#else
  return text("g++ ", __GNUC__, ".", __GNUC_MINOR__, ".", __GNUC_PATCHLEVEL__);
#endif
}

std::string onednn_version() {
#if STAIRGRAD_ONEDNN
  const dnnl_version_t* version = dnnl_version();
  return text(version->major, ".", version->minor, ".", version->patch);
#else
  return "off";
#endif
}

/// "0.3.21" of "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ...".
std::string openblas_version() {
  std::istringstream words(openblas_get_config());
  std::string name, version;
  words >> name >> version;
  return version;
}

std::string openblas_threads() {
  switch (openblas_get_parallel()) {
    case 0:
      return "none";
    case 1:
      return "pthreads";
    default:
      return "OpenMP";
  }
}

}  // namespace

std::string this_program() { return std::filesystem::read_symlink("/proc/self/exe").string(); }

Machine this_machine() {
  Machine machine;
  machine.cpu = proc_value("/proc/cpuinfo", "model name");
  machine.features = cpu_features();
  machine.cores = usable_cores();
  machine.memory_bytes = proc_memory("MemTotal");
  machine.free_memory_bytes = proc_memory("MemAvailable");
  machine.stairgrad = STAIRGRAD_VERSION;
  machine.compiler = compiler_version();
  machine.onednn = onednn_version();
  machine.openblas = openblas_version();
  machine.openblas_threads = openblas_threads();
  return machine;
}

bool Machine::has(const std::string& feature) const {
  return std::find(features.begin(), features.end(), feature) != features.end();
}

Value Machine::versions() const {
  Value value = Value::Group{};
  value.set("stairgrad", stairgrad);
  value.set("compiler", compiler);
  value.set("onednn", onednn);
  value.set("openblas", openblas);
  return value;
}

Value Machine::cpu_value() const {
  Value value = Value::Group{};
  value.set("name", cpu);
  value.set("features", Value::list(features));
  value.set("cores", cores);
  value.set("threads", threads());
  value.set("openblas_threads", openblas_threads);
  return value;
}

}  // namespace stairgrad::examples
