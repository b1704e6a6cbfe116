#include "json_fields.h"

#include <algorithm>
#include <limits>

#include "../../kernels/nearest.h"

namespace stairgrad::data {
namespace {

// What a message shows of a value: enough to recognise it.
std::string shown(const Json& value) {
  const std::string all = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return all.size() <= 60 ? all : all.substr(0, 57) + "...";
}

}  // namespace

JsonFields::JsonFields(const Json& object, const std::string& path, std::string what)
    : object_(object), path_(path), what_(std::move(what)) {
  if (!object.is_object()) fail(text("got ", shown(object), ", expected an object"));
}

const Json* JsonFields::find(const char* key) const {
  asked_.emplace_back(key);
  const auto found = object_.find(key);
  return found == object_.end() ? nullptr : &*found;
}

const Json& JsonFields::at(const char* key) const {
  const Json* value = find(key);
  if (!value) fail(text("the field '", key, "' is missing"));
  return *value;
}

std::string JsonFields::string(const char* key) const {
  const Json& value = at(key);
  if (!value.is_string()) fail(key, value, "a string");
  return value.get<std::string>();
}

bool JsonFields::boolean(const char* key) const {
  const Json& value = at(key);
  if (!value.is_boolean()) fail(key, value, "true or false");
  return value.get<bool>();
}

int64_t JsonFields::integer(const char* key, int64_t low, int64_t high) const {
  return integer(at(key), key, low, high);
}

int64_t JsonFields::integer(const Json& json, const char* key, int64_t low, int64_t high) const {
  const bool fits =
      json.is_number_integer() &&
      (!json.is_number_unsigned() || json.get<uint64_t>() <= uint64_t{std::numeric_limits<int64_t>::max()});
  if (!fits || json.get<int64_t>() < low || json.get<int64_t>() > high)
    fail(key, json, text("an integer in ", low, " .. ", high));
  return json.get<int64_t>();
}

const Json& JsonFields::object(const char* key) const {
  const Json& value = at(key);
  if (!value.is_object()) fail(key, value, "an object");
  return value;
}

const Json& JsonFields::list(const char* key) const {
  const Json& value = at(key);
  if (!value.is_array()) fail(key, value, "a list");
  return value;
}

std::vector<int64_t> JsonFields::integers(const char* key, size_t min_count, size_t max_count, int64_t low,
                                          int64_t high) const {
  const Json& json = list(key);
  if (json.size() < min_count || json.size() > max_count)
    fail(key, json,
         text("a list of ", min_count, min_count == max_count ? "" : text(" to ", max_count), " integers"));
  std::vector<int64_t> values;
  for (const Json& element : json) values.push_back(integer(element, key, low, high));
  return values;
}

std::vector<float> JsonFields::numbers(const char* key) const {
  std::vector<float> values;
  for (const Json& element : list(key)) {
    if (!element.is_number()) fail(key, element, "a list of numbers");
    values.push_back(element.get<float>());
  }
  return values;
}

std::vector<std::string> JsonFields::strings(const char* key) const {
  std::vector<std::string> values;
  for (const Json& element : list(key)) {
    if (!element.is_string()) fail(key, element, "a list of strings");
    values.push_back(element.get<std::string>());
  }
  return values;
}

void JsonFields::no_others() const {
  for (const auto& [key, value] : object_.items())
    if (std::find(asked_.begin(), asked_.end(), key) == asked_.end())
      fail(text("unknown field '", key, "'; did you mean '", nearest(key, asked_), "'?"));
}

void JsonFields::fail(const std::string& reason) const {
  throw format_error(path_, 0, what_ + ": " + reason);
}

void JsonFields::fail(const char* key, const Json& got, const std::string& expected) const {
  fail(text("'", key, "': got ", shown(got), ", expected ", expected));
}

}  // namespace stairgrad::data
