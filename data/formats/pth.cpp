#include "pth.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "half.h"
#include "pickle.h"
#include "zip.h"

namespace stairgrad::data {
namespace {

using Kind = Pickle::Kind;
using Value = Pickle::Value;

struct StorageType {
  std::string_view name;
  uint64_t bytes;
  DType dtype;
};

constexpr StorageType storage_types[] = {
    {"torch.FloatStorage", 4, DType::f32}, {"torch.DoubleStorage", 8, DType::f64},
    {"torch.HalfStorage", 2, DType::f32},  {"torch.BFloat16Storage", 2, DType::bf16},
    {"torch.ByteStorage", 1, DType::u8},   {"torch.CharStorage", 1, DType::s8},
    {"torch.IntStorage", 4, DType::s32},   {"torch.LongStorage", 8, DType::s32},
};

constexpr std::string_view rebuild_tensor = "torch._utils._rebuild_tensor",
                           rebuild_tensor_v2 = "torch._utils._rebuild_tensor_v2";

std::vector<std::string_view> allowed_globals() {
  std::vector<std::string_view> names = {"collections.OrderedDict", rebuild_tensor, rebuild_tensor_v2};
  for (const StorageType& type : storage_types) names.push_back(type.name);
  return names;
}

/// What a tensor says about the memory it is a view of.
struct StorageId {
  std::string key;
  StorageType type;
  uint64_t elements;
  uint64_t position;  // where the file describes it
};

/// Reads ("storage", type, key, location, elements), in legacy files followed by a view, which must be None.
StorageId storage_id(const Value& persistent, const std::string& path) {
  const auto refuse = [&](const std::string& reason) {
    throw format_error(path, persistent.position, reason);
  };
  const Value& id = *persistent.items[0];
  const auto& items = id.items;
  const bool known =
      id.kind == Kind::tuple && (items.size() == 5 || (items.size() == 6 && items[5]->kind == Kind::none)) &&
      items[0]->kind == Kind::text && items[0]->text == "storage" && items[1]->kind == Kind::global &&
      items[2]->kind == Kind::text && items[4]->kind == Kind::integer && items[4]->integer >= 0;
  constexpr size_t max_key = 4096;  // keys are copied, also those that many storages share
  if (!known || items[2]->text.size() > max_key)
    refuse("a storage is described in an unknown way; save the state_dict with torch.save");
  const auto* type = std::ranges::find(storage_types, items[1]->text, &StorageType::name);
  if (type == std::end(storage_types))
    refuse("a storage is of type " + items[1]->text + ", which is not supported");
  return {items[2]->text, *type, static_cast<uint64_t>(items[4]->integer), persistent.position};
}

/// Turns the values of a pickle into named arrays.
class Importer {
 public:
  /// The bytes of a storage, as many as its elements take.
  using FindStorage = std::function<ByteView(const StorageId&)>;

  Importer(const std::string& path, uint64_t file_size, FindStorage find)
      : path_(path),
        budget_(8 * file_size),
        letters_(8 * file_size + spare_letters),
        find_(std::move(find)) {}

  SafeTensors run(const Value& root) {
    visit("", root, 0);
    return std::move(content_);
  }

 private:
  [[noreturn]] void fail(const std::string& name, const std::string& reason) const {
    throw format_error(path_, position_, (name.empty() ? "the pickle" : "\"" + name + "\"") + ": " + reason);
  }

