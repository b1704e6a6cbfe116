// Enumerations as options, policies and files spell them.
#pragma once

#include <string>
#include <vector>

#include "../kernels/error.h"
#include "../kernels/nearest.h"

namespace stairgrad::quant {

template <class Enum>
struct Named {
  Enum value;
  const char* name;
};

template <class Enum, size_t n>
std::vector<std::string> names_in(const Named<Enum> (&table)[n]) {
  std::vector<std::string> names;
  for (const auto& entry : table) names.push_back(entry.name);
  return names;
}

template <class Enum, size_t n>
std::string name_in(const Named<Enum> (&table)[n], Enum value) {
  for (const auto& entry : table)
    if (entry.value == value) return entry.name;
  return "?";
}

/// Throws argument_error with the nearest name and the list, for `what`.
template <class Enum, size_t n>
Enum value_in(const Named<Enum> (&table)[n], const std::string& name, const char* what) {
  std::string known;
  for (const auto& entry : table) {
    if (name == entry.name) return entry.value;
    known += text(' ', entry.name);
  }
  throw argument_error(text('[', what, "] got '", name, "'; did you mean '", nearest(name, names_in(table)),
                            "'? Expected one of:", known));
}

}  // namespace stairgrad::quant
