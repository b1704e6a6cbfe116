// PyTorch files: both containers, and everything that must not be executed, believed or allocated.
#include "data/formats/pth.h"

#include <doctest/doctest.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>

#include "data/formats/pickle.h"
#include "data/formats/zip.h"
#include "support.h"

using namespace stairgrad;
using namespace stairgrad::data;

namespace {

Bytes little(uint64_t value, int count) {
  Bytes bytes;
  for (int i = 0; i < count; ++i)
    bytes.push_back(i < 8 ? static_cast<uint8_t>(value >> (8 * i)) : uint8_t{0});
  return bytes;
}

// --- pickles, written opcode by opcode ---

Bytes str(const std::string& letters) {
  return bytes_of("X") + little(letters.size(), 4) + bytes_of(letters);
}
Bytes number(int64_t value) { return bytes_of("J") + little(static_cast<uint64_t>(value), 4); }
Bytes name(const std::string& module, const std::string& what) {
  return bytes_of("c" + module + "\n" + what + "\n");
}
Bytes tuple(const std::vector<Bytes>& items) {
  Bytes bytes = bytes_of("(");
  for (const Bytes& item : items) bytes = std::move(bytes) + item;
  return bytes + bytes_of("t");
}
Bytes numbers(const std::vector<int64_t>& values) {
  std::vector<Bytes> items;
  for (const int64_t value : values) items.push_back(number(value));
  return tuple(items);
}
Bytes dict(const std::vector<std::pair<std::string, Bytes>>& members) {
  Bytes bytes = bytes_of("}(");
  for (const auto& [key, value] : members) bytes = std::move(bytes) + str(key) + value;
  return bytes + bytes_of("u");
}
Bytes pickle(const Bytes& value) { return bytes_of("\x80\x02") + value + bytes_of("."); }

struct Tensor {
  std::vector<int64_t> sizes, strides;
  int64_t offset = 0, stored = 6;
  std::string key = "0", type = "FloatStorage";
  bool legacy = false;
};

Bytes storage(const Tensor& t) {
  std::vector<Bytes> id = {str("storage"), name("torch", t.type), str(t.key), str("cpu"), number(t.stored)};
  if (t.legacy) id.push_back(bytes_of("N"));
  return tuple(id) + bytes_of("Q");
}
Bytes tensor(const Tensor& t) {
  std::vector<Bytes> arguments = {storage(t), number(t.offset), numbers(t.sizes), numbers(t.strides)};
  if (!t.legacy) {
    arguments.push_back(bytes_of("\x89"));
    arguments.push_back(name("collections", "OrderedDict") + bytes_of(")R"));
  }
  return name("torch._utils", t.legacy ? "_rebuild_tensor" : "_rebuild_tensor_v2") + tuple(arguments) +
         bytes_of("R");
}

Bytes six_floats() {
  const float values[] = {0, 1, 2, 3, 4, 5};
  Bytes bytes(sizeof values);
  std::memcpy(bytes.data(), values, sizeof values);
  return bytes;
}

// --- zip archives ---

struct ZipOptions {
  uint16_t flags = 0, method = 0;
  bool sizes_follow = true;  // as PyTorch's writer
  int64_t lie = 0;           // added to the size in the directory
};

Bytes zip(const std::vector<std::pair<std::string, Bytes>>& entries, const ZipOptions& o = {}) {
  Bytes archive, directory;
  for (const auto& [entry, content] : entries) {
    const uint64_t checksum = crc32(0, content.data(), static_cast<uInt>(content.size())),
                   header = archive.size();
    const auto flags = static_cast<uint16_t>(o.flags | (o.sizes_follow ? 8 : 0));
    const Bytes sizes = little(checksum, 4) + little(content.size(), 4) + little(content.size(), 4);
    const Bytes lengths = little(entry.size(), 2) + little(0, 2);
    archive = std::move(archive) + bytes_of("PK\x03\x04") + little(20, 2) + little(flags, 2) +
              little(o.method, 2) + little(0, 4) + (o.sizes_follow ? Bytes(12, 0) : sizes) + lengths +
              bytes_of(entry) + content;
    if (o.sizes_follow) archive = std::move(archive) + bytes_of("PK\x07\x08") + sizes;
    const uint64_t told = content.size() + static_cast<uint64_t>(o.lie);
    directory = std::move(directory) + bytes_of("PK\x01\x02") + little(20, 2) + little(20, 2) +
                little(flags, 2) + little(o.method, 2) + little(0, 4) + little(checksum, 4) +
                little(told, 4) + little(told, 4) + lengths + little(0, 10) + little(header, 4) +
                bytes_of(entry);
  }
  const Bytes end = bytes_of("PK\x05\x06") + little(0, 4) + little(entries.size(), 2) +
                    little(entries.size(), 2) + little(directory.size(), 4) + little(archive.size(), 4) +
                    little(0, 2);
  return archive + directory + end;
}

Bytes archive(const Bytes& value, const Bytes& data = six_floats(), const ZipOptions& options = {}) {
  return zip({{"m/data.pkl", pickle(value)},
              {"m/byteorder", bytes_of("little")},
              {"m/data/0", data},
              {"m/version", bytes_of("3\n")}},
             options);
}

// --- legacy files ---

const Bytes magic = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};

