// Data sets on disk: where they are looked for, what is refused, how they are divided.
#include "data/dataset.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <set>
#include <sstream>

#include "../environment.h"
#include "data/formats/image.h"
#include "data/sets/sets.h"
#include "kernels/random.h"
#include "skip.h"
#include "support.h"

using namespace stairgrad;
using namespace stairgrad::data;

namespace {

Bytes idx(std::initializer_list<uint8_t> extents, const Bytes& elements) {
  Bytes bytes = {0, 0, 8, static_cast<uint8_t>(extents.size())};
  for (const uint8_t e : extents) bytes = std::move(bytes) + Bytes{0, 0, 0, e};
  return bytes + elements;
}

/// A training set of three 2 x 2 pictures with these labels.
void write_mnist(const TemporaryFolder& folder, const std::string& prefix, const Bytes& labels) {
  folder.file(prefix + "train-images-idx3-ubyte",
              idx({3, 2, 2}, Bytes{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}));
  folder.file(prefix + "train-labels-idx1-ubyte", idx({static_cast<uint8_t>(labels.size())}, labels));
}

void write_cifar10(const TemporaryFolder& folder, const std::string& name, int records, uint8_t label) {
  Bytes bytes;
  for (int i = 0; i < records; ++i)
    bytes = std::move(bytes) + Bytes{label} + Bytes(3072, static_cast<uint8_t>(i));
  folder.file("cifar-10-batches-bin/" + name, bytes);
}

void write_picture(const TemporaryFolder& folder, const std::string& name, int64_t h, int64_t w,
                   double value) {
  folder.file(name, encode_png(Array::full({h, w, 3}, value, DType::u8)));
}

/// What `work` writes to standard error.
template <class Work>
std::string printed(Work&& work) {
  std::ostringstream out;
  const auto restore = [](std::streambuf* before) { std::cerr.rdbuf(before); };
  const std::unique_ptr<std::streambuf, void (*)(std::streambuf*)> guard(std::cerr.rdbuf(out.rdbuf()),
                                                                         restore);
  work();
  return out.str();
}

/// Loads real data, or prints why the test is skipped.
std::optional<Dataset> real(const std::string& name, Split split) {
  try {
    return load_dataset(name, "", split);
  } catch (const unavailable_error& error) {
    skip(error.what());
    return std::nullopt;
  }
}

}  // namespace

TEST_CASE("MNIST: pictures, labels and names; the folder itself or the one above it") {
  const TemporaryFolder folder;
  write_mnist(folder, "mnist/", {7, 0, 9});
  for (const std::string& dir : {folder.path(), folder / "mnist"}) {
    const Dataset dataset = load_dataset("mnist", dir);
    CHECK(dataset.size() == 3);
    CHECK(dataset.image_shape == Shape{2, 2, 1});
    CHECK(dataset.labels == std::vector<int32_t>{7, 0, 9});
    CHECK(dataset.image(1).to_vector() == std::vector<double>{5, 6, 7, 8});
    CHECK(dataset.classes() == 10);
  }
  CHECK_THROWS_AS(load_dataset("mnist", folder.path(), Split::test), unavailable_error);
}

TEST_CASE("MNIST: numbers of pictures and labels differ, labels out of range, extents of the wrong kind") {
  const TemporaryFolder folder;
  const auto load = [&] { load_dataset("fashion-mnist", folder.path()); };
  write_mnist(folder, "", {7, 0});
  CHECK(contains(refusal(load), "got 2 labels for the 3 images"));
  write_mnist(folder, "", {7, 0, 10});
  CHECK(contains(refusal(load), "train-labels-idx1-ubyte (byte 10): label 2 is 10, expected 0 to 9"));
  folder.file("train-labels-idx1-ubyte", idx({3, 1}, {0, 0, 0}));
  CHECK(contains(refusal(load), "expected (n)"));
  folder.file("train-images-idx3-ubyte", idx({3}, {0, 0, 0}));
  CHECK(contains(refusal(load), "expected (n,h,w)"));
  std::filesystem::remove(folder / "train-labels-idx1-ubyte");
  CHECK(contains(refusal(load), "cannot be opened"));
}

