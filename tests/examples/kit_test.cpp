// The kit of the programs: what they print, write and accept.
#include <doctest/doctest.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "../../examples/common/chart.h"
#include "../../examples/common/interrupt.h"
#include "../../examples/common/labels.h"
#include "../../examples/common/machine.h"
#include "../../examples/common/options.h"
#include "../../examples/common/pictures.h"
#include "../../examples/common/report.h"
#include "../../examples/common/run_directory.h"
#include "../../examples/common/statistics.h"
#include "../../examples/common/table.h"
#include "../environment.h"
#include "../folder.h"
#include "../message.h"

namespace fs = std::filesystem;
using namespace stairgrad;
using namespace stairgrad::examples;

namespace {

/// A folder that is gone at the end of the test.
std::string content(const std::string& path) {
  std::ostringstream all;
  all << std::ifstream(path).rdbuf();
  return all.str();
}

/// What parse() says against the words, or "" if it is content.
std::string complaint(Options& options, std::vector<const char*> words) {
  words.insert(words.begin(), "program");
  return message_of<argument_error>([&] { options.parse(static_cast<int>(words.size()), words.data()); });
}

}  // namespace

TEST_CASE("numbers as people read them") {
  CHECK(count(0) == "0");
  CHECK(count(999) == "999");
  CHECK(count(1000) == "1,000");
  CHECK(count(1234567) == "1,234,567");
  CHECK(count(-1234567) == "-1,234,567");
  CHECK(count(-123) == "-123");
  CHECK(percent(91.734) == "91.73 %");
  CHECK(fixed(std::nan(""), 2) == "-");
  CHECK(scaled(41e6) == "41.0 M");
  CHECK(bytes(1200) == "1.20 kB");
  CHECK(bytes(12) == "12 B");
  CHECK(duration(80) == "1 min 20 s");
  CHECK(duration(3.14) == "3.1 s");
  CHECK(duration(7260) == "2 h 1 min");
}

TEST_CASE("intervals are those of Student's t distribution, of few degrees of freedom and of many") {
  const std::map<size_t, double> quantiles = {{1, 12.7062}, {4, 2.7764},  {9, 2.2622}, {10, 2.2281},
                                              {11, 2.2010}, {15, 2.1314}, {30, 2.0423}};
  for (const auto& [degrees, t] : quantiles) {
    CAPTURE(degrees);
    std::vector<double> x(degrees + 1, 3.0);
    x[0] = 4;
    x[1] = 2;
    const Interval found = mean_interval(x);
    CHECK(mean(x) == doctest::Approx(3));
    CHECK(deviation(x) == doctest::Approx(std::sqrt(2 / static_cast<double>(degrees))));
    const double half = t * deviation(x) / std::sqrt(static_cast<double>(x.size()));
    CHECK(found.high - 3 == doctest::Approx(half).epsilon(5e-5));
    CHECK(3 - found.low == doctest::Approx(half).epsilon(5e-5));
  }
  CHECK(std::isnan(mean_interval({1}).low));
}

TEST_CASE("McNemar's exact test: two tails of the binomial distribution, and never more than 1") {
  CHECK(mcnemar(10, 2) == doctest::Approx(0.038574).epsilon(1e-5));
  const Paired paired = compare_answers({true, true, false, false, true}, {true, false, false, true, false});
  CHECK(paired.lost == 2);
  CHECK(paired.gained == 1);
  CHECK(paired.p == mcnemar(2, 1));
  CHECK(mcnemar(2, 10) == doctest::Approx(0.038574).epsilon(1e-5));
  CHECK(mcnemar(5, 5) == 1);
  CHECK(mcnemar(0, 0) == 1);
}

TEST_CASE("percentiles are values that were seen") {
  std::vector<double> x;
  for (int i = 200; i > 0; --i) x.push_back(i);
  CHECK(percentile(x, 0) == 1);
  CHECK(percentile(x, 0.5) == 101);
  CHECK(percentile(x, 0.95) == 191);
  CHECK(percentile(x, 0.99) == 199);
  CHECK(percentile(x, 1) == 200);
  CHECK(percentile({3}, 0.99) == 3);
}

TEST_CASE("a table aligns words to the left and numbers to the right") {
  Table table({"model", "top-1"});
  table.row({"float", "91.70 %"}).row({"größer", "9 %"});
  CHECK(table.text() ==
        "model      top-1\n"
        "──────   ───────\n"
        "float    91.70 %\n"
        "größer       9 %\n");
  CHECK_THROWS_AS(table.row({"one cell"}), argument_error);
  CHECK(contains(Table({"a<b"}).html(), "<th>a&lt;b</th>"));
}

