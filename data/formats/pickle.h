// Python pickles, read without executing anything: values come out, and calls of a few named functions come
// out as descriptions of those calls. Internal to the .pth reader.
#pragma once

#include <deque>
#include <string_view>
#include <vector>

#include "file.h"

namespace stairgrad::data {

class Pickle {
 public:
  enum class Kind { none, boolean, integer, real, text, tuple, list, dict, global, call, persistent };
  struct Value {
    Kind kind = Kind::none;
    uint64_t position = 0;  ///< in the file, behind the opcode that made it
    int64_t integer = 0;
    double real = 0;
    std::string text;                 ///< a string, or the name of a global or of what is called
    std::vector<const Value*> items;  ///< elements; keys and values; the arguments' tuple; the persistent id
  };

  /// Reads one pickle, up to its STOP. Globals other than `allowed` ("module.name"), opcodes other than those
  /// that torch.save writes, and stacks or memos without bound are refused with format_error.
  Pickle(Reader& reader, const std::vector<std::string_view>& allowed);

  const Value& root() const { return *root_; }
  /// Every value that occurs, in the order of the file.
  const std::deque<Value>& values() const { return values_; }

 private:
  friend class PickleMachine;
  std::deque<Value> values_;  // owns everything, so that neither cycles nor depth matter when it is destroyed
  const Value* root_ = nullptr;
};

}  // namespace stairgrad::data
