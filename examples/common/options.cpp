#include "options.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>
#include <limits>

#include "../../data/dataset.h"
#include "../../kernels/error.h"
#include "../../kernels/nearest.h"
#include "../../kernels/threads.h"
#include "interrupt.h"
#include "spinning.h"

namespace stairgrad::examples {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

struct Option {
  std::string name;  // "epochs"
  CLI::Option* cli;
  Value value;
  double low = -infinity, high = infinity;
  std::vector<std::string> choices;
  std::function<Value(const std::string&)> take;
};

std::string join(const std::vector<std::string>& words, const char* between) {
  std::string joined;
  for (const std::string& word : words) joined += (joined.empty() ? "" : between) + word;
  return joined;
}

template <class T>
T parse_number(const std::string& word) {
  T value{};
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  check(error != std::errc::result_out_of_range, "got ", word, ", which is too large or too small");
  const bool whole = std::is_integral_v<T>;
  check(error == std::errc() && end == word.data() + word.size(), "got \"", word, "\", expected a ",
        whole ? std::is_signed_v<T> ? "whole number" : "whole number of 0 or more" : "number");
  if constexpr (!std::is_integral_v<T>)
    check(std::isfinite(value), "got ", word, ", expected a finite number");
  return value;
}

}  // namespace

struct Options::Impl {
  std::string program;
  CLI::App app;
  std::vector<std::unique_ptr<Option>> options;

  void check_limits(const Option& option, const std::string& word) const {
    const double number = option.value.number();
    const bool within = !(number < option.low) && !(number > option.high);
    if (option.high < infinity) {
      check(within, option.cli->get_name(), ": got ", word, ", expected ", option.low, " to ", option.high);
    } else {
      check(within, option.cli->get_name(), ": got ", word, ", expected at least ", option.low);
    }
    if (option.choices.empty()) return;
    const bool known = std::find(option.choices.begin(), option.choices.end(), word) != option.choices.end();
    check(known, option.cli->get_name(), ": got \"", word, "\", expected one of ",
          join(option.choices, ", "));
  }

  std::string suggestion(const std::string& unknown) const {
    std::vector<std::string> known;
    for (const CLI::Option* option : app.get_options())
      for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
    const std::string best = nearest(unknown, known, /*furthest=*/2);
    return best.empty() ? "" : "; did you mean " + best + "?";
  }
};

Options::Options(std::string program, std::string description, std::vector<std::string> examples)
    : impl_(std::make_unique<Impl>()) {
  impl_->program = program;
  impl_->app.name(program);
  impl_->app.description(std::move(description));
  impl_->app.set_help_flag("-h,--help", "Show this");
  impl_->app.get_formatter()->column_width(30);
  impl_->app.get_formatter()->label("OPTIONS", "options");
  if (!examples.empty()) impl_->app.footer("\nExamples:\n  " + join(examples, "\n  "));
}

Options::~Options() = default;

Options& Options::add_parsed(const std::string& name, std::function<Value(const std::string&)> take,
                             const std::string& kind, const Value& shown, const std::string& help) {
  auto option = std::make_unique<Option>();
  Option* const o = option.get();
  o->take = std::move(take);
  o->value = shown;
  o->cli = impl_->app.add_option_function<std::string>(
      name,
      [this, o](const std::string& word) {
        try {
          o->value = o->take(word);
        } catch (const argument_error& error) {
          throw argument_error(text(o->cli->get_name(), ": ", error.what()));
        }
        impl_->check_limits(*o, word);
      },
      help);
  o->cli->type_name(kind);
  const std::string json = shown.json();
  o->cli->default_str(json == "null" || json == "\"\"" ? "" : json);
  o->name = o->cli->get_lnames().empty() ? name : o->cli->get_lnames()[0];
  impl_->options.push_back(std::move(option));
  return *this;
}

Options& Options::add(const std::string& name, int& value, const std::string& help) {
  return add_parsed(
      name, [&value](const auto& word) { return value = parse_number<int>(word); }, "N", value, help);
}
Options& Options::add(const std::string& name, int64_t& value, const std::string& help) {
  return add_parsed(
      name, [&value](const auto& w) { return value = parse_number<int64_t>(w); }, "N", value, help);
}
Options& Options::add(const std::string& name, uint64_t& value, const std::string& help) {
  return add_parsed(
      name, [&value](const auto& w) { return value = parse_number<uint64_t>(w); }, "N", value, help);
}
Options& Options::add(const std::string& name, double& value, const std::string& help) {
  return add_parsed(
      name, [&value](const auto& word) { return value = parse_number<double>(word); }, "X", value, help);
}
Options& Options::add(const std::string& name, std::string& value, const std::string& help) {
  return add_parsed(
      name, [&value](const auto& word) { return value = word; }, "WORD", value, help);
}