TEST_CASE("values survive JSON") {
  Value value = Value::Group{};
  value.set("accuracy.float", 91.5);
  value.set("accuracy.integer", 90);
  value.set("name", "a \"quoted\" word");
  value.set("list", Value::list(std::vector<int>{1, 2}));
  value.set("nothing", std::nan(""));
  value.set("yes", true);
  const std::string json =
      R"({"accuracy":{"float":91.5,"integer":90},"name":"a \"quoted\" word","list":[1,2],"nothing":null,"yes":true})";
  CHECK(value.json() == json);
  CHECK(Value::parse(json).json() == json);
  CHECK(value.find("accuracy.float")->number() == 91.5);
  CHECK(value.find("accuracy.double") == nullptr);
  CHECK(value.find("name.first") == nullptr);
  CHECK_THROWS_AS(Value::parse("{\"half\": "), argument_error);
}

TEST_CASE("lists are split at commas, and bits are from 1 to 8") {
  CHECK(split("").empty());
  CHECK(split("none") == std::vector<std::string>{"none"});
  CHECK(split("pred,sim:0.9,") == std::vector<std::string>{"pred", "sim:0.9"});
  CHECK(split(",2") == std::vector<std::string>{"", "2"});
  CHECK(parse_bits("--progressive", "8,4") == std::vector<int>{8, 4});
  CHECK(parse_bits("--progressive", "").empty());
  for (const char* list : {"8,x", "9", "0,4", "10", "8,,4"})
    CHECK(contains(message_of<argument_error>([&] { parse_bits("--progressive", list); }),
                   text("--progressive ", list, ": got ")));
}

TEST_CASE("options take values and name their mistakes") {
  int bits = 4;
  double rate = 0.1;
  uint64_t seed = 0;
  bool quiet = false;
  std::string name = "dsq";
  Options options("program", "A program.");
  options.add("--wbits", bits, "bits of weights").between(1, 8);
  options.add("--lr", rate, "learning rate").at_least(0);
  options.add("--seed", seed, "seed");
  options.add("--quiet", quiet, "say less");
  options.add("--quantizer", name, "quantizer").one_of({"dsq", "lsq"});

  SUBCASE("given") {
    CHECK(complaint(options, {"--wbits", "8", "--lr=1e-3", "--quiet", "--quantizer", "lsq", "--seed", "7"}) ==
          "");
    CHECK(bits == 8);
    CHECK(rate == 1e-3);
    CHECK(seed == 7);
    CHECK(quiet);
    CHECK(name == "lsq");
    CHECK(options.values().json() == R"({"wbits":8,"lr":0.001,"seed":7,"quiet":true,"quantizer":"lsq"})");
  }
  SUBCASE("left alone") {
    CHECK(complaint(options, {}) == "");
    CHECK(options.values().json() == R"({"wbits":4,"lr":0.1,"seed":0,"quiet":false,"quantizer":"dsq"})");
  }
  SUBCASE("wrong") {
    CHECK(complaint(options, {"--wbits", "0"}) == "--wbits: got 0, expected 1 to 8");
    CHECK(complaint(options, {"--wbits", "33"}) == "--wbits: got 33, expected 1 to 8");
    CHECK(
        contains(complaint(options, {"--wbits", "four"}), "--wbits: got \"four\", expected a whole number"));
    CHECK(contains(complaint(options, {"--wbits", "4.5"}), "--wbits: got \"4.5\""));
    CHECK(contains(complaint(options, {"--wbits", "99999999999"}), "too large"));
    CHECK(contains(complaint(options, {"--lr", "nan"}), "finite"));
    CHECK(contains(complaint(options, {"--lr", "-1"}), "at least 0"));
    CHECK(contains(complaint(options, {"--seed", "-1"}), "0 or more"));
    CHECK(contains(complaint(options, {"--wbit", "4"}), "unknown option --wbit; did you mean --wbits?"));
    CHECK(contains(complaint(options, {"--nothing-like-it"}), "unknown option --nothing-like-it ("));
    CHECK(contains(complaint(options, {"word"}), "unknown option word"));
    CHECK(complaint(options, {"--quantizer", "xyz"}) == "--quantizer: got \"xyz\", expected one of dsq, lsq");
    CHECK(complaint(options, {"--wbits"}) != "");
  }
}

