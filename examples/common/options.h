// Command-line options: every program has the same manners.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "value.h"

namespace stairgrad::examples {

/// Thrown to leave a program early with an exit code, after what there was to say has been said.
struct Exit {
  int code;
};

/// The options of one program. Add them, then parse(); values keep what they hold unless the user says
/// otherwise.
///
///     int epochs = 10;
///     Options options("train", "Trains a network in full precision.");
///     options.add("--epochs", epochs, "passes over the training images").at_least(0);
///     options.parse(argc, argv);
///
/// An unknown option (with the nearest name that exists), a value of the wrong type and one out of range
/// throw argument_error; --help prints what there is to know and throws Exit{0}.
class Options {
 public:
  /// `examples`: lines that --help shows at its end.
  Options(std::string program, std::string description, std::vector<std::string> examples = {});
  ~Options();

  /// A named option ("--epochs" or "-e,--epochs"). A bool is a flag without a value.
  Options& add(const std::string& name, bool& value, const std::string& help);
  Options& add(const std::string& name, int& value, const std::string& help);
  Options& add(const std::string& name, int64_t& value, const std::string& help);
  Options& add(const std::string& name, uint64_t& value, const std::string& help);
  Options& add(const std::string& name, double& value, const std::string& help);
  Options& add(const std::string& name, std::string& value, const std::string& help);
  /// Words without a dash in front, `name` in capitals: "IMAGE".
  Options& add_words(const std::string& name, std::vector<std::string>& values, const std::string& help);
  /// An option whose word `take` turns into a value; it throws argument_error for a word it does not
  /// understand. `shown` is what --help gives as the default.
  Options& add_parsed(const std::string& name, std::function<Value(const std::string&)> take,
                      const std::string& kind, const Value& shown, const std::string& help);

  // Limits of the option that was added last.
  Options& between(double low, double high);
  Options& at_least(double low);
  Options& one_of(std::vector<std::string> words);

  void parse(int argc, const char* const* argv);

  /// Whether the command line has the option ("--epochs"), whatever its value.
  bool given(const std::string& name) const;
  /// Every option and its value, for result.json.
  Value values() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The words of a list with commas between.
std::vector<std::string> split(const std::string& list);
/// The same as bits from 1 to 8; throws argument_error naming the option whose value `list` is.
std::vector<int> parse_bits(const std::string& option, const std::string& list);

/// The options of every program that works for a while.
struct CommonOptions {
  uint64_t seed = 0;
  std::string out;
  std::string data;  ///< empty: the usual places
  bool resume = false;

  /// Adds --seed, --out (default `out`), --data and --resume; and --threads, which takes effect at once.
  void add_to(Options& options, const std::string& out);
};

/// Runs `body` and returns the exit code of the program: what body returns; 1 after an exception, whose
/// message is printed as "error: ..."; 130 after an interrupt.
int run_program(const std::function<int()>& body);

}  // namespace stairgrad::examples
