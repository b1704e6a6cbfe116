// One object of a JSON file, read field by field with every check. Internal, like json.h.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "json.h"

namespace stairgrad::data {

/// The fields of a JSON object. Whatever is missing, of the wrong type or out of range throws format_error
/// that names the file, `what` the object is, and the field. Keeps references to the object and the path.
class JsonFields {
 public:
  JsonFields(const Json& object, const std::string& path, std::string what);

  bool has(const char* key) const { return find(key) != nullptr; }
  const Json& at(const char* key) const;
  std::string string(const char* key) const;
  bool boolean(const char* key) const;
  template <class T = float>
  T number(const char* key) const {
    const Json& value = at(key);
    if (!value.is_number()) fail(key, value, "a number");
    return value.get<T>();
  }
  int64_t integer(const char* key, int64_t low, int64_t high) const;
  const Json& object(const char* key) const;
  const Json& list(const char* key) const;
  std::vector<int64_t> integers(const char* key, size_t min_count, size_t max_count, int64_t low,
                                int64_t high) const;
  std::vector<float> numbers(const char* key) const;
  std::vector<std::string> strings(const char* key) const;
  template <size_t n>
  std::array<int64_t, n> fixed(const char* key, int64_t low, int64_t high) const {
    const std::vector<int64_t> values = integers(key, n, n, low, high);
    std::array<int64_t, n> result{};
    std::copy(values.begin(), values.end(), result.begin());
    return result;
  }

  /// The object may have no field but those asked for: call it last. Suggests the nearest of them.
  void no_others() const;
  [[noreturn]] void fail(const std::string& reason) const;

 private:
  const Json* find(const char* key) const;
  [[noreturn]] void fail(const char* key, const Json& got, const std::string& expected) const;
  int64_t integer(const Json& json, const char* key, int64_t low, int64_t high) const;

  const Json& object_;
  const std::string& path_;
  std::string what_;
  mutable std::vector<std::string> asked_;
};

}  // namespace stairgrad::data
