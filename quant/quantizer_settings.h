// What a quantizer's name may say beyond the name: "dsq:alpha=0.2,learn_alpha=no".
#pragma once

#include <map>
#include <string>
#include <vector>

namespace stairgrad::quant {

/// A setting that a quantizer has: its values, and which one it takes if the name does not say.
struct SettingRule {
  static SettingRule number(const std::string& key, double otherwise, double low, double high);
  static SettingRule flag(const std::string& key, bool otherwise);
  /// One of several words; the first one otherwise.
  static SettingRule choice(const std::string& key, const std::vector<std::string>& words);

  /// "alpha=0.2 (0.001 .. 0.999)", "direct=hard|soft"; what holds otherwise stands first.
  std::string str() const;

  std::string key;
  double value = 0, low = 0, high = 0;  ///< of a number
  std::vector<std::string> words;       ///< empty for a number
};

/// The values of all settings of a quantizer.
class QuantizerSettings {
 public:
  QuantizerSettings() = default;
  /// Reads `given`, "key=value,key=value", by the rules of the quantizer `name`. Throws argument_error for
  /// unknown keys (naming the nearest one), for values outside their rules and for keys given twice.
  QuantizerSettings(const std::string& name, const std::string& given, const std::vector<SettingRule>& rules);

  /// Throw argument_error for a key that has no rule.
  double number(const std::string& key) const;
  bool flag(const std::string& key) const { return choice(key) == "yes"; }
  const std::string& choice(const std::string& key) const;

 private:
  std::map<std::string, double> numbers_;
  std::map<std::string, std::string> words_;
};

/// "alpha=0.2 (0.001 .. 0.999), learn_alpha=yes|no"; "no settings" if there are none.
std::string str(const std::vector<SettingRule>& rules);

}  // namespace stairgrad::quant