Bytes legacy(const Bytes& value, const Bytes& data = six_floats(), uint64_t told = 6,
             const std::string& endian = "\x88") {
  return magic + pickle(bytes_of("M") + little(1001, 2)) +
         pickle(dict({{"little_endian", bytes_of(endian)}})) + pickle(value) +
         pickle(bytes_of("](") + str("0") + bytes_of("e")) + little(told, 8) + data;
}

SafeTensors parsed(const Bytes& bytes) { return parse_pth(bytes, "f"); }
std::string pth_refusal(const Bytes& bytes) {
  return refusal([&] { parsed(bytes); });
}
std::string value_refusal(const Bytes& value) { return pth_refusal(archive(value)); }

const Tensor matrix{.sizes = {2, 3}, .strides = {3, 1}};

}  // namespace

TEST_CASE(".pth: an archive and a legacy file give names, values and metadata") {
  Tensor old = matrix;
  old.legacy = true;
  for (const Bytes& bytes :
       {archive(dict({{"net", dict({{"w", tensor(matrix)}})},
                      {"epoch", number(-7)},
                      {"by", str("me")},
                      {"no", bytes_of("N")}})),
        legacy(dict({{"net", dict({{"w", tensor(old)}})}, {"epoch", number(-7)}, {"by", str("me")}}))}) {
    const SafeTensors content = parsed(bytes);
    REQUIRE(content.tensors.size() == 1);
    CHECK(content.tensors.at("net.w").shape() == Shape{2, 3});
    CHECK(content.tensors.at("net.w").to_vector() == std::vector<double>{0, 1, 2, 3, 4, 5});
    CHECK(content.metadata.at("epoch") == "-7");
    CHECK(content.metadata.at("by") == "me");
    CHECK(content.metadata.size() == 2);
  }
}

TEST_CASE(".pth: strides, offsets, scalars, empty tensors, views of one storage") {
  const SafeTensors content =
      parsed(archive(dict({{"t", tensor({.sizes = {3, 2}, .strides = {1, 3}})},
                           {"tail", tensor({.sizes = {2}, .strides = {2}, .offset = 1})},
                           {"s", tensor({.sizes = {}, .strides = {}, .offset = 5})},
                           {"e", tensor({.sizes = {0, 3}, .strides = {3, 1}})},
                           {"r", tensor({.sizes = {3}, .strides = {0}, .offset = 2})}})));
  CHECK(content.tensors.at("t").to_vector() == std::vector<double>{0, 3, 1, 4, 2, 5});
  CHECK(content.tensors.at("tail").to_vector() == std::vector<double>{1, 3});
  CHECK(content.tensors.at("s").item() == 5);
  CHECK(content.tensors.at("s").rank() == 0);
  CHECK(content.tensors.at("e").shape() == Shape{0, 3});
  CHECK(content.tensors.at("r").to_vector() == std::vector<double>{2, 2, 2});
}