  void visit(const std::string& name, const Value& value, int depth) {
    position_ = value.position;
    constexpr int max_depth = 64;
    constexpr size_t max_visits = 1'000'000, max_name = 4096;
    if (depth > max_depth) fail(name, text("the nesting is deeper than ", max_depth));
    if (name.size() > max_name)
      fail(name.substr(0, 64) + "...", text("a name of more than ", max_name, " letters"));
    if (++visits_ > max_visits) fail(name, text("more than ", max_visits, " values"));
    const auto child = [&](const std::string& key) { return name.empty() ? key : name + '.' + key; };
    switch (value.kind) {
      case Kind::dict:
        for (size_t i = 0; i < value.items.size(); i += 2)
          visit(child(key_of(name, *value.items[i])), *value.items[i + 1], depth + 1);
        break;
      case Kind::list:
      case Kind::tuple:
        for (size_t i = 0; i < value.items.size(); ++i)
          visit(child(std::to_string(i)), *value.items[i], depth + 1);
        break;
      case Kind::call:
        charge(name, name.size());
        if (!content_.tensors.emplace(name, tensor(name, value)).second) fail(name, "the name occurs twice");
        break;
      case Kind::boolean:
      case Kind::integer:
        describe(name, std::to_string(value.integer));
        break;
      case Kind::real:
        describe(name, text(value.real));
        break;
      case Kind::text:
        describe(name, value.text);
        break;
      case Kind::none:
        break;
      case Kind::global:
      case Kind::persistent:
        fail(name, "it is neither a tensor nor a number, text, list or dict; save the state_dict instead");
    }
  }

  void charge(const std::string& name, uint64_t letters) {
    if (letters > letters_) fail(name, "the names and texts are together far larger than the file");
    letters_ -= letters;
  }
  void describe(const std::string& name, const std::string& value) {
    charge(name, name.size() + value.size());
    content_.metadata[name] = value;
  }

  std::string key_of(const std::string& name, const Value& key) {
    position_ = key.position;
    if (key.kind == Kind::text) return key.text;
    if (key.kind != Kind::integer) fail(name, "a key is neither text nor a whole number");
    return std::to_string(key.integer);
  }

  uint64_t natural(const std::string& name, const Value& value, const char* what) const {
    if (value.kind != Kind::integer || value.integer < 0)
      fail(name, text(what, " is not a whole number from 0 on"));
    return static_cast<uint64_t>(value.integer);
  }
  std::vector<uint64_t> naturals(const std::string& name, const Value& value, const char* what) const {
    if (value.kind != Kind::tuple) fail(name, text(what, "s are not a tuple"));
    std::vector<uint64_t> numbers;
    for (const Value* item : value.items) numbers.push_back(natural(name, *item, what));
    return numbers;
  }

  /// _rebuild_tensor(storage, offset, sizes, strides), and with more arguments _rebuild_tensor_v2.
  Array tensor(const std::string& name, const Value& call) {
    const std::vector<const Value*>& arguments = call.items[0]->items;
    const bool known = (call.text == rebuild_tensor && arguments.size() == 4) ||
                       (call.text == rebuild_tensor_v2 && arguments.size() >= 6 && arguments.size() <= 7);
    if (!known || arguments[0]->kind != Kind::persistent) fail(name, "it is not a plain tensor");
    const StorageId storage = storage_id(*arguments[0], path_);
    const ByteView bytes = find_(storage);
    const uint64_t offset = natural(name, *arguments[1], "the offset");
    const std::vector<uint64_t> sizes = naturals(name, *arguments[2], "a size");
    const std::vector<uint64_t> strides = naturals(name, *arguments[3], "a stride");
    if (sizes.size() != strides.size() || sizes.size() > Shape::max_rank)
      fail(name, text("got ", sizes.size(), " sizes and ", strides.size(),
                      " strides, expected as many, at most ", Shape::max_rank));

    // The last element must lie in the storage, and a stride of 0 must not make a large array of a small
    // file.
    uint64_t elements = 1, last = offset;
    for (size_t i = 0; i < sizes.size(); ++i) {
      uint64_t reach;
      if (__builtin_mul_overflow(elements, sizes[i], &elements))
        fail(name, "the product of its sizes overflows");
      if (sizes[i] > 0 && (__builtin_mul_overflow(sizes[i] - 1, strides[i], &reach) ||
                           __builtin_add_overflow(last, reach, &last)))
        fail(name, "its sizes and strides overflow");
    }
    if (elements > 0 && last >= storage.elements)
      fail(name, text("it reaches element ", last, " of a storage of ", storage.elements));
    for (const uint64_t size : sizes)
      if (size > budget_) fail(name, "a size is far larger than the file");
    if (elements > budget_ / storage.type.bytes)
      fail(name, "the tensors are together far larger than the file");
    budget_ -= elements * storage.type.bytes;
    return gather(name, storage.type, elements ? bytes.subspan(offset * storage.type.bytes) : bytes, sizes,
                  strides);
  }