TEST_CASE("missing data: the message names the folders tried and how to get the data") {
  const TemporaryFolder folder;
  for (const char* name : {"fashion-mnist", "mnist", "cifar10", "cifar100"}) {
    CHECK_THROWS_WITH_AS(load_dataset(name, folder / "absent"), doctest::Contains("data/get.sh"),
                         unavailable_error);
    CHECK_THROWS_WITH_AS(load_dataset(name, folder / "absent"),
                         doctest::Contains((folder / "absent").c_str()), unavailable_error);
  }
  CHECK_THROWS_WITH(load_dataset("fashion-mnist", folder.path()), doctest::Contains("dataset-fashion-mnist"));
  CHECK_THROWS_WITH_AS(load_dataset("cifar11"), doctest::Contains("cifar10, cifar100"), argument_error);
  CHECK_THROWS_AS(load_dataset("folder"), argument_error);
  CHECK_THROWS_AS(split_named("dev"), argument_error);
  CHECK(split_named("validation") == Split::validation);
}

TEST_CASE("where data lies: STAIRGRAD_DATA before XDG_CACHE_HOME before ~/.cache") {
  const TemporaryFolder a, b, c;
  write_mnist(a, "mnist/", {1, 1, 1});
  write_mnist(b, "stairgrad/mnist/", {2, 2, 2});
  write_mnist(c, ".cache/stairgrad/mnist/", {3, 3, 3});
  const auto label = [] { return load_dataset("mnist").labels[0]; };
  const Environment home("HOME", c.path());
  {
    const Environment cache("XDG_CACHE_HOME", b.path());
    {
      const Environment data("STAIRGRAD_DATA", a.path());
      CHECK(label() == 1);
    }
    const Environment data("STAIRGRAD_DATA", "");
    CHECK(label() == 2);
  }
  const Environment cache("XDG_CACHE_HOME", ""), data("STAIRGRAD_DATA", "");
  CHECK(label() == 3);
}

TEST_CASE("CIFAR-10: five training files in order, one test file") {
  const TemporaryFolder folder;
  for (uint8_t i = 1; i <= 5; ++i) write_cifar10(folder, "data_batch_" + std::to_string(i) + ".bin", 2, i);
  write_cifar10(folder, "test_batch.bin", 3, 9);
  Dataset train;
  const std::string warnings = printed([&] { train = load_dataset("cifar10", folder.path()); });
  CHECK(contains(warnings, "data_batch_5.bin has 2 records, the published file has 10000"));
  CHECK(printed([&] { load_dataset("cifar10", folder.path()); }).empty());  // once
  CHECK(train.labels == std::vector<int32_t>{1, 1, 2, 2, 3, 3, 4, 4, 5, 5});
  CHECK(train.image(9).to_vector() == std::vector<double>(3072, 1));
  CHECK(load_dataset("cifar10", folder.path(), Split::test).labels == std::vector<int32_t>{9, 9, 9});
  std::filesystem::remove(folder / "cifar-10-batches-bin/data_batch_4.bin");
  CHECK(contains(refusal([&] { load_dataset("cifar10", folder.path()); }), "data_batch_4.bin"));
}

TEST_CASE("CIFAR-10: a record or a byte too many") {
  const TemporaryFolder folder;
  write_cifar10(folder, "test_batch.bin", 10001, 3);
  const auto load = [&] { return load_dataset("cifar10", folder.path(), Split::test).size(); };
  CHECK(contains(printed([&] { CHECK(load() == 10001); }),
                 "test_batch.bin has 10001 records, the published file has 10000"));
  std::ofstream(folder / "cifar-10-batches-bin/test_batch.bin", std::ios::app) << '\3';
  CHECK(contains(refusal(load),
                 "test_batch.bin (byte 30733073): got 30733074 bytes, expected a multiple of 3073"));
}