TEST_CASE(".pth: types of storages") {
  const auto read = [](const std::string& type, int64_t count, const Bytes& data) {
    return parsed(archive(tensor({.sizes = {count}, .strides = {1}, .stored = count, .type = type}), data))
        .tensors.at("");
  };
  CHECK(read("HalfStorage", 1, {0x00, 0xc0}).item() == -2);
  CHECK(read("BFloat16Storage", 1, {0xc0, 0x3f}).dtype() == DType::bf16);
  CHECK(read("LongStorage", 1, little(~uint64_t{0}, 8)).item() == -1);
  CHECK(read("IntStorage", 1, little(5, 4)).dtype() == DType::s32);
  CHECK(read("CharStorage", 2, {0xff, 1}).to_vector() == std::vector<double>{-1, 1});
  CHECK(read("ByteStorage", 1, {0xff}).item() == 255);
  CHECK(read("DoubleStorage", 1, {0, 0, 0, 0, 0, 0, 0xf0, 0x3f}).item() == 1);
  CHECK(contains(refusal([&] { read("LongStorage", 1, little(uint64_t{1} << 31, 8)); }),
                 "does not fit 32 bits"));
  CHECK(contains(refusal([&] { read("BoolStorage", 1, {1}); }), "torch.BoolStorage, which is not allowed"));
}

TEST_CASE(".pth: nothing is executed") {
  const Bytes call = tuple({str("touch /tmp/executed")}) + bytes_of("R");
  for (const auto& [module, function] : {std::pair{"os", "system"},
                                         {"builtins", "eval"},
                                         {"posix", "system"},
                                         {"torch", "load"},
                                         {"torch._utils", "_rebuild_parameter"},
                                         {"collections", "OrderedDict.__init__"}})
    CHECK(contains(value_refusal(name(module, function) + call), "is not allowed; it was not executed"));
  CHECK(contains(value_refusal(name("collections", "OrderedDict") + call), "not a plain tensor"));
  CHECK(contains(value_refusal(name("torch", "FloatStorage") + call), "not a plain tensor"));
  CHECK(contains(value_refusal(str("os.system") + call), "not a named function"));
  CHECK(contains(value_refusal(name("torch", "FloatStorage")), "save the state_dict instead"));
  CHECK(contains(value_refusal(storage(matrix)), "save the state_dict instead"));
  for (const char* opcode :
       {"i", "o", "\x81", "\x92", "\x93", "\x82", "\x95", "P", "I", "L", "S", "\x94", "0", "2"})
    CHECK(contains(value_refusal(bytes_of("N") + bytes_of(opcode)), "which is not allowed"));
}

