#include "model_file.h"

#include <algorithm>
#include <cmath>

#include "../../data/formats/json_fields.h"
#include "../../data/formats/safetensors.h"

namespace stairgrad::quant::integer {
namespace {

using data::Json;
using data::JsonFields;

constexpr int version = 2, version_of_other_weights = 3;
constexpr const char* metadata_key = "stairgrad.integer_model";

// --- packed codes: weight = offset + step * q with q of `bits` bits, least significant bits first ---

struct Packing {
  int bits, step;
  std::vector<int64_t> offset;  // one, or one for each output channel

  int64_t offset_of(int64_t channel) const {
    return offset[offset.size() == 1 ? 0 : static_cast<size_t>(channel)];
  }
};

// The even symmetric grids have odd codes only; all others count in ones. Where the codes of a layer do not
// fit its bits, as on affine grids, those of each channel start at their smallest.
Packing packing_of(const Array& weights, int bits) {
  const int8_t* w = weights.data<int8_t>();
  if (bits == 8) return {8, 1, {-128}};
  const bool odd = std::all_of(w, w + weights.size(), [](int8_t code) { return code % 2 != 0; });
  const int half = 1 << (bits - 1);
  const auto within = [&](int low, int high) {
    return std::all_of(w, w + weights.size(), [=](int8_t code) { return code >= low && code < high; });
  };
  if (odd && within(1 - 2 * half, 2 * half)) return {bits, 2, {1 - 2 * half}};
  if (within(-half, half)) return {bits, 1, {-half}};
  const int64_t channels = weights.dim(0), size = weights.size() / channels;
  Packing packing{bits, 1, {}};
  for (int64_t c = 0; c < channels; ++c)
    packing.offset.push_back(std::min<int64_t>(0, *std::min_element(w + c * size, w + (c + 1) * size)));
  return packing;
}

Array pack(const Array& weights, const Packing& p) {
  Array packed = Array::zeros({(weights.size() * p.bits + 7) / 8}, DType::u8);
  uint8_t* out = packed.data<uint8_t>();
  const int64_t size = weights.size() / weights.dim(0);
  for (int64_t i = 0; i < weights.size(); ++i) {
    const int64_t code = weights.data<int8_t>()[i], offset = p.offset_of(i / size),
                  q = (code - offset) / p.step;
    check(q >= 0 && q < (1 << p.bits) && offset + p.step * q == code, "[integer model] the weight code ",
          code, " does not fit ", p.bits, " bits");
    for (int bit = 0; bit < p.bits; ++bit)
      if (q >> bit & 1) out[(i * p.bits + bit) / 8] |= static_cast<uint8_t>(1 << ((i * p.bits + bit) % 8));
  }
  return packed;
}

Array unpack(const Array& packed, const Shape& shape, const Packing& p) {
  Array weights(shape, DType::s8);
  const uint8_t* in = packed.data<uint8_t>();
  int8_t* out = weights.data<int8_t>();
  const int64_t channels = shape[0], size = weights.size() / std::max<int64_t>(1, channels);
  uint32_t window = 0;  // bits that are read and not yet used
  int held = 0;
  for (int64_t c = 0; c < channels; ++c) {
    const auto offset = static_cast<int>(p.offset_of(c));
    for (int64_t i = 0; i < size; ++i) {
      if (held < p.bits) {
        window |= uint32_t{*in++} << held;
        held += 8;
      }
      *out++ = static_cast<int8_t>(offset + p.step * static_cast<int>(window & ((1u << p.bits) - 1)));
      window >>= p.bits;
      held -= p.bits;
    }
  }
  return weights;
}

std::string tensor_prefix(size_t layer) { return text("layers.", layer, '.'); }

// --- JSON out ---

template <class T>
Json list(const T& values) {
  return Json(std::vector<std::decay_t<decltype(*values.begin())>>(values.begin(), values.end()));
}

Json to_json(const Value& v) {
  Json json = {{"name", v.name}, {"shape", list(v.shape)}, {"codes", v.codes}};
  if (v.codes)
    json.update(
        {{"bits", v.bits}, {"scale", v.grid.scale}, {"zero_point", v.grid.zero_point}, {"hi", v.grid.hi}});
  if (!v.note.empty()) json["note"] = v.note;
  if (v.alternatives.empty()) return json;
  json["choice"] = v.choice;
  json["alternatives"] = Json::array();
  for (const Alternative& a : v.alternatives)
    json["alternatives"].push_back(
        {{"bits", a.bits}, {"scale", a.grid.scale}, {"zero_point", a.grid.zero_point}, {"hi", a.grid.hi}});
  return json;
}

Json to_json(const Pool2dOptions& o) {
  return {{"kernel", o.kernel}, {"stride", o.stride}, {"padding", o.padding}};
}

struct LayerWriter {
  data::SafeTensors& file;
  std::string prefix;  // of the layer's tensors: its index, because names may repeat