TEST_CASE("--data takes a folder here, or one in the usual place of data") {
  const Folder usual;
  fs::create_directory(usual / "pictures");
  const Environment environment("STAIRGRAD_DATA", usual.path.string());
  const auto found = [](const std::string& word) {
    CommonOptions common;
    Options options("program", "A program.");
    common.add_to(options, "out");
    CHECK(complaint(options, {"--data", word.c_str()}) == "");
    CHECK(contains(options.values().json(), "\"data\":\"" + word + "\""));
    return common.data;
  };
  CHECK(found("pictures") == usual / "pictures");
  CHECK(found("nowhere") == "nowhere");
  CHECK(found(usual.path.string()) == usual.path.string());
}

TEST_CASE("run_program turns what happens into an exit code") {
  CHECK(run_program([] { return 0; }) == 0);
  CHECK(run_program([]() -> int { throw argument_error("a test's own error, expected in this output"); }) ==
        1);
  CHECK(run_program([]() -> int { throw Exit{0}; }) == 0);
  CHECK(run_program([]() -> int { throw Interrupted{}; }) == 130);
}

TEST_CASE("the first interrupt is noted, and only while somebody listens") {
  {
    const Interrupt interrupt;
    CHECK(!interrupt.requested());
    CHECK_NOTHROW(interrupt.stop_here());
    std::raise(SIGTERM);
    CHECK(interrupt.requested());
    CHECK_THROWS_AS(interrupt.stop_here(), Interrupted);
  }
  const Interrupt next;
  CHECK(!next.requested());
}

TEST_CASE("a run directory") {
  const Folder folder;
  const std::string path = folder / "deep/out";

  SUBCASE("keeps metrics and writes the result at the end") {
    RunDirectory run(path, false);
    run.metrics({{"epoch", 1}, {"loss", 0.5}});
    run.metrics({{"epoch", 2}, {"loss", 0.25}});
    CHECK(content(path + "/metrics.jsonl") == "{\"epoch\":1,\"loss\":0.5}\n{\"epoch\":2,\"loss\":0.25}\n");
    CHECK(run.series("epoch", "loss").y == std::vector<double>{0.5, 0.25});
    CHECK(!run.has("result.json"));
    run.describe("test", Value::Group{}, 3);
    run.seconds("train", 1.5);
    run.finish();
    const Value result = Value::parse(content(path + "/result.json"));
    for (const char* key :
         {"options", "versions.onednn", "versions.openblas", "cpu.name", "seed", "seconds.train"}) {
      CHECK_MESSAGE(result.find(key), key);
    }
  }
  SUBCASE("goes on after a run that was killed in the middle of a line") {
    { RunDirectory(path, false).metrics({{"phase", "a"}, {"epoch", 1}, {"loss", 0.5}}); }
    std::ofstream(path + "/metrics.jsonl", std::ios::app) << "{\"phase\":\"a\",\"epoch\":2,\"lo";
    RunDirectory run(path, true);
    for (const int epoch : {2, 3}) run.metrics({{"phase", "a"}, {"epoch", epoch}, {"loss", 0.3}});
    run.metrics({{"phase", "b"}, {"epoch", 4}, {"loss", 0.2}});
    CHECK(run.series("epoch", "loss").x == std::vector<double>{1, 2, 3, 4});
    run.forget_metrics_after("a", 2);
    CHECK(run.series("epoch", "loss").x == std::vector<double>{1, 2, 4});
    CHECK(content(path + "/metrics.jsonl").starts_with("{\"phase\":\"a\",\"epoch\":1,\"loss\":0.5}\n{"));
  }
  SUBCASE("starts anew") {
    {
      RunDirectory run(path, false);
      run.metrics({{"epoch", 1}});
      run.finish();
    }
    const RunDirectory run(path, false);
    CHECK(!run.has("metrics.jsonl"));
    CHECK(!run.has("result.json"));
  }
  SUBCASE("clears away what a killed run was writing, but nothing of a run that still writes") {
    { RunDirectory(path, false).metrics({{"epoch", 1}}); }
    for (const bool resume : {true, false}) {
      const std::string part = path + "/last.ckpt.123.0.part";
      std::ofstream(part) << "half";
      std::ofstream(path + "/last.ckpt") << "whole";
      {
        const RunDirectory run(path, resume);
        CHECK(!fs::exists(part));
        CHECK(run.has("last.ckpt") == resume);
        std::ofstream(part) << "half";
        CHECK_THROWS_AS(RunDirectory(path, resume), unavailable_error);
        CHECK(fs::exists(part));
      }
    }
  }
  SUBCASE("refuses a second run beside the first, until that ends") {
    {
      const RunDirectory first(path, false);
      CHECK_THROWS_AS(RunDirectory(path, true), unavailable_error);
    }
    CHECK_NOTHROW(RunDirectory(path, true));
  }
  SUBCASE("is free again after a run that could not start") {
    fs::create_directories(path + "/result.json/in the way");
    CHECK_THROWS_AS(RunDirectory(path, false), fs::filesystem_error);
    fs::remove_all(path + "/result.json");
    CHECK_NOTHROW(RunDirectory(path, false));
  }
  SUBCASE("refuses a path that is no folder") {
    std::ofstream(folder / "file") << "x";
    CHECK_THROWS_AS(RunDirectory(folder / "file", false), unavailable_error);
    CHECK_THROWS_AS(RunDirectory(folder / "file/below", false), unavailable_error);
    CHECK_THROWS_AS(RunDirectory("/proc/stairgrad", false), unavailable_error);
    CHECK_THROWS_AS(RunDirectory("", false), argument_error);
    CHECK(content(folder / "file") == "x");
  }
}