TEST_CASE("CIFAR: a file cut at the end of a record is told by its number of records") {
  CHECK(count_warning("f", 10000, 10000).empty());
  CHECK(contains(count_warning("f", 9999, 10000), "f has 9999 records, the published file has 10000"));
}

TEST_CASE("CIFAR-100: fine labels with their names") {
  const TemporaryFolder folder;
  folder.file("cifar-100-binary/test.bin", Bytes{3, 42} + Bytes(3072, 5));
  std::string names;
  for (int i = 0; i < 100; ++i) names += "name" + std::to_string(i) + "\r\n";
  folder.file("cifar-100-binary/fine_label_names.txt", names);
  const Dataset test = load_dataset("cifar100", folder.path(), Split::test);
  CHECK(test.labels == std::vector<int32_t>{42});
  CHECK(test.class_names[42] == "name42");
  folder.file("cifar-100-binary/fine_label_names.txt", "apple\n");
  CHECK(contains(refusal([&] { load_dataset("cifar100", folder.path(), Split::test); }),
                 "got 1 class names, expected 100"));
}

TEST_CASE("fit and validation divide train, the same way each time") {
  const Dataset train = load_dataset("synthetic"), fit = load_dataset("synthetic", "", Split::fit),
                validation = load_dataset("synthetic", "", Split::validation);
  CHECK(validation.size() == 1000);
  CHECK(fit.size() + validation.size() == train.size());
  const auto fingerprint = [](const Dataset& dataset, int64_t i) {
    const Array image = dataset.image(i);
    return std::vector<uint8_t>(image.data<uint8_t>(), image.data<uint8_t>() + 30);
  };
  std::set<std::vector<uint8_t>> all;
  for (const Dataset* part : {&fit, &validation})
    for (int64_t i = 0; i < part->size(); ++i) all.insert(fingerprint(*part, i));
  CHECK(static_cast<int64_t>(all.size()) == train.size());
  CHECK(load_dataset("synthetic", "", Split::validation).labels == validation.labels);
  // The division itself, once and for all: results on `validation` must stay comparable.
  const TemporaryFolder folder;
  folder.file("train-images-idx3-ubyte",
              idx({20, 1, 1}, Bytes{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}));
  folder.file("train-labels-idx1-ubyte", idx({20}, Bytes(20, 0)));
  const Dataset held_out = load_dataset("mnist", folder.path(), Split::validation);
  std::vector<double> picked;
  for (int64_t i = 0; i < held_out.size(); ++i) picked.push_back(held_out.image(i).item());
  CHECK(picked == std::vector<double>{5, 6, 7, 8, 11, 12, 13, 14, 16, 19});
}

TEST_CASE("subset, first, dataset_of: order and checks") {
  const Array images = Array::of<uint8_t>({10, 11, 12}, {3, 1, 1, 1});
  const Dataset dataset = dataset_of("d", images, {0, 1, 0}, {"a", "b"});
  const Dataset part = subset(dataset, {2, 2, 1});
  CHECK(part.labels == std::vector<int32_t>{0, 0, 1});
  CHECK(part.image(0).item() == 12);
  CHECK(part.image(2).item() == 11);
  CHECK(first(dataset, 2).size() == 2);
  CHECK(first(dataset, 9).size() == 3);
  CHECK_THROWS_AS(subset(dataset, {3}), argument_error);
  CHECK_THROWS_AS(dataset_of("d", images, {0, 1}, {"a", "b"}), argument_error);
  CHECK_THROWS_AS(dataset_of("d", images, {0, 1, 2}, {"a", "b"}), argument_error);
  CHECK_THROWS_AS(dataset_of("d", images, {0, 1, -1}, {"a", "b"}), argument_error);
  CHECK_THROWS_AS(dataset_of("d", Array({3, 1, 1, 1}), {0, 1, 0}, {"a", "b"}), argument_error);
}

