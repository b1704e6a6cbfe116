#include "value.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "../../kernels/error.h"

namespace stairgrad::examples {

using Json = nlohmann::ordered_json;

struct JsonWriter {
  Json operator()(std::monostate) const { return nullptr; }
  Json operator()(double number) const { return std::isfinite(number) ? Json(number) : Json(nullptr); }
  Json operator()(const Value::List& list) const {
    Json json = Json::array();
    for (const Value& item : list) json.push_back(write(item));
    return json;
  }
  Json operator()(const Value::Group& group) const {
    Json json = Json::object();
    for (const auto& [name, value] : group) json[name] = write(value);
    return json;
  }
  Json operator()(const auto& plain) const { return plain; }

  static Json write(const Value& value) { return std::visit(JsonWriter{}, value.value_); }
};

namespace {

Value read(const Json& json) {
  switch (json.type()) {
    case Json::value_t::boolean:
      return json.get<bool>();
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
      return json.get<int64_t>();
    case Json::value_t::number_float:
      return json.get<double>();
    case Json::value_t::string:
      return json.get<std::string>();
    case Json::value_t::array: {
      Value::List list;
      for (const Json& item : json) list.push_back(read(item));
      return list;
    }
    case Json::value_t::object: {
      Value::Group group;
      for (const auto& [name, value] : json.items()) group.emplace_back(name, read(value));
      return group;
    }
    default:
      return {};
  }
}

}  // namespace

void Value::set(const std::string& path, Value value) {
  if (!std::holds_alternative<Group>(value_)) value_ = Group{};
  Group& group = std::get<Group>(value_);
  const size_t dot = path.find('.');
  const std::string name = path.substr(0, dot);
  auto field = group.begin();
  while (field != group.end() && field->first != name) ++field;
  if (field == group.end()) field = group.insert(field, {name, Value()});
  if (dot == std::string::npos) {
    field->second = std::move(value);
  } else {
    field->second.set(path.substr(dot + 1), std::move(value));
  }
}

const Value* Value::find(const std::string& path) const {
  const Group* group = std::get_if<Group>(&value_);
  if (!group) return nullptr;
  const size_t dot = path.find('.');
  for (const auto& [name, value] : *group) {
    if (name != path.substr(0, dot)) continue;
    return dot == std::string::npos ? &value : value.find(path.substr(dot + 1));
  }
  return nullptr;
}

double Value::number() const {
  if (const auto* whole = std::get_if<int64_t>(&value_)) return static_cast<double>(*whole);
  if (const auto* real = std::get_if<double>(&value_)) return *real;
  return std::numeric_limits<double>::quiet_NaN();
}

std::string Value::word() const {
  const auto* word = std::get_if<std::string>(&value_);
  return word ? *word : "";
}

Value::List Value::items() const {
  const List* list = std::get_if<List>(&value_);
  return list ? *list : List();
}

std::string Value::json(int indent) const {
  return JsonWriter::write(*this).dump(indent, ' ', false, Json::error_handler_t::replace);
}

Value Value::parse(const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  check(!json.is_discarded(), "got \"", text.substr(0, 60), "\", expected JSON");
  return read(json);
}

}  // namespace stairgrad::examples