  Json packed(const Array& weights, int bits, const std::string& name) const {
    const Packing p = packing_of(weights, bits);
    file.tensors[name] = pack(weights, p);
    return {{"weight_bits", bits},
            {"weight_step", p.step},
            {"weight_offset", p.offset.size() == 1 ? Json(p.offset[0]) : Json(p.offset)}};
  }

  Json operator()(const Encode&) const { return {{"op", "encode"}}; }
  Json operator()(const Remap& r) const { return {{"op", "remap"}, {"tables", r.tables}}; }
  Json operator()(const AveragePool& p) const {
    Json json = to_json(p.options);
    json.update({{"op", "average_pool"}, {"b", p.b}, {"m", p.m}});
    return json;
  }
  Json operator()(const MaxPool& p) const {
    Json json = to_json(p.options);
    json["op"] = "max_pool";
    return json;
  }
  Json operator()(const Concat& c) const { return {{"op", "concat"}, {"srcs", c.srcs}}; }
  Json operator()(const Moments&) const { return {{"op", "moments"}}; }
  Json operator()(const Select& s) const { return {{"op", "select"}, {"first", s.first}}; }
  Json operator()(const Subsample& s) const {
    return {{"op", "subsample"}, {"stride", s.stride}, {"before", s.before}, {"after", s.after}};
  }
  Json operator()(const Convolution& c) const {
    file.tensors[prefix + "b"] = c.b;
    file.tensors[prefix + "m"] = c.m;
    Json json = {{"op", "convolution"},
                 {"name", c.name},
                 {"weights", list(c.weights.shape())},
                 {"stride", c.options.stride},
                 {"padding", c.options.padding},
                 {"dilation", c.options.dilation},
                 {"groups", c.options.groups},
                 {"lo", c.lo},
                 {"hi", c.hi},
                 {"skip", c.skip},
                 {"skip_ratio", c.skip_ratio}};
    json.update(packed(c.weights, c.weight_bits, prefix + "weights"));
    for (size_t i = 0; i < c.other_weights.size(); ++i)
      json["other_weights"].push_back(
          packed(c.other_weights[i].codes, c.other_weights[i].bits, text(prefix, "weights.", i + 1)));
    // JSON has no infinities: a missing limit is none.
    if (std::isfinite(c.low)) json["low"] = c.low;
    if (std::isfinite(c.high)) json["high"] = c.high;
    return json;
  }
};

// --- JSON in: every number is checked for type and range before it is used ---

Shape shape_of(const JsonFields& f, const char* key, size_t rank) {
  const Shape shape(f.integers(key, rank, rank, 1, max_extent));
  int64_t elements = 1;
  for (const int64_t extent : shape)
    if ((elements *= extent) > max_elements) f.fail(text("the shape ", shape, " has too many elements"));
  return shape;
}

Grid read_grid(const JsonFields& f) {
  return {f.number("scale"), f.number("zero_point"), 0, static_cast<int>(f.integer("hi", 1, 255))};
}

Value read_value(const JsonFields& f, const std::string& path) {
  Value v{f.string("name"),
          shape_of(f, "shape", 3),
          f.boolean("codes"),
          0,
          {},
          f.has("note") ? f.string("note") : ""};
  if (!v.codes) return v;
  v.bits = static_cast<int>(f.integer("bits", 1, 8));
  v.grid = read_grid(f);
  if (!f.has("alternatives")) return v;
  v.choice = static_cast<int>(f.integer("choice", 0, max_extent));
  const Json& alternatives = f.list("alternatives");
  if (alternatives.size() > max_alternatives)
    f.fail(text("got ", alternatives.size(), " alternatives, expected up to ", max_alternatives));
  for (const Json& alternative : alternatives) {
    const JsonFields a(alternative, path, text("alternative ", v.alternatives.size(), " of ", v.name));
    v.alternatives.push_back({static_cast<int>(a.integer("bits", 1, 8)), read_grid(a)});
  }
  return v;
}

Pool2dOptions read_pooling(const JsonFields& f) {
  Pool2dOptions options;
  options.kernel = f.fixed<2>("kernel", 1, max_extent);
  options.stride = f.fixed<2>("stride", 1, max_extent);
  options.padding = f.fixed<2>("padding", 0, max_extent);
  return options;
}

class LayerReader {
 public:
  LayerReader(const data::SafeTensors& file, const std::vector<Value>& values, const std::string& path)
      : file_(file), values_(values), path_(path) {}