TEST_CASE("folder: classes by bytes, hidden and foreign files left out, sizes of their own") {
  const TemporaryFolder folder;
  write_picture(folder, "b/2.png", 3, 4, 20);
  write_picture(folder, "b/10.PNG", 5, 6, 10);
  write_picture(folder, "a/x.jpeg", 1, 1, 30);  // a PNG by content: the content decides
  write_picture(folder, "Z/x.png", 1, 1, 40);
  write_picture(folder, ".git/x.png", 1, 1, 50);
  write_picture(folder, "a/.hidden.png", 1, 1, 60);
  folder.file("a/notes.txt", "no picture");
  std::filesystem::create_directory_symlink(folder.path(), folder / "a/loop");
  const Dataset dataset = load_dataset("folder", folder.path());
  CHECK(dataset.class_names == std::vector<std::string>{"Z", "a", "b"});
  CHECK(dataset.labels == std::vector<int32_t>{0, 1, 2, 2});
  CHECK(dataset.image_shape == Shape{0, 0, 3});
  CHECK(dataset.image(2).shape() == Shape{5, 6, 3});
  CHECK(dataset.image(3).to_vector()[0] == 20);

  write_picture(folder, "A/x.png", 1, 1, 1);
  CHECK(contains(refusal([&] { load_dataset("folder", folder.path()); }),
                 "the classes A and a differ by case only"));
}

TEST_CASE("folder: val is numbered by the classes of train") {
  const TemporaryFolder folder;
  for (const char* name : {"train/ant/1.png", "train/bee/1.png", "train/cat/1.png", "val/cat/1.png"})
    write_picture(folder, name, 1, 1, 1);
  const auto load = [&] { return load_dataset("folder", folder.path(), Split::test); };
  CHECK(load().labels == std::vector<int32_t>{2});
  CHECK(load().class_names == std::vector<std::string>{"ant", "bee", "cat"});
  write_picture(folder, "val/cow/1.png", 1, 1, 1);
  CHECK(contains(refusal(load), "val/cow (byte 0): the class cow has no folder among those to train on"));
}

TEST_CASE("folder: links out of the data set, links to themselves, and the report of what is skipped") {
  const TemporaryFolder folder, outside;
  write_picture(folder, "train/a/1.png", 1, 1, 1);
  write_picture(folder, "train/a/2.png", 1, 1, 2);
  write_picture(outside, "secret.png", 1, 1, 3);
  write_picture(folder, "elsewhere/3.png", 1, 1, 4);
  folder.file("train/a/notes.txt", "no picture");
  std::filesystem::create_symlink("self", folder / "train/a/self");
  std::filesystem::create_symlink("self.png", folder / "train/a/self.png");
  std::filesystem::create_symlink("nothing", folder / "train/b");
  std::filesystem::create_symlink(outside / "secret.png", folder / "train/a/secret.png");
  std::filesystem::create_symlink(folder / "elsewhere/3.png", folder / "train/a/3.png");  // inside: followed

  Dataset dataset;
  const auto load = [&] { dataset = load_dataset("folder", folder.path()); };
  const std::string report = printed(load);
  CHECK(dataset.labels == std::vector<int32_t>{0, 0, 0});
  CHECK(dataset.image(2).to_vector()[0] == 4);
  CHECK(contains(report, folder.path() + ": 5 entries"));
  for (const char* name :
       {"train/a/notes.txt", "train/a/self,", "train/a/self.png", "train/a/secret.png", "train/b"})
    CHECK(contains(report, folder / name));
  CHECK(printed(load).empty());  // once

  std::filesystem::create_directory_symlink(outside.path(), folder / "train/c");
  CHECK(contains(refusal(load), "train/c (byte 0): the link leads out of the data set"));
  std::filesystem::remove(folder / "train/c");
  std::filesystem::create_symlink("val", folder / "val");
  CHECK(contains(refusal([&] { load_dataset("folder", folder.path(), Split::test); }),
                 "val (byte 0): it cannot be examined"));
  std::filesystem::create_symlink(outside / "secret.png", folder / "p.png");
  folder.file("labels.tsv", "file\tclass\np.png\t0\n");
  CHECK(contains(refusal(load), "p.png (byte 0): the link leads out"));
}

