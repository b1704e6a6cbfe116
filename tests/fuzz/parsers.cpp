#include "parsers.h"

#include "data/formats/cifar.h"
#include "data/formats/gzip.h"
#include "data/formats/idx.h"
#include "data/formats/image.h"
#include "data/formats/json.h"
#include "data/formats/labels.h"
#include "data/formats/pth.h"

namespace stairgrad::data {

const std::vector<Parser>& parsers() {
  constexpr uint64_t small = 1 << 20;  // a fuzzer should spend its time on parsing
  static const std::vector<Parser> table = {
      {"gzip", [](const Bytes& bytes) { gunzip(bytes, "gzip", small); }},
      {"idx", [](const Bytes& bytes) { parse_idx(bytes, "idx"); }},
      {"cifar10", [](const Bytes& bytes) { parse_cifar(bytes, "cifar10", 10); }},
      {"cifar100", [](const Bytes& bytes) { parse_cifar(bytes, "cifar100", 100); }},
      {"image", [](const Bytes& bytes) { decode_image(bytes, "image", {.pixels = small}); }},
      {"json", [](const Bytes& bytes) { parse_json(bytes, "json"); }, true},
      {"safetensors", [](const Bytes& bytes) { parse_safetensors(bytes, "safetensors", Layout::any); }},
      {"pth", [](const Bytes& bytes) { parse_pth(bytes, "pth"); }},
      {"labels", [](const Bytes& bytes) { parse_labels(bytes, "labels"); }, true},
      {"class_names", [](const Bytes& bytes) { parse_class_names(bytes, "class_names"); }, true},
  };
  return table;
}

}  // namespace stairgrad::data