TEST_CASE(".pth: pickles that break the stack machine") {
  CHECK(contains(value_refusal({}), "ends with 0 values"));
  CHECK(contains(value_refusal(bytes_of("NN")), "ends with 2 values"));
  CHECK(contains(value_refusal(bytes_of("(N")), "ends with"));
  CHECK(contains(value_refusal(bytes_of("t")), "no mark"));
  CHECK(contains(value_refusal(bytes_of("\x85")), "empty stack"));
  CHECK(contains(value_refusal(bytes_of("N(a")), "empty stack"));  // a value below the mark is out of reach
  CHECK(contains(value_refusal(bytes_of("NNa")), "not a list or dict"));
  CHECK(contains(value_refusal(bytes_of("}(Nu")), "key without a value"));
  CHECK(contains(value_refusal(bytes_of("}(NNu")), "neither text nor a whole number"));
  CHECK(contains(value_refusal(bytes_of("h\x05")), "never remembered"));
  CHECK(contains(value_refusal(bytes_of("Nr") + little(0xffffffff, 4)), "remembered values"));
  CHECK(contains(value_refusal(bytes_of("NNb")), "sets attributes"));
  CHECK(contains(value_refusal(bytes_of("X") + little(0xffffffff, 4)), "cut short"));
  CHECK(contains(value_refusal(bytes_of("\x8a\x09") + Bytes(9, 0)), "integer of 9 bytes"));
  CHECK(contains(value_refusal(bytes_of("c" + std::string(300, 'a'))), "more than 256 letters"));
  CHECK(contains(value_refusal(bytes_of("\x80\x05N")), "protocol 5"));
  CHECK(parsed(archive(bytes_of("\x8a\x02\xff\xff"))).metadata.at("") == "-1");
  CHECK(parsed(archive(bytes_of("\x8a") + Bytes{0})).metadata.at("") == "0");
}

TEST_CASE(".pth: bombs and cycles end") {
  // A list that contains itself.
  CHECK(contains(value_refusal(bytes_of("]q") + Bytes{0} + bytes_of("h") + Bytes{0} + bytes_of("a")),
                 "deeper than 64"));
  // Ten references to the list before, thirty times over.
  Bytes bomb = bytes_of("N");
  for (uint8_t level = 0; level < 30; ++level) {
    bomb = std::move(bomb) + bytes_of("q") + Bytes{level} + bytes_of("](");
    for (int i = 0; i < 10; ++i) bomb = std::move(bomb) + bytes_of("h") + Bytes{level};
    bomb = std::move(bomb) + bytes_of("e");
  }
  CHECK(!value_refusal(bomb).empty());
  Bytes deep = bytes_of("N");
  for (int i = 0; i < 200000; ++i) deep.push_back(0x85);
  CHECK(contains(value_refusal(deep), "deeper than 64"));
  CHECK(contains(value_refusal(Bytes(3'000'000, 'N')), "more than 2000000 values"));
  CHECK(contains(value_refusal(dict({{std::string(5000, 'k'), bytes_of("N")}})), "more than 4096 letters"));
}

TEST_CASE(".pth: errors give the place in the file") {
  const auto place = [](const Bytes& bytes) {
    try {
      parsed(bytes);
    } catch (const format_error& error) {
      return error.offset;
    }
    return uint64_t{0};
  };
  // The header of an entry has 30 bytes and the name.
  const uint64_t start = 30 + std::string("m/data.pkl").size();
  CHECK(place(archive(bytes_of("NN"))) == start + 5);  // at the end of the pickle
  CHECK(place(archive(dict({{"a", bytes_of("N")}, {"b", name("torch", "FloatStorage")}}))) == start + 37);
  Tensor other = matrix;
  other.key = "1";
  const Bytes value = tensor(other), whole = archive(value);
  const auto call = static_cast<uint64_t>(std::ranges::search(whole, bytes_of("Q")).begin() - whole.begin());
  CHECK(place(whole) == call + 1);
}