TEST_CASE("folder: train and val; an empty class; no pictures; no folder") {
  const TemporaryFolder folder;
  write_picture(folder, "train/a/1.png", 1, 1, 1);
  CHECK_THROWS_WITH_AS(load_dataset("folder", folder.path(), Split::test),
                       doctest::Contains("neither val nor test"), unavailable_error);
  write_picture(folder, "val/a/2.png", 1, 1, 2);
  CHECK(load_dataset("folder", folder.path()).image(0).to_vector()[0] == 1);
  CHECK(load_dataset("folder", folder.path(), Split::test).image(0).to_vector()[0] == 2);
  std::filesystem::create_directory(folder / "train/empty");
  CHECK_THROWS_WITH_AS(load_dataset("folder", folder.path()), doctest::Contains("has no pictures"),
                       unavailable_error);
  CHECK_THROWS_WITH_AS(load_dataset("folder", folder / "absent"), doctest::Contains("no folder"),
                       unavailable_error);
  const TemporaryFolder empty;
  CHECK_THROWS_AS(load_dataset("folder", empty.path()), unavailable_error);
}

TEST_CASE("folder: files of random bytes under the names of pictures") {
  const TemporaryFolder folder;
  Bytes noise;
  for (uint64_t i = 0; i < 5000; ++i) noise.push_back(static_cast<uint8_t>(Philox(3).below(i, 256)));
  for (const char* name : {"a/x.jpg", "a/x.jpeg", "a/x.png"}) folder.file(name, noise);
  const Dataset dataset = load_dataset("folder", folder.path());
  REQUIRE(dataset.size() == 3);
  for (int64_t i = 0; i < 3; ++i)
    CHECK(contains(refusal([&] { dataset.image(i); }), "this is neither a PNG nor a JPEG picture"));
}

TEST_CASE("folder: pictures to train on have edges of at most 4,096 pixels, others of 16,384") {
  const TemporaryFolder folder;
  write_picture(folder, "a/1.png", 1, 4096, 9);
  write_picture(folder, "a/2.png", 4097, 1, 9);
  const Dataset train = load_dataset("folder", folder.path(), Split::train);
  CHECK(train.image(0).shape() == Shape{1, 4096, 3});
  CHECK(contains(refusal([&] { train.image(1); }), "got a picture of 1 x 4097 pixels, the limits are 4096"));
  CHECK(load_dataset("folder", folder.path(), Split::test).image(1).shape() == Shape{4097, 1, 3});
}

TEST_CASE("folder: a class whose name no model file could hold") {
  const TemporaryFolder folder;
  write_picture(folder, "b\xe4r/p.png", 2, 2, 9);
  CHECK(contains(refusal([&] { load_dataset("folder", folder.path()); }),
                 "is no text in UTF-8; rename the folder"));
}

TEST_CASE("folder: Tiny-ImageNet's layout") {
  const TemporaryFolder folder;
  write_picture(folder, "train/n01/images/n01_0.png", 2, 2, 1);
  write_picture(folder, "train/n02/images/n02_0.png", 2, 2, 2);
  write_picture(folder, "val/images/val_0.png", 2, 2, 3);
  folder.file("val/val_annotations.txt", "val_0.png\tn02\t0\t0\t1\t1\n");
  CHECK(load_dataset("folder", folder.path()).labels == std::vector<int32_t>{0, 1});
  const Dataset test = load_dataset("folder", folder.path(), Split::test);
  CHECK(test.labels == std::vector<int32_t>{1});
  CHECK(test.image(0).to_vector()[0] == 3);
  const auto load = [&] { load_dataset("folder", folder.path(), Split::test); };
  folder.file("val/val_annotations.txt", "val_0.png\tn03\n");
  CHECK(contains(refusal(load), "the class n03 has no folder"));
  folder.file("val/val_annotations.txt", "val_0.png\tn01\nval_0.png\n");
  CHECK(contains(refusal(load), "val_annotations.txt (byte 14): line 2"));
  CHECK(contains(refusal(load), "has no class"));
  folder.file("val/val_annotations.txt", "../../../secret.png\tn01\n");
  CHECK(contains(refusal(load), "expected a plain name"));
}

