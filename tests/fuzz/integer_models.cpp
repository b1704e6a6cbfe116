#include "integer_models.h"

#include <iterator>
#include <type_traits>

#include "data/formats/json.h"
#include "data/formats/safetensors.h"
#include "quant/integer/model_file.h"
#include "quant/integer/session.h"

namespace stairgrad {
namespace {

using data::Json;
constexpr const char* graph_key = "stairgrad.integer_model";

class GraphDamage {
 public:
  GraphDamage(const Philox& rng, uint64_t& index) : rng_(rng), index_(index) {}

  // A random way from the root, so that long lists are not hit more often than single fields.
  void wound(Json& node) {
    if (node.is_structured() && !node.empty() && draw(8) > 0) return wound(*some(node));
    if (node.is_number_integer())
      node = other(node.get<int64_t>());
    else if (node.is_number())
      node = other(node.get<double>());
    else if (node.is_boolean())
      node = !node.get<bool>();
    else if (node.is_string())
      node = "";
    else if (!node.empty())
      node.is_object() ? static_cast<void>(node.erase(some(node))) : wound_list(node);
  }

  uint64_t draw(uint64_t below) { return rng_.below(index_++, below); }

 private:
  Json::iterator some(Json& node) {
    return std::next(node.begin(), static_cast<std::ptrdiff_t>(draw(node.size())));
  }

  void wound_list(Json& list) {
    const Json entry = *some(list);
    switch (draw(3)) {
      case 0:
        list.erase(some(list));
        break;
      case 1:
        list.insert(some(list), entry);
        break;
      default:
        *some(list) = entry;
    }
  }

  template <class T>
  T other(T number) {
    constexpr double extremes[] = {0,     1,     -1,       127,        128,         255,       256,
                                   65535, 65536, 16777216, 2147483647, -2147483648, 4294967296};
    switch (draw(4)) {
      case 0:
        return number + 1;
      case 1:
        return number - 1;
      case 2:
        return number * static_cast<T>(std::is_integral_v<T> ? 2 : 1e38);
      default:
        return static_cast<T>(extremes[draw(std::size(extremes))]);
    }
  }

  const Philox& rng_;
  uint64_t& index_;
};

// So that thousands run in a second.
bool is_small(const quant::integer::Model& model) {
  int64_t elements = 0;
  for (const quant::integer::Value& value : model.values) elements += value.shape.size();
  for (const quant::integer::Layer& layer : model.layers)
    if (const auto* c = std::get_if<quant::integer::Convolution>(&layer)) {
      const Shape& src = model.values[static_cast<size_t>(c->src)].shape;
      const auto [top, bottom, left, right] = c->options.padding;
      elements += (src[0] + top + bottom) * (src[1] + left + right) * src[2];
    }
  return elements <= 1 << 18 && quant::integer::bops(model) <= int64_t{1} << 28;
}

}  // namespace

data::Bytes damage_graph(const data::Bytes& file, const Philox& rng, uint64_t& index) {
  try {
    data::SafeTensors content = data::parse_safetensors(file, "integer model");
    std::string& graph = content.metadata[graph_key];
    Json json = data::parse_json({reinterpret_cast<const uint8_t*>(graph.data()), graph.size()}, "graph");
    GraphDamage damage(rng, index);
    for (uint64_t wounds = 1 + damage.draw(4); wounds > 0; --wounds) damage.wound(json);
    graph = json.dump();
    data::seal(content, graph_key);
    return data::encode_safetensors(content);
  } catch (const format_error&) {
    return file;
  }
}

bool run_integer_model(const data::Bytes& file) {
  const quant::integer::Model model = quant::integer::parse(file, "integer model");
  if (!is_small(model)) return false;
  const Shape image = model.values[static_cast<size_t>(model.input)].shape;
  quant::integer::Session session(model, 1);
  session.run(random_normal({1, image[0], image[1], image[2]}, Philox(1)));
  return true;
}

}  // namespace stairgrad
