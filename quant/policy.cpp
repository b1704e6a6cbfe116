#include "policy.h"

#include <algorithm>

#include "../data/formats/json_fields.h"
#include "../kernels/nearest.h"
#include "names.h"
#include "quantizer.h"

namespace stairgrad::quant {
namespace {

using data::Json;
using data::JsonFields;

constexpr int version = 1;

void check_bits(int bits, const std::string& what) {
  check((bits >= 1 && bits <= 8) || bits == 32, "[policy] ", what, ": got ", bits,
        " bits, expected 1 .. 8, or 32 for floats");
}

constexpr Named<Skip> skips[] = {{Skip::u8, "u8"}, {Skip::shared, "shared"}, {Skip::floating, "float"}};
constexpr Named<Ends> all_ends[] = {{Ends::eight, "8"}, {Ends::same, "same"}, {Ends::floating, "float"}};

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

int parse_bits(const JsonFields& f, const char* key, int otherwise, const std::string& layer) {
  if (!f.has(key)) return otherwise;
  const int bits = static_cast<int>(f.integer(key, 0, 1000));
  check_bits(bits, layer + ' ' + key);
  return bits;
}

LayerPolicy parse_layer(const JsonFields& f, const std::string& name) {
  LayerPolicy layer;
  layer.w_bits = parse_bits(f, "w_bits", layer.w_bits, "layer " + name);
  layer.a_bits = parse_bits(f, "a_bits", layer.a_bits, "layer " + name);
  if (f.has("quantizer")) layer.quantizer = f.string("quantizer");
  if (f.has("granularity")) layer.granularity = f.string("granularity");
  if (layer.granularity != "layer" && layer.granularity != "channel")
    f.fail("'granularity': got '" + layer.granularity + "', expected layer or channel");
  f.no_others();
  return layer;
}

TensorPolicy parse_tensor(const JsonFields& f, const std::string& name) {
  TensorPolicy tensor;
  tensor.bits = parse_bits(f, "bits", tensor.bits, "tensor " + name);
  if (f.has("quantizer")) tensor.quantizer = f.string("quantizer");
  f.no_others();
  return tensor;
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

namespace {

// Where a value of the text stands. The keys of a policy are few enough to look for them: those of a section
// follow its name, and those of a layer the layer's.
class Lines {
 public:
  explicit Lines(const std::string& text) : text_(text) {}

  // Byte of `key` behind the byte `from`, or `from` if it is not there.
  size_t find(const std::string& key, size_t from) const {
    const std::string quoted = '"' + key + '"';
    for (size_t at = text_.find(quoted, from); at != std::string::npos; at = text_.find(quoted, at + 1)) {
      const size_t next = text_.find_first_not_of(" \t\r\n", at + quoted.size());
      if (next != std::string::npos && text_[next] == ':') return at;
    }
    return from;
  }
  // An error about something in `section`, and there in the entry `name` if it names one.
  [[noreturn]] void fail(const std::string& path, const std::string& section, const std::string& name,
                         const Json& value, const std::string& reason) const {
    size_t at = section.empty() ? 0 : find(section, 0);
    if (!name.empty()) at = find(name, at);
    if (value.is_object())
      for (const auto& [key, unused] : value.items())
        if (reason.find(key) != std::string::npos && key != name) at = find(key, at);
    const auto line = 1 + std::count(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(at), '\n');
    throw format_error(path, at, text("line ", line, ": ", reason));
  }

 private:
  const std::string& text_;
};

std::string text_of(const std::string& path) {
  const data::Bytes bytes = data::read_file(path, 16 << 20);
  return {bytes.begin(), bytes.end()};
}

}  // namespace

Policy Policy::parse(const std::string& json, const std::string& path) {
  const Json root = data::parse_json({reinterpret_cast<const uint8_t*>(json.data()), json.size()}, path);
  const Lines lines(json);
  // Runs `read`, and says in which line what it refuses is.
  const auto located = [&](const std::string& section, const std::string& name, const Json& value,
                           const auto& read) {
    try {
      read();
    } catch (const argument_error& error) {
      lines.fail(path, section, name, value, error.what());
    } catch (const format_error& error) {
      lines.fail(path, section, name, value, error.reason);
    }
  };
  Policy policy;
  located("", "", root, [&] {
    const JsonFields fields(root, path, "policy");
    if (const int64_t got = fields.integer("version", 0, 1000); got != version)
      fields.fail(text("'version': got ", got, ", expected ", version));
    if (fields.has("skip")) policy.skip = parse_skip(fields.string("skip"));
    if (fields.has("ends")) policy.ends = parse_ends(fields.string("ends"));
    if (fields.has("layers")) fields.object("layers");
    if (fields.has("tensors")) fields.object("tensors");
    fields.no_others();
  });
  if (root.contains("layers"))
    for (const auto& [name, value] : root["layers"].items())
      located("layers", name, value, [&, name = name, &value = value] {
        policy.layers[name] = parse_layer(JsonFields(value, path, "layer " + name), name);
      });
  if (root.contains("tensors"))
    for (const auto& [name, value] : root["tensors"].items())
      located("tensors", name, value, [&, name = name, &value = value] {
        policy.tensors[name] = parse_tensor(JsonFields(value, path, "tensor " + name), name);
      });
  return policy;
}

Policy Policy::load(const std::string& path) { return parse(text_of(path), path); }

Policy Policy::load(const std::string& path, nn::Module& model) {
  const std::string json = text_of(path);
  const Policy policy = parse(json, path);
  const Points points = points_of(model);
  const auto fit = [&](const std::string& section, const std::vector<std::string>& expected,
                       const std::vector<std::string>& got, const char* what) {
    try {
      check_names(expected, got, what);
    } catch (const argument_error& error) {
      // The entry that the model does not have, or the section in which one is missing.
      const auto unknown = std::find_if(got.begin(), got.end(), [&](const std::string& name) {
        return std::find(expected.begin(), expected.end(), name) == expected.end();
      });
      Lines(json).fail(path, section, unknown == got.end() ? "" : *unknown, nullptr, error.what());
    }
  };
  fit("layers", points.layers, keys(policy.layers), "layer");
  fit("tensors", points.tensors, keys(policy.tensors), "tensor");
  return policy;
}

Policy uniform_policy(nn::Module& model, const LayerPolicy& layer, Skip skip, Ends ends,
                      const std::string& eight_bit) {
  check_bits(layer.w_bits, "w_bits");
  check_bits(layer.a_bits, "a_bits");
  Policy policy{skip, ends, {}, {}};
  const Points points = points_of(model);
  for (const std::string& name : points.layers) {
    LayerPolicy own = layer;
    const bool end = name == points.layers.front() || name == points.layers.back();
    if (end && ends == Ends::eight) {
      own.w_bits = own.a_bits = 8;
      if (!eight_bit.empty()) own.quantizer = eight_bit;
    }
    if (end && ends == Ends::floating) own.w_bits = own.a_bits = 32;
    policy.layers[name] = own;
  }
  const int tensor_bits = skip == Skip::u8 ? 8 : skip == Skip::shared ? layer.a_bits : 32;
  const std::string tensor_quantizer = skip == Skip::u8 && !eight_bit.empty() ? eight_bit : layer.quantizer;
  for (const std::string& name : points.tensors) policy.tensors[name] = {tensor_bits, tensor_quantizer};
  return policy;
}

void check_policy(const Policy& policy, nn::Module& model) {
  const Points points = points_of(model);
  check_names(points.layers, keys(policy.layers), "layer");
  check_names(points.tensors, keys(policy.tensors), "tensor");
}

}  // namespace stairgrad::quant