Options& Options::add(const std::string& name, bool& value, const std::string& help) {
  auto option = std::make_unique<Option>();
  Option* const o = option.get();
  o->value = value;
  o->cli = impl_->app.add_flag_callback(
      name, [o, &value] { o->value = value = true; }, help);
  o->name = o->cli->get_lnames()[0];
  impl_->options.push_back(std::move(option));
  return *this;
}

Options& Options::add_words(const std::string& name, std::vector<std::string>& values,
                            const std::string& help) {
  auto option = std::make_unique<Option>();
  Option* const o = option.get();
  o->name = name;
  o->value = Value::list(values);
  o->cli = impl_->app.add_option_function<std::vector<std::string>>(
      name, [o, &values](const auto& words) { o->value = Value::list(values = words); }, help);
  o->cli->type_name("");
  impl_->options.push_back(std::move(option));
  return *this;
}

Options& Options::between(double low, double high) {
  impl_->options.back()->low = low;
  impl_->options.back()->high = high;
  impl_->options.back()->cli->type_name(text(low, "..", high));
  return *this;
}

Options& Options::at_least(double low) {
  impl_->options.back()->low = low;
  return *this;
}

Options& Options::one_of(std::vector<std::string> words) {
  impl_->options.back()->cli->type_name(join(words, "|"));
  impl_->options.back()->choices = std::move(words);
  return *this;
}

void Options::parse(int argc, const char* const* argv) {
  try {
    impl_->app.parse(argc, const_cast<char**>(argv));
  } catch (const CLI::CallForHelp&) {
    std::cout << impl_->app.help() << std::flush;
    throw Exit{0};
  } catch (const CLI::ExtrasError&) {
    const std::string word = impl_->app.remaining().empty() ? "an option" : impl_->app.remaining()[0];
    throw argument_error(
        text("unknown option ", word, impl_->suggestion(word), " (", impl_->program, " --help lists them)"));
  } catch (const CLI::ParseError& error) {
    throw argument_error(text(error.what(), " (", impl_->program, " --help shows how)"));
  }
}

bool Options::given(const std::string& name) const { return impl_->app.count(name) > 0; }

Value Options::values() const {
  Value all = Value::Group{};
  for (const auto& option : impl_->options) all.set(option->name, option->value);
  return all;
}

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> words;
  for (size_t at = 0; at < list.size();) {
    const size_t end = std::min(list.find(',', at), list.size());
    words.push_back(list.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

std::vector<int> parse_bits(const std::string& option, const std::string& list) {
  std::vector<int> bits;
  for (const std::string& word : split(list)) {
    check(word.size() == 1 && word[0] >= '1' && word[0] <= '8', option, ' ', list, ": got \"", word,
          "\", expected bits from 1 to 8 with commas between");
    bits.push_back(word[0] - '0');
  }
  return bits;
}

void CommonOptions::add_to(Options& options, const std::string& default_out) {
  out = default_out;
  options.add("--out", out, "folder for everything this program writes");
  const auto find_data = [this](const std::string& word) {
    data = data::find_file(word);
    return word;
  };
  options.add_parsed("--data", find_data, "WORD", "",
                     "folder of the data sets (default: $STAIRGRAD_DATA, then ~/.cache/stairgrad, then the "
                     "system's); a relative name may also be one in there");
  options.add("--seed", seed, "the same seed gives the same weights, bit for bit").at_least(0);
  const auto take_threads = [](const std::string& word) {
    const int wanted = parse_number<int>(word);
    check(wanted >= 1 && wanted <= 1024, "got ", word, ", expected 1 to 1024");
    set_threads(wanted);
    return wanted;
  };
  options.add_parsed("--threads", take_threads, "N", threads(), "threads to compute with");
  options.add("--resume", resume, "go on where an interrupted run in --out stopped");
}

int run_program(const std::function<int()>& body) {
  limit_spinning();
  try {
    return body();
  } catch (const Exit& exit) {
    return exit.code;
  } catch (const Interrupted&) {
    std::cerr << "stopped as asked; the same command with --resume goes on from here\n";
    return 130;
  } catch (const std::bad_alloc&) {
    std::cerr << "error: out of memory; a smaller --batch needs less\n";
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
  }
  return 1;
}

}  // namespace stairgrad::examples
