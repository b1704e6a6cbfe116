#include "safetensors.h"

#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

#include "half.h"
#include "json.h"

namespace stairgrad::data {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors is little endian");

constexpr uint64_t max_header = 100'000'000;

/// A type of the format, and the array type that holds it.
struct Stored {
  const char* name;
  uint64_t bytes;
  DType dtype;
};

constexpr Stored stored_types[] = {
    {"F32", 4, DType::f32}, {"BF16", 2, DType::bf16}, {"F64", 8, DType::f64}, {"U8", 1, DType::u8},
    {"I8", 1, DType::s8},   {"I32", 4, DType::s32},   {"F16", 2, DType::f32}, {"I64", 8, DType::s32},
};

const char* stored_name(DType dtype) {
  return std::ranges::find(stored_types, dtype, &Stored::dtype)->name;  // the exact types come first
}

/// One entry of the header, checked by itself.
struct Entry {
  std::string name;
  Stored type;
  Shape shape;
  uint64_t begin, end;
};

class HeaderReader {
 public:
  HeaderReader(const std::string& path, ByteView header, uint64_t data_size)
      : path_(path),
        header_(reinterpret_cast<const char*>(header.data()), header.size()),
        data_size_(data_size) {}

  Entry entry(const std::string& name, const Json& json) const {
    if (!json.is_object()) fail(name, "its entry is not an object");
    for (const auto& [key, value] : json.items())
      if (key != "dtype" && key != "shape" && key != "data_offsets")
        fail(name, "unknown key \"" + key + "\", expected dtype, shape and data_offsets");
    Entry entry{name, type(name, json), {}, 0, 0};
    uint64_t elements = 1;
    for (const Json& extent : array(name, json, "shape")) {
      if (entry.shape.rank() == Shape::max_rank) fail(name, text("more than ", Shape::max_rank, " extents"));
      const uint64_t value = natural(name, "an extent", extent);
      if (__builtin_mul_overflow(elements, value, &elements))
        fail(name, "the product of its extents overflows");
      entry.shape.push_back(static_cast<int64_t>(value));
    }
    const Json& offsets = array(name, json, "data_offsets");
    if (offsets.size() != 2) fail(name, text("got ", offsets.size(), " data_offsets, expected 2"));
    entry.begin = natural(name, "an offset", offsets[0]);
    entry.end = natural(name, "an offset", offsets[1]);
    if (entry.begin > entry.end)
      fail(name, text("its offsets ", entry.begin, ", ", entry.end, " are reversed"));
    if (entry.end > data_size_)
      fail(name, text("it ends at ", entry.end, ", behind the data, which has ", data_size_, " bytes"));
    uint64_t needed;
    if (__builtin_mul_overflow(elements, entry.type.bytes, &needed))
      fail(name, "its size in bytes overflows");
    if (needed != entry.end - entry.begin)
      fail(name, text("shape ", entry.shape, " of ", entry.type.name, " needs ", needed,
                      " bytes, its offsets give ", entry.end - entry.begin));
    return entry;
  }

  [[noreturn]] void fail(const std::string& name, const std::string& reason) const {
    throw format_error(path_, sizeof(uint64_t) + find(name),
                       "tensor " + Json(name).dump(-1, ' ', true) + ": " + reason);
  }

 private:
  /// Where the header has this name before an object, or 0 if it spells the name with other escapes.
  uint64_t find(const std::string& name) const {
    const std::string key = Json(name).dump();
    for (size_t at = 0; (at = header_.find(key, at)) != std::string_view::npos; at += key.size()) {
      const size_t colon = header_.find_first_not_of(" \t\r\n", at + key.size());
      if (colon == std::string_view::npos || header_[colon] != ':') continue;
      const size_t value = header_.find_first_not_of(" \t\r\n", colon + 1);
      if (value != std::string_view::npos && header_[value] == '{') return at;
    }
    return 0;
  }