  /// Elements from the first byte on, in row-major order.
  Array gather(const std::string& name, const StorageType& type, ByteView bytes,
               const std::vector<uint64_t>& sizes, const std::vector<uint64_t>& strides) const {
    Array values(Shape(sizes.begin(), sizes.end()), type.dtype);
    std::vector<uint64_t> index(sizes.size());
    uint64_t at = 0;
    for (int64_t i = 0; i < values.size(); ++i) {
      store(name, type, bytes.data() + at * type.bytes, values, i);
      for (size_t axis = sizes.size(); axis-- > 0;) {
        at += strides[axis];
        if (++index[axis] < sizes[axis]) break;
        at -= strides[axis] * sizes[axis];
        index[axis] = 0;
      }
    }
    return values;
  }

  void store(const std::string& name, const StorageType& type, const uint8_t* from, Array& values,
             int64_t i) const {
    if (type.name == "torch.HalfStorage") {
      values.data<float>()[i] = half_to_float(static_cast<uint16_t>(from[0] | from[1] << 8));
    } else if (type.name == "torch.LongStorage") {
      int64_t value;
      std::memcpy(&value, from, sizeof value);
      if (value != static_cast<int32_t>(value))
        fail(name, text("the value ", value, " does not fit 32 bits"));
      values.data<int32_t>()[i] = static_cast<int32_t>(value);
    } else {
      std::memcpy(static_cast<uint8_t*>(values.raw()) + static_cast<uint64_t>(i) * type.bytes, from,
                  type.bytes);
    }
  }