  Layer read(const JsonFields& f, const std::string& prefix) const {
    const std::string op = f.string("op");
    const int dst = value(f, "dst");
    if (op == "concat") {
      Concat concat{{}, dst};
      for (const int64_t src : f.integers("srcs", 1, max_extent, 0, last_value()))
        concat.srcs.push_back(static_cast<int>(src));
      return concat;
    }
    const int src = value(f, "src");
    if (op == "encode") return Encode{src, dst};
    if (op == "average_pool") return AveragePool{src, dst, read_pooling(f), f.number("b"), f.number("m")};
    if (op == "max_pool") return MaxPool{src, dst, read_pooling(f)};
    if (op == "subsample")
      return Subsample{src, dst, f.fixed<2>("stride", 1, max_extent), f.integer("before", 0, max_extent),
                       f.integer("after", 0, max_extent)};
    if (op == "remap") return Remap{src, dst, tables(f)};
    if (op == "moments") return Moments{src, dst};
    if (op == "select") return Select{src, dst, static_cast<int>(f.integer("first", 0, max_extent))};
    if (op != "convolution") f.fail("unknown op '" + op + "'; the file was made by a newer version");
    return convolution(f, prefix, src, dst);
  }

 private:
  int value(const JsonFields& f, const char* key, int lowest = 0) const {
    return static_cast<int>(f.integer(key, lowest, last_value()));
  }

  static std::vector<Remap::Table> tables(const JsonFields& f) {
    std::vector<Remap::Table> result;
    for (const Json& json : f.list("tables")) {
      Remap::Table table{};
      bool fits = json.is_array() && json.size() == table.size();
      for (size_t i = 0; fits && i < table.size(); ++i) {
        fits = json[i].is_number_unsigned() && json[i].get<uint64_t>() <= 255;
        if (fits) table[i] = static_cast<uint8_t>(json[i].get<uint64_t>());
      }
      if (!fits) f.fail(text("table ", result.size(), " is not a list of 256 codes"));
      result.push_back(table);
    }
    return result;
  }

  int last_value() const { return static_cast<int>(values_.size()) - 1; }

  const Array& tensor(const JsonFields& f, const std::string& name, DType type, const Shape& shape) const {
    const auto found = file_.tensors.find(name);
    if (found == file_.tensors.end()) f.fail("the tensor " + name + " is missing");
    if (found->second.dtype() != type || !(found->second.shape() == shape))
      f.fail(text("the tensor ", name, " is ", name_of(found->second.dtype()), found->second.shape(),
                  ", expected ", name_of(type), shape));
    return found->second;
  }

  Convolution::Weights weights(const JsonFields& f, const std::string& name, const Shape& shape) const {
    Packing packing{static_cast<int>(f.integer("weight_bits", 1, 8)),
                    static_cast<int>(f.integer("weight_step", 1, 2)),
                    {}};
    const auto channels = static_cast<size_t>(shape[0]);
    if (f.at("weight_offset").is_array())
      packing.offset = f.integers("weight_offset", channels, channels, -128, 0);
    else
      packing.offset = {f.integer("weight_offset", -128, 0)};
    for (const int64_t offset : packing.offset)
      if (offset + packing.step * ((1 << packing.bits) - 1) > 127)
        f.fail("the weight codes of " + name + " exceed 127");
    const Array& packed = tensor(f, name, DType::u8, {(shape.size() * packing.bits + 7) / 8});
    return {unpack(packed, shape, packing), packing.bits};
  }

