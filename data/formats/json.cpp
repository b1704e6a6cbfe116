#include "json.h"

#include <algorithm>

namespace stairgrad::data {
namespace {

constexpr size_t max_depth = 64;

/// Runs over the text and tells a watcher how far the parser has come.
struct Position {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = char;

  const uint8_t* at;
  const uint8_t** watcher;

  char operator*() const { return static_cast<char>(*at); }
  Position& operator++() {
    *watcher = ++at;
    return *this;
  }
  Position operator++(int) {
    const Position before = *this;
    ++*this;
    return before;
  }
  bool operator==(const Position& other) const { return at == other.at; }
};

/// Builds the value from the parser's events, which show what the finished value no longer does: duplicate
/// keys and the digits of a number.
class Builder : public nlohmann::json_sax<Json> {
 public:
  std::string reason;
  Json root;

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t& digits) override {
    if (digits.find_first_of(".eE") == string_t::npos)
      return refuse(text("the integer ", digits, " does not fit 64 bits"));
    return add(value);
  }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return refuse("binary values are not JSON text"); }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    if (stack_.back()->contains(name)) return refuse("the key \"" + name + "\" occurs twice");
    slot_ = &(*stack_.back())[name];
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) override {
    const std::string message = error.what();  // "[json.exception...] parse error at line 1, column 2: ..."
    const size_t colon = message.find(": ");
    return refuse(colon == std::string::npos ? message : message.substr(colon + 2));
  }

 private:
  bool refuse(const std::string& why) {
    reason = why;
    return false;
  }
  Json* place(Json&& value) {
    if (stack_.empty()) return &(root = std::move(value));
    if (stack_.back()->is_array()) {
      stack_.back()->push_back(std::move(value));
      return &stack_.back()->back();
    }
    return &(*slot_ = std::move(value));
  }
  bool add(Json&& value) {
    place(std::move(value));
    return true;
  }
  bool open(Json&& container) {
    if (stack_.size() == max_depth) return refuse(text("the nesting is deeper than ", max_depth));
    stack_.push_back(place(std::move(container)));
    return true;
  }
  bool close() {
    stack_.pop_back();
    return true;
  }

  std::vector<Json*> stack_;  // open containers; pointers stay valid as only the innermost one grows
  Json* slot_ = nullptr;      // where the value of the latest key goes
};

}  // namespace

Json parse_json(ByteView bytes, const std::string& path, uint64_t limit, uint64_t base) {
  if (bytes.size() > limit)
    throw format_error(path, base, text("the JSON text has ", bytes.size(), " bytes, the limit is ", limit));
  if (bytes.size() >= 3 && bytes[0] == 0xef && bytes[1] == 0xbb && bytes[2] == 0xbf)
    throw format_error(path, base, "line 1:1: the text begins with a byte-order mark; save it without one");
  const uint8_t* reached = bytes.data();
  Builder builder;
  const Position first{bytes.data(), &reached}, last{bytes.data() + bytes.size(), &reached};
  if (!Json::sax_parse(first, last, &builder)) {
    const uint64_t offset = base + static_cast<uint64_t>(reached - bytes.data());
    const auto line = 1 + std::count(bytes.data(), reached, '\n');
    const uint8_t* line_start = reached;
    while (line_start > bytes.data() && line_start[-1] != '\n') --line_start;
    throw format_error(path, offset,
                       text("line ", line, ':', std::max<std::ptrdiff_t>(1, reached - line_start), ": ",
                            builder.reason, hint(bytes)));
  }
  return std::move(builder.root);
}

Json read_json(const std::string& path) { return parse_json(read_file(path, 16 << 20), path); }

}  // namespace stairgrad::data
