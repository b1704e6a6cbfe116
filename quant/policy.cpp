#include "policy.h"

#include <algorithm>
#include <numeric>

#include "../data/formats/json.h"
#include "quantizer.h"

namespace stairgrad::quant {
namespace {

using data::Json;

constexpr int version = 1;

void check_bits(int bits, const std::string& what) {
  check((bits >= 1 && bits <= 8) || bits == 32, "[policy] ", what, ": got ", bits,
        " bits, expected 1 .. 8, or 32 for floats");
}

// Levenshtein distance.
size_t distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

std::string nearest(const std::string& name, const std::vector<std::string>& known) {
  if (known.empty()) return "nothing";
  return *std::min_element(known.begin(), known.end(), [&](const std::string& a, const std::string& b) {
    return distance(name, a) < distance(name, b);
  });
}

// One object of the file, whose every key must be asked for.
class Fields {
 public:
  Fields(const Json& object, std::string path, std::string name)
      : object_(object), path_(std::move(path)), name_(std::move(name)) {
    if (!object.is_object()) fail("expected an object");
  }

  int integer(const std::string& key, int otherwise) {
    const Json* value = find(key);
    if (!value) return otherwise;
    if (!value->is_number_integer() || *value < 0 || *value > 1000)
      fail(key + ": got " + value->dump() + ", expected a small integer");
    return value->get<int>();
  }
  std::string string(const std::string& key, const std::string& otherwise) {
    const Json* value = find(key);
    if (!value) return otherwise;
    if (!value->is_string()) fail(key + ": got " + value->dump() + ", expected a string");
    return value->get<std::string>();
  }
  const Json& object(const std::string& key) {
    static const Json empty = Json::object();
    const Json* value = find(key);
    if (value && !value->is_object()) fail(key + ": expected an object");
    return value ? *value : empty;
  }
  void no_others() const {
    for (const auto& [key, value] : object_.items())
      if (std::find(asked_.begin(), asked_.end(), key) == asked_.end())
        fail("unknown key '" + key + "'; did you mean '" + nearest(key, asked_) + "'?");
  }
  [[noreturn]] void fail(const std::string& reason) const {
    throw format_error(path_, 0, name_ + ": " + reason);
  }

 private:
  const Json* find(const std::string& key) {
    asked_.push_back(key);
    const auto found = object_.find(key);
    return found == object_.end() ? nullptr : &*found;
  }