  Convolution convolution(const JsonFields& f, const std::string& prefix, int src, int dst) const {
    Convolution c;
    c.name = f.string("name");
    c.src = src;
    c.dst = dst;
    c.skip = value(f, "skip", -1);
    c.options = {f.fixed<2>("stride", 1, max_extent), f.fixed<4>("padding", 0, max_extent),
                 f.fixed<2>("dilation", 1, max_extent), f.integer("groups", 1, max_extent)};
    c.lo = static_cast<int>(f.integer("lo", 0, 255));
    c.hi = static_cast<int>(f.integer("hi", 0, 255));
    c.skip_ratio = f.number("skip_ratio");
    const Shape shape = shape_of(f, "weights", 4);
    const Convolution::Weights first = weights(f, prefix + "weights", shape);
    c.weights = first.codes;
    c.weight_bits = first.bits;
    if (f.has("other_weights"))
      for (const Json& json : f.list("other_weights")) {
        const size_t k = c.other_weights.size() + 1;
        const JsonFields other(json, path_, text("weights ", k, " of ", c.name));
        c.other_weights.push_back(weights(other, text(prefix, "weights.", k), shape));
      }
    if (f.has("low")) c.low = f.number("low");
    if (f.has("high")) c.high = f.number("high");
    const auto alternatives = static_cast<int64_t>(values_[static_cast<size_t>(src)].alternatives.size());
    const Shape channels = alternatives > 0 ? Shape{alternatives, shape[0]} : Shape{shape[0]};
    c.b = tensor(f, prefix + "b", DType::f32, channels);
    c.m = tensor(f, prefix + "m", DType::f32, channels);
    return c;
  }

  const data::SafeTensors& file_;
  const std::vector<Value>& values_;
  const std::string& path_;
};

}  // namespace

void save(const Model& model, const std::string& path) {
  validate(model);
  data::SafeTensors file;
  const bool other_weights = std::ranges::any_of(model.layers, [](const Layer& layer) {
    const auto* c = std::get_if<Convolution>(&layer);
    return c && !c->other_weights.empty();
  });
  Json graph = {{"version", other_weights ? version_of_other_weights : version},
                {"input", model.input},
                {"output", model.output},
                {"class_names", model.class_names},
                {"mean", model.mean},
                {"deviation", model.deviation},
                {"values", Json::array()},
                {"layers", Json::array()}};
  for (const Value& value : model.values) graph["values"].push_back(to_json(value));
  for (const Layer& layer : model.layers) {
    Json json = std::visit(LayerWriter{file, tensor_prefix(graph["layers"].size())}, layer);
    if (!std::holds_alternative<Concat>(layer)) json["src"] = sources_of(layer)[0];
    json["dst"] = dst_of(layer);
    graph["layers"].push_back(json);
  }
  file.metadata[metadata_key] = graph.dump();
  file.metadata["policy"] = model.policy;
  data::seal(file, metadata_key);
  data::save_safetensors(path, file);
}

namespace {

Model model_of(const data::SafeTensors& file, const std::string& path) {
  const auto found = file.metadata.find(metadata_key);
  if (found == file.metadata.end())
    throw format_error(path, 0, "this is no integer model; make one with quickstart, qat or ptq");
  if (!data::is_sealed(file))
    throw format_error(path, 0, "it has no checksum; make the model once more with quickstart, qat or ptq");
  data::check_seal(file, path, metadata_key);
  const Json graph =
      data::parse_json({reinterpret_cast<const uint8_t*>(found->second.data()), found->second.size()}, path);
  const JsonFields f(graph, path, "integer model");
  if (const int64_t got = f.integer("version", 0, 1 << 20); got < version || got > version_of_other_weights)
    f.fail(text("version ", got, " is none of the versions ", version, " and ", version_of_other_weights,
                " that this program reads"));

  Model model;
  if (f.list("values").empty()) f.fail("the graph has no values");
  for (const Json& value : f.list("values"))
    model.values.push_back(read_value(JsonFields(value, path, text("value ", model.values.size())), path));
  const int last = static_cast<int>(model.values.size()) - 1;
  model.input = static_cast<int>(f.integer("input", 0, last));
  model.output = static_cast<int>(f.integer("output", 0, last));
  const LayerReader reader(file, model.values, path);
  for (const Json& layer : f.list("layers")) {
    const size_t number = model.layers.size();
    model.layers.push_back(
        reader.read(JsonFields(layer, path, text("layer ", number)), tensor_prefix(number)));
  }
  model.class_names = f.strings("class_names");
  model.mean = f.numbers("mean");
  model.deviation = f.numbers("deviation");
  if (const auto policy = file.metadata.find("policy"); policy != file.metadata.end())
    model.policy = policy->second;
  try {
    validate(model);
  } catch (const argument_error& error) {
    throw format_error(path, 0, error.what());
  }
  return model;
}

}  // namespace

Model load(const std::string& path) { return model_of(data::load_safetensors(path), path); }
std::optional<Model> load_if_integer(const std::string& path) {
  const data::SafeTensors file = data::load_safetensors(path);
  if (!file.metadata.contains(metadata_key)) return std::nullopt;
  return model_of(file, path);
}
Model parse(data::ByteView bytes, const std::string& path) {
  return model_of(data::parse_safetensors(bytes, path), path);
}

}  // namespace stairgrad::quant::integer