  Stored type(const std::string& name, const Json& json) const {
    const auto found = json.find("dtype");
    if (found == json.end() || !found->is_string()) fail(name, "it has no dtype");
    const auto& wanted = found->get_ref<const std::string&>();
    const auto* known =
        std::ranges::find(stored_types, wanted, [](const Stored& s) { return std::string(s.name); });
    if (known == std::end(stored_types))
      fail(name, "got the dtype \"" + wanted + "\", expected F32, BF16, F64, F16, U8, I8, I32 or I64");
    return *known;
  }
  const Json& array(const std::string& name, const Json& json, const char* key) const {
    const auto found = json.find(key);
    if (found == json.end() || !found->is_array()) fail(name, text("it has no list \"", key, '"'));
    return *found;
  }
  uint64_t natural(const std::string& name, const char* what, const Json& number) const {
    // Extents are signed in arrays, hence the bound; get<uint64_t> alone would take -1 and 0.5.
    constexpr auto limit = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    if (!number.is_number_unsigned() || number.get<uint64_t>() > limit)
      fail(name, text(what, " is ", number.dump(), ", expected a whole number from 0 on"));
    return number.get<uint64_t>();
  }

  std::string path_;
  std::string_view header_;
  uint64_t data_size_;
};

Array decode(const Entry& entry, ByteView bytes, const HeaderReader& header) {
  Array values(entry.shape, entry.type.dtype);
  const std::string type = entry.type.name;
  if (type == "F16") {
    float* to = values.data<float>();
    for (size_t i = 0; i < bytes.size(); i += 2)
      *to++ = half_to_float(static_cast<uint16_t>(bytes[i] | bytes[i + 1] << 8));
  } else if (type == "I64") {
    int32_t* to = values.data<int32_t>();
    for (size_t i = 0; i < bytes.size(); i += 8) {
      int64_t value;
      std::memcpy(&value, bytes.data() + i, sizeof value);
      if (value != static_cast<int32_t>(value))
        header.fail(entry.name, text("the I64 value ", value, " does not fit 32 bits"));
      *to++ = static_cast<int32_t>(value);
    }
  } else if (!bytes.empty()) {
    std::memcpy(values.raw(), bytes.data(), bytes.size());
  }
  return values;
}

constexpr const char* checksum_key = "stairgrad.checksum";

}  // namespace

SafeTensors load_safetensors(const std::string& path, Layout layout) {
  return parse_safetensors(read_file(path), path, layout);
}

SafeTensors parse_safetensors(ByteView bytes, const std::string& path, Layout layout) {
  Reader reader(path, bytes);
  if (bytes.size() < 8)
    reader.fail("a safetensors file has at least 8 bytes, got ", bytes.size(), hint(bytes));
  const uint64_t length = reader.u64_le("the length of the header");
  if (length == 0 || length > max_header || length > reader.left())
    throw format_error(path, 0,
                       text("got a header of ", length, " bytes, expected 1 to ",
                            std::min(max_header, reader.left()), hint(bytes)));
  const ByteView header_text = reader.take(length, "the header");
  if (header_text[0] != '{') throw format_error(path, 8, "the header does not begin with '{'" + hint(bytes));
  const Json json = parse_json(header_text, path, max_header, sizeof(uint64_t));
  const ByteView data = reader.take(reader.left(), "the data");

  SafeTensors content;
  const HeaderReader header(path, header_text, data.size());
  std::vector<Entry> entries;
  for (const auto& [name, value] : json.items()) {
    if (name != "__metadata__") {
      entries.push_back(header.entry(name, value));
      continue;
    }
    if (!value.is_object()) header.fail(name, "the metadata is not an object");
    for (const auto& [key, word] : value.items()) {
      if (!word.is_string()) header.fail(name, "the metadata of \"" + key + "\" is not a string");
      content.metadata[key] = word.get<std::string>();
    }
  }

  // The tensors must tile the data: each begins where the one before it ends.
  std::ranges::sort(entries, {}, [](const Entry& e) { return std::pair(e.begin, e.end); });
  uint64_t reached = 0;
  for (const Entry& entry : entries) {
    if (entry.begin < reached)
      header.fail(entry.name, text("it overlaps the tensor before it, at ", entry.begin));
    if (entry.begin > reached)
      header.fail(entry.name, text("there is a gap of ", entry.begin - reached, " bytes before it"));
    reached = entry.end;
  }
  if (reached != data.size())
    throw format_error(path, 8 + length + reached,
                       text(data.size() - reached, " bytes follow the last tensor, expected none"));

  const auto named = content.metadata.find("layout");
  const bool ohwi = named != content.metadata.end() && named->second == "ohwi";
  for (const Entry& entry : entries) {
    if (layout == Layout::ohwi && !ohwi && entry.shape.rank() == 4)
      header.fail(entry.name,
                  text("it has the shape ", entry.shape, ", but the metadata does not say layout: ohwi; ",
                       "load the file by an import recipe that names its layout"));
    content.tensors[entry.name] = decode(entry, data.subspan(entry.begin, entry.end - entry.begin), header);
  }
  return content;
}