  const Json& object_;
  std::string path_, name_;
  std::vector<std::string> asked_;
};

template <class Enum>
struct Named {
  Enum value;
  const char* name;
};
constexpr Named<Skip> skips[] = {{Skip::u8, "u8"}, {Skip::shared, "shared"}, {Skip::floating, "float"}};
constexpr Named<Ends> all_ends[] = {{Ends::eight, "8"}, {Ends::same, "same"}, {Ends::floating, "float"}};

template <class Enum, size_t n>
std::string name_in(const Named<Enum> (&table)[n], Enum value) {
  for (const auto& entry : table)
    if (entry.value == value) return entry.name;
  return "?";
}

template <class Enum, size_t n>
Enum value_in(const Named<Enum> (&table)[n], const std::string& name, const char* what) {
  std::string known;
  for (const auto& entry : table) {
    if (name == entry.name) return entry.value;
    known += text(' ', entry.name);
  }
  throw argument_error(text('[', what, "] got '", name, "', expected one of:", known));
}

struct Points {
  std::vector<std::string> layers, tensors;
};

Points points_of(nn::Module& model) {
  Points points;
  for (const nn::NamedTap& t : model.taps()) {
    if (t.tap->role == nn::Tap::Role::weight) points.layers.push_back(t.owner());
    if (t.tap->role == nn::Tap::Role::tensor) points.tensors.push_back(t.name);
  }
  return points;
}

void check_names(const std::vector<std::string>& expected, const std::vector<std::string>& got,
                 const char* what) {
  for (const std::string& name : got)
    check(std::find(expected.begin(), expected.end(), name) != expected.end(), "[policy] unknown ", what,
          " '", name, "'; did you mean '", nearest(name, expected), "'?");
  for (const std::string& name : expected)
    check(std::find(got.begin(), got.end(), name) != got.end(), "[policy] ", what, " '", name,
          "' is missing");
}

template <class Map>
std::vector<std::string> keys(const Map& map) {
  std::vector<std::string> names;
  for (const auto& [name, value] : map) names.push_back(name);
  return names;
}

}  // namespace

std::string to_string(Skip skip) { return name_in(skips, skip); }
std::string to_string(Ends ends) { return name_in(all_ends, ends); }
Skip parse_skip(const std::string& name) { return value_in(skips, name, "skip"); }
Ends parse_ends(const std::string& name) { return value_in(all_ends, name, "ends"); }

std::string Policy::to_json() const {
  Json json = {{"version", version},
               {"skip", to_string(skip)},
               {"ends", to_string(ends)},
               {"layers", Json::object()},
               {"tensors", Json::object()}};
  for (const auto& [name, p] : layers)
    json["layers"][name] = {{"w_bits", p.w_bits},
                            {"a_bits", p.a_bits},
                            {"quantizer", p.quantizer},
                            {"granularity", p.granularity}};
  for (const auto& [name, p] : tensors)
    json["tensors"][name] = {{"bits", p.bits}, {"quantizer", p.quantizer}};
  return json.dump(2) + "\n";
}

Policy Policy::parse(const std::string& json, const std::string& path) {
  const Json root = data::parse_json({reinterpret_cast<const uint8_t*>(json.data()), json.size()}, path);
  Fields fields(root, path, "policy");
  if (const int got = fields.integer("version", 0); got != version)
    fields.fail(text("version: got ", got, ", expected ", version));
  Policy policy;
  try {
    policy.skip = parse_skip(fields.string("skip", "u8"));
    policy.ends = parse_ends(fields.string("ends", "8"));
    for (const auto& [name, value] : fields.object("layers").items()) {
      Fields f(value, path, "layer " + name);
      const LayerPolicy standard;
      LayerPolicy layer{f.integer("w_bits", standard.w_bits), f.integer("a_bits", standard.a_bits),
                        f.string("quantizer", standard.quantizer),
                        f.string("granularity", standard.granularity)};
      f.no_others();
      check_bits(layer.w_bits, "layer " + name + " w_bits");
      check_bits(layer.a_bits, "layer " + name + " a_bits");
      if (layer.granularity != "layer" && layer.granularity != "channel")
        f.fail("granularity: got '" + layer.granularity + "', expected layer or channel");
      policy.layers[name] = layer;
    }
    for (const auto& [name, value] : fields.object("tensors").items()) {
      Fields f(value, path, "tensor " + name);
      const TensorPolicy standard;
      policy.tensors[name] = {f.integer("bits", standard.bits), f.string("quantizer", standard.quantizer)};
      f.no_others();
      check_bits(policy.tensors[name].bits, "tensor " + name + " bits");
    }
  } catch (const argument_error& error) {
    throw format_error(path, 0, error.what());
  }
  fields.no_others();
  return policy;
}

Policy Policy::load(const std::string& path) {
  const data::Bytes bytes = data::read_file(path, 16 << 20);
  return parse(std::string(bytes.begin(), bytes.end()), path);
}

Policy uniform_policy(nn::Module& model, const LayerPolicy& layer, Skip skip, Ends ends) {
  check_bits(layer.w_bits, "w_bits");
  check_bits(layer.a_bits, "a_bits");
  Policy policy{skip, ends, {}, {}};
  const Points points = points_of(model);
  for (const std::string& name : points.layers) {
    LayerPolicy own = layer;
    const bool end = name == points.layers.front() || name == points.layers.back();
    if (end && ends == Ends::eight) own.w_bits = own.a_bits = 8;
    if (end && ends == Ends::floating) own.w_bits = own.a_bits = 32;
    policy.layers[name] = own;
  }
  const int tensor_bits = skip == Skip::u8 ? 8 : skip == Skip::shared ? layer.a_bits : 32;
  for (const std::string& name : points.tensors) policy.tensors[name] = {tensor_bits, layer.quantizer};
  return policy;
}

void check_policy(const Policy& policy, nn::Module& model) {
  const Points points = points_of(model);
  check_names(points.layers, keys(policy.layers), "layer");
  check_names(points.tensors, keys(policy.tensors), "tensor");
}

}  // namespace stairgrad::quant
