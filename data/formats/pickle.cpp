#include "pickle.h"

#include <algorithm>
#include <bit>
#include <unordered_map>

namespace stairgrad::data {

using Kind = Pickle::Kind;
using Value = Pickle::Value;

namespace {

constexpr size_t max_values = 2'000'000, max_memo = 1'000'000;
constexpr uint64_t max_line = 256;

enum Opcode : uint8_t {
  mark = '(',
  stop = '.',
  none = 'N',
  reduce = 'R',
  build = 'b',
  append = 'a',
  appends = 'e',
  set_item = 's',
  set_items = 'u',
  global = 'c',
  persistent_id = 'Q',
  empty_dict = '}',
  empty_list = ']',
  empty_tuple = ')',
  tuple = 't',
  integer4 = 'J',
  integer1 = 'K',
  integer2 = 'M',
  real8 = 'G',
  text4 = 'X',
  bytes1 = 'U',
  bytes4 = 'T',
  get1 = 'h',
  get4 = 'j',
  put1 = 'q',
  put4 = 'r',
  protocol = 0x80,
  tuple1 = 0x85,
  tuple2 = 0x86,
  tuple3 = 0x87,
  yes = 0x88,
  no = 0x89,
  long1 = 0x8a,
};

}  // namespace

/// The stack machine that a pickle is a program for.
class PickleMachine {
 public:
  PickleMachine(Reader& reader, const std::vector<std::string_view>& allowed, Pickle& pickle)
      : reader_(reader), allowed_(allowed), pickle_(pickle) {}

  const Value* run() {
    for (;;) {
      const uint8_t code = reader_.u8("an opcode of the pickle");
      if (code == stop) {
        if (stack_.size() != 1 || !marks_.empty())
          reader_.fail("the pickle ends with ", stack_.size(), " values");
        return stack_[0];
      }
      step(code);
    }
  }

 private:
  void step(uint8_t code) {
    switch (code) {
      case protocol:
        if (const int version = reader_.u8("the protocol"); version < 2 || version > 3)
          reader_.fail("got pickle protocol ", version,
                       ", expected 2 or 3; save the file with torch's default");
        break;
      case mark:
        marks_.push_back(stack_.size());
        break;
      case none:
        push(Kind::none);
        break;
      case yes:
      case no:
        push(Kind::boolean).integer = code == yes;
        break;
      case integer1:
        push(Kind::integer).integer = reader_.u8("an integer");
        break;
      case integer2:
        push(Kind::integer).integer = reader_.u16_le("an integer");
        break;
      case integer4:
        push(Kind::integer).integer = static_cast<int32_t>(reader_.u32_le("an integer"));
        break;
      case long1:
        push(Kind::integer).integer = long_integer();
        break;
      case real8: {
        uint64_t bits = 0;
        for (const uint8_t byte : reader_.take(8, "a number")) bits = bits << 8 | byte;
        push(Kind::real).real = std::bit_cast<double>(bits);
        break;
      }
      case text4:
      case bytes4:
        push_text(reader_.u32_le("the length of a string"));
        break;
      case bytes1:
        push_text(reader_.u8("the length of a string"));
        break;
      case empty_dict:
        push(Kind::dict);
        break;
      case empty_list:
        push(Kind::list);
        break;
      case empty_tuple:
        push(Kind::tuple);
        break;
      case tuple:
        push_tuple(take_marked());
        break;
      case tuple1:
      case tuple2:
      case tuple3: {
        std::vector<const Value*> items(static_cast<size_t>(code - tuple1 + 1));
        for (auto item = items.rbegin(); item != items.rend(); ++item) *item = pop();
        push_tuple(std::move(items));
        break;
      }
      case append:
        extend(Kind::list, {pop()});
        break;
      case appends:
        extend(Kind::list, take_marked());
        break;
      case set_item: {
        const Value* value = pop();
        const Value* key = pop();
        extend(Kind::dict, {key, value});
        break;
      }
      case set_items:
        extend(Kind::dict, take_marked());
        break;
      case global: {
        const std::string module = line(), name = module + '.' + line();
        if (std::ranges::find(allowed_, name) == allowed_.end())
          reader_.fail("the pickle names ", name, ", which is not allowed; it was not executed");
        push(Kind::global).text = name;
        break;
      }
      case reduce: {
        const Value* arguments = pop();
        const Value* function = pop();
        if (function->kind != Kind::global || arguments->kind != Kind::tuple)
          reader_.fail("the pickle calls something that is not a named function");
        if (function->text == "collections.OrderedDict" && arguments->items.empty()) {
          push(Kind::dict);
          break;
        }
        Value& call = push(Kind::call);
        call.text = function->text;
        call.items = {arguments};  // shared: a copy for each of many calls would fill the memory
        break;
      }
      case build:  // attributes of an OrderedDict, such as _metadata: of no use here
        if (pop()->kind != Kind::dict || top()->kind != Kind::dict)
          reader_.fail("the pickle sets attributes of something that is not an OrderedDict");
        break;
      case persistent_id: {
        const Value* id = pop();
        push(Kind::persistent).items = {id};
        break;
      }
      case put1:
        memorise(reader_.u8("a number of the memo"));
        break;
      case put4:
        memorise(reader_.u32_le("a number of the memo"));
        break;
      case get1:
        recall(reader_.u8("a number of the memo"));
        break;
      case get4:
        recall(reader_.u32_le("a number of the memo"));
        break;
      default:
        reader_.fail("the pickle has the opcode ", int{code},
                     ", which is not allowed; convert the file to safetensors with PyTorch");
    }
  }

