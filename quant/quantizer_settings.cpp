#include "quantizer_settings.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "../kernels/error.h"
#include "../kernels/nearest.h"

namespace stairgrad::quant {
namespace {

std::string joined(const std::vector<std::string>& words, const char* between) {
  std::string all;
  for (const std::string& word : words) all += (all.empty() ? "" : between) + word;
  return all;
}

double parse_number(const std::string& name, const SettingRule& rule, const std::string& value) {
  double number = 0;
  const char* end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, number);
  check(error == std::errc() && stop == end && number >= rule.low && number <= rule.high, "[", name, "] ",
        rule.key, ": got '", value, "', expected a number from ", rule.low, " to ", rule.high);
  return number;
}

template <class Value>
const Value& found(const std::map<std::string, Value>& values, const std::string& key) {
  const auto entry = values.find(key);
  check(entry != values.end(), "[quantizer] no rule for the setting '", key,
        "'; give one to register_quantizer and make the quantizer with make_quantizer");
  return entry->second;
}

}  // namespace

SettingRule SettingRule::number(const std::string& key, double otherwise, double low, double high) {
  return {key, otherwise, low, high, {}};
}

SettingRule SettingRule::flag(const std::string& key, bool otherwise) {
  return choice(key,
                otherwise ? std::vector<std::string>{"yes", "no"} : std::vector<std::string>{"no", "yes"});
}

SettingRule SettingRule::choice(const std::string& key, const std::vector<std::string>& words) {
  return {key, 0, 0, 0, words};
}

std::string SettingRule::str() const {
  return words.empty() ? text(key, '=', value, " (", low, " .. ", high, ')')
                       : text(key, '=', joined(words, "|"));
}

std::string str(const std::vector<SettingRule>& rules) {
  std::vector<std::string> all;
  for (const SettingRule& rule : rules) all.push_back(rule.str());
  return all.empty() ? "no settings" : joined(all, ", ");
}

QuantizerSettings::QuantizerSettings(const std::string& name, const std::string& given,
                                     const std::vector<SettingRule>& rules) {
  std::vector<std::string> keys;
  for (const SettingRule& rule : rules) {
    keys.push_back(rule.key);
    if (rule.words.empty())
      numbers_[rule.key] = rule.value;
    else
      words_[rule.key] = rule.words.front();
  }
  std::set<std::string> seen;
  for (size_t begin = 0; begin < given.size();) {
    const size_t end = std::min(given.find(',', begin), given.size());
    const std::string item = given.substr(begin, end - begin);
    begin = end + 1;
    const size_t equals = item.find('=');
    check(equals != std::string::npos, "[", name, "] got '", item,
          "', expected key=value, separated by commas; it takes: ", str(rules));
    const std::string key = item.substr(0, equals), value = item.substr(equals + 1);
    const auto rule = std::find_if(rules.begin(), rules.end(), [&](const auto& r) { return r.key == key; });
    if (rule == rules.end()) {
      const std::string close = nearest(key, keys);
      throw argument_error(text("[", name, "] unknown setting '", key, "'",
                                close.empty() ? "" : "; did you mean '" + close + "'?",
                                " It takes: ", str(rules)));
    }
    check(seen.insert(key).second, "[", name, "] got the setting '", key, "' twice, expected it once");
    if (rule->words.empty()) {
      numbers_[key] = parse_number(name, *rule, value);
    } else {
      check(std::find(rule->words.begin(), rule->words.end(), value) != rule->words.end(), "[", name, "] ",
            key, ": got '", value, "', expected one of: ", joined(rule->words, ", "));
      words_[key] = value;
    }
  }
}

double QuantizerSettings::number(const std::string& key) const { return found(numbers_, key); }
const std::string& QuantizerSettings::choice(const std::string& key) const { return found(words_, key); }

}  // namespace stairgrad::quant