TEST_CASE("a report is one page with everything in it") {
  const Folder folder;
  Report report("Title <1>", "subtitle");
  report.section("Section & more");
  report.paragraph("text");
  report.table(Table({"a", "b"}).row({"c", "d"}));
  report.curves("loss", "epoch", "loss", {{"train", {1, 2, 3}, {3, 2, 1}}, {"test", {1, 2, 3}, {3, 3, 3}}});
  report.curves("flat", "epoch", "loss", {{"one", {1}, {1}}, {"none", {}, {}}});
  report.bars("bits", {"weights", "activations"}, {{"conv1", {8, 8}}, {"layer1", {4, std::nan("")}}});
  report.pictures("images", {{Array::full(Shape{4, 4, 3}, 128, DType::u8), "grey"}});
  report.save(folder / "report.html");
  const std::string html = content(folder / "report.html");
  CHECK(html == report.html());
  CHECK(contains(html, "<title>Title &lt;1&gt;</title>"));
  CHECK(contains(html, "Section &amp; more"));
  CHECK(contains(html, "data:image/png;base64,iVBORw0KGgo"));
  CHECK(!contains(html, "nan"));
  CHECK(!contains(html, "http"));
  size_t open = 0, close = 0;
  for (size_t at = 0; (at = html.find("<svg", at)) != std::string::npos; ++at) ++open;
  for (size_t at = 0; (at = html.find("</svg>", at)) != std::string::npos; ++at) ++close;
  CHECK(open == 3);
  CHECK(close == 3);
}

TEST_CASE("pictures") {
  const Array grey = picture_of(Array::of<float>({-1, 0, 0.5f, 2}, Shape{2, 2, 1}));
  CHECK(grey.shape() == Shape{2, 2, 3});
  CHECK(grey.to_vector() == std::vector<double>{0, 0, 0, 0, 0, 0, 128, 128, 128, 255, 255, 255});

  const Array large = enlarge(grey, 3);
  CHECK(large.shape() == Shape{6, 6, 3});
  CHECK(large.to_vector()[0] == 0);
  CHECK(large.to_vector()[(5 * 6 + 5) * 3] == 255);
  CHECK(large.to_vector()[(3 * 6 + 2) * 3] == 128);

  const Array cold = heat_overlay(grey, Array::of<float>({0}, Shape{1, 1}));
  CHECK(cold.to_vector() == grey.to_vector());
  const std::vector<double> hot = heat_overlay(grey, Array::of<float>({1}, Shape{1, 1}), 1).to_vector();
  CHECK(hot[0] > hot[2]);  // red

  const Array sheet = contact_sheet({grey, grey, grey}, 2, 1);
  CHECK(sheet.shape() == Shape{5, 5, 3});
  CHECK(sheet.to_vector()[2 * 3] == 255);                // the gap
  CHECK(sheet.to_vector()[(4 * 5 + 1) * 3] == 255);      // last pixel of the third image
  CHECK(sheet.to_vector()[(4 * 5 + 3) * 3 + 1] == 255);  // nothing there
  CHECK_THROWS_AS(contact_sheet({grey, large}, 2), argument_error);
  CHECK_THROWS_AS(enlarge(grey, 0), argument_error);
}

TEST_CASE("names of classes are kept as lines") {
  using Names = std::vector<std::string>;
  CHECK(split_lines(join_lines({"a", "b c"})) == Names{"a", "b c"});
  CHECK(split_lines("").empty());
}

TEST_CASE("this machine is known") {
  const Machine machine = this_machine();
  CHECK(!machine.cpu.empty());
  CHECK(machine.cores >= 1);
  CHECK(machine.memory_bytes > machine.free_memory_bytes);
  CHECK(!machine.openblas.empty());
}
