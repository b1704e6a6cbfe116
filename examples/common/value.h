// What a program records: numbers, words, lists and groups of them, written as JSON.
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace stairgrad::examples {

/// A JSON value. Groups keep the order in which their fields were set.
class Value {
 public:
  using List = std::vector<Value>;
  using Group = std::vector<std::pair<std::string, Value>>;

  Value() = default;  ///< null
  Value(bool value) : value_(value) {}
  Value(std::integral auto value) : value_(static_cast<int64_t>(value)) {}
  Value(std::floating_point auto value) : value_(static_cast<double>(value)) {}
  Value(const char* value) : value_(std::string(value)) {}
  Value(std::string value) : value_(std::move(value)) {}
  Value(List value) : value_(std::move(value)) {}
  Value(Group value) : value_(std::move(value)) {}

  static Value list(const auto& items) {
    List values;
    for (const auto& item : items) values.emplace_back(item);
    return values;
  }

  /// Sets the field at a path of names joined by dots: set("accuracy.float", 91.7).
  void set(const std::string& path, Value value);
  /// The field at a path, or null when there is none.
  const Value* find(const std::string& path) const;
  /// The number in it; NaN when it is none.
  double number() const;
  /// The word in it; empty when it is none.
  std::string word() const;
  /// The items of the list in it; none when it is no list.
  List items() const;

  /// As JSON; `indent` < 0 gives one line. NaN and infinities become null.
  std::string json(int indent = -1) const;
  /// Throws argument_error when `text` is not JSON.
  static Value parse(const std::string& text);

 private:
  std::variant<std::monostate, bool, int64_t, double, std::string, List, Group> value_;

  friend struct JsonWriter;
};

using Fields = std::initializer_list<std::pair<std::string, Value>>;

}  // namespace stairgrad::examples
