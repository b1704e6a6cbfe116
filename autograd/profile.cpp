#include "profile.h"

#include "recorder.h"

namespace stairgrad {
namespace {

thread_local OpObserver* observer = nullptr;

size_t bytes_of(const Arrays& arrays) {
  size_t total = 0;
  for (const Array& a : arrays)
    if (a.has_value()) total += a.bytes();
  return total;
}

}  // namespace

OpObserver::OpObserver() : previous_(observer) { observer = this; }
OpObserver::~OpObserver() { observer = previous_; }
OpObserver* OpObserver::current() { return observer; }

Arrays Profile::run(const Op& op, const Arrays& inputs) {
  const double begin = now();
  Arrays outputs = op.forward(inputs);
  const double seconds = now() - begin;
  ops_.push_back({std::string(op.name()), Scope::path(), outputs.empty() ? Shape{} : outputs[0].shape(),
                  begin, seconds, bytes_of(inputs) + bytes_of(outputs)});
  return outputs;
}

std::string Profile::chrome_trace() const {
  std::string out = "[";
  const auto write = [&](const Event& e, const char* row) {
    out += text(out.size() > 1 ? ",\n" : "\n", R"({"ph":"X","pid":1,"tid":")", row, R"(","name":")", e.name,
                R"(","ts":)", std::fixed, 1e6 * e.begin, R"(,"dur":)", 1e6 * e.seconds,
                R"(,"args":{"scope":")", e.scope, R"(","shape":")", e.shape, R"(","bytes":)", e.bytes, "}}");
  };
  for (const Event& e : spans_) write(e, "step");
  for (const Event& e : ops_) write(e, "ops");
  return out + "\n]\n";
}

}  // namespace stairgrad
