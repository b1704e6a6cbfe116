// Tables of labels, and names of classes.
#include "data/formats/labels.h"

#include <doctest/doctest.h>

#include "support.h"

using namespace stairgrad;
using namespace stairgrad::data;

namespace {

using namespace std::string_literals;
using Names = std::vector<std::string>;

LabelTable labels(std::string_view words) { return parse_labels(bytes_of(words), "f"); }
Names names(std::string_view words) { return parse_class_names(bytes_of(words), "f"); }
std::string labels_refusal(std::string_view words) {
  return refusal([&] { labels(words); });
}
std::string names_refusal(std::string_view words) {
  return refusal([&] { names(words); });
}

}  // namespace

TEST_CASE("labels: files, classes and their names") {
  const LabelTable table =
      labels("file\tclass\twnid\tname\r\np.png\t2\tn01\ttench\r\nq q.png\t0\tn02\tgoldfisch\n");
  CHECK(table.files == Names{"p.png", "q q.png"});
  CHECK(table.labels == std::vector<int32_t>{2, 0});
  CHECK(table.class_names == Names{"goldfisch", "class 1", "tench"});
  CHECK(labels("file\tclass\na\t1").class_names == Names{"class 0", "class 1"});
  CHECK(labels("file\tclass\n").files.empty());
}

TEST_CASE("labels: what is refused, and where") {
  CHECK(has(labels_refusal(""), "the file is empty"));
  CHECK(has(labels_refusal("<!doctype html>"), "HTML page"));
  CHECK(has(labels_refusal("a.png\t1\n"), "f (byte 0): line 1: expected the columns file and class"));
  CHECK(has(labels_refusal("\xef\xbb\xbf"
                           "file\tclass\n"),
            "line 1: expected the columns"));
  CHECK(has(labels_refusal("file\tclass\na\t1\nb\n"), "f (byte 15): line 3: got 1 columns, expected 2"));
  CHECK(has(labels_refusal("file\tclass\na\t1\n\n"), "line 3: got 0 columns"));
  CHECK(has(labels_refusal("file\tclass\na\t1\tx\n"), "line 2: got 3 columns"));
  for (const char* number : {"-1", "1.5", "x", " 1", "100000", "99999999999999999999", "0x1"})
    CHECK(has(labels_refusal(text("file\tclass\na\t", number, "\n")), "expected a number from 0 to 99999"));
  for (const char* file : {"", "../a", ".a", "/etc/passwd", "b/a", ".."})
    CHECK(has(labels_refusal(text("file\tclass\n", file, "\t1\n")), "expected a plain name"));
  for (const std::string& cell : {"\xff"s, "\xc3"s, "a\x01"s, "\x7f"s, "\xed\xa0\x80"s, "\0"s})
    CHECK(has(labels_refusal("file\tclass\na" + cell + "\t1\n"), "line 2: it is no text in UTF-8"));
}

TEST_CASE("names of classes are lines, or a column of a table") {
  CHECK(names("cat\nEgyptian cat\r\n") == Names{"cat", "Egyptian cat"});
  CHECK(names("file\tclass\tname\na.jpg\t2\tcat\nb.jpg\t0\tdog\n") == Names{"dog", "class 1", "cat"});
  CHECK(has(names_refusal(""), "the file is empty"));
  CHECK(has(names_refusal("cat\n\ndog\n"), "f (byte 4): line 2: expected one name"));
  CHECK(has(names_refusal("cat\ndog\tcow\n"), "line 2: expected one name"));
  CHECK(has(names_refusal("file\tname\na.jpg\tcat\n"), "line 1: expected the columns class and name"));
  CHECK(has(names_refusal("class\tname\nx\tcat\n"), "line 2: got the class \"x\""));
  CHECK(has(names_refusal("class\tname\n1\n"), "line 2: got 1 columns"));
  CHECK(has(refusal([] { read_class_names("absent"); }), "cannot be opened"));
}