  Value& push(Kind kind) {
    if (pickle_.values_.size() == max_values)
      reader_.fail("the pickle has more than ", max_values, " values");
    Value& value = pickle_.values_.emplace_back();
    value.kind = kind;
    value.position = reader_.position();
    stack_.push_back(&value);
    return value;
  }
  void push_text(uint64_t length) {
    const ByteView letters = reader_.take(length, "a string");
    push(Kind::text).text.assign(letters.begin(), letters.end());
  }
  void push_tuple(std::vector<const Value*> items) { push(Kind::tuple).items = std::move(items); }

  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  Value* top() const {
    if (stack_.size() <= floor()) reader_.fail("the pickle takes a value from an empty stack");
    return stack_.back();
  }
  Value* pop() {
    Value* value = top();
    stack_.pop_back();
    return value;
  }
  std::vector<const Value*> take_marked() {
    if (marks_.empty()) reader_.fail("the pickle has no mark where it needs one");
    const auto first = stack_.begin() + static_cast<ptrdiff_t>(marks_.back());
    std::vector<const Value*> items(first, stack_.end());
    stack_.erase(first, stack_.end());
    marks_.pop_back();
    return items;
  }
  void extend(Kind kind, const std::vector<const Value*>& items) {
    Value* container = top();
    if (container->kind != kind)
      reader_.fail("the pickle adds elements to something that is not a list or dict");
    if (kind == Kind::dict && items.size() % 2 != 0) reader_.fail("the pickle has a key without a value");
    container->items.insert(container->items.end(), items.begin(), items.end());
  }

  void memorise(uint32_t number) {
    if (number >= max_memo) reader_.fail("the pickle has more than ", max_memo, " remembered values");
    memo_[number] = top();
  }
  void recall(uint32_t number) {
    const auto found = memo_.find(number);
    if (found == memo_.end())
      reader_.fail("the pickle recalls value ", number, ", which it never remembered");
    if (stack_.size() == max_values) reader_.fail("the stack of the pickle is deeper than ", max_values);
    stack_.push_back(found->second);
  }

  int64_t long_integer() {
    const int count = reader_.u8("the length of an integer");
    if (count > 8) reader_.fail("the pickle has an integer of ", count, " bytes, expected at most 8");
    uint64_t bits = 0;
    for (int i = 0; i < count; ++i) bits |= uint64_t{reader_.u8("an integer")} << (8 * i);
    const int unused = 64 - 8 * count;
    return count == 0 ? 0 : static_cast<int64_t>(bits << unused) >> unused;  // extends the sign
  }
  std::string line() {
    std::string letters;
    for (char c; (c = static_cast<char>(reader_.u8("a name"))) != '\n';) {
      if (letters.size() == max_line)
        reader_.fail("the pickle has a name of more than ", max_line, " letters");
      letters += c;
    }
    return letters;
  }

  Reader& reader_;
  const std::vector<std::string_view>& allowed_;
  Pickle& pickle_;
  std::vector<Value*> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint32_t, Value*> memo_;
};

Pickle::Pickle(Reader& reader, const std::vector<std::string_view>& allowed) {
  root_ = PickleMachine(reader, allowed, *this).run();
}

}  // namespace stairgrad::data