TEST_CASE(".pth: what is stored once and named often is not copied each time") {
  // 5,000 names of one text of 100 kB, of one empty tensor with long names, of one storage with a long key.
  const Bytes zero = {0}, recall = bytes_of("h") + zero;
  const auto often = [&](const Bytes& value, int count) {
    Bytes list = bytes_of("](") + value + bytes_of("q") + zero;
    for (int i = 0; i < count; ++i) list.insert(list.end(), recall.begin(), recall.end());
    return list + bytes_of("e");
  };
  CHECK(contains(value_refusal(often(str(std::string(100'000, 'a')), 5000)), "far larger than the file"));
  const Bytes empty = tensor({.sizes = {0}, .strides = {1}});
  CHECK(contains(value_refusal(dict({{std::string(4000, 'k'), often(empty, 5000)}})),
                 "far larger than the file"));
  CHECK(contains(value_refusal(tensor({.sizes = {1}, .strides = {1}, .key = std::string(5000, '0')})),
                 "unknown way"));
  const SafeTensors content = parsed(archive(often(str("short"), 5000)));
  CHECK(content.metadata.size() == 5001);

  // Calls share their tuple of arguments: 2,000 calls with 100,000 arguments each are 1.6 GB if copied.
  Bytes calls = bytes_of("(") + name("torch._utils", "_rebuild_tensor") + bytes_of("q") + zero +
                bytes_of("(") + Bytes(100'000, 'N') + bytes_of("tq\1");
  for (int i = 0; i < 2000; ++i) calls = std::move(calls) + recall + bytes_of("h\1R");
  calls = pickle(std::move(calls) + bytes_of("t"));
  Reader reader("f", calls);
  const Pickle values(reader, {"torch._utils._rebuild_tensor"});
  size_t held = 0;
  for (const Pickle::Value& value : values.values()) held += value.items.size();
  CHECK(held < 110'000);
}

TEST_CASE(".pth: tensors that lie about their memory") {
  const auto refused = [](Tensor t) { return value_refusal(tensor(t)); };
  CHECK(contains(refused({.sizes = {7}, .strides = {1}}), "reaches element 6 of a storage of 6"));
  CHECK(contains(refused({.sizes = {2, 3}, .strides = {4, 1}}), "reaches element 6"));
  CHECK(contains(refused({.sizes = {1}, .strides = {1}, .offset = 6}), "reaches element 6"));
  CHECK(contains(refused({.sizes = {2}, .strides = {-1}, .offset = 1}), "a stride is not a whole number"));
  CHECK(contains(refused({.sizes = {-1}, .strides = {1}}), "a size is not"));
  CHECK(contains(refused({.sizes = {1}, .strides = {1}, .offset = -1}), "the offset is not"));
  CHECK(contains(refused({.sizes = {1, 1}, .strides = {1}}), "got 2 sizes and 1 strides"));
  CHECK(contains(refused({.sizes = std::vector<int64_t>(7, 1), .strides = std::vector<int64_t>(7, 1)}),
                 "got 7 sizes"));
  CHECK(contains(refused({.sizes = {2147483647}, .strides = {0}}), "far larger than the file"));
  CHECK(contains(refused({.sizes = {0, 2147483647}, .strides = {1, 1}}), "far larger than the file"));
  CHECK(
      contains(refused({.sizes = {2147483647, 2147483647, 2147483647}, .strides = {0, 0, 0}}), "overflows"));
  CHECK(contains(refused({.sizes = {1}, .strides = {1}, .stored = 7}), "has 24 bytes, expected 7 elements"));
  CHECK(contains(refused({.sizes = {1}, .strides = {1}, .stored = -1}), "unknown way"));
  CHECK(contains(refused({.sizes = {1}, .strides = {1}, .key = "1"}), "no storage data/1"));
  CHECK(contains(refused({.sizes = {1}, .strides = {1}, .key = "../version"}), "no storage"));
  CHECK(contains(refused({.sizes = {1}, .strides = {1}, .type = "DoubleStorage"}),
                 "expected 6 elements of 8 bytes"));
  CHECK(
      contains(value_refusal(dict({{"a", tensor(matrix)}, {"a", tensor(matrix)}})), "the name occurs twice"));
}

TEST_CASE("zip: entries that are compressed, encrypted, twice there, damaged, or described in two ways") {
  const Bytes value = tensor(matrix), data = six_floats();
  CHECK(pth_refusal(archive(value, data, {.sizes_follow = false})).empty());
  CHECK(contains(pth_refusal(archive(value, data, {.method = 8})), "compressed"));
  CHECK(contains(pth_refusal(archive(value, data, {.flags = 1})), "encrypted"));
  CHECK(!pth_refusal(archive(value, data, {.lie = 1})).empty());
  CHECK(contains(pth_refusal(archive(value, data, {.sizes_follow = false, .lie = -1})),
                 "contradicts the directory"));
  CHECK(contains(pth_refusal(archive(value, data, {.lie = 1 << 30})), "cut short"));
  const Bytes p = pickle(value), v = bytes_of("3");
  CHECK(contains(pth_refusal(zip({{"m/data.pkl", p}, {"m/data/0", data}})), "has no version"));
  CHECK(contains(pth_refusal(zip({{"m/data/0", data}, {"m/version", v}})), "no data.pkl"));
  CHECK(contains(pth_refusal(zip({{"a/data.pkl", p}, {"b/data.pkl", p}})), "several files data.pkl"));
  CHECK(contains(pth_refusal(zip({{"m/data.pkl", p}, {"m/version", v}, {"m/version", v}})), "occurs twice"));
  CHECK(contains(
      pth_refusal(
          zip({{"m/data.pkl", p}, {"m/data/0", data}, {"m/version", v}, {"m/byteorder", bytes_of("big")}})),
      "byte order big"));
  CHECK(contains(pth_refusal(zip({{"m/data.pkl", p + bytes_of("N")}, {"m/data/0", data}, {"m/version", v}})),
                 "bytes follow the end"));
  CHECK(read_zip(zip({}), "f").empty());
  CHECK(contains(pth_refusal(bytes_of("PK\x03\x04")), "no end record"));
  CHECK(contains(pth_refusal(bytes_of("version https://git-lfs")), "git lfs pull"));
  CHECK(contains(pth_refusal({}), "empty"));
}

TEST_CASE("zip: a flipped bit anywhere gives an error or the same values") {
  const Bytes whole = archive(tensor(matrix));
  const std::vector<double> values = parsed(whole).tensors.at("").to_vector();
  for (size_t i = 0; i < 8 * whole.size(); ++i) {
    Bytes damaged = whole;
    damaged[i / 8] ^= static_cast<uint8_t>(1 << i % 8);
    std::vector<double> read;
    const std::string message = refusal([&] { read = parsed(damaged).tensors.at("").to_vector(); });
    CHECK((!message.empty() || read == values));
  }
}

TEST_CASE(".pth legacy: headers and storages that do not fit") {
  Tensor old = matrix;
  old.legacy = true;
  const Bytes value = tensor(old);
  CHECK(pth_refusal(legacy(value)).empty());
  CHECK(contains(pth_refusal(legacy(value, six_floats(), 5)), "has 5 elements, expected 6"));
  CHECK(contains(pth_refusal(legacy(value, Bytes(23, 0))), "cut short"));
  CHECK(contains(pth_refusal(legacy(value, Bytes(25, 0))), "1 bytes follow"));
  CHECK(contains(pth_refusal(legacy(value, six_floats(), 6, "\x89")), "little endian"));
  CHECK(contains(pth_refusal(legacy(bytes_of("N"))), "belongs to no tensor"));
  old.key = "1";
  CHECK(contains(pth_refusal(legacy(tensor(old))), "belongs to no tensor"));
  CHECK(contains(pth_refusal(magic + pickle(number(1000))), "protocol of the file"));
  CHECK(contains(pth_refusal(magic + pickle(name("os", "system"))), "not executed"));
}

TEST_CASE(".pth: truncation at every byte is refused") {
  Tensor old = matrix;
  old.legacy = true;
  const auto parse = [](const Bytes& part) { parse_pth(part, "f"); };
  CHECK(first_accepted_truncation(archive(dict({{"w", tensor(matrix)}})), parse) == -1);
  CHECK(first_accepted_truncation(legacy(dict({{"w", tensor(old)}})), parse) == -1);
}