Bytes encode_safetensors(const SafeTensors& content) {
  Json header = Json::object();
  Json& metadata = header["__metadata__"] = content.metadata;
  metadata.emplace("layout", "ohwi");

  // Wider types first, so that every tensor is aligned in the file.
  std::vector<const std::pair<const std::string, Array>*> order;
  for (const auto& item : content.tensors) order.push_back(&item);
  std::ranges::stable_sort(order, std::greater(),
                           [](const auto* item) { return size_of(item->second.dtype()); });
  uint64_t end = 0;
  for (const auto* item : order) {
    const auto& [name, values] = *item;
    check(name != "__metadata__", "[safetensors] the name __metadata__ is reserved; rename the tensor");
    const uint64_t begin = end;
    end += values.bytes();
    header[name] = {{"dtype", stored_name(values.dtype())},
                    {"shape", std::vector<int64_t>(values.shape().begin(), values.shape().end())},
                    {"data_offsets", {begin, end}}};
  }
  std::string json = header.dump();
  json.resize((json.size() + 7) / 8 * 8, ' ');

  Bytes bytes(8);
  const uint64_t length = json.size();
  std::memcpy(bytes.data(), &length, sizeof length);
  bytes.reserve(8 + length + end);
  bytes.insert(bytes.end(), json.begin(), json.end());
  for (const auto* item : order) {
    const auto* raw = static_cast<const uint8_t*>(item->second.raw());
    bytes.insert(bytes.end(), raw, raw + item->second.bytes());
  }
  return bytes;
}

void save_safetensors(const std::string& path, const SafeTensors& content) {
  atomic_write(path, encode_safetensors(content));
}

std::string checksum(const SafeTensors& content, const std::string& entry) {
  uLong crc = crc32_z(0, nullptr, 0);
  const auto add = [&crc](const std::string& words) {
    crc = crc32_z(crc, reinterpret_cast<const uint8_t*>(words.data()), words.size());
  };
  for (const auto& [name, values] : content.tensors) {
    add(text(name, ' ', name_of(values.dtype()), values.shape(), '\n'));
    crc = crc32_z(crc, static_cast<const uint8_t*>(values.raw()), values.bytes());
  }
  if (!entry.empty()) add(content.metadata.at(entry));
  char digits[9];
  std::snprintf(digits, sizeof digits, "%08lx", crc);
  return digits;
}

void seal(SafeTensors& content, const std::string& entry) {
  content.metadata[checksum_key] = checksum(content, entry);
}

bool is_sealed(const SafeTensors& content) { return content.metadata.contains(checksum_key); }

void check_seal(const SafeTensors& content, const std::string& path, const std::string& entry) {
  const auto noted = content.metadata.find(checksum_key);
  if (noted == content.metadata.end()) return;
  if (const std::string computed = checksum(content, entry); computed != noted->second)
    throw format_error(path, 0,
                       "its content has the checksum " + computed + ", expected " + noted->second +
                           "; the file is damaged: take another copy, or an earlier one");
}

void check_finite(const std::map<std::string, Array>& tensors, const std::string& path) {
  int64_t count = 0;
  std::string first;
  for (const auto& entry : tensors) {
    const Array& values = entry.second;
    if (!is_floating(values.dtype())) continue;
    dispatch_floating(values.dtype(), [&](auto zero) {
      const auto* from = values.data<decltype(zero)>();
      count += std::count_if(from, from + values.size(),
                             [](auto x) { return !std::isfinite(static_cast<double>(x)); });
    });
    if (count > 0 && first.empty()) first = entry.first;
  }
  if (count > 0)
    throw format_error(
        path, 0,
        text(count, count == 1 ? " of its values is" : " of its values are",
             " NaN or infinite, the first in ", first,
             "; the training that wrote it may have diverged: take an earlier file, or take it as it is "
             "(--accept-nan)"));
}

}  // namespace stairgrad::data
