#include "cifar.h"

namespace stairgrad::data {

namespace {
constexpr int64_t side = 32, plane = side * side, channels = 3;
constexpr int fine_classes = 100, coarse_classes = 20;
}  // namespace

CifarRecords read_cifar(const std::string& path, int classes) {
  return parse_cifar(read_file(path), path, classes);
}

CifarRecords parse_cifar(ByteView bytes, const std::string& path, int classes) {
  check(classes == 10 || classes == fine_classes, "[cifar] got ", classes, " classes, expected 10 or 100");
  const bool coarse = classes == fine_classes;
  const size_t label_bytes = coarse ? 2 : 1, record_bytes = label_bytes + channels * plane;
  if (bytes.empty() || bytes.size() % record_bytes != 0)
    throw format_error(
        path, bytes.size() / record_bytes * record_bytes,
        text("got ", bytes.size(), " bytes, expected a multiple of ", record_bytes, ", the size of a CIFAR-",
             classes, " record",
             bytes.empty() || !hint(bytes).empty() ? hint(bytes) : "; fetch the binary version again"));
  const auto n = static_cast<int64_t>(bytes.size() / record_bytes);
  CifarRecords records{Array({n, side, side, channels}, DType::u8), {}, {}};
  records.labels.reserve(static_cast<size_t>(n));

  const auto label = [&](size_t offset, int limit, const char* kind) {
    if (bytes[offset] >= limit)
      throw format_error(path, offset,
                         text("record ", offset / record_bytes, " has the ", kind, ' ', int{bytes[offset]},
                              ", expected less than ", limit, "; is this the binary version of CIFAR-",
                              classes, "?", hint(bytes)));
    return int32_t{bytes[offset]};
  };
  uint8_t* pixel = records.images.data<uint8_t>();
  for (size_t record = 0; record < bytes.size(); record += record_bytes) {
    if (coarse) records.coarse_labels.push_back(label(record, coarse_classes, "coarse label"));
    records.labels.push_back(label(record + label_bytes - 1, classes, coarse ? "fine label" : "label"));
    const uint8_t* planes = bytes.data() + record + label_bytes;
    for (int64_t i = 0; i < plane; ++i, pixel += channels)
      for (int64_t c = 0; c < channels; ++c) pixel[c] = planes[c * plane + i];
  }
  return records;
}

}  // namespace stairgrad::data