TEST_CASE("folder: a table of files and classes") {
  const TemporaryFolder folder;
  write_picture(folder, "p.png", 2, 2, 9);
  folder.file("labels.tsv", "file\tclass\twnid\tname\np.png\t2\tn01\ttench\n");
  const Dataset dataset = load_dataset("folder", folder.path(), Split::test);
  CHECK(dataset.labels == std::vector<int32_t>{2});
  CHECK(dataset.class_names == std::vector<std::string>{"class 0", "class 1", "tench"});
  const auto refused = [&](const std::string& table) {
    folder.file("labels.tsv", table);
    return refusal([&] { load_dataset("folder", folder.path()); });
  };
  CHECK(contains(refused("p.png\t2\n"), "expected the columns file and class"));
  CHECK(contains(refused(""), "the file is empty"));
  CHECK(contains(refused("file\tclass\np.png\n"), "line 2: got 1 columns, expected 2"));
  CHECK(contains(refused("file\tclass\np.png\t-1\n"), "got the class \"-1\""));
  CHECK(contains(refused("file\tclass\np.png\t99999999999999999999\n"), "expected a number"));
  CHECK(contains(refused("file\tclass\n../p.png\t1\n"), "expected a plain name"));
}

TEST_CASE("synthetic: ten balanced classes, the same bytes each time, train unlike test") {
  const Dataset train = load_dataset("synthetic"), test = load_dataset("synthetic", "", Split::test);
  CHECK(train.size() == 10000);
  CHECK(test.size() == 2000);
  CHECK(train.image(5).to_vector() == load_dataset("synthetic").image(5).to_vector());
  CHECK(train.image(5).to_vector() != test.image(5).to_vector());
}

TEST_CASE("Fashion-MNIST: the real files") {
  const auto train = real("fashion-mnist", Split::train), test = real("fashion-mnist", Split::test);
  if (!train || !test) return;
  CHECK(train->size() == 60000);
  CHECK(test->size() == 10000);
  CHECK(train->image_shape == Shape{28, 28, 1});
  std::map<int32_t, int> histogram;
  for (const int32_t label : train->labels) ++histogram[label];
  for (const auto& [label, count] : histogram) CHECK(count == 6000);
  CHECK(test->labels[0] == 9);  // an ankle boot
}

TEST_CASE("CIFAR-10: the real files, their means, and the fixed division") {
  const auto train = real("cifar10", Split::train), fit = real("cifar10", Split::fit);
  if (!train || !fit) return;
  CHECK(train->size() == 50000);
  CHECK(fit->size() == 45000);
  double sums[3] = {};
  for (int64_t i = 0; i < train->size(); ++i) {
    const Array image = train->image(i);
    for (int64_t p = 0; p < image.size(); ++p) sums[p % 3] += image.data<uint8_t>()[p];
  }
  const double expected[] = {.49139968, .48215841, .44653091};
  for (int c = 0; c < 3; ++c)
    CHECK(sums[c] / (50000.0 * 1024 * 255) == doctest::Approx(expected[c]).epsilon(1e-6));
}

TEST_CASE("CIFAR-100: the real files") {
  const auto test = real("cifar100", Split::test);
  if (!test) return;
  CHECK(test->size() == 10000);
  std::map<int32_t, int> histogram;
  for (const int32_t label : test->labels) ++histogram[label];
  for (const auto& [label, count] : histogram) CHECK(count == 100);
  CHECK(test->class_names[0] == "apple");
}