  std::string path_;
  // A pickle may name one value many times over, so that little of it makes much.
  static constexpr uint64_t spare_letters = 1 << 20;
  uint64_t budget_;        // bytes that arrays may still take
  uint64_t letters_;       // bytes that names and texts may still take
  uint64_t position_ = 0;  // of the value that is visited
  FindStorage find_;
  SafeTensors content_;
  size_t visits_ = 0;
};

/// data.pkl, byteorder, version, and the storages as data/KEY, all in one folder of the archive.
SafeTensors parse_archive(ByteView bytes, const std::string& path) {
  const auto refuse = [&](const std::string& reason) -> void { throw format_error(path, 0, reason); };
  const std::map<std::string, ByteView> entries = read_zip(bytes, path);
  std::string folder;
  ByteView pickle;
  for (const auto& [name, content] : entries) {
    if (!name.ends_with("/data.pkl")) continue;
    if (!folder.empty()) refuse("the archive has several files data.pkl");
    folder = name.substr(0, name.size() - std::string_view("data.pkl").size());
    pickle = content;
  }
  if (folder.empty()) refuse("the zip archive has no data.pkl: it is not a file of torch.save");
  if (!entries.contains(folder + "version"))
    refuse("the archive has no version: it is not a file of torch.save");
  if (const auto order = entries.find(folder + "byteorder"); order != entries.end())
    if (const std::string word(order->second.begin(), order->second.end()); word != "little")
      refuse("got the byte order " + word + ", expected little; convert the file with PyTorch");

  const auto find = [&](const StorageId& id) {
    const auto found = entries.find(folder + "data/" + id.key);
    if (found == entries.end())
      throw format_error(path, id.position, "the archive has no storage data/" + id.key);
    uint64_t needed;
    if (__builtin_mul_overflow(id.elements, id.type.bytes, &needed) || needed != found->second.size())
      throw format_error(path, id.position,
                         text("storage data/", id.key, " has ", found->second.size(), " bytes, expected ",
                              id.elements, " elements of ", id.type.bytes, " bytes"));
    return found->second;
  };
  Reader reader(path, pickle, static_cast<uint64_t>(pickle.data() - bytes.data()));
  const Pickle values(reader, allowed_globals());
  if (reader.left() > 0) reader.fail("bytes follow the end of data.pkl");
  return Importer(path, bytes.size(), find).run(values.root());
}

/// The pickled magic number 0x1950a86a20f9469cfc6c with which legacy files begin.
constexpr uint8_t legacy_magic[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                    0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'};

bool is_legacy(ByteView bytes) {
  return bytes.size() >= sizeof legacy_magic &&
         std::equal(std::begin(legacy_magic), std::end(legacy_magic), bytes.begin());
}

void check_system(const Value& system, const Reader& reader) {
  if (system.kind == Kind::dict)
    for (size_t i = 0; i < system.items.size(); i += 2)
      if (system.items[i]->text == "little_endian" && system.items[i + 1]->integer == 1) return;
  reader.fail("the file does not say that it is little endian; convert it with PyTorch");
}

/// Pickles of the magic number, a protocol version, the system, the values and the keys of the storages, then
/// for each key its number of elements and their bytes.
SafeTensors parse_legacy(ByteView bytes, const std::string& path) {
  constexpr int64_t protocol_version = 1001;
  const std::vector<std::string_view> allowed = allowed_globals(), nothing;
  Reader reader(path, bytes);
  reader.seek(sizeof legacy_magic);
  const Pickle protocol(reader, nothing);
  if (protocol.root().kind != Kind::integer || protocol.root().integer != protocol_version)
    reader.fail("the protocol of the file is not ", protocol_version);
  check_system(Pickle(reader, nothing).root(), reader);
  const Pickle values(reader, allowed), keys(reader, nothing);
  if (keys.root().kind != Kind::list) reader.fail("the keys of the storages are not a list");

  std::map<std::string, StorageId> described;
  for (const Value& value : values.values())
    if (value.kind == Kind::persistent) {
      const StorageId id = storage_id(value, path);
      const auto [other, fresh] = described.emplace(id.key, id);
      if (!fresh && (other->second.type.name != id.type.name || other->second.elements != id.elements))
        reader.fail("storage ", id.key, " is described in two ways");
    }

  std::map<std::string, ByteView> storages;
  for (const Value* key : keys.root().items) {
    const auto id = described.find(key->text);
    if (id == described.end()) reader.fail("storage ", key->text, " belongs to no tensor");
    const auto& [name, type, elements, position] = id->second;
    if (const uint64_t stored = reader.u64_le("the number of elements"); stored != elements)
      reader.fail("storage ", name, " has ", stored, " elements, expected ", elements);
    if (elements > reader.left() / type.bytes) reader.fail("storage ", name, " is cut short");
    if (!storages.emplace(name, reader.take(elements * type.bytes, "a storage")).second)
      reader.fail("storage ", name, " occurs twice");
  }
  if (reader.left() > 0) reader.fail(reader.left(), " bytes follow the last storage");

  const auto find = [&](const StorageId& id) {
    const auto found = storages.find(id.key);
    if (found == storages.end()) reader.fail("storage ", id.key, " is missing");
    return found->second;
  };
  return Importer(path, bytes.size(), find).run(values.root());
}

}  // namespace

SafeTensors load_pth(const std::string& path) { return parse_pth(read_file(path), path); }

SafeTensors parse_pth(ByteView bytes, const std::string& path) {
  if (is_zip(bytes)) return parse_archive(bytes, path);
  if (is_legacy(bytes)) return parse_legacy(bytes, path);
  throw format_error(path, 0, "this is not a file of torch.save" + hint(bytes));
}

}  // namespace stairgrad::data
